// Maps, [sample, pixel, channel], element by element: activations, a number for each channel, channels taken and shuffled, pooling by attention.
#include "common.cuh"

// As `Activation` of mixskd-cuda counts them.
enum Activation : u32 { RELU, RELU6, SILU, SIGMOID, TANH };

// Comparisons are written so that NaN passes.
__device__ inline float activated(float x, u32 kind) {
    switch (kind) {
    case RELU: return x < 0 ? 0.0f : x;
    case RELU6: return x < 0 ? 0.0f : x > 6 ? 6.0f : x;
    case SILU: return x * sigmoid(x);
    case SIGMOID: return sigmoid(x);
    default: return tanhf(x);
    }
}

__device__ inline float slope(float x, u32 kind) {
    switch (kind) {
    case RELU: return x > 0 ? 1.0f : 0.0f;
    case RELU6: return x > 0 && x < 6 ? 1.0f : 0.0f;
    case SILU: return sigmoid(x) * (1 + x * sigmoid(-x));
    case SIGMOID: return sigmoid(x) * sigmoid(-x);
    default: return 1 - tanhf(x) * tanhf(x);
    }
}

// Grid: packs / BLOCK.
template <class T, u32 V> __device__ void activate(const T *x, T *y, u32 packs, u32 kind) {
    u64 i = thread_index();
    if (i >= packs) return;
    Pack<T, V> in = load<T, V>(x + i * V), out;
    for (u32 k = 0; k < V; k++) out.v[k] = narrow<T>(activated(widen(in.v[k]), kind));
    store<T, V>(y + i * V, out);
}
#define PARAMETERS(T) (const T *x, T *y, u32 packs, u32 kind)
PACKED(activate, PARAMETERS, (x, y, packs, kind))
#undef PARAMETERS

// Grid: packs / BLOCK.
template <class T, u32 V> __device__ void activate_backward(const T *x, const T *dy, T *dx, u32 packs, u32 kind) {
    u64 i = thread_index();
    if (i >= packs) return;
    Pack<T, V> in = load<T, V>(x + i * V), g = load<T, V>(dy + i * V), out;
    for (u32 k = 0; k < V; k++) out.v[k] = narrow<T>(widen(g.v[k]) * slope(widen(in.v[k]), kind));
    store<T, V>(dx + i * V, out);
}
#define PARAMETERS(T) (const T *x, const T *dy, T *dx, u32 packs, u32 kind)
PACKED(activate_backward, PARAMETERS, (x, dy, dx, packs, kind))
#undef PARAMETERS

// y = x times, or plus, one of `numbers` for each channel of `pixels` pixels in a row. Grid: packs / BLOCK.
template <class T, class O, u32 V>
__device__ void per_channel(const T *x, const O *numbers, T *y, u32 packs, u32 pixels, u32 channels, u32 times) {
    u64 i = thread_index();
    if (i >= packs) return;
    u32 width = channels / V, pixel = (u32)i / width, c = ((u32)i - pixel * width) * V;
    const O *own = numbers + (u64)(pixel / pixels) * channels + c;
    Pack<T, V> in = load<T, V>(x + i * V), out;
    for (u32 k = 0; k < V; k++) {
        float value = widen(in.v[k]), number = widen(own[k]);
        out.v[k] = narrow<T>(times ? value * number : value + number);
    }
    store<T, V>(y + i * V, out);
}

// Σ dy·x, or Σ dy without x, of each channel over `pixels` pixels in a row. Grid: (channels / ACROSS, how often there are so many).
template <class T, class O>
__device__ void per_channel_sums(const T *x, const T *dy, O *sums, u32 pixels, u32 channels) {
    u64 first = (u64)blockIdx.y * pixels * channels;
    float total = down_rows_of<4>(pixels, channels, [&](u32 p, u32 c) {
        u64 at = first + (u64)p * channels + c;
        return x ? widen(dy[at]) * widen(x[at]) : widen(dy[at]);
    });
    u32 c = blockIdx.x * ACROSS + threadIdx.x;
    if (threadIdx.x < ACROSS && c < channels) sums[(u64)blockIdx.y * channels + c] = narrow<O>(total);
}

// Type of the map, type of the numbers, elements of a pack.
#define PER_CHANNEL(T, O, V)                                                                                          \
    KERNEL void per_channel_##T##_##O##_1(const T *x, const O *numbers, T *y, u32 packs, u32 pixels, u32 channels,    \
                                          u32 times) {                                                                \
        per_channel<T, O, 1>(x, numbers, y, packs, pixels, channels, times);                                          \
    }                                                                                                                 \
    KERNEL void per_channel_##T##_##O##_##V(const T *x, const O *numbers, T *y, u32 packs, u32 pixels, u32 channels,  \
                                            u32 times) {                                                              \
        per_channel<T, O, V>(x, numbers, y, packs, pixels, channels, times);                                          \
    }                                                                                                                 \
    KERNEL void per_channel_sums_##T##_##O(const T *x, const T *dy, O *sums, u32 pixels, u32 channels) {              \
        per_channel_sums<T, O>(x, dy, sums, pixels, channels);                                                        \
    }                                                                                                                 \
    REGISTER(per_channel_##T##_##O##_1)                                                                               \
    REGISTER(per_channel_##T##_##O##_##V)                                                                             \
    REGISTER(per_channel_sums_##T##_##O)
PER_CHANNEL(f32, f32, 4)
PER_CHANNEL(bf16, bf16, 8)
PER_CHANNEL(bf16, f32, 8)

// Channels from `first` on of pixels of `channels`, to pixels of `count`; or back to where they were, with zeros beside them.
// Grid: packs of what is written / BLOCK.
template <class T, u32 V>
__device__ void take_channels(const T *x, T *y, u32 packs, u32 channels, u32 first, u32 count, u32 back) {
    u64 i = thread_index();
    if (i >= packs) return;
    u32 width = (back ? channels : count) / V, pixel = (u32)i / width, c = ((u32)i - pixel * width) * V;
    Pack<T, V> out;
    if (back) {
        // Before the first this wraps round, to behind the last.
        u32 at = c - first;
        if (at < count) out = load<T, V>(x + (u64)pixel * count + at);
        else
            for (u32 k = 0; k < V; k++) out.v[k] = narrow<T>(0);
    } else {
        out = load<T, V>(x + (u64)pixel * channels + first + c);
    }
    store<T, V>(y + i * V, out);
}
#define PARAMETERS(T) (const T *x, T *y, u32 packs, u32 channels, u32 first, u32 count, u32 back)
PACKED(take_channels, PARAMETERS, (x, y, packs, channels, first, count, back))
#undef PARAMETERS

// Channel g·channels/groups + i to channel i·groups + g. Grid: elements / BLOCK.
template <class T> __device__ void shuffle_channels(const T *x, T *y, u32 elements, u32 channels, u32 groups) {
    u64 i = thread_index();
    if (i >= elements) return;
    u32 c = (u32)i % channels;
    y[i] = x[i - c + c % groups * (channels / groups) + c / groups];
}
#define PARAMETERS(T) (const T *x, T *y, u32 elements, u32 channels, u32 groups)
BOTH(shuffle_channels, PARAMETERS, (x, y, elements, channels, groups))
#undef PARAMETERS

// What each pixel of a sample has of it: the softmax of their scores. Grid: batch.
template <class T> __device__ void attention_shares(const T *scores, float *shares, u32 pixels) {
    const T *own = scores + (u64)blockIdx.x * pixels;
    float top = -CUDART_INF_F, sum = 0;
    for (u32 p = threadIdx.x; p < pixels; p += BLOCK) top = fmaxf(top, widen(own[p]));
    top = block_max(top);
    for (u32 p = threadIdx.x; p < pixels; p += BLOCK) sum += expf(widen(own[p]) - top);
    sum = block_sum(sum);
    for (u32 p = threadIdx.x; p < pixels; p += BLOCK)
        shares[(u64)blockIdx.x * pixels + p] = expf(widen(own[p]) - top) / sum;
}
#define PARAMETERS(T) (const T *scores, float *shares, u32 pixels)
BOTH(attention_shares, PARAMETERS, (scores, shares, pixels))
#undef PARAMETERS

// y_c = Σ share·x_c over a sample's pixels. Grid: (channels / ACROSS, batch).
template <class T> __device__ void attention_pool(const T *x, const float *shares, T *y, u32 pixels, u32 channels) {
    u64 first = (u64)blockIdx.y * pixels;
    float total = down_rows_of<4>(pixels, channels, [&](u32 p, u32 c) {
        return shares[first + p] * widen(x[(first + p) * channels + c]);
    });
    u32 c = blockIdx.x * ACROSS + threadIdx.x;
    if (threadIdx.x < ACROSS && c < channels) y[(u64)blockIdx.y * channels + c] = narrow<T>(total);
}
#define PARAMETERS(T) (const T *x, const float *shares, T *y, u32 pixels, u32 channels)
BOTH(attention_pool, PARAMETERS, (x, shares, y, pixels, channels))
#undef PARAMETERS

// The scores' gradients, share_p·(product_p − Σ_q share_q·product_q), and `products`, of x and dy at each pixel. Grid: batch.
template <class T>
__device__ void attention_scores_backward(const T *x, const T *dy, const float *shares, float *products, T *d_scores, u32 pixels,
                                          u32 channels) {
    constexpr u32 depth = BLOCK / ACROSS;
    __shared__ float part[depth][ACROSS];
    u32 lane = threadIdx.x % ACROSS, line = threadIdx.x / ACROSS;
    u64 first = (u64)blockIdx.x * pixels;
    const T *incoming = dy + (u64)blockIdx.x * channels;
    for (u32 start = 0; start < pixels; start += depth) {
        u32 p = start + line;
        float sum = 0;
        if (p < pixels) {
            const T *pixel = x + (first + p) * channels;
            for (u32 c = lane; c < channels; c += ACROSS) sum = fmaf(widen(pixel[c]), widen(incoming[c]), sum);
        }
        part[line][lane] = sum;
        __syncthreads();
        if (lane == 0 && p < pixels) {
            float total = 0;
            for (u32 k = 0; k < ACROSS; k++) total += part[line][k];
            products[first + p] = total;
        }
        __syncthreads();
    }
    float mean = 0;
    for (u32 p = threadIdx.x; p < pixels; p += BLOCK) mean = fmaf(shares[first + p], products[first + p], mean);
    mean = block_sum(mean);
    for (u32 p = threadIdx.x; p < pixels; p += BLOCK)
        d_scores[first + p] = narrow<T>(shares[first + p] * (products[first + p] - mean));
}
#define PARAMETERS(T)                                                                                                 \
    (const T *x, const T *dy, const float *shares, float *products, T *d_scores, u32 pixels, u32 channels)
BOTH(attention_scores_backward, PARAMETERS, (x, dy, shares, products, d_scores, pixels, channels))
#undef PARAMETERS

// dx = share·dy. Grid: packs of inputs / BLOCK.
template <class T, u32 V>
__device__ void attention_backward(const T *dy, const float *shares, T *dx, u32 packs, u32 pixels, u32 channels) {
    u64 i = thread_index();
    if (i >= packs) return;
    u32 width = channels / V, pixel = (u32)i / width, c = ((u32)i - pixel * width) * V;
    const T *incoming = dy + (u64)(pixel / pixels) * channels + c;
    float share = shares[pixel];
    Pack<T, V> out;
    for (u32 k = 0; k < V; k++) out.v[k] = narrow<T>(share * widen(incoming[k]));
    store<T, V>(dx + i * V, out);
}
#define PARAMETERS(T) (const T *dy, const float *shares, T *dx, u32 packs, u32 pixels, u32 channels)
PACKED(attention_backward, PARAMETERS, (dy, shares, dx, packs, pixels, channels))
#undef PARAMETERS

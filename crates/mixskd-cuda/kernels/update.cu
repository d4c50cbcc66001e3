// Interpolation between samples, weights in the convolution's order, and batches of images.
#include "common.cuh"
#include "turned.cuh"

// y_i = λ_i·x_i + (1 − λ_i)·x_π(i). Grid: (parts, batch).
template <class T>
__device__ void interpolate(const T *x, const u32 *partner, const float *lambda, T *y, u32 length) {
    u64 row = (u64)blockIdx.y * length, other = (u64)partner[blockIdx.y] * length;
    float l = lambda[blockIdx.y];
    for (u64 at = thread_index(); at < length; at += (u64)gridDim.x * BLOCK)
        y[row + at] = narrow<T>(fmaf(l, widen(x[row + at]), (1.0f - l) * widen(x[other + at])));
}
#define PARAMETERS(T) (const T *x, const u32 *partner, const float *lambda, T *y, u32 length)
BOTH(interpolate, PARAMETERS, (x, partner, lambda, y, length))
#undef PARAMETERS

constexpr u32 MOST_SOURCES = 1024;

// dx_j = scale · (λ_j·dy_j + Σ of (1 − λ_i)·dy_i over every i whose partner is j). Grid: (parts, batch).
template <class T>
__device__ void interpolate_backward(const T *dy, const u32 *partner, const float *lambda, T *dx, u32 batch,
                                     u32 length, float scale) {
    __shared__ u32 sources[MOST_SOURCES];
    __shared__ u32 count;
    if (threadIdx.x == 0) count = 0;
    __syncthreads();
    for (u32 i = threadIdx.x; i < batch; i += BLOCK)
        if (partner[i] == blockIdx.y) sources[atomicAdd(&count, 1u)] = i;
    __syncthreads();
    // In the order of i, whatever the order in which threads arrived; in a permutation there is just one.
    if (threadIdx.x == 0)
        for (u32 i = 1; i < count; i++)
            for (u32 k = i; k > 0 && sources[k - 1] > sources[k]; k--) {
                u32 swap = sources[k];
                sources[k] = sources[k - 1];
                sources[k - 1] = swap;
            }
    __syncthreads();
    u64 row = (u64)blockIdx.y * length;
    for (u64 at = thread_index(); at < length; at += (u64)gridDim.x * BLOCK) {
        float sum = lambda[blockIdx.y] * widen(dy[row + at]);
        for (u32 k = 0; k < count; k++) {
            u32 i = sources[k];
            sum = fmaf(1.0f - lambda[i], widen(dy[(u64)i * length + at]), sum);
        }
        dx[row + at] = narrow<T>(scale * sum);
    }
}
#define PARAMETERS(T)                                                                                                 \
    (const T *dy, const u32 *partner, const float *lambda, T *dx, u32 batch, u32 length, float scale)
BOTH(interpolate_backward, PARAMETERS, (dy, partner, lambda, dx, batch, length, scale))
#undef PARAMETERS

// One weight of many: [out, in, taps] in float, and [out, taps, in] in the activations' type. Blocks from `first` on are its own,
// `share` pairs of output and input channel each.
struct Turn {
    const void *from;
    void *to;
    u32 pairs, in;
    u32 taps, first;
    u32 share, unused;
};
constexpr u32 TURNS = 96;
struct Turns {
    Turn slot[TURNS];
};
// From the first form to the second. What a block has is read and written in order, and turned in between. Grid: the blocks of all weights.
template <class T> __device__ void taps_first(const Turns &turns, u32 entries) {
    __shared__ float held[TURNED];
    const Turn &own = turns.slot[own_entry(turns, entries)];
    const float *from = (const float *)own.from;
    u32 start, pairs = own_pairs(own, &start);
    for (u32 i = threadIdx.x; i < pairs * own.taps; i += BLOCK) held[i] = from[(u64)start * own.taps + i];
    __syncthreads();
    to_taps_first(own, start, pairs, held, (T *)own.to);
}
#define PARAMETERS(T) (const __grid_constant__ Turns turns, u32 entries)
BOTH(taps_first, PARAMETERS, (turns, entries))

// The way back, for gradients. Grid: the blocks of all weights.
template <class T> __device__ void taps_last(const Turns &turns, u32 entries) {
    __shared__ float held[TURNED];
    const Turn &own = turns.slot[own_entry(turns, entries)];
    float *to = (float *)own.to;
    u32 start, pairs = own_pairs(own, &start);
    to_taps_last(own, start, pairs, (const T *)own.from, held);
    __syncthreads();
    for (u32 i = threadIdx.x; i < pairs * own.taps; i += BLOCK) to[(u64)start * own.taps + i] = held[i];
}
BOTH(taps_last, PARAMETERS, (turns, entries))
#undef PARAMETERS

// A batch out of a set that lives in device memory as bytes [image, height, width, channel]: image `index[b]`, shifted so that
// output pixel (y, x) is input pixel (y + top[b], x + left[b]), mirrored where `flip[b]`, normalised; outside the image the
// normalised colour is 0, or black where `black`. Grid: count / BLOCK.
template <class T>
__device__ void batch_images(const u8 *images, const u32 *index, const int *top, const int *left, const u32 *flip,
                             const float *mean, const float *inv_std, T *to, u32 count, u32 in_h, u32 in_w, u32 out_h,
                             u32 out_w, u32 channels, u32 black) {
    u64 thread = thread_index();
    if (thread >= count) return;
    u32 i = (u32)thread, pixel = i / channels, row = pixel / out_w, b = row / out_h;
    u32 c = i - pixel * channels, x = pixel - row * out_w, y = row - b * out_h;
    if (flip[b]) x = out_w - 1 - x;
    int from_y = (int)y + top[b], from_x = (int)x + left[b];
    bool inside = from_y >= 0 && from_y < (int)in_h && from_x >= 0 && from_x < (int)in_w;
    float value = 0;
    if (inside) value = (float)images[(((u64)index[b] * in_h + from_y) * in_w + from_x) * channels + c] / 255.0f;
    to[i] = narrow<T>(inside || black ? (value - mean[c]) * inv_std[c] : 0.0f);
}
#define PARAMETERS(T)                                                                                                 \
    (const u8 *images, const u32 *index, const int *top, const int *left, const u32 *flip, const float *mean,         \
     const float *inv_std, T *to, u32 count, u32 in_h, u32 in_w, u32 out_h, u32 out_w, u32 channels, u32 black)
BOTH(batch_images, PARAMETERS,
     (images, index, top, left, flip, mean, inv_std, to, count, in_h, in_w, out_h, out_w, channels, black))
#undef PARAMETERS

// Pooling of [batch, height, width, channel]. Gradients are gathered: one thread an element of the input, no atomics.
#include "common.cuh"

struct Window {
    u32 in_h, in_w, out_h, out_w, channels, kernel, stride, padding;
};

// The first input row (or column) under window `at`, and the one behind the last, cut to the map.
__device__ inline u32 window_start(u32 at, u32 stride, u32 padding) {
    u32 start = at * stride;
    return start > padding ? start - padding : 0;
}
__device__ inline u32 window_end(u32 at, u32 stride, u32 padding, u32 kernel, u32 size) {
    u32 end = at * stride + kernel;
    end = end > padding ? end - padding : 0;
    return min(end, size);
}

// Of V channels, each window's first maximum, row by row, and its position; NaN is never the maximum.
template <class T, u32 V>
__device__ void first_maximum(const T *image, Window w, u32 oy, u32 ox, u32 c, float (&top)[V], u32 (&where)[V]) {
    u32 row_end = window_end(oy, w.stride, w.padding, w.kernel, w.in_h);
    u32 column_end = window_end(ox, w.stride, w.padding, w.kernel, w.in_w);
    u32 y0 = window_start(oy, w.stride, w.padding), x0 = window_start(ox, w.stride, w.padding);
    for (u32 k = 0; k < V; k++) {
        top[k] = -CUDART_INF_F;
        where[k] = y0 * w.in_w + x0;
    }
    for (u32 y = y0; y < row_end; y++)
        for (u32 x = x0; x < column_end; x++) {
            Pack<T, V> in = load<T, V>(image + (u64)(y * w.in_w + x) * w.channels + c);
            for (u32 k = 0; k < V; k++) {
                float value = widen(in.v[k]);
                if (value > top[k]) {
                    top[k] = value;
                    where[k] = y * w.in_w + x;
                }
            }
        }
}

// Grid: packs of outputs / BLOCK.
template <class T, u32 V>
__device__ void pool_forward(const T *x, T *y, u32 packs, u32 in_h, u32 in_w, u32 out_h, u32 out_w, u32 channels,
                             u32 kernel, u32 stride, u32 padding, u32 mean) {
    u64 thread = thread_index();
    if (thread >= packs) return;
    Window w = {in_h, in_w, out_h, out_w, channels, kernel, stride, padding};
    // Divisions of 64 bits take several times as long.
    u32 width = channels / V, i = (u32)thread, pixel = i / width, row = pixel / out_w, b = row / out_h;
    u32 c = (i - pixel * width) * V, ox = pixel - row * out_w, oy = row - b * out_h;
    const T *image = x + (u64)b * in_h * in_w * channels;
    float value[V];
    if (mean) {
        for (u32 k = 0; k < V; k++) value[k] = 0;
        for (u32 py = window_start(oy, stride, padding); py < window_end(oy, stride, padding, kernel, in_h); py++)
            for (u32 px = window_start(ox, stride, padding); px < window_end(ox, stride, padding, kernel, in_w); px++) {
                Pack<T, V> in = load<T, V>(image + (u64)(py * in_w + px) * channels + c);
                for (u32 k = 0; k < V; k++) value[k] += widen(in.v[k]);
            }
        for (u32 k = 0; k < V; k++) value[k] /= (float)(kernel * kernel);
    } else {
        u32 where[V];
        first_maximum<T, V>(image, w, oy, ox, c, value, where);
    }
    Pack<T, V> out;
    for (u32 k = 0; k < V; k++) out.v[k] = narrow<T>(value[k]);
    store<T, V>(y + thread * V, out);
}
#define PARAMETERS(T)                                                                                                 \
    (const T *x, T *y, u32 packs, u32 in_h, u32 in_w, u32 out_h, u32 out_w, u32 channels, u32 kernel, u32 stride,     \
     u32 padding, u32 mean)
PACKED(pool_forward, PARAMETERS,
       (x, y, packs, in_h, in_w, out_h, out_w, channels, kernel, stride, padding, mean))
#undef PARAMETERS

// Grid: packs of inputs / BLOCK.
template <class T, u32 V>
__device__ void pool_backward(const T *x, const T *dy, T *dx, u32 packs, u32 in_h, u32 in_w, u32 out_h, u32 out_w,
                              u32 channels, u32 kernel, u32 stride, u32 padding, u32 mean) {
    u64 thread = thread_index();
    if (thread >= packs) return;
    Window w = {in_h, in_w, out_h, out_w, channels, kernel, stride, padding};
    u32 width = channels / V, i = (u32)thread, pixel = i / width, row = pixel / in_w, b = row / in_h;
    u32 c = (i - pixel * width) * V, px = pixel - row * in_w, py = row - b * in_h;
    const T *image = x + (u64)b * in_h * in_w * channels;
    // Windows that hold the pixel: at·stride − padding ≤ p < at·stride − padding + kernel.
    u32 oy0 = py + padding >= kernel ? (py + padding - kernel) / stride + 1 : 0;
    u32 ox0 = px + padding >= kernel ? (px + padding - kernel) / stride + 1 : 0;
    u32 oy1 = min((py + padding) / stride + 1, out_h), ox1 = min((px + padding) / stride + 1, out_w);
    float sum[V];
    for (u32 k = 0; k < V; k++) sum[k] = 0;
    for (u32 oy = oy0; oy < oy1; oy++)
        for (u32 ox = ox0; ox < ox1; ox++) {
            Pack<T, V> g = load<T, V>(dy + (((u64)b * out_h + oy) * out_w + ox) * channels + c);
            if (mean) {
                for (u32 k = 0; k < V; k++) sum[k] += widen(g.v[k]);
            } else {
                float top[V];
                u32 where[V];
                first_maximum<T, V>(image, w, oy, ox, c, top, where);
                for (u32 k = 0; k < V; k++)
                    if (where[k] == py * in_w + px) sum[k] += widen(g.v[k]);
            }
        }
    Pack<T, V> out;
    for (u32 k = 0; k < V; k++) out.v[k] = narrow<T>(mean ? sum[k] / (float)(kernel * kernel) : sum[k]);
    store<T, V>(dx + thread * V, out);
}
#define PARAMETERS(T)                                                                                                 \
    (const T *x, const T *dy, T *dx, u32 packs, u32 in_h, u32 in_w, u32 out_h, u32 out_w, u32 channels, u32 kernel,   \
     u32 stride, u32 padding, u32 mean)
PACKED(pool_backward, PARAMETERS,
       (x, dy, dx, packs, in_h, in_w, out_h, out_w, channels, kernel, stride, padding, mean))
#undef PARAMETERS

// The mean over an image's pixels, of the map's type or in float. Grid: (channels / ACROSS, batch).
template <class T, class O> __device__ void global_pool(const T *x, O *y, u32 pixels, u32 channels) {
    float total = down_rows<T, 4>(x + (u64)blockIdx.y * pixels * channels, pixels, channels);
    u32 c = blockIdx.x * ACROSS + threadIdx.x;
    if (threadIdx.x < ACROSS && c < channels) y[(u64)blockIdx.y * channels + c] = narrow<O>(total / (float)pixels);
}

// Grid: packs of inputs / BLOCK.
template <class T, class O, u32 V>
__device__ void global_pool_backward(const O *dy, T *dx, u32 packs, u32 pixels, u32 channels) {
    u64 thread = thread_index();
    if (thread >= packs) return;
    u32 width = channels / V, pixel = (u32)thread / width, c = ((u32)thread - pixel * width) * V;
    const O *from = dy + (u64)(pixel / pixels) * channels + c;
    Pack<T, V> out;
    for (u32 k = 0; k < V; k++) out.v[k] = narrow<T>(widen(from[k]) / (float)pixels);
    store<T, V>(dx + thread * V, out);
}

// Type of the map, type of the means, elements of a pack.
#define GLOBAL_POOL(T, O, V)                                                                                          \
    KERNEL void global_pool_##T##_##O(const T *x, O *y, u32 pixels, u32 channels) {                                   \
        global_pool<T, O>(x, y, pixels, channels);                                                                    \
    }                                                                                                                 \
    KERNEL void global_pool_backward_##T##_##O##_1(const O *dy, T *dx, u32 packs, u32 pixels,                         \
                                                   u32 channels) {                                                    \
        global_pool_backward<T, O, 1>(dy, dx, packs, pixels, channels);                                               \
    }                                                                                                                 \
    KERNEL void global_pool_backward_##T##_##O##_##V(const O *dy, T *dx, u32 packs, u32 pixels,                       \
                                                     u32 channels) {                                                  \
        global_pool_backward<T, O, V>(dy, dx, packs, pixels, channels);                                               \
    }                                                                                                                 \
    REGISTER(global_pool_##T##_##O)                                                                                   \
    REGISTER(global_pool_backward_##T##_##O##_1)                                                                      \
    REGISTER(global_pool_backward_##T##_##O##_##V)
GLOBAL_POOL(f32, f32, 4)
GLOBAL_POOL(bf16, bf16, 8)
GLOBAL_POOL(bf16, f32, 8)

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

// Position of the window's first maximum, row by row; NaN is never the maximum.
template <class T> __device__ u32 first_maximum(const T *image, Window w, u32 oy, u32 ox, u32 c, float *top) {
    float best = -CUDART_INF_F;
    u32 row_end = window_end(oy, w.stride, w.padding, w.kernel, w.in_h);
    u32 column_end = window_end(ox, w.stride, w.padding, w.kernel, w.in_w);
    u32 y0 = window_start(oy, w.stride, w.padding), x0 = window_start(ox, w.stride, w.padding);
    u32 where = y0 * w.in_w + x0;
    for (u32 y = y0; y < row_end; y++)
        for (u32 x = x0; x < column_end; x++) {
            float value = widen(image[(u64)(y * w.in_w + x) * w.channels + c]);
            if (value > best) {
                best = value;
                where = y * w.in_w + x;
            }
        }
    *top = best;
    return where;
}

// Grid: outputs / BLOCK.
template <class T>
__device__ void pool_forward(const T *x, T *y, u32 outputs, u32 in_h, u32 in_w, u32 out_h, u32 out_w, u32 channels,
                             u32 kernel, u32 stride, u32 padding, u32 mean) {
    u64 thread = thread_index();
    if (thread >= outputs) return;
    Window w = {in_h, in_w, out_h, out_w, channels, kernel, stride, padding};
    // Divisions of 64 bits take several times as long.
    u32 i = (u32)thread, pixel = i / channels, row = pixel / out_w, b = row / out_h;
    u32 c = i - pixel * channels, ox = pixel - row * out_w, oy = row - b * out_h;
    const T *image = x + (u64)b * in_h * in_w * channels;
    float value = 0;
    if (mean) {
        for (u32 py = window_start(oy, stride, padding); py < window_end(oy, stride, padding, kernel, in_h); py++)
            for (u32 px = window_start(ox, stride, padding); px < window_end(ox, stride, padding, kernel, in_w); px++)
                value += widen(image[(u64)(py * in_w + px) * channels + c]);
        value /= (float)(kernel * kernel);
    } else {
        first_maximum(image, w, oy, ox, c, &value);
    }
    y[i] = narrow<T>(value);
}
#define PARAMETERS(T)                                                                                                 \
    (const T *x, T *y, u32 outputs, u32 in_h, u32 in_w, u32 out_h, u32 out_w, u32 channels, u32 kernel, u32 stride,   \
     u32 padding, u32 mean)
BOTH(pool_forward, PARAMETERS,
     (x, y, outputs, in_h, in_w, out_h, out_w, channels, kernel, stride, padding, mean))
#undef PARAMETERS

// Grid: inputs / BLOCK.
template <class T>
__device__ void pool_backward(const T *x, const T *dy, T *dx, u32 inputs, u32 in_h, u32 in_w, u32 out_h, u32 out_w,
                              u32 channels, u32 kernel, u32 stride, u32 padding, u32 mean) {
    u64 thread = thread_index();
    if (thread >= inputs) return;
    Window w = {in_h, in_w, out_h, out_w, channels, kernel, stride, padding};
    u32 i = (u32)thread, pixel = i / channels, row = pixel / in_w, b = row / in_h;
    u32 c = i - pixel * channels, px = pixel - row * in_w, py = row - b * in_h;
    const T *image = x + (u64)b * in_h * in_w * channels;
    // Windows that hold the pixel: at·stride − padding ≤ p < at·stride − padding + kernel.
    u32 oy0 = py + padding >= kernel ? (py + padding - kernel) / stride + 1 : 0;
    u32 ox0 = px + padding >= kernel ? (px + padding - kernel) / stride + 1 : 0;
    u32 oy1 = min((py + padding) / stride + 1, out_h), ox1 = min((px + padding) / stride + 1, out_w);
    float sum = 0;
    for (u32 oy = oy0; oy < oy1; oy++)
        for (u32 ox = ox0; ox < ox1; ox++) {
            float g = widen(dy[(((u64)b * out_h + oy) * out_w + ox) * channels + c]);
            if (mean) {
                sum += g;
            } else {
                float top;
                if (first_maximum(image, w, oy, ox, c, &top) == py * in_w + px) sum += g;
            }
        }
    dx[i] = narrow<T>(mean ? sum / (float)(kernel * kernel) : sum);
}
#define PARAMETERS(T)                                                                                                 \
    (const T *x, const T *dy, T *dx, u32 inputs, u32 in_h, u32 in_w, u32 out_h, u32 out_w, u32 channels, u32 kernel,  \
     u32 stride, u32 padding, u32 mean)
BOTH(pool_backward, PARAMETERS,
     (x, dy, dx, inputs, in_h, in_w, out_h, out_w, channels, kernel, stride, padding, mean))
#undef PARAMETERS

// The mean over an image's pixels; the block's eight groups of 32 threads take every eighth. Grid: (channels / 32, batch).
template <class T> __device__ void global_pool(const T *x, T *y, u32 pixels, u32 channels) {
    constexpr u32 width = 32, depth = BLOCK / width;
    __shared__ float part[depth][width];
    u32 lane = threadIdx.x % width, line = threadIdx.x / width;
    u32 c = blockIdx.x * width + lane;
    float sum = 0;
    if (c < channels)
        for (u32 p = line; p < pixels; p += depth) sum += widen(x[((u64)blockIdx.y * pixels + p) * channels + c]);
    part[line][lane] = sum;
    __syncthreads();
    if (line == 0 && c < channels) {
        float total = 0;
        for (u32 d = 0; d < depth; d++) total += part[d][lane];
        y[(u64)blockIdx.y * channels + c] = narrow<T>(total / (float)pixels);
    }
}
#define PARAMETERS(T) (const T *x, T *y, u32 pixels, u32 channels)
BOTH(global_pool, PARAMETERS, (x, y, pixels, channels))
#undef PARAMETERS

// Grid: inputs / BLOCK.
template <class T> __device__ void global_pool_backward(const T *dy, T *dx, u32 inputs, u32 pixels, u32 channels) {
    u64 thread = thread_index();
    if (thread >= inputs) return;
    u32 i = (u32)thread, pixel = i / channels;
    u64 from = (u64)(pixel / pixels) * channels + (i - pixel * channels);
    dx[i] = narrow<T>(widen(dy[from]) / (float)pixels);
}
#define PARAMETERS(T) (const T *dy, T *dx, u32 inputs, u32 pixels, u32 channels)
BOTH(global_pool_backward, PARAMETERS, (dy, dx, inputs, pixels, channels))
#undef PARAMETERS

// Interpolation between samples, weights in the convolution's order, and batches of images.
#include "common.cuh"

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

// [out, in, taps] in float to [out, taps, in] in the activations' type. Grid: count / BLOCK.
template <class T> __device__ void taps_first(const float *weight, T *to, u32 count, u32 in, u32 taps) {
    u64 i = thread_index();
    if (i >= count) return;
    u64 c = i % in, tap = i / in % taps, o = i / in / taps;
    to[i] = narrow<T>(weight[(o * in + c) * taps + tap]);
}
#define PARAMETERS(T) (const float *weight, T *to, u32 count, u32 in, u32 taps)
BOTH(taps_first, PARAMETERS, (weight, to, count, in, taps))
#undef PARAMETERS

// The way back, for the gradient. Grid: count / BLOCK.
template <class T> __device__ void taps_last(const T *weight, float *to, u32 count, u32 in, u32 taps) {
    u64 i = thread_index();
    if (i >= count) return;
    u64 tap = i % taps, c = i / taps % in, o = i / taps / in;
    to[i] = widen(weight[(o * taps + tap) * in + c]);
}
#define PARAMETERS(T) (const T *weight, float *to, u32 count, u32 in, u32 taps)
BOTH(taps_last, PARAMETERS, (weight, to, count, in, taps))
#undef PARAMETERS

// A batch out of a set that lives in device memory as bytes [image, height, width, channel]: image `index[b]`, shifted so that
// output pixel (y, x) is input pixel (y + top[b], x + left[b]), mirrored where `flip[b]`, normalised; outside the image the
// normalised colour is 0, or black where `black`. Grid: count / BLOCK.
template <class T>
__device__ void batch_images(const u8 *images, const u32 *index, const int *top, const int *left, const u32 *flip,
                             const float *mean, const float *inv_std, T *to, u32 count, u32 in_h, u32 in_w, u32 out_h,
                             u32 out_w, u32 channels, u32 black) {
    u64 i = thread_index();
    if (i >= count) return;
    u32 c = (u32)(i % channels), x = (u32)(i / channels % out_w), y = (u32)(i / channels / out_w % out_h);
    u32 b = (u32)(i / channels / out_w / out_h);
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

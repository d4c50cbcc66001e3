// Sums: of gradients that come from several sides, of single numbers, and what surrounds a matrix product. Joined channels.
#include "common.cuh"
#include "parts.cuh"

// y = Σ parts, and 0 where there is none. Grid: packs / BLOCK.
template <class T, u32 V> __device__ void sum_parts(const Parts &parts, u32 entries, T *y, u32 packs) {
    u64 i = thread_index();
    if (i >= packs) return;
    float sum[V];
    for (u32 k = 0; k < V; k++) sum[k] = 0;
    for (u32 p = 0; p < entries; p++) {
        // Before the part's first element this wraps round, to behind its last.
        u32 at = (u32)i * V - parts.slot[p].first;
        if (at >= parts.slot[p].len) continue;
        Pack<T, V> in = load<T, V>((const T *)parts.slot[p].x + at);
        for (u32 k = 0; k < V; k++) sum[k] += widen(in.v[k]);
    }
    Pack<T, V> out;
    for (u32 k = 0; k < V; k++) out.v[k] = narrow<T>(sum[k]);
    store<T, V>(y + i * V, out);
}
#define PARAMETERS(T) (const __grid_constant__ Parts parts, u32 entries, T *y, u32 packs)
PACKED(sum_parts, PARAMETERS, (parts, entries, y, packs))
#undef PARAMETERS

// One number of many, and its weight.
struct Number {
    const float *x;
    float weight;
    u32 unused;
};
constexpr u32 NUMBERS = 240;
struct Numbers {
    Number slot[NUMBERS];
};

// y = Σ weight·x, in double precision. Grid: 1.
KERNEL void weighted_sum(const __grid_constant__ Numbers numbers, u32 entries, float *y) {
    double term = 0;
    if (threadIdx.x < entries) term = (double)numbers.slot[threadIdx.x].weight * *numbers.slot[threadIdx.x].x;
    double sum = block_sum(term);
    if (threadIdx.x == 0) *y = (float)sum;
}
REGISTER(weighted_sum)

// y_i = weight_i·x_i. Grid: 1.
KERNEL void weighted(const __grid_constant__ Numbers numbers, u32 entries, float *y) {
    if (threadIdx.x < entries) y[threadIdx.x] = numbers.slot[threadIdx.x].weight * *numbers.slot[threadIdx.x].x;
}
REGISTER(weighted)

// y = x + bias, a row of `channels` at a time; without `bias` x alone. Grid: count / BLOCK.
KERNEL void add_row(const float *x, const float *bias, float *y, u32 count, u32 channels) {
    u64 i = thread_index();
    if (i < count) y[i] = bias ? x[i] + bias[(u32)i % channels] : x[i];
}
REGISTER(add_row)

// y_c = Σ over rows of x. Grid: channels / ACROSS.
KERNEL void column_sum(const float *x, float *y, u32 rows, u32 channels) {
    float total = down_rows<float, 16>(x, rows, channels);
    u32 c = blockIdx.x * ACROSS + threadIdx.x;
    if (threadIdx.x < ACROSS && c < channels) y[c] = total;
}
REGISTER(column_sum)

__device__ inline float softplus(float u) { return (u > 0 ? u : 0) + log1pf(expf(-fabsf(u))); }

// ½·mean softplus(s·a) + ½·mean softplus(−s·b), s = −1 for the first of a row's `answers` and 1 for the other. Grid: 1.
KERNEL void two_sides(const float *a, const float *b, float *y, u32 count, u32 answers) {
    double sum = 0;
    for (u32 i = threadIdx.x; i < count; i += BLOCK) {
        float s = i % answers == 0 ? -1.0f : 1.0f;
        sum += (double)softplus(s * a[i]) + softplus(-s * b[i]);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) *y = (float)(0.5 * sum / count);
}
REGISTER(two_sides)

// Both gradients. Grid: count / BLOCK.
KERNEL void two_sides_backward(const float *a, const float *b, const float *gradient, float factor,
                               float *da, float *db, u32 count, u32 answers) {
    u64 i = thread_index();
    if (i >= count) return;
    float s = (u32)i % answers == 0 ? -1.0f : 1.0f;
    float g = 0.5f * incoming(gradient, factor) / (float)count;
    da[i] = g * s * sigmoid(s * a[i]);
    db[i] = -g * s * sigmoid(-s * b[i]);
}
REGISTER(two_sides_backward)

// Maps of the same pixels whose channels lie one after the other in a joined one: `x` of `len` channels, from channel `first` on.
// To the joined map or from it. Grid: packs of the joined map / BLOCK.
template <class T, u32 V>
__device__ void join(const Parts &parts, u32 entries, T *joined, u32 packs, u32 channels, u32 back) {
    u64 i = thread_index();
    if (i >= packs) return;
    u32 width = channels / V, pixel = (u32)i / width, c = ((u32)i - pixel * width) * V;
    for (u32 p = 0; p < entries; p++) {
        u32 at = c - parts.slot[p].first;
        if (at >= parts.slot[p].len) continue;
        T *own = (T *)parts.slot[p].x + (u64)pixel * parts.slot[p].len + at;
        if (back) store<T, V>(own, load<T, V>(joined + i * V));
        else store<T, V>(joined + i * V, load<T, V>(own));
    }
}
#define PARAMETERS(T) (const __grid_constant__ Parts parts, u32 entries, T *joined, u32 packs, u32 channels, u32 back)
PACKED(join, PARAMETERS, (parts, entries, joined, packs, channels, back))
#undef PARAMETERS

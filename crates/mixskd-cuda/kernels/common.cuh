// What every kernel uses: number types, packs of neighbouring elements, sums over a block in a fixed order.
//
// The same text is compiled by nvcc for a GPU and, with emulator/host.h in place of CUDA's own words, by any C++ compiler for the
// processor at hand. A block has BLOCK threads; no kernel uses atomics on memory that outlives it, so results repeat bit by bit.
#pragma once

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <math_constants.h>
#define KERNEL extern "C" __global__
#define REGISTER(name)
// So many turns of the loop that follows at once: their reads are on their way together.
#define UNROLL(turns) _Pragma(STRING(unroll turns))
#define STRING(text) #text
// No read before it is put off until after it. (The compiler would rather have fewer registers.)
#define SENT_OFF() __syncwarp(__activemask())
// Of an array whose elements are read where they were written alone. (Zeros in bfloat16's place would have the compiler unpack each read before the next.)
#define BLANK
#else
#include "../emulator/host.h"
#define UNROLL(turns)
#define SENT_OFF()
#define BLANK = {}
#endif

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef __nv_bfloat16 bf16;
// As it is called in the names of kernels.
typedef float f32;

constexpr u32 BLOCK = 256;

__device__ inline float widen(float x) { return x; }
__device__ inline float widen(bf16 x) { return __bfloat162float(x); }

template <class T> __device__ inline T narrow(float x);
template <> __device__ inline float narrow<float>(float x) { return x; }
template <> __device__ inline bf16 narrow<bf16>(float x) { return __float2bfloat16(x); }

__device__ inline float sigmoid(float u) { return u < 0 ? expf(u) / (1 + expf(u)) : 1 / (1 + expf(-u)); }

// V neighbouring elements, read and written at once.
template <class T, u32 V> struct alignas(sizeof(T) * V) Pack {
    T v[V];
};

template <class T, u32 V> __device__ inline Pack<T, V> load(const T *from) {
    return *reinterpret_cast<const Pack<T, V> *>(from);
}

template <class T, u32 V> __device__ inline void store(T *to, const Pack<T, V> &pack) {
    *reinterpret_cast<Pack<T, V> *>(to) = pack;
}

__device__ inline u64 thread_index() { return (u64)blockIdx.x * BLOCK + threadIdx.x; }

// A loss's gradient: a number, times one in memory where there is one.
__device__ inline float incoming(const float *gradient, float factor) { return gradient ? *gradient * factor : factor; }

// The last entry whose first block is not after this one.
template <class Table> __device__ u32 own_entry(const Table &table, u32 count) {
    u32 low = 0, high = count;
    while (high - low > 1) {
        u32 middle = (low + high) / 2;
        if (table.slot[middle].first <= blockIdx.x) low = middle;
        else high = middle;
    }
    return low;
}

// The sum over a block, known to all of its threads. Halves are added pairwise: the order is that of the thread numbers.
template <class S> __device__ S block_sum(S value) {
    __shared__ S part[BLOCK];
    part[threadIdx.x] = value;
    __syncthreads();
    for (u32 half = BLOCK / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    S total = part[0];
    __syncthreads();
    return total;
}

// Channels that a block takes in `down_rows`.
constexpr u32 ACROSS = 32;

// The sum of `of(row, channel)` over the rows of channel blockIdx.x · ACROSS + threadIdx.x % ACROSS; eight groups of threads take every eighth
// row, TURNS at once. Known to the first group alone.
template <u32 TURNS, class Of> __device__ inline float down_rows_of(u32 rows, u32 channels, Of of) {
    constexpr u32 depth = BLOCK / ACROSS;
    __shared__ float part[depth][ACROSS];
    u32 lane = threadIdx.x % ACROSS, line = threadIdx.x / ACROSS;
    u32 c = blockIdx.x * ACROSS + lane;
    float sum = 0;
    if (c < channels) {
        UNROLL(TURNS)
        for (u32 r = line; r < rows; r += depth) sum += of(r, c);
    }
    part[line][lane] = sum;
    __syncthreads();
    float total = 0;
    if (line == 0)
        for (u32 d = 0; d < depth; d++) total += part[d][lane];
    return total;
}

// The same of an array.
template <class T, u32 TURNS> __device__ inline float down_rows(const T *x, u32 rows, u32 channels) {
    return down_rows_of<TURNS>(rows, channels, [&](u32 r, u32 c) { return widen(x[(u64)r * channels + c]); });
}

__device__ inline float block_max(float value) {
    __shared__ float part[BLOCK];
    part[threadIdx.x] = value;
    __syncthreads();
    for (u32 half = BLOCK / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) part[threadIdx.x] = fmaxf(part[threadIdx.x], part[threadIdx.x + half]);
        __syncthreads();
    }
    float top = part[0];
    __syncthreads();
    return top;
}

// Defines the kernels `name_f32` and `name_bf16` from a template over the element.
#define BOTH(name, parameters, arguments)                                                                             \
    KERNEL void name##_f32 parameters(float) { name<float> arguments; }                                               \
    KERNEL void name##_bf16 parameters(bf16) { name<bf16> arguments; }                                                \
    REGISTER(name##_f32)                                                                                              \
    REGISTER(name##_bf16)

// The same from a template over the element and the pack's width: 16 bytes, or one element where channels or addresses forbid.
#define PACKED(name, parameters, arguments)                                                                           \
    KERNEL void name##_f32_1 parameters(float) { name<float, 1> arguments; }                                          \
    KERNEL void name##_f32_4 parameters(float) { name<float, 4> arguments; }                                          \
    KERNEL void name##_bf16_1 parameters(bf16) { name<bf16, 1> arguments; }                                           \
    KERNEL void name##_bf16_8 parameters(bf16) { name<bf16, 8> arguments; }                                           \
    REGISTER(name##_f32_1)                                                                                            \
    REGISTER(name##_f32_4)                                                                                            \
    REGISTER(name##_bf16_1)                                                                                           \
    REGISTER(name##_bf16_8)

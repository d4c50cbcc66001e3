// Convolutions' weights in their two orders: a parameter's [out, in, taps], and [out, taps, in], which convolutions take and give.
#pragma once
#include "common.cuh"

// Elements of a block, at most.
constexpr u32 TURNED = 2304;

// The pairs of output and input channel of a block; `Own` says which block is the `first` of its own, how many `pairs` there are and a block's `share`.
template <class Own> __device__ inline u32 own_pairs(const Own &own, u32 *start) {
    *start = (blockIdx.x - own.first) * own.share;
    return min(own.share, own.pairs - *start);
}

// A block's pairs, a thread each, out of the convolutions' order into the parameter's, `held` being the block's part alone.
template <class Own, class T> __device__ inline void to_taps_last(const Own &own, u32 start, u32 pairs, const T *from, float *held) {
    u32 in = own.in, taps = own.taps;
    for (u32 pair = threadIdx.x; pair < pairs; pair += BLOCK) {
        u32 o = (start + pair) / in, c = (start + pair) - o * in;
        for (u32 tap = 0; tap < taps; tap++) held[pair * taps + tap] = widen(from[((u64)o * taps + tap) * in + c]);
    }
}

// The way back.
template <class Own, class T> __device__ inline void to_taps_first(const Own &own, u32 start, u32 pairs, const float *held, T *to) {
    u32 in = own.in, taps = own.taps;
    for (u32 pair = threadIdx.x; pair < pairs; pair += BLOCK) {
        u32 o = (start + pair) / in, c = (start + pair) - o * in;
        for (u32 tap = 0; tap < taps; tap++) to[((u64)o * taps + tap) * in + c] = narrow<T>(held[pair * taps + tap]);
    }
}

// CUDA's words for an ordinary C++ compiler: kernels become functions, a block's threads become fibers that take turns, one
// block after the other. Slow, and exact about indices, barriers and the order of sums.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>

#define KERNEL __attribute__((unused)) static
#define __device__
#define __grid_constant__
// Blocks run one after the other, so that one copy serves them all.
#define __shared__ static
// No part of a kernel: what it reads is not told.
#define ITSELF __attribute__((no_sanitize("thread")))
// What goes before the names of kernels that are compiled once more.
#ifndef VARIANT
#define VARIANT ""
#endif
#define CUDART_INF_F (std::numeric_limits<float>::infinity())
#define CUDART_NAN_F (std::numeric_limits<float>::quiet_NaN())

struct Index {
    unsigned x, y;
};
extern Index threadIdx, blockIdx, gridDim;

// Waits for all threads of the block.
void __syncthreads();

using std::min;

unsigned atomicAdd(unsigned *to, unsigned value);

// The upper half of a float, rounded to even.
struct __nv_bfloat16 {
    uint16_t bits;
};

inline float __bfloat162float(__nv_bfloat16 x) {
    uint32_t bits = (uint32_t)x.bits << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

inline __nv_bfloat16 __float2bfloat16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if (value != value) return {0x7fff};
    return {(uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}

typedef void (*Runner)(void (*kernel)(), void **arguments);

void add_kernel(const char *name, void (*kernel)(), Runner runner, unsigned arguments);

// Of each file that is compiled its own.
namespace {

// Calls a kernel with the arguments that CUDA's launch takes: pointers to the values.
template <class... A> struct Call {
    template <size_t... I> ITSELF static void spread(void (*kernel)(A...), void **a, std::index_sequence<I...>) {
        kernel(*(A *)a[I]...);
    }
    ITSELF static void run(void (*kernel)(), void **a) {
        spread((void (*)(A...))kernel, a, std::index_sequence_for<A...>());
    }
};

struct Registrar {
    template <class... A> Registrar(const char *name, void (*kernel)(A...)) {
        add_kernel(name, (void (*)())kernel, Call<A...>::run, sizeof...(A));
    }
};

} // namespace

#define REGISTER(name) static Registrar registrar_##name(VARIANT #name, name);

// The optimiser's update of all parameters, and what a step is judged by before it.
#include "common.cuh"
#include "turned.cuh"

// One parameter of many. Blocks from `first` on are its own, CHUNK elements each.
struct Slot {
    float *parameter;
    const float *gradient;
    float *velocity;
    u32 len, first;
    float factor;
    u32 unused;
};

// A launch's arguments have room for 4096 bytes.
constexpr u32 SLOTS = 96;
constexpr u32 CHUNK = 2048;

struct Slots {
    Slot slot[SLOTS];
};

// What all parameters of an update have in common. The learning rate is read from device memory: a captured launch is given another one in every step.
struct Descent {
    float rate, momentum, decay;
    u32 nesterov;
    // g ← gradient + decay·p; v ← momentum·v + g; p ← p − rate·(nesterov ? g + momentum·v : v).
    __device__ inline void step(float gradient, float &p, float &v) const {
        float g = fmaf(decay, p, gradient);
        v = fmaf(momentum, v, g);
        p = fmaf(-rate, nesterov ? fmaf(momentum, v, g) : v, p);
    }
};

// Unless `verdict` is 0. Grid: the blocks of all slots.
KERNEL void sgd(const __grid_constant__ Slots slots, u32 count, const float *lr, const float *verdict, float momentum, float decay,
                u32 nesterov) {
    if (verdict && *verdict == 0.0f) return;
    Slot own = slots.slot[own_entry(slots, count)];
    Descent descent = {*lr * own.factor, momentum, decay, nesterov};
    u64 start = (u64)(blockIdx.x - own.first) * CHUNK;
    for (u64 i = start + threadIdx.x; i < start + CHUNK && i < own.len; i += BLOCK) {
        float p = own.parameter[i], v = own.velocity[i];
        descent.step(own.gradient[i], p, v);
        own.velocity[i] = v;
        own.parameter[i] = p;
    }
}
REGISTER(sgd)

// One convolution's weight of many: parameter and velocity [out, in, taps] in float; gradient and the weight that convolutions take [out, taps, in]
// in the maps' type.
struct TurnedSlot {
    float *parameter, *velocity;
    const void *gradient;
    void *turned;
    u32 pairs, in;
    u32 taps, first;
    u32 share;
    float factor;
};
constexpr u32 TURNED_SLOTS = 70;
struct TurnedSlots {
    TurnedSlot slot[TURNED_SLOTS];
};

// The update of weights whose gradients are as convolutions make them, which also become what convolutions take: every array is gone through once.
// Grid: the blocks of all slots.
template <class T> __device__ void sgd_turned(const TurnedSlots &slots, u32 count, const float *lr, const float *verdict, float momentum, float decay, u32 nesterov) {
    if (verdict && *verdict == 0.0f) return;
    // A gradient, then a weight, in the parameter's order.
    __shared__ float held[TURNED];
    constexpr u32 EACH = TURNED / BLOCK;
    const TurnedSlot &own = slots.slot[own_entry(slots, count)];
    Descent descent = {*lr * own.factor, momentum, decay, nesterov};
    u32 start, pairs = own_pairs(own, &start), length = pairs * own.taps;
    u64 first = (u64)start * own.taps;
    float p[EACH], v[EACH];
    for (u32 j = 0; j < EACH; j++) {
        u32 i = threadIdx.x + j * BLOCK;
        if (i >= length) continue;
        p[j] = own.parameter[first + i];
        v[j] = own.velocity[first + i];
    }
    to_taps_last(own, start, pairs, (const T *)own.gradient, held);
    __syncthreads();
    for (u32 j = 0; j < EACH; j++) {
        u32 i = threadIdx.x + j * BLOCK;
        if (i >= length) continue;
        descent.step(held[i], p[j], v[j]);
        own.velocity[first + i] = v[j];
        own.parameter[first + i] = p[j];
        held[i] = p[j];
    }
    __syncthreads();
    to_taps_first(own, start, pairs, held, (T *)own.turned);
}
#define PARAMETERS(T)                                                                                                 \
    (const __grid_constant__ TurnedSlots slots, u32 count, const float *lr, const float *verdict, float momentum,     \
     float decay, u32 nesterov)
BOTH(sgd_turned, PARAMETERS, (slots, count, lr, verdict, momentum, decay, nesterov))
#undef PARAMETERS

// One array of many.
struct View {
    const void *x;
    u32 len, first;
};

constexpr u32 VIEWS = 240;
// Elements of a block.
constexpr u32 LOOKED_AT = 8192;

struct Views {
    View slot[VIEWS];
};

// 1 where x is NaN or infinite.
template <class T> __device__ inline float strange(T x) { return fabsf(widen(x)) <= 3.4028234664e38f ? 0.0f : 1.0f; }

// found[offset + block] = 1 where some of LOOKED_AT elements are not finite, or else 0. Grid: the blocks of all views.
template <class T> __device__ void look(const Views &views, u32 count, float *found, u32 offset) {
    constexpr u32 V = 16 / sizeof(T);
    View own = views.slot[own_entry(views, count)];
    const T *x = (const T *)own.x;
    u64 start = (u64)(blockIdx.x - own.first) * LOOKED_AT;
    u64 end = start + LOOKED_AT < own.len ? start + LOOKED_AT : own.len;
    // In packs as far as there are whole ones, if they begin where packs may.
    u64 packed = (u64)x % 16 ? start : start + (end - start) / V * V;
    float some = 0;
    UNROLL(4)
    for (u64 i = start + threadIdx.x * V; i < packed; i += BLOCK * V) {
        Pack<T, V> in = load<T, V>(x + i);
        for (u32 k = 0; k < V; k++) some = fmaxf(some, strange(in.v[k]));
    }
    for (u64 i = packed + threadIdx.x; i < end; i += BLOCK) some = fmaxf(some, strange(x[i]));
    some = block_max(some);
    if (threadIdx.x == 0) found[offset + blockIdx.x] = some;
}
#define PARAMETERS(T) (const __grid_constant__ Views views, u32 count, float *found, u32 offset)
BOTH(look, PARAMETERS, (views, count, found, offset))
#undef PARAMETERS

// verdict = 1 where nothing was found, or else 0. With `broken`, a float of 0: once a verdict was bad it is 1, and all later ones are bad. Grid: 1.
KERNEL void judge(const float *found, u32 count, float *verdict, float *broken) {
    float some = 0;
    for (u32 i = threadIdx.x; i < count; i += BLOCK) some = fmaxf(some, found[i]);
    some = block_max(some);
    if (threadIdx.x == 0) {
        bool good = some == 0.0f && !(broken && *broken != 0.0f);
        *verdict = good ? 1.0f : 0.0f;
        if (broken && !good) *broken = 1.0f;
    }
}
REGISTER(judge)

// hits = 1 where the row's largest logit, the first of equals, is the target's, or else 0. Grid: rows.
KERNEL void row_hits(const float *z, const u32 *targets, float *hits, u32 classes) {
    const float *row = z + (u64)blockIdx.x * classes;
    float top = -CUDART_INF_F;
    for (u32 c = threadIdx.x; c < classes; c += BLOCK) top = fmaxf(top, row[c]);
    top = block_max(top);
    // The smallest index, as the largest of its negatives: a float knows all numbers of classes.
    float first = -(float)classes;
    for (u32 c = threadIdx.x; c < classes; c += BLOCK)
        if (row[c] == top) first = fmaxf(first, -(float)c);
    first = block_max(first);
    if (threadIdx.x == 0) hits[blockIdx.x] = -first == (float)targets[blockIdx.x] ? 1.0f : 0.0f;
}
REGISTER(row_hits)

// The optimiser's update of all parameters, and what a step is judged by before it.
#include "common.cuh"

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

// g ← gradient + decay·p; v ← momentum·v + g; p ← p − factor·lr·(nesterov ? g + momentum·v : v), unless `verdict[1]` is 0. The learning
// rate is read from device memory: a captured launch is given another one in every step. Grid: the blocks of all slots.
extern "C" __global__ void sgd(const __grid_constant__ Slots slots, u32 count, const float *lr, const float *verdict, float momentum, float decay,
                               u32 nesterov) {
    if (verdict && verdict[1] == 0.0f) return;
    Slot own = slots.slot[own_entry(slots, count)];
    float rate = *lr * own.factor;
    u64 start = (u64)(blockIdx.x - own.first) * CHUNK;
    for (u64 i = start + threadIdx.x; i < start + CHUNK && i < own.len; i += BLOCK) {
        float p = own.parameter[i];
        float g = fmaf(decay, p, own.gradient[i]);
        float v = fmaf(momentum, own.velocity[i], g);
        own.velocity[i] = v;
        own.parameter[i] = fmaf(-rate, nesterov ? fmaf(momentum, v, g) : v, p);
    }
}
REGISTER(sgd)

// One array of many.
struct View {
    const float *x;
    u32 len, first;
};

constexpr u32 VIEWS = 240;

struct Views {
    View slot[VIEWS];
};

// partial[offset + block] = Σ x² over CHUNK elements. Grid: the blocks of all views.
extern "C" __global__ void squares(const __grid_constant__ Views views, u32 count, double *partial, u32 offset) {
    View own = views.slot[own_entry(views, count)];
    u64 start = (u64)(blockIdx.x - own.first) * CHUNK;
    double sum = 0;
    for (u64 i = start + threadIdx.x; i < start + CHUNK && i < own.len; i += BLOCK) sum += (double)own.x[i] * own.x[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[offset + blockIdx.x] = sum;
}
REGISTER(squares)

// verdict = { Σ partial, 1 if that is finite or else 0 }. Grid: 1.
extern "C" __global__ void judge(const double *partial, u32 count, float *verdict) {
    double sum = 0;
    for (u32 i = threadIdx.x; i < count; i += BLOCK) sum += partial[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        verdict[0] = (float)sum;
        verdict[1] = sum <= 1.7976931348623157e308 ? 1.0f : 0.0f;
    }
}
REGISTER(judge)

// hits = 1 where the row's largest logit, the first of equals, is the target's, or else 0. Grid: rows.
extern "C" __global__ void row_hits(const float *z, const u32 *targets, float *hits, u32 classes) {
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

// Losses. One block a row of logits; every row's loss is written and the rows added up in order by `scaled_sum`. The gradient that
// comes in may be read from device memory, so that nothing waits for the host.
#include "common.cuh"

// log p_c = (scale·z_c − top) − log_sum; a NaN, which the maximum passes over, comes out of the sum.
struct LogSoftmax {
    float scale, top, log_sum;
};

template <class T> __device__ LogSoftmax log_softmax(const T *row, u32 classes, float scale) {
    float top = -CUDART_INF_F, sum = 0;
    for (u32 c = threadIdx.x; c < classes; c += BLOCK) top = fmaxf(top, scale * widen(row[c]));
    top = block_max(top);
    for (u32 c = threadIdx.x; c < classes; c += BLOCK) sum += expf(scale * widen(row[c]) - top);
    return {scale, top, logf(block_sum(sum))};
}

__device__ inline float log_p(LogSoftmax s, float z) { return (s.scale * z - s.top) - s.log_sum; }

// Up to two labels a row, weighted λ and 1 − λ; without `partner` one label of weight 1.
struct Target {
    u32 own, other;
    float a, b;
};

__device__ inline Target target(const u32 *labels, const u32 *partner, const float *lambda, u32 row) {
    if (!partner) return {labels[row], labels[row], 1.0f, 0.0f};
    return {labels[row], partner[row], lambda[row], 1.0f - lambda[row]};
}

// A label that is no class gives NaN: only the host could report it. Grid: rows.
template <class T>
__device__ void label_loss(const T *z, const u32 *labels, const u32 *partner, const float *lambda, float *losses,
                           u32 classes) {
    const T *row = z + (u64)blockIdx.x * classes;
    LogSoftmax s = log_softmax(row, classes, 1.0f);
    if (threadIdx.x == 0) {
        Target t = target(labels, partner, lambda, blockIdx.x);
        float loss = 0;
        if (t.own >= classes || t.other >= classes) {
            loss = CUDART_NAN_F;
        } else {
            if (t.a != 0) loss -= t.a * log_p(s, widen(row[t.own]));
            if (t.b != 0) loss -= t.b * log_p(s, widen(row[t.other]));
        }
        losses[blockIdx.x] = loss;
    }
}
#define PARAMETERS(T)                                                                                                 \
    (const T *z, const u32 *labels, const u32 *partner, const float *lambda, float *losses, u32 classes)
BOTH(label_loss, PARAMETERS, (z, labels, partner, lambda, losses, classes))
#undef PARAMETERS

// dL/dz_c = g/B · ((a + b)·p_c − the weights of c). Grid: rows.
template <class T>
__device__ void label_loss_backward(const T *z, const u32 *labels, const u32 *partner, const float *lambda,
                                    const float *gradient, float factor, T *dz, u32 rows, u32 classes) {
    u64 at = (u64)blockIdx.x * classes;
    LogSoftmax s = log_softmax(z + at, classes, 1.0f);
    Target t = target(labels, partner, lambda, blockIdx.x);
    float g = incoming(gradient, factor) / (float)rows;
    for (u32 c = threadIdx.x; c < classes; c += BLOCK) {
        float value = (t.a + t.b) * expf(log_p(s, widen(z[at + c])));
        if (c == t.own) value -= t.a;
        if (c == t.other) value -= t.b;
        dz[at + c] = narrow<T>(g * value);
    }
}
#define PARAMETERS(T)                                                                                                 \
    (const T *z, const u32 *labels, const u32 *partner, const float *lambda, const float *gradient, float factor,      \
     T *dz, u32 rows, u32 classes)
BOTH(label_loss_backward, PARAMETERS, (z, labels, partner, lambda, gradient, factor, dz, rows, classes))
#undef PARAMETERS

// −Σ_c t_c·log p_c. Grid: rows.
template <class T> __device__ void soft_loss(const T *z, const T *t, float *losses, u32 classes) {
    u64 at = (u64)blockIdx.x * classes;
    LogSoftmax s = log_softmax(z + at, classes, 1.0f);
    float sum = 0;
    for (u32 c = threadIdx.x; c < classes; c += BLOCK) sum -= widen(t[at + c]) * log_p(s, widen(z[at + c]));
    sum = block_sum(sum);
    if (threadIdx.x == 0) losses[blockIdx.x] = sum;
}
#define PARAMETERS(T) (const T *z, const T *t, float *losses, u32 classes)
BOTH(soft_loss, PARAMETERS, (z, t, losses, classes))
#undef PARAMETERS

// dL/dz_c = g/B · (p_c·Σ t − t_c). Grid: rows.
template <class T>
__device__ void soft_loss_backward(const T *z, const T *t, const float *gradient, float factor, T *dz, u32 rows, u32 classes) {
    u64 at = (u64)blockIdx.x * classes;
    LogSoftmax s = log_softmax(z + at, classes, 1.0f);
    float sum = 0;
    for (u32 c = threadIdx.x; c < classes; c += BLOCK) sum += widen(t[at + c]);
    sum = block_sum(sum);
    float g = incoming(gradient, factor) / (float)rows;
    for (u32 c = threadIdx.x; c < classes; c += BLOCK)
        dz[at + c] = narrow<T>(g * (sum * expf(log_p(s, widen(z[at + c]))) - widen(t[at + c])));
}
#define PARAMETERS(T) (const T *z, const T *t, const float *gradient, float factor, T *dz, u32 rows, u32 classes)
BOTH(soft_loss_backward, PARAMETERS, (z, t, gradient, factor, dz, rows, classes))
#undef PARAMETERS

// T²·Σ_c p_c·(log p_c − log q_c), p the teacher's. Grid: rows.
template <class T>
__device__ void divergence(const T *student, const T *teacher, float *losses, u32 classes, float temperature) {
    u64 at = (u64)blockIdx.x * classes;
    LogSoftmax q = log_softmax(student + at, classes, 1.0f / temperature);
    LogSoftmax p = log_softmax(teacher + at, classes, 1.0f / temperature);
    float sum = 0;
    for (u32 c = threadIdx.x; c < classes; c += BLOCK) {
        float log = log_p(p, widen(teacher[at + c])), power = expf(log);
        // A class the teacher excludes adds nothing.
        if (power != 0) sum += power * (log - log_p(q, widen(student[at + c])));
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) losses[blockIdx.x] = temperature * temperature * sum;
}
#define PARAMETERS(T) (const T *student, const T *teacher, float *losses, u32 classes, float temperature)
BOTH(divergence, PARAMETERS, (student, teacher, losses, classes, temperature))
#undef PARAMETERS

// dL/ds_c = T·g/B · (q_c − p_c). Grid: rows.
template <class T>
__device__ void divergence_backward(const T *student, const T *teacher, const float *gradient, float factor, T *ds,
                                    u32 rows, u32 classes, float temperature) {
    u64 at = (u64)blockIdx.x * classes;
    LogSoftmax q = log_softmax(student + at, classes, 1.0f / temperature);
    LogSoftmax p = log_softmax(teacher + at, classes, 1.0f / temperature);
    float g = temperature * incoming(gradient, factor) / (float)rows;
    for (u32 c = threadIdx.x; c < classes; c += BLOCK)
        ds[at + c] = narrow<T>(g * (expf(log_p(q, widen(student[at + c]))) - expf(log_p(p, widen(teacher[at + c])))));
}
#define PARAMETERS(T)                                                                                                 \
    (const T *student, const T *teacher, const float *gradient, float factor, T *ds, u32 rows, u32 classes,            \
     float temperature)
BOTH(divergence_backward, PARAMETERS, (student, teacher, gradient, factor, ds, rows, classes, temperature))
#undef PARAMETERS

// λ·x + (1 − λ)·x_π − y of one element of row `row`; x − y without `partner`.
template <class T>
__device__ inline float difference(const T *x, const u32 *partner, const float *lambda, const T *y, u32 row, u64 length,
                                   u64 at) {
    float value = widen(x[row * length + at]);
    if (partner) {
        float l = lambda[row];
        value = fmaf(l, value, (1.0f - l) * widen(x[partner[row] * length + at]));
    }
    return value - widen(y[row * length + at]);
}

// Sums of squared differences, one for each part of each row. Grid: (parts, rows).
template <class T>
__device__ void square_partial(const T *x, const u32 *partner, const float *lambda, const T *y, float *partial,
                               u32 length) {
    float sum = 0;
    for (u64 at = thread_index(); at < length; at += (u64)gridDim.x * BLOCK) {
        float d = difference(x, partner, lambda, y, blockIdx.y, length, at);
        sum = fmaf(d, d, sum);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.y * gridDim.x + blockIdx.x] = sum;
}
#define PARAMETERS(T)                                                                                                 \
    (const T *x, const u32 *partner, const float *lambda, const T *y, float *partial, u32 length)
BOTH(square_partial, PARAMETERS, (x, partner, lambda, y, partial, length))
#undef PARAMETERS

// ∂/∂(interpolation) of the mean square into `d_first`, its negative into `d_second`, each where wanted. Grid: (parts, rows).
template <class T>
__device__ void square_backward(const T *x, const u32 *partner, const float *lambda, const T *y, const float *gradient,
                                float factor, T *d_first, T *d_second, u32 length, float scale) {
    float g = incoming(gradient, factor) * scale;
    for (u64 at = thread_index(); at < length; at += (u64)gridDim.x * BLOCK) {
        float d = g * difference(x, partner, lambda, y, blockIdx.y, length, at);
        if (d_first) d_first[(u64)blockIdx.y * length + at] = narrow<T>(d);
        if (d_second) d_second[(u64)blockIdx.y * length + at] = narrow<T>(-d);
    }
}
#define PARAMETERS(T)                                                                                                 \
    (const T *x, const u32 *partner, const float *lambda, const T *y, const float *gradient, float factor,            \
     T *d_first, T *d_second, u32 length, float scale)
BOTH(square_backward, PARAMETERS, (x, partner, lambda, y, gradient, factor, d_first, d_second, length, scale))
#undef PARAMETERS

// out = scale · Σ values, in double precision and in the order of the threads. Grid: 1.
KERNEL void scaled_sum(const float *values, float *out, u32 count, float scale) {
    double sum = 0;
    for (u32 i = threadIdx.x; i < count; i += BLOCK) sum += values[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *out = (float)(sum * scale);
}
REGISTER(scaled_sum)

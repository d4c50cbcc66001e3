// Batch norm over [rows, channels] with the residual sum and ReLU that follow it; statistics and parameters in float.
//
// A tile is `lanes` packs of channels wide; the block's other threads take further rows. Slabs of rows are reduced to one pair of
// numbers a channel each, and the pairs joined in order in double precision (Chan, Golub & LeVeque 1979).
#include "common.cuh"
#include "parts.cuh"

// Rows that a thread reads before it works on the first of them.
constexpr u32 ROWS = 4;
// Where there are several maps to read.
constexpr u32 FEW = 2;

// V neighbouring numbers of an array of channels.
template <u32 V> __device__ inline void load_channels(float (&to)[V], const float *from) {
    constexpr u32 W = V < 4 ? V : 4;
    for (u32 k = 0; k < V; k += W) {
        Pack<float, W> some = load<float, W>(from + k);
        for (u32 i = 0; i < W; i++) to[k + i] = some.v[i];
    }
}

// Writes the slab's mean and sum of squared deviations. Grid: (tiles, slabs).
template <class T, u32 V>
__device__ void norm_partial(const T *x, float *partial, u32 rows, u32 channels, u32 slab, u32 lanes) {
    __shared__ float sums[2][BLOCK * V];
    u32 lane = threadIdx.x % lanes, line = threadIdx.x / lanes, lines = BLOCK / lanes;
    u32 c = (blockIdx.x * lanes + lane) * V;
    u32 first = blockIdx.y * slab;
    u32 end = min(first + slab, rows);
    float shift[V], s[V], q[V];
    for (u32 k = 0; k < V; k++) shift[k] = s[k] = q[k] = 0;
    if (c < channels) {
        // Around the slab's first row sums are small, and so exact.
        Pack<T, V> row = load<T, V>(x + (u64)first * channels + c);
        for (u32 k = 0; k < V; k++) shift[k] = widen(row.v[k]);
        for (u32 r = first + line; r < end; r += ROWS * lines) {
            Pack<T, V> in[ROWS];
            for (u32 j = 0; j < ROWS; j++)
                if (r + j * lines < end) in[j] = load<T, V>(x + (u64)(r + j * lines) * channels + c);
            for (u32 j = 0; j < ROWS; j++) {
                if (r + j * lines >= end) break;
                for (u32 k = 0; k < V; k++) {
                    float d = widen(in[j].v[k]) - shift[k];
                    s[k] += d;
                    q[k] = fmaf(d, d, q[k]);
                }
            }
        }
    }
    for (u32 k = 0; k < V; k++) {
        sums[0][threadIdx.x * V + k] = s[k];
        sums[1][threadIdx.x * V + k] = q[k];
    }
    __syncthreads();
    // A thread a channel from here on.
    u32 width = lanes * V, own = blockIdx.x * width + threadIdx.x;
    if (threadIdx.x < width && own < channels) {
        float n = (float)(end - first), sum = 0, square = 0;
        UNROLL(4)
        for (u32 at = threadIdx.x; at < BLOCK * V; at += width) {
            sum += sums[0][at];
            square += sums[1][at];
        }
        float *out = partial + (u64)blockIdx.y * 2 * channels + own;
        out[0] = widen(x[(u64)first * channels + own]) + sum / n;
        out[channels] = fmaxf(square - sum * sum / n, 0.0f);
    }
}
#define PARAMETERS(T) (const T *x, float *partial, u32 rows, u32 channels, u32 slab, u32 lanes)
PACKED(norm_partial, PARAMETERS, (x, partial, rows, channels, slab, lanes))
#undef PARAMETERS

constexpr u32 WIDTH = 8;
constexpr u32 DEPTH = BLOCK / WIDTH;
// Slabs that a thread of the finishing kernels has, at most: all of them are read before the first is added.
constexpr u32 EACH = 8;

// Adds up what the threads of one channel hold, in the order of their depth.
__device__ inline double thread_sum(double value) {
    __shared__ double part[DEPTH][WIDTH];
    u32 lane = threadIdx.x % WIDTH;
    part[threadIdx.x / WIDTH][lane] = value;
    __syncthreads();
    double total = 0;
    for (u32 d = 0; d < DEPTH; d++) total += part[d][lane];
    __syncthreads();
    return total;
}

// Joins the slabs. Grid: channels / WIDTH.
KERNEL void norm_finish(const float *partial, float *mean, float *var, float *inv_std, u32 rows,
                        u32 channels, u32 slab, u32 slabs, float eps) {
    u32 c = blockIdx.x * WIDTH + threadIdx.x % WIDTH;
    float means[EACH], squares[EACH], counts[EACH];
    for (u32 i = 0; i < EACH; i++) {
        u32 s = threadIdx.x / WIDTH + i * DEPTH;
        bool is_there = c < channels && s < slabs;
        means[i] = is_there ? partial[(u64)s * 2 * channels + c] : 0.0f;
        squares[i] = is_there ? partial[((u64)s * 2 + 1) * channels + c] : 0.0f;
        counts[i] = is_there ? (float)min(slab, rows - s * slab) : 0.0f;
    }
    double sum = 0;
    for (u32 i = 0; i < EACH; i++) sum += (double)counts[i] * means[i];
    double centre = thread_sum(sum) / rows;
    double m2 = 0;
    for (u32 i = 0; i < EACH; i++) {
        double d = means[i] - centre;
        m2 += squares[i] + (double)counts[i] * d * d;
    }
    double variance = thread_sum(m2) / rows;
    if (threadIdx.x < WIDTH && c < channels) {
        mean[c] = (float)centre;
        var[c] = (float)variance;
        inv_std[c] = (float)(1.0 / sqrt(variance + (double)eps));
    }
}
REGISTER(norm_finish)

// 1 / √(var + eps) of given statistics. Grid: channels / BLOCK.
KERNEL void norm_inverse(const float *var, float *inv_std, u32 channels, float eps) {
    u64 c = thread_index();
    if (c < channels) inv_std[c] = (float)(1.0 / sqrt((double)var[c] + (double)eps));
}
REGISTER(norm_inverse)

// One layer's statistics of many: a batch's, and the running ones that are moved towards them.
struct Moved {
    const float *mean, *var;
    float *running_mean, *running_var;
    u32 channels;
    float unbiased;
};
constexpr u32 LAYERS = 96;
struct Layers {
    Moved slot[LAYERS];
};

// running ← (1 − momentum)·running + momentum·batch, the variance `unbiased` times as large. Grid: (channels / BLOCK of the widest, layers).
KERNEL void norm_running(const __grid_constant__ Layers layers, float momentum) {
    const Moved &own = layers.slot[blockIdx.y];
    u64 c = thread_index();
    if (c >= own.channels) return;
    float kept = 1.0f - momentum;
    own.running_mean[c] = fmaf(momentum, own.mean[c], kept * own.running_mean[c]);
    own.running_var[c] = fmaf(momentum * own.unbiased, own.var[c], kept * own.running_var[c]);
}
REGISTER(norm_running)

// What batch norm makes of V channels, a line each; the centres alone unless it is to be `followed`.
struct Affine {
    const float *mean, *weight, *inv_std, *bias;
};
template <u32 V> struct Lines {
    float centre[V], scale[V], shift[V];
    __device__ Lines(Affine of, u32 c, bool followed) {
        load_channels<V>(centre, of.mean + c);
        if (!followed) return;
        float inverse[V];
        load_channels<V>(scale, of.weight + c);
        load_channels<V>(inverse, of.inv_std + c);
        load_channels<V>(shift, of.bias + c);
        for (u32 k = 0; k < V; k++) scale[k] *= inverse[k];
    }
    template <class T> __device__ float at(T x, u32 k) const { return fmaf(widen(x) - centre[k], scale[k], shift[k]); }
};

// y = act(weight · (x − mean) · inv_std + bias + residual). Grid: (tiles, slabs).
template <class T, u32 V>
__device__ void norm_apply(const T *x, const T *residual, Affine affine, T *y, u32 rows, u32 channels, u32 slab,
                           u32 lanes, u32 relu) {
    u32 lane = threadIdx.x % lanes, line = threadIdx.x / lanes, lines = BLOCK / lanes;
    u32 c = (blockIdx.x * lanes + lane) * V;
    if (c >= channels) return;
    u32 first = blockIdx.y * slab;
    u32 end = min(first + slab, rows);
    Lines<V> own(affine, c, true);
    for (u32 r = first + line; r < end; r += FEW * lines) {
        Pack<T, V> in[FEW], add[FEW];
        for (u32 j = 0; j < FEW; j++) {
            if (r + j * lines >= end) break;
            u64 at = (u64)(r + j * lines) * channels + c;
            in[j] = load<T, V>(x + at);
            if (residual) add[j] = load<T, V>(residual + at);
        }
        for (u32 j = 0; j < FEW; j++) {
            if (r + j * lines >= end) break;
            Pack<T, V> out;
            for (u32 k = 0; k < V; k++) {
                float value = own.at(in[j].v[k], k);
                if (residual) value += widen(add[j].v[k]);
                // Written so that NaN passes.
                if (relu && value < 0) value = 0;
                out.v[k] = narrow<T>(value);
            }
            store<T, V>(y + (u64)(r + j * lines) * channels + c, out);
        }
    }
}
#define PARAMETERS(T)                                                                                                 \
    (const T *__restrict__ x, const T *__restrict__ residual, const float *__restrict__ weight,                       \
     const float *__restrict__ bias, const float *__restrict__ mean, const float *__restrict__ inv_std,               \
     T *__restrict__ y, u32 rows, u32 channels, u32 slab, u32 lanes, u32 relu)
PACKED(norm_apply, PARAMETERS,
       (x, residual, {mean, weight, inv_std, bias}, y, rows, channels, slab, lanes, relu))
#undef PARAMETERS

// Whether a ReLU followed, and where its output comes from: it is read, or made again of the input as norm_apply made it, which saves reading it.
enum class Relu { NONE, READ, MADE_AGAIN };
template <Relu HOW> struct With {
    static constexpr Relu how = HOW;
};

// What the way back reads of one map after another, [rows, channels].
template <class T> struct Maps {
    const T *x, *dy;
    static constexpr u32 TOGETHER = ROWS;
    template <u32 V> __device__ inline void keep(u64, const Pack<T, V> &) const {}
};

// Calls `work` with what is known of the ReLU: without a bias there was none.
template <class T, class Work> __device__ inline void with_relu(Maps<T>, const float *bias, Work work) {
    if (bias) work(With<Relu::MADE_AGAIN>());
    else work(With<Relu::NONE>());
}

// The same where the output's gradient comes in parts, which are added up on the way; the gradient behind the ReLU is written to `g`.
template <class T> struct Gathered {
    const T *x, *y;
    const Parts *parts;
    u32 entries;
    T *g;
    static constexpr u32 TOGETHER = 2;
    template <u32 V> __device__ inline void keep(u64 at, const Pack<T, V> &pack) const { store<T, V>(g + at, pack); }
};
// Parts at most.
constexpr u32 GATHERED = 4;

// Here its output may be there.
template <class T, class Work> __device__ inline void with_relu(Gathered<T> maps, const float *bias, Work work) {
    if (maps.y) work(With<Relu::READ>());
    else if (bias) work(With<Relu::MADE_AGAIN>());
    else work(With<Relu::NONE>());
}

// N rows of them: input, output's gradient, and the ReLU's output where it is read.
template <class T, u32 V, u32 N, Relu HOW> struct Rows {
    Pack<T, V> in[N], g[N], out[N];
    // From `at` on, one every `step` elements. Nothing stands between the reads: they are on their way together.
    __device__ inline Rows(Maps<T> maps, u64 at, u64 step) {
        for (u32 j = 0; j < N; j++) in[j] = load<T, V>(maps.x + at + j * step);
        for (u32 j = 0; j < N; j++) g[j] = load<T, V>(maps.dy + at + j * step);
        SENT_OFF();
    }
    __device__ inline Rows(Gathered<T> maps, u64 at, u64 step) {
        Pack<T, V> some[GATHERED][N] BLANK;
        for (u32 j = 0; j < N; j++) in[j] = load<T, V>(maps.x + at + j * step);
        for (u32 p = 0; p < GATHERED; p++) {
            if (p >= maps.entries) break;
            const Part &part = maps.parts->slot[p];
            for (u32 j = 0; j < N; j++) {
                // Before the part's first element this wraps round, to behind its last.
                u32 own = (u32)(at + j * step) - part.first;
                if (own < part.len) some[p][j] = load<T, V>((const T *)part.x + own);
            }
        }
        if (HOW == Relu::READ)
            for (u32 j = 0; j < N; j++) out[j] = load<T, V>(maps.y + at + j * step);
        SENT_OFF();
        for (u32 j = 0; j < N; j++) {
            // One alone is the whole, and stays as it is.
            g[j] = some[0][j];
            if (maps.entries == 1) continue;
            float sum[V];
            for (u32 k = 0; k < V; k++) sum[k] = 0;
            for (u32 p = 0; p < GATHERED; p++) {
                if (p >= maps.entries) break;
                const Part &part = maps.parts->slot[p];
                if ((u32)(at + j * step) - part.first >= part.len) continue;
                for (u32 k = 0; k < V; k++) sum[k] += widen(some[p][j].v[k]);
            }
            for (u32 k = 0; k < V; k++) g[j].v[k] = narrow<T>(sum[k]);
        }
    }
    // The gradient behind the ReLU.
    __device__ inline float behind(const Lines<V> &own, u32 j, u32 k) const {
        float value = widen(g[j].v[k]);
        if (HOW == Relu::NONE) return value;
        T y = HOW == Relu::READ ? out[j].v[k] : narrow<T>(own.at(in[j].v[k], k));
        return widen(y) > 0 ? value : 0.0f;
    }
};

// Calls `work` for N rows that are read together: `r` and each `lines`-th after it.
template <u32 N, class T, u32 V, Relu HOW, class Source, class Work>
__device__ inline void some_rows(Source maps, u32 r, u32 lines, u32 channels, u32 c, Work work) {
    Rows<T, V, N, HOW> rows(maps, (u64)r * channels + c, (u64)lines * channels);
    for (u32 j = 0; j < N; j++) work(rows, j, (u64)(r + j * lines) * channels + c);
}

// The same for all from `r` to `end`: TOGETHER of them as long as there are so many.
template <class T, u32 V, Relu HOW, class Source, class Work>
__device__ inline void each_row(Source maps, u32 r, u32 end, u32 lines, u32 channels, u32 c, Work work) {
    constexpr u32 N = Source::TOGETHER;
    for (; r + (N - 1) * lines < end; r += N * lines) some_rows<N, T, V, HOW>(maps, r, lines, channels, c, work);
    if (N > 2)
        for (; r + lines < end; r += 2 * lines) some_rows<2, T, V, HOW>(maps, r, lines, channels, c, work);
    if (r < end) some_rows<1, T, V, HOW>(maps, r, lines, channels, c, work);
}

// Σ g and Σ g·(x − mean) of a slab, g the gradient behind the ReLU. Grid: (tiles, slabs).
template <class T, u32 V, class Source>
__device__ inline void backward_sums(Source maps, Affine affine, float *partial, u32 rows, u32 channels, u32 slab, u32 lanes) {
    __shared__ float sums[2][BLOCK * V];
    u32 lane = threadIdx.x % lanes, line = threadIdx.x / lanes, lines = BLOCK / lanes;
    u32 c = (blockIdx.x * lanes + lane) * V;
    u32 first = blockIdx.y * slab;
    u32 end = min(first + slab, rows);
    float s[V], p[V];
    for (u32 k = 0; k < V; k++) s[k] = p[k] = 0;
    if (c < channels) {
        Lines<V> own(affine, c, affine.bias);
        with_relu(maps, affine.bias, [&](auto relu) {
            each_row<T, V, relu.how>(maps, first + line, end, lines, channels, c, [&](const auto &rows, u32 j, u64 at) {
                Pack<T, V> g;
                for (u32 k = 0; k < V; k++) {
                    float value = rows.behind(own, j, k);
                    s[k] += value;
                    p[k] = fmaf(value, widen(rows.in[j].v[k]) - own.centre[k], p[k]);
                    g.v[k] = narrow<T>(value);
                }
                maps.keep(at, g);
            });
        });
    }
    for (u32 k = 0; k < V; k++) {
        sums[0][threadIdx.x * V + k] = s[k];
        sums[1][threadIdx.x * V + k] = p[k];
    }
    __syncthreads();
    u32 width = lanes * V, own = blockIdx.x * width + threadIdx.x;
    if (threadIdx.x < width && own < channels) {
        float sum = 0, product = 0;
        UNROLL(4)
        for (u32 at = threadIdx.x; at < BLOCK * V; at += width) {
            sum += sums[0][at];
            product += sums[1][at];
        }
        float *out = partial + (u64)blockIdx.y * 2 * channels + own;
        out[0] = sum;
        out[channels] = product;
    }
}

template <class T, u32 V>
__device__ void norm_backward_partial(const T *x, const T *dy, Affine affine, float *partial, u32 rows, u32 channels,
                                      u32 slab, u32 lanes) {
    backward_sums<T, V>(Maps<T>{x, dy}, affine, partial, rows, channels, slab, lanes);
}
#define PARAMETERS(T)                                                                                                 \
    (const T *x, const T *dy, const float *mean, const float *weight, const float *inv_std, const float *bias,        \
     float *partial, u32 rows, u32 channels, u32 slab, u32 lanes)
PACKED(norm_backward_partial, PARAMETERS,
       (x, dy, {mean, weight, inv_std, bias}, partial, rows, channels, slab, lanes))
#undef PARAMETERS

// The same of a gradient that comes in parts, and g.
template <class T, u32 V>
__device__ void norm_backward_gather(const T *x, const T *y, const Parts &parts, u32 entries, Affine affine, T *g, float *partial,
                                     u32 rows, u32 channels, u32 slab, u32 lanes) {
    backward_sums<T, V>(Gathered<T>{x, y, &parts, entries, g}, affine, partial, rows, channels, slab, lanes);
}
#define PARAMETERS(T)                                                                                                 \
    (const T *__restrict__ x, const T *__restrict__ y, const __grid_constant__ Parts parts, u32 entries,              \
     const float *__restrict__ mean, const float *__restrict__ weight, const float *__restrict__ inv_std,             \
     const float *__restrict__ bias, T *__restrict__ g, float *__restrict__ partial, u32 rows, u32 channels,          \
     u32 slab, u32 lanes)
PACKED(norm_backward_gather, PARAMETERS,
       (x, y, parts, entries, {mean, weight, inv_std, bias}, g, partial, rows, channels, slab, lanes))
#undef PARAMETERS

// The parameters' gradients, and the lines `dx = scale·g + slope·(x − mean) + shift` as `coefficients` [3, channels].
// With statistics that are not the batch's own, slope and shift are 0. Grid: channels / WIDTH.
KERNEL void norm_backward_finish(const float *partial, const float *weight, const float *inv_std,
                                 float *d_params, float *coefficients, u32 rows, u32 channels,
                                 u32 slabs, u32 own) {
    u32 c = blockIdx.x * WIDTH + threadIdx.x % WIDTH;
    float sums[EACH], products[EACH];
    for (u32 i = 0; i < EACH; i++) {
        u32 s = threadIdx.x / WIDTH + i * DEPTH;
        bool is_there = c < channels && s < slabs;
        sums[i] = is_there ? partial[(u64)s * 2 * channels + c] : 0.0f;
        products[i] = is_there ? partial[((u64)s * 2 + 1) * channels + c] : 0.0f;
    }
    double sum = 0, product = 0;
    for (u32 i = 0; i < EACH; i++) {
        sum += sums[i];
        product += products[i];
    }
    sum = thread_sum(sum);
    product = thread_sum(product);
    if (threadIdx.x < WIDTH && c < channels) {
        double inverse = inv_std[c];
        double scale = weight[c] * inverse;
        d_params[c] = (float)(product * inverse);
        d_params[channels + c] = (float)sum;
        coefficients[c] = (float)scale;
        coefficients[channels + c] = own ? (float)(-scale * inverse * inverse * product / rows) : 0.0f;
        coefficients[2 * channels + c] = own ? (float)(-scale * sum / rows) : 0.0f;
    }
}
REGISTER(norm_backward_finish)

// dx. Grid: (tiles, slabs).
template <class T, u32 V>
__device__ void norm_backward_apply(const T *x, const T *dy, Affine affine, const float *coefficients, T *dx, u32 rows, u32 channels,
                                    u32 slab, u32 lanes) {
    u32 lane = threadIdx.x % lanes, line = threadIdx.x / lanes, lines = BLOCK / lanes;
    u32 c = (blockIdx.x * lanes + lane) * V;
    if (c >= channels) return;
    u32 first = blockIdx.y * slab;
    u32 end = min(first + slab, rows);
    Lines<V> own(affine, c, affine.bias);
    float scale[V], slope[V], shift[V];
    load_channels<V>(scale, coefficients + c);
    load_channels<V>(slope, coefficients + channels + c);
    load_channels<V>(shift, coefficients + 2 * channels + c);
    Maps<T> maps{x, dy};
    with_relu(maps, affine.bias, [&](auto relu) {
        each_row<T, V, relu.how>(maps, first + line, end, lines, channels, c, [&](const auto &rows, u32 j, u64 at) {
            Pack<T, V> out;
            for (u32 k = 0; k < V; k++) {
                float line_at = fmaf(slope[k], widen(rows.in[j].v[k]) - own.centre[k], shift[k]);
                out.v[k] = narrow<T>(fmaf(scale[k], rows.behind(own, j, k), line_at));
            }
            store<T, V>(dx + at, out);
        });
    });
}
#define PARAMETERS(T)                                                                                                 \
    (const T *__restrict__ x, const T *__restrict__ dy, const float *__restrict__ mean,                               \
     const float *__restrict__ weight, const float *__restrict__ inv_std, const float *__restrict__ bias,             \
     const float *__restrict__ coefficients, T *__restrict__ dx, u32 rows, u32 channels, u32 slab, u32 lanes)
PACKED(norm_backward_apply, PARAMETERS,
       (x, dy, {mean, weight, inv_std, bias}, coefficients, dx, rows, channels, slab, lanes))
#undef PARAMETERS

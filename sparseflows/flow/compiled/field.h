/* One evaluation of a multilayer perceptron f(t, z) with its trace, and the gradient of both.

   The same chain rule as in ../solvers/mlp_kernel.py. r rows go together; the value's rows come first, then those of each of the K
   tangents. Widths are padded to whole registers with zero weights: what stands in the padding reaches nothing. */
#pragma once
#include "product.h"

enum { WEIGHT, BIAS, GATE_WEIGHT, GATE_BIAS, TIME_BIAS, TENSORS }; /* of a layer, in this order */
enum { VALUE, EXACT, PROBED };                                     /* no trace, the exact one, Hutchinson's */

/* One block of a flow as Python hands it over. tensor and gradient hold TENSORS pointers a layer, NULL where none is. */
typedef struct {
    int layers, activation, based;
    const int *width; /* layers + 1 */
    REAL *const *tensor;
    REAL *const *gradient; /* added to; NULL: none is wanted */
    double end_time, of_end_time;
    int steps;
    const double *step; /* over tau = t / T */
} Block;

typedef struct {
    int in, out, in_pad, out_pad;
    REAL *down, *up; /* W' (in x out_pad) and W (out x in_pad) */
    REAL *tensor[TENSORS], *gradient[TENSORS]; /* vectors padded; the weight's gradient is (out x in_pad) */
} Layer;

typedef struct {
    int layers, activation, based, dim, pad, widest, kind, tangents;
    Layer *layer;
    const Block *from;
} Field;

/* What a layer keeps of an evaluation. */
typedef struct {
    REAL *entered; /* (1 + K) r x in_pad; r x in_pad in the first layer of an exact trace */
    REAL *x;       /* (1 + K) r x out_pad, before gate and time bias */
    REAL *gate;    /* out_pad, or r x out_pad where rows have times of their own */
    REAL *d, *dd;  /* r x out_pad */
} Passed;

/* Memory is taken from one piece. Without one (base NULL) it is only measured: nothing may be touched then. */
typedef struct {
    char *base;
    long used;
} Arena;

static inline long padded(long n) { return (n + LANES - 1) / LANES * LANES; }

static void *take(Arena *arena, long bytes) {
    char *found = arena->base ? arena->base + arena->used : NULL;
    arena->used += (bytes + 63) / 64 * 64;
    return found;
}

static REAL *take_reals(Arena *arena, long n) { return take(arena, n * (long)sizeof(REAL)); }

static REAL *take_zeros(Arena *arena, long n) {
    REAL *found = take_reals(arena, n);
    if (found) memset(found, 0, n * sizeof(REAL));
    return found;
}

/* The block's tensors, padded. */
static Field lay_out(Arena *arena, const Block *from, int kind, int gradients) {
    const int measuring = arena->base == NULL;
    Field f = {.layers = from->layers, .activation = from->activation, .based = from->based, .kind = kind, .from = from};
    f.dim = from->width[0];
    f.pad = padded(f.dim);
    f.tangents = kind == VALUE ? 0 : kind == EXACT ? f.dim : 1;
    static const Layer nothing;
    Layer scratch = nothing;
    f.layer = take(arena, from->layers * (long)sizeof(Layer));
    for (int l = 0; l < f.layers; l++) {
        Layer *q = measuring ? &scratch : &f.layer[l];
        *q = nothing;
        q->in = from->width[l], q->out = from->width[l + 1];
        q->in_pad = padded(q->in), q->out_pad = padded(q->out);
        if (q->out_pad > f.widest) f.widest = q->out_pad;
        if (q->in_pad > f.widest) f.widest = q->in_pad;
        q->down = take_zeros(arena, (long)q->in * q->out_pad);
        q->up = take_zeros(arena, (long)q->out * q->in_pad);
        for (int k = 0; k < TENSORS; k++) {
            const REAL *given = from->tensor[l * TENSORS + k];
            if (given == NULL) continue;
            if (k != WEIGHT) {
                q->tensor[k] = take_zeros(arena, q->out_pad);
                if (!measuring) memcpy(q->tensor[k], given, q->out * sizeof(REAL));
            } else if (!measuring)
                for (int o = 0; o < q->out; o++)
                    for (int i = 0; i < q->in; i++)
                        q->down[(long)i * q->out_pad + o] = q->up[(long)o * q->in_pad + i] = given[o * q->in + i];
            if (gradients) q->gradient[k] = take_zeros(arena, k == WEIGHT ? (long)q->out * q->in_pad : q->out_pad);
        }
    }
    return f;
}

/* What was gathered, added to Python's tensors. */
static void hand_back(const Field *f) {
    for (int l = 0; l < f->layers; l++)
        for (int k = 0; k < TENSORS; k++) {
            const Layer *q = &f->layer[l];
            const int in = k == WEIGHT ? q->in : 1, row = k == WEIGHT ? q->in_pad : 1;
            REAL *wanted = f->from->gradient[l * TENSORS + k];
            if (wanted == NULL || q->gradient[k] == NULL) continue;
            for (int o = 0; o < q->out; o++)
                for (int i = 0; i < in; i++) wanted[o * in + i] += q->gradient[k][(long)o * row + i];
        }
}

/* What all layers of an evaluation keep; `stacked`: its 1 + K. */
static Passed *take_passed(Arena *arena, const int *width, int layers, int stacked, int r) {
    Passed *passed = take(arena, layers * (long)sizeof(Passed));
    for (int l = 0; l < layers; l++) {
        long in = padded(width[l]), out = padded(width[l + 1]);
        Passed here = {0};
        here.entered = take_reals(arena, stacked * r * in), here.x = take_reals(arena, stacked * r * out);
        here.gate = take_reals(arena, r * out), here.d = take_reals(arena, r * out), here.dd = take_reals(arena, r * out);
        if (arena->base) passed[l] = here;
    }
    return passed;
}

/* r rows of (rows x dim) from `first` on, padded, into `to`. */
static void load(const Field *f, const REAL *from, long first, int r, REAL *to) {
    memset(to, 0, sizeof(REAL) * r * f->pad);
    for (int i = 0; i < r; i++) memcpy(to + (long)i * f->pad, from + (first + i) * f->dim, f->dim * sizeof(REAL));
}

static void unload(const Field *f, const REAL *from, long first, int r, REAL *to) {
    for (int i = 0; i < r; i++) memcpy(to + (first + i) * f->dim, from + (long)i * f->pad, f->dim * sizeof(REAL));
}

static inline V at(const REAL *p, long offset) { return *(const V *)(p + offset); }
static inline void put(REAL *p, long offset, V value) { *(V *)(p + offset) = value; }

/* (2t - 1) / ((1 - t)^2 + t^2), see gaussian_velocity in ../fields.py. */
static inline REAL base_rate(REAL t) { return (2 * t - 1) / ((1 - t) * (1 - t) + t * t); }

static void make_gates(const Layer *q, const REAL *t, int own_times, int r, REAL *gate) {
    for (int i = 0; i < (own_times ? r : 1); i++)
        for (int v = 0; v < q->out_pad; v += LANES)
            put(gate, (long)i * q->out_pad + v, vsigmoid(at(q->tensor[GATE_WEIGHT], v) * t[i] + at(q->tensor[GATE_BIAS], v)));
}

/* From x to sigma(x) and the tangents behind it, for a hidden layer. columns: W' where the tangents are unit vectors. */
static inline __attribute__((always_inline)) void activation_forward(
    const int kind, const Layer *q, Passed *here, REAL *next, const REAL *columns, int tangents, const REAL *t,
    int own_times, int r) {
    const long n = q->out_pad, plane = r * n;
    const int gated = q->tensor[GATE_WEIGHT] != NULL, timed = q->tensor[TIME_BIAS] != NULL;
    for (int i = 0; i < r; i++)
        for (int v = 0; v < n; v += LANES) {
            const long o = i * n + v;
            const V gate = gated ? at(here->gate, own_times ? o : v) : all(1);
            V x = at(here->x, o) + at(q->tensor[BIAS], v);
            if (gated) put(here->x, o, x), x *= gate;
            if (timed) x += at(q->tensor[TIME_BIAS], v) * t[own_times ? i : 0];
            const Sigma s = activate(kind, x);
            put(next, o, s.y), put(here->d, o, s.d);
            if (tangents) put(here->dd, o, s.dd);
            for (int k = 0; k < tangents; k++) {
                V p = columns ? at(columns, k * n + v) : at(here->x, (k + 1) * plane + o);
                if (gated) p *= gate;
                put(next, (k + 1) * plane + o, p * s.d);
            }
        }
}

static inline __attribute__((always_inline)) void activation_backward(
    const Layer *q, const Passed *here, REAL *g, const REAL *columns, int tangents, int own_times, int r) {
    const long n = q->out_pad, plane = r * n;
    const int gated = q->tensor[GATE_WEIGHT] != NULL;
    for (int i = 0; i < r; i++)
        for (int v = 0; v < n; v += LANES) {
            const long o = i * n + v;
            const V d = at(here->d, o);
            if (!tangents) {
                put(g, o, at(g, o) * d);
                continue;
            }
            V sum = all(0);
            for (int k = 0; k < tangents; k++) {
                const V p = columns ? at(columns, k * n + v) : at(here->x, (k + 1) * plane + o);
                const V above = at(g, (k + 1) * plane + o);
                sum += above * p;
                put(g, (k + 1) * plane + o, above * d);
            }
            if (gated) sum *= at(here->gate, own_times ? o : v);
            put(g, o, at(g, o) * d + sum * at(here->dd, o));
        }
}

/* f (r x pad) and its trace (r) at the rows that stand in passed[0].entered (behind them the probes, where kind is
   PROBED). t: one time, or r of them with own_times. */
static void forward(const Field *f, Passed *passed, const REAL *t, int own_times, int r, REAL *velocity, REAL *trace) {
    const int last = f->layers - 1;
    for (int l = 0; l <= last; l++) {
        const Layer *q = &f->layer[l];
        Passed *here = &passed[l];
        const REAL *columns = l == 0 && f->kind == EXACT ? q->down : NULL;
        const int rows = columns ? r : (1 + f->tangents) * r;
        product(here->entered, q->in_pad, 1, q->down, q->out_pad, here->x, q->out_pad, rows, q->out_pad, q->in, 0);
        if (q->tensor[GATE_WEIGHT]) make_gates(q, t, own_times, r, here->gate);
        if (l == last) break;
        REAL *next = passed[l + 1].entered;
#define CASE(KIND) \
    case KIND: activation_forward(KIND, q, here, next, columns, f->tangents, t, own_times, r); break;
        switch (f->activation) { CASE(SIGMOID) CASE(TANH) CASE(SOFTPLUS) CASE(RELU) CASE(SILU) }
#undef CASE
    }
    const Layer *q = &f->layer[last];
    Passed *here = &passed[last];
    const REAL *columns = last == 0 && f->kind == EXACT ? q->down : NULL;
    const long n = q->out_pad, plane = r * n;
    for (int i = 0; i < r; i++) {
        const REAL time = t[own_times ? i : 0], rate = f->based ? base_rate(time) : 0;
        const REAL *gate = q->tensor[GATE_WEIGHT] ? here->gate + (own_times ? i * n : 0) : NULL;
        const REAL *z = passed[0].entered + (long)i * f->pad, *probe = z + (long)r * f->pad;
        REAL *x = here->x + i * n, sum = 0;
        for (int j = 0; j < f->dim; j++) {
            const REAL factor = gate ? gate[j] : 1;
            x[j] += q->tensor[BIAS][j];
            velocity[(long)i * f->pad + j] =
                x[j] * factor + (q->tensor[TIME_BIAS] ? q->tensor[TIME_BIAS][j] * time : 0) + rate * z[j];
            if (f->kind == EXACT) sum += (columns ? columns[j * n + j] : x[(1 + j) * plane + j]) * factor + rate;
            if (f->kind == PROBED) sum += (x[plane + j] * factor + rate * probe[j]) * probe[j];
        }
        for (int j = f->dim; j < f->pad; j++) velocity[(long)i * f->pad + j] = 0;
        if (f->kind != VALUE) trace[i] = sum;
    }
}

/* The gradient of z (r x pad; NULL: it is not wanted) and of t (summed over the rows), for those of f and of its trace;
   those of the parameters are added to the layers'. g, other: (1 + K) r x widest each, scratch. */
static double backward(const Field *f, Passed *passed, const REAL *t, int own_times, int r, const REAL *of_velocity,
                       const REAL *of_trace, REAL *of_z, REAL *g, REAL *other) {
    const int last = f->layers - 1, stacked = 1 + f->tangents;
    double of_t = 0;
    memset(g, 0, sizeof(REAL) * stacked * r * f->layer[last].out_pad);
    for (int i = 0; i < r; i++)
        for (int j = 0; j < f->dim; j++) {
            const long plane = (long)r * f->pad, o = (long)i * f->pad;
            g[o + j] = of_velocity[o + j];
            if (f->kind == EXACT) g[(1 + j) * plane + o + j] = of_trace[i];
            if (f->kind == PROBED) g[plane + o + j] = of_trace[i] * passed[0].entered[plane + o + j];
        }
    for (int l = last; l >= 0; l--) {
        const Layer *q = &f->layer[l];
        const Passed *here = &passed[l];
        const long n = q->out_pad, plane = r * n;
        const REAL *columns = l == 0 && f->kind == EXACT ? q->down : NULL;
        if (l < last) activation_backward(q, here, g, columns, f->tangents, own_times, r);
        for (int v = 0; v < n; v += LANES) {
            V of_bias = all(0), of_output = all(0), of_time_bias = all(0), of_gate_weight = all(0), of_gate_bias = all(0);
            for (int i = 0; i < r; i++) {
                const long o = i * n + v;
                const REAL time = t[own_times ? i : 0];
                of_output += at(g, o), of_time_bias += at(g, o) * time;
                if (q->tensor[GATE_WEIGHT]) {
                    const V gate = at(here->gate, own_times ? o : v);
                    V sum = at(g, o) * at(here->x, o);
                    put(g, o, at(g, o) * gate);
                    for (int k = 0; k < f->tangents; k++) {
                        const long there = (k + 1) * plane + o;
                        sum += at(g, there) * (columns ? at(columns, k * n + v) : at(here->x, there));
                        put(g, there, at(g, there) * gate);
                    }
                    sum *= gate * ((REAL)1 - gate);
                    of_gate_bias += sum, of_gate_weight += sum * time;
                }
                of_bias += at(g, o);
            }
            put(q->gradient[BIAS], v, at(q->gradient[BIAS], v) + of_bias);
            if (q->tensor[TIME_BIAS]) {
                put(q->gradient[TIME_BIAS], v, at(q->gradient[TIME_BIAS], v) + of_time_bias);
                if (!own_times)
                    for (int j = 0; j < LANES; j++) of_t += (double)of_output[j] * q->tensor[TIME_BIAS][v + j];
            }
            if (q->tensor[GATE_WEIGHT]) {
                put(q->gradient[GATE_WEIGHT], v, at(q->gradient[GATE_WEIGHT], v) + of_gate_weight);
                put(q->gradient[GATE_BIAS], v, at(q->gradient[GATE_BIAS], v) + of_gate_bias);
                if (!own_times)
                    for (int j = 0; j < LANES; j++) of_t += (double)of_gate_bias[j] * q->tensor[GATE_WEIGHT][v + j];
            }
        }
        const int rows = columns ? r : stacked * r;
        product(g, 1, n, here->entered, q->in_pad, q->gradient[WEIGHT], q->in_pad, q->out, q->in_pad, rows, 1);
        if (columns)
            for (int k = 0; k < f->tangents; k++)
                for (int i = 0; i < r; i++)
                    for (int o = 0; o < q->out; o++)
                        q->gradient[WEIGHT][(long)o * q->in_pad + k] += g[(k + 1) * plane + i * n + o];
        const int wanted = l == 0 ? r : rows;
        if (l == 0 && of_z == NULL) return of_t;
        product(g, n, 1, q->up, q->in_pad, other, q->in_pad, wanted, q->in_pad, q->out, 0);
        REAL *swap = g;
        g = other, other = swap;
    }
    for (int i = 0; i < r; i++) {
        const REAL rate = f->based ? base_rate(t[own_times ? i : 0]) : 0;
        for (int j = 0; j < f->pad; j++)
            of_z[(long)i * f->pad + j] = g[(long)i * f->pad + j] + rate * of_velocity[(long)i * f->pad + j];
    }
    return of_t;
}

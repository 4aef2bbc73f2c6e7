/* Second derivatives of one evaluation of a perceptron f(t, z) with its exact trace: forward over reverse.

   The evaluation and its gradient are gone through once; then, for a direction of the params, the derivative of both
   along it. With h what enters a layer and U its K tangents, W its weight, s its gate, c its time bias:

       x = W h + b, P = W U        X = s x + c t, Q = s P        y = sigma(X), V = sigma'(X) Q
       X^ = sigma' y^ + sigma'' sum Q V^, Q^ = sigma' V^         x^ = s X^, P^ = s Q^        h^ = W' x^, U^ = W' P^

   (a hat is the loss's gradient). Along a direction, a dot, six numbers a neuron are all that is needed of the activation:

       y. = d X.,  V. = d Q. + C X.        X^. = d y^. + A X. + sum (B Q. + C V^.),  Q^. = d V^. + B X.
       A = sigma'' y^ + sigma''' sum Q V^,  B = sigma'' V^,  C = sigma'' Q,  d = sigma'                                  */
#pragma once
#include "field.h"

/* What one layer keeps of an evaluation and its gradient; planes of r rows, the value's first, then the tangents'. */
typedef struct {
    REAL *entered;  /* (1 + K) r x in_pad: h and U; r x in_pad in the first layer, whose tangents are unit vectors */
    REAL *x;        /* (1 + K) r x out_pad: x and P */
    REAL *of_gated; /* the same: X^ and Q^ */
    REAL *of_x;     /* the same: x^ and P^; where there is no gate, of_gated itself */
    REAL *d, *A;    /* r x out_pad */
    REAL *B, *C;    /* K r x out_pad */
    REAL *gate;     /* out_pad, or r x out_pad where rows have times of their own */
    REAL *sums;     /* last layer: r x pad, the terms of the trace before the gate */
} Kept;

/* The derivative of a layer's evaluation along a direction. */
typedef struct {
    REAL *entered, *x; /* as Kept's */
    REAL *gated;       /* (1 + K) r x out_pad: X. and Q. */
    REAL *gate, *sums;
} Dots;

typedef struct { V y, d, dd, ddd; } Sigma3;

static inline __attribute__((always_inline)) Sigma3 activate3(int kind, V x) {
    const V one = all(1);
    const Sigma s = activate(kind, x);
    Sigma3 found = {s.y, s.d, s.dd, all(0)};
    switch (kind) {
    case SIGMOID: found.ddd = s.d * (one - (REAL)6 * s.d); break;
    case TANH: found.ddd = s.d * ((REAL)4 - (REAL)6 * s.d); break;
    case SOFTPLUS: found.ddd = s.dd * (one - s.d - s.d); break;
    case RELU: break;
    default: {
        const V g = vsigmoid(x), q = g * (one - g), m = one - g - g;
        found.ddd = q * m * ((REAL)2 + x * m) + q * (m - (REAL)2 * x * q);
    }
    }
    return found;
}

static Kept *take_kept(Arena *arena, const Field *f, int tangents, int r) {
    Kept *kept = take(arena, f->layers * (long)sizeof(Kept));
    for (int l = 0; l < f->layers; l++) {
        const long in = padded(f->from->width[l]), out = r * padded(f->from->width[l + 1]);
        const int gated = f->from->tensor[l * TENSORS + GATE_WEIGHT] != NULL, last = l == f->layers - 1;
        const int inner = l == 0 || last ? 1 : 1 + tangents; /* planes of x: the ends know their tangents otherwise */
        Kept k = {0};
        k.entered = take_reals(arena, (l ? 1 + tangents : 1) * r * in), k.x = take_reals(arena, inner * out);
        k.of_gated = take_reals(arena, (last ? 1 : 1 + tangents) * out);
        k.of_x = gated ? take_reals(arena, (last ? 1 : 1 + tangents) * out) : k.of_gated;
        k.gate = gated ? take_reals(arena, out) : NULL;
        if (last) k.sums = take_reals(arena, out);
        else k.d = take_reals(arena, out), k.A = take_reals(arena, out), k.B = take_reals(arena, tangents * out), k.C = take_reals(arena, tangents * out);
        if (arena->base) kept[l] = k;
    }
    return kept;
}

/* What the derivatives of an evaluation's values begin with, kept of an evaluation without tangents; all that only its
   gradient asks for is written where `shared` has room for it. */
static Kept *take_values(Arena *arena, const Field *f, const Kept *shared, int r) {
    Kept *values = take(arena, f->layers * (long)sizeof(Kept));
    for (int l = 0; l < f->layers; l++) {
        const long in = r * padded(f->from->width[l]), out = r * padded(f->from->width[l + 1]);
        const int gated = f->from->tensor[l * TENSORS + GATE_WEIGHT] != NULL;
        REAL *entered = take_reals(arena, in), *d = l < f->layers - 1 ? take_reals(arena, out) : NULL;
        REAL *x = gated ? take_reals(arena, out) : NULL, *gate = gated ? take_reals(arena, out) : NULL;
        if (!arena->base) continue;
        values[l] = shared[l];
        values[l].entered = entered, values[l].d = d;
        if (gated) values[l].x = x, values[l].gate = gate;
    }
    return values;
}

static Dots *take_dots(Arena *arena, const Field *f, int tangents, int r) {
    Dots *dots = take(arena, f->layers * (long)sizeof(Dots));
    for (int l = 0; l < f->layers; l++) {
        const long in = padded(f->from->width[l]), out = r * padded(f->from->width[l + 1]);
        const int gated = f->from->tensor[l * TENSORS + GATE_WEIGHT] != NULL, last = l == f->layers - 1;
        const int inner = l == 0 || last ? 1 : 1 + tangents;
        Dots d = {0};
        d.entered = take_reals(arena, (l ? 1 + tangents : 1) * r * in), d.gated = take_reals(arena, (last ? 1 : 1 + tangents) * out);
        d.x = gated ? take_reals(arena, inner * out) : d.gated;
        d.gate = gated ? take_reals(arena, out) : NULL;
        if (last) d.sums = take_reals(arena, out);
        if (arena->base) dots[l] = d;
    }
    return dots;
}

/* Where the gate, or a vector of the first layer's tangent k, stands for row i. */
#define GATE(of, i, v) at((of)->gate, own_times ? (long)(i) * n + (v) : (v))
#define TIME(i) t[own_times ? (i) : 0]

static inline __attribute__((always_inline)) void hidden_forward(
    const int kind, const Layer *q, Kept *k, REAL *next, int first, int tangents, const REAL *t, int own_times, int r) {
    const long n = q->out_pad, plane = r * n;
    const int gated = q->tensor[GATE_WEIGHT] != NULL, timed = q->tensor[TIME_BIAS] != NULL;
    for (int i = 0; i < r; i++)
        for (int v = 0; v < n; v += LANES) {
            const long o = i * n + v;
            const V gate = gated ? GATE(k, i, v) : all(1);
            V x = at(k->x, o) + at(q->tensor[BIAS], v);
            if (gated) put(k->x, o, x), x *= gate;
            if (timed) x += at(q->tensor[TIME_BIAS], v) * TIME(i);
            const Sigma3 s = activate3(kind, x);
            put(next, o, s.y), put(k->d, o, s.d);
            put(k->A, o, s.dd), put(k->of_gated, o, s.ddd); /* until the gradient comes by */
            for (int j = 0; j < tangents; j++) {
                V p = first ? at(q->down, j * n + v) : at(k->x, (1 + j) * plane + o);
                if (gated) p *= gate;
                put(k->C, j * plane + o, p), put(next, (1 + j) * plane + o, p * s.d); /* C: Q until then */
            }
        }
}

/* f (r x pad) and its trace (r); without tangents f alone. */
static void second_forward(const Field *f, Kept *kept, int tangents, const REAL *t, int own_times, int r, REAL *velocity, REAL *trace) {
    const int last = f->layers - 1;
    for (int l = 0; l <= last; l++) {
        const Layer *q = &f->layer[l];
        Kept *k = &kept[l];
        product(k->entered, q->in_pad, 1, q->down, q->out_pad, k->x, q->out_pad, l && l < last ? (1 + tangents) * r : r, q->out_pad, q->in, 0);
        if (q->tensor[GATE_WEIGHT]) make_gates(q, t, own_times, r, k->gate);
        if (l == last) break;
#define CASE(KIND) case KIND: hidden_forward(KIND, q, k, kept[l + 1].entered, l == 0, tangents, t, own_times, r); break;
        switch (f->activation) { CASE(SIGMOID) CASE(TANH) CASE(SOFTPLUS) CASE(RELU) CASE(SILU) }
#undef CASE
    }
    const Layer *q = &f->layer[last];
    Kept *k = &kept[last];
    const long n = q->out_pad, in = q->in_pad, plane = r * in;
    for (int i = 0; i < r; i++) {
        const REAL rate = f->based ? base_rate(TIME(i)) : 0, *gate = k->gate ? k->gate + (own_times ? i * n : 0) : NULL;
        trace[i] = 0;
        for (int j = 0; j < f->dim; j++) {
            const REAL factor = gate ? gate[j] : 1;
            REAL *x = &k->x[i * n + j];
            *x += q->tensor[BIAS][j];
            velocity[i * n + j] = *x * factor + (q->tensor[TIME_BIAS] ? q->tensor[TIME_BIAS][j] * TIME(i) : 0) + rate * kept[0].entered[i * (long)f->pad + j];
            if (!tangents) continue;
            V sum = all(0);
            for (int v = 0; v < in; v += LANES) sum += at(q->up, j * in + v) * at(k->entered, (1 + j) * plane + i * in + v);
            REAL whole = 0;
            for (int m = 0; m < LANES; m++) whole += sum[m];
            k->sums[i * n + j] = whole;
            trace[i] += whole * factor + rate;
        }
        for (long j = f->dim; j < n; j++) velocity[i * n + j] = 0, k->x[i * n + j] = 0, k->sums[i * n + j] = 0;
    }
}

/* The gradients of a layer's vectors, added to `q`. of_trace: that of every trace, for the last layer's gates. Gives the
   gradient of t. */
static double gather(const Layer *q, const Kept *k, int first, int last, int tangents, REAL of_trace, const REAL *t, int own_times, int r) {
    const long n = q->out_pad, plane = r * n;
    const int gated = q->tensor[GATE_WEIGHT] != NULL, timed = q->tensor[TIME_BIAS] != NULL;
    double of_t = 0;
    for (int v = 0; v < n; v += LANES) {
        V of_bias = all(0), sum = all(0), by_time = all(0), of_gate_bias = all(0), of_gate_weight = all(0);
        for (int i = 0; i < r; i++) {
            const long o = i * n + v;
            const V above = at(k->of_gated, o);
            of_bias += at(k->of_x, o), sum += above, by_time += above * TIME(i);
            if (!gated) continue;
            V of_gate = above * at(k->x, o);
            if (last && tangents) of_gate += of_trace * at(k->sums, o);
            for (int j = 0; j < tangents && !last; j++)
                of_gate += at(k->of_gated, (1 + j) * plane + o) * (first ? at(q->down, j * n + v) : at(k->x, (1 + j) * plane + o));
            const V s = GATE(k, i, v), inner = of_gate * s * ((REAL)1 - s);
            of_gate_bias += inner, of_gate_weight += inner * TIME(i);
        }
        put(q->gradient[BIAS], v, at(q->gradient[BIAS], v) + of_bias);
        if (timed) put(q->gradient[TIME_BIAS], v, at(q->gradient[TIME_BIAS], v) + by_time);
        if (gated) {
            put(q->gradient[GATE_BIAS], v, at(q->gradient[GATE_BIAS], v) + of_gate_bias);
            put(q->gradient[GATE_WEIGHT], v, at(q->gradient[GATE_WEIGHT], v) + of_gate_weight);
        }
        for (int m = 0; m < LANES && !own_times; m++) {
            if (timed) of_t += (double)sum[m] * q->tensor[TIME_BIAS][v + m];
            if (gated) of_t += (double)of_gate_bias[m] * q->tensor[GATE_WEIGHT][v + m];
        }
    }
    return of_t;
}

/* x^ = s X^ for all planes, where there is a gate. */
static void through_gate(const Layer *q, const Kept *k, int planes, int own_times, int r) {
    const long n = q->out_pad;
    if (q->tensor[GATE_WEIGHT] == NULL) return;
    for (int m = 0; m < planes; m++)
        for (int i = 0; i < r; i++)
            for (int v = 0; v < n; v += LANES) {
                const long o = (m * r + i) * n + v;
                put(k->of_x, o, at(k->of_gated, o) * GATE(k, i, v));
            }
}

/* The gradient of z (r x pad), for that of f in kept[last].of_gated and of every trace; the params' are added to the
   layers'. g, other: (1 + K) r x widest, scratch. Gives the gradient of t. */
static double second_backward(const Field *f, Kept *kept, int tangents, REAL of_trace, const REAL *t, int own_times, int r, REAL *of_z, REAL *g, REAL *other) {
    const int last = f->layers - 1;
    const Layer *q = &f->layer[last];
    Kept *k = &kept[last];
    const long in = q->in_pad, plane_in = r * in;
    through_gate(q, k, 1, own_times, r);
    product(k->of_x, q->out_pad, 1, q->up, in, g, in, r, in, q->out, 0);
    product(k->of_x, 1, q->out_pad, k->entered, in, q->gradient[WEIGHT], in, q->out, in, r, 1);
    for (int j = 0; j < tangents; j++) {
        const REAL factor = of_trace * (k->gate ? k->gate[j] : 1);
        for (int v = 0; v < in; v += LANES) {
            V sum = all(0);
            for (int i = 0; i < r; i++) {
                sum += at(k->entered, (1 + j) * plane_in + i * in + v);
                put(g, (1 + j) * plane_in + i * in + v, factor * at(q->up, j * in + v));
            }
            put(q->gradient[WEIGHT], j * in + v, at(q->gradient[WEIGHT], j * in + v) + factor * sum);
        }
    }
    double of_t = gather(q, k, 0, 1, tangents, of_trace, t, own_times, r);
    for (int l = last - 1; l >= 0; l--) {
        q = &f->layer[l], k = &kept[l];
        const long n = q->out_pad, plane = r * n;
        for (long o = 0; o < plane; o += LANES) {
            const V d = at(k->d, o), dd = at(k->A, o), ddd = at(k->of_gated, o), above = at(g, o);
            V sum = all(0);
            for (int j = 0; j < tangents; j++) {
                const V of_v = at(g, (1 + j) * plane + o), Q = at(k->C, j * plane + o);
                sum += Q * of_v;
                put(k->B, j * plane + o, dd * of_v), put(k->C, j * plane + o, dd * Q);
                put(k->of_gated, (1 + j) * plane + o, d * of_v);
            }
            put(k->A, o, dd * above + ddd * sum), put(k->of_gated, o, d * above + dd * sum);
        }
        through_gate(q, k, 1 + tangents, own_times, r);
        const int rows = l ? (1 + tangents) * r : r;
        product(k->of_x, 1, n, k->entered, q->in_pad, q->gradient[WEIGHT], q->in_pad, q->out, q->in_pad, rows, 1);
        for (int j = 0; j < tangents && l == 0; j++)
            for (int i = 0; i < r; i++)
                for (int o = 0; o < q->out; o++) q->gradient[WEIGHT][(long)o * q->in_pad + j] += k->of_x[(1 + j) * plane + i * n + o];
        of_t += gather(q, k, l == 0, 0, tangents, of_trace, t, own_times, r);
        product(k->of_x, n, 1, q->up, q->in_pad, l ? other : of_z, q->in_pad, rows, q->in_pad, q->out, 0);
        REAL *held = g;
        g = other, other = held;
    }
    for (int i = 0; i < r && f->based; i++)
        for (int j = 0; j < f->dim; j++)
            of_z[i * (long)f->pad + j] += base_rate(TIME(i)) * kept[last].of_gated[i * (long)f->pad + j];
    return of_t;
}

/* The derivative of f (r x pad) and of the trace (r) along a direction `u` of the params, t_dot of t, and that of z in
   dots[0].entered. */
static void dotted_forward(const Field *f, const Layer *u, const Kept *kept, Dots *dots, int tangents, const REAL *t, REAL t_dot, int own_times, int r, REAL *velocity, REAL *trace) {
    const int last = f->layers - 1;
    for (int l = 0; l <= last; l++) {
        const Layer *q = &f->layer[l], *w = &u[l];
        const Kept *k = &kept[l];
        Dots *d = &dots[l];
        const long n = q->out_pad, plane = r * n;
        const int rows = l && l < last ? (1 + tangents) * r : r;
        const int gated = q->tensor[GATE_WEIGHT] != NULL, timed = q->tensor[TIME_BIAS] != NULL;
        two_products(d->entered, k->entered, q->in_pad, 1, q->down, w->down, n, d->x, n, rows, n, q->in, 0);
        for (int i = 0; i < (own_times ? r : 1) && gated; i++)
            for (int v = 0; v < n; v += LANES) {
                const V s = GATE(k, i, v);
                const V inner = at(w->tensor[GATE_WEIGHT], v) * TIME(i) + at(w->tensor[GATE_BIAS], v) + at(q->tensor[GATE_WEIGHT], v) * t_dot;
                put(d->gate, (own_times ? i * n : 0) + v, s * ((REAL)1 - s) * inner);
            }
        for (int i = 0; i < r; i++)
            for (int v = 0; v < n; v += LANES) {
                const long o = i * n + v;
                V x = at(d->x, o) + at(w->tensor[BIAS], v);
                if (gated) put(d->x, o, x), x = x * GATE(k, i, v) + at(k->x, o) * GATE(d, i, v);
                if (timed) x += at(w->tensor[TIME_BIAS], v) * TIME(i) + at(q->tensor[TIME_BIAS], v) * t_dot;
                put(d->gated, o, x);
                if (l == last) continue;
                REAL *next = dots[l + 1].entered;
                const V slope = at(k->d, o);
                put(next, o, slope * x);
                for (int j = 0; j < tangents; j++) {
                    const long there = (1 + j) * plane + o;
                    V p = l ? at(d->x, there) : at(w->down, j * n + v);
                    if (gated) p = p * GATE(k, i, v) + (l ? at(k->x, there) : at(q->down, j * n + v)) * GATE(d, i, v);
                    put(d->gated, there, p), put(next, there, slope * p + at(k->C, j * plane + o) * x);
                }
            }
    }
    const Layer *q = &f->layer[last], *w = &u[last];
    const Kept *k = &kept[last];
    Dots *d = &dots[last];
    const long n = q->out_pad, in = q->in_pad, plane = r * in;
    for (int i = 0; i < r; i++) {
        const REAL rate = f->based ? base_rate(TIME(i)) : 0;
        trace[i] = 0;
        for (int j = 0; j < f->dim; j++) {
            velocity[i * n + j] = d->gated[i * n + j] + rate * dots[0].entered[i * (long)f->pad + j];
            if (!tangents) continue;
            V sum = all(0);
            for (int v = 0; v < in; v += LANES) {
                const long there = (1 + j) * plane + i * in + v;
                sum += at(w->up, j * in + v) * at(k->entered, there) + at(q->up, j * in + v) * at(d->entered, there);
            }
            REAL whole = 0;
            for (int m = 0; m < LANES; m++) whole += sum[m];
            d->sums[i * n + j] = whole;
            trace[i] += k->gate ? whole * k->gate[j] + k->sums[i * n + j] * d->gate[j] : whole;
        }
        for (long j = f->dim; j < n; j++) velocity[i * n + j] = 0, d->sums[i * n + j] = 0;
    }
}

/* The derivative of `gather` along a direction: of_gated and of_x are those of Kept's. */
static double dotted_gather(const Layer *q, const Layer *u, const Kept *k, const Dots *d, const REAL *of_gated, const REAL *of_x, int first, int last, int tangents,
                            REAL of_trace, REAL of_trace_dot, const REAL *t, REAL t_dot, int own_times, int r) {
    const long n = q->out_pad, plane = r * n;
    const int gated = q->tensor[GATE_WEIGHT] != NULL, timed = q->tensor[TIME_BIAS] != NULL;
    double of_t = 0;
    for (int v = 0; v < n; v += LANES) {
        V of_bias = all(0), sum = all(0), before = all(0), by_time = all(0), inner_sum = all(0), inner_before = all(0), of_gate_weight = all(0);
        for (int i = 0; i < r; i++) {
            const long o = i * n + v;
            const V above = at(k->of_gated, o), dot = at(of_gated, o);
            of_bias += at(of_x, o), sum += dot, before += above, by_time += dot * TIME(i) + above * t_dot;
            if (!gated) continue;
            V of_gate = above * at(k->x, o), of_gate_dot = dot * at(k->x, o) + above * at(d->x, o);
            if (last && tangents) {
                of_gate += of_trace * at(k->sums, o);
                of_gate_dot += of_trace * at(d->sums, o) + of_trace_dot * at(k->sums, o);
            }
            for (int j = 0; j < tangents && !last; j++) {
                const long there = (1 + j) * plane + o;
                const V p = first ? at(q->down, j * n + v) : at(k->x, there), p_dot = first ? at(u->down, j * n + v) : at(d->x, there);
                of_gate += at(k->of_gated, there) * p;
                of_gate_dot += at(of_gated, there) * p + at(k->of_gated, there) * p_dot;
            }
            const V s = GATE(k, i, v), slope = s * ((REAL)1 - s);
            const V inner = of_gate * slope, inner_dot = of_gate_dot * slope + of_gate * ((REAL)1 - s - s) * GATE(d, i, v);
            inner_sum += inner_dot, inner_before += inner, of_gate_weight += inner_dot * TIME(i) + inner * t_dot;
        }
        put(u->gradient[BIAS], v, at(u->gradient[BIAS], v) + of_bias);
        if (timed) put(u->gradient[TIME_BIAS], v, at(u->gradient[TIME_BIAS], v) + by_time);
        if (gated) {
            put(u->gradient[GATE_BIAS], v, at(u->gradient[GATE_BIAS], v) + inner_sum);
            put(u->gradient[GATE_WEIGHT], v, at(u->gradient[GATE_WEIGHT], v) + of_gate_weight);
        }
        for (int m = 0; m < LANES && !own_times; m++) {
            if (timed) of_t += (double)sum[m] * q->tensor[TIME_BIAS][v + m] + (double)before[m] * u->tensor[TIME_BIAS][v + m];
            if (gated) of_t += (double)inner_sum[m] * q->tensor[GATE_WEIGHT][v + m] + (double)inner_before[m] * u->tensor[GATE_WEIGHT][v + m];
        }
    }
    return of_t;
}

/* The derivative of x^ = s X^ along a direction, for all planes, into `of_x`. */
static void dotted_gate(const Layer *q, const Kept *k, const Dots *d, const REAL *of_gated, REAL *of_x, int planes, int own_times, int r) {
    const long n = q->out_pad;
    for (int m = 0; m < planes; m++)
        for (int i = 0; i < r; i++)
            for (int v = 0; v < n; v += LANES) {
                const long o = (m * r + i) * n + v;
                put(of_x, o, at(of_gated, o) * GATE(k, i, v) + at(k->of_gated, o) * GATE(d, i, v));
            }
}

/* Scratch of dotted_backward, (1 + K) r x widest each. */
typedef struct { REAL *g, *other, *of_gated, *of_x; } Scratch;

/* The derivative of second_backward along a direction `u`, for those of the gradients of f (r x pad) and of every trace.
   What it says of the params is added to u's gradients. Gives the derivative of the gradient of t. */
static double dotted_backward(const Field *f, const Layer *u, const Kept *kept, const Dots *dots, int tangents, REAL of_trace, REAL of_trace_dot,
                              const REAL *t, REAL t_dot, int own_times, int r, const REAL *of_velocity, REAL *of_z, Scratch x) {
    const int last = f->layers - 1;
    const Layer *q = &f->layer[last], *w = &u[last];
    const Kept *k = &kept[last];
    const Dots *d = &dots[last];
    const long in = q->in_pad, plane_in = r * in;
    const REAL *of_x = of_velocity;
    if (k->gate) dotted_gate(q, k, d, of_velocity, x.of_x, 1, own_times, r), of_x = x.of_x;
    two_products(of_x, k->of_x, q->out_pad, 1, q->up, w->up, in, x.g, in, r, in, q->out, 0);
    two_products(of_x, k->of_x, 1, q->out_pad, k->entered, d->entered, in, w->gradient[WEIGHT], in, q->out, in, r, 1);
    for (int j = 0; j < tangents; j++) {
        const REAL s = k->gate ? k->gate[j] : 1, s_dot = k->gate ? d->gate[j] : 0;
        const REAL factor = of_trace * s, factor_dot = of_trace * s_dot + of_trace_dot * s;
        for (int v = 0; v < in; v += LANES) {
            const V above = factor * at(w->up, j * in + v) + factor_dot * at(q->up, j * in + v);
            V sum = all(0);
            for (int i = 0; i < r; i++) {
                const long there = (1 + j) * plane_in + i * in + v;
                sum += factor * at(d->entered, there) + factor_dot * at(k->entered, there);
                put(x.g, there, above);
            }
            put(w->gradient[WEIGHT], j * in + v, at(w->gradient[WEIGHT], j * in + v) + sum);
        }
    }
    double of_t = dotted_gather(q, w, k, d, of_velocity, of_x, 0, 1, tangents, of_trace, of_trace_dot, t, t_dot, own_times, r);
    for (int l = last - 1; l >= 0; l--) {
        q = &f->layer[l], w = &u[l], k = &kept[l], d = &dots[l];
        const long n = q->out_pad, plane = r * n;
        for (long o = 0; o < plane; o += LANES) {
            const V slope = at(k->d, o), dot = at(d->gated, o);
            V sum = slope * at(x.g, o) + at(k->A, o) * dot;
            for (int j = 0; j < tangents; j++) {
                const long there = (1 + j) * plane + o;
                const V above = at(x.g, there), b = at(k->B, j * plane + o);
                sum += b * at(d->gated, there) + at(k->C, j * plane + o) * above;
                put(x.of_gated, there, slope * above + b * dot);
            }
            put(x.of_gated, o, sum);
        }
        of_x = x.of_gated;
        if (k->gate) dotted_gate(q, k, d, x.of_gated, x.of_x, 1 + tangents, own_times, r), of_x = x.of_x;
        const int rows = l ? (1 + tangents) * r : r;
        two_products(of_x, k->of_x, 1, n, k->entered, d->entered, q->in_pad, w->gradient[WEIGHT], q->in_pad, q->out, q->in_pad, rows, 1);
        for (int j = 0; j < tangents && l == 0; j++)
            for (int v = 0; v < n; v += LANES) {
                V sum = all(0);
                for (int i = 0; i < r; i++) sum += at(of_x, (1 + j) * plane + i * n + v);
                for (int m = 0; m < LANES && v + m < q->out; m++) w->gradient[WEIGHT][(long)(v + m) * q->in_pad + j] += sum[m];
            }
        of_t += dotted_gather(q, w, k, d, x.of_gated, of_x, l == 0, 0, tangents, of_trace, of_trace_dot, t, t_dot, own_times, r);
        REAL *to = l ? x.other : of_z;
        two_products(of_x, k->of_x, n, 1, q->up, w->up, q->in_pad, to, q->in_pad, rows, q->in_pad, q->out, 0);
        REAL *held = x.g;
        x.g = x.other, x.other = held;
    }
    for (int i = 0; i < r && f->based; i++)
        for (int j = 0; j < f->dim; j++)
            of_z[i * (long)f->pad + j] += base_rate(TIME(i)) * of_velocity[i * (long)f->pad + j];
    return of_t;
}

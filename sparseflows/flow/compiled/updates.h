/* An optimiser step on all params as one vector: the formulas of torch.optim (SGD, Adam, AdamW), of the clipped norm, the
   masks and the averaged weights, as ../../training has them. */
#pragma once
#include "vector.h"

enum { SGD, ADAM, ADAMW }; /* the order that Python knows */

typedef struct {
    int optimiser;
    long params;
    double weight_decay, momentum, beta2, eps; /* momentum: beta1 of Adam */
    double clip, average_decay;                /* clip 0: none */
    REAL *weights, *gradient, *mean, *square;  /* (params); mean: of gradients, SGD's buffer; square: NULL with SGD */
    REAL *average;                             /* (params), or NULL */
    const uint8_t *withheld, *gone;            /* (params), 1: gradients, weights that are held at 0; or NULL */
    double steps, averaged;                    /* behind the optimiser; behind the average */
} Update;

static void set_to_0(REAL *values, const uint8_t *where, long n) {
    if (where == NULL) return;
    for (long i = 0; i < n; i++) values[i] = where[i] ? 0 : values[i];
}

/* from + weight * (to - from), as torch.lerp rounds it. */
static inline REAL lerp(REAL from, REAL to, REAL weight) {
    return weight < (REAL)0.5 ? from + weight * (to - from) : to - (to - from) * (1 - weight);
}

static double norm_of(const REAL *values, long n) {
    enum { SUMS = 8 };
    double sum[SUMS] = {0}, total = 0;
    for (long i = 0; i < n / SUMS * SUMS; i += SUMS)
        for (int k = 0; k < SUMS; k++) sum[k] += (double)values[i + k] * values[i + k];
    for (long i = n / SUMS * SUMS; i < n; i++) total += (double)values[i] * values[i];
    for (int k = 0; k < SUMS; k++) total += sum[k];
    return sqrt(total);
}

static void clip_gradient(Update *u) {
    const double factor = u->clip / (norm_of(u->gradient, u->params) + 1e-6);
    if (factor >= 1) return; /* not: factor < 1, for NaN */
    for (long i = 0; i < u->params; i++) u->gradient[i] *= (REAL)factor;
}

static void step_sgd(Update *u, double rate) {
    const REAL decay = (REAL)u->weight_decay, momentum = (REAL)u->momentum, by = (REAL)rate;
    REAL *restrict w = u->weights, *restrict m = u->mean;
    const REAL *restrict g = u->gradient;
    for (long i = 0; i < u->params; i++) {
        m[i] = momentum * m[i] + (g[i] + decay * w[i]);
        w[i] -= by * m[i];
    }
}

static void step_adam(Update *u, double rate) {
    const double n = u->steps;
    const REAL size = (REAL)(rate / (1 - pow(u->momentum, n))), root = (REAL)sqrt(1 - pow(u->beta2, n)), eps = (REAL)u->eps;
    const REAL coupled = u->optimiser == ADAM ? (REAL)u->weight_decay : 0;
    const REAL kept = u->optimiser == ADAMW ? (REAL)(1 - rate * u->weight_decay) : 1;
    const REAL new = (REAL)(1 - u->momentum), beta2 = (REAL)u->beta2, new2 = (REAL)(1 - u->beta2);
    REAL *restrict w = u->weights, *restrict m = u->mean, *restrict s = u->square;
    const REAL *restrict given = u->gradient;
    for (long i = 0; i < u->params; i++) {
        const REAL g = given[i] + coupled * w[i];
        m[i] += new * (g - m[i]);
        s[i] = beta2 * s[i] + new2 * g * g;
        w[i] = kept * w[i] - size * m[i] / (SQRT(s[i]) / root + eps);
    }
}

/* All that follows from a gradient. */
static void update(Update *u, double rate) {
    set_to_0(u->gradient, u->withheld, u->params);
    if (u->clip > 0) clip_gradient(u);
    u->steps++;
    if (u->optimiser == SGD) step_sgd(u, rate);
    else step_adam(u, rate);
    set_to_0(u->weights, u->gone, u->params);
    if (u->average == NULL) return;
    u->averaged++;
    const REAL weight = (REAL)(1 - fmin(u->average_decay, (1 + u->averaged) / (10 + u->averaged)));
    for (long i = 0; i < u->params; i++) u->average[i] = lerp(u->average[i], u->weights[i], weight);
}

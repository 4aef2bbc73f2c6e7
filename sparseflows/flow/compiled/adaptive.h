/* Adaptive solves of a block: one whose rows all take the same steps, and one in which every row takes steps of its own.

   In the second a row's result is a function of that row alone, to the last bit: whoever goes with it, whatever becomes
   of them, however rows are cut into chunks and threads. */
#pragma once
#include "field.h"

enum { DONE, NO_MEMORY, NON_FINITE, OUT_OF_STEPS, TOO_SHORT }; /* the order that Python knows */
enum { MOST = 16, LANES_AT_MOST = 64, MOST_SPENT = 64 };

static const double SMALLEST = sizeof(REAL) == 4 ? 1e-7 : 1e-14; /* step, over tau */

typedef struct {
    int stages, order;
    const double *a, *b, *c, *error; /* a: stages x stages; error: stages + 1 */
} Tableau;

typedef struct {
    double rtol, atol;
    long max_nfe;
    int by_row; /* of shared steps: the worst row's error counts, not the root mean square over the rows */
    int reverse;
    double begin;  /* t at tau = 0; it is begin + T at tau = 1 */
    double first;  /* a step to begin with, over tau */
    long nfe;      /* out: evaluations, the largest number of any row */
    double *steps; /* out, of shared steps: their lengths, `room` of them at most */
    int room, taken;
    int *status; /* out: how each row ended; NULL: the first row that fails ends the call */
} Control;

/* t where so much of the way is behind a solve over a time T. */
static REAL time_at(const Control *control, double whole, double tau) {
    return (REAL)(control->begin + (control->reverse ? 1 - tau : tau) * whole);
}

/* start + step * sum of coefficients[i] * rates[i], into `end`; `size` in whole registers. */
static void combine(REAL *end, const REAL *start, REAL *const *rates, const double *coefficients, int n, double step, long size) {
    REAL factor[MOST + 1];
    for (int i = 0; i < n; i++) factor[i] = (REAL)(coefficients[i] * step);
    for (long v = 0; v < size; v += LANES) {
        V sum = at(start, v);
        for (int i = 0; i < n; i++) sum += factor[i] * at(rates[i], v);
        put(end, v, sum);
    }
}

/* The same of single numbers. */
static REAL combined(REAL start, REAL *const *rates, const double *coefficients, int n, double step, long place) {
    for (int i = 0; i < n; i++) start += (REAL)(coefficients[i] * step) * rates[i][place];
    return start;
}

/* What a solve of r rows at a time works on: states (r x pad) and traces (r), and a method's rates of both. */
typedef struct {
    Field f;
    Passed *passed;
    REAL *velocity[MOST + 1], *slope[MOST + 1];
    REAL *z, *z_next, *error, *trace, *trace_next, *trace_error, *time, *probe;
} Bench;

static Bench set_up(Arena *arena, const Block *block, int kind, int stages, long r) {
    Bench b = {.f = lay_out(arena, block, kind, 0)};
    b.passed = take_passed(arena, block->width, b.f.layers, 1 + b.f.tangents, (int)r);
    for (int i = 0; i <= stages; i++) b.velocity[i] = take_reals(arena, r * b.f.pad), b.slope[i] = take_reals(arena, r);
    b.z = take_reals(arena, r * b.f.pad), b.z_next = take_reals(arena, r * b.f.pad), b.error = take_reals(arena, r * b.f.pad);
    b.trace = take_reals(arena, r), b.trace_next = take_reals(arena, r), b.trace_error = take_reals(arena, r);
    b.time = take_reals(arena, r), b.probe = take_reals(arena, r * b.f.pad);
    return b;
}

/* The mean square of row i's error in units of the tolerance: of its coordinates, and of its trace where there is one. */
static double row_error(const Bench *b, const Control *control, int i) {
    const long o = (long)i * b->f.pad;
    double sum = 0;
    for (int j = 0; j < b->f.dim; j++) {
        const double part =
            b->error[o + j] / (control->atol + control->rtol * fmax(fabs(b->z[o + j]), fabs(b->z_next[o + j])));
        sum += part * part;
    }
    if (b->f.kind == VALUE) return sum / b->f.dim;
    const double part = b->trace_error[i] / (control->atol + control->rtol * fmax(fabs(b->trace[i]), fabs(b->trace_next[i])));
    return (sum + part * part) / (b->f.dim + 1);
}

/* A solve's progress over tau, of all rows or of one: where it stands, the step it tries, what it has spent. */
typedef struct {
    double done, step;
    long nfe;
    int status, taken; /* taken: whether the last step was */
} Progress;

static const double PRUDENCE = 0.8; /* other rows may want a shorter one */
enum { MOST_GROWTH = 5, MOST_GROWTH_AT_FIRST = 20 }; /* of a step; nobody knows how long a row's first one should be */

/* What follows from a step whose error was `found` tolerances: whether it is taken, and the one to try next. */
static void advance(Progress *p, double found, double most, const Tableau *tableau, const Control *control) {
    const int infinite = !(found < INFINITY);
    p->nfe += tableau->stages;
    p->taken = !infinite && found <= 1;
    if (p->taken) p->done = p->done + p->step >= 1 - 1e-12 ? 1 : p->done + p->step;
    double factor = infinite ? 0.2 : found == 0 ? most : 0.9 * pow(found, -1.0 / tableau->order);
    factor = factor > most ? most : factor < 0.2 ? 0.2 : factor;
    if (!p->taken && factor > 0.9) factor = 0.9;
    p->step *= factor;
    if (p->done == 1) return;
    if (p->step < SMALLEST) p->status = infinite ? NON_FINITE : TOO_SHORT;
    else if (p->nfe + tableau->stages > control->max_nfe) p->status = OUT_OF_STEPS;
    if (p->step > 1 - p->done) p->step = 1 - p->done;
}

static void swap(REAL **one, REAL **other) {
    REAL *held = *one;
    *one = *other, *other = held;
}

/* Points carried through a block on steps that all rows share: ends (rows x dim), and the integral of the trace along
   the path as it was walked. */
static int carry_together(Bench *b, const Tableau *tableau, Control *control, double whole, const REAL *points,
                          const REAL *probes, int r, REAL *ends, REAL *traces) {
    const Field *f = &b->f;
    const int s = tableau->stages;
    const long size = r * (long)f->pad;
    REAL *entered = b->passed[0].entered, time = time_at(control, whole, 0);
    Progress p = {.step = fmin(1, control->first), .nfe = 1};
    load(f, points, 0, r, b->z);
    memcpy(entered, b->z, sizeof(REAL) * size);
    if (probes) load(f, probes, 0, r, entered + size);
    memset(b->trace, 0, sizeof(REAL) * r);
    forward(f, b->passed, &time, 0, r, b->velocity[0], b->slope[0]);
    while (p.done < 1 && p.status == DONE) {
        const double length = p.step, signed_step = (control->reverse ? -length : length) * whole;
        for (int i = 1; i <= s; i++) {
            /* Stage s is the step's end: its evaluation is the error's last term, and the next step's first. */
            const double tau = p.done + (i < s ? tableau->c[i] : 1) * length;
            combine(entered, b->z, b->velocity, i < s ? tableau->a + i * s : tableau->b, i, signed_step, size);
            if (i == s) memcpy(b->z_next, entered, size * sizeof(REAL));
            time = time_at(control, whole, tau);
            forward(f, b->passed, &time, 0, r, b->velocity[i], b->slope[i]);
        }
        memset(b->error, 0, size * sizeof(REAL));
        combine(b->error, b->error, b->velocity, tableau->error, s + 1, signed_step, size);
        for (int i = 0; i < r && f->kind != VALUE; i++) {
            b->trace_error[i] = combined(0, b->slope, tableau->error, s + 1, signed_step, i);
            b->trace_next[i] = combined(b->trace[i], b->slope, tableau->b, s, signed_step, i);
        }
        double worst = 0, total = 0;
        for (int i = 0; i < r; i++) {
            const double found = row_error(b, control, i);
            if (!(found <= worst)) worst = found;
            total += found;
        }
        advance(&p, sqrt(control->by_row || !(worst < INFINITY) ? worst : total / r), MOST_GROWTH, tableau, control);
        if (!p.taken) continue;
        if (control->taken < control->room) control->steps[control->taken] = length;
        control->taken++;
        swap(&b->z, &b->z_next), swap(&b->velocity[0], &b->velocity[s]), swap(&b->slope[0], &b->slope[s]);
        if (f->kind != VALUE) swap(&b->trace, &b->trace_next);
    }
    control->nfe = p.nfe;
    unload(f, b->z, 0, r, ends);
    memcpy(traces, b->trace, r * sizeof(REAL));
    return p.status;
}

/* A place on the bench, and the row that is at work there; -1: none. */
typedef struct {
    long row;
    Progress p;
} Lane;

/* The field at r rows, each at its own time. */
static void evaluate(Bench *b, int r, int place) {
    int own_times = 0; /* rows in step share the gates of their time */
    for (int i = 1; i < r; i++) own_times |= b->time[i] != b->time[0];
    forward(&b->f, b->passed, b->time, own_times, r, b->velocity[place], b->slope[place]);
}

/* The next rows on the idle lanes, with their first evaluation; velocity[s] and slope[s] are scratch. Gives their number. */
static int begin(Bench *b, Lane *lanes, int r, int s, const Control *control, double whole, const REAL *points,
                 const REAL *probes, long rows, long *next) {
    const Field *f = &b->f;
    const long pad = f->pad;
    REAL *entered = b->passed[0].entered;
    int fresh[LANES_AT_MOST], n = 0;
    for (int i = 0; i < r && *next < rows; i++) {
        if (lanes[i].row >= 0) continue;
        load(f, points, *next, 1, b->z + i * pad);
        if (probes) load(f, probes, *next, 1, b->probe + i * pad);
        b->trace[i] = 0;
        lanes[i] = (Lane){(*next)++, {.step = fmin(1, control->first), .nfe = 1}};
        fresh[n++] = i;
    }
    for (int k = 0; k < n; k++) {
        memcpy(entered + k * pad, b->z + fresh[k] * pad, pad * sizeof(REAL));
        if (probes) memcpy(entered + (n + k) * pad, b->probe + fresh[k] * pad, pad * sizeof(REAL));
        b->time[k] = time_at(control, whole, 0);
    }
    if (n) evaluate(b, n, s);
    for (int k = 0; k < n; k++) {
        memcpy(b->velocity[0] + fresh[k] * pad, b->velocity[s] + k * pad, pad * sizeof(REAL));
        b->slope[0][fresh[k]] = b->slope[s][k];
    }
    if (probes) memcpy(entered + r * pad, b->probe, r * pad * sizeof(REAL));
    return n;
}

/* One step of every lane, each of its own length, and what follows from it for each. */
static void step(Bench *b, Lane *lanes, int r, const Tableau *tableau, const Control *control, double whole) {
    const Field *f = &b->f;
    const int s = tableau->stages;
    REAL *entered = b->passed[0].entered, *rates[MOST + 1];
    double length[LANES_AT_MOST];
    for (int i = 0; i < r; i++) length[i] = (control->reverse ? -lanes[i].p.step : lanes[i].p.step) * whole;
    for (int k = 1; k <= s; k++) {
        for (int i = 0; i < r; i++) {
            const Progress *p = &lanes[i].p;
            const double tau = p->done + (k < s ? tableau->c[k] : 1) * p->step;
            const long o = (long)i * f->pad;
            for (int m = 0; m < k; m++) rates[m] = b->velocity[m] + o;
            combine(entered + o, b->z + o, rates, k < s ? tableau->a + k * s : tableau->b, k, length[i], f->pad);
            b->time[i] = time_at(control, whole, tau);
        }
        if (k == s) memcpy(b->z_next, entered, (long)r * f->pad * sizeof(REAL));
        evaluate(b, r, k);
    }
    for (int i = 0; i < r; i++) {
        const long o = (long)i * f->pad;
        if (lanes[i].row < 0) continue;
        memset(b->error + o, 0, f->pad * sizeof(REAL));
        for (int m = 0; m <= s; m++) rates[m] = b->velocity[m] + o;
        combine(b->error + o, b->error + o, rates, tableau->error, s + 1, length[i], f->pad);
        if (f->kind != VALUE) {
            b->trace_error[i] = combined(0, b->slope, tableau->error, s + 1, length[i], i);
            b->trace_next[i] = combined(b->trace[i], b->slope, tableau->b, s, length[i], i);
        }
        const double most = lanes[i].p.done == 0 ? MOST_GROWTH_AT_FIRST : MOST_GROWTH;
        advance(&lanes[i].p, sqrt(row_error(b, control, i)), most, tableau, control);
        if (!lanes[i].p.taken) continue;
        memcpy(b->z + o, b->z_next + o, f->pad * sizeof(REAL));
        memcpy(b->velocity[0] + o, b->velocity[s] + o, f->pad * sizeof(REAL));
        b->slope[0][i] = b->slope[s][i];
        if (f->kind != VALUE) b->trace[i] = b->trace_next[i];
    }
}

/* The step over tau that every row begins with: the one that two points, as far out as data are, would take after a try
   with control->first. So it depends on the field alone, on none of the rows. */
static double first_step(Bench *b, const Tableau *tableau, const Control *control, double whole) {
    const Field *f = &b->f;
    REAL *entered = b->passed[0].entered;
    Lane lanes[2];
    double least = 1;
    memset(b->z, 0, 2 * (long)f->pad * sizeof(REAL)), memset(b->probe, 0, 2 * (long)f->pad * sizeof(REAL));
    for (int i = 0; i < 2; i++) {
        for (int j = 0; j < f->dim; j++) {
            b->z[(long)i * f->pad + j] = (REAL)((i + j) % 2 ? -1 : 1);
            b->probe[(long)i * f->pad + j] = 1;
        }
        lanes[i] = (Lane){i, {.step = fmin(1, control->first)}};
        b->time[i] = time_at(control, whole, 0), b->trace[i] = 0;
    }
    memcpy(entered, b->z, 2 * (long)f->pad * sizeof(REAL));
    if (f->kind == PROBED) memcpy(entered + 2 * (long)f->pad, b->probe, 2 * (long)f->pad * sizeof(REAL));
    evaluate(b, 2, 0);
    step(b, lanes, 2, tableau, control, whole);
    for (int i = 0; i < 2; i++) {
        const Progress *p = &lanes[i].p;
        if (p->done + p->step < 1 && p->step < least) least = p->step;
    }
    return least < 1 ? fmax(PRUDENCE * least, SMALLEST) : 1;
}

/* The same with steps of each row's own. A row that fails leaves the point that it had reached. */
static int carry_each(Bench *b, const Tableau *tableau, Control *control, double whole, const REAL *points,
                      const REAL *probes, long rows, int r, REAL *ends, REAL *traces) {
    Lane lanes[LANES_AT_MOST];
    long next = 0, spent = 0; /* `spent` rows took all steps that they may */
    int at_work = 0;
    control->nfe = 0;
    control->first = first_step(b, tableau, control, whole);
    for (int i = 0; i < r; i++) lanes[i] = (Lane){.row = -1};
    for (;;) {
        if (at_work < r && next < rows) at_work += begin(b, lanes, r, tableau->stages, control, whole, points, probes, rows, &next);
        if (!at_work) return DONE;
        step(b, lanes, r, tableau, control, whole);
        for (int i = 0; i < r; i++) {
            const Progress *p = &lanes[i].p;
            if (lanes[i].row < 0 || (p->done < 1 && p->status == DONE)) continue;
            const long row = lanes[i].row;
            if (p->nfe > control->nfe) control->nfe = p->nfe;
            memcpy(ends + row * b->f.dim, b->z + (long)i * b->f.pad, b->f.dim * sizeof(REAL));
            traces[row] = b->trace[i];
            lanes[i].row = -1, at_work--;
            if (p->status != DONE && !control->status) return p->status;
            if (control->status) control->status[row] = p->status;
            if (p->status != OUT_OF_STEPS || ++spent <= MOST_SPENT || spent <= next / 4) continue;
            for (int m = 0; m < r; m++) /* it is not single rows: the others are given up */
                if (lanes[m].row >= 0) control->status[lanes[m].row] = OUT_OF_STEPS;
            for (long m = next; m < rows; m++) control->status[m] = OUT_OF_STEPS;
            return DONE;
        }
    }
}

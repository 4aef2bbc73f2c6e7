/* Products of a mean loss's Hessian with directions of the params: many at a time, from one passage of the evaluations.

   Params stand in a row: block by block, layer by layer, those of TENSORS that there are, then the block's T. */
#pragma once
#include "adaptive.h"
#include "second.h"

enum { LAYERS_AT_MOST = 64, TILES_TOGETHER = 32 /* whose sums are taken in REAL; then they go into doubles */ };

static long params_of(const Block *block) {
    long found = 1;
    for (int l = 0; l < block->layers; l++)
        for (int k = 0; k < TENSORS; k++)
            if (block->tensor[l * TENSORS + k]) found += (k == WEIGHT ? block->width[l] : 1) * (long)block->width[l + 1];
    return found;
}

/* A direction of a block's params as layers of their own, with room for what its product adds up to. */
static Layer *lay_direction(Arena *arena, const Block *block, const REAL *direction) {
    REAL *tensor[LAYERS_AT_MOST * TENSORS] = {0};
    for (int l = 0; l < block->layers; l++)
        for (int k = 0; k < TENSORS; k++) {
            if (!block->tensor[l * TENSORS + k]) continue;
            tensor[l * TENSORS + k] = (REAL *)direction;
            direction += (k == WEIGHT ? block->width[l] : 1) * (long)block->width[l + 1];
        }
    Block along = *block;
    along.tensor = tensor;
    return lay_out(arena, &along, EXACT, 1).layer;
}

/* What was gathered since the last time, added to a row of doubles, and set back to zero. */
static void flush_sums(const Block *block, Layer *layer, double *to) {
    for (int l = 0; l < block->layers; l++)
        for (int k = 0; k < TENSORS; k++) {
            if (!block->tensor[l * TENSORS + k]) continue;
            const Layer *q = &layer[l];
            const int in = k == WEIGHT ? q->in : 1;
            const long row = k == WEIGHT ? q->in_pad : 1;
            for (int o = 0; o < q->out; o++)
                for (int i = 0; i < in; i++) *to++ += q->gradient[k][o * row + i];
            memset(q->gradient[k], 0, (k == WEIGHT ? q->out * row : q->out_pad) * sizeof(REAL));
        }
}

/* One evaluation on the way: its place in time, f and its trace, the gradient of f over T, and all of it along a direction. */
typedef struct {
    double tau;
    REAL time, *velocity, *trace, *of_rate, *velocity_dot, *trace_dot, *rate_dot;
    Kept *kept;
    Dots *dots;
} Point;

/* What a call works with. */
typedef struct {
    Field *field;
    Layer **direction; /* block by block, vector by vector */
    Point **point;     /* of each block: steps x stages */
    REAL *z, *of_z, *to_rate, *of_points, *z_dot, *of_z_dot;
    Scratch scratch;
} Desk;

static Desk lay_desk(Arena *arena, const Block *blocks, int n_blocks, int stages, int tile, int vectors, const REAL *directions, long params) {
    const int measuring = arena->base == NULL;
    Desk desk = {0};
    long widest = 0, pad = 0, offset = 0;
    int stacked = 1;
    desk.field = take(arena, n_blocks * (long)sizeof(Field)), desk.point = take(arena, n_blocks * (long)sizeof(Point *));
    desk.direction = take(arena, n_blocks * (long)vectors * (long)sizeof(Layer *));
    for (int m = 0; m < n_blocks; m++) {
        const Field f = lay_out(arena, &blocks[m], EXACT, 1);
        for (int v = 0; v < vectors; v++) {
            Layer *own = lay_direction(arena, &blocks[m], directions + v * params + offset);
            if (!measuring) desk.direction[m * vectors + v] = own;
        }
        Point *points = take(arena, blocks[m].steps * (long)stages * (long)sizeof(Point));
        for (int k = 0; k < blocks[m].steps * stages; k++) {
            Point p = {0};
            p.velocity = take_reals(arena, tile * f.pad), p.trace = take_reals(arena, tile), p.of_rate = take_reals(arena, tile * f.pad);
            p.velocity_dot = take_reals(arena, tile * f.pad), p.trace_dot = take_reals(arena, tile), p.rate_dot = take_reals(arena, tile * f.pad);
            p.kept = take_kept(arena, &f, f.tangents, tile), p.dots = take_dots(arena, &f, f.tangents, tile);
            if (!measuring) points[k] = p;
        }
        if (!measuring) desk.field[m] = f, desk.point[m] = points;
        widest = f.widest > widest ? f.widest : widest, pad = f.pad, stacked = 1 + f.tangents, offset += params_of(&blocks[m]);
    }
    const long size = tile * pad, large = stacked * tile * widest;
    desk.z = take_reals(arena, size), desk.of_z = take_reals(arena, size), desk.to_rate = take_reals(arena, size);
    desk.of_points = take_reals(arena, stages * size), desk.z_dot = take_reals(arena, size), desk.of_z_dot = take_reals(arena, size);
    desk.scratch = (Scratch){take_reals(arena, large), take_reals(arena, large), take_reals(arena, large), take_reals(arena, large)};
    return desk;
}

static double dot_product(const REAL *a, const REAL *b, long n) {
    double sum = 0;
    for (long j = 0; j < n; j++) sum += (double)a[j] * b[j];
    return sum;
}

/* to = weight * base + sum of a_ji * of_points[j] over the stages after i: what a rate's gradient is over T. */
static void gather_rate(REAL *to, const REAL *base, const REAL *of_points, const Tableau *tableau, int i, double step, long size) {
    const REAL weight = (REAL)(tableau->b[i] * step);
    for (long v = 0; v < size; v += LANES) put(to, v, weight * at(base, v));
    for (int later = i + 1; later < tableau->stages; later++) {
        const REAL factor = (REAL)(tableau->a[later * tableau->stages + i] * step);
        if (factor != 0)
            for (long v = 0; v < size; v += LANES) put(to, v, at(to, v) + factor * at(of_points + later * size, v));
    }
}

/* A tile of r rows carried to its end and its gradient brought back: the primal passage. Adds to the sums of the fields'
   gradients, to of_end_time and to *loss. */
static void pass_once(Desk *desk, Block *blocks, int n_blocks, const Tableau *tableau, long rows, int r, double *loss) {
    const int s = tableau->stages, dim = desk->field[0].dim;
    const long size = r * (long)desk->field[0].pad;
    double total = 0;
    for (int m = 0; m < n_blocks; m++) {
        const Field *f = &desk->field[m];
        double tau = 0;
        for (int k = 0; k < blocks[m].steps; k++) {
            const double step = blocks[m].step[k], whole = blocks[m].end_time;
            Point *points = desk->point[m] + k * s;
            REAL *rates[MOST + 1];
            for (int i = 0; i < s; i++) {
                Point *p = &points[i];
                p->tau = tau + tableau->c[i] * step, p->time = (REAL)(p->tau * whole);
                combine(p->kept[0].entered, desk->z, rates, tableau->a + i * s, i, step * whole, size);
                second_forward(f, p->kept, tableau->b[i] != 0 ? f->tangents : 0, &p->time, 0, r, p->velocity, p->trace);
                rates[i] = p->velocity;
                for (int j = 0; j < r && tableau->b[i] != 0; j++) total -= tableau->b[i] * step * whole * p->trace[j];
            }
            combine(desk->z, desk->z, rates, tableau->b, s, step * whole, size);
            tau += step;
        }
    }
    *loss += (total + 0.5 * dot_product(desk->z, desk->z, size) + 0.5 * r * dim * 1.8378770664093454836) / rows; /* log 2 pi */
    for (long v = 0; v < size; v += LANES) put(desk->of_z, v, at(desk->z, v) / (REAL)rows);
    for (int m = n_blocks - 1; m >= 0; m--) {
        const Field *f = &desk->field[m];
        const double whole = blocks[m].end_time;
        for (int k = blocks[m].steps - 1; k >= 0; k--) {
            const double step = blocks[m].step[k];
            for (int i = s - 1; i >= 0; i--) {
                Point *p = desk->point[m] + k * s + i;
                const double of_trace = -tableau->b[i] * step / rows; /* over T */
                REAL *above = p->kept[f->layers - 1].of_gated;
                gather_rate(p->of_rate, desk->of_z, desk->of_points, tableau, i, step, size);
                for (long v = 0; v < size; v += LANES) put(above, v, (REAL)whole * at(p->of_rate, v));
                const double of_t = second_backward(f, p->kept, of_trace != 0 ? f->tangents : 0, (REAL)(of_trace * whole), &p->time, 0, r,
                                                    desk->of_points + i * size, desk->scratch.g, desk->scratch.other);
                blocks[m].of_end_time += dot_product(p->of_rate, p->velocity, size) + of_t * p->tau;
                for (int j = 0; j < r && of_trace != 0; j++) blocks[m].of_end_time += of_trace * p->trace[j];
            }
            for (int i = 0; i < s; i++)
                for (long v = 0; v < size; v += LANES) put(desk->of_z, v, at(desk->of_z, v) + at(desk->of_points + i * size, v));
        }
    }
}

/* The derivative of that passage's gradient along direction `v`, whose part of each T is end_time_dot[m * by]; what it
   says of T is added to of_end_time_dot[m]. */
static void pass_along(Desk *desk, const Block *blocks, int n_blocks, const Tableau *tableau, long rows, int r, int v, int vectors,
                       const double *end_time_dot, double *of_end_time_dot) {
    const int s = tableau->stages;
    const long size = r * (long)desk->field[0].pad;
    memset(desk->z_dot, 0, size * sizeof(REAL));
    for (int m = 0; m < n_blocks; m++) {
        const Field *f = &desk->field[m];
        const double whole = blocks[m].end_time, whole_dot = end_time_dot[m];
        for (int k = 0; k < blocks[m].steps; k++) {
            const double step = blocks[m].step[k];
            REAL *rates[MOST + 1];
            for (int i = 0; i < s; i++) {
                Point *p = desk->point[m] + k * s + i;
                combine(p->dots[0].entered, desk->z_dot, rates, tableau->a + i * s, i, step, size);
                dotted_forward(f, desk->direction[m * vectors + v], p->kept, p->dots, tableau->b[i] != 0 ? f->tangents : 0, &p->time,
                               (REAL)(p->tau * whole_dot), 0, r, p->velocity_dot, p->trace_dot);
                for (long o = 0; o < size; o += LANES)
                    put(p->rate_dot, o, (REAL)whole * at(p->velocity_dot, o) + (REAL)whole_dot * at(p->velocity, o));
                rates[i] = p->rate_dot;
            }
            combine(desk->z_dot, desk->z_dot, rates, tableau->b, s, step, size);
        }
    }
    for (long o = 0; o < size; o += LANES) put(desk->of_z_dot, o, at(desk->z_dot, o) / (REAL)rows);
    for (int m = n_blocks - 1; m >= 0; m--) {
        const Field *f = &desk->field[m];
        const double whole = blocks[m].end_time, whole_dot = end_time_dot[m];
        for (int k = blocks[m].steps - 1; k >= 0; k--) {
            const double step = blocks[m].step[k];
            for (int i = s - 1; i >= 0; i--) {
                Point *p = desk->point[m] + k * s + i;
                const double of_trace = -tableau->b[i] * step / rows;
                gather_rate(desk->to_rate, desk->of_z_dot, desk->of_points, tableau, i, step, size);
                of_end_time_dot[m] += dot_product(desk->to_rate, p->velocity, size) + dot_product(p->of_rate, p->velocity_dot, size);
                for (int j = 0; j < r && of_trace != 0; j++) of_end_time_dot[m] += of_trace * p->trace_dot[j];
                for (long o = 0; o < size; o += LANES)
                    put(desk->to_rate, o, (REAL)whole * at(desk->to_rate, o) + (REAL)whole_dot * at(p->of_rate, o));
                const double of_t = dotted_backward(f, desk->direction[m * vectors + v], p->kept, p->dots, of_trace != 0 ? f->tangents : 0,
                                                    (REAL)(of_trace * whole), (REAL)(of_trace * whole_dot), &p->time, (REAL)(p->tau * whole_dot), 0, r,
                                                    desk->to_rate, desk->of_points + i * size, desk->scratch);
                of_end_time_dot[m] += of_t * p->tau;
            }
            for (int i = 0; i < s; i++)
                for (long o = 0; o < size; o += LANES) put(desk->of_z_dot, o, at(desk->of_z_dot, o) + at(desk->of_points + i * size, o));
        }
    }
}

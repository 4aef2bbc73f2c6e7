/* Products of a mean loss's Hessian with directions of the params: many at a time, from one passage of the evaluations.

   Params stand in a row: block by block, layer by layer, those of TENSORS that there are, then the block's T. */
#pragma once
#include "adaptive.h"
#include "second.h"

enum { LAYERS_AT_MOST = 64 };

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

/* What a tile's rows gathered, added to a row of doubles, and set back to zero. (Sums of 256 rows in float32 had errors of
   4e-5 where activations have no mean of 0, those of a tile 3e-7, in the same time.) */
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

/* One evaluation on the way: its place in time, f, and the values that its derivatives begin with. */
typedef struct {
    double tau;
    REAL time, *velocity;
    Kept *values;
    REAL *entered_dot; /* vectors x r x pad: the derivative of z along each direction */
} Point;

/* What a call works with. Of the way out only values are kept, those of every evaluation; on the way back one
   evaluation at a time is made again with its tangents, and all directions use it while it is in the core's caches. */
typedef struct {
    Field *field;
    Layer **direction; /* block by block, vector by vector */
    Point **point;     /* of each block: steps x stages */
    Kept **kept;       /* of each block: one evaluation */
    Dots **dots;
    int vectors;
    REAL *z, *of_z, *of_rate, *of_points, *trace;
    REAL *z_dot, *of_points_dot; /* vectors times the size of z and of of_points; on the way back z_dot is the gradient's */
    REAL *rate_dot, *velocity_dot, *trace_dot;
    double *loss;
    Scratch scratch;
} Desk;

static Desk lay_desk_of(int kind, Arena *arena, const Block *blocks, int n_blocks, int stages, int tile, int vectors, const REAL *directions, long params) {
    const int measuring = arena->base == NULL;
    Desk desk = {.vectors = vectors};
    long widest = 0, pad = 0, offset = 0;
    int stacked = 1;
    desk.field = take(arena, n_blocks * (long)sizeof(Field)), desk.point = take(arena, n_blocks * (long)sizeof(Point *));
    desk.kept = take(arena, n_blocks * (long)sizeof(Kept *)), desk.dots = take(arena, n_blocks * (long)sizeof(Dots *));
    desk.direction = take(arena, n_blocks * (long)vectors * (long)sizeof(Layer *));
    for (int m = 0; m < n_blocks; m++) {
        const Field f = lay_out(arena, &blocks[m], kind, 1);
        Kept *kept = take_kept(arena, &f, f.tangents, tile);
        Dots *dots = take_dots(arena, &f, f.tangents, tile);
        for (int v = 0; v < vectors; v++) {
            Layer *own = lay_direction(arena, &blocks[m], directions + v * params + offset);
            if (!measuring) desk.direction[m * vectors + v] = own;
        }
        Point *points = take(arena, blocks[m].steps * (long)stages * (long)sizeof(Point));
        for (int k = 0; k < blocks[m].steps * stages; k++) {
            Point p = {0};
            p.velocity = take_reals(arena, tile * f.pad), p.entered_dot = take_reals(arena, vectors * tile * (long)f.pad);
            p.values = take_values(arena, &f, kept, tile);
            if (!measuring) points[k] = p;
        }
        if (!measuring) desk.field[m] = f, desk.point[m] = points, desk.kept[m] = kept, desk.dots[m] = dots;
        widest = f.widest > widest ? f.widest : widest, pad = f.pad, stacked = 1 + f.tangents, offset += params_of(&blocks[m]);
    }
    const long size = tile * pad, large = stacked * tile * widest;
    desk.z = take_reals(arena, size), desk.of_z = take_reals(arena, size), desk.of_rate = take_reals(arena, size);
    desk.of_points = take_reals(arena, stages * size), desk.trace = take_reals(arena, tile);
    desk.z_dot = take_reals(arena, vectors * size), desk.of_points_dot = take_reals(arena, vectors * stages * size);
    desk.rate_dot = take_reals(arena, stages * size), desk.velocity_dot = take_reals(arena, size), desk.trace_dot = take_reals(arena, tile);
    desk.scratch = (Scratch){take_reals(arena, large), take_reals(arena, large), take_reals(arena, large), take_reals(arena, large)};
    return desk;
}

static Desk lay_desk(Arena *arena, const Block *blocks, int n_blocks, int stages, int tile, int vectors, const REAL *directions, long params) {
    return lay_desk_of(EXACT, arena, blocks, n_blocks, stages, tile, vectors, directions, params);
}

/* Bytes that a thread takes for products with so many directions. kind: EXACT for the likelihood's; VALUE for flow
   matching's, which take a little less than is said here. */
long products_memory(const Block *blocks, int n_blocks, int kind, int stages, int tile, int vectors) {
    Arena arena = {0};
    const REAL *anywhere = (const REAL *)blocks; /* nothing is read where memory is only measured */
    lay_desk_of(kind, &arena, blocks, n_blocks, stages, tile, vectors, anywhere, 0);
    for (int twice = 0; twice < 2; twice++) take(&arena, (vectors + 1) * (long)n_blocks * (long)sizeof(double));
    return arena.used;
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

/* z += the gradients of the points of a step's stages. */
static void add_points(REAL *z, const REAL *of_points, int stages, long size) {
    for (int i = 0; i < stages; i++)
        for (long v = 0; v < size; v += LANES) put(z, v, at(z, v) + at(of_points + i * size, v));
}

/* The derivative along direction `v` of an evaluation and of its gradient, which stand in desk->kept; `of_trace` is the
   gradient of its trace over T. Gives the derivative of the gradient of T. */
static double turn_along(Desk *desk, const Block *block, int m, const Tableau *tableau, double step, const Point *p, int i, int v,
                         double whole_dot, double of_trace, int r) {
    const Field *f = &desk->field[m];
    const Layer *direction = desk->direction[m * desk->vectors + v];
    const int tangents = of_trace != 0 ? f->tangents : 0, s = tableau->stages;
    const long size = r * (long)f->pad;
    const double whole = block->end_time;
    const REAL t_dot = (REAL)(p->tau * whole_dot);
    REAL *to_rate = desk->rate_dot, *of_points = desk->of_points_dot + v * s * size;
    Dots *dots = desk->dots[m];
    dots[0].entered = p->entered_dot + v * size;
    dotted_forward(f, direction, desk->kept[m], dots, tangents, &p->time, t_dot, 0, r, desk->velocity_dot, desk->trace_dot);
    gather_rate(to_rate, desk->z_dot + v * size, of_points, tableau, i, step, size);
    double of_whole = dot_product(to_rate, p->velocity, size) + dot_product(desk->of_rate, desk->velocity_dot, size);
    for (int j = 0; j < r && tangents; j++) of_whole += of_trace * desk->trace_dot[j];
    for (long o = 0; o < size; o += LANES) put(to_rate, o, (REAL)whole * at(to_rate, o) + (REAL)whole_dot * at(desk->of_rate, o));
    const double of_t = dotted_backward(f, direction, desk->kept[m], dots, tangents, (REAL)(of_trace * whole), (REAL)(of_trace * whole_dot),
                                        &p->time, t_dot, 0, r, to_rate, of_points + i * size, desk->scratch);
    return of_whole + of_t * p->tau;
}

/* The way back of a tile that was carried to its end: the gradient's passage and, beside it, that of every direction.
   Adds to the sums of the fields and of the directions, to of_end_time, to *desk->loss, and to of_end_time_dot (vectors x
   blocks; end_time_dot likewise). */
static void pass_back(Desk *desk, Block *blocks, int n_blocks, const Tableau *tableau, long rows, int r, const double *end_time_dot,
                      double *of_end_time_dot) {
    const int s = tableau->stages;
    const long size = r * (long)desk->field[0].pad;
    double total = 0;
    for (long o = 0; o < size; o += LANES) put(desk->of_z, o, at(desk->z, o) / (REAL)rows);
    for (long o = 0; o < desk->vectors * size; o += LANES) put(desk->z_dot, o, at(desk->z_dot, o) / (REAL)rows);
    for (int m = n_blocks - 1; m >= 0; m--) {
        const Field *f = &desk->field[m];
        const double whole = blocks[m].end_time;
        Kept *kept = desk->kept[m];
        for (int k = blocks[m].steps - 1; k >= 0; k--) {
            const double step = blocks[m].step[k];
            for (int i = s - 1; i >= 0; i--) {
                const Point *p = desk->point[m] + k * s + i;
                const double of_trace = -tableau->b[i] * step / rows; /* over T */
                const int tangents = of_trace != 0 ? f->tangents : 0;
                REAL *above = kept[f->layers - 1].of_gated;
                kept[0].entered = p->values[0].entered;
                second_forward(f, kept, tangents, &p->time, 0, r, p->velocity, desk->trace);
                gather_rate(desk->of_rate, desk->of_z, desk->of_points, tableau, i, step, size);
                for (long o = 0; o < size; o += LANES) put(above, o, (REAL)whole * at(desk->of_rate, o));
                const double of_t = second_backward(f, kept, tangents, (REAL)(of_trace * whole), &p->time, 0, r,
                                                    desk->of_points + i * size, desk->scratch.g, desk->scratch.other);
                double sum = 0;
                for (int j = 0; j < r && tangents; j++) sum += desk->trace[j];
                total += of_trace * whole * sum;
                blocks[m].of_end_time += dot_product(desk->of_rate, p->velocity, size) + of_t * p->tau + of_trace * sum;
                for (int v = 0; v < desk->vectors; v++)
                    of_end_time_dot[v * n_blocks + m] += turn_along(desk, &blocks[m], m, tableau, step, p, i, v, end_time_dot[v * n_blocks + m], of_trace, r);
            }
            add_points(desk->of_z, desk->of_points, s, size);
            for (int v = 0; v < desk->vectors; v++) add_points(desk->z_dot + v * size, desk->of_points_dot + v * s * size, s, size);
        }
    }
    *desk->loss += total;
}

/* A tile of r rows carried to its end; without directions the way back follows. */
static void pass_once(Desk *desk, Block *blocks, int n_blocks, const Tableau *tableau, long rows, int r, double *loss) {
    const int s = tableau->stages, dim = desk->field[0].dim;
    const long size = r * (long)desk->field[0].pad;
    for (int m = 0; m < n_blocks; m++) {
        double tau = 0;
        for (int k = 0; k < blocks[m].steps; k++) {
            const double step = blocks[m].step[k], whole = blocks[m].end_time;
            REAL *rates[MOST + 1];
            for (int i = 0; i < s; i++) {
                Point *p = desk->point[m] + k * s + i;
                p->tau = tau + tableau->c[i] * step, p->time = (REAL)(p->tau * whole);
                combine(p->values[0].entered, desk->z, rates, tableau->a + i * s, i, step * whole, size);
                second_forward(&desk->field[m], p->values, 0, &p->time, 0, r, p->velocity, desk->trace);
                rates[i] = p->velocity;
            }
            combine(desk->z, desk->z, rates, tableau->b, s, step * whole, size);
            tau += step;
        }
    }
    *loss += (0.5 * dot_product(desk->z, desk->z, size) + 0.5 * r * dim * 1.8378770664093454836) / rows; /* log 2 pi */
    desk->loss = loss;
    if (!desk->vectors) pass_back(desk, blocks, n_blocks, tableau, rows, r, NULL, NULL);
}

/* That tile's derivative along direction `v`, whose part of each T is end_time_dot[m], carried to its end; behind the
   last direction the way back of all follows, which adds to each direction's of_end_time_dot[m]. */
static void pass_along(Desk *desk, Block *blocks, int n_blocks, const Tableau *tableau, long rows, int r, int v, int vectors,
                       const double *end_time_dot, double *of_end_time_dot) {
    const int s = tableau->stages;
    const long size = r * (long)desk->field[0].pad;
    REAL *z_dot = desk->z_dot + v * size;
    memset(z_dot, 0, size * sizeof(REAL));
    for (int m = 0; m < n_blocks; m++) {
        const double whole = blocks[m].end_time, whole_dot = end_time_dot[m];
        Dots *dots = desk->dots[m];
        for (int k = 0; k < blocks[m].steps; k++) {
            const double step = blocks[m].step[k];
            REAL *rates[MOST + 1];
            for (int i = 0; i < s; i++) {
                const Point *p = desk->point[m] + k * s + i;
                dots[0].entered = p->entered_dot + v * size;
                combine(dots[0].entered, z_dot, rates, tableau->a + i * s, i, step, size);
                rates[i] = desk->rate_dot + i * size;
                dotted_forward(&desk->field[m], desk->direction[m * vectors + v], p->values, dots, 0, &p->time, (REAL)(p->tau * whole_dot), 0,
                               r, desk->velocity_dot, desk->trace_dot);
                for (long o = 0; o < size; o += LANES)
                    put(rates[i], o, (REAL)whole * at(desk->velocity_dot, o) + (REAL)whole_dot * at(p->velocity, o));
            }
            combine(z_dot, z_dot, rates, tableau->b, s, step, size);
        }
    }
    if (v == vectors - 1) pass_back(desk, blocks, n_blocks, tableau, rows, r, end_time_dot - v * n_blocks, of_end_time_dot - v * n_blocks);
}

/* What Python calls: flow matching, a likelihood with its gradient on given steps, an adaptive solve.

   Rows are independent of one another, so they go in small tiles: everything that a tile needs for its gradient stays
   in the core's caches, and memory grows neither with the batch nor with the number of steps. */
#include "curvature.h"
#include "layout.h"
#include "training.h"
#include <pthread.h>

#if defined(__SSE__)
#include <xmmintrin.h>
/* Numbers below the smallest normal one count as 0 here: saturated neurons make many of them, and each is a hundred
   times as slow as another number. The thread's own mode comes back at the end. */
static void restore(unsigned *mode) { _mm_setcsr(*mode); }
static unsigned flush(void) {
    unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | 0x8040);
    return mode;
}
#define FLUSH_DENORMALS unsigned mode __attribute__((cleanup(restore))) = flush();
#else
#define FLUSH_DENORMALS
#endif

/* A thread keeps its memory between calls, and gives it back when it ends: its size, then what calls may use. */
enum { HEAD = 64 }; /* bytes; what calls may use begins at a multiple of it */
static pthread_key_t held;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static void make_key(void) { pthread_key_create(&held, free); }

/* The thread's memory, at least `bytes` of it; what it held is lost. */
static int provide(Arena *arena, long bytes) {
    pthread_once(&once, make_key);
    long *memory = pthread_getspecific(held);
    if (memory == NULL || bytes > *memory) {
        free(memory);
        memory = malloc(2 * HEAD + bytes); /* aligned below: not every system has aligned_alloc */
        pthread_setspecific(held, memory);
        if (memory == NULL) return 0;
        *memory = bytes;
    }
    *arena = (Arena){(char *)(((uintptr_t)memory + 2 * HEAD - 1) & ~(uintptr_t)(HEAD - 1)), 0};
    return 1;
}

/* The mean over the rows of |f(t, z) - target|^2, and its gradient added to the block's. */
int match(Block *block, const REAL *points, const REAL *targets, const REAL *t, long rows, int tile, double *loss) {
    FLUSH_DENORMALS
    Arena arena = {0};
    Match m;
    for (int measuring = 1; measuring >= 0; measuring--) {
        if (!measuring && !provide(&arena, arena.used)) return NO_MEMORY;
        m = room_for_match(&arena, block, tile);
        if (measuring) lay_out(&arena, block, VALUE, 1);
    }
    *loss = match_rows(&m, arena, block, points, targets, t, rows);
    return DONE;
}

/* Flow matching steps, one after the other: see training.h. A loss that is not finite ends the call before its step. */
int take_steps(Block *block, Course *course, Update *u, int tile) {
    FLUSH_DENORMALS
    Arena arena = {0};
    Match m;
    REAL *points = NULL, *targets = NULL;
    long most = 0;
    for (int k = 0; k < course->steps; k++) most = course->rows[k] > most ? course->rows[k] : most;
    for (int measuring = 1; measuring >= 0; measuring--) {
        if (!measuring && !provide(&arena, arena.used)) return NO_MEMORY;
        m = room_for_match(&arena, block, tile);
        points = take_reals(&arena, most * block->width[0]), targets = take_reals(&arena, most * block->width[0]);
        if (measuring) lay_out(&arena, block, VALUE, 1);
    }
    for (int k = 0; k < course->steps; k++) {
        make_path(course, k, block->width[0], points, targets);
        memset(u->gradient, 0, u->params * sizeof(REAL));
        course->loss[k] = (REAL)match_rows(&m, arena, block, points, targets, course->time[k], course->rows[k]);
        if (!isfinite(course->loss[k])) return NON_FINITE;
        update(u, course->rate[k]);
        course->taken++;
    }
    return DONE;
}

/* One evaluation on the way, with what its gradient needs. */
typedef struct {
    double tau;
    REAL time, *velocity, *trace;
    Passed *passed;
} Stage;

/* Points carried through all blocks on their steps: ends (rows x dim) and the integral of the trace (rows). With
   `gradients` that of the mean of -log N(end) - trace is added to the blocks' and to their of_end_time. */
int walk(Block *blocks, int n_blocks, int kind, const Tableau *tableau, const REAL *points, const REAL *probes,
         long rows, int tile, int gradients, REAL *ends, REAL *traces) {
    FLUSH_DENORMALS
    Arena arena = {0};
    const int s = tableau->stages;
    Field *fields = NULL;
    Stage **stages = NULL; /* of each block: steps x s, or s where nothing is kept */
    REAL *z = NULL, *trace = NULL, *g = NULL, *other = NULL, *of_z = NULL, *of_rate = NULL, *of_trace = NULL, *all_of_points = NULL;
    for (int measuring = 1; measuring >= 0; measuring--) {
        if (!measuring && !provide(&arena, arena.used)) return 1;
        fields = take(&arena, n_blocks * (long)sizeof(Field));
        stages = take(&arena, n_blocks * (long)sizeof(Stage *));
        long widest = 0, stacked = 1, pad = 0;
        for (int m = 0; m < n_blocks; m++) {
            const Field f = lay_out(&arena, &blocks[m], kind, gradients);
            const int kept = gradients ? blocks[m].steps * s : s;
            Stage *own = take(&arena, kept * (long)sizeof(Stage));
            for (int k = 0; k < kept; k++) {
                Stage stage = {0};
                stage.velocity = take_reals(&arena, tile * f.pad), stage.trace = take_reals(&arena, tile);
                stage.passed = take_passed(&arena, blocks[m].width, f.layers, 1 + f.tangents, tile);
                if (!measuring) own[k] = stage;
            }
            if (!measuring) fields[m] = f, stages[m] = own;
            widest = f.widest > widest ? f.widest : widest, stacked = 1 + f.tangents, pad = f.pad;
        }
        z = take_reals(&arena, tile * pad), trace = take_reals(&arena, tile);
        of_z = take_reals(&arena, tile * pad), of_rate = take_reals(&arena, tile * pad), of_trace = take_reals(&arena, tile);
        all_of_points = take_reals(&arena, s * tile * pad);
        g = take_reals(&arena, stacked * tile * widest), other = take_reals(&arena, stacked * tile * widest);
    }
    for (int m = 0; m < n_blocks; m++) blocks[m].of_end_time = 0;
    for (long first = 0; first < rows; first += tile) {
        const int r = rows - first < tile ? (int)(rows - first) : tile;
        const long size = r * (long)fields[0].pad;
        load(&fields[0], points, first, r, z);
        memset(trace, 0, r * sizeof(REAL));
        for (int m = 0; m < n_blocks; m++) {
            const double whole = blocks[m].end_time;
            double tau = 0;
            for (int k = 0; k < blocks[m].steps; k++) {
                const double step = blocks[m].step[k];
                Stage *own = stages[m] + (gradients ? k * s : 0);
                REAL *rates[16];
                for (int i = 0; i < s; i++) {
                    Stage *stage = &own[i];
                    REAL *entered = stage->passed[0].entered;
                    stage->tau = tau + tableau->c[i] * step, stage->time = (REAL)(stage->tau * whole);
                    if (probes) load(&fields[m], probes, first, r, entered + size);
                    combine(entered, z, rates, tableau->a + i * s, i, step * whole, size);
                    forward(&fields[m], stage->passed, &stage->time, 0, r, stage->velocity, stage->trace);
                    rates[i] = stage->velocity;
                    if (kind != VALUE)
                        for (int j = 0; j < r; j++) trace[j] += (REAL)(tableau->b[i] * step * whole) * stage->trace[j];
                }
                combine(z, z, rates, tableau->b, s, step * whole, size);
                tau += step;
            }
        }
        unload(&fields[0], z, first, r, ends);
        if (traces) memcpy(traces + first, trace, r * sizeof(REAL));
        if (!gradients) continue;
        for (long j = 0; j < size; j++) of_z[j] = z[j] / (REAL)rows;
        for (int m = n_blocks - 1; m >= 0; m--) {
            const double whole = blocks[m].end_time;
            for (int k = blocks[m].steps - 1; k >= 0; k--) {
                const double step = blocks[m].step[k];
                REAL *of_points[16];
                for (int i = s - 1; i >= 0; i--) {
                    Stage *stage = &stages[m][k * s + i];
                    /* The rate k_i stands in the step's end with b_i, and in each later stage j with a_ji. */
                    const REAL weight = (REAL)(tableau->b[i] * step), share = -weight / (REAL)rows;
                    for (long j = 0; j < size; j++) of_rate[j] = weight * of_z[j];
                    for (int later = i + 1; later < s; later++) {
                        const REAL factor = (REAL)(tableau->a[later * s + i] * step);
                        if (factor != 0)
                            for (long j = 0; j < size; j++) of_rate[j] += factor * of_points[later][j];
                    }
                    double of_whole = 0;
                    for (long j = 0; j < size; j++) of_whole += (double)of_rate[j] * stage->velocity[j];
                    for (int j = 0; j < r; j++) of_whole += (double)share * stage->trace[j];
                    for (long j = 0; j < size; j++) of_rate[j] *= (REAL)whole;
                    for (int j = 0; j < r; j++) of_trace[j] = share * (REAL)whole;
                    of_points[i] = all_of_points + i * (long)tile * fields[m].pad;
                    const double of_t = backward(&fields[m], stage->passed, &stage->time, 0, r, of_rate, of_trace, of_points[i], g, other);
                    blocks[m].of_end_time += of_whole + of_t * stage->tau;
                }
                for (int i = 0; i < s; i++)
                    for (long j = 0; j < size; j++) of_z[j] += of_points[i][j];
            }
        }
    }
    if (gradients)
        for (int m = 0; m < n_blocks; m++) hand_back(&fields[m]);
    return 0;
}

/* Points carried through a block by an adaptive solve: see adaptive.h. With `lanes` every row takes steps of its own, so
   many rows at a time; with 0 all rows share theirs. ends (rows x dim) hold what is said of a row that is given up. */
int carry(Block *block, int kind, const Tableau *tableau, Control *control, const REAL *points, const REAL *probes,
          long rows, int lanes, REAL *ends, REAL *traces) {
    FLUSH_DENORMALS
    Arena arena = {0};
    Bench bench;
    for (int measuring = 1; measuring >= 0; measuring--) {
        if (!measuring && !provide(&arena, arena.used)) return NO_MEMORY;
        bench = set_up(&arena, block, kind, tableau->stages, lanes > 1 ? lanes : lanes ? 2 : rows);
    }
    if (lanes) return carry_each(&bench, tableau, control, block->end_time, points, probes, rows, lanes, ends, traces);
    return carry_together(&bench, tableau, control, block->end_time, points, probes, (int)rows, ends, traces);
}

/* Rows [first, past) of the likelihood's mean over `rows`, on given steps: their part of -log p is added to *loss, of its
   gradient to `gradient` (params), and of the Hessian's products with `directions` (vectors x params) to `products`. */
int likelihood_products(Block *blocks, int n_blocks, const Tableau *tableau, const REAL *points, long rows, long first,
                        long past, int tile, int vectors, const REAL *directions, double *products, double *gradient,
                        double *loss) {
    FLUSH_DENORMALS
    Arena arena = {0};
    Desk desk;
    long params = 0;
    for (int m = 0; m < n_blocks; m++) params += params_of(&blocks[m]);
    double *of_end_time = NULL, *end_time_dot = NULL;
    for (int measuring = 1; measuring >= 0; measuring--) {
        if (!measuring && !provide(&arena, arena.used)) return NO_MEMORY;
        desk = lay_desk(&arena, blocks, n_blocks, tableau->stages, tile, vectors, directions, params);
        of_end_time = take(&arena, (vectors + 1) * (long)n_blocks * (long)sizeof(double));
        end_time_dot = take(&arena, (vectors + 1) * (long)n_blocks * (long)sizeof(double));
    }
    for (int m = 0, o = 0; m < n_blocks; m++) {
        o += (int)params_of(&blocks[m]);
        blocks[m].of_end_time = 0;
        for (int v = 0; v < vectors; v++) of_end_time[v * n_blocks + m] = 0, end_time_dot[v * n_blocks + m] = directions[v * params + o - 1];
    }
    for (long start = first; start < past; start += tile) {
        const int r = past - start < tile ? (int)(past - start) : tile;
        load(&desk.field[0], points, start, r, desk.z);
        pass_once(&desk, blocks, n_blocks, tableau, rows, r, loss);
        for (int v = 0; v < vectors; v++)
            pass_along(&desk, blocks, n_blocks, tableau, rows, r, v, vectors, end_time_dot + v * n_blocks, of_end_time + v * n_blocks);
        for (long m = 0, o = 0; m < n_blocks; o += params_of(&blocks[m]), m++) {
            flush_sums(&blocks[m], desk.field[m].layer, gradient + o);
            for (int v = 0; v < vectors; v++) flush_sums(&blocks[m], desk.direction[m * vectors + v], products + v * params + o);
        }
    }
    for (long m = 0, o = 0; m < n_blocks; m++) {
        o += params_of(&blocks[m]);
        gradient[o - 1] += blocks[m].of_end_time;
        for (int v = 0; v < vectors; v++) products[v * params + o - 1] += of_end_time[v * n_blocks + m];
    }
    return DONE;
}

/* The same of flow matching's mean over `rows` of |f(t, z) - target|^2; there is no T. */
int match_products(Block *block, const REAL *points, const REAL *targets, const REAL *t, long rows, long first, long past,
                   int tile, int vectors, const REAL *directions, double *products, double *gradient, double *loss) {
    FLUSH_DENORMALS
    Arena arena = {0};
    Field f;
    Layer **along = NULL;
    Kept *kept = NULL;
    Dots *dots = NULL;
    REAL *here = NULL, *of_z = NULL, *trace = NULL;
    Scratch scratch = {0};
    const long params = params_of(block);
    for (int measuring = 1; measuring >= 0; measuring--) {
        if (!measuring && !provide(&arena, arena.used)) return NO_MEMORY;
        f = lay_out(&arena, block, VALUE, 1);
        along = take(&arena, vectors * (long)sizeof(Layer *));
        for (int v = 0; v < vectors; v++) {
            Layer *own = lay_direction(&arena, block, directions + v * params);
            if (!measuring) along[v] = own;
        }
        kept = take_kept(&arena, &f, 0, tile), dots = take_dots(&arena, &f, 0, tile);
        here = take_reals(&arena, tile * f.pad), of_z = take_reals(&arena, tile * f.pad), trace = take_reals(&arena, tile);
        scratch = (Scratch){take_reals(&arena, tile * f.widest), take_reals(&arena, tile * f.widest), take_reals(&arena, tile * f.widest),
                            take_reals(&arena, tile * f.widest)};
    }
    for (long start = first; start < past; start += tile) {
        const int r = past - start < tile ? (int)(past - start) : tile;
        const long size = r * (long)f.pad;
        REAL *of_f = kept[f.layers - 1].of_gated;
        load(&f, points, start, r, kept[0].entered);
        load(&f, targets, start, r, of_z);
        second_forward(&f, kept, 0, t + start, 1, r, here, trace);
        for (long j = 0; j < size; j++) here[j] -= of_z[j], of_f[j] = 2 * here[j] / (REAL)rows;
        *loss += dot_product(here, here, size) / rows;
        second_backward(&f, kept, 0, 0, t + start, 1, r, of_z, scratch.g, scratch.other);
        for (int v = 0; v < vectors; v++) {
            memset(dots[0].entered, 0, size * sizeof(REAL));
            dotted_forward(&f, along[v], kept, dots, 0, t + start, 0, 1, r, here, trace);
            for (long j = 0; j < size; j++) here[j] *= 2 / (REAL)rows;
            dotted_backward(&f, along[v], kept, dots, 0, 0, 0, t + start, 0, 1, r, here, of_z, scratch);
        }
        flush_sums(block, f.layer, gradient);
        for (int v = 0; v < vectors; v++) flush_sums(block, along[v], products + v * params);
    }
    return DONE;
}

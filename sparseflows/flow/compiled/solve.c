/* What Python calls: flow matching, a likelihood with its gradient on given steps, an adaptive solve.

   Rows are independent of one another, so they go in small tiles: everything that a tile needs for its gradient stays
   in the core's caches, and memory grows neither with the batch nor with the number of steps. */
#include "field.h"

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

typedef struct {
    int stages, order;
    const double *a, *b, *c, *error; /* a: stages x stages; error: stages + 1 */
} Tableau;

static __thread char *memory;
static __thread long memory_bytes;

/* The thread's memory, at least `bytes` of it; what it held is lost. */
static int provide(Arena *arena, long bytes) {
    if (bytes > memory_bytes) {
        free(memory);
        memory_bytes = 0;
        memory = aligned_alloc(64, (bytes + 4095) / 4096 * 4096);
        if (memory == NULL) return 0;
        memory_bytes = bytes;
    }
    *arena = (Arena){memory, 0};
    return 1;
}

/* start + step * sum of coefficients[i] * rates[i], into `end`. */
static void combine(REAL *end, const REAL *start, REAL *const *rates, const double *coefficients, int n, double step, long size) {
    if (end != start) memcpy(end, start, size * sizeof(REAL));
    for (int i = 0; i < n; i++) {
        const REAL factor = (REAL)(coefficients[i] * step);
        if (coefficients[i] != 0)
            for (long j = 0; j < size; j++) end[j] += factor * rates[i][j];
    }
}

static void swap(REAL **one, REAL **other) {
    REAL *held = *one;
    *one = *other, *other = held;
}

static void load(const Field *f, const REAL *points, const REAL *probes, long first, int r, REAL *entered) {
    memset(entered, 0, sizeof(REAL) * (f->kind == PROBED ? 2 : 1) * r * f->pad);
    for (int i = 0; i < r; i++) {
        if (points) memcpy(entered + (long)i * f->pad, points + (first + i) * f->dim, f->dim * sizeof(REAL));
        if (f->kind == PROBED)
            memcpy(entered + (long)(r + i) * f->pad, probes + (first + i) * f->dim, f->dim * sizeof(REAL));
    }
}

static void unload(const Field *f, const REAL *from, long first, int r, REAL *to) {
    for (int i = 0; i < r; i++) memcpy(to + (first + i) * f->dim, from + (long)i * f->pad, f->dim * sizeof(REAL));
}

/* The mean over the rows of |f(t, z) - target|^2, and its gradient added to the block's. */
int match(Block *block, const REAL *points, const REAL *targets, const REAL *t, long rows, int tile, double *loss) {
    FLUSH_DENORMALS
    Arena arena = {0};
    Field f;
    Passed *passed = NULL;
    REAL *here = NULL, *of_z = NULL, *g = NULL, *other = NULL;
    for (int measuring = 1; measuring >= 0; measuring--) {
        if (!measuring && !provide(&arena, arena.used)) return 1;
        f = lay_out(&arena, block, VALUE, 1);
        passed = take_passed(&arena, block->width, f.layers, 1, tile);
        here = take_reals(&arena, tile * f.pad), of_z = take_reals(&arena, tile * f.pad);
        g = take_reals(&arena, tile * f.widest), other = take_reals(&arena, tile * f.widest);
    }
    *loss = 0;
    for (long first = 0; first < rows; first += tile) {
        const int r = rows - first < tile ? (int)(rows - first) : tile;
        load(&f, points, NULL, first, r, passed[0].entered);
        forward(&f, passed, t + first, 1, r, here, NULL);
        for (int i = 0; i < r; i++)
            for (int j = 0; j < f.dim; j++) {
                const REAL error = here[i * f.pad + j] - targets[(first + i) * f.dim + j];
                *loss += (double)error * error / rows;
                here[i * f.pad + j] = 2 * error / (REAL)rows;
            }
        backward(&f, passed, t + first, 1, r, here, NULL, of_z, g, other);
    }
    hand_back(&f);
    return 0;
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
        load(&fields[0], points, probes, first, r, stages[0][0].passed[0].entered);
        memcpy(z, stages[0][0].passed[0].entered, size * sizeof(REAL));
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
                    load(&fields[m], NULL, probes, first, r, entered);
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

enum { DONE, NO_MEMORY, NON_FINITE, OUT_OF_STEPS, UNDERFLOW }; /* the order that Python knows */

typedef struct {
    double rtol, atol;
    long max_nfe;
    int by_row; /* the worst row's error counts, not the root mean square over the tile's rows */
    int reverse;
    double first; /* a step to begin with, over tau; after the call one that worked */
    long nfe;     /* out: the largest number of evaluations over the tiles */
    double *steps; /* out, NULL where nobody asks: the lengths of the last tile's steps, `room` of them at most */
    int room, taken;
    int *status; /* out, NULL: the first tile that fails ends the call. Else how each row ended: those of a tile that
                    failed are solved again one by one, and a row that fails alone leaves the point that it had reached */
} Control;

/* The size of a step's error in units of the tolerance. Values and error: r rows of `pad` coordinates, dim of them in
   use, and r traces, NULL where there are none. */
static double error_size(const Control *control, int r, int dim, int pad, const REAL *before, const REAL *after, const REAL *error,
                         const REAL *trace_before, const REAL *trace_after, const REAL *trace_error) {
    double worst = 0, total = 0;
    const int terms = dim + (trace_error != NULL);
    for (int i = 0; i < r; i++) {
        double sum = 0;
        for (int j = 0; j < dim; j++) {
            const long o = (long)i * pad + j;
            const double part = error[o] / (control->atol + control->rtol * fmax(fabs(before[o]), fabs(after[o])));
            sum += part * part;
        }
        if (trace_error) {
            const double part = trace_error[i] / (control->atol + control->rtol * fmax(fabs(trace_before[i]), fabs(trace_after[i])));
            sum += part * part;
        }
        if (!(sum / terms <= worst)) worst = sum / terms;
        total += sum / terms;
    }
    return sqrt(control->by_row || !(worst < INFINITY) ? worst : total / r);
}

/* Points carried through a block, every tile by an adaptive solve of its own: ends (rows x dim), and the integral of the
   trace along the path as it was walked. */
int carry(Block *block, int kind, const Tableau *tableau, Control *control, const REAL *points, const REAL *probes,
          long rows, int tile, REAL *ends, REAL *traces) {
    FLUSH_DENORMALS
    enum { MOST = 16, MOST_SPENT = 64 };
    Arena arena = {0};
    const int s = tableau->stages;
    const double whole = block->end_time;
    Field f;
    Passed *passed = NULL;
    REAL *velocity[MOST + 1] = {0}, *slope[MOST + 1] = {0};
    REAL *z = NULL, *z_next = NULL, *error = NULL, *trace = NULL, *trace_next = NULL, *trace_error = NULL;
    for (int measuring = 1; measuring >= 0; measuring--) {
        if (!measuring && !provide(&arena, arena.used)) return NO_MEMORY;
        f = lay_out(&arena, block, kind, 0);
        passed = take_passed(&arena, block->width, f.layers, 1 + f.tangents, tile);
        for (int i = 0; i <= s; i++) velocity[i] = take_reals(&arena, tile * f.pad), slope[i] = take_reals(&arena, tile);
        z = take_reals(&arena, tile * f.pad), z_next = take_reals(&arena, tile * f.pad);
        error = take_reals(&arena, tile * f.pad);
        trace = take_reals(&arena, tile), trace_next = take_reals(&arena, tile), trace_error = take_reals(&arena, tile);
    }
    const double smallest = sizeof(REAL) == 4 ? 1e-7 : 1e-14;
    REAL *entered = passed[0].entered;
    long most = control->nfe = 0, alone = 0, spent = 0; /* rows before `alone` go one by one; `spent` of them took all steps */
    const double first_step = control->first;
    for (long first = 0, r; first < rows; first += r) {
        r = first < alone ? 1 : rows - first < tile ? rows - first : tile;
        const long size = r * f.pad;
        int status = DONE;
        long nfe = 1;
        double done = 0, step = fmin(1, first < alone ? first_step : control->first);
        int infinite = 0;
        control->taken = 0;
        load(&f, points, probes, first, r, entered);
        memcpy(z, entered, sizeof(REAL) * size);
        memset(trace, 0, sizeof(REAL) * r);
        REAL time = (REAL)(control->reverse ? whole : 0);
        forward(&f, passed, &time, 0, r, velocity[0], slope[0]);
        while (done < 1) {
            const double signed_step = (control->reverse ? -step : step) * whole;
            for (int i = 1; i <= s; i++) {
                /* Stage s is the step's end: its evaluation is the error's last term, and the next step's first. */
                const double tau = done + (i < s ? tableau->c[i] : 1) * step;
                combine(entered, z, velocity, i < s ? tableau->a + i * s : tableau->b, i, signed_step, size);
                if (i == s) memcpy(z_next, entered, size * sizeof(REAL));
                time = (REAL)((control->reverse ? 1 - tau : tau) * whole);
                forward(&f, passed, &time, 0, r, velocity[i], slope[i]);
            }
            control->nfe = nfe += s;
            memset(error, 0, size * sizeof(REAL)), memset(trace_error, 0, r * sizeof(REAL));
            combine(error, error, velocity, tableau->error, s + 1, signed_step, size);
            if (kind != VALUE) {
                combine(trace_error, trace_error, slope, tableau->error, s + 1, signed_step, r);
                combine(trace_next, trace, slope, tableau->b, s, signed_step, r);
            }
            const double found = error_size(control, (int)r, f.dim, f.pad, z, z_next, error, trace, trace_next,
                                            kind == VALUE ? NULL : trace_error);
            infinite = !(found < INFINITY);
            const int good = !infinite && found <= 1;
            if (good) {
                if (control->taken == 0) control->first = step;
                if (control->steps && control->taken < control->room) control->steps[control->taken] = step;
                control->taken++;
                done = done + step >= 1 - 1e-12 ? 1 : done + step;
                swap(&z, &z_next), swap(&velocity[0], &velocity[s]), swap(&slope[0], &slope[s]);
                if (kind != VALUE) swap(&trace, &trace_next);
            }
            double factor = infinite ? 0.2 : found == 0 ? 5 : 0.9 * pow(found, -1.0 / tableau->order);
            factor = factor > 5 ? 5 : factor < 0.2 ? 0.2 : factor;
            if (!good && factor > 0.9) factor = 0.9;
            step *= factor;
            if (step < smallest) status = infinite ? NON_FINITE : UNDERFLOW;
            else if (done < 1 && nfe + s > control->max_nfe) status = OUT_OF_STEPS;
            if (status != DONE) break;
            if (step > 1 - done) step = 1 - done;
        }
        if (nfe > most) most = nfe;
        if (status != DONE) {
            if (!control->status) return status;
            control->first = first_step;
            if (r > 1) {
                alone = first + r, r = 0;
                continue;
            }
            if (status == OUT_OF_STEPS && ++spent > MOST_SPENT && spent > first / 4) { /* it is not single rows */
                for (long j = first; j < rows; j++) control->status[j] = status;
                control->nfe = most;
                return DONE;
            }
        }
        if (control->status)
            for (long j = 0; j < r; j++) control->status[first + j] = status;
        unload(&f, z, first, r, ends);
        if (traces) memcpy(traces + first, trace, r * sizeof(REAL));
    }
    control->nfe = most;
    return DONE;
}

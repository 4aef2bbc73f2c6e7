/* Flow matching: the mean over the rows of |f(t, z) - target|^2 and its gradient. */
#pragma once
#include "field.h"

/* What a mean is taken on: the field, laid out, and room for `tile` rows at a time. */
typedef struct {
    Field f;
    Passed *passed;
    int tile;
    REAL *here, *g, *other;
} Match;

/* The room alone; the field is laid out behind it. */
static Match room_for_match(Arena *arena, const Block *block, int tile) {
    Match m = {.tile = tile};
    long widest = 0;
    for (int l = 0; l <= block->layers; l++)
        if (padded(block->width[l]) > widest) widest = padded(block->width[l]);
    m.passed = take_passed(arena, block->width, block->layers, 1, tile);
    m.here = take_reals(arena, tile * padded(block->width[0]));
    m.g = take_reals(arena, tile * widest), m.other = take_reals(arena, tile * widest);
    return m;
}

/* The mean over points and targets (rows x dim) at times t (rows), as the block's tensors are now; its gradient is added
   to the block's. What stands in the arena behind `used` is lost. */
static double match_rows(Match *m, Arena arena, const Block *block, const REAL *points, const REAL *targets, const REAL *t,
                         long rows) {
    double loss = 0;
    const Field f = m->f = lay_out(&arena, block, VALUE, 1);
    for (long first = 0; first < rows; first += m->tile) {
        const int r = rows - first < m->tile ? (int)(rows - first) : m->tile;
        load(&f, points, first, r, m->passed[0].entered);
        forward(&f, m->passed, t + first, 1, r, m->here, NULL);
        for (int i = 0; i < r; i++)
            for (int j = 0; j < f.dim; j++) {
                const REAL error = m->here[i * f.pad + j] - targets[(first + i) * f.dim + j];
                loss += (double)error * error / rows;
                m->here[i * f.pad + j] = 2 * error / (REAL)rows;
            }
        backward(&f, m->passed, t + first, 1, r, m->here, NULL, NULL, m->g, m->other);
    }
    hand_back(&f);
    return loss;
}

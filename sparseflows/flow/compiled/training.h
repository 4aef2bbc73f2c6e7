/* Steps of a training by flow matching, whose batches and draws are made already. */
#pragma once
#include "matching.h"
#include "updates.h"

typedef struct {
    int steps, taken;
    const long *rows;                                     /* of each step */
    const REAL *const *data, *const *noise, *const *time; /* (rows x dim) twice, (rows) */
    const double *rate;
    double *loss; /* out, of each step that was tried, in the precision of the weights */
} Course;

/* Where the straight paths from data to noise are at their times, and their velocity, (rows x dim) each. */
static void make_path(const Course *course, int step, int dim, REAL *points, REAL *targets) {
    const REAL *data = course->data[step], *noise = course->noise[step], *t = course->time[step];
    for (long i = 0; i < course->rows[step]; i++)
        for (int j = 0; j < dim; j++) {
            const long o = i * dim + j;
            points[o] = lerp(data[o], noise[o], t[i]), targets[o] = noise[o] - data[o];
        }
}

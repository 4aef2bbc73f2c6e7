/* Small matrix products: C (m x n) = or += A B, the rows of B and C whole registers long. */
#pragma once
#include "vector.h"

#if defined(__AVX512F__)
#define ROWS 6 /* x COLUMNS registers of sums: with one row of B they fill the 32 registers */
#define COLUMNS 4
#else
#define ROWS 4
#define COLUMNS 2
#endif

/* A block of `rows` x `columns` registers of C, its sums in registers while k runs. */
static inline __attribute__((always_inline)) void block(
    const int rows, const int columns, const REAL *a, long by_row, long by_k, const REAL *b, long b_row, REAL *c,
    long c_row, int depth, int add) {
    V sum[ROWS][COLUMNS];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) sum[i][j] = add ? *(const V *)(c + i * c_row + j * LANES) : all(0);
    for (int k = 0; k < depth; k++) {
        V line[COLUMNS];
        for (int j = 0; j < columns; j++) line[j] = *(const V *)(b + k * b_row + j * LANES);
        for (int i = 0; i < rows; i++) {
            const V factor = all(a[i * by_row + k * by_k]);
            for (int j = 0; j < columns; j++) sum[i][j] += factor * line[j];
        }
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) *(V *)(c + i * c_row + j * LANES) = sum[i][j];
}

static inline __attribute__((always_inline)) void strip(
    const int columns, const REAL *a, long by_row, long by_k, const REAL *b, long b_row, REAL *c, long c_row, int m,
    int depth, int add) {
    int i = 0;
    for (; i + ROWS <= m; i += ROWS)
        block(ROWS, columns, a + i * by_row, by_row, by_k, b, b_row, c + i * c_row, c_row, depth, add);
    for (; i + 2 <= m; i += 2)
        block(2, columns, a + i * by_row, by_row, by_k, b, b_row, c + i * c_row, c_row, depth, add);
    for (; i < m; i++)
        block(1, columns, a + i * by_row, by_row, by_k, b, b_row, c + i * c_row, c_row, depth, add);
}

/* C (m x n) = A B, or C += A B with `add`. a[i * by_row + k * by_k] is A's entry, so a transposed A needs no copy. */
static void product(const REAL *a, long by_row, long by_k, const REAL *b, long b_row, REAL *c, long c_row, int m,
                    int n, int depth, int add) {
    int registers = n / LANES, j = 0;
    for (; j + COLUMNS <= registers; j += COLUMNS)
        strip(COLUMNS, a, by_row, by_k, b + j * LANES, b_row, c + j * LANES, c_row, m, depth, add);
    for (; j + 2 <= registers; j += 2)
        strip(2, a, by_row, by_k, b + j * LANES, b_row, c + j * LANES, c_row, m, depth, add);
    for (; j < registers; j++)
        strip(1, a, by_row, by_k, b + j * LANES, b_row, c + j * LANES, c_row, m, depth, add);
}

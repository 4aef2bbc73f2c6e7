/* Small matrix products: C (m x n) = or += A B, the rows of B and C whole registers long. */
#pragma once
#include "vector.h"

/* C is cut into blocks whose sums stay in registers, as many as leave room for a line of B and one factor of A: of 32
   registers with AVX-512, else of 16. TALL(c) rows go with c columns. */
#if defined(__AVX512F__)
#define COLUMNS 4
#define TALL(columns) ((columns) == 4 ? 6 : 8)
#else
#define COLUMNS 3
#define TALL(columns) ((columns) == 3 ? 4 : 6)
#endif
#define TALLEST 8

/* Keeps a line of B in its register. Compilers would load it again for every row, and loads are what there are too many
   of: without this, blocks of four rows are 1.5 times as slow. */
#if defined(__x86_64__)
#define HOLD(line) __asm__("" : "+v"(line))
#else
#define HOLD(line)
#endif

#define UNROLLED _Pragma("GCC unroll 8")

/* A block of `rows` x `columns` registers of C, its sums in registers while k runs. */
static inline __attribute__((always_inline)) void block(
    const int rows, const int columns, const REAL *a, long by_row, long by_k, const REAL *b, long b_row, REAL *c,
    long c_row, int depth, const int add) {
    V sum[TALLEST][COLUMNS], line[COLUMNS];
    UNROLLED for (int i = 0; i < rows; i++)
        UNROLLED for (int j = 0; j < columns; j++) sum[i][j] = add ? *(const V *)(c + i * c_row + j * LANES) : all(0);
    for (int k = 0; k < depth; k++) {
        UNROLLED for (int j = 0; j < columns; j++) {
            line[j] = *(const V *)(b + k * b_row + j * LANES);
            HOLD(line[j]);
        }
        UNROLLED for (int i = 0; i < rows; i++) {
            const V factor = all(a[i * by_row + k * by_k]);
            UNROLLED for (int j = 0; j < columns; j++) sum[i][j] += factor * line[j];
        }
    }
    UNROLLED for (int i = 0; i < rows; i++)
        UNROLLED for (int j = 0; j < columns; j++) *(V *)(c + i * c_row + j * LANES) = sum[i][j];
}

/* How many of those that are left go next, `most` at a time: the last two parts are of even size, for small blocks wait
   for their sums. */
static inline int part(int left, int most) { return left <= most ? left : left < 2 * most ? (left + 1) / 2 : most; }

static inline __attribute__((always_inline)) void strip(
    const int columns, const REAL *a, long by_row, long by_k, const REAL *b, long b_row, REAL *c, long c_row, int m,
    int depth, const int add) {
    const int most = TALL(columns);
    for (int i = 0, rows; i < m; i += rows) {
        rows = part(m - i, most);
#define CASE(R) case R: if (R <= most) block(R, columns, a + i * by_row, by_row, by_k, b, b_row, c + i * c_row, c_row, depth, add); break;
        switch (rows) { CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) }
#undef CASE
    }
}

/* a[i * by_row + k * by_k] is A's entry, so a transposed A needs no copy. */
#define SIZES const REAL *a, long by_row, long by_k, const REAL *b, long b_row, REAL *c, long c_row, int m, int n, int depth
static inline __attribute__((always_inline)) void multiply(SIZES, const int add) {
    const int registers = n / LANES;
    for (int j = 0, columns; j < registers; j += columns) {
        columns = part(registers - j, COLUMNS);
#define CASE(C) case C: if (C <= COLUMNS) strip(C, a, by_row, by_k, b + j * LANES, b_row, c + j * LANES, c_row, m, depth, add); break;
        switch (columns) { CASE(1) CASE(2) CASE(3) CASE(4) }
#undef CASE
    }
}
static __attribute__((noinline)) void product_set(SIZES) { multiply(a, by_row, by_k, b, b_row, c, c_row, m, n, depth, 0); }
static __attribute__((noinline)) void product_added(SIZES) { multiply(a, by_row, by_k, b, b_row, c, c_row, m, n, depth, 1); }

/* C (m x n) = A B, or C += A B with `add`. */
static inline void product(SIZES, int add) {
    if (add) product_added(a, by_row, by_k, b, b_row, c, c_row, m, n, depth);
    else product_set(a, by_row, by_k, b, b_row, c, c_row, m, n, depth);
}
#undef SIZES

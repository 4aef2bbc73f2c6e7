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

/* How many of those that are left go next, `most` at a time: the last two parts are of even size, for small blocks wait
   for their sums. */
static inline int part(int left, int most) { return left <= most ? left : left < 2 * most ? (left + 1) / 2 : most; }

/* The shapes: a[i * by_row + k * by_k] is A's entry, so a transposed A needs no copy; n in whole registers. */
#define SHAPES long by_row, long by_k, long b_row, REAL *c, long c_row, int depth
#define OPERANDS const REAL *a, const REAL *a_too, const REAL *b, const REAL *b_too
#define ALWAYS static inline __attribute__((always_inline)) void

/* A block of `rows` x `columns` registers of C = or += A B and, with `two`, + A' B'; its sums in registers while k runs. */
ALWAYS block(const int rows, const int columns, const int two, const int add, OPERANDS, SHAPES) {
    V sum[TALLEST][COLUMNS], line[COLUMNS];
    UNROLLED for (int i = 0; i < rows; i++)
        UNROLLED for (int j = 0; j < columns; j++) sum[i][j] = add ? *(const V *)(c + i * c_row + j * LANES) : all(0);
    for (int operands = 0; operands <= two; operands++, a = a_too, b = b_too)
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

ALWAYS strip(const int columns, const int two, const int add, int m, OPERANDS, SHAPES) {
    const int most = TALL(columns);
    for (int i = 0, rows; i < m; i += rows) {
        rows = part(m - i, most);
#define CASE(R) \
    case R: \
        if (R <= most) \
            block(R, columns, two, add, a + i * by_row, two ? a_too + i * by_row : NULL, b, b_too, by_row, by_k, b_row, \
                  c + i * c_row, c_row, depth); \
        break;
        switch (rows) { CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) }
#undef CASE
    }
}

ALWAYS multiply(const int two, const int add, int m, int n, OPERANDS, SHAPES) {
    for (int j = 0, columns; j < n / LANES; j += columns) {
        const long o = j * (long)LANES;
        columns = part(n / LANES - j, COLUMNS);
#define CASE(C) \
    case C: \
        if (C <= COLUMNS) strip(C, two, add, m, a, a_too, b + o, two ? b_too + o : NULL, by_row, by_k, b_row, c + o, c_row, depth); \
        break;
        switch (columns) { CASE(1) CASE(2) CASE(3) CASE(4) }
#undef CASE
    }
}

#define NEVER static __attribute__((noinline)) void
NEVER one_set(int m, int n, OPERANDS, SHAPES) { multiply(0, 0, m, n, a, a_too, b, b_too, by_row, by_k, b_row, c, c_row, depth); }
NEVER one_added(int m, int n, OPERANDS, SHAPES) { multiply(0, 1, m, n, a, a_too, b, b_too, by_row, by_k, b_row, c, c_row, depth); }
NEVER two_set(int m, int n, OPERANDS, SHAPES) { multiply(1, 0, m, n, a, a_too, b, b_too, by_row, by_k, b_row, c, c_row, depth); }
NEVER two_added(int m, int n, OPERANDS, SHAPES) { multiply(1, 1, m, n, a, a_too, b, b_too, by_row, by_k, b_row, c, c_row, depth); }
#undef SHAPES
#undef OPERANDS
#undef ALWAYS
#undef NEVER

/* C (m x n) = A B, or C += A B with `add`. */
static inline void product(const REAL *a, long by_row, long by_k, const REAL *b, long b_row, REAL *c, long c_row, int m, int n,
                           int depth, int add) {
    (add ? one_added : one_set)(m, n, a, NULL, b, NULL, by_row, by_k, b_row, c, c_row, depth);
}

/* C (m x n) = A B + A' B', or C += it with `add`: one pass over C. */
static inline void two_products(const REAL *a, const REAL *a_too, long by_row, long by_k, const REAL *b, const REAL *b_too,
                                long b_row, REAL *c, long c_row, int m, int n, int depth, int add) {
    (add ? two_added : two_set)(m, n, a, a_too, b, b_too, by_row, by_k, b_row, c, c_row, depth);
}

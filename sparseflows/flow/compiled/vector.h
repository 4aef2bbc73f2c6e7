/* Vectors of one register, and the activations on them. REAL is float or double, given by the compiler's -D. */
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
#define REGISTER 64 /* bytes */
#elif defined(__AVX__)
#define REGISTER 32
#else
#define REGISTER 16
#endif

#ifdef DOUBLE
typedef double REAL;
typedef int64_t WHOLE;
#define SQRT sqrt
#define EXPONENT_BITS 52
#define EXPONENT_BIAS 1023
#define LOWEST -700.0
#define HIGHEST 700.0
#define EXP_TERMS 13   /* of Taylor's series for |r| <= ln(2)/2: the next one is below 1e-17 */
#define ATANH_TERMS 18 /* of s^2 <= 1/9 */
#else
typedef float REAL;
typedef int32_t WHOLE;
#define SQRT sqrtf
#define EXPONENT_BITS 23
#define EXPONENT_BIAS 127
#define LOWEST -86.0f
#define HIGHEST 86.0f
#define EXP_TERMS 7
#define ATANH_TERMS 8
#endif

#define LANES ((int)(REGISTER / sizeof(REAL)))
typedef REAL V __attribute__((vector_size(REGISTER), may_alias));
typedef WHOLE I __attribute__((vector_size(REGISTER), may_alias));

/* value - 0, which compilers drop; 0 + value they may not, for -0. */
static inline V all(REAL value) { return value - (V){0}; }

/* where ? a : b, by bits: `where` is all ones or all zeros in a lane, as comparisons give. */
static inline V choose(I where, V a, V b) { return (V)(((I)a & where) | ((I)b & ~where)); }

/* e^x: x = n ln 2 + r, the series for e^r, then n into the exponent. NaN stays NaN. */
static inline V vexp(V x) {
    x = choose(x < all((REAL)LOWEST), all((REAL)LOWEST), x);
    x = choose(x > all((REAL)HIGHEST), all((REAL)HIGHEST), x);
    /* Adding 1.5 * 2^mantissa rounds to the nearest whole number. */
    const REAL shift = (REAL)1.5 * (REAL)((WHOLE)1 << EXPONENT_BITS);
    V n = (x * (REAL)1.4426950408889634) + shift;
    I whole = (I)n - (I)all(shift);
    n = n - shift;
#ifdef DOUBLE
    V r = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
#else
    V r = (x - n * 6.93359375e-01f) - n * -2.12194440e-4f;
#endif
    V sum = all(1);
    for (int k = EXP_TERMS; k > 0; k--) sum = sum * r * ((REAL)1 / k) + (REAL)1;
    return sum * (V)((whole + EXPONENT_BIAS) << EXPONENT_BITS);
}

/* log(1 + u) for 0 <= u <= 1, as 2 atanh(u / (2 + u)). */
static inline V vlog1p(V u) {
    V s = u / (u + (REAL)2), square = s * s, sum = all(0);
    for (int k = ATANH_TERMS; k >= 0; k--) sum = sum * square + (REAL)1 / (2 * k + 1);
    return s * sum * (REAL)2;
}

static inline V vsigmoid(V x) { return (REAL)1 / (vexp(-x) + (REAL)1); }

enum { SIGMOID, TANH, SOFTPLUS, RELU, SILU }; /* the order that Python knows */

typedef struct { V y, d, dd; } Sigma; /* a value, its first and its second derivative */

static inline __attribute__((always_inline)) Sigma activate(int kind, V x) {
    const V one = all(1), zero = all(0);
    switch (kind) {
    case SIGMOID: {
        const V y = vsigmoid(x), d = y * (one - y);
        return (Sigma){y, d, d * (one - y - y)};
    }
    case TANH: {
        const V y = one - (REAL)2 / (vexp(x + x) + one), d = one - y * y;
        return (Sigma){y, d, y * d * (REAL)-2};
    }
    case SOFTPLUS: {
        const V u = vexp(choose(x > zero, -x, x)), d = choose(x > zero, one, u) / (one + u);
        return (Sigma){choose(x > zero, x, zero) + vlog1p(u), d, d * (one - d)};
    }
    case RELU: return (Sigma){choose(x < zero, zero, x), choose(x > zero, one, zero), zero};
    default: {
        const V gate = vsigmoid(x), y = x * gate;
        return (Sigma){y, gate + y * (one - gate), gate * (one - gate) * ((REAL)2 + x * (one - gate - gate))};
    }
    }
}

/* Loops over weights, units and rows that are worth more than a handful of torch's own calls; plasticity/native.py
   calls them. Arrays are dense and lie where the addresses say; nothing is allocated, and nothing of Python's is
   touched, so they run beside it.

   Compiled with the order of sums and fused products left to the compiler; NaN and infinity stay what they are. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef _MSC_VER
#define EXPORT __declspec(dllexport)
#define INLINE static __forceinline
#define restrict __restrict
#else
#define EXPORT
#define INLINE static inline __attribute__((always_inline))
#endif

/* One library for all processors of a kind: the best version is chosen when it is loaded. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#define CLONED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONED
#endif

/* A sum or product that is rounded as it stands, and is no part of others. */
#if defined(__clang__)
#if __has_builtin(__arithmetic_fence)
#define ROUNDED(number) __arithmetic_fence(number)
#endif
#elif defined(__GNUC__) && __GNUC__ >= 12
#define ROUNDED(number) __builtin_assoc_barrier(number)
#endif
#ifndef ROUNDED
#define ROUNDED(number) (number)
#endif

#define HALF_LOG_2_PI 0.91893853320467274178
enum { LOSS, CLIPPED, KL, ENTROPY };
/* Of a pass through a network, and of each of its layers: see native_mlp.h. */
enum { ROWS, INPUTS, APART, DEPTH, HEADS, GEMM, LAYERS };
enum { WEIGHT, BIAS, TO_WEIGHT, TO_BIAS, IN, OUT, OUTPUT, SLOPE, BEFORE, IS_TANH, SUMS, COLUMNS };
/* Of a layer whose units are replaced: see native_units.h. */
enum { COUNT, DRAWS, FRESH, HIDDEN, BATCH, UNITS, INCOMING, FAN_IN, UTILITY, MEAN, AGE, REPLACED, CHANGE, PICKED, MEANS };
enum { READERS = MEANS + 1, READER_COUNT, ZEROS, ZERO_COUNT, CORRECTIONS, CORRECTED, DECAY, MATURITY, MOVES };

/* PPO's clipped loss of one row: adds to `numbers`, returns dL/d log pi times the batch's size. */
INLINE double surrogate(double log_prob, double old, double advantage, double clip, double *numbers) {
    const double log_ratio = log_prob - old, ratio = exp(log_ratio), low = 1 - clip, high = 1 + clip;
    const int outside = ratio < low || ratio > high; /* NaN is not, and so is passed on */
    const double free = ratio * advantage, bounded = (outside ? (ratio < low ? low : high) : ratio) * advantage;
    numbers[LOSS] -= free < bounded ? free : bounded;
    numbers[CLIPPED] += fabs(ratio - 1) > clip;
    numbers[KL] += (ratio - 1) - log_ratio;
    return outside && !(free < bounded) ? 0 : -free;
}

/* Tables are of whole numbers; a fraction lies there as its bits. */
INLINE double as_double(int64_t bits) {
    double number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

/* exp to a unit or so in the last place for -30 < x < 30, without a call. */
INLINE float inline_exp(float x) {
    const float power = floorf(x * 1.44269504f + 0.5f);
    const int32_t bits = ((int32_t)power + 127) << 23;
    const float r = x - power * 0.69314718f; /* power is small enough for one constant */
    float e = 1.9875691500e-4f, scale;
    e = e * r + 1.3981999507e-3f;
    e = e * r + 8.3334519073e-3f;
    e = e * r + 4.1665795894e-2f;
    e = e * r + 1.6666665459e-1f;
    e = e * r + 5.0000001201e-1f;
    e = e * r * r + r + 1;
    memcpy(&scale, &bits, sizeof scale);
    return e * scale;
}

/* tanh to a unit in the last place or two (as in Cephes), without a call, so that a loop of it is done at once. */
INLINE float inline_tanh(float x) {
    const float size = fabsf(x), z = size * size, twice = 2 * (size > 10 ? 10 : size);
    float near = -5.70498872745e-3f;
    near = near * z + 2.06390887954e-2f;
    near = near * z - 5.37397155531e-2f;
    near = near * z + 1.33314422036e-1f;
    near = near * z - 3.33332819422e-1f;
    near = near * z * size + size;
    return copysignf(size < 0.625f ? near : 1 - 2 / (inline_exp(twice) + 1), x);
}

/* How this thread rounds, and whether numbers too small for full precision count as zero. */
#if (defined(__x86_64__) || defined(__i386__)) && defined(__GNUC__) && defined(__SSE2__)
INLINE unsigned arithmetic(void) { return __builtin_ia32_stmxcsr(); }
INLINE void set_arithmetic(unsigned how) { __builtin_ia32_ldmxcsr(how); }
enum { TINY_IS_ZERO = 0x8040 };
#else
INLINE unsigned arithmetic(void) { return 0; }
INLINE void set_arithmetic(unsigned how) { (void)how; }
enum { TINY_IS_ZERO = 0 };
#endif

/* Whether the processor is Intel's. */
EXPORT int is_intel(void) {
#if (defined(__x86_64__) || defined(__i386__)) && defined(__GNUC__)
    return !!__builtin_cpu_is("intel");
#else
    return 0;
#endif
}

/* Zeros for some units in an array. entry: where the numbers of unit 0 begin, and how many bytes further on those of
   unit 1; how many numbers each unit has, how many bytes apart, and how many bytes each has, 4 or 8. */
INLINE void set_zero(const int64_t *entry, const int64_t *units, int64_t count) {
    for (int64_t k = 0; k < count; k++) {
        char *at = (char *)entry[0] + units[k] * entry[1];
        for (int64_t i = 0; i < entry[2]; i++, at += entry[3])
            if (entry[4] == 8) *(int64_t *)at = 0;
            else *(int32_t *)at = 0;
    }
}

#include "native_threads.h"

#define REAL float
#define LANES 16 /* of the widest vectors there are */
#define NAME(name) name##_float32
#define ABS fabsf
#define SQRT sqrtf
#define TANH inline_tanh
#define EXP inline_exp
#include "native.h"
#include "native_mlp.h"
#include "native_sac.h"
#include "native_units.h"
#undef REAL
#undef LANES
#undef NAME
#undef ABS
#undef SQRT
#undef TANH
#undef EXP

#define REAL double
#define LANES 8
#define NAME(name) name##_float64
#define ABS fabs
#define SQRT sqrt
#define TANH tanh
#define EXP exp
#include "native.h"
#include "native_mlp.h"
#include "native_sac.h"
#include "native_units.h"

#include "native_steps.h"

/* What import would call; this is a plain library, opened by its path. */
EXPORT void *PyInit__native(void) { return 0; }

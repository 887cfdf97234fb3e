/* Loops over weights, units and rows that are worth more than a handful of torch's own calls; plasticity/native.py
   calls them. Arrays are dense and lie where the addresses say; nothing is allocated, and nothing of Python's is
   touched, so they run beside it.

   Compiled with the order of sums and fused products left to the compiler; NaN and infinity stay what they are. */

#include <math.h>
#include <stdint.h>

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

#define HALF_LOG_2_PI 0.91893853320467274178
enum { LOSS, CLIPPED, KL, ENTROPY };

/* 1 - beta^count: from the table, beyond whose end it is 1 if the last entry is. */
INLINE double correction(double beta, int64_t count, const double *table, int64_t size) {
    if (count < size) return table[count];
    return table[size - 1] == 1 ? 1 : 1 - pow(beta, (double)count);
}

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

#define REAL float
#define NAME(name) name##_float32
#define ABS fabsf
#define SQRT sqrtf
#include "native.h"
#include "native_sac.h"
#undef REAL
#undef NAME
#undef ABS
#undef SQRT

#define REAL double
#define NAME(name) name##_float64
#define ABS fabs
#define SQRT sqrt
#include "native.h"
#include "native_sac.h"

/* What import would call; this is a plain library, opened by its path. */
EXPORT void *PyInit__native(void) { return 0; }

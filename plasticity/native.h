/* The loops of native.c for one floating type: REAL, and NAME to tell its functions apart. */

/* Sums of columns first, first + 1, ..., added to `into`; four rows at a time, so that sums are seldom loaded. */
INLINE void NAME(sum_columns)(const REAL *values, int64_t rows, int64_t width, REAL *restrict into, int64_t units,
                              int absolute) {
    int64_t row = 0;
    for (; row + 4 <= rows; row += 4) {
        const REAL *restrict a = values + row * width, *restrict b = a + width;
        const REAL *restrict c = b + width, *restrict d = c + width;
        if (absolute)
            for (int64_t i = 0; i < units; i++) into[i] += (ABS(a[i]) + ABS(b[i])) + (ABS(c[i]) + ABS(d[i]));
        else
            for (int64_t i = 0; i < units; i++) into[i] += (a[i] + b[i]) + (c[i] + d[i]);
    }
    for (; row < rows; row++) {
        const REAL *restrict a = values + row * width;
        for (int64_t i = 0; i < units; i++) into[i] += absolute ? ABS(a[i]) : a[i];
    }
}

/* -- Adam ---------------------------------------------------------------------------------------------------------- */

/* For each count the length of a step, lr / (1 - beta1^count), and the scale of its denominator. */
INLINE void NAME(correct)(const int64_t *counts, int64_t size, const double *n, const double *first, int64_t firsts,
                          const double *second, int64_t seconds, REAL *length, REAL *scale) {
    for (int64_t k = 0; k < size; k++) {
        length[k] = (REAL)(n[0] / correction(n[1], counts[k], first, firsts));
        scale[k] = (REAL)(1.0 / sqrt(correction(n[2], counts[k], second, seconds)));
    }
}

/* A row of a parameter that is counted by unit. */
INLINE void NAME(adam_row)(REAL *restrict p, const REAL *restrict g, REAL *restrict m, REAL *restrict v, int64_t size,
                           REAL own_length, REAL own_scale, const REAL *restrict lengths, const REAL *restrict scales,
                           REAL decay, REAL keep, REAL new1, REAL new2, REAL eps) {
    for (int64_t i = 0; i < size; i++) {
        const REAL gradient = g[i] + decay * p[i];
        const REAL mean = m[i] + (gradient - m[i]) * new1, square = keep * v[i] + new2 * gradient * gradient;
        /* the smaller count decides, and it has the smaller correction */
        const REAL length = own_length > lengths[i] ? own_length : lengths[i];
        const REAL scale = own_scale > scales[i] ? own_scale : scales[i];
        m[i] = mean;
        v[i] = square;
        p[i] -= length * mean / (SQRT(square) * scale + eps);
    }
}

/* table: for each parameter its address, and those of gradient, mean and square; rows, columns; the addresses of its
   count, and of the counts of its rows and of its columns, or 0. n: lr, beta1, beta2, eps, decay. */
CLONED EXPORT void NAME(adam)(const int64_t *table, int64_t parameters, const double *n, const double *first,
                              int64_t firsts, const double *second, int64_t seconds, REAL *scratch) {
    const REAL decay = (REAL)n[4], keep = (REAL)n[2], new1 = (REAL)(1 - n[1]), new2 = (REAL)(1 - n[2]);
    const REAL eps = (REAL)n[3];
    for (const int64_t *t = table; t < table + 9 * parameters; t += 9) {
        REAL *restrict p = (REAL *)t[0], *restrict m = (REAL *)t[2], *restrict v = (REAL *)t[3];
        const REAL *restrict g = (const REAL *)t[1];
        const int64_t rows = t[4], columns = t[5];
        double *step = (double *)t[6];
        *step += 1;
        if (!t[7]) { /* one count for all */
            int64_t count = (int64_t)*step;
            REAL length, scale;
            NAME(correct)(&count, 1, n, first, firsts, second, seconds, &length, &scale);
            for (int64_t i = 0; i < rows * columns; i++) {
                const REAL gradient = g[i] + decay * p[i];
                const REAL mean = m[i] + (gradient - m[i]) * new1, square = keep * v[i] + new2 * gradient * gradient;
                m[i] = mean;
                v[i] = square;
                p[i] -= length * mean / (SQRT(square) * scale + eps);
            }
            continue;
        }
        REAL *row_length = scratch, *row_scale = row_length + rows;
        REAL *restrict column_length = row_scale + rows, *restrict column_scale = column_length + columns;
        int64_t *counts = (int64_t *)t[7];
        for (int64_t j = 0; j < rows; j++) counts[j]++;
        NAME(correct)(counts, rows, n, first, firsts, second, seconds, row_length, row_scale);
        for (int64_t i = 0; i < columns; i++) column_length[i] = column_scale[i] = 0;
        if ((counts = (int64_t *)t[8])) {
            for (int64_t i = 0; i < columns; i++) counts[i]++;
            NAME(correct)(counts, columns, n, first, firsts, second, seconds, column_length, column_scale);
        }
        for (int64_t j = 0; j < rows; j++) {
            const int64_t at = j * columns;
            NAME(adam_row)(p + at, g + at, m + at, v + at, columns, row_length[j], row_scale[j], column_length,
                           column_scale, decay, keep, new1, new2, eps);
        }
    }
}

/* -- continual backprop -------------------------------------------------------------------------------------------- */

/* table: for each layer the address of its activations, their rows, units; the addresses of age, mean activation,
   utility and budget; its first reader and how many. readers: weight, outputs, inputs, first column. counts: how many
   units each layer is to replace. */
CLONED EXPORT void NAME(contribution)(const int64_t *table, int64_t layers, const int64_t *readers, double decay,
                                      int64_t maturity, int64_t numerator, int64_t denominator, int64_t *counts,
                                      REAL *scratch) {
    const REAL fresh = (REAL)(1 - decay);
    for (int64_t layer = 0; layer < layers; layer++) {
        const int64_t *t = table + 9 * layer, rows = t[1], units = t[2];
        const REAL *h = (const REAL *)t[0];
        int64_t *restrict age = (int64_t *)t[3], *budget = (int64_t *)t[6], weights = 0, mature = 0;
        REAL *restrict mean = (REAL *)t[4], *restrict utility = (REAL *)t[5];
        REAL *restrict total = scratch, *restrict size = total + units, *restrict outgoing = size + units;
        for (int64_t i = 0; i < 3 * units; i++) scratch[i] = 0;
        NAME(sum_columns)(h, rows, units, total, units, 0);
        NAME(sum_columns)(h, rows, units, size, units, 1);
        for (const int64_t *r = readers + 4 * t[7]; r < readers + 4 * (t[7] + t[8]); r += 4) {
            weights += r[1];
            NAME(sum_columns)((const REAL *)r[0] + r[3], r[1], r[2], outgoing, units, 1);
        }
        const REAL row = (REAL)1 / (REAL)rows, both = row / (REAL)weights;
        for (int64_t i = 0; i < units; i++) {
            mature += ++age[i] > maturity;
            mean[i] += (total[i] * row - mean[i]) * fresh;
            utility[i] += (outgoing[i] * size[i] * both - utility[i]) * fresh;
        }
        *budget += mature * numerator;
        counts[layer] = *budget / denominator;
        *budget -= counts[layer] * denominator;
    }
}

/* -- networks by hand ---------------------------------------------------------------------------------------------- */

/* dL/dx to dL/dz of a layer x = tanh(z) or max(z, 0), in place; and, where there is a bias, its sum over the rows. */
CLONED EXPORT void NAME(through)(REAL *restrict slope, const REAL *restrict hidden, int64_t rows, int64_t units,
                                 int64_t is_tanh, REAL *restrict bias) {
    if (is_tanh)
        for (int64_t i = 0; i < rows * units; i++) slope[i] *= 1 - hidden[i] * hidden[i];
    else
        for (int64_t i = 0; i < rows * units; i++) slope[i] = hidden[i] <= 0 ? 0 : slope[i]; /* NaN passes, as in torch */
    if (bias) {
        for (int64_t i = 0; i < units; i++) bias[i] = 0;
        NAME(sum_columns)(slope, rows, units, bias, units, 0);
    }
}

CLONED EXPORT void NAME(columns)(const REAL *values, int64_t rows, int64_t units, REAL *restrict into) {
    for (int64_t i = 0; i < units; i++) into[i] = 0;
    NAME(sum_columns)(values, rows, units, into, units, 0);
}

/* The sum of all squares. table: address and size of each tensor. */
INLINE double NAME(sum_squares)(const int64_t *table, int64_t tensors) {
    double total = 0;
    for (const int64_t *t = table; t < table + 2 * tensors; t += 2) {
        const REAL *restrict g = (const REAL *)t[0];
        REAL square = 0;
        for (int64_t i = 0; i < t[1]; i++) square += g[i] * g[i];
        total += square;
    }
    return total;
}

CLONED EXPORT double NAME(squares)(const int64_t *table, int64_t tensors) {
    return NAME(sum_squares)(table, tensors);
}

CLONED EXPORT void NAME(clip)(const int64_t *table, int64_t gradients, double max_norm) {
    const double total = NAME(sum_squares)(table, gradients);
    const REAL factor = (REAL)(max_norm / (sqrt(total) + 1e-6));
    if (factor >= 1) return; /* NaN goes on, as in torch */
    for (const int64_t *t = table; t < table + 2 * gradients; t += 2) {
        REAL *restrict g = (REAL *)t[0];
        for (int64_t i = 0; i < t[1]; i++) g[i] *= factor;
    }
}

/* -- PPO's loss: see agents/fast_losses.py ------------------------------------------------------------------------- */

EXPORT void NAME(normalized)(const REAL *values, int64_t rows, REAL *into) {
    double mean = 0, square = 0;
    for (int64_t i = 0; i < rows; i++) mean += values[i];
    mean /= (double)rows;
    for (int64_t i = 0; i < rows; i++) square += (values[i] - mean) * (values[i] - mean);
    const double scale = 1 / (sqrt(square / (double)(rows - 1)) + 1e-8);
    for (int64_t i = 0; i < rows; i++) into[i] = (REAL)((values[i] - mean) * scale);
}

EXPORT void NAME(gaussian)(const REAL *mean, const REAL *log_std, const REAL *actions, const REAL *old,
                           const REAL *advantages, int64_t rows, int64_t size, double clip, double entropy,
                           REAL *to_mean, REAL *to_log_std, double *numbers, double *scratch) {
    double *inverse = scratch, *sums = scratch + size, constant = 0;
    for (int64_t k = 0; k < size; k++) {
        inverse[k] = exp(-2 * (double)log_std[k]);
        constant += log_std[k] + HALF_LOG_2_PI;
        sums[k] = 0;
    }
    numbers[LOSS] = numbers[CLIPPED] = numbers[KL] = 0;
    for (int64_t i = 0; i < rows; i++) {
        const REAL *a = actions + i * size, *m = mean + i * size;
        double log_prob = -constant;
        for (int64_t k = 0; k < size; k++) log_prob -= 0.5 * ((double)a[k] - m[k]) * ((double)a[k] - m[k]) * inverse[k];
        const double slope = surrogate(log_prob, old[i], advantages[i], clip, numbers) / (double)rows;
        for (int64_t k = 0; k < size; k++) {
            const double apart = ((double)a[k] - m[k]) * inverse[k];
            to_mean[i * size + k] = (REAL)(slope * apart);
            sums[k] += slope * (apart * ((double)a[k] - m[k]) - 1);
        }
    }
    for (int64_t k = 0; k < size; k++) to_log_std[k] = (REAL)(sums[k] - entropy);
    for (int k = 0; k < ENTROPY; k++) numbers[k] /= (double)rows;
    numbers[ENTROPY] = -(constant + 0.5 * (double)size);
}

EXPORT void NAME(categorical)(const REAL *logits, const int64_t *actions, const REAL *old, const REAL *advantages,
                              int64_t rows, int64_t size, double clip, double entropy, REAL *to_logits,
                              double *numbers, double *scratch) {
    double *log_p = scratch;
    for (int k = 0; k <= ENTROPY; k++) numbers[k] = 0;
    for (int64_t i = 0; i < rows; i++) {
        const REAL *z = logits + i * size;
        double highest = z[0], total = 0, own = 0;
        for (int64_t j = 1; j < size; j++) highest = z[j] > highest ? z[j] : highest;
        for (int64_t j = 0; j < size; j++) total += exp(z[j] - highest);
        for (int64_t j = 0; j < size; j++) {
            log_p[j] = z[j] - highest - log(total);
            own -= exp(log_p[j]) * log_p[j];
        }
        const double slope = surrogate(log_p[actions[i]], old[i], advantages[i], clip, numbers);
        numbers[ENTROPY] -= own;
        for (int64_t j = 0; j < size; j++) {
            const double p = exp(log_p[j]), chosen = j == actions[i] ? slope : 0;
            to_logits[i * size + j] = (REAL)((chosen - slope * p + entropy * p * (log_p[j] + own)) / (double)rows);
        }
    }
    for (int k = 0; k <= ENTROPY; k++) numbers[k] /= (double)rows;
}

EXPORT double NAME(squared_error)(const REAL *values, const REAL *old, const REAL *returns, int64_t rows, double clip,
                                  double coefficient, REAL *to_values) {
    double loss = 0;
    for (int64_t i = 0; i < rows; i++) {
        const double moved = (double)values[i] - old[i];
        const int outside = fabs(moved) > clip;
        const double error = (outside ? old[i] + (moved > 0 ? clip : -clip) : (double)values[i]) - returns[i];
        loss += error * error;
        to_values[i] = outside ? 0 : (REAL)(coefficient * 2 * error / (double)rows);
    }
    return loss / (double)rows;
}

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

/* What corrects a running mean after so many steps: of a table, whose last number stands for all beyond if it is 1. */
INLINE double NAME(correction)(int64_t count, double beta, const double *table, int64_t size, int root) {
    if (count < size) return table[count];
    if (table[size - 1] == 1) return 1;
    const double found = 1 / (1 - pow(beta, (double)count));
    return root ? sqrt(found) : found;
}

/* For each count, one more than before, the length of a step, lr / (1 - beta1^count), and the scale of its denominator,
   1 / sqrt(1 - beta2^count). common: which of the counts most are. n: lr, beta1, beta2. first, second: tables of those
   factors, the former without lr, by count. */
INLINE void NAME(correct)(int64_t *restrict counts, int64_t size, int64_t common, const double *n, const double *first,
                          int64_t firsts, const double *second, int64_t seconds, REAL *restrict length,
                          REAL *restrict scale) {
    const REAL usual_length = (REAL)(n[0] * NAME(correction)(common, n[1], first, firsts, 0));
    const REAL usual_scale = (REAL)NAME(correction)(common, n[2], second, seconds, 1);
    for (int64_t k = 0; k < size; k++) {
        counts[k]++;
        length[k] = usual_length;
        scale[k] = usual_scale;
    }
    for (int64_t k = 0; k < size; k++) {
        if (counts[k] == common) continue;
        length[k] = (REAL)(n[0] * NAME(correction)(counts[k], n[1], first, firsts, 0));
        scale[k] = (REAL)NAME(correction)(counts[k], n[2], second, seconds, 1);
    }
}

/* Some weights. by_column: each has a length and scale of its own, too; sized: sums grow by each weight's size. Both
   are known where this is called, so that there is a loop for each case. What is left after whole vectors is one more,
   in part: many short rows would take twice as long if it were done number by number. */
INLINE void NAME(adam_some)(REAL *restrict p, const REAL *restrict g, REAL *restrict m, REAL *restrict v, int64_t size,
                            REAL own_length, REAL own_scale, const REAL *restrict lengths, const REAL *restrict scales,
                            REAL *restrict sums, const REAL *n, int by_column, int sized) {
    const REAL decay = n[0], keep = n[1], new1 = n[2], new2 = n[3], eps = n[4];
    const int64_t whole = size - size % LANES, left = size - whole;
#define ADAM_OF(i)                                                                                                     \
    const REAL gradient = g[i] + decay * p[i];                                                                         \
    const REAL mean = m[i] + (gradient - m[i]) * new1, square = keep * v[i] + new2 * gradient * gradient;              \
    /* the smaller count decides, and it has the smaller correction */                                                 \
    const REAL length = by_column && lengths[i] > own_length ? lengths[i] : own_length;                                \
    const REAL scale = by_column && scales[i] > own_scale ? scales[i] : own_scale;                                     \
    const REAL weight = p[i] - length * mean / (SQRT(square) * scale + eps);                                           \
    m[i] = mean;                                                                                                       \
    v[i] = square;                                                                                                     \
    p[i] = weight;                                                                                                     \
    if (sized) sums[i] += ABS(weight);
    for (int64_t i = 0; i < whole; i++) {
        ADAM_OF(i)
    }
    if (!left) return;
    p += whole, g += whole, m += whole, v += whole;
    if (by_column) lengths += whole, scales += whole;
    if (sized) sums += whole;
    for (int64_t i = 0; i < LANES; i++)
        if (i < left) {
            ADAM_OF(i)
        }
#undef ADAM_OF
}

/* t, a parameter: its address, and those of gradient, mean and square; rows, columns; the addresses of its count, of the
   counts of its rows and of its columns, and of where the sums over rows of its weights' sizes go, or 0. task: such
   tables; how many; n: lr, beta1, beta2, eps, decay; for both betas the factors (see `correct`) and how many; scratch. */
CLONED EXPORT void NAME(adam)(const int64_t *task) {
    const int64_t *table = (const int64_t *)task[0], parameters = task[1], firsts = task[4], seconds = task[6];
    const double *n = (const double *)task[2], *first = (const double *)task[3], *second = (const double *)task[5];
    REAL none = 0;
    const REAL numbers[] = {(REAL)n[4], (REAL)n[2], (REAL)(1 - n[1]), (REAL)(1 - n[2]), (REAL)n[3]};
    const unsigned usual = arithmetic(); /* moments of weights without gradients decay to tiny numbers, which are slow */
    set_arithmetic(usual | TINY_IS_ZERO);
#define CORRECT(counts, size, length, scale)                                                                           \
    NAME(correct)(counts, size, count, n, first, firsts, second, seconds, length, scale)
    for (const int64_t *t = table; t < table + 10 * parameters; t += 10) {
        REAL *p = (REAL *)t[0], *m = (REAL *)t[2], *v = (REAL *)t[3], *sums = (REAL *)t[9], longest = 0, largest = 0;
        const REAL *g = (const REAL *)t[1];
        int64_t rows = t[4], columns = t[5], *counts = (int64_t *)t[7], count = (int64_t)++*(double *)t[6];
        const int counted = counts != 0;
        REAL *row_length = (REAL *)task[7], *row_scale = row_length + rows;
        REAL *column_length = row_scale + rows, *column_scale = column_length + columns;
        for (int64_t i = 0; i < columns && sums; i++) sums[i] = 0;
        if (counts) {
            CORRECT(counts, rows, row_length, row_scale);
        } else { /* one count for all */
            int64_t before = count - 1;
            CORRECT(&before, 1, row_length, row_scale);
        }
        if (counts && columns == 1 && !t[8] && !sums) { /* its rows as the columns of a single row: many at once */
            column_length = row_length, column_scale = row_scale, columns = rows, rows = 1;
            row_length = row_scale = &none, longest = 1;
        } else if (counts && (counts = (int64_t *)t[8])) {
            CORRECT(counts, columns, column_length, column_scale);
            for (int64_t i = 0; i < columns; i++) {
                longest = column_length[i] > longest ? column_length[i] : longest;
                largest = column_scale[i] > largest ? column_scale[i] : largest;
            }
        }
        for (int64_t j = 0, run; j < rows; j += run) {
            const REAL length = row_length[counted ? j : 0], scale = row_scale[counted ? j : 0];
            const int by_column = length < longest || scale < largest; /* or no column's count is smaller */
            for (run = 1; !by_column && !sums && j + run < rows; run++) /* rows that are alike are as one */
                if (counted && (row_length[j + run] != length || row_scale[j + run] != scale)) break;
            const int64_t size = run * columns;
#define ADAM(by_column, sized)                                                                                         \
    NAME(adam_some)(p, g, m, v, size, length, scale, column_length, column_scale, sums, numbers, by_column, sized)
            if (by_column && sums) ADAM(1, 1);
            else if (by_column) ADAM(1, 0);
            else if (sums) ADAM(0, 1);
            else ADAM(0, 0);
            p += size, g += size, m += size, v += size;
#undef ADAM
        }
    }
#undef CORRECT
    set_arithmetic(usual);
}

/* -- continual backprop -------------------------------------------------------------------------------------------- */

/* Of each unit the sum of h and of |h| over the rows, one after the other. */
CLONED static void NAME(sum_units)(const REAL *h, int64_t rows, int64_t units, REAL *sums) {
    int negative = 0;
    for (int64_t i = 0; i < 2 * units; i++) sums[i] = 0;
    NAME(sum_columns)(h, rows, units, sums + units, units, 1);
    for (int64_t i = 0; i < rows * units; i++) negative |= h[i] < 0;
    if (!negative)
        for (int64_t i = 0; i < units; i++) sums[i] = sums[units + i];
    else
        NAME(sum_columns)(h, rows, units, sums, units, 0);
}

/* Of a layer; how many units are to be replaced. t: activations or, where their sums are known, 0; rows, units; age,
   mean activation, utility and budget; its readers and how many; the sums, or room for them; room, twice; decay, maturity, the
   replacement rate's numerator and denominator; and where that number goes. readers: weight, outputs, inputs, first
   column, and the sums of its columns' sizes or, where they are not known, 0. */
INLINE int64_t NAME(count_in)(const int64_t *t) {
    const int64_t rows = t[1], units = t[2], *readers = (const int64_t *)t[7], maturity = t[12];
    int64_t *restrict age = (int64_t *)t[3], *budget = (int64_t *)t[6], weights = 0, mature = 0;
    REAL *restrict mean = (REAL *)t[4], *restrict utility = (REAL *)t[5], *restrict outgoing = (REAL *)t[10];
    REAL *spare = outgoing + units;
    const REAL fresh = (REAL)(1 - as_double(t[11]));
    if (t[0]) NAME(sum_units)((const REAL *)t[0], rows, units, (REAL *)t[9]);
    const REAL *restrict total = (const REAL *)t[9], *restrict size = total + units;
    for (int64_t i = 0; i < units; i++) outgoing[i] = 0;
    for (const int64_t *r = readers; r < readers + 5 * t[8]; r += 5) {
        const REAL *own = r[4] ? (const REAL *)r[4] + r[3] : spare;
        weights += r[1];
        for (int64_t i = 0; i < units && !r[4]; i++) spare[i] = 0;
        for (int64_t j = 0; j < r[1] && !r[4]; j++) /* in the order in which Adam sums, so that rounding is the same */
            for (int64_t i = 0; i < units; i++) spare[i] += ABS(((const REAL *)r[0])[j * r[2] + r[3] + i]);
        for (int64_t i = 0; i < units; i++) outgoing[i] += own[i];
    }
    const REAL row = (REAL)1 / (REAL)rows, both = row / (REAL)weights;
    for (int64_t i = 0; i < units; i++) {
        mature += ++age[i] > maturity;
        mean[i] += (total[i] * row - mean[i]) * fresh;
        utility[i] += (outgoing[i] * size[i] * both - utility[i]) * fresh;
    }
    *budget += mature * t[13];
    const int64_t replaced = *budget / t[14] < mature ? *budget / t[14] : mature;
    *budget %= t[14];
    return *(int64_t *)t[15] = replaced;
}

/* task: where it goes how many units of all layers are to be replaced; how many layers, and the table of each. */
CLONED EXPORT void NAME(contributions)(const int64_t *task) {
    int64_t replaced = 0;
    for (int64_t i = 0; i < task[1]; i++) replaced += NAME(count_in)((const int64_t *)task[2 + i]);
    *(int64_t *)task[0] = replaced;
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

/* task: such a table, its length, and where the sum goes. */
CLONED EXPORT void NAME(squares)(const int64_t *task) {
    *(double *)task[2] = NAME(sum_squares)((const int64_t *)task[0], task[1]);
}

/* task: such a table, its length, and the address of the factor. */
CLONED EXPORT void NAME(scale)(const int64_t *task) {
    const REAL factor = (REAL) * (const double *)task[2];
    for (const int64_t *t = (const int64_t *)task[0]; t < (const int64_t *)task[0] + 2 * task[1]; t += 2) {
        REAL *restrict g = (REAL *)t[0];
        for (int64_t i = 0; i < t[1]; i++) g[i] *= factor;
    }
}

/* -- rows of any type ---------------------------------------------------------------------------------------------- */

/* task: where rows are, which of them, how many, how many bytes each has, and where they go. */
EXPORT void NAME(gather)(const int64_t *task) {
    const char *from = (const char *)task[0];
    char *into = (char *)task[4];
    const int64_t *which = (const int64_t *)task[1], rows = task[2], size = task[3];
    for (int64_t i = 0; i < rows; i++) memcpy(into + i * size, from + which[i] * size, (size_t)size);
}

/* -- PPO's loss: see agents/fast_losses.py ------------------------------------------------------------------------- */

/* t: values, rows, and where they go. */
EXPORT void NAME(normalized)(const int64_t *t) {
    const REAL *values = (const REAL *)t[0];
    const int64_t rows = t[1];
    REAL *into = (REAL *)t[2];
    double mean = 0, square = 0;
    for (int64_t i = 0; i < rows; i++) mean += values[i];
    mean /= (double)rows;
    for (int64_t i = 0; i < rows; i++) square += (values[i] - mean) * (values[i] - mean);
    const double scale = 1 / (sqrt(square / (double)(rows - 1)) + 1e-8);
    for (int64_t i = 0; i < rows; i++) into[i] = (REAL)((values[i] - mean) * scale);
}

/* t: what the policy puts out, log_std, actions, old log pi, advantages; rows, size; clip and entropy coefficient; dL/d
   of what the policy puts out and of log_std; the numbers, and scratch. */
EXPORT void NAME(gaussian)(const int64_t *t) {
    const REAL *mean = (const REAL *)t[0], *log_std = (const REAL *)t[1], *actions = (const REAL *)t[2];
    const REAL *old = (const REAL *)t[3], *advantages = (const REAL *)t[4];
    const int64_t rows = t[5], size = t[6];
    const double clip = as_double(t[7]), entropy = as_double(t[8]);
    REAL *to_mean = (REAL *)t[9], *to_log_std = (REAL *)t[10];
    double *numbers = (double *)t[11], *scratch = (double *)t[12];
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

/* The same, without log_std. */
EXPORT void NAME(categorical)(const int64_t *t) {
    const REAL *logits = (const REAL *)t[0], *old = (const REAL *)t[3], *advantages = (const REAL *)t[4];
    const int64_t *actions = (const int64_t *)t[2], rows = t[5], size = t[6];
    const double clip = as_double(t[7]), entropy = as_double(t[8]);
    REAL *to_logits = (REAL *)t[9];
    double *numbers = (double *)t[11], *scratch = (double *)t[12];
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

/* t: values, old values, returns; rows; clip and coefficient; dL/d values, and where the loss goes. */
EXPORT void NAME(squared_error)(const int64_t *t) {
    const REAL *values = (const REAL *)t[0], *old = (const REAL *)t[1], *returns = (const REAL *)t[2];
    const int64_t rows = t[3];
    const double clip = as_double(t[4]), coefficient = as_double(t[5]);
    REAL *to_values = (REAL *)t[6];
    double loss = 0;
    for (int64_t i = 0; i < rows; i++) {
        const double moved = (double)values[i] - old[i];
        const int outside = fabs(moved) > clip;
        const double error = (outside ? old[i] + (moved > 0 ? clip : -clip) : (double)values[i]) - returns[i];
        loss += error * error;
        to_values[i] = outside ? 0 : (REAL)(coefficient * 2 * error / (double)rows);
    }
    *(double *)t[7] = loss / (double)rows;
}

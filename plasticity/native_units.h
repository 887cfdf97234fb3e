/* Units that begin anew, for one floating type: plasticity/fused_replacement.py has the tables. */

/* 1 / (1 - decay^age) of a unit. */
INLINE double NAME(unbiased)(const int64_t *l, int64_t unit) {
    const int64_t age = ((const int64_t *)l[AGE])[unit];
    return NAME(correction)(age, as_double(l[DECAY]), (const double *)l[CORRECTIONS], l[CORRECTED], 0);
}

/* The numbers, rising, of so many of the mature units as are to be replaced: those of least corrected utility, and of
   those alike the one whose draw is lower. What they put out on average, or 0 where that is not to move. */
static void NAME(pick)(const int64_t *l, double *worth) {
    const REAL *utility = (const REAL *)l[UTILITY], *mean = (const REAL *)l[MEAN];
    const float *draws = (const float *)l[DRAWS];
    const int64_t *age = (const int64_t *)l[AGE], units = l[UNITS];
    int64_t *picked = (int64_t *)l[PICKED];
    REAL *means = (REAL *)l[MEANS];
    for (int64_t i = 0; i < units; i++) {
        worth[i] = age[i] > l[MATURITY] ? utility[i] * NAME(unbiased)(l, i) : -INFINITY; /* not to be had */
        if (worth[i] != worth[i]) worth[i] = INFINITY;
    }
    for (int64_t k = 0; k < l[COUNT]; k++) {
        int64_t best = -1, at = k;
        for (int64_t i = 0; i < units; i++)
            if (worth[i] != -INFINITY &&
                (best < 0 || worth[i] < worth[best] || (worth[i] == worth[best] && draws[i] < draws[best])))
                best = i;
        worth[best] = -INFINITY;
        for (; at > 0 && picked[at - 1] > best; at--) picked[at] = picked[at - 1];
        picked[at] = best;
    }
    for (int64_t k = 0; k < l[COUNT]; k++)
        means[k] = l[MOVES] ? (REAL)(mean[picked[k]] * NAME(unbiased)(l, picked[k])) : 0;
}

/* Adds what the picked units put out on average to the bias of a reader, if that takes it; returns the mean of the
   absolute change of its outputs over the recorded batch. */
CLONED static double NAME(transfer)(const int64_t *l, const int64_t *reader, REAL *lost) {
    const int64_t *picked = (const int64_t *)l[PICKED], count = l[COUNT], rows = l[BATCH], units = l[UNITS];
    const int64_t outputs = reader[1], apart = reader[2], moves = reader[4] != 0;
    const REAL *means = (const REAL *)l[MEANS], *hidden = (const REAL *)l[HIDDEN];
    REAL *bias = (REAL *)reader[4];
    double change = 0;
    for (int64_t k = 0; k < count; k++)
        for (int64_t i = 0; i < rows; i++)
            lost[k * rows + i] = hidden[i * units + picked[k]] - (moves ? means[k] : 0);
    for (int64_t j = 0; j < outputs; j++) {
        const REAL *w = (const REAL *)reader[0] + j * apart + reader[3];
        REAL moved = 0, total = 0;
        for (int64_t k = 0; k < count && moves; k++) moved += w[picked[k]] * means[k];
        if (moves) bias[j] += moved;
        for (int64_t i = 0; i < rows; i++) {
            REAL one = 0;
            for (int64_t k = 0; k < count; k++) one += lost[k * rows + i] * w[picked[k]];
            total += ABS(one);
        }
        change += total;
    }
    return change / (double)(rows * outputs);
}

/* task: scratch; how many layers, and the table of each. All transfers come first, then all fresh rows, then all
   zeros. */
CLONED EXPORT void NAME(replace)(const int64_t *task) {
    const int64_t *tables = task + 2, layers = task[1];
    for (int64_t i = 0; i < layers; i++) {
        const int64_t *l = (const int64_t *)tables[i], *readers = (const int64_t *)l[READERS];
        double change = 0;
        NAME(pick)(l, (double *)task[0]);
        for (int64_t r = 0; r < l[READER_COUNT]; r++) change += NAME(transfer)(l, readers + 5 * r, (REAL *)task[0]);
        *(double *)l[CHANGE] = change / (double)l[READER_COUNT];
        *(int64_t *)l[REPLACED] += l[COUNT];
    }
    for (int64_t i = 0; i < layers; i++) {
        const int64_t *l = (const int64_t *)tables[i], inputs = l[FAN_IN];
        for (int64_t k = 0; k < l[COUNT]; k++)
            memcpy((REAL *)l[INCOMING] + ((const int64_t *)l[PICKED])[k] * inputs, (const REAL *)l[FRESH] + k * inputs,
                   (size_t)inputs * sizeof(REAL));
    }
    for (int64_t i = 0; i < layers; i++) {
        const int64_t *l = (const int64_t *)tables[i], *zeros = (const int64_t *)l[ZEROS];
        for (const int64_t *z = zeros; z < zeros + 5 * l[ZERO_COUNT]; z += 5)
            set_zero(z, (const int64_t *)l[PICKED], l[COUNT]);
    }
}

/* Units that begin anew, for one floating type: plasticity/fused_replacement.py has the tables. */

/* Adds what the picked units put out on average to the bias of a reader, if `moves`; returns the mean of the absolute
   change of its outputs over the recorded batch. */
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

/* task: a table of layers, how many, and scratch. All transfers come first, then all fresh rows, then all zeros. */
CLONED EXPORT void NAME(replace)(const int64_t *task) {
    const int64_t *layers = (const int64_t *)task[0], *end = layers + REPLACED * task[1];
    for (const int64_t *l = layers; l < end; l += REPLACED) {
        double change = 0;
        const int64_t *readers = (const int64_t *)l[READERS];
        for (int64_t r = 0; r < l[READER_COUNT]; r++) change += NAME(transfer)(l, readers + 5 * r, (REAL *)task[2]);
        *(double *)l[CHANGE] = change / (double)l[READER_COUNT];
    }
    for (const int64_t *l = layers; l < end; l += REPLACED)
        for (int64_t k = 0; k < l[COUNT]; k++) {
            const int64_t inputs = l[FAN_IN];
            REAL *restrict row = (REAL *)l[INCOMING] + ((const int64_t *)l[PICKED])[k] * inputs;
            const REAL *restrict fresh = (const REAL *)l[FRESH] + k * inputs;
            for (int64_t i = 0; i < inputs; i++) row[i] = fresh[i];
        }
    for (const int64_t *l = layers; l < end; l += REPLACED)
        for (const int64_t *z = (const int64_t *)l[ZEROS]; z < (const int64_t *)l[ZEROS] + 5 * l[ZERO_COUNT]; z += 5)
            set_zero(z, (const int64_t *)l[PICKED], l[COUNT]);
}

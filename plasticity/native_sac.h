/* SAC's gradient step for one floating type: see agents/fast_sac_losses.py. */

/* Actions a = tanh(z), z = mean + std noise, and log pi(a). t: mean, log_std and noise; rows, size; the range log_std is
   kept in, and epsilon; where std, z, a, 1 - a^2 + epsilon and log pi(a) go. */
CLONED EXPORT void NAME(squash_noise)(const int64_t *t) {
    const REAL *restrict mean = (const REAL *)t[0], *restrict log_std = (const REAL *)t[1];
    const REAL *restrict noise = (const REAL *)t[2], low = (REAL)as_double(t[5]), high = (REAL)as_double(t[6]);
    const REAL epsilon = (REAL)as_double(t[7]);
    const int64_t rows = t[3], size = t[4];
    REAL *restrict std = (REAL *)t[8], *restrict z = (REAL *)t[9], *restrict action = (REAL *)t[10];
    REAL *restrict room = (REAL *)t[11], *restrict log_prob = (REAL *)t[12];
    for (int64_t i = 0; i < rows * size; i++) {
        const REAL kept = log_std[i] < low ? low : log_std[i] > high ? high : log_std[i];
        std[i] = EXP(kept);
        z[i] = mean[i] + noise[i] * std[i];
        action[i] = TANH(z[i]);
        room[i] = ROUNDED(1 - ROUNDED(action[i] * action[i])) + epsilon; /* SB3's: next to 1 that is all there is */
    }
    for (int64_t i = 0; i < rows; i++, mean += size, log_std += size, std += size, z += size, room += size) {
        double total = -HALF_LOG_2_PI * (double)size;
        for (int64_t first = 0; first < size; first += 32) { /* the product of 32 is far from the smallest number */
            const int64_t last = first + 32 < size ? first + 32 : size;
            double product = 1;
            for (int64_t k = first; k < last; k++) {
                const REAL kept = log_std[k] < low ? low : log_std[k] > high ? high : log_std[k];
                const REAL apart = (z[k] - mean[k]) / std[k];
                product *= room[k];
                total -= 0.5 * (double)apart * (double)apart + (double)kept;
            }
            total -= log(product);
        }
        log_prob[i] = (REAL)total;
    }
}

/* dL/d mean and dL/d log_std; raw: log_std as it was before it was kept in its range. */
CLONED EXPORT void NAME(squashed_slopes)(const REAL *restrict raw, const REAL *restrict std,
                                         const REAL *restrict noise, const REAL *restrict action,
                                         const REAL *restrict room, const REAL *restrict to_action,
                                         int64_t numbers, double weight, double lowest, double highest,
                                         REAL *restrict to_mean, REAL *restrict to_log_std) {
    const REAL each = (REAL)weight, low = (REAL)lowest, high = (REAL)highest;
    for (int64_t i = 0; i < numbers; i++) {
        const REAL slope = 1 - action[i] * action[i];
        const REAL to_z = slope * (to_action[i] + each * 2 * action[i] / room[i]);
        const REAL free = to_z * std[i] * noise[i] - each;
        to_mean[i] = to_z;
        to_log_std[i] = raw[i] >= low && raw[i] <= high ? free : 0;
    }
}

/* The smallest of several critics' values of row i, and whose it is: the first of those that are equal, or NaN. */
INLINE REAL NAME(smallest)(const int64_t *values, int64_t critics, int64_t i, int64_t *whose) {
    REAL least = ((const REAL *)values[0])[i];
    *whose = 0;
    for (int64_t k = 1; k < critics && least == least; k++) {
        const REAL value = ((const REAL *)values[k])[i];
        if (!(value >= least)) {
            least = value;
            *whose = k;
        }
    }
    return least;
}

/* The critics' loss, half the sum of their mean squared errors. targets, values, slopes: for each critic the address of
   what its target and itself put out, and of dL/d values. discounts: of each row, or 0 where `discount` is of all. */
EXPORT double NAME(bellman)(const int64_t *targets, const int64_t *values, const int64_t *slopes, int64_t critics,
                            const REAL *rewards, const REAL *dones, const REAL *discounts, const REAL *log_prob,
                            int64_t rows, double discount, double temperature) {
    double loss = 0;
    for (int64_t i = 0; i < rows; i++) {
        int64_t whose;
        const double next = NAME(smallest)(targets, critics, i, &whose) - temperature * log_prob[i];
        const REAL goal = (REAL)(rewards[i] + (1 - dones[i]) * (discounts ? discounts[i] : discount) * next);
        for (int64_t k = 0; k < critics; k++) {
            const REAL error = ((const REAL *)values[k])[i] - goal;
            loss += (double)error * error;
            ((REAL *)slopes[k])[i] = error / (REAL)rows;
        }
    }
    return 0.5 * loss / (double)rows;
}

/* The actor's loss. chosen: for each critic room for the rows whose value it says, in order; counts: how many. */
EXPORT double NAME(actor_loss)(const int64_t *values, int64_t critics, const REAL *log_prob, int64_t rows,
                               double temperature, int64_t *chosen, int64_t *counts) {
    double loss = 0;
    for (int64_t k = 0; k < critics; k++) counts[k] = 0;
    for (int64_t i = 0; i < rows; i++) {
        int64_t whose;
        loss += temperature * log_prob[i] - NAME(smallest)(values, critics, i, &whose);
        chosen[whose * rows + counts[whose]++] = i;
    }
    return loss / (double)rows;
}

/* Moves targets towards what they follow. task: a table, its length, and the share that they take; in the table for
   each tensor its address, that of what it follows, its size. */
CLONED EXPORT void NAME(polyak)(const int64_t *task) {
    const double tau = as_double(task[2]);
    const REAL keep = (REAL)(1 - tau), step = (REAL)tau;
    for (const int64_t *t = (const int64_t *)task[0]; t < (const int64_t *)task[0] + 3 * task[1]; t += 3) {
        REAL *restrict target = (REAL *)t[0];
        const REAL *restrict source = (const REAL *)t[1];
        for (int64_t i = 0; i < t[2]; i++) target[i] = target[i] * keep + source[i] * step;
    }
}

/* A part of a batch out of a replay buffer. t: addresses of observations, next observations, actions, rewards, dones and
   timeouts; which rows of these; of those the first and the last; how many numbers observations and actions have; how
   many rows a batch has; and where they go: of pairs, whose rows begin with the observations and, a batch's rows further
   on, with the next ones; of actions, rewards, and dones that are no timeouts. */
CLONED EXPORT void NAME(transitions)(const int64_t *t) {
    const int64_t *from = (const int64_t *)t[0], *picked = (const int64_t *)t[1], *into = (const int64_t *)t[7];
    const int64_t observed = t[4], acted = t[5], rows = t[6], width = observed + acted;
    for (int64_t i = t[2]; i < t[3]; i++) {
        const int64_t row = picked[i];
        const REAL *restrict now = (const REAL *)from[0] + row * observed;
        const REAL *restrict next = (const REAL *)from[1] + row * observed;
        const REAL *restrict action = (const REAL *)from[2] + row * acted;
        REAL *restrict above = (REAL *)into[0] + i * width, *restrict below = above + rows * width;
        for (int64_t k = 0; k < observed; k++) above[k] = now[k];
        for (int64_t k = 0; k < observed; k++) below[k] = next[k];
        for (int64_t k = 0; k < acted; k++) ((REAL *)into[1])[i * acted + k] = action[k];
        ((REAL *)into[2])[i] = ((const REAL *)from[3])[row];
        ((REAL *)into[3])[i] = ((const REAL *)from[4])[row] * (1 - ((const REAL *)from[5])[row]);
    }
}

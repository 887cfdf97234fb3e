/* Gradient steps one after the other, for as long as nobody has to look at them: agents/fast_steps.py.

   Three parts of a step are two lists of tasks each, as `together` takes them: the passes, the scaling of gradients that
   are too long, the optimizer's own; then come tasks of methods, each of whose tables begins with the address of a number
   that is not 0 once Python is needed. What the passes read moves on from one step to the next. */
enum { PASSES, SCALE = 4, STEP = 8, METHODS = 12, METHOD_COUNT, SHIFTS, SHIFT_COUNT, TOLD, TOLD_COUNT, INTO, SQUARES };
enum { FACTOR = SQUARES + 1, MOST_NORM, DIVERGENCE, MOST_DIVERGENCE, ALONE, STEP_ALONE, ENDING };
enum { ALL_TAKEN, OPEN, NEEDED };

static void both(const int64_t *lists, int64_t alone) {
    const int64_t *first = (const int64_t *)lists[0], *second = (const int64_t *)lists[2];
    if (alone) {
        together(0, 0, first, lists[1], 0);
        together(0, 0, second, lists[3], 0);
    } else {
        together(first, lists[1], second, lists[3], 1);
    }
}

/* t: those lists; of methods and how many; shifts, each an address and what is added there, and how many; addresses of
   numbers that are told of each step, how many, and where they go; squares of all gradients, two sums of them; the factor
   that scales them, and their longest norm; the address of the divergence of policies, and its limit; whether one thread
   does all of the passes, and of the optimizer's part; and, written here, why there are no more. OPEN: the last step told
   of was not taken, because its divergence is too large or its gradients are not finite; NEEDED: a method is needed.
   Returns of how many steps it told. */
EXPORT int64_t take_steps(int64_t *t, int64_t times) {
    const int64_t *shifts = (const int64_t *)t[SHIFTS], *told = (const int64_t *)t[TOLD];
    const int64_t *methods = (const int64_t *)t[METHODS];
    const double *squares = (const double *)t[SQUARES];
    double *into = (double *)t[INTO], *factor = (double *)t[FACTOR];
    t[ENDING] = ALL_TAKEN;
    for (int64_t step = 0; step < times; step++) {
        for (int64_t i = 0; i < t[SHIFT_COUNT] && step; i++) *(int64_t *)shifts[2 * i] += shifts[2 * i + 1];
        both(t + PASSES, t[ALONE]);
        for (int64_t i = 0; i < t[TOLD_COUNT]; i++) *into++ = *(const double *)told[i];
        const double total = squares[0] + squares[1], scale = as_double(t[MOST_NORM]) / (sqrt(total) + 1e-6);
        if (*(const double *)t[DIVERGENCE] > as_double(t[MOST_DIVERGENCE]) || !isfinite(total)) {
            t[ENDING] = OPEN;
            return step + 1;
        }
        if (scale < 1) {
            *factor = scale;
            both(t + SCALE, t[ALONE]);
        }
        both(t + STEP, t[STEP_ALONE]);
        run_all(methods, t[METHOD_COUNT]);
        for (int64_t i = 0; i < t[METHOD_COUNT]; i++)
            if (*(const int64_t *)*(const int64_t *)methods[2 * i + 1]) t[ENDING] = NEEDED;
        if (t[ENDING] == NEEDED) return step + 1;
    }
    return times;
}

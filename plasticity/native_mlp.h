/* Multi-layer perceptrons forward and backward for one floating type: agents/fast_mlp.py has the formulas.

   A pass is a table: rows, address of the inputs and how far apart their rows are, hidden layers, heads, the function
   that multiplies matrices on the way forward, or 0 for that of all others; then for each layer, heads last, the columns
   below. A layer's `BEFORE` and `SUMS` may be 0. */

/* BLAS's, whose matrices lie column by column. Some read their sizes as 32 bits, some as 64: where the lower ones come
   first, as on all processors that torch runs on, both find the same number. */
typedef void (*NAME(gemm_t))(const char *, const char *, const int64_t *, const int64_t *, const int64_t *,
                             const REAL *, const REAL *, const int64_t *, const REAL *, const int64_t *, const REAL *,
                             REAL *, const int64_t *);
static NAME(gemm_t) NAME(gemm);

EXPORT void NAME(take_gemm)(const void *address) { NAME(gemm) = (NAME(gemm_t))address; }

/* into (rows, columns) = a b + keep * into; a (rows, inner) and b (inner, columns), or turned in memory. */
INLINE void NAME(product_by)(NAME(gemm_t) gemm, const REAL *a, int64_t a_apart, int a_turned, const REAL *b,
                             int64_t b_apart, int b_turned, REAL keep, REAL *into, int64_t rows, int64_t columns,
                             int64_t inner) {
    const REAL one = 1;
    gemm(b_turned ? "T" : "N", a_turned ? "T" : "N", &columns, &rows, &inner, &one, b, &b_apart, a, &a_apart,
         &keep, into, &columns);
}

INLINE void NAME(product)(const REAL *a, int64_t a_apart, int a_turned, const REAL *b, int64_t b_apart, int b_turned,
                          REAL keep, REAL *into, int64_t rows, int64_t columns, int64_t inner) {
    NAME(product_by)(NAME(gemm), a, a_apart, a_turned, b, b_apart, b_turned, keep, into, rows, columns, inner);
}

CLONED static void NAME(start_with)(const REAL *restrict bias, int64_t rows, int64_t units, REAL *restrict into) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < units; j++) into[i * units + j] = bias[j];
}

CLONED static void NAME(rectify)(REAL *restrict z, int64_t numbers) {
    for (int64_t i = 0; i < numbers; i++) z[i] = z[i] < 0 ? 0 : z[i]; /* NaN passes, as in torch */
}

CLONED static void NAME(squash)(REAL *restrict z, int64_t numbers) {
    for (int64_t i = 0; i < numbers; i++) z[i] = TANH(z[i]);
}

/* The same of x W^T + b, where b has still to be added. */
CLONED static void NAME(add)(REAL *restrict z, const REAL *restrict bias, int64_t rows, int64_t units) {
    for (int64_t row = 0; row < rows; row++, z += units)
        for (int64_t i = 0; i < units; i++) z[i] += bias[i];
}

CLONED static void NAME(add_and_rectify)(REAL *restrict z, const REAL *restrict bias, int64_t rows, int64_t units) {
    for (int64_t row = 0; row < rows; row++, z += units)
        for (int64_t i = 0; i < units; i++) {
            const REAL sum = z[i] + bias[i];
            z[i] = sum < 0 ? 0 : sum;
        }
}

/* And the sums over the rows of what comes of it, as `sum_units` has them. */
CLONED static void NAME(add_rectify_and_sum)(REAL *restrict z, const REAL *restrict bias, int64_t rows, int64_t units,
                                             REAL *restrict sums) {
    REAL *restrict total = sums + units;
    int64_t row = 0;
    for (int64_t i = 0; i < units; i++) total[i] = 0;
    for (; row + 4 <= rows; row += 4) {
        REAL *restrict a = z + row * units, *restrict b = a + units, *restrict c = b + units, *restrict d = c + units;
        for (int64_t i = 0; i < units; i++) {
            const REAL p = a[i] + bias[i], q = b[i] + bias[i], r = c[i] + bias[i], s = d[i] + bias[i];
            a[i] = p < 0 ? 0 : p;
            b[i] = q < 0 ? 0 : q;
            c[i] = r < 0 ? 0 : r;
            d[i] = s < 0 ? 0 : s;
            total[i] += (a[i] + b[i]) + (c[i] + d[i]);
        }
    }
    for (; row < rows; row++) {
        REAL *restrict a = z + row * units;
        for (int64_t i = 0; i < units; i++) {
            const REAL p = a[i] + bias[i];
            total[i] += a[i] = p < 0 ? 0 : p;
        }
    }
    for (int64_t i = 0; i < units; i++) sums[i] = total[i];
}

CLONED EXPORT void NAME(forward)(const int64_t *t) {
    const REAL *x = (const REAL *)t[INPUTS];
    int64_t apart = t[APART];
    const int64_t rows = t[ROWS], *l = t + LAYERS;
    for (int64_t layer = 0; layer < t[DEPTH] + t[HEADS]; layer++, l += COLUMNS) {
        REAL *out = (REAL *)l[OUTPUT];
        const REAL *weight = (const REAL *)l[WEIGHT], *bias = (const REAL *)l[BIAS];
        const int is_head = layer >= t[DEPTH]; /* all heads read the last hidden layer */
        if (t[GEMM]) { /* rounded as torch does: b comes first */
            NAME(start_with)(bias, rows, l[OUT], out);
            NAME(product_by)((NAME(gemm_t))t[GEMM], x, apart, 0, weight, l[IN], 1, 1, out, rows, l[OUT], l[IN]);
            if (is_head) continue;
            if (l[IS_TANH]) NAME(squash)(out, rows * l[OUT]);
            else NAME(rectify)(out, rows * l[OUT]);
        } else {
            NAME(product)(x, apart, 0, weight, l[IN], 1, 0, out, rows, l[OUT], l[IN]);
            if (is_head || l[IS_TANH]) NAME(add)(out, bias, rows, l[OUT]);
            else if (l[SUMS]) NAME(add_rectify_and_sum)(out, bias, rows, l[OUT], (REAL *)l[SUMS]);
            else NAME(add_and_rectify)(out, bias, rows, l[OUT]);
            if (is_head) continue;
            if (l[IS_TANH]) NAME(squash)(out, rows * l[OUT]);
            if (l[SUMS] && l[IS_TANH]) NAME(sum_units)(out, rows, l[OUT], (REAL *)l[SUMS]);
        }
        x = out;
        apart = l[OUT];
    }
}

/* What a hidden layer, or a head, reads. */
INLINE const REAL *NAME(read)(const int64_t *t, int64_t layer, int64_t *apart) {
    const int64_t below = (layer < t[DEPTH] ? layer : t[DEPTH]) - 1, *l = t + LAYERS + COLUMNS * below;
    *apart = below < 0 ? t[APART] : l[OUT];
    return (const REAL *)(below < 0 ? t[INPUTS] : l[OUTPUT]);
}

INLINE void NAME(to_weight)(const int64_t *t, int64_t layer) {
    const int64_t *l = t + LAYERS + COLUMNS * layer;
    const REAL *slope = (const REAL *)l[SLOPE];
    int64_t apart;
    const REAL *x = NAME(read)(t, layer, &apart);
    NAME(product)(slope, l[OUT], 1, x, apart, 0, 0, (REAL *)l[TO_WEIGHT], l[OUT], l[IN], t[ROWS]);
    REAL *restrict bias = (REAL *)l[TO_BIAS];
    for (int64_t i = 0; i < l[OUT]; i++) bias[i] = 0;
    NAME(sum_columns)(slope, t[ROWS], l[OUT], bias, l[OUT], 0);
}

/* dL/dx of what a layer reads, added to what is there if `keep`. */
INLINE void NAME(to_input)(const int64_t *t, int64_t layer, REAL keep, REAL *into) {
    const int64_t *l = t + LAYERS + COLUMNS * layer;
    NAME(product)((const REAL *)l[SLOPE], l[OUT], 0, (const REAL *)l[WEIGHT], l[IN], 0, keep, into, t[ROWS], l[IN],
                  l[OUT]);
}

/* dL/dx of a hidden layer to dL/dz, in place; the former is kept besides where there is room for it. */
INLINE void NAME(through)(const int64_t *t, int64_t layer) {
    const int64_t *l = t + LAYERS + COLUMNS * layer, numbers = t[ROWS] * l[OUT];
    const REAL *restrict h = (const REAL *)l[OUTPUT];
    REAL *restrict slope = (REAL *)l[SLOPE], *restrict before = (REAL *)l[BEFORE];
    if (before)
        for (int64_t i = 0; i < numbers; i++) before[i] = slope[i];
    if (l[IS_TANH])
        for (int64_t i = 0; i < numbers; i++) slope[i] *= 1 - h[i] * h[i];
    else
        for (int64_t i = 0; i < numbers; i++) slope[i] = h[i] <= 0 ? 0 : slope[i]; /* NaN passes, as in torch */
}

/* dL/dz of the last hidden layer, from what the heads were given as theirs. */
CLONED EXPORT void NAME(from_heads)(const int64_t *t) {
    const int64_t last = t[DEPTH] - 1;
    for (int64_t head = 0; head < t[HEADS]; head++)
        NAME(to_input)(t, t[DEPTH] + head, head > 0, (REAL *)t[LAYERS + COLUMNS * last + SLOPE]);
    NAME(through)(t, last);
}

/* After `from_heads`, the gradients of heads and last hidden layer; beside it, on another thread, `backward_below`. */
CLONED EXPORT void NAME(backward_above)(const int64_t *t) {
    for (int64_t layer = t[DEPTH] - 1; layer < t[DEPTH] + t[HEADS]; layer++) NAME(to_weight)(t, layer);
}

/* The gradients of all other layers. */
CLONED EXPORT void NAME(backward_below)(const int64_t *t) {
    for (int64_t layer = t[DEPTH] - 2; layer >= 0; layer--) {
        NAME(to_input)(t, layer + 1, 0, (REAL *)t[LAYERS + COLUMNS * layer + SLOPE]);
        NAME(through)(t, layer);
        NAME(to_weight)(t, layer);
    }
}

EXPORT void NAME(backward)(const int64_t *t) {
    NAME(from_heads)(t);
    NAME(backward_above)(t);
    NAME(backward_below)(t);
}

/* dL/d(inputs) of some rows of a pass with one head of one number, where dL/d(that) is `slope` for each; nobody's
   weights get a gradient. t: the pass; which rows, and how many; the slope; the first column of the inputs that is
   asked for, and where to: whole rows of those columns. */
CLONED EXPORT void NAME(input_gradient)(const int64_t *t) {
    const int64_t *pass = (const int64_t *)t[0], *chosen = (const int64_t *)t[1], rows = *(const int64_t *)t[2];
    const int64_t depth = pass[DEPTH], first = t[4];
    const REAL given = (REAL)as_double(t[3]);
    const int64_t *l = pass + LAYERS + COLUMNS * depth;
    if (!rows) return;
    for (int64_t layer = depth - 1; layer >= 0; layer--) {
        const int64_t *above = l;
        l = pass + LAYERS + COLUMNS * layer;
        REAL *slopes = (REAL *)l[SLOPE];
        if (layer < depth - 1)
            NAME(product)((const REAL *)above[SLOPE], above[OUT], 0, (const REAL *)above[WEIGHT], above[IN], 0, 0,
                          slopes, rows, l[OUT], above[OUT]);
        for (int64_t i = 0; i < rows; i++) {
            REAL *restrict s = slopes + i * l[OUT];
            const REAL *restrict h = (const REAL *)l[OUTPUT] + chosen[i] * l[OUT];
            const REAL *restrict w = (const REAL *)above[WEIGHT];
            if (layer == depth - 1)
                for (int64_t j = 0; j < l[OUT]; j++) s[j] = given * w[j];
            if (l[IS_TANH])
                for (int64_t j = 0; j < l[OUT]; j++) s[j] *= 1 - h[j] * h[j];
            else
                for (int64_t j = 0; j < l[OUT]; j++) s[j] = h[j] <= 0 ? 0 : s[j];
        }
    }
    const int64_t columns = l[IN] - first;
    REAL *compact = (REAL *)t[6], *into = (REAL *)t[5];
    NAME(product)((const REAL *)l[SLOPE], l[OUT], 0, (const REAL *)l[WEIGHT] + first, l[IN], 0, 0, compact, rows,
                  columns, l[OUT]);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++) into[chosen[i] * columns + j] = compact[i * columns + j];
}

/* Reading between pixels, bilinearly. */

FUNCTION int is_inside(int at, int size) { return 0 <= at && at < size; }
FUNCTION int clamped(int at, int size) { return at < 0 ? 0 : at < size ? at : size - 1; }

/* A position between two pixels of a line: the first of them, and how near it is to the second.

   Far outside is just outside, so that no position overflows an int. A NaN lies outside and has the
   nearness NaN, so what is read there is NaN: an overflow shows in the picture, and whoever
   looks for values that are not finite finds it. */
typedef struct {
    int first;
    float part;
} position;

FUNCTION position position_of(float at, int size, int border)
{
    position p;
    /* Comparisons, as fminf and fmaxf would lose a NaN. */
    if (border)
        at = at < 0 ? 0 : at > size - 1 ? (float)(size - 1) : at;
    const float near = fminf(fmaxf(at, -2), (float)size);
    const float low = floorf(near);
    p.first = (int)low;
    p.part = at == at ? near - low : at;
    return p;
}

/* Eight channels of features at a position; pixels outside are zeros. */
FUNCTION void bilinear8(
    const VALUE *x, number row_stride, number column_stride, int height, int width, position row,
    position column, float *sum)
{
    float values[4][8];
    float weights[4];
    /* All four are read before any is used: a read that waits for nothing can overlap others.
       Outside, the nearest pixel is read and its values are blanked. */
    UNROLL for (int k = 0; k < 4; k++) {
        const int y = row.first + (k >> 1), at = column.first + (k & 1);
        const unsigned mask = is_inside(y, height) && is_inside(at, width) ? ~0u : 0u;
        OF(VALUE, load8)(
            x + clamped(y, height) * row_stride + clamped(at, width) * column_stride, mask,
            values[k]);
        weights[k] = (k >> 1 ? row.part : 1 - row.part) * (k & 1 ? column.part : 1 - column.part);
    }
    UNROLL for (int c = 0; c < 8; c++)
        sum[c] = weights[0] * values[0][c] + weights[1] * values[1][c]
               + weights[2] * values[2][c] + weights[3] * values[3][c];
}

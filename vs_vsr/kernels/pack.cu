/* A picture to three planes, clamped to [0, 1]; NaN becomes 0. Threads as in unpack.cu.

   For integers `maximum` is what 1.0 becomes, and `integers` is 1: the product is rounded to the
   nearest, halves to even, as in the core. */

#include "common.h"

FUNCTION int not_finite(float value) { return !(value - value == 0); }

FUNCTION float packed(float value, float maximum, int integers)
{
    const float inside = fminf(fmaxf(value, 0), 1);
    return integers ? rintf(inside * maximum) : inside;
}

KERNEL pack(
    const VALUE *RESTRICT r, const VALUE *RESTRICT g, const VALUE *RESTRICT b,
    PLANE *RESTRICT to_r, PLANE *RESTRICT to_g, PLANE *RESTRICT to_b, int *flag, number height,
    number width, number row, number column, number plane_row, number maximum, number integers,
    number wide)
{
    const int groups = ((int)width + 7) / 8;
    EACH_Z(p, 3) EACH_Y(y, height) EACH_X(i, groups) {
        const VALUE *from = (p == 0 ? r : p == 1 ? g : b) + y * row;
        PLANE *to = (p == 0 ? to_r : p == 1 ? to_g : to_b) + y * plane_row;
        int bad = 0;
        if (wide && 8 * i + 8 <= width) {
            float values[8];
            OF(VALUE, load8)(from + 8 * i, ~0u, values);
            UNROLL for (int k = 0; k < 8; k++) {
                bad |= not_finite(values[k]);
                values[k] = packed(values[k], (float)maximum, (int)integers);
            }
            OF(PLANE, store8)(to + 8 * i, values);
        } else {
            const int step = wide ? 1 : groups;
            int at = wide ? 8 * i : i;
            for (int k = 0; k < 8 && at < width; k++, at += step) {
                const float value = OF(VALUE, load)(from + at * column);
                bad |= not_finite(value);
                OF(PLANE, store)(to + at, packed(value, (float)maximum, (int)integers));
            }
        }
        /* Whoever finds one writes the same 1. */
        if (bad && flag)
            *flag = 1;
    }
}

/* Three planes to one picture of float32, clamped to [0, 1]; NaN becomes 0.

   A thread takes eight values of a row: neighbours where `wide` says that all rows are aligned for
   that, else values that lie `groups` apart, so that neighbouring threads read neighbours. */

#include "common.h"

FUNCTION float unpacked(float value, float scale)
{
    /* fmaxf comes first: it takes the number where the other side is NaN. */
    return fminf(fmaxf(value * scale, 0), 1);
}

KERNEL unpack(
    const PLANE *RESTRICT r, const PLANE *RESTRICT g, const PLANE *RESTRICT b,
    float *RESTRICT out, number height, number width, number plane_row, number out_plane,
    number out_row, number out_column, number maximum, number wide)
{
    const int groups = ((int)width + 7) / 8;
    /* The float32 nearest to 1 / maximum; the core multiplies by it too. */
    const float scale = 1.0f / (float)maximum;
    EACH_Z(p, 3) EACH_Y(y, height) EACH_X(i, groups) {
        const PLANE *from = (p == 0 ? r : p == 1 ? g : b) + y * plane_row;
        float *to = out + p * out_plane + y * out_row;
        if (wide && 8 * i + 8 <= width) {
            float values[8];
            OF(PLANE, load8)(from + 8 * i, ~0u, values);
            UNROLL for (int k = 0; k < 8; k++)
                values[k] = unpacked(values[k], scale);
            float32_store8(to + 8 * i, values);
        } else {
            const int step = wide ? 1 : groups;
            int at = wide ? 8 * i : i;
            for (int k = 0; k < 8 && at < width; k++, at += step)
                to[at * out_column] = unpacked(OF(PLANE, load)(from + at), scale);
        }
    }
}

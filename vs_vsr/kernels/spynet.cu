/* The eight input channels of a level of SPyNet: reference, warped supporting frame, flow.

   A thread makes one pixel of them, all eight. The reference and the supporting frame have the same
   strides. */

#include "common.h"
#include "bilinear.h"

KERNEL spynet(
    const float *RESTRICT reference, const float *RESTRICT supporting, const float *RESTRICT flow,
    VALUE *RESTRICT out, number batch, number height, number width, number x_batch,
    number x_channel, number x_row, number x_column, number flow_batch, number flow_axis,
    number flow_row, number flow_column)
{
    EACH_Z(b, batch) EACH_Y(y, height) EACH_X(at, (int)width) {
        const float *to = flow + b * flow_batch + y * flow_row + at * flow_column;
        const float *here = reference + b * x_batch + y * x_row + at * x_column;
        const float dx = to[0], dy = to[flow_axis];
        const position column = position_of((float)at + dx, (int)width, 1);
        const position row = position_of((float)y + dy, (int)height, 1);
        float values[8];
        UNROLL for (int c = 0; c < 3; c++) {
            values[c] = here[c * x_channel];
            values[c + 3] = 0;
        }
        UNROLL for (int k = 0; k < 4; k++) {
            /* A border reads nothing outside, but the next pixel of the last one has no weight. */
            const int y_k = clamped(row.first + (k >> 1), (int)height);
            const int at_k = clamped(column.first + (k & 1), (int)width);
            const float weight =
                (k >> 1 ? row.part : 1 - row.part) * (k & 1 ? column.part : 1 - column.part);
            const float *from = supporting + b * x_batch + y_k * x_row + at_k * x_column;
            UNROLL for (int c = 0; c < 3; c++)
                values[c + 3] += weight * from[c * x_channel];
        }
        values[6] = dx;
        values[7] = dy;
        OF(VALUE, store8)(out + ((b * height + y) * width + at) * 8, values);
    }
}

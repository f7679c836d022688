/* Features where a flow points. A thread computes eight channels of one pixel. */

#include "common.h"
#include "bilinear.h"

KERNEL warp(
    const VALUE *RESTRICT x, const float *RESTRICT flow, VALUE *RESTRICT out, number batch,
    number height, number width, number channels, number x_batch, number x_row, number x_column,
    number flow_batch, number flow_axis, number flow_row, number flow_column, number border)
{
    const int chunks = (int)channels / 8;
    EACH_Z(b, batch) EACH_Y(y, height) EACH_X(i, (int)width * chunks) {
        const int at = i / chunks, chunk = i % chunks;
        const float *to = flow + b * flow_batch + y * flow_row + at * flow_column;
        const position column = position_of((float)at + to[0], (int)width, (int)border);
        const position row = position_of((float)y + to[flow_axis], (int)height, (int)border);
        float sum[8];
        bilinear8(
            x + b * x_batch + 8 * chunk, x_row, x_column, (int)height, (int)width, row, column,
            sum);
        OF(VALUE, store8)(out + ((b * height + y) * width + at) * channels + 8 * chunk, sum);
    }
}

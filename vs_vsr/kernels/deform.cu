/* What the taps of a deformable convolution read, for rows `first` to `first + rows` of the batch.

   Row r of the batch is row r % height of picture r / height. `out` has 9 * channels columns a
   pixel, ordered by tap, then channel. A thread reads eight channels, all of one group. */

#include "common.h"
#include "bilinear.h"

KERNEL deform(
    const VALUE *RESTRICT x, const float *RESTRICT offsets, const float *RESTRICT masks,
    VALUE *RESTRICT out, number first, number rows, number height, number width, number channels,
    number groups, number x_batch, number x_row, number x_column, number offset_batch,
    number offset_channel, number offset_row, number offset_column, number mask_batch,
    number mask_channel, number mask_row, number mask_column)
{
    const int chunks = (int)channels / 8, chunks_of_group = chunks / (int)groups;
    EACH_Z(r, rows) EACH_Y(tap, 9) EACH_X(i, (int)width * chunks) {
        const int b = ((int)first + r) / (int)height, y = ((int)first + r) % (int)height;
        const int at = i / chunks, chunk = i % chunks;
        const int k = 9 * (chunk / chunks_of_group) + tap;
        const float *offset = offsets + b * offset_batch + 2 * k * offset_channel + y * offset_row
                            + at * offset_column;
        const float mask =
            masks[b * mask_batch + k * mask_channel + y * mask_row + at * mask_column];
        const float to_y = (float)(y + tap / 3 - 1) + offset[0];
        const float to_x = (float)(at + tap % 3 - 1) + offset[offset_channel];
        float sum[8];
        bilinear8(
            x + b * x_batch + 8 * chunk, x_row, x_column, (int)height, (int)width,
            position_of(to_y, (int)height, 0), position_of(to_x, (int)width, 0), sum);
        UNROLL for (int c = 0; c < 8; c++)
            sum[c] *= mask;
        OF(VALUE, store8)(out + ((r * width + at) * 9 + tap) * channels + 8 * chunk, sum);
    }
}

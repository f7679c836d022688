/* The two ends of a filter: the user's clip to RGB, and RGB back to the user's format.
 *
 * The core's resize does the conversions. These nodes tell it each frame's matrix, and make sure that
 * range and chroma location come out as they went in. */
#ifndef VSR_CONVERT_H
#define VSR_CONVERT_H

#include "VapourSynth4.h"

#include <stdint.h>

/* Passes `clip` through: refuses fields, and fills in and remembers the colour properties if the
 * clip will come back from RGB. `matrix` and `hdr_matrix` as in VsrSpec. Takes the reference; NULL without memory. `filter` must be a literal. */
VSNode *convert_in(const char *filter, VSNode *clip, int matrix, int hdr_matrix, int comes_back, VSCore *core,
                   const VSAPI *vsapi);

/* `clip` in another format by resize.Bicubic. Takes the reference; NULL and `error` on failure.
 * matrix, range and chroma are H.273 codes, or -1 to leave them to resize. */
VSNode *convert_to(VSNode *clip, uint32_t format, int matrix, int range, int chroma, VSCore *core,
                   const VSAPI *vsapi, char *error, size_t size);

/* RGB back to `format`, following the properties that convert_in remembered. Takes the reference; NULL
 * without memory. `filter` must be a literal. */
VSNode *convert_back(const char *filter, VSNode *rgb, uint32_t format, VSCore *core, const VSAPI *vsapi);

#endif

/* What all kernels share, in words that NVRTC and a C compiler both take.

   NVRTC compiles these lines for a GPU; the tests compile the same ones with a C compiler, where a
   kernel is a plain function and its threads are loops. No header of CUDA is needed.

   Every argument of a kernel is 8 bytes wide: a pointer, or a `number`. Strides count values. */

typedef long long number;
typedef unsigned char uint8;
typedef unsigned short uint16;
typedef struct { unsigned short bits; } half;
typedef struct { unsigned short bits; } bfloat16;
typedef float float32;

#ifdef __CUDACC__

#define KERNEL extern "C" __global__ void
#define FUNCTION __device__ __forceinline__
#define RESTRICT __restrict__
#define UNROLL _Pragma("unroll")
/* The launch has as many threads as `count` in y and z, and at least as many in x. */
#define EACH_X(i, count) \
    const int i = blockIdx.x * blockDim.x + threadIdx.x; \
    if (i < (count))
#define EACH_Y(i, count) const int i = blockIdx.y;
#define EACH_Z(i, count) const int i = blockIdx.z;

typedef uint4 words;
typedef uint2 two_words;

FUNCTION float as_float(unsigned bits) { return __uint_as_float(bits); }
FUNCTION unsigned as_bits(float value) { return __float_as_uint(value); }

FUNCTION float half_to_float(unsigned bits)
{
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"((unsigned short)bits));
    return value;
}

FUNCTION unsigned half_from_float(float value)
{
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

#else

#include <math.h>
#include <string.h>

#define KERNEL void
#define FUNCTION static inline
#define RESTRICT restrict
#define UNROLL
/* The numbers of threads, which the tests hold against those of the launch. */
number threads[3];
#define EACH(axis, i, count) for (int i = (threads[axis] = (count), 0); i < threads[axis]; i++)
#define EACH_X(i, count) EACH(0, i, count)
#define EACH_Y(i, count) EACH(1, i, count)
#define EACH_Z(i, count) EACH(2, i, count)

typedef struct { _Alignas(16) unsigned x; unsigned y, z, w; } words;
typedef struct { _Alignas(8) unsigned x; unsigned y; } two_words;

FUNCTION float as_float(unsigned bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

FUNCTION unsigned as_bits(float value)
{
    unsigned bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* By integers, as not every C compiler knows the type. */
FUNCTION float half_to_float(unsigned bits)
{
    const unsigned sign = (bits & 0x8000) << 16;
    /* 2^112 takes the exponent of half to that of float, also where it is subnormal. */
    const float size = as_float((bits & 0x7fff) << 13) * 0x1p112f;
    const unsigned special = (bits & 0x7c00) == 0x7c00 ? 0x7f800000 : 0;
    return as_float(as_bits(size) | special | sign);
}

/* To the nearest, halves to even. */
FUNCTION unsigned half_from_float(float value)
{
    const unsigned sign = as_bits(value) >> 16 & 0x8000, bits = as_bits(value) & 0x7fffffff;
    if (bits > 0x7f800000)
        return sign | 0x7e00;
    if (bits >= as_bits(65520))
        return sign | 0x7c00;
    /* The last place of 0.5 is the smallest subnormal half. */
    if (bits < as_bits(0x1p-14f))
        return sign | (as_bits(as_float(bits) + 0.5f) - as_bits(0.5f));
    return sign | (((bits + 0xfff + (bits >> 13 & 1)) >> 13) - (112 << 10));
}

#endif

FUNCTION float bfloat16_to_float(unsigned bits) { return as_float(bits << 16); }

/* To the nearest, halves to even; in integers, as GPUs before sm_80 have no instruction for it. */
FUNCTION unsigned bfloat16_from_float(float value)
{
    const unsigned bits = as_bits(value);
    return value == value ? (bits + 0x7fff + (bits >> 16 & 1)) >> 16 : 0x7fc0;
}

FUNCTION float uint16_to_float(unsigned bits) { return (float)bits; }
FUNCTION unsigned uint16_from_float(float value) { return (unsigned)value; }

/* For each type: one value at any address, and eight at an address that is a multiple of 16 bytes
   (of 8 for uint8). load8 takes a mask: all ones, or 0 to get zeros whatever lies there. */

#define VALUES_OF_16_BITS(type) \
    FUNCTION float type##_load(const type *from) \
    { \
        return type##_to_float(*(const unsigned short *)from); \
    } \
    FUNCTION void type##_store(type *to, float value) \
    { \
        *(unsigned short *)to = (unsigned short)type##_from_float(value); \
    } \
    FUNCTION void type##_load8(const type *from, unsigned mask, float *values) \
    { \
        const words w = *(const words *)from; \
        values[0] = type##_to_float(w.x & mask & 0xffff); \
        values[1] = type##_to_float((w.x & mask) >> 16); \
        values[2] = type##_to_float(w.y & mask & 0xffff); \
        values[3] = type##_to_float((w.y & mask) >> 16); \
        values[4] = type##_to_float(w.z & mask & 0xffff); \
        values[5] = type##_to_float((w.z & mask) >> 16); \
        values[6] = type##_to_float(w.w & mask & 0xffff); \
        values[7] = type##_to_float((w.w & mask) >> 16); \
    } \
    FUNCTION void type##_store8(type *to, const float *values) \
    { \
        words w; \
        w.x = type##_from_float(values[0]) | type##_from_float(values[1]) << 16; \
        w.y = type##_from_float(values[2]) | type##_from_float(values[3]) << 16; \
        w.z = type##_from_float(values[4]) | type##_from_float(values[5]) << 16; \
        w.w = type##_from_float(values[6]) | type##_from_float(values[7]) << 16; \
        *(words *)to = w; \
    }

VALUES_OF_16_BITS(uint16)
VALUES_OF_16_BITS(half)
VALUES_OF_16_BITS(bfloat16)

FUNCTION float uint8_load(const uint8 *from) { return (float)*from; }
FUNCTION void uint8_store(uint8 *to, float value) { *to = (uint8)value; }

FUNCTION void uint8_load8(const uint8 *from, unsigned mask, float *values)
{
    const two_words w = *(const two_words *)from;
    UNROLL for (int k = 0; k < 4; k++) {
        values[k] = (float)((w.x & mask) >> 8 * k & 0xff);
        values[k + 4] = (float)((w.y & mask) >> 8 * k & 0xff);
    }
}

FUNCTION void uint8_store8(uint8 *to, const float *values)
{
    two_words w = {0, 0};
    UNROLL for (int k = 0; k < 4; k++) {
        w.x |= (unsigned)values[k] << 8 * k;
        w.y |= (unsigned)values[k + 4] << 8 * k;
    }
    *(two_words *)to = w;
}

FUNCTION float float32_load(const float32 *from) { return *from; }
FUNCTION void float32_store(float32 *to, float value) { *to = value; }

FUNCTION void float32_load8(const float32 *from, unsigned mask, float *values)
{
    UNROLL for (int k = 0; k < 8; k += 4) {
        const words w = *(const words *)(from + k);
        values[k] = as_float(w.x & mask);
        values[k + 1] = as_float(w.y & mask);
        values[k + 2] = as_float(w.z & mask);
        values[k + 3] = as_float(w.w & mask);
    }
}

FUNCTION void float32_store8(float32 *to, const float *values)
{
    UNROLL for (int k = 0; k < 8; k += 4) {
        words w;
        w.x = as_bits(values[k]);
        w.y = as_bits(values[k + 1]);
        w.z = as_bits(values[k + 2]);
        w.w = as_bits(values[k + 3]);
        *(words *)(to + k) = w;
    }
}

/* The function of this name for the type that a macro stands for: OF(VALUE, load8). */
#define OF(type, name) OF_(type, name)
#define OF_(type, name) type##_##name

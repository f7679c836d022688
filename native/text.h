/* Error texts. VapourSynth decodes them strictly, so they must consist of whole characters. */
#ifndef VSR_TEXT_H
#define VSR_TEXT_H

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* snprintf that leaves out a UTF-8 character which does not fit whole. */
#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
static inline void write_text(char *text, size_t size, const char *format, ...) {
    va_list values;
    va_start(values, format);
    vsnprintf(text, size, format, values);
    va_end(values);
    size_t length = strlen(text), start = length;
    while (start > 0 && length - start < 3 && (text[start - 1] & 0xC0) == 0x80) start--;
    if (start == 0) return;
    unsigned char lead = (unsigned char)text[start - 1];
    size_t following = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : lead >= 0xC0 ? 1 : 0;
    if (length - start < following) text[start - 1] = '\0';
}

#endif

/* Strict numbers from text: the whole text, decimal, finite; no blanks, no hexadecimal, no "inf" or "nan". */
#ifndef CV_BASE_NUMBER_H
#define CV_BASE_NUMBER_H

#include <stdbool.h>
#include <stdint.h>

/* "12", "-1"; false (and *value untouched) when text is anything else or does not fit. */
bool cv_integer_parse(const char *text, int64_t *value);

/* "0.1", "1e-3", "-2"; false (and *value untouched) when text is anything else or not finite. */
bool cv_real_parse(const char *text, double *value);

#endif

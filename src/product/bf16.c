#include "product/bf16.h"

#include "base/order.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 512, LANES = 8 };

void cv_round_to_bf16(int64_t count, const float *restrict x, uint16_t *restrict out) {
  for (int64_t i = 0; i < count; i++) out[i] = cv_round_bf16(x[i]);
}

void cv_widen_from_bf16(int64_t count, const uint16_t *restrict x, float *restrict out) {
  for (int64_t i = 0; i < count; i++) out[i] = cv_widen_bf16(x[i]);
}

/* From the front: what is written lies in what has been read. */
void cv_round_in_place(int64_t count, void *x) {
  char *at = x;
  float wide[BLOCK];
  uint16_t narrow[BLOCK];
  for (int64_t done = 0, now; done < count; done += now) {
    now = cv_smaller(count - done, BLOCK);
    memcpy(wide, at + done * (int64_t)sizeof *wide, (size_t)now * sizeof *wide);
    cv_round_to_bf16(now, wide, narrow);
    memcpy(at + done * (int64_t)sizeof *narrow, narrow, (size_t)now * sizeof *narrow);
  }
}

/* From the back: what is written lies behind what is still to be read. */
void cv_widen_in_place(int64_t count, void *x) {
  char *at = x;
  float wide[BLOCK];
  uint16_t narrow[BLOCK];
  for (int64_t left = count, now; left > 0;) {
    now = cv_smaller(left, BLOCK);
    left -= now;
    memcpy(narrow, at + left * (int64_t)sizeof *narrow, (size_t)now * sizeof *narrow);
    cv_widen_from_bf16(now, narrow, wide);
    memcpy(at + left * (int64_t)sizeof *wide, wide, (size_t)now * sizeof *wide);
  }
}

void cv_round_through_bf16(int64_t count, float *x) {
  for (int64_t i = 0; i < count; i++) x[i] = cv_widen_bf16(cv_round_bf16(x[i]));
}

/* Lanes let the compiler add several squares at once: it may not change the order of a sum. */
void cv_bf16_error_add(int64_t count, const float *x, cv_bf16_error *sum) {
  double changes[LANES] = {0}, numbers[LANES] = {0};
  for (int64_t i = 0; i < count; i += LANES) {
    int lanes = count - i < LANES ? (int)(count - i) : LANES;
    for (int l = 0; l < lanes; l++) {
      double number = (double)x[i + l], change = number - (double)cv_widen_bf16(cv_round_bf16(x[i + l]));
      changes[l] += change * change;
      numbers[l] += number * number;
    }
  }
  for (int l = 0; l < LANES; l++) sum->changes += changes[l], sum->numbers += numbers[l];
}

double cv_bf16_error_of(const cv_bf16_error *sum) {
  return sum->numbers > 0 ? sqrt(sum->changes / sum->numbers) : 0;
}

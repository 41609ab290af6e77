/* Counted memory. */
#include "base/memory.h"

#include "suite.h"

#include <string.h>

START_TEST(test_blocks_are_zero_aligned_and_counted) {
  cv_memory memory = {.n_allocations = 0};
  cv_error err = {.code = CURVD_OK};
  float *x = NULL;
  double *y = NULL;
  ck_assert_int_eq(cv_floats_new(&memory, CV_MEMORY_FACTORS, 1001, "x", &x, &err), CURVD_OK);
  ck_assert_int_eq(cv_doubles_new(&memory, CV_MEMORY_WORKSPACE, 7, "y", &y, &err), CURVD_OK);
  ck_assert_uint_eq((uintptr_t)x % 64, 0);
  ck_assert_uint_eq((uintptr_t)y % 64, 0);
  for (int i = 0; i < 1001; i++) ck_assert(x[i] == 0);
  memset(x, 0xff, 1001 * sizeof *x); /* the whole block is ours: the sanitizer would see an overrun */
  memset(y, 0xff, 7 * sizeof *y);
  ck_assert_int_eq(memory.bytes[CV_MEMORY_FACTORS], 4004);
  ck_assert_int_eq(memory.bytes[CV_MEMORY_WORKSPACE], 56);
  ck_assert_int_eq(memory.peak_bytes, 4060);
  ck_assert_int_eq(memory.n_allocations, 2);
  cv_floats_free(&memory, &x);
  ck_assert_ptr_null(x);
  ck_assert_int_eq(memory.bytes[CV_MEMORY_FACTORS], 0);
  ck_assert_int_eq(memory.bytes[CV_MEMORY_WORKSPACE], 56);
  ck_assert_int_eq(memory.peak_bytes, 4060);
  cv_doubles_free(&memory, &y);
  cv_doubles_free(&memory, &y); /* NULL by now */
  for (int kind = 0; kind < CV_MEMORY_KINDS; kind++) ck_assert_int_eq(memory.bytes[kind], 0);
  ck_assert_int_eq(memory.n_allocations, 2);
}
END_TEST

START_TEST(test_used_memory_comes_back_zeroed) {
  cv_memory memory = {.n_allocations = 0};
  for (int round = 0; round < 4; round++) {
    void *block = NULL;
    ck_assert_int_eq(cv_memory_new(&memory, CV_MEMORY_DATA, 5000, 1, "block", &block, NULL), CURVD_OK);
    const unsigned char *bytes = block;
    for (int i = 0; i < 5000; i++) ck_assert_uint_eq(bytes[i], 0);
    memset(block, 0xa5, 5000);
    cv_memory_free(&memory, &block);
    ck_assert_ptr_null(block);
  }
  ck_assert_int_eq(memory.peak_bytes, 5000);
}
END_TEST

START_TEST(test_nothing_is_one_byte) {
  cv_memory memory = {.n_allocations = 0};
  void *block = NULL;
  ck_assert_int_eq(cv_memory_new(&memory, CV_MEMORY_DATA, 0, 8, "empty", &block, NULL), CURVD_OK);
  ck_assert_ptr_nonnull(block);
  *(char *)block = 1;
  ck_assert_int_eq(memory.bytes[CV_MEMORY_DATA], 1);
  cv_memory_free(&memory, &block);
  cv_memory_free(&memory, &block);
  cv_memory_free(&memory, NULL);
  ck_assert_int_eq(memory.bytes[CV_MEMORY_DATA], 0);
}
END_TEST

static void assert_refused_by(bool is_dry, int64_t count, int64_t size) {
  cv_memory memory = {.is_dry = is_dry};
  cv_error err = {.code = CURVD_OK};
  void *block = &memory;
  ck_assert_int_eq(cv_memory_new(&memory, CV_MEMORY_FACTORS, count, size, "factor A of fc1", &block, &err),
                   CURVD_ERR_MEMORY);
  ck_assert_ptr_eq(block, &memory); /* outputs are set on success only */
  ck_assert_ptr_nonnull(strstr(err.text, "factor A of fc1"));
  ck_assert_int_eq(memory.n_allocations, 0);
  ck_assert_int_eq(memory.peak_bytes, 0);
}

static void assert_refused(int64_t count, int64_t size) {
  assert_refused_by(false, count, size);
  assert_refused_by(true, count, size);
}

START_TEST(test_impossible_sizes_are_refused) {
  assert_refused(INT64_MAX, 1);
  assert_refused(INT64_MAX / 2, 4);
  assert_refused(INT64_MAX / 4 + 1, 4); /* the product is one more than fits */
  assert_refused((int64_t)1 << 62, 8);  /* the product is 0 in 64 bits */
  assert_refused(-1, 4);
  assert_refused(4, -1);
  assert_refused(4, 0);
#ifndef __SANITIZE_ADDRESS__                     /* which ends the process instead of returning NULL */
  assert_refused_by(false, (int64_t)1 << 58, 4); /* fits into 64 bits, not into the machine */
#endif
}
END_TEST

/* A plan of any size on any machine: the numbers of a true one, and nothing made. */
START_TEST(test_dry_memory_is_counted_not_made) {
  const int64_t n = (int64_t)1 << 30;
  cv_memory dry = {.is_dry = true}, wet = {0};
  cv_error err = {.code = CURVD_OK};
  float mark = 0, *x = &mark;
  double *y = NULL;
  void *block = &mark;
  ck_assert_int_eq(cv_floats_new(&dry, CV_MEMORY_FACTORS, n * n / 4, "x", &x, &err), CURVD_OK);
  ck_assert_int_eq(cv_doubles_new(&dry, CV_MEMORY_WORKSPACE, n, "y", &y, &err), CURVD_OK);
  ck_assert_ptr_null(x);
  ck_assert_ptr_null(y);
  ck_assert_int_eq(dry.bytes[CV_MEMORY_FACTORS], n * n);
  ck_assert_int_eq(dry.bytes[CV_MEMORY_WORKSPACE], 8 * n);
  ck_assert_int_eq(dry.peak_bytes, n * n + 8 * n);
  ck_assert_int_eq(dry.n_allocations, 2);
  cv_floats_free(&dry, &x); /* there is nothing to free, and nothing to know its size by */
  cv_doubles_free(&dry, &y);
  ck_assert_int_eq(dry.bytes[CV_MEMORY_FACTORS], n * n);
  ck_assert_int_eq(cv_memory_new(&dry, CV_MEMORY_DATA, 0, 8, "nothing", &block, &err), CURVD_OK);
  ck_assert_ptr_null(block);
  ck_assert_int_eq(cv_memory_new(&wet, CV_MEMORY_DATA, 0, 8, "nothing", &block, &err), CURVD_OK);
  ck_assert_int_eq(dry.bytes[CV_MEMORY_DATA], wet.bytes[CV_MEMORY_DATA]);
  cv_memory_free(&wet, &block);
}
END_TEST

/* Made before the memory went dry: freed and counted as ever. */
START_TEST(test_blocks_outlive_a_change_to_dry) {
  cv_memory memory = {0};
  float *made = NULL, *counted = NULL;
  ck_assert_int_eq(cv_floats_new(&memory, CV_MEMORY_FACTORS, 3, "made", &made, NULL), CURVD_OK);
  memory.is_dry = true;
  ck_assert_int_eq(cv_floats_new(&memory, CV_MEMORY_FACTORS, 5, "counted", &counted, NULL), CURVD_OK);
  cv_floats_free(&memory, &made);
  ck_assert_int_eq(memory.bytes[CV_MEMORY_FACTORS], 20);
  ck_assert_int_eq(memory.peak_bytes, 32);
}
END_TEST

START_TEST(test_kinds_have_names) {
  for (int kind = 0; kind < CV_MEMORY_KINDS; kind++)
    for (int other = 0; other < kind; other++)
      ck_assert_str_ne(cv_memory_kind_name((cv_memory_kind)kind), cv_memory_kind_name((cv_memory_kind)other));
  ck_assert_str_eq(cv_memory_kind_name(CV_MEMORY_MOMENTUM), "momentum");
  ck_assert_str_eq(cv_memory_kind_name(CV_MEMORY_KINDS), "?");
}
END_TEST

int main(void) {
  const TTest *const tests[] = {
      test_blocks_are_zero_aligned_and_counted,
      test_used_memory_comes_back_zeroed,
      test_nothing_is_one_byte,
      test_impossible_sizes_are_refused,
      test_dry_memory_is_counted_not_made,
      test_blocks_outlive_a_change_to_dry,
      test_kinds_have_names,
  };
  return suite_run("memory", tests, sizeof tests / sizeof tests[0], NULL);
}

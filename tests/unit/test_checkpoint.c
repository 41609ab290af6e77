/* Checkpoints of three ranks, read whole and in other parts; and damaged, cut, forged ones. */
#include "save/checkpoint.h"

#include "base/rng.h"
#include "save/manifest.h"
#include "save/safetensors.h"
#include "save_fixture.h"
#include "suite.h"

static void set_up(void) {
  make_folder();
  save_by_three(100);
}

/* ---- reading ---- */

START_TEST(test_whole_arrays) {
  set_up();
  assert_whole(100);
  checkpoint *cp = open_step(100);
  ck_assert_int_eq(checkpoint_count(cp), N_KNOWN);
  for (int64_t i = 1; i < N_KNOWN; i++)
    ck_assert_int_lt(strcmp(checkpoint_at(cp, i - 1).name, checkpoint_at(cp, i).name), 0);
  checkpoint_array found;
  ck_assert(checkpoint_find(cp, "gram", &found));
  ck_assert(found.is_triangle && found.dtype == CURVD_F32 && found.n_rows == 40 && found.n_columns == 40);
  ck_assert(checkpoint_find(cp, "gram_lower", &found));
  ck_assert_str_eq(found.name, "gram");
  ck_assert(!checkpoint_find(cp, "weights_lower", &found) && !checkpoint_find(cp, "weight", &found));
  ck_assert(checkpoint_find(cp, "empty", &found) && found.n_rows == 0 && found.n_columns == 7);
  ck_assert_str_eq(json_string_value(json_object_get(checkpoint_about(cp), "network")), "20-30-10");
  ck_assert_int_eq(json_integer_value(json_object_get(checkpoint_about(cp), "seed")), 7);
  checkpoint_close(&cp);
}
END_TEST

/* Every range of rows, of a checkpoint that has not been verified and of one that has. */
START_TEST(test_other_ranges) {
  cv_error err = {.code = CURVD_OK};
  set_up();
  checkpoint *cp = open_step(100);
  for (int k = 0; k < N_KNOWN; k++) {
    for (int64_t begin = 0; begin <= known[k].n_rows; begin += 1 + begin / 7) {
      for (int64_t end = begin; end <= known[k].n_rows; end += 1 + end / 5) {
        curvd_array a = known_rows(k, begin, end);
        ck_assert_msg(checkpoint_read(cp, &a, &err) == CURVD_OK, "%s", err.text);
        assert_filled(&a, 100);
        free(a.data);
      }
    }
  }
  checkpoint_close(&cp);
}
END_TEST

/* What is not asked for stays as it is: above the diagonal, between rows. */
START_TEST(test_nothing_else_is_written) {
  cv_error err = {.code = CURVD_OK};
  set_up();
  checkpoint *cp = open_step(100);
  curvd_array a = known_rows(2, 2, 7);
  double *data = a.data;
  for (int i = 0; i < 12 * 12; i++) data[i] = -1;
  ck_assert_int_eq(checkpoint_read(cp, &a, &err), CURVD_OK);
  assert_filled(&a, 100);
  for (int i = 0; i < 12; i++)
    for (int j = 0; j < 12; j++)
      if (i >= 5 || j > i + 2) ck_assert_msg(data[i * 12 + j] == -1, "%d %d", i, j);
  free(a.data);
  checkpoint_close(&cp);
}
END_TEST

START_TEST(test_wrong_wishes) {
  static const struct {
    const char *name;
    curvd_dtype dtype;
    bool is_triangle;
    int64_t n_rows, n_columns, begin, rows;
    const char *said;
  } wishes[] = {{"weightz", CURVD_F32, false, 17, 5, 0, 17, "has no array weightz"},
                {"weights", CURVD_F64, false, 17, 5, 0, 17, "weights is (17, 5) of 4 bytes a number, not (17, 5) of 8"},
                {"weights", CURVD_F32, false, 18, 5, 0, 17, "not (18, 5)"},
                {"weights", CURVD_F32, false, 17, 6, 0, 17, "not (17, 6)"},
                {"factor.A", CURVD_F64, false, 9, 9, 0, 9, "is a triangle (9, 9)"},
                {"weights", CURVD_F32, false, 17, 5, 10, 8, "has no rows 10 + 8"}};
  set_up();
  checkpoint *cp = open_step(100);
  for (size_t i = 0; i < sizeof wishes / sizeof wishes[0]; i++) {
    cv_error err = {.code = CURVD_OK};
    curvd_array a = new_array(wishes[i].name, wishes[i].dtype, wishes[i].is_triangle, wishes[i].n_rows,
                              wishes[i].n_columns, wishes[i].begin, wishes[i].rows, false);
    ck_assert_int_ne(checkpoint_read(cp, &a, &err), CURVD_OK);
    ck_assert_msg(strstr(err.text, wishes[i].said) != NULL, "%s", err.text);
    free(a.data);
  }
  checkpoint_close(&cp);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {
      test_whole_arrays,
      test_other_ranges,
      test_nothing_else_is_written,
      test_wrong_wishes,
  };
  return suite_run("checkpoint", tests, sizeof tests / sizeof tests[0], remove_folder);
}

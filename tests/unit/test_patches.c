/* Patches against explicit loops over pixels, at odd shapes; and the statistics of sampled patches against their exact
 * variance. Copies and fp64 sums of squares of fp32 numbers: rows are equal, lengths within 2e-6, sums over an example
 * within T 6e-8 of the sum of magnitudes. */
#include "conv_fixture.h"
#include "unit/suite.h"

#include "curvature/conv.h"
#include "linalg/thin.h"

#define COUNT(list) (sizeof list / sizeof list[0])

enum { ROWS_MAX = 1024, LD = 2 * DENSE_MAX };

typedef struct sample {
  curvd_conv shape;
  cv_patches inputs, outputs;
  conv_image image;
  bool has_one;
  int64_t n, rows; /* n with the 1 */
  double row[ROWS_MAX][DENSE_MAX];
} sample;

/* Case i of shapes, layouts, with and without a 1, and gaps between pixels. */
enum { CASES = CONV_SHAPES * 2 * 2 * 2 };

static sample *make(int i, int64_t examples) {
  static sample s;
  cv_error err = {0};
  s.shape = conv_shapes[i % CONV_SHAPES];
  s.shape.layout = i / CONV_SHAPES % 2 ? CURVD_CHANNELS_FIRST : CURVD_CHANNELS_LAST;
  s.has_one = i / CONV_SHAPES / 2 % 2;
  ck_assert_msg(cv_conv_make("conv", &s.shape, &s.inputs, &s.outputs, &err) == CURVD_OK, "%s", err.text);
  s.image = conv_inputs(&s.shape, examples, i / CONV_SHAPES / 4 ? 3 : 0, (uint64_t)(1 + i));
  s.n = conv_columns(&s.shape) + s.has_one;
  s.rows = examples * conv_positions(&s.shape);
  ck_assert(s.rows <= ROWS_MAX && s.n <= DENSE_MAX);
  for (int64_t r = 0; r < s.rows; r++) {
    int64_t T = conv_positions(&s.shape), w = conv_out(&s.shape, 1);
    conv_patch(&s.shape, &s.image, s.has_one, r / T, r % T / w, r % T % w, s.row[r]);
  }
  return &s;
}

static void drop(sample *s) {
  free(s->image.x);
}

/* Row k of out is scale times the expected row, and nothing behind it was written. */
static void check_row(const sample *s, const float *out, const double *expected, float scale, int i) {
  for (int64_t j = 0; j < s->n; j++)
    ck_assert_msg(out[j] == scale * (float)expected[j], "case %d, column %d: %g, not %g", i, (int)j, (double)out[j],
                  (double)scale * expected[j]);
  for (int64_t j = s->n; j < LD; j++) ck_assert(isnan(out[j]));
}

static float *blank(int64_t rows) {
  static float out[ROWS_MAX * LD];
  for (int64_t i = 0; i < rows * LD; i++) out[i] = NAN;
  return out;
}

START_TEST(sizes_are_those_of_the_convolution) {
  for (int i = 0; i < CASES; i++) {
    sample *s = make(i, 1);
    for (int k = 0; k < 2; k++) ck_assert_int_eq(s->inputs.out[k], conv_out(&s->shape, k));
    ck_assert_int_eq(cv_patches_positions(&s->inputs), conv_positions(&s->shape));
    ck_assert_int_eq(cv_patches_positions(&s->outputs), conv_positions(&s->shape));
    ck_assert_int_eq(cv_patches_columns(&s->inputs), conv_columns(&s->shape));
    ck_assert_int_eq(cv_patches_columns(&s->outputs), s->shape.c_out);
    drop(s);
  }
  ck_assert_int_eq(cv_patches_out(5, 7, 1, 0, 1), 0);
  ck_assert_int_eq(cv_patches_out(5, 7, 3, 1, 1), 1);
}
END_TEST

/* From any row on, over the ends of lines and examples. */
START_TEST(tiles_are_rows_of_all_patches) {
  for (int i = 0; i < CASES; i++) {
    for (int64_t examples = 1; examples <= 3; examples++) {
      sample *s = make(i, examples);
      for (int64_t first = 0; first < s->rows; first += 1 + s->rows / 5) {
        for (int64_t count = 1; first + count <= s->rows; count += 1 + s->rows / 7) {
          float *out = blank(count);
          cv_patches_write(&s->inputs, s->image.x, s->image.ld, s->has_one, first, count, out, LD);
          for (int64_t k = 0; k < count; k++) check_row(s, out + k * LD, s->row[first + k], 1, i);
        }
      }
      drop(s);
    }
  }
}
END_TEST

START_TEST(chosen_rows_are_scaled_by_the_root_of_their_weight) {
  for (int i = 0; i < CASES; i++) {
    sample *s = make(i, 2);
    int64_t index[] = {0, s->rows / 3, s->rows / 3, s->rows - 1};
    double weight[] = {1, 4, 0.25, 9};
    float *out = blank(COUNT(index));
    cv_patches_gather(&s->inputs, s->image.x, s->image.ld, s->has_one, COUNT(index), index, weight, out, LD);
    for (size_t k = 0; k < COUNT(index); k++) check_row(s, out + k * LD, s->row[index[k]], (float)sqrt(weight[k]), i);
    drop(s);
  }
}
END_TEST

START_TEST(lengths_are_those_of_the_rows) {
  static double norms[ROWS_MAX], pixels[ROWS_MAX];
  for (int i = 0; i < CASES; i++) {
    sample *s = make(i, 3);
    cv_patches_norms(&s->inputs, s->image.x, s->image.ld, s->has_one, 3, pixels, norms);
    for (int64_t r = 0; r < s->rows; r++) {
      double sum = 0;
      for (int64_t j = 0; j < s->n; j++) sum += s->row[r][j] * s->row[r][j];
      ck_assert_msg(fabs(norms[r] - sum) <= 2e-6 * sum, "case %d, row %d: %.9g, not %.9g", i, (int)r, norms[r], sum);
    }
    drop(s);
  }
}
END_TEST

START_TEST(sums_are_over_the_positions_of_an_example) {
  for (int i = 0; i < CASES; i++) {
    sample *s = make(i, 3);
    float *out = blank(2);
    int64_t T = conv_positions(&s->shape), wide = s->n - s->has_one;
    cv_patches_sums(&s->inputs, s->image.x, s->image.ld, s->has_one, 1, 2, 0.5f, out, LD);
    for (int64_t k = 0; k < 2; k++) {
      for (int64_t j = 0; j < wide; j++) {
        double sum = 0, size = 0;
        for (int64_t t = 0; t < T; t++) sum += s->row[(1 + k) * T + t][j], size += fabs(s->row[(1 + k) * T + t][j]);
        ck_assert_msg(fabs((double)out[k * LD + j] - 0.5 * sum) <= (double)T * 6e-8 * size, "case %d, column %d", i,
                      (int)j);
      }
      if (s->has_one) ck_assert(out[k * LD + wide] == 1);
      for (int64_t j = s->n; j < LD; j++) ck_assert(isnan(out[k * LD + j]));
    }
    drop(s);
  }
}
END_TEST

/* Where images are said to be rows already, they are. */
START_TEST(rows_that_need_no_copy) {
  int found = 0;
  for (int i = 0; i < CASES; i++) {
    sample *s = make(i, 2);
    ck_assert_int_eq(cv_patches_are_rows(&s->outputs), s->shape.layout == CURVD_CHANNELS_LAST);
    if (cv_patches_are_rows(&s->inputs)) {
      found++;
      for (int64_t r = 0; r < s->rows * s->inputs.channels; r++) {
        int64_t c = r % s->inputs.channels, k = r / s->inputs.channels;
        ck_assert((double)s->image.x[k * s->image.ld + c] == s->row[k][c]);
      }
    }
    drop(s);
  }
  ck_assert_int_eq(found, CASES / CONV_SHAPES / 2); /* the 1 x 1 window on one pixel, channels last */
}
END_TEST

/* ---- sampling ---- */

enum { DRAWS = 300, SAMPLES = 24 };

typedef struct scatter {
  dense mean, squares; /* over draws, of each entry's distance from the exact one */
  double error;        /* mean squared Frobenius error */
} scatter;

static void add_draw(scatter *m, dense S, dense exact) {
  dense off = dense_sum(1, S, -1, exact);
  m->mean = dense_sum(1, m->mean, 1.0 / DRAWS, off);
  for (int64_t i = 0; i < off.n * off.n; i++)
    m->squares.x[i / off.n][i % off.n] += off.x[i / off.n][i % off.n] * off.x[i / off.n][i % off.n] / DRAWS;
  m->error += dense_dot(off, off) / DRAWS;
}

static dense square(const sample *s, int64_t count, const float *out) {
  dense S = dense_zero(s->n, s->n);
  for (int64_t k = 0; k < count; k++) {
    double row[DENSE_MAX];
    for (int64_t j = 0; j < s->n; j++) row[j] = (double)out[k * LD + j];
    conv_add_square(&S, 1, row);
  }
  return S;
}

/* Independent draws of row i with p_i err by (sum |x_i|^4 / p_i - |X^T X|^2) / c in the mean square, and the drawn rows
 * by no more. */
static double exact_variance(const sample *s, dense exact) {
  double total = dense_trace(exact), sum = 0;
  for (int64_t r = 0; r < s->rows; r++) {
    double length = 0;
    for (int64_t j = 0; j < s->n; j++) length += s->row[r][j] * s->row[r][j];
    if (length > 0) sum += length * length / (0.9 * length / total + 0.1 / (double)s->rows);
  }
  return (sum - dense_dot(exact, exact)) / SAMPLES;
}

/* The index of an independent draw, for the formula itself. */
static int64_t draw(const double *norms, int64_t rows, double total, double u, double *p) {
  for (int64_t i = 0; i < rows; i++) {
    *p = 0.9 * norms[i] / total + 0.1 / (double)rows;
    if (u < *p || i == rows - 1) return i;
    u -= *p;
  }
  return 0;
}

static void choose(const sample *s, const double *norms, double total, bool is_independent, int k, int64_t *index,
                   double *weight) {
  cv_rng key = {.seed = (uint64_t)(1 + k), .stream = CV_RNG_ROWS, .a = is_independent};
  cv_error err = {0};
  if (!is_independent) {
    ck_assert_msg(cv_thin_choose(s->rows, norms, SAMPLES, key, index, weight, &err) == CURVD_OK, "%s", err.text);
    return;
  }
  for (int c = 0; c < SAMPLES; c++) {
    double p = 1;
    index[c] = draw(norms, s->rows, total, cv_rng_uniform(&key, (uint64_t)c), &p);
    weight[c] = 1 / (SAMPLES * p);
  }
}

static scatter scatter_of(const sample *s, const double *norms, dense exact, bool is_independent, int draws) {
  scatter m = {.mean = dense_zero(s->n, s->n), .squares = dense_zero(s->n, s->n)};
  for (int k = 0; k < draws; k++) {
    int64_t index[SAMPLES];
    double weight[SAMPLES];
    choose(s, norms, dense_trace(exact), is_independent, k, index, weight);
    float *out = blank(SAMPLES);
    cv_patches_gather(&s->inputs, s->image.x, s->image.ld, s->has_one, SAMPLES, index, weight, out, LD);
    add_draw(&m, square(s, SAMPLES, out), exact);
  }
  return m;
}

/* Entries within 3 standard errors: of n (n + 1) / 2 of them 0.27 % may lie outside by chance, so 2 % is beyond it; and
 * none by 5. */
static void check_unbiased(const scatter *m, int i) {
  int outside = 0, n = (int)m->mean.n;
  for (int k = 0; k < n * n; k++) {
    double off = fabs(m->mean.x[k / n][k % n]), error = sqrt(m->squares.x[k / n][k % n] / DRAWS);
    if (k % n > k / n || error < 1e-9) continue;
    outside += off > 3 * error;
    ck_assert_msg(off < 5 * error, "case %d, entry %d: off by %g, standard error %g", i, k, off, error);
  }
  ck_assert_msg(outside <= n * (n + 1) / 2 / 50 + 1, "case %d: %d of %d entries outside 3 standard errors", i, outside,
                n * (n + 1) / 2);
}

START_TEST(sampled_patches_have_the_mean_of_all) {
  static double norms[ROWS_MAX], pixels[ROWS_MAX];
  static const int of_shape[] = {0, 3, 4};
  for (size_t i = 0; i < COUNT(of_shape) * 2; i++) {
    sample *s = make(of_shape[i / 2] + CONV_SHAPES * 2 * (int)(i % 2), 8);
    dense exact = dense_zero(s->n, s->n);
    for (int64_t r = 0; r < s->rows; r++) conv_add_square(&exact, 1, s->row[r]);
    cv_patches_norms(&s->inputs, s->image.x, s->image.ld, s->has_one, 8, pixels, norms);
    scatter strata = scatter_of(s, norms, exact, false, DRAWS), free = scatter_of(s, norms, exact, true, DRAWS);
    double formula = exact_variance(s, exact);
    check_unbiased(&strata, (int)i);
    check_unbiased(&free, (int)i);
    /* the mean of DRAWS squared errors scatters by its own standard deviation over sqrt(DRAWS), 5 % here at most */
    ck_assert_msg(fabs(free.error / formula - 1) < 0.15, "case %d: %.3f of the formula", (int)i, free.error / formula);
    ck_assert_msg(strata.error < 1.05 * formula, "case %d: strata err by %.3f of the formula", (int)i,
                  strata.error / formula);
    drop(s);
  }
}
END_TEST

int main(void) {
  const TTest *const tests[] = {sizes_are_those_of_the_convolution,
                                tiles_are_rows_of_all_patches,
                                chosen_rows_are_scaled_by_the_root_of_their_weight,
                                lengths_are_those_of_the_rows,
                                sums_are_over_the_positions_of_an_example,
                                rows_that_need_no_copy,
                                sampled_patches_have_the_mean_of_all};
  return suite_run("patches", tests, COUNT(tests), NULL);
}

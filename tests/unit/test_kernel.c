/* Convolutions against their definition in fp64. Data are small whole numbers and scales powers of two, so that every
 * sum is exact in fp32 in any order, and results must be equal. Gradients are differences of the definition: it is
 * linear in x and in W, so that those are exact with any step. */
#include "net/kernel.h"

#include "product/multiply.h"
#include "suite.h"

#include <math.h>
#include <string.h>
#ifdef CURVD_HAS_ONEDNN
#include <omp.h>
#endif

typedef struct test_case {
  const char *name;
  int64_t rows_max;
  nn_conv shape; /* c_in, c_out, groups, in, out, kernel, stride, pad, dilation */
} test_case;

static const test_case cases[] = {
    {"plain square", 3, {4, 5, 1, {5, 6}, {0}, {3, 3}, {1, 1}, {1, 1}, {1, 1}}},
    {"one pixel, kernel 3 x 3", 3, {5, 3, 1, {1, 1}, {0}, {3, 3}, {1, 1}, {1, 1}, {1, 1}}},
    {"one pixel, kernel 1 x 1", 2, {7, 4, 1, {1, 1}, {0}, {1, 1}, {1, 1}, {0, 0}, {1, 1}}},
    {"kernel 1 x 1", 2, {6, 9, 1, {4, 3}, {0}, {1, 1}, {1, 1}, {0, 0}, {1, 1}}},
    {"kernel 1 x 1, stride 2", 2, {6, 9, 1, {5, 4}, {0}, {1, 1}, {2, 2}, {0, 0}, {1, 1}}},
    {"stride larger than the kernel", 2, {3, 4, 1, {9, 8}, {0}, {2, 2}, {3, 4}, {0, 1}, {1, 1}}},
    {"one channel", 4, {1, 1, 1, {6, 5}, {0}, {3, 3}, {1, 1}, {1, 1}, {1, 1}}},
    {"one input channel", 2, {1, 34, 1, {5, 5}, {0}, {3, 3}, {1, 1}, {1, 1}, {1, 1}}},
    {"three input channels, stride 2", 2, {3, 16, 1, {8, 8}, {0}, {5, 5}, {2, 2}, {2, 2}, {1, 1}}},
    {"batch 1", 1, {4, 6, 1, {4, 4}, {0}, {3, 3}, {1, 1}, {1, 1}, {1, 1}}},
    {"dilation", 2, {3, 5, 1, {7, 9}, {0}, {3, 2}, {1, 2}, {2, 1}, {2, 3}}},
    {"two groups", 2, {6, 8, 2, {5, 4}, {0}, {3, 3}, {1, 1}, {1, 1}, {1, 1}}},
    {"three groups, dilation, stride", 3, {3, 9, 3, {6, 7}, {0}, {2, 3}, {2, 1}, {1, 2}, {2, 1}}},
    {"depthwise", 2, {19, 19, 19, {4, 5}, {0}, {3, 3}, {1, 1}, {1, 1}, {1, 1}}},
    {"depthwise, two outputs each", 2, {5, 10, 5, {4, 4}, {0}, {3, 3}, {2, 2}, {1, 1}, {1, 1}}},
    {"asymmetric", 2, {4, 3, 1, {3, 8}, {0}, {1, 5}, {1, 3}, {0, 2}, {1, 1}}},
    {"padding larger than the image", 2, {3, 4, 1, {2, 1}, {0}, {3, 3}, {1, 1}, {3, 4}, {1, 1}}},
    {"uneven rest at the border", 2, {3, 4, 1, {6, 6}, {0}, {3, 3}, {4, 5}, {1, 0}, {1, 1}}},
    {"odd channels beyond a block", 2, {17, 35, 1, {3, 4}, {0}, {3, 3}, {1, 1}, {1, 1}, {1, 1}}},
    {"whole blocks", 2, {32, 32, 1, {2, 3}, {0}, {3, 3}, {1, 1}, {1, 1}, {1, 1}}},
    {"few pixels, many channels", 2, {64, 65, 1, {2, 2}, {0}, {2, 1}, {1, 1}, {1, 0}, {1, 1}}},
    {"one pixel, many channels", 2, {65, 64, 1, {1, 1}, {0}, {1, 3}, {1, 1}, {0, 1}, {1, 1}}},
    {"groups of whole blocks", 2, {32, 64, 2, {2, 3}, {0}, {3, 3}, {1, 1}, {1, 1}, {1, 1}}},
    {"many pixels", 3, {2, 3, 1, {17, 16}, {0}, {3, 3}, {1, 1}, {1, 1}, {1, 1}}},
};
enum { N_CASES = sizeof cases / sizeof *cases, MORE_COLUMNS = 3 };
static const float border = 1234.5f; /* stands where nothing may be written */

/* Kernels, and the unit for which they round to bf16; NULL: fp32. Small whole numbers are the same in both, so that all
 * of them give the same results. */
typedef struct variant {
  const char *kernels, *unit;
} variant;

static const variant variants[] = {
    {"plain", NULL},  {"plain", "auto"},
#ifdef CURVD_HAS_ONEDNN
    {"onednn", NULL}, {"onednn", "amx"}, {"onednn", "avx512-bf16"}, {"onednn", "portable"},
#endif
};
enum { N_VARIANTS = sizeof variants / sizeof *variants };

static cv_memory memory;

/* false: this machine has no such unit. */
static bool variant_of(int i, const nn_kernels **kernels, cv_multiplier *by) {
  static uint16_t *room;
  *by = (cv_multiplier){CV_FP32};
  ck_assert_int_eq(nn_kernels_find(variants[i].kernels, kernels, NULL), CURVD_OK);
  ck_assert_str_eq((*kernels)->name, variants[i].kernels);
  if (variants[i].unit == NULL) return true;
  if (room == NULL) room = aligned_alloc(64, (size_t)cv_multiplier_room(CV_BF16) * sizeof *room);
  by->precision = CV_BF16;
  by->room = room;
  return cv_unit_find(variants[i].unit, &by->unit, NULL) == CURVD_OK;
}

/* Whole numbers from -2 to 2. */
static float *whole_numbers(int64_t n, uint64_t seed) {
  float *x = malloc((size_t)(n + 1) * sizeof *x);
  for (int64_t i = 0; i < n; i++) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    x[i] = (float)((int64_t)(seed >> 33) % 5 - 2);
  }
  x[n] = border;
  return x;
}

static float *filled(int64_t n, float value) {
  float *x = malloc((size_t)(n + 1) * sizeof *x);
  for (int64_t i = 0; i < n; i++) x[i] = value;
  x[n] = border;
  return x;
}

/* ---- the definition ---- */

typedef struct problem {
  nn_conv s;
  int64_t rows, n_x, n_y, d_in, ld;
  float *x, *w, *g; /* w (c_out, ld): NaN from column d_in + 1 on */
} problem;

static double x_at(const problem *p, int64_t n, int64_t h, int64_t w, int64_t c) {
  if (h < 0 || w < 0 || h >= p->s.in[0] || w >= p->s.in[1]) return 0;
  return p->x[((n * p->s.in[0] + h) * p->s.in[1] + w) * p->s.c_in + c];
}

/* Output `at` = ((n out_h + h) out_w + w) c_out + o. */
static double y_of(const problem *p, int64_t at, bool has_bias) {
  const nn_conv *s = &p->s;
  int64_t o = at % s->c_out, w = at / s->c_out % s->out[1], h = at / s->c_out / s->out[1] % s->out[0],
          n = at / s->c_out / s->out[1] / s->out[0], c_in = s->c_in / s->groups,
          first = o / (s->c_out / s->groups) * c_in;
  double y = has_bias ? p->w[o * p->ld + p->d_in] : 0;
  for (int64_t a = 0; a < s->kernel[0]; a++)
    for (int64_t b = 0; b < s->kernel[1]; b++)
      for (int64_t i = 0; i < c_in; i++)
        y += p->w[o * p->ld + (a * s->kernel[1] + b) * c_in + i] *
             x_at(p, n, h * s->stride[0] + a * s->dilation[0] - s->pad[0],
                  w * s->stride[1] + b * s->dilation[1] - s->pad[1], first + i);
  return y;
}

/* sum g y over the outputs [begin, end) in steps: all that *value has a part in */
static double loss(const problem *p, int64_t begin, int64_t end, int64_t step) {
  double sum = 0;
  for (int64_t i = begin; i < end; i += step) sum += p->g[i] * y_of(p, i, true);
  return sum;
}

static double difference(const problem *p, float *value, int64_t begin, int64_t end, int64_t step) {
  float kept = *value;
  *value = kept + 1;
  double up = loss(p, begin, end, step);
  *value = kept - 1;
  double down = loss(p, begin, end, step);
  *value = kept;
  return (up - down) / 2;
}

static problem make_problem(const test_case *t) {
  problem p = {.s = t->shape, .rows = t->rows_max};
  ck_assert_int_eq(nn_conv_size(&p.s, NULL), CURVD_OK);
  const nn_conv *s = &p.s;
  p.n_x = s->in[0] * s->in[1] * s->c_in;
  p.n_y = s->out[0] * s->out[1] * s->c_out;
  p.d_in = s->kernel[0] * s->kernel[1] * s->c_in / s->groups;
  p.ld = p.d_in + 1 + MORE_COLUMNS;
  p.x = whole_numbers(p.rows * p.n_x, 1);
  p.w = whole_numbers(s->c_out * p.ld, 2);
  p.g = whole_numbers(p.rows * p.n_y, 3);
  for (int64_t o = 0; o < s->c_out; o++)
    for (int64_t j = p.d_in + 1; j < p.ld; j++) p.w[o * p.ld + j] = NAN;
  return p;
}

static void free_problem(problem *p) {
  free(p->x), free(p->w), free(p->g);
}

/* ---- checks ---- */

static void check_forward(const nn_kernels *k, void *state, problem *p, int64_t rows, bool has_bias, const char *name) {
  float *y = filled(rows * p->n_y, NAN), *bias = filled(p->s.c_out, NAN);
  for (int64_t o = 0; !has_bias && o < p->s.c_out; o++) { /* then it is not there */
    bias[o] = p->w[o * p->ld + p->d_in];
    p->w[o * p->ld + p->d_in] = NAN;
  }
  ck_assert_int_eq(k->conv_forward(state, rows, p->x, p->w, p->ld, has_bias, y, NULL), CURVD_OK);
  for (int64_t o = 0; !has_bias && o < p->s.c_out; o++) p->w[o * p->ld + p->d_in] = bias[o];
  for (int64_t i = 0; i < rows * p->n_y; i++)
    ck_assert_msg(y[i] == (float)y_of(p, i, has_bias), "%s, %s, %d rows: y[%d] is %g", k->name, name, (int)rows, (int)i,
                  y[i]);
  ck_assert_float_eq(y[rows * p->n_y], border);
  free(y), free(bias);
}

static void check_backward_input(const nn_kernels *k, void *state, problem *p, int64_t rows, const char *name) {
  float *dx = filled(rows * p->n_x, NAN);
  ck_assert_int_eq(k->conv_backward_input(state, rows, p->g, p->w, p->ld, dx, NULL), CURVD_OK);
  for (int64_t i = 0; i < rows * p->n_x; i++) {
    int64_t image = i / p->n_x;
    double expected = difference(p, &p->x[i], image * p->n_y, (image + 1) * p->n_y, 1);
    ck_assert_msg(dx[i] == (float)expected, "%s, %s, %d rows: dx[%d] is %g, not %g", k->name, name, (int)rows, (int)i,
                  dx[i], expected);
  }
  ck_assert_float_eq(dx[rows * p->n_x], border);
  free(dx);
}

static void check_backward_weight(const nn_kernels *k, void *state, problem *p, int64_t rows, float scale, float beta,
                                  bool has_bias, const char *name) {
  int64_t n = p->s.c_out * p->ld, columns = p->d_in + has_bias;
  float *dw = beta == 0 ? filled(n, NAN) : whole_numbers(n, 4), *before = whole_numbers(n, 4);
  for (int64_t i = 0; i < n; i++)
    if (i % p->ld >= columns) dw[i] = border;
  ck_assert_int_eq(k->conv_backward_weight(state, rows, p->x, p->g, scale, has_bias, beta, dw, p->ld, NULL), CURVD_OK);
  for (int64_t i = 0; i < n; i++) {
    double expected = border;
    if (i % p->ld < columns)
      expected = beta * before[i] + scale * difference(p, &p->w[i], i / p->ld, rows * p->n_y, p->s.c_out);
    ck_assert_msg(dw[i] == (float)expected, "%s, %s, %d rows: dw[%d, %d] is %g, not %g", k->name, name, (int)rows,
                  (int)(i / p->ld), (int)(i % p->ld), dw[i], expected);
  }
  ck_assert_float_eq(dw[n], border);
  free(dw), free(before);
}

static void check_all(const nn_kernels *k, void *state, problem *p, int64_t rows, const char *name) {
  check_forward(k, state, p, rows, true, name);
  check_backward_input(k, state, p, rows, name);
  check_backward_weight(k, state, p, rows, 1, 0, true, name);
}

START_TEST(test_against_the_definition) {
  for (int i = 0; i < N_VARIANTS; i++)
    for (int j = 0; j < N_CASES; j++) {
      const nn_kernels *k;
      cv_multiplier by;
      if (!variant_of(i, &k, &by)) continue;
      problem p = make_problem(&cases[j]);
      void *state = NULL;
      ck_assert_int_eq(k->conv_create(&p.s, &(nn_conv_settings){p.rows, 1, by}, &memory, &state, NULL), CURVD_OK);
      int64_t made = memory.n_allocations;
      check_all(k, state, &p, p.rows, cases[j].name);
      check_forward(k, state, &p, p.rows, false, cases[j].name);
      check_backward_weight(k, state, &p, p.rows, 0.5f, 0.25f, true, cases[j].name);
      check_backward_weight(k, state, &p, p.rows, 1, 1, false, cases[j].name);
      ck_assert_int_eq(memory.n_allocations, made);
      k->conv_free(&memory, &state);
      ck_assert_ptr_null(state);
      free_problem(&p);
    }
  ck_assert_int_eq(memory.bytes[CV_MEMORY_WORKSPACE], 0);
}
END_TEST

/* A count that was announced runs as a whole, another one in pieces, whose gradients are summed. */
START_TEST(test_fewer_rows) {
  const nn_conv odd = {3, 17, 1, {5, 4}, {0}, {3, 3}, {1, 1}, {1, 1}, {1, 1}};
  const test_case t = {"fewer rows", 7, odd};
  for (int i = 0; i < N_VARIANTS; i++) {
    const nn_kernels *k;
    cv_multiplier by;
    if (!variant_of(i, &k, &by)) continue;
    problem p = make_problem(&t);
    void *state = NULL;
    ck_assert_int_eq(k->conv_create(&p.s, &(nn_conv_settings){p.rows, 1, by}, &memory, &state, NULL), CURVD_OK);
    for (int64_t rows = 1; rows <= 7; rows++) check_all(k, state, &p, rows, t.name);
    for (int64_t rows = 7; rows >= 1; rows--) /* more counts than are kept, some of them twice */
      for (int again = 0; again < 2; again++) ck_assert_int_eq(k->conv_prepare(state, rows, &memory, NULL), CURVD_OK);
    int64_t made = memory.n_allocations;
    for (int64_t rows = 1; rows <= 7; rows++) {
      check_all(k, state, &p, rows, t.name);
      check_backward_weight(k, state, &p, rows, 2, 0.5f, true, t.name);
    }
    ck_assert_int_eq(memory.n_allocations, made);
    k->conv_free(&memory, &state);
    free_problem(&p);
  }
  ck_assert_int_eq(memory.bytes[CV_MEMORY_WORKSPACE], 0);
}
END_TEST

START_TEST(test_more_counts_than_are_kept) {
  const nn_conv small = {2, 3, 1, {3, 3}, {0}, {3, 3}, {1, 1}, {1, 1}, {1, 1}};
  const test_case t = {"many counts", 12, small};
  for (int i = 0; i < N_VARIANTS; i++) {
    const nn_kernels *k;
    cv_multiplier by;
    if (!variant_of(i, &k, &by)) continue;
    problem p = make_problem(&t);
    void *state = NULL;
    ck_assert_int_eq(k->conv_create(&p.s, &(nn_conv_settings){p.rows, 1, by}, &memory, &state, NULL), CURVD_OK);
    for (int64_t rows = 12; rows >= 1; rows--) ck_assert_int_eq(k->conv_prepare(state, rows, &memory, NULL), CURVD_OK);
    for (int64_t rows = 1; rows <= 12; rows++) check_all(k, state, &p, rows, t.name);
    k->conv_free(&memory, &state);
    free_problem(&p);
  }
}
END_TEST

/* To 8 bits of precision, ties to even. */
static float to_bf16(float x) {
  int exponent;
  float mantissa = frexpf(x, &exponent);
  return ldexpf(nearbyintf(mantissa * 256) / 256, exponent);
}

/* What a kernel in bf16 sees of fractions. The bias goes as it is. */
static void round_problem(problem *p) {
  for (int64_t j = 0; j < p->rows * p->n_x; j++) p->x[j] = to_bf16(p->x[j]);
  for (int64_t j = 0; j < p->rows * p->n_y; j++) p->g[j] = to_bf16(p->g[j]);
  for (int64_t j = 0; j < p->s.c_out * p->ld; j++)
    if (j % p->ld < p->d_in) p->w[j] = to_bf16(p->w[j]);
}

static void fill_fractions(int64_t n, uint64_t seed, float *x) {
  for (int64_t i = 0; i < n; i++) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    x[i] = (float)((double)(seed >> 11) * 0x1p-52 - 1);
  }
}

/* From -1 to 1. */
static problem fractions_of(const test_case *t) {
  problem p = make_problem(t);
  fill_fractions(p.rows * p.n_x, 1, p.x);
  fill_fractions(p.s.c_out * p.ld, 2, p.w);
  fill_fractions(p.rows * p.n_y, 3, p.g);
  return p;
}

static bool rounds(const nn_kernels *k, const void *state, nn_conv_result result) {
  cv_precision precision;
  k->conv_kernel(state, result, &precision);
  return precision == CV_BF16;
}

/* Fractions show the precision: a dot product of K terms in fp32 is off by at most K 2^-24 / (1 - K 2^-24) times the
 * sum of its terms' sizes, in any order (Higham, Accuracy and Stability, 3.1); data in less than fp32 by far more, and
 * in bf16 exactly by what their rounding makes. */
START_TEST(test_precision) {
  const test_case t = {"precision", 2, {64, 48, 1, {6, 6}, {0}, {3, 3}, {1, 1}, {1, 1}, {1, 1}}};
  for (int i = 0; i < N_VARIANTS; i++) {
    const nn_kernels *k;
    cv_multiplier by;
    if (!variant_of(i, &k, &by)) continue;
    problem p = fractions_of(&t), seen = fractions_of(&t), sizes = make_problem(&t);
    void *state = NULL;
    float *y = filled(p.rows * p.n_y, NAN);
    ck_assert_int_eq(k->conv_create(&p.s, &(nn_conv_settings){p.rows, 1, by}, &memory, &state, NULL), CURVD_OK);
    ck_assert_int_eq(k->conv_forward(state, p.rows, p.x, p.w, p.ld, true, y, NULL), CURVD_OK);
    if (rounds(k, state, NN_CONV_Y)) round_problem(&seen);
    for (int64_t j = 0; j < p.rows * p.n_x; j++) sizes.x[j] = fabsf(seen.x[j]);
    for (int64_t j = 0; j < p.s.c_out * p.ld; j++) sizes.w[j] = fabsf(seen.w[j]);
    double share = (double)(p.d_in + 1) * 0x1p-24 / (1 - (double)(p.d_in + 1) * 0x1p-24);
    for (int64_t j = 0; j < p.rows * p.n_y; j++)
      ck_assert_double_le(fabs(y[j] - y_of(&seen, j, true)), share * y_of(&sizes, j, true));
    k->conv_free(&memory, &state);
    free(y), free_problem(&p), free_problem(&seen), free_problem(&sizes);
  }
}
END_TEST

static void run_all(const nn_kernels *k, const nn_conv_settings *settings, const problem *p, float *const out[3],
                    bool rounded[3]) {
  void *state = NULL;
  ck_assert_int_eq(k->conv_create(&p->s, settings, &memory, &state, NULL), CURVD_OK);
  ck_assert_int_eq(k->conv_forward(state, p->rows, p->x, p->w, p->ld, true, out[0], NULL), CURVD_OK);
  ck_assert_int_eq(k->conv_backward_input(state, p->rows, p->g, p->w, p->ld, out[1], NULL), CURVD_OK);
  ck_assert_int_eq(k->conv_backward_weight(state, p->rows, p->x, p->g, 1, false, 0, out[2], p->ld, NULL), CURVD_OK);
  for (int r = 0; r < 3; r++) rounded[r] = rounds(k, state, (nn_conv_result)r);
  k->conv_free(&memory, &state);
}

/* Frobenius norm of a - b over that of b. */
static double apart(int64_t n, const float *a, const float *b) {
  double difference = 0, size = 0;
  for (int64_t i = 0; i < n; i++) {
    difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    size += (double)b[i] * b[i];
  }
  return sqrt(difference / size);
}

/* All three results in bf16 are those of the plain kernels on numbers that were rounded before, to a sum's rounding in
 * fp32, and differ from those on numbers as they are by the rounding of two factors. */
START_TEST(test_rounded_results) {
  const test_case each[] = {{"images", 5, {32, 48, 1, {9, 8}, {0}, {3, 3}, {1, 1}, {1, 1}, {1, 1}}},
                            {"small images", 9, {64, 80, 1, {4, 3}, {0}, {3, 3}, {1, 1}, {1, 1}, {1, 1}}},
                            {"pieces", 13, {16, 24, 1, {48, 40}, {0}, {3, 3}, {1, 1}, {1, 1}, {1, 1}}}};
  const double two_roundings = sqrt(2) * cv_precision_error(CV_BF16);
  const nn_kernels *plain = NULL;
  ck_assert_int_eq(nn_kernels_find("plain", &plain, NULL), CURVD_OK);
  for (size_t j = 0; j < sizeof each / sizeof *each; j++) {
    problem p = fractions_of(&each[j]), seen = fractions_of(&each[j]);
    const nn_conv_settings fp32 = {p.rows, 1, {CV_FP32}};
    const int64_t n[3] = {p.rows * p.n_y, p.rows * p.n_x, p.s.c_out * p.ld};
    float *exact[3], *of_seen[3], *out[3];
    bool rounded[3];
    round_problem(&seen);
    for (int r = 0; r < 3; r++) exact[r] = filled(n[r], 0), of_seen[r] = filled(n[r], 0), out[r] = filled(n[r], 0);
    run_all(plain, &fp32, &p, exact, rounded);
    run_all(plain, &fp32, &seen, of_seen, rounded);
    for (int i = 0; i < N_VARIANTS; i++) {
      const nn_kernels *k;
      cv_multiplier by;
      if (!variant_of(i, &k, &by)) continue;
      run_all(k, &(nn_conv_settings){p.rows, 1, by}, &p, out, rounded);
      for (int r = 0; r < 3; r++) {
        double off = apart(n[r], out[r], exact[r]), off_seen = apart(n[r], out[r], of_seen[r]);
        ck_assert_msg((rounded[r] ? off_seen : off) < 1e-6, "%s, %s, result %d: off by %g and %g", variants[i].unit,
                      each[j].name, r, off, off_seen);
        if (rounded[r]) ck_assert_double_gt(off, two_roundings / 2);
        if (rounded[r]) ck_assert_double_lt(off, two_roundings * 2);
      }
    }
    for (int r = 0; r < 3; r++) free(exact[r]), free(of_seen[r]), free(out[r]);
    free_problem(&p), free_problem(&seen);
  }
}
END_TEST

/* part: of the names of the kernels that make y, dx and dW; NULL: they stay fp32, whatever they are called. */
static void check_kernels(const nn_kernels *k, const cv_multiplier *by, nn_conv s, int64_t rows, const char *part,
                          bool has_taps) {
  void *state = NULL;
  ck_assert_int_eq(nn_conv_size(&s, NULL), CURVD_OK);
  ck_assert_int_eq(k->conv_create(&s, &(nn_conv_settings){rows, 1, *by}, &memory, &state, NULL), CURVD_OK);
  for (int r = 0; r < NN_CONV_RESULTS; r++) {
    cv_precision precision;
    const char *name = k->conv_kernel(state, (nn_conv_result)r, &precision);
    bool is_taps = r == NN_CONV_DW && has_taps;
    ck_assert_int_eq(precision, is_taps ? by->precision : part ? CV_BF16 : CV_FP32);
    ck_assert_msg(is_taps || part == NULL || strstr(name, part) != NULL, "result %d by %s, not %s", r, name, part);
    ck_assert_msg((strstr(name, "tap") != NULL) == is_taps, "result %d by %s", r, name);
  }
  k->conv_free(&memory, &state);
}

/* oneDNN falls back to slow kernels without a word; the name of the one that runs says whether it is the unit's, and
 * none of those that reach beyond their memory (kernel_onednn_find.c). */
START_TEST(test_kernel_names) {
  const nn_conv usual = {16, 32, 1, {14, 14}, {0}, {3, 3}, {1, 1}, {1, 1}, {1, 1}},
                colours = {3, 64, 1, {32, 32}, {0}, {3, 3}, {1, 1}, {1, 1}, {1, 1}},
                odd = {17, 35, 1, {9, 8}, {0}, {3, 3}, {2, 2}, {1, 1}, {1, 1}},
                small = {64, 64, 1, {4, 4}, {0}, {3, 3}, {1, 1}, {1, 1}, {1, 1}},
                point = {32, 128, 1, {6, 6}, {0}, {1, 1}, {1, 1}, {0, 0}, {1, 1}},
                dilated = {37, 34, 1, {9, 5}, {0}, {3, 3}, {1, 1}, {2, 2}, {2, 1}},
                padded = {23, 24, 1, {13, 3}, {0}, {3, 3}, {1, 1}, {1, 3}, {1, 1}},
                wide = {32, 32, 1, {13, 3}, {0}, {3, 5}, {1, 1}, {1, 2}, {1, 1}},
                far = {72, 21, 1, {10, 2}, {0}, {5, 2}, {1, 3}, {2, 1}, {1, 1}},
                tiny = {64, 64, 1, {2, 2}, {0}, {3, 3}, {1, 1}, {1, 1}, {1, 1}};
  for (int i = 0; i < N_VARIANTS; i++) {
    const nn_kernels *k;
    cv_multiplier by;
    if (!variant_of(i, &k, &by)) continue;
    bool is_onednn = strcmp(k->name, "onednn") == 0;
    const char *unit = is_onednn && by.unit ? by.unit->name : "";
    const char *part = strcmp(unit, "amx") == 0           ? "jit:avx512_core_amx_bf16"
                       : strcmp(unit, "avx512-bf16") == 0 ? "jit_bf16:avx512_core_bf16"
                                                          : NULL;
    check_kernels(k, &by, usual, 8, part, false);
    check_kernels(k, &by, colours, 8, part, false);
    check_kernels(k, &by, odd, 8, part, false);
    if (strcmp(unit, "amx") == 0) check_kernels(k, &by, point, 8, part, false);
    check_kernels(k, &by, small, 8, part, is_onednn);
    check_kernels(k, &by, tiny, 8, NULL, is_onednn); /* where fp32 is faster */
    check_kernels(k, &by, dilated, 8, NULL, false);  /* and where bf16 has been seen to be wrong */
    check_kernels(k, &by, padded, 8, NULL, false);
    check_kernels(k, &by, wide, 8, NULL, false);
    check_kernels(k, &by, far, 8, NULL, false);
  }
}
END_TEST

/* Larger than the definition has time for: all kernels give what the plain ones do. 70 images are more than the
 * gradient in the weight of small images takes at a time; 17 x 16 pixels more than a tile of the plain one sums. */
START_TEST(test_kernels_agree) {
  const test_case large[] = {
      {"many small images", 70, {64, 67, 1, {4, 5}, {0}, {2, 3}, {1, 1}, {1, 0}, {1, 1}}},
      {"small images, stride", 70, {66, 64, 1, {7, 4}, {0}, {3, 2}, {3, 2}, {1, 1}, {2, 1}}},
      {"large images", 3, {36, 50, 1, {17, 16}, {0}, {3, 3}, {1, 2}, {1, 1}, {1, 1}}},
      /* wrong, or not there for one image, by kernels of version 2.6 for AMX */
      {"dilation of rows", 3, {37, 34, 1, {9, 5}, {0}, {4, 4}, {1, 1}, {2, 3}, {2, 1}}},
      {"padding as wide as the image", 9, {23, 24, 1, {13, 1}, {0}, {3, 4}, {1, 2}, {1, 3}, {1, 1}}},
      {"kernel wider than the image", 7, {11, 17, 1, {13, 2}, {0}, {2, 4}, {1, 3}, {0, 1}, {1, 1}}},
      {"stride wider than the image", 9, {72, 21, 1, {10, 2}, {0}, {5, 2}, {1, 3}, {2, 1}, {1, 1}}},
      {"no kernel for one image", 2, {55, 11, 1, {12, 5}, {0}, {1, 1}, {3, 2}, {0, 0}, {1, 1}}},
      {"one point", 2, {56, 32, 1, {6, 6}, {0}, {1, 1}, {1, 1}, {0, 0}, {1, 1}}}};
  const float scale = 0.5f, beta = 0.25f;
  for (size_t j = 0; j < sizeof large / sizeof *large; j++) {
    problem p = make_problem(&large[j]);
    const int64_t n[3] = {p.rows * p.n_y, p.rows * p.n_x, p.s.c_out * p.ld};
    float *first[3] = {filled(n[0], 0), filled(n[1], 0), whole_numbers(n[2], 4)};
    for (int i = 0; i < N_VARIANTS; i++) {
      const nn_kernels *k;
      cv_multiplier by;
      if (!variant_of(i, &k, &by)) continue;
      float *out[3] = {filled(n[0], 0), filled(n[1], 0), whole_numbers(n[2], 4)}, **to = i == 0 ? first : out;
      void *state = NULL;
      ck_assert_int_eq(k->conv_create(&p.s, &(nn_conv_settings){p.rows, 1, by}, &memory, &state, NULL), CURVD_OK);
      ck_assert_int_eq(k->conv_forward(state, p.rows, p.x, p.w, p.ld, true, to[0], NULL), CURVD_OK);
      ck_assert_int_eq(k->conv_backward_input(state, p.rows, p.g, p.w, p.ld, to[1], NULL), CURVD_OK);
      ck_assert_int_eq(k->conv_backward_weight(state, p.rows, p.x, p.g, scale, true, beta, to[2], p.ld, NULL),
                       CURVD_OK);
      for (int a = 0; i > 0 && a < 3; a++)
        ck_assert_msg(memcmp(out[a], first[a], (size_t)n[a] * sizeof **out) == 0, "%s, %s: array %d", k->name,
                      large[j].name, a);
      for (int a = 0; a < 3; a++) free(out[a]);
      k->conv_free(&memory, &state);
    }
    for (int a = 0; a < 3; a++) free(first[a]);
    free_problem(&p);
  }
}
END_TEST

START_TEST(test_dry_memory_is_counted_alone) {
  for (int i = 0; i < N_VARIANTS; i++) {
    const nn_kernels *k;
    cv_multiplier by;
    if (!variant_of(i, &k, &by)) continue;
    nn_conv s = cases[0].shape;
    cv_memory dry = {.is_dry = true}, real = {0};
    void *none = &s, *state = NULL;
    ck_assert_int_eq(nn_conv_size(&s, NULL), CURVD_OK);
    ck_assert_int_eq(k->conv_create(&s, &(nn_conv_settings){4, 1, by}, &dry, &none, NULL), CURVD_OK);
    ck_assert_int_eq(k->conv_create(&s, &(nn_conv_settings){4, 1, by}, &real, &state, NULL), CURVD_OK);
    ck_assert_ptr_null(none);
    ck_assert_int_gt(real.bytes[CV_MEMORY_WORKSPACE], 0);
    ck_assert_int_eq(dry.bytes[CV_MEMORY_WORKSPACE], real.bytes[CV_MEMORY_WORKSPACE]);
    k->conv_free(&dry, &none);
    k->conv_free(&real, &state);
    ck_assert_int_eq(real.bytes[CV_MEMORY_WORKSPACE], 0);
  }
}
END_TEST

START_TEST(test_threads_of_others_stay) {
#ifdef CURVD_HAS_ONEDNN
  int before = omp_get_max_threads();
  omp_set_num_threads(3);
  for (int i = 0; i < N_VARIANTS; i++)
    for (int threads = 1; threads <= 2; threads++) {
      const nn_kernels *k;
      cv_multiplier by;
      if (!variant_of(i, &k, &by)) continue;
      problem p = make_problem(&cases[0]);
      void *state = NULL;
      ck_assert_int_eq(k->conv_create(&p.s, &(nn_conv_settings){p.rows, threads, by}, &memory, &state, NULL), CURVD_OK);
      check_all(k, state, &p, p.rows, "threads");
      ck_assert_int_eq(omp_get_max_threads(), 3);
      k->conv_free(&memory, &state);
      free_problem(&p);
    }
  omp_set_num_threads(before);
#endif
}
END_TEST

/* ---- refusals ---- */

static void check_refused(nn_conv s, curvd_status status, const char *words) {
  cv_error err = {0};
  ck_assert_int_eq(nn_conv_size(&s, &err), status);
  ck_assert_msg(strstr(err.text, words) != NULL, "'%s' lacks '%s'", err.text, words);
}

START_TEST(test_refused_shapes) {
  const nn_conv good = cases[0].shape;
  nn_conv s = good;
  s.c_in = 0, check_refused(s, CURVD_ERR_ARGUMENT, "input channels of 0");
  s = good, s.c_out = -1, check_refused(s, CURVD_ERR_ARGUMENT, "output channels of -1");
  s = good, s.groups = 3, check_refused(s, CURVD_ERR_ARGUMENT, "3 groups do not divide 4 input");
  s = good, s.groups = 0, check_refused(s, CURVD_ERR_ARGUMENT, "0 groups");
  s = good, s.groups = 4, check_refused(s, CURVD_ERR_ARGUMENT, "5 output");
  s = good, s.in[1] = 0, check_refused(s, CURVD_ERR_ARGUMENT, "width of 0");
  s = good, s.kernel[0] = 0, check_refused(s, CURVD_ERR_ARGUMENT, "kernel of 0");
  s = good, s.stride[1] = 0, check_refused(s, CURVD_ERR_ARGUMENT, "stride of 0");
  s = good, s.pad[0] = -1, check_refused(s, CURVD_ERR_ARGUMENT, "padding of -1");
  s = good, s.dilation[0] = 0, check_refused(s, CURVD_ERR_ARGUMENT, "dilation of 0");
  s = good, s.dilation[1] = INT64_MAX, check_refused(s, CURVD_ERR_ARGUMENT, "dilation of 9223372036854775807");
  s = good, s.kernel[0] = 8, check_refused(s, CURVD_ERR_ARGUMENT, "a window of height 8 does not fit");
  s = good, s.in[0] = s.in[1] = 40000, check_refused(s, CURVD_ERR_SIZE, "40000 x 40000 x 4");
  s = good, s.c_in = s.c_out = 20000, check_refused(s, CURVD_ERR_SIZE, "20000 x (3 x 3 x 20000)");
}
END_TEST

START_TEST(test_refused_calls) {
  for (int i = 0; i < N_VARIANTS; i++) {
    const nn_kernels *k;
    cv_multiplier by;
    if (!variant_of(i, &k, &by)) continue;
    nn_conv s = cases[0].shape;
    cv_error err = {0};
    void *state = NULL;
    ck_assert_int_eq(k->conv_create(&s, &(nn_conv_settings){4, 1, by}, &memory, &state, &err), CURVD_ERR_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(err.text, "call nn_conv_size"));
    for (int axis = 0; axis < 2; axis++) {
      ck_assert_int_eq(nn_conv_size(&s, NULL), CURVD_OK);
      s.out[axis]++;
      ck_assert_int_eq(k->conv_create(&s, &(nn_conv_settings){4, 1, by}, &memory, &state, NULL), CURVD_ERR_ARGUMENT);
    }
    ck_assert_int_eq(nn_conv_size(&s, NULL), CURVD_OK);
    cv_error_clear(&err);
    ck_assert_int_eq(k->conv_create(&s, &(nn_conv_settings){0, 1, by}, &memory, &state, &err), CURVD_ERR_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(err.text, "rows of 0"));
    ck_assert_ptr_null(state);
    k->conv_free(&memory, &state);
  }
  ck_assert_int_eq(memory.bytes[CV_MEMORY_WORKSPACE], 0);
}
END_TEST

START_TEST(test_found_by_name) {
  const nn_kernels *k = NULL;
  cv_error err = {0};
  ck_assert_int_eq(nn_kernels_find("auto", &k, NULL), CURVD_OK);
  ck_assert_str_eq(k->name, variants[N_VARIANTS - 1].kernels);
  ck_assert_int_eq(nn_kernels_find("mkl", &k, &err), CURVD_ERR_OPTION);
  ck_assert_ptr_nonnull(strstr(err.text, "auto, plain and onednn"));
#ifndef CURVD_HAS_ONEDNN
  cv_error_clear(&err);
  ck_assert_int_eq(nn_kernels_find("onednn", &k, &err), CURVD_ERR_OPTION);
  ck_assert_ptr_nonnull(strstr(err.text, "libdnnl-dev"));
#endif
}
END_TEST

int main(void) {
  const TTest *const tests[] = {test_against_the_definition,
                                test_fewer_rows,
                                test_more_counts_than_are_kept,
                                test_precision,
                                test_rounded_results,
                                test_kernel_names,
                                test_kernels_agree,
                                test_dry_memory_is_counted_alone,
                                test_threads_of_others_stay,
                                test_refused_shapes,
                                test_refused_calls,
                                test_found_by_name};
  return suite_run("kernel", tests, sizeof tests / sizeof *tests, NULL);
}

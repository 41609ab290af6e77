/* What pair.h promises of a direction before it is written: its sum of squares and its product with X, against the same
 * sums over the numbers that are written, with each side full or of low rank. */
#include "linalg/dense.h"
#include "linalg/pair.h"
#include "linalg_reference.h"
#include "mpi_assert.h"
#include "precision_fixture.h"
#include "service_fixture.h"

#include "curvature/internal.h"

enum { M = 30, N = 41, LD = N + 3, RANK_G = 6, RANK_A = 8 };

typedef struct sums_case {
  int64_t r_g, r_a;
  double damping, exponent;
  bool is_inside; /* X lies in the first three modes, where the function is smallest */
  const cv_multiplier *by;
} sums_case;

typedef struct sums_pair {
  cv_lrps G, A;
  float *block_g, *block_a, *H;
  cv_pair pair;
} sums_pair;

/* Eigenvalues 1, 0.7, 0.49, ...; rows_before, r, rows_after rows of room; tau 0: the function is largest outside. */
static cv_lrps side_new(uint64_t seed, int64_t n, int64_t r, int64_t rows_before, int64_t rows_after, float **block) {
  cv_lrps side = {.n = n, .r = r, .ld = n + 5, .D = ref_floats(n)};
  double *basis = ref_doubles(n * n);
  *block = ref_floats((rows_before + r + rows_after) * side.ld);
  side.U = *block + rows_before * side.ld;
  ref_basis(seed, n, n, basis);
  for (int64_t i = 0; i < r; i++) {
    side.D[i] = (float)pow(0.7, (double)i);
    for (int64_t j = 0; j < n; j++) side.U[i * side.ld + j] = (float)basis[i * n + j];
  }
  free(basis);
  return side;
}

static void pair_open(const sums_case *c, sums_pair *p) {
  const cv_spectral f = {
      .damping_g = c->damping, .damping_a = c->damping, .exponent_g = c->exponent, .exponent_a = c->exponent};
  p->G = side_new(1, M, c->r_g, 0, c->r_a, &p->block_g);
  p->A = side_new(2, N, c->r_a, c->r_g, 0, &p->block_a);
  p->H = ref_floats((M + 1) * (N + 1));
  p->pair = (cv_pair){&p->G, &p->A, p->H, ref_floats(2 * M * cv_dense_ld(N)), ref_floats(c->r_g * c->r_a), c->by};
  ck_assert_int_eq(cv_spectral_table(&f, &p->G, &p->A, p->H, NULL), CURVD_OK);
}

static void pair_close(sums_pair *p) {
  free(p->block_g), free(p->block_a), free(p->G.D), free(p->A.D);
  free(p->H), free(p->pair.plane), free(p->pair.core);
}

static void fill(const sums_case *c, const sums_pair *p, float *X) {
  ref_fill(3, M, N, X, LD);
  for (int i = 0; c->is_inside && i < M * N; i++) {
    double x = 0;
    for (int k = 0; k < 3; k++) x += (double)p->G.U[k * p->G.ld + i / N] * p->A.U[k * p->A.ld + i % N];
    X[i / N * LD + i % N] = (float)x;
  }
}

/* sum of X .* Y */
static double inner(const float *X, const float *Y) {
  double sum = 0;
  for (int i = 0; i < M * N; i++) sum += (double)X[i / N * LD + i % N] * Y[i / N * LD + i % N];
  return sum;
}

/* Promises and what came of them. */
typedef struct sums_outcome {
  cv_pair_sums promised;
  double squares, dot;
} sums_outcome;

static sums_outcome outcome_of(const sums_case *c) {
  float X[M * LD], out[M * LD];
  sums_pair p;
  pair_open(c, &p);
  fill(c, &p, X);
  sums_outcome o = {.promised = cv_pair_project(&p.pair, X, LD, inner(X, X), NULL, NULL, out, LD)};
  ck_assert_int_eq(o.promised.is_written, c->r_g == M || c->r_a == N);
  if (!o.promised.is_written) cv_pair_expand(&p.pair, 1, X, LD, 0, out, LD);
  o.squares = inner(out, out);
  o.dot = inner(out, X);
  pair_close(&p);
  return o;
}

static const int64_t ranks[][2] = {{RANK_G, RANK_A}, {M, RANK_A}, {RANK_G, N}, {M, N}};

/* Random X, the function at most 100 times larger here than there: sums of about 1000 positive numbers, each of a few
 * roundings (6e-8) that the differences of projections make at most ten times larger. */
START_TEST(sums_are_those_of_the_result) {
  static const double functions[][2] = {{0.1, 1}, {0.1, 0.5}, {0.5, 1}, {1, 0.25}}; /* damping, exponent */
  for (int i = 0; i < 16; i++) {
    sums_case c = {ranks[i / 4][0], ranks[i / 4][1], functions[i % 4][0], functions[i % 4][1], false};
    if (c.r_g == M && c.r_a == N) c.damping += 0.4; /* the smallest eigenvalue is 0 nearly */
    sums_outcome o = outcome_of(&c);
    ck_assert(o.promised.is_certain);
    ck_assert_msg(fabs(o.promised.squares - o.squares) <= 5e-6 * o.squares &&
                      fabs(o.promised.dot - o.dot) <= 5e-6 * fabs(o.dot),
                  "r_g %d, r_a %d, damping %g, exponent %g: squares off by %.1e, dot by %.1e", (int)c.r_g, (int)c.r_a,
                  c.damping, c.exponent, o.promised.squares / o.squares - 1, o.promised.dot / o.dot - 1);
  }
}
END_TEST

/* X in a few modes, the function there by 1 to 14 orders smaller than outside, where rounding has put its energy: the
 * sums are right to 1e-3, of bf16 products 1e-2, or not vouched for. */
static void check_cancellation_by(const cv_multiplier *by, int64_t r_g, int64_t r_a) {
  const double promised = by && by->precision == CV_BF16 ? 1e-2 : 1e-3;
  static const double dampings[] = {1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7};
  for (int i = 0; i < 12; i++) {
    sums_case c = {r_g, r_a, dampings[i / 2], i % 2 ? 1 : 0.5, true, by};
    sums_outcome o = outcome_of(&c);
    if (!o.promised.is_certain) continue;
    ck_assert_msg(fabs(o.promised.squares - o.squares) <= promised * o.squares &&
                      fabs(o.promised.dot - o.dot) <= promised * fabs(o.dot),
                  "damping %g, exponent %g: squares off by %.1e, dot by %.1e", c.damping, c.exponent,
                  o.promised.squares / o.squares - 1, o.promised.dot / o.dot - 1);
  }
}

static void check_cancellation(int64_t r_g, int64_t r_a) {
  for (int i = 0; i < PRECISION_CASES; i++) {
    cv_multiplier by = precision_case(i);
    check_cancellation_by(&by, r_g, r_a);
    precision_free(&by);
  }
}

/* A function that hardly varies leaves nothing to cancel: every precision vouches for its sums. One that is 100 times
 * larger here than there is too much for bf16 products, and for three of them only where X lies in what is damped. */
START_TEST(promises_follow_the_precision) {
  for (int i = 0; i < 4 * PRECISION_CASES; i++) {
    cv_multiplier by = precision_case(i / 4);
    bool is_bf16 = by.precision == CV_BF16;
    const sums_case flat = {ranks[i % 4][0], ranks[i % 4][1], 20, 0.25, false, &by};
    sums_case steep = {ranks[i % 4][0], ranks[i % 4][1], 0.1, 1, false, &by};
    sums_outcome o = outcome_of(&flat);
    ck_assert(o.promised.is_certain);
    ck_assert(fabs(o.promised.squares - o.squares) <= (is_bf16 ? 1e-2 : 1e-3) * o.squares);
    ck_assert(fabs(o.promised.dot - o.dot) <= (is_bf16 ? 1e-2 : 1e-3) * o.dot);
    ck_assert_int_eq(outcome_of(&steep).promised.is_certain, !is_bf16);
    steep.is_inside = true, steep.damping = 0.01;
    bool is_full = steep.r_g == M && steep.r_a == N;
    ck_assert(by.precision == CV_FP32 ? !is_full || outcome_of(&steep).promised.is_certain
                                      : !outcome_of(&steep).promised.is_certain);
    precision_free(&by);
  }
}
END_TEST

START_TEST(no_false_promise_with_both_sides_low) {
  const sums_case hard = {RANK_G, RANK_A, 1e-4, 1, true};
  ck_assert(!outcome_of(&hard).promised.is_certain);
  check_cancellation(RANK_G, RANK_A);
}
END_TEST

START_TEST(no_false_promise_with_g_full) {
  check_cancellation(M, RANK_A);
}
END_TEST

START_TEST(no_false_promise_with_a_full) {
  check_cancellation(RANK_G, N);
}
END_TEST

START_TEST(no_false_promise_with_both_sides_full) {
  check_cancellation(M, N);
}
END_TEST

/* x y^T in fp32. */
static dense outer(dense x, dense y) {
  dense Z = dense_product(x, dense_transposed(y));
  for (int64_t i = 0; i < Z.m; i++) {
    for (int64_t j = 0; j < Z.n; j++) Z.x[i][j] = (float)Z.x[i][j];
  }
  return Z;
}

/* Rank-one factors and a gradient in their one mode: nothing promised holds, so the length is that of what was written.
 */
START_TEST(normalised_step_has_rms_one_all_the_same) {
  static const service_layer shapes[] = {{"low", 40, 30, false}, {"full_g", 40, 5, false}, {"full_a", 5, 40, false}};
  for (int i = 0; i < 6; i++) {
    const service_layer *layer = &shapes[i / 2];
    curvd_ctx *ctx =
        service_open(MPI_COMM_SELF,
                     i % 2 ? "tail=zero damping=1e-5 eig_rank=6 oversampling=2 momentum=0 exponent_a=1 exponent_g=1"
                           : "tail=zero damping=1e-3 eig_rank=6 oversampling=2 exponent_a=1 exponent_g=1",
                     1, layer);
    dense x = dense_random(5, layer->d_in, 1), y = dense_random(6, layer->d_out, 1), many = dense_random(7, 20, 1);
    service_capture(ctx, 0, outer(many, x), outer(many, y));
    dense direction = service_step(ctx, layer, outer(y, x));
    ck_assert(ctx->layer[0].sums.is_written); /* measured */
    ck_assert_double_eq_tol(dense_rms(direction), 1, 1e-5);
    service_close(&ctx);
  }
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {sums_are_those_of_the_result,
                                promises_follow_the_precision,
                                no_false_promise_with_both_sides_low,
                                no_false_promise_with_g_full,
                                no_false_promise_with_a_full,
                                no_false_promise_with_both_sides_full,
                                normalised_step_has_rms_one_all_the_same};
  return service_suite("pair_sums", tests, sizeof tests / sizeof tests[0]);
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}

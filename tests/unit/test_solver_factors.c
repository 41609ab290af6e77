/* Factors that are hard on solvers, put into the running averages: zero, of rank one, rank-deficient, steep, flat,
 * indefinite by rounding; narrow ones and odd sizes. Every method gives dense K-FAC of them, without a fallback. */
#include "kfac_reference.h"
#include "mpi_assert.h"
#include "service_fixture.h"

#include "curvature/internal.h"

#define COUNT(list) (sizeof list / sizeof list[0])

static const kfac_case plain = {"relative-mean", "norm", "eigen", 0.1, 1, 1, 0.9};
static const char *const methods[] = {"method=kfac", "method=rs-kfac", "method=sre-kfac", "method=nystrom-kfac",
                                      "method=nystrom-kfac range_finder=krylov"};

/* Condition of a damped factor: at most 10 n = 600; times eps, and a spread of 5, as for rank-one factors in
 * unit/test_curvature_faults.c. */
static const double TOLERANCE = 2e-4;

typedef double (*spectrum)(int64_t i, int64_t n); /* eigenvalue number i, from 0 */

static double zero(int64_t i, int64_t n) {
  (void)i, (void)n;
  return 0;
}

static double one_mode(int64_t i, int64_t n) {
  (void)n;
  return i == 0 ? 3 : 0;
}

static double some_modes(int64_t i, int64_t n) {
  return i < (n + 2) / 3 ? 1 / (double)(1 + i) : 0;
}

static double steep(int64_t i, int64_t n) {
  (void)n;
  return pow((double)(1 + i), -5);
}

static double flat(int64_t i, int64_t n) {
  (void)i, (void)n;
  return 0.7;
}

/* Eigenvalues below 0, by what fp32 sums of many statistics leave. */
static double indefinite(int64_t i, int64_t n) {
  return i < (n + 2) / 3 ? 1 / (double)(1 + i) : -2e-7 * (double)(i % 3);
}

static double tiny(int64_t i, int64_t n) {
  return 1e-12 * some_modes(i, n);
}

static double large(int64_t i, int64_t n) {
  return 1e12 * some_modes(i, n);
}

static const struct {
  const char *name;
  spectrum value;
} spectra[] = {{"zero", zero},   {"one mode", one_mode}, {"some modes", some_modes},
               {"steep", steep}, {"flat", flat},         {"indefinite", indefinite},
               {"tiny", tiny},   {"large", large}};

/* Q diag(lambda) Q^T in fp32, Q random orthogonal; a third of the modes of 60 is 20. */
static dense factor_of(spectrum value, int64_t n, uint64_t seed) {
  dense R = dense_random(seed, n, n);
  dense_eigen e = {.V = dense_eig(dense_sum(1, R, 1, dense_transposed(R))).V};
  for (int64_t i = 0; i < n; i++) e.w[i] = value(i, n);
  dense M = dense_composed(&e);
  for (int64_t i = 0; i < n; i++) {
    for (int64_t j = 0; j < n; j++) M.x[i][j] = (float)(i >= j ? M.x[i][j] : M.x[j][i]);
  }
  return M;
}

/* What the service keeps of a factor, as if it had averaged it. */
static void put(curvd_ctx *ctx, int f, dense M) {
  cv_factor *factor = &ctx->layer[0].factor[f];
  for (int64_t i = 0; i < M.n; i++) {
    for (int64_t j = 0; j < M.n; j++) factor->own.average[i * factor->own.ld + j] = j > i ? NAN : (float)M.x[i][j];
  }
  factor->own.fresh.trace = dense_trace(M);
  factor->own.updates++;
}

static dense damped_inverse(dense M) {
  double trace = dense_trace(M);
  return trace > 0 ? dense_inverse_power(M, plain.damping * trace / (double)M.n, 1) : dense_identity(M.n);
}

static char line[480];

static void keep_line(void *user, int level, const char *text) {
  (void)user, (void)level;
  snprintf(line, sizeof line, "%s", text);
}

static void check(const char *method, const char *more, const service_layer *layer, dense A, dense G,
                  const char *name) {
  char text[512];
  snprintf(text, sizeof text, "loss_reduction=sum power_iters=2 warm_power_iters=1 %s %s", method, more);
  curvd_ctx *ctx = service_open(MPI_COMM_SELF, kfac_options(&plain, text), 1, layer);
  curvd_log_to(ctx, keep_line, NULL, 1);
  dense V = dense_random(3, layer->d_out, layer->d_in);
  dense right = dense_product(dense_product(damped_inverse(G), V), damped_inverse(A));
  put(ctx, CV_A, A);
  put(ctx, CV_G, G);
  for (int step = 0; step < 2; step++) { /* cold, warm */
    double error = dense_distance(service_step(ctx, layer, V), right);
    ck_assert_msg(error < TOLERANCE, "%s %s, %s, %d x %d, step %d: %.1e", method, more, name, (int)layer->d_out,
                  (int)layer->d_in, step, error);
  }
  curvd_metrics metrics = service_metrics(ctx);
  int64_t fallbacks = metrics.events[CURVD_EVENT_EXACT_FALLBACK] + metrics.events[CURVD_EVENT_RETRIED] +
                      metrics.events[CURVD_EVENT_KEPT_PREVIOUS];
  ck_assert_msg(fallbacks == 0, "%s %s, %s: %d fallbacks: %s", method, more, name, (int)fallbacks, line);
  service_close(&ctx);
}

/* 24 pairs of 60 hold all modes, or all but 1e-6 of the trace, or (flat) a tail that stands for the rest. */
START_TEST(hard_spectra) {
  static const service_layer layer = {"fc", 60, 50, false};
  for (size_t s = 0; s < COUNT(spectra); s++) {
    dense A = factor_of(spectra[s].value, 60, 1), G = factor_of(spectra[s].value, 50, 2),
          good = factor_of(steep, 50, 5);
    for (size_t i = 0; i < COUNT(methods); i++) {
      check(methods[i], "eig_rank=24 oversampling=8 full_share=1", &layer, A, G, spectra[s].name);
      check(methods[i], "eig_rank=24 oversampling=8 full_share=1", &layer, A, good, spectra[s].name);
    }
  }
}
END_TEST

/* eig_rank at and beyond n, where a randomized method becomes exact, and just below it. */
START_TEST(narrow_and_odd_sizes) {
  static const service_layer layers[] = {{"fc", 1, 1, false}, {"fc", 1, 2, false},  {"fc", 2, 1, false},
                                         {"fc", 3, 2, false}, {"fc", 37, 7, false}, {"fc", 53, 61, false}};
  static const char *const ranks[] = {"eig_rank=64", "eig_rank=1000 full_share=0.5", "eig_rank=64 full_share=1"};
  for (size_t l = 0; l < COUNT(layers); l++) {
    for (size_t s = 0; s < COUNT(spectra); s++) {
      dense A = factor_of(spectra[s].value, layers[l].d_in, 1), G = factor_of(spectra[s].value, layers[l].d_out, 2);
      for (size_t i = 0; i < COUNT(methods); i++)
        check(methods[i], ranks[(l + s + i) % COUNT(ranks)], &layers[l], A, G, spectra[s].name);
    }
  }
}
END_TEST

/* As many rows as there are modes, and one less than n rows: the randomized path at its borders. */
START_TEST(all_but_one_mode_wanted) {
  static const service_layer layers[] = {{"fc", 13, 11, false}, {"fc", 7, 9, false}};
  for (size_t l = 0; l < COUNT(layers); l++) {
    int64_t n = layers[l].d_in, m = layers[l].d_out;
    char more[128];
    snprintf(more, sizeof more, "eig_rank=%d oversampling=1 full_share=1", (int)(n < m ? n - 2 : m - 2));
    for (size_t i = 0; i < COUNT(methods); i++) {
      check(methods[i], more, &layers[l], factor_of(some_modes, n, 1), factor_of(some_modes, m, 2), "some modes");
      check(methods[i], more, &layers[l], factor_of(one_mode, n, 1), factor_of(flat, m, 2), "one mode and flat");
    }
  }
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {hard_spectra, narrow_and_odd_sizes, all_but_one_mode_wanted};
  return service_suite("solver factors", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}

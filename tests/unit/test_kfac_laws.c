/* What K-FAC must fulfil whatever the data: identities of its averages and dampings, invariance, and the exact Fisher
 * matrix of linear networks. Tolerances are those of fp32: eps (6e-8) times the condition number of what is inverted,
 * which each test states, times about 10 for its size. */
#include "kfac_reference.h"
#include "mpi_assert.h"
#include "service_fixture.h"

#define COUNT(list) (sizeof list / sizeof list[0])

enum { ROWS = 40 };

static const service_layer fc = {"fc", 5, 4, false};

static kfac_case case_of(const char *mode, const char *average, double damping) {
  return (kfac_case){mode, average, "eigen", damping, 1, 1, 0.9};
}

static curvd_ctx *open_case(const kfac_case *c) {
  return service_open(MPI_COMM_SELF, kfac_options(c, "loss_reduction=sum"), 1, &fc);
}

static dense one_direction(const kfac_case *c, dense a, dense g, dense V) {
  curvd_ctx *ctx = open_case(c);
  service_capture(ctx, 0, a, g);
  dense direction = service_step(ctx, &fc, V);
  service_close(&ctx);
  return direction;
}

/* EA-1. The leak of the identity, or of the start at zero, is the only thing that may change. */
START_TEST(constant_statistics_come_back) {
  static const char *const averages[] = {"norm", "first", "mg", "id", "zero", "sum"};
  dense a = dense_random(1, ROWS, 5), g = dense_random(2, ROWS, 4), V = dense_random(3, 4, 5);
  double trace = dense_trace(kfac_statistic(a, false));
  for (size_t i = 0; i < COUNT(averages); i++) {
    kfac_case c = case_of("relative-mean", averages[i], 0.1);
    curvd_ctx *ctx = open_case(&c);
    for (int k = 1; k <= 30; k++) {
      double left = pow(c.decay, k), expected = trace;
      service_capture(ctx, 0, a, g);
      service_step(ctx, &fc, V);
      if (kfac_is(averages[i], "id")) expected = left * 5 + (1 - left) * trace;
      if (kfac_is(averages[i], "zero")) expected = (1 - left) * trace;
      if (kfac_is(averages[i], "sum")) expected = (1 - left) / (1 - c.decay) * trace;
      ck_assert_double_eq_tol(service_factor(ctx, 0, 0).trace, expected, 1e-5 * expected);
    }
    service_close(&ctx);
  }
}
END_TEST

/* KF-2: A~ (x) G~ = A (x) G + gamma^2 I + pi gamma (I (x) G) + gamma / pi (A (x) I), applied to the direction U. */
START_TEST(factored_damping_over_damps_by_the_known_terms) {
  dense a = dense_random(1, ROWS, 5), g = dense_scaled(0.1, dense_random(2, ROWS, 4)), V = dense_random(3, 4, 5);
  dense A = kfac_statistic(a, false), G = kfac_statistic(g, false);
  kfac_case c = case_of("pi", "norm", 1e-3);
  double pi = sqrt(dense_trace(A) / 5 / (dense_trace(G) / 4)), gamma = sqrt(c.damping);
  dense U = one_direction(&c, a, g, V);
  dense sum = dense_sum(1, dense_product(dense_product(G, U), A), gamma * gamma, U);
  sum = dense_sum(1, sum, pi * gamma, dense_product(G, U));
  sum = dense_sum(1, sum, gamma / pi, dense_product(U, A));
  ck_assert_double_lt(dense_distance(sum, V), 1e-5); /* condition 10 */
}
END_TEST

/* KF-3: kfac-jax's rule for k factors f_i with c_i = tr(f_i) / dim_i, c = (prod c_i)^(1/k), d = damping^(1/k) / c:
 * f_i -> c (f_i / c_i + d I); here k = 2. */
START_TEST(pi_is_the_rule_of_kfac_jax_for_two_factors) {
  for (int e = -3; e <= 3; e++) {
    dense a = dense_random(1, ROWS, 5), g = dense_scaled(pow(10, e), dense_random(2, ROWS, 4));
    dense A = kfac_statistic(a, false), G = kfac_statistic(g, false), V = dense_random(3, 4, 5);
    kfac_case c = case_of("pi", "norm", 1e-3);
    double c_a = dense_trace(A) / 5, c_g = dense_trace(G) / 4, mean = sqrt(c_a * c_g), d = sqrt(c.damping) / mean;
    dense left = dense_solve(dense_scaled(mean, dense_shifted(dense_scaled(1 / c_g, G), d)), V);
    dense right = dense_solve(dense_scaled(mean, dense_shifted(dense_scaled(1 / c_a, A), d)), dense_identity(5));
    ck_assert_double_lt(dense_distance(one_direction(&c, a, g, V), dense_product(left, right)), 1e-5);
  }
}
END_TEST

START_TEST(pi_stays_within_its_bound) {
  static const double scales[] = {1e-6, 1e6};
  kfac_case c = case_of("pi", "norm", 1e-4);
  for (size_t i = 0; i < COUNT(scales); i++) {
    double pi = i == 0 ? 20 : 1.0 / 20; /* G tiny: pi would be 1e6 */
    curvd_ctx *ctx = service_open(MPI_COMM_SELF, kfac_options(&c, "pi_bound=20"), 1, &fc);
    service_capture(ctx, 0, dense_random(1, ROWS, 5), dense_scaled(scales[i], dense_random(2, ROWS, 4)));
    service_step(ctx, &fc, dense_random(3, 4, 5));
    ck_assert_double_eq_tol(service_factor(ctx, 0, 0).damping, 0.01 * pi, 1e-9);
    ck_assert_double_eq_tol(service_factor(ctx, 0, 1).damping, 0.01 / pi, 1e-9);
    service_close(&ctx);
  }
}
END_TEST

/* KF-4: a -> Om a, g -> Phi^T g, V -> Phi^T V Om^T give U -> Phi^-1 U Om^-1 without damping. */
START_TEST(invariant_to_reparameterisation) {
  static const double damping[] = {0, 1e-12};
  dense a = dense_random(1, ROWS, 5), g = dense_random(2, ROWS, 4), V = dense_random(3, 4, 5);
  dense Om = dense_shifted(dense_random(4, 5, 5), 2), Phi = dense_shifted(dense_random(5, 4, 4), 2);
  dense a2 = dense_product(a, dense_transposed(Om)), g2 = dense_product(g, Phi);
  dense V2 = dense_product(dense_product(dense_transposed(Phi), V), dense_transposed(Om));
  for (size_t i = 0; i < COUNT(damping); i++) {
    kfac_case c = case_of("scalar", "norm", damping[i]);
    dense U = one_direction(&c, a, g, V), U2 = one_direction(&c, a2, g2, V2);
    dense back = dense_product(dense_product(Phi, U2), Om);
    ck_assert_double_lt(dense_distance(back, U), 3e-5); /* condition 50 after the change of basis */
  }
}
END_TEST

/* ---- exact Fisher: z = W_L ... W_1 x, loss |z - t|^2 / 2 with t = z + eps, eps ~ N(0, I), F = E_x[J^T J], J = dz/dW
 * ---- */

enum { LAYERS = 3, EXAMPLES = 12 };

typedef struct deep_linear {
  service_layer layer[LAYERS];
  dense W[LAYERS]; /* (d_out, d_in + has_bias) */
  int n;
} deep_linear;

/* (d + 1, 1) when there is a bias. */
static dense with_one(dense h, bool has_bias) {
  dense x = dense_zero(h.m + has_bias, 1);
  for (int64_t i = 0; i < x.m; i++) x.x[i][0] = i < h.m ? h.x[i][0] : 1;
  return x;
}

/* Input of layer `to` (its output side when to = n) from the input x (d, 1) of layer 0. */
static dense forward(const deep_linear *net, dense x, int to) {
  for (int l = 0; l < to; l++) x = dense_product(net->W[l], with_one(x, net->layer[l].has_bias));
  return x;
}

/* d z / d vec(W_l), (outputs, m n), by central differences: exact, as z is linear in one layer's weights. */
static dense jacobian(deep_linear *net, dense x, int l) {
  dense *W = &net->W[l], J = dense_zero(net->W[net->n - 1].m, W->m * W->n);
  for (int64_t c = 0; c < J.n; c++) {
    double *w = &W->x[c % W->m][c / W->m], kept = *w;
    *w = kept + 0.5;
    dense up = forward(net, x, net->n);
    *w = kept - 0.5;
    dense change = dense_sum(1, up, -1, forward(net, x, net->n));
    *w = kept;
    for (int64_t i = 0; i < J.m; i++) J.x[i][c] = change.x[i][0];
  }
  return J;
}

static dense example(int b, int64_t d) {
  return dense_random(500 + (uint64_t)b, d, 1);
}

static dense fisher_block(deep_linear *net, int l) {
  int64_t size = net->W[l].m * net->W[l].n;
  dense F = dense_zero(size, size);
  for (int b = 0; b < EXAMPLES; b++) {
    dense J = jacobian(net, example(b, net->layer[0].d_in), l);
    F = dense_sum(1, F, 1.0 / EXAMPLES, dense_product(dense_transposed(J), J));
  }
  return F;
}

/* Gradients of the outputs' coordinates in layer l's outputs, one row each, by back-propagation of the identity: the
 * average over them times their number is E[g g^T] without sampling. */
static dense exact_gradients(const deep_linear *net, int l) {
  dense g = dense_identity(net->W[net->n - 1].m);
  for (int i = net->n - 1; i > l; i--) {
    dense W = net->W[i];
    W.n = net->layer[i].d_in;
    g = dense_product(g, W);
  }
  return dense_scaled(sqrt((double)g.m), g);
}

static void capture_exactly(curvd_ctx *ctx, const deep_linear *net, int l) {
  dense g = exact_gradients(net, l);
  for (int b = 0; b < EXAMPLES; b++) {
    dense h = forward(net, example(b, net->layer[0].d_in), l), rows = dense_zero(g.m, h.m);
    for (int64_t i = 0; i < rows.m; i++) {
      for (int64_t j = 0; j < rows.n; j++) rows.x[i][j] = h.x[j][0];
    }
    service_capture(ctx, l, rows, g);
  }
}

static void check_fisher(deep_linear *net) {
  kfac_case c = case_of("scalar", "norm", 0.1);
  curvd_ctx *ctx = service_open(MPI_COMM_SELF, kfac_options(&c, "loss_reduction=sum"), net->n, net->layer);
  dense V[LAYERS], direction[LAYERS];
  for (int l = 0; l < net->n; l++) {
    capture_exactly(ctx, net, l);
    V[l] = direction[l] = dense_random(700 + (uint64_t)l, net->W[l].m, net->W[l].n);
  }
  ck_assert_int_eq(service_try(ctx, 1, SERVICE_APART, net->n, net->layer, direction), CURVD_OK);
  for (int l = 0; l < net->n; l++) {
    dense solved = dense_solve(dense_shifted(fisher_block(net, l), c.damping), dense_vec(V[l]));
    double distance = dense_distance(direction[l], dense_unvec(solved, V[l].m));
    ck_assert_msg(distance < 3e-5, "layer %d of %d: %.1e", l, net->n, distance); /* condition 50 */
  }
  service_close(&ctx);
}

/* KF-6 */
START_TEST(one_linear_layer_has_the_exact_fisher_matrix) {
  for (int has_bias = 0; has_bias < 2; has_bias++) {
    deep_linear net = {.layer = {{"fc", 5, 4, has_bias != 0}}, .n = 1};
    net.W[0] = dense_random(1, 4, 5 + has_bias);
    check_fisher(&net);
  }
}
END_TEST

START_TEST(deep_linear_network_has_the_exact_diagonal_blocks) {
  deep_linear net = {.layer = {{"fc0", 5, 6, true}, {"fc1", 6, 4, false}, {"fc2", 4, 3, true}}, .n = LAYERS};
  for (int l = 0; l < LAYERS; l++) {
    net.W[l] = dense_random(10 + (uint64_t)l, net.layer[l].d_out, service_columns(&net.layer[l]));
  }
  check_fisher(&net);
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {constant_statistics_come_back,
                                factored_damping_over_damps_by_the_known_terms,
                                pi_is_the_rule_of_kfac_jax_for_two_factors,
                                pi_stays_within_its_bound,
                                invariant_to_reparameterisation,
                                one_linear_layer_has_the_exact_fisher_matrix,
                                deep_linear_network_has_the_exact_diagonal_blocks};
  return service_suite("kfac laws", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}

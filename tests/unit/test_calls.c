/* Calls that the service must refuse: in the wrong order, with wrong arguments, on contexts that are half made. */
#include "mpi_assert.h"
#include "service_fixture.h"

#include <limits.h>

#define COUNT(list) (sizeof list / sizeof list[0])

enum { N = 40, M = 36 };

static const service_layer fc = {"body.fc", N, M, false};

static curvd_status before_init; /* of curvd_create before MPI_Init */
static curvd_ctx *ctx_before_init;

START_TEST(create_needs_mpi_and_a_place) {
  ck_assert_int_eq(before_init, CURVD_ERR_STATE);
  ck_assert_ptr_null(ctx_before_init);
  ck_assert_int_eq(curvd_create(MPI_COMM_SELF, NULL), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(curvd_create_f(MPI_Comm_c2f(MPI_COMM_SELF), &ctx_before_init), CURVD_OK);
  curvd_destroy(&ctx_before_init);
  ck_assert_ptr_null(ctx_before_init);
}
END_TEST

START_TEST(half_made_contexts_are_destroyed) {
  curvd_ctx *ctx = NULL;
  curvd_destroy(NULL);
  curvd_destroy(&ctx);
  ck_assert_int_eq(curvd_create(MPI_COMM_SELF, &ctx), CURVD_OK);
  curvd_destroy(&ctx);
  ctx = service_make(MPI_COMM_SELF, "method=kfac", 1, &fc);
  curvd_destroy(&ctx);
  static const char *const failing[] = {"curvature_ranks=1", "eig_rank_min=2 eig_rank_max=1"};
  for (size_t i = 0; i < COUNT(failing); i++) {
    ctx = service_make(MPI_COMM_SELF, failing[i], 1, &fc);
    ck_assert_int_eq(curvd_plan(ctx), i == 0 ? CURVD_ERR_LAYOUT : CURVD_ERR_OPTION);
    ck_assert_int_eq(curvd_step(ctx, 1, NULL, 1), CURVD_ERR_STATE);
    ck_assert_int_eq(curvd_plan(ctx), CURVD_ERR_STATE);
    ck_assert(!curvd_wants_capture(ctx));
    curvd_destroy(&ctx);
  }
  ctx = service_open(MPI_COMM_SELF, "method=kfac", 1, &fc); /* planned, never used, not finished */
  curvd_destroy(&ctx);
  ck_assert_ptr_null(ctx);
}
END_TEST

START_TEST(calls_in_the_wrong_order) {
  curvd_layer_metrics metrics;
  curvd_ctx *ctx = service_make(MPI_COMM_SELF, "method=kfac", 1, &fc);
  float x[N] = {0};
  ck_assert(!curvd_wants_capture(ctx));
  ck_assert_int_eq(curvd_capture(ctx, 0, 1, x, N, NULL, 0), CURVD_ERR_STATE);
  ck_assert_int_eq(curvd_step(ctx, 1, NULL, 1), CURVD_ERR_STATE);
  ck_assert_int_eq(curvd_serve(ctx), CURVD_ERR_STATE);
  ck_assert_int_eq(curvd_finish(ctx), CURVD_ERR_STATE);
  ck_assert_int_eq(curvd_layer_metrics_read(ctx, 0, &metrics), CURVD_ERR_STATE);
  ck_assert_ptr_nonnull(strstr(curvd_last_error(ctx), "curvd_plan"));
  ck_assert_int_eq(curvd_plan(ctx), CURVD_OK);
  ck_assert_int_eq(curvd_plan(ctx), CURVD_ERR_STATE);
  ck_assert_int_eq(curvd_layer_add(ctx, "late", 1, 1, false, NULL), CURVD_ERR_STATE);
  ck_assert_int_eq(curvd_layer_count(ctx), 1);
  ck_assert_int_eq(curvd_serve(ctx), CURVD_OK); /* a worker returns at once */
  service_step(ctx, &fc, dense_random(3, M, N));
  ck_assert_int_eq(curvd_finish(ctx), CURVD_OK);
  ck_assert_int_eq(curvd_finish(ctx), CURVD_OK);
  dense V = dense_random(3, M, N);
  ck_assert_int_eq(service_try(ctx, 1, SERVICE_JOINED, 1, &fc, &V), CURVD_ERR_STATE);
  ck_assert_int_eq(service_metrics(ctx).step, 1);
  curvd_destroy(&ctx);
}
END_TEST

START_TEST(layers_that_cannot_be_added) {
  static char longest[64], too_long[65];
  int32_t index = 77;
  curvd_ctx *ctx = service_make(MPI_COMM_SELF, "method=kfac", 1, &fc);
  memset(longest, 'x', sizeof longest - 1);
  memset(too_long, 'x', sizeof too_long - 1);
  static const struct {
    const char *name;
    int64_t d_in, d_out;
  } bad[] = {{"body.fc", 3, 2}, {"", 3, 2},   {NULL, 3, 2},        {too_long, 3, 2},    {"a", 0, 2},
             {"a", 3, 0},       {"a", -1, 2}, {"a", INT64_MAX, 2}, {"a", 3, INT64_MAX}, {"a", (int64_t)INT_MAX + 1, 2}};
  for (size_t i = 0; i < COUNT(bad); i++) {
    ck_assert_int_eq(curvd_layer_add(ctx, bad[i].name, bad[i].d_in, bad[i].d_out, true, &index), CURVD_ERR_ARGUMENT);
    ck_assert_str_ne(curvd_last_error(ctx), "");
  }
  ck_assert_int_eq(curvd_layer_count(ctx), 1);
  ck_assert_int_eq(index, 77);
  ck_assert_int_eq(curvd_layer_add(ctx, longest, 1, 1, true, &index), CURVD_OK);
  ck_assert_int_eq(index, 1);
  curvd_destroy(&ctx);
}
END_TEST

/* A refused call changes nothing. */
START_TEST(arguments_that_are_refused) {
  static float x[N * M];
  const curvd_gradient good = {.weight = x, .ld = N};
  const curvd_gradient bad[] = {
      {.weight = NULL, .ld = N}, {.weight = x, .ld = N - 1}, {.weight = x, .ld = -1}, {.weight = x, .ld = INT64_MAX}};
  static const double rates[] = {-1, NAN, INFINITY};
  dense first = dense_random(1, M, N), V = first;
  curvd_ctx *ctx = service_open(MPI_COMM_SELF, "method=nystrom-kfac step=plain momentum=0", 1, &fc);
  ck_assert_int_eq(curvd_capture(ctx, 1, 1, x, N, NULL, 0), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(curvd_capture(ctx, -1, 1, x, N, NULL, 0), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(curvd_capture(ctx, 0, -1, x, N, NULL, 0), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(curvd_capture(ctx, 0, 1, x, N - 1, NULL, 0), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(curvd_capture(ctx, 0, 1, NULL, 0, x, M - 1), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(curvd_capture(ctx, 0, 0, x, N, x, M), CURVD_OK);
  ck_assert_int_eq(curvd_step(ctx, 1, &good, 2), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(curvd_step(ctx, 1, NULL, 1), CURVD_ERR_ARGUMENT);
  for (size_t i = 0; i < COUNT(rates); i++) ck_assert_int_eq(curvd_step(ctx, rates[i], &good, 1), CURVD_ERR_ARGUMENT);
  for (size_t i = 0; i < COUNT(bad); i++) {
    ck_assert_int_eq(curvd_step(ctx, 1, &bad[i], 1), CURVD_ERR_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(curvd_last_error(ctx), "body.fc"));
  }
  V = service_step(ctx, &fc, V); /* no statistic came in: the identity */
  ck_assert_double_lt(dense_distance(V, first), 1e-6);
  service_close(&ctx);
}
END_TEST

START_TEST(bias_that_is_missing) {
  static const service_layer layer = {"fc", 3, 2, true};
  float x[8] = {0};
  const curvd_gradient bad[] = {{.weight = x, .ld = 3, .bias = NULL, .bias_stride = 1},
                                {.weight = x, .ld = 3, .bias = x + 6, .bias_stride = 0}};
  curvd_ctx *ctx = service_open(MPI_COMM_SELF, "method=kfac", 1, &layer);
  for (size_t i = 0; i < COUNT(bad); i++) ck_assert_int_eq(curvd_step(ctx, 1, &bad[i], 1), CURVD_ERR_ARGUMENT);
  service_close(&ctx);
}
END_TEST

/* The plan without memory is that with it, in numbers, and refuses to run. */
START_TEST(plan_without_memory) {
  static const char *const methods[] = {"kfac", "nystrom-kfac", "rs-kfac"};
  for (size_t i = 0; i < COUNT(methods); i++) {
    char options[64];
    snprintf(options, sizeof options, "dry_run=true method=%s", methods[i]);
    curvd_ctx *dry = service_open(MPI_COMM_SELF, options, 1, &fc),
              *wet = service_open(MPI_COMM_SELF, options + strlen("dry_run=true "), 1, &fc);
    curvd_metrics counted = service_metrics(dry), made = service_metrics(wet);
    ck_assert_mem_eq(counted.memory_bytes, made.memory_bytes, sizeof made.memory_bytes);
    ck_assert_int_eq(counted.memory_peak_bytes, made.memory_peak_bytes);
    dense V = dense_random(3, M, N);
    float x[N] = {0};
    ck_assert_int_eq(curvd_capture(dry, 0, 1, x, N, NULL, 0), CURVD_ERR_STATE);
    ck_assert_int_eq(service_try(dry, 1, SERVICE_JOINED, 1, &fc, &V), CURVD_ERR_STATE);
    ck_assert_ptr_nonnull(strstr(curvd_last_error(dry), "dry_run"));
    ck_assert_int_eq(curvd_serve(dry), CURVD_ERR_STATE);
    ck_assert_int_eq(curvd_finish(dry), CURVD_ERR_STATE);
    curvd_destroy(&dry);
    service_close(&wet);
  }
}
END_TEST

START_TEST(null_arguments) {
  curvd_ctx *ctx = service_open(MPI_COMM_SELF, "method=kfac", 1, &fc);
  curvd_layer_metrics layer;
  curvd_metrics metrics;
  float x = 0;
  ck_assert_int_eq(curvd_set(NULL, "damping", "1"), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(curvd_layer_add(NULL, "x", 1, 1, true, NULL), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(curvd_plan(NULL), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(curvd_capture(NULL, 0, 1, &x, 1, &x, 1), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(curvd_step(NULL, 1, NULL, 0), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(curvd_serve(NULL), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(curvd_finish(NULL), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(curvd_log_to(NULL, NULL, NULL, 1), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(curvd_metrics_read(NULL, &metrics), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(curvd_metrics_read(ctx, NULL), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(curvd_layer_metrics_read(ctx, 1, &layer), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(curvd_layer_metrics_read(ctx, 0, NULL), CURVD_ERR_ARGUMENT);
  ck_assert_str_eq(curvd_last_error(NULL), "");
  ck_assert_int_eq(curvd_layer_count(NULL), 0);
  ck_assert_int_eq(curvd_worker_index(NULL), -1);
  ck_assert_int_eq(curvd_worker_count(NULL), 0);
  service_close(&ctx);
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {create_needs_mpi_and_a_place, half_made_contexts_are_destroyed,
                                calls_in_the_wrong_order,     layers_that_cannot_be_added,
                                arguments_that_are_refused,   bias_that_is_missing,
                                plan_without_memory,          null_arguments};
  return service_suite("calls", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  before_init = curvd_create(MPI_COMM_SELF, &ctx_before_init);
  return mpi_test_main(argc, argv, make_suite);
}

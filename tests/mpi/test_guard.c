/* Changed bits are found, named, and fail the next step on every worker; nothing else is taken for one. The faults are
 * injected, each once, so what is looked for is known. */
#include "mpi_service.h"

#include "curvature/guard.h"
#include "curvature/settings.h"
#include "curvd_experimental.h"

#define COUNT(list) (sizeof list / sizeof list[0])

enum { STEPS = RUN_STEPS_MAX, STRUCK = 3 };

static dense V[STEPS][RUN_LAYERS], other[STEPS][RUN_LAYERS];

/* What a run with one fault came to, on every rank the same but the sentence. */
typedef struct outcome {
  int failed_step; /* of curvd_step; STEPS: none */
  int n_damage, n_remote;
  char sentence[480];
} outcome;

/* One fault on a rank (-1: none); workers look at what is in force after each step. */
static outcome run_with(const char *options, int n_curvature, int rank, curvd_fault fault,
                        dense (*directions)[RUN_LAYERS]) {
  service_run run = {
      .comm = MPI_COMM_WORLD, .options = options, .n_curvature = n_curvature, .n_steps = STEPS, .rows = 10};
  outcome out = {.failed_step = STEPS};
  curvd_ctx *ctx = run_open(&run);
  if (rank == run_rank(MPI_COMM_WORLD)) ck_assert_int_eq(curvd_inject(ctx, &fault), CURVD_OK);
  curvd_status status = CURVD_OK;
  for (int step = 0; step < STEPS && run_is_worker(ctx) && status == CURVD_OK; step++) {
    status = run_step(ctx, &run, step, directions[step]);
    if (status != CURVD_OK) out.failed_step = step;
    if (status == CURVD_OK) curvd_check(ctx, NULL); /* what it finds fails the next step */
  }
  snprintf(out.sentence, sizeof out.sentence, "%s", status == CURVD_ERR_DAMAGE ? curvd_last_error(ctx) : "");
  int mine[3] = {status == CURVD_ERR_DAMAGE, status == CURVD_ERR_REMOTE, out.failed_step}, all[2], first;
  run_close(&ctx);
  MPI_Allreduce(mine, all, 2, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  MPI_Allreduce(&mine[2], &first, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
  out.n_damage = all[0], out.n_remote = all[1], out.failed_step = first;
  return out;
}

static int n_workers(int n_curvature) {
  return run_size(MPI_COMM_WORLD) - n_curvature;
}

/* All workers failed, and those that know say what. */
static bool is_found(const outcome *out, int n_curvature, const char *words) {
  bool knows = out->sentence[0] != '\0';
  return out->failed_step < STEPS && out->n_damage >= 1 && out->n_damage + out->n_remote == n_workers(n_curvature) &&
         (!knows || strstr(out->sentence, words));
}

static const char often[] = "method=nystrom-kfac full_share=1 eig_rank=4 factor_update_steps=1 inv_update_steps=1",
                  rounded[] = "method=nystrom-kfac full_share=1 eig_rank=4 factor_update_steps=1 inv_update_steps=1 "
                              "wire_precision=bf16";

START_TEST(a_bit_of_a_transfer_is_found_on_any_split) {
  for (int c = 0; c < run_size(MPI_COMM_WORLD); c++) {
    for (int b = 0; b < 8; b++) {
      char words[64];
      outcome out = run_with(b % 2 ? often : rounded, c, b % n_workers(c),
                             (curvd_fault){CURVD_FAULT_TRANSFER, STRUCK, 0, 0, 7919 * b}, V);
      snprintf(words, sizeof words, "step %d changed on their way", STRUCK);
      mpi_assert_msg(is_found(&out, c, words) && out.failed_step == STRUCK + 1,
                     "%d curvature ranks, bit %d: step %d, %s", c, 7919 * b, out.failed_step, out.sentence);
    }
  }
}
END_TEST

static const char *const stores[] = {
    "method=kfac factor_update_steps=1 inv_update_steps=1",
    "method=kfac form=cholesky exponent_a=1 exponent_g=1 damping_mode=pi damping=0.01 factor_update_steps=1 "
    "inv_update_steps=1",
    "method=nystrom-kfac full_share=1 eig_rank=4 factor_update_steps=1 inv_update_steps=1",
    "method=nystrom-kfac carrier=sketch full_share=1 eig_rank=4 factor_update_steps=1 inv_update_steps=1",
    "method=b-r-c-kfac capture_rows=10 full_share=1 eig_rank=4 factor_update_steps=1 inv_update_steps=1",
    "method=nystrom-kfac full_share=1 eig_rank=4 factor_update_steps=1 inv_update_steps=2 staleness=1",
    "method=kfac apply=sharded factor_update_steps=1 inv_update_steps=1",
    "method=kfac wire_precision=bf16 factor_update_steps=1 inv_update_steps=1",
    "method=nystrom-kfac wire_precision=bf16 carrier=columns capture_rows=10 full_share=1 eig_rank=4 "
    "factor_update_steps=1 inv_update_steps=2 staleness=1"};

static void options_of(size_t store, const char *integrity, char options[300]) {
  snprintf(options, 300, "%s integrity=%s", stores[store], integrity);
}

/* Whoever owns fc1. */
static int owner_of(const char *options, int n_curvature) {
  service_run run = {.comm = MPI_COMM_WORLD, .options = options, .n_curvature = n_curvature, .rows = 10};
  curvd_layer_metrics layer;
  curvd_ctx *ctx = run_open(&run);
  ck_assert_int_eq(curvd_layer_metrics_read(ctx, 1, &layer), CURVD_OK);
  run_close(&ctx);
  return layer.owner;
}

START_TEST(a_bit_of_what_an_owner_keeps_is_found_before_it_is_used) {
  for (size_t i = 0; i < COUNT(stores); i++) {
    for (int c = 0; c < run_size(MPI_COMM_WORLD); c++) {
      char options[300];
      options_of(i, "all", options);
      outcome out = run_with(options, c, owner_of(options, c), (curvd_fault){CURVD_FAULT_FACTOR, STRUCK, 1, 0, 37}, V);
      mpi_assert_msg(is_found(&out, c, "layer fc1, A: what rank"), "%s, %d curvature ranks: step %d, %s", options, c,
                     out.failed_step, out.sentence);
    }
  }
}
END_TEST

START_TEST(a_bit_of_what_is_in_force_is_found) {
  for (size_t i = 0; i < COUNT(stores); i++) {
    char options[300];
    bool is_sharded = strstr(stores[i], "sharded");
    options_of(i, "all", options);
    for (int c = 0; c < run_size(MPI_COMM_WORLD) && !is_sharded; c++) {
      outcome out = run_with(options, c, 0, (curvd_fault){CURVD_FAULT_PRECONDITIONER, STRUCK, 1, 1, 41}, V);
      mpi_assert_msg(is_found(&out, c, "layer fc1, G: the preconditioner in force"),
                     "%s, %d curvature ranks: step %d, %s", options, c, out.failed_step, out.sentence);
    }
  }
}
END_TEST

/* Looking changes nothing, and finds nothing in a run that is sound. */
START_TEST(a_sound_run_is_left_alone) {
  for (size_t i = 0; i < COUNT(stores); i++) {
    for (int c = 0; c < run_size(MPI_COMM_WORLD); c++) {
      char with[300], without[300];
      options_of(i, "all", with);
      options_of(i, "off", without);
      memset(V, 0, sizeof V);
      memset(other, 0, sizeof other);
      outcome out = run_with(with, c, -1, (curvd_fault){0}, V),
              plain = run_with(without, c, -1, (curvd_fault){0}, other);
      mpi_assert_msg(out.failed_step == STEPS && plain.failed_step == STEPS, "%s, %d curvature ranks: %s", with, c,
                     out.sentence);
      mpi_assert_msg(memcmp(V, other, sizeof V) == 0, "%s, %d curvature ranks: other bits", with, c);
    }
  }
}
END_TEST

START_TEST(without_the_option_nobody_looks) {
  const char options[] = "method=kfac factor_update_steps=1 inv_update_steps=1 integrity=off";
  outcome out = run_with(options, 0, 0, (curvd_fault){CURVD_FAULT_TRANSFER, STRUCK, 0, 0, 5}, V);
  mpi_assert(out.failed_step == STEPS);
  out = run_with(options, 0, owner_of(options, 0), (curvd_fault){CURVD_FAULT_FACTOR, STRUCK, 1, 0, 5}, V);
  mpi_assert(out.failed_step == STEPS);
}
END_TEST

START_TEST(a_solver_that_fails_is_followed_by_the_next) {
  service_run run = {.comm = MPI_COMM_WORLD, .options = often, .n_curvature = 0, .n_steps = STEPS, .rows = 10};
  curvd_ctx *ctx = run_open(&run);
  const curvd_fault fault = {CURVD_FAULT_SOLVER, STRUCK, 0, 0, 0};
  bool is_ok = curvd_inject(ctx, &fault) == CURVD_OK; /* on every rank: it strikes where the layer's owner is */
  for (int step = 0; step < STEPS; step++) is_ok = is_ok && run_step(ctx, &run, step, V[step]) == CURVD_OK;
  curvd_metrics metrics = service_metrics(ctx);
  is_ok = is_ok && metrics.events[CURVD_EVENT_EXACT_FALLBACK] == 1 && metrics.events[CURVD_EVENT_DAMAGED] == 0;
  run_close(&ctx);
  mpi_assert(is_ok);
}
END_TEST

/* A bit of the exponent of A's first diagonal entry, of a triangle: it becomes huge or tiny, or twice or half of what
 * it was. That statistic is refused, and the run goes on without it. */
START_TEST(a_sum_whose_trace_is_another_is_refused) {
  static const char *const options[] = {"method=kfac carrier=triangle factor_update_steps=1 inv_update_steps=1",
                                        "method=kfac carrier=triangle factor_update_steps=1 inv_update_steps=1 "
                                        "wire_precision=bf16",
                                        "method=kfac carrier=triangle factor_update_steps=1 inv_update_steps=1 "
                                        "integrity=off"};
  enum { LOWEST = 23, HIGHEST = 30, OFF = 2 }; /* bits of the exponent */
  for (int j = 0; j < 6; j++) {
    int i = j / 2, bit = j % 2 ? LOWEST : HIGHEST;
    service_run run = {
        .comm = MPI_COMM_WORLD, .options = options[i], .n_curvature = run_size(MPI_COMM_WORLD) > 2, .rows = 10};
    curvd_ctx *ctx = run_open(&run);
    const curvd_fault fault = {CURVD_FAULT_STATISTIC, STRUCK, 0, 0, bit};
    bool is_ok = curvd_inject(ctx, &fault) == CURVD_OK, is_worker = run_is_worker(ctx);
    for (int step = 0; step < STEPS && is_worker; step++) is_ok = is_ok && !run_step(ctx, &run, step, V[step]);
    int64_t refused = is_worker ? service_metrics(ctx).events[CURVD_EVENT_REFUSED_STATISTICS] : 0;
    run_close(&ctx);
    mpi_assert_msg(is_ok && (!is_worker || refused == (i < OFF)), "%s, bit %d: %d refused", options[i], bit,
                   (int)refused);
  }
}
END_TEST

/* All workers have the same checksum after the same steps, another one after another step. */
START_TEST(replicas_have_one_checksum) {
  service_run run = {.comm = MPI_COMM_WORLD, .options = often, .n_curvature = run_size(MPI_COMM_WORLD) > 2, .rows = 10};
  curvd_ctx *ctx = run_open(&run);
  uint64_t hash[3] = {0}, of_first[3];
  bool is_worker = run_is_worker(ctx), is_ok = true;
  for (int step = 0; step < 3 && is_worker; step++)
    is_ok = is_ok && !run_step(ctx, &run, step, V[step]) && curvd_check(ctx, &hash[step]) == CURVD_OK;
  run_close(&ctx);
  memcpy(of_first, hash, sizeof hash);
  MPI_Bcast(of_first, 3, MPI_UINT64_T, 0, MPI_COMM_WORLD);
  mpi_assert(is_ok && (!is_worker || memcmp(hash, of_first, sizeof hash) == 0) && of_first[0] != of_first[1] &&
             of_first[1] != of_first[2]);
}
END_TEST

START_TEST(orders_are_checked) {
  service_run run = {.comm = MPI_COMM_SELF, .options = often, .rows = 10};
  const curvd_fault bad[] = {{CURVD_FAULT_SOLVER, 0, RUN_LAYERS, 0, 0},
                             {CURVD_FAULT_SOLVER, 0, -1, 0, 0},
                             {CURVD_FAULT_SOLVER, 0, 0, 2, 0},
                             {CURVD_FAULT_SOLVER, 0, 0, 0, -1},
                             {(curvd_fault_kind)7, 0, 0, 0, 0}},
                    good = {CURVD_FAULT_SOLVER, 0, 0, 0, 0};
  curvd_ctx *ctx = run_make(&run);
  ck_assert_int_eq(curvd_inject(ctx, &good), CURVD_ERR_STATE);
  ck_assert_int_eq(curvd_plan(ctx), CURVD_OK);
  for (size_t i = 0; i < COUNT(bad); i++) ck_assert_int_eq(curvd_inject(ctx, &bad[i]), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(curvd_inject(ctx, NULL), CURVD_ERR_ARGUMENT);
  for (int i = 0; i < 16; i++) ck_assert_int_eq(curvd_inject(ctx, &good), CURVD_OK);
  ck_assert_int_eq(curvd_inject(ctx, &good), CURVD_ERR_SIZE);
  run_close(&ctx);
}
END_TEST

/* Pairs that were wrong before anybody sealed them. U: rows of the identity, D = 4 3 2 1. */
typedef struct pairs {
  curvd_ctx ctx;
  cv_layer layer;
  float U[4 * 16], D[4];
} pairs;

static pairs *pairs_new(void) {
  pairs *p = calloc(1, sizeof *p);
  dense_require(p != NULL);
  cv_settings_init(&p->ctx.book);
  cv_applied *a = &p->layer.factor[CV_A].applied;
  a->state = (cv_factor_state){.kind = CV_KIND_EIGEN, .r = 4, .rows = 4, .trace = 12, .tau = 0.1, .kept_sum = 10};
  a->side = (cv_lrps){.n = 16, .ld = 16, .r = 4, .tau = 0.1, .U = p->U, .D = p->D};
  for (int i = 0; i < 4; i++) p->U[i * 16 + 3 * i] = 1, p->D[i] = (float)(4 - i);
  return p;
}

static bool are_refused(pairs *p) {
  cv_guard_check_pairs(&p->ctx, &p->layer, &p->layer.factor[CV_A]);
  bool is_refused = p->ctx.damage.code == CURVD_ERR_DAMAGE;
  free(p);
  return is_refused;
}

START_TEST(pairs_that_are_none_are_refused) {
  pairs *p = pairs_new();
  ck_assert(!are_refused(p));
  p = pairs_new(), p->D[1] = 5; /* not descending */
  ck_assert(are_refused(p));
  p = pairs_new(), p->D[0] = 7; /* another sum */
  ck_assert(are_refused(p));
  p = pairs_new(), p->D[3] = -1;
  ck_assert(are_refused(p));
  p = pairs_new(), p->D[0] = NAN;
  ck_assert(are_refused(p));
  p = pairs_new(), p->layer.factor[CV_A].applied.state.tau = INFINITY;
  ck_assert(are_refused(p));
  p = pairs_new(), p->U[0] = 1.01f; /* a row that is too long, by more than rounding */
  ck_assert(are_refused(p));
  p = pairs_new(), p->U[3] = 1; /* two rows that are not orthogonal, and one too long */
  ck_assert(are_refused(p));
  p = pairs_new(), p->U[5] = NAN;
  ck_assert(are_refused(p));
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {a_bit_of_a_transfer_is_found_on_any_split,
                                a_bit_of_what_an_owner_keeps_is_found_before_it_is_used,
                                a_bit_of_what_is_in_force_is_found,
                                a_sound_run_is_left_alone,
                                without_the_option_nobody_looks,
                                a_solver_that_fails_is_followed_by_the_next,
                                a_sum_whose_trace_is_another_is_refused,
                                replicas_have_one_checksum,
                                orders_are_checked,
                                pairs_that_are_none_are_refused};
  return service_suite("guard", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}

#include "eig_factors.h"

#include "curvature/internal.h"
#include "linalg/dense.h"
#include "train/trainer.h"

#include <stdio.h>
#include <string.h>

enum { STEPS_FIRST = 300, STEPS_MORE = 10 };

static curvd_status train(trainer *t, int steps, cv_error *err) {
  for (int i = 0; i < steps; i++) CV_TRY(trainer_step(t, err));
  return CURVD_OK;
}

static curvd_status next_average(eig_source *s, cv_error *err) {
  if (s->is_running) CV_TRY(train(s->trainer, STEPS_MORE, err));
  s->is_running = true;
  for (int64_t i = 0; i < s->n; i++)
    memcpy(s->M + i * s->ld, s->factor->own.average + i * s->factor->own.ld, (size_t)(i + 1) * sizeof *s->M);
  cv_mirror(s->n, s->M, s->ld);
  return CURVD_OK;
}

static void close_average(eig_source *s) {
  cv_floats_free(s->memory, &s->M);
}

/* There are no further examples: inputs of inner layers and gradients do not outlive their step. */
static curvd_status open_source(trainer *t, int number, const char *name, cv_memory *memory, eig_source *s,
                                cv_error *err) {
  const cv_factor *factor = &t->ctx->layer[number / CV_FACTORS].factor[number % CV_FACTORS];
  *s = (eig_source){.name = name,
                    .n = factor->n,
                    .ld = cv_dense_ld(factor->n),
                    .next = next_average,
                    .close = close_average,
                    .memory = memory,
                    .trainer = t,
                    .factor = factor};
  return cv_floats_new(memory, CV_MEMORY_DATA, s->n * s->ld, "a factor", &s->M, err);
}

/* Rank 0 has the trainer; the others hear its factor's name and size. */
static curvd_status run_factor(const eig_options *o, trainer *t, int number, eig_place *places, int n_places,
                               cv_memory *memory, cv_error *err) {
  struct {
    int64_t n;
    char name[2 * CV_NAME_MAX];
  } what = {0};
  eig_source source = {0};
  if (t != NULL) {
    const cv_layer *layer = &t->ctx->layer[number / CV_FACTORS];
    what.n = layer->factor[number % CV_FACTORS].n;
    snprintf(what.name, sizeof what.name, "%s.%c", layer->name, number % CV_FACTORS == CV_A ? 'A' : 'G');
    open_source(t, number, what.name, memory, &source, err);
  }
  curvd_status status = eig_agree(err);
  MPI_Bcast(&what, (int)sizeof what, MPI_BYTE, 0, MPI_COMM_WORLD);
  if (status == CURVD_OK && what.n >= eig_most_rows(o))
    status = eig_run_size(o, what.name, what.n, &source, places, n_places, memory, err);
  if (source.close) source.close(&source);
  return status;
}

static curvd_status run_factors(const eig_options *o, trainer *t, eig_place *places, int n_places, cv_memory *memory,
                                cv_error *err) {
  int factors = 0;
  if (t != NULL) {
    fprintf(stderr, "bench_eig: %d training steps\n", STEPS_FIRST);
    train(t, STEPS_FIRST, err);
    factors = t->ctx->n_layers * CV_FACTORS;
  }
  CV_TRY(eig_agree(err));
  MPI_Bcast(&factors, 1, MPI_INT, 0, MPI_COMM_WORLD);
  for (int i = 0; i < factors; i++) CV_TRY(run_factor(o, t, i, places, n_places, memory, err));
  return CURVD_OK;
}

/* On rank 0; a failure to begin goes to all by the first agreement of run_factors. */
static curvd_status train_and_run(const eig_options *o, eig_place *places, int n_places, cv_memory *memory,
                                  cv_error *err) {
  const char *const words[] = {"--data",     "fashion-mnist", "--network", "784-1000-1000-10",      "--steps",
                               "1000000000", "--lr-decay",    "constant",  "--factor-update-steps", "1"};
  config c;
  trainer t;
  if (config_load(sizeof words / sizeof *words, (char *const *)words, &c, err) != CURVD_OK)
    return run_factors(o, NULL, places, n_places, memory, err);
  bool is_created = trainer_create(&c, MPI_COMM_SELF, &t, err) == CURVD_OK;
  curvd_status status = run_factors(o, is_created ? &t : NULL, places, n_places, memory, err);
  if (is_created) trainer_free(&t);
  config_free(&c);
  return status;
}

curvd_status eig_factors_run(const eig_options *o, eig_place *places, int n_places, cv_memory *memory, cv_error *err) {
  int rank;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank == 0 ? train_and_run(o, places, n_places, memory, err)
                   : run_factors(o, NULL, places, n_places, memory, err);
}

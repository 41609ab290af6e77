/* What a training step costs one worker: the bare matrix products of a step where it consists of them, a whole step of
 * method sgd, and a whole step of another method, interleaved block by block inside one run. Time is CPU time of the
 * worker's process, and what it sleeps until the curvature ranks have sent something. These only serve, on ranks of
 * their own, and sleep while products and sgd have their turn. Prints one JSON line. */
#include "blocks.h"
#include "products.h"
#include "step_check.h"
#include "train/mpi_end.h"
#include "train/trainer.h"

#include <cblas.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  ROUNDS_MAX = BLOCKS_MAX,
  GIVEN_MAX = 112,
  WORDS_MAX = GIVEN_MAX + 16,
  STAGES = (int)TRAINER_STAGES + (int)CURVD_STAGES
};

/* One method being timed. */
typedef struct lane {
  config config;
  trainer trainer;
  bool is_loaded, is_started;
  double first_loss, last_loss; /* mean of the warm-up block, and of the last one */
  double stage_begin_s[STAGES]; /* after the warm-up block */
  double ms[ROUNDS_MAX];        /* of one step, block by block */
  int timed;                    /* steps of the last block that count */
} lane;

typedef struct bench {
  int rounds, block;
  const char *word[WORDS_MAX]; /* handed on to the configuration of both lanes */
  int n_words;
  const char *sgd_lr;
  lane sgd, method;
  bool has_method, has_products; /* beside sgd */
  bool is_between;               /* steps with statistics or a refresh are not timed */
  int rank, n_ranks;
  double served_s[STAGES];            /* CPU seconds of all curvature ranks, from the first step on */
  int64_t sent_bytes[CURVD_TRAFFICS]; /* of all ranks, in all blocks */
  cv_memory memory;
  model products;
  double products_ms[ROUNDS_MAX];
} bench;

/* ---- Set-up ---- */

static curvd_status lane_load(lane *l, const bench *b, const char *const *more, cv_error *err) {
  const char *word[WORDS_MAX];
  char steps[24];
  int n = 0;
  snprintf(steps, sizeof steps, "%d", (b->rounds + 1) * b->block);
  const char *const common[] = {"--lr-decay", "constant", "--steps", steps};
  for (int i = 0; i < b->n_words; i++) word[n++] = b->word[i];
  for (size_t i = 0; i < sizeof common / sizeof common[0]; i++) word[n++] = common[i];
  for (; *more != NULL; more++) word[n++] = *more;
  CV_TRY(config_load(n, (char *const *)word, &l->config, err));
  l->is_loaded = true;
  return CURVD_OK;
}

static curvd_status lane_start(lane *l, MPI_Comm comm, cv_error *err) {
  CV_TRY(trainer_create(&l->config, comm, &l->trainer, err));
  l->is_started = true;
  return CURVD_OK;
}

static void lane_close(lane *l) {
  if (l->is_started) trainer_free(&l->trainer);
  if (l->is_loaded) config_free(&l->config);
}

/* A block must hold whole periods, or its share of statistics and refreshes is not that of a run. */
static curvd_status check_period(const bench *b, const char *name, cv_error *err) {
  const char *text = config_text(&b->method.config, name);
  char *end;
  long period = strtol(text, &end, 10);
  if (*end == '\0' && period > 0 && b->block % period == 0) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_OPTION, "%s %s does not divide blocks of %d steps; give --block a multiple", name, text,
                 b->block);
}

static curvd_status products_open(bench *b, cv_error *err) {
  const model *like = &b->sgd.trainer.model;
  const train_config *v = &b->sgd.config.values;
  model_spec spec = like->spec;
  for (int i = 0; i < spec.n_layers; i++) spec.layer[i].activation = NN_LINEAR;
  const model_settings settings = {.rows_max = like->rows_max, .seed = (uint64_t)v->seed};
  CV_TRY(model_create(&spec, &settings, &b->memory, &b->products, err));
  products_fill(&b->products, v->batch, (uint64_t)v->seed);
  return CURVD_OK;
}

/* Rank 0 is the only worker. */
static curvd_status check_ranks(const bench *b, cv_error *err) {
  if (b->n_ranks == 1 || (b->has_method && b->method.config.values.curvature_ranks == b->n_ranks - 1)) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_OPTION, "%d ranks are one worker and --curvature-ranks %d of a curvature method",
                 b->n_ranks, b->n_ranks - 1);
}

static curvd_status load_lanes(bench *b, cv_error *err) {
  /* learning rate, optimizer and precision of the method are not for sgd */
  const char *const sgd[] =
      {"--method",          "sgd",  "--lr", b->sgd_lr, "--optimizer", "auto", "--curvature-ranks", "0",
       "--train-precision", "fp32", NULL},
                    *const none[] = {NULL};
  CV_TRY(lane_load(&b->method, b, none, err));
  CV_TRY(lane_load(&b->sgd, b, sgd, err));
  openblas_set_num_threads((int)b->sgd.config.values.blas_threads);
  b->has_method = b->method.config.values.method != TRAIN_METHOD_SGD;
  CV_TRY(check_ranks(b, err));
  if (!b->has_method || b->method.config.values.method == TRAIN_METHOD_ADAMW) return CURVD_OK;
  CV_TRY(check_period(b, "factor_update_steps", err));
  return check_period(b, "inv_update_steps", err);
}

static curvd_status open_worker(bench *b, cv_error *err) {
  CV_TRY(step_check_sgd(err));
  CV_TRY(lane_start(&b->sgd, MPI_COMM_SELF, err));
  b->has_products = products_exist(&b->sgd.trainer.model.spec);
  return b->has_products ? products_open(b, err) : CURVD_OK;
}

static curvd_status bench_open(bench *b, cv_error *err) {
  MPI_Comm_rank(MPI_COMM_WORLD, &b->rank);
  MPI_Comm_size(MPI_COMM_WORLD, &b->n_ranks);
  CV_TRY(load_lanes(b, err));
  curvd_status status = b->rank == 0 ? open_worker(b, err) : CURVD_OK;
  CV_TRY(trainer_agree(MPI_COMM_WORLD, status, err));
  return b->has_method ? lane_start(&b->method, MPI_COMM_WORLD, err) : CURVD_OK;
}

static void bench_close(bench *b) {
  lane_close(&b->sgd);
  lane_close(&b->method);
  model_free(&b->memory, &b->products);
}

/* ---- Measuring ---- */

/* What a wait for the curvature ranks costs is its wall clock: the worker may sleep. */
static double waited_s(const curvd_metrics *metrics) {
  return fmax(metrics->stage_wall_s[CURVD_STAGE_WAIT], metrics->stage_cpu_s[CURVD_STAGE_WAIT]);
}

/* Seconds of every stage so far. What the service does inside a backward pass is part of that pass, too. */
static void stages_read(const trainer *t, double s[STAGES]) {
  curvd_metrics metrics = {0};
  curvd_metrics_read(t->ctx, &metrics);
  for (int i = 0; i < STAGES; i++)
    s[i] = i < TRAINER_STAGES ? t->stage[i].cpu_s : metrics.stage_cpu_s[i - TRAINER_STAGES];
  s[(int)TRAINER_STAGES + (int)CURVD_STAGE_WAIT] = waited_s(&metrics);
}

/* Seconds so far of a process that is charged for its waits, asleep or not. */
static double charged_s(const lane *l) {
  curvd_metrics metrics = {0};
  curvd_metrics_read(l->trainer.ctx, &metrics);
  return cv_cpu_s() + waited_s(&metrics) - metrics.stage_cpu_s[CURVD_STAGE_WAIT];
}

/* CPU seconds so far of what makes statistics and eigenvectors: a step that has them takes longer than the others. */
static double updating_s(const lane *l) {
  const int stages[] = {CURVD_STAGE_CAPTURE, CURVD_STAGE_STATISTICS, CURVD_STAGE_AVERAGE, CURVD_STAGE_REFRESH};
  curvd_metrics metrics = {0};
  double s = l->trainer.stage[TRAINER_SAMPLED].cpu_s;
  curvd_metrics_read(l->trainer.ctx, &metrics);
  for (size_t i = 0; i < sizeof stages / sizeof *stages; i++) s += metrics.stage_cpu_s[stages[i]];
  return s;
}

/* Milliseconds of one step, over a block of steps. */
static curvd_status lane_block(const bench *b, lane *l, double *ms, cv_error *err) {
  double all_s = 0;
  l->timed = 0;
  for (int i = 0; i < b->block; i++) {
    double begin = charged_s(l), updates = updating_s(l);
    CV_TRY(trainer_step(&l->trainer, err));
    if (b->is_between && updating_s(l) > updates) continue;
    all_s += charged_s(l) - begin;
    l->timed++;
  }
  if (l->timed == 0)
    return cv_fail(
        err, CURVD_ERR_OPTION,
        "--updates no leaves no step to time: every one takes statistics; give a --factor-update-steps above 1");
  *ms = 1e3 * all_s / l->timed;
  l->last_loss = trainer_loss(&l->trainer);
  if (!isfinite(l->last_loss))
    return cv_fail(err, CURVD_ERR_NUMERIC, "check loss: %s reached a loss of %g", l->config.method, l->last_loss);
  return CURVD_OK;
}

static curvd_status lane_warm_up(const bench *b, lane *l, cv_error *err) {
  double ms;
  CV_TRY(lane_block(b, l, &ms, err));
  l->first_loss = l->last_loss;
  stages_read(&l->trainer, l->stage_begin_s);
  return CURVD_OK;
}

static double products_block(bench *b) {
  double begin = cv_cpu_s();
  for (int i = 0; i < b->block; i++) products_run(&b->products, b->sgd.config.values.batch);
  return 1e3 * (cv_cpu_s() - begin) / b->block;
}

static curvd_status run_worker(bench *b, cv_error *err) {
  if (b->has_products) products_block(b);
  CV_TRY(lane_warm_up(b, &b->sgd, err));
  if (b->has_method) CV_TRY(lane_warm_up(b, &b->method, err));
  for (int round = 0; round < b->rounds; round++) {
    if (b->has_products) b->products_ms[round] = products_block(b);
    CV_TRY(lane_block(b, &b->sgd, &b->sgd.ms[round], err));
    if (b->has_method) CV_TRY(lane_block(b, &b->method, &b->method.ms[round], err));
  }
  return CURVD_OK;
}

/* What the ranks did in all, on rank 0. */
static void gather(bench *b) {
  curvd_metrics metrics = {0};
  double mine[STAGES] = {0};
  if (b->has_method) curvd_metrics_read(b->method.trainer.ctx, &metrics);
  if (b->rank > 0) stages_read(&b->method.trainer, mine);
  MPI_Reduce(metrics.sent_bytes, b->sent_bytes, CURVD_TRAFFICS, MPI_INT64_T, MPI_SUM, 0, MPI_COMM_WORLD);
  MPI_Reduce(mine, b->served_s, STAGES, MPI_DOUBLE, MPI_SUM, 0, MPI_COMM_WORLD);
}

static curvd_status bench_run(bench *b, cv_error *err) {
  cv_error late = {.code = CURVD_OK};
  curvd_status status = b->rank == 0 ? run_worker(b, err) : trainer_serve(&b->method.trainer, err);
  if (b->rank == 0 && b->has_method) trainer_finish(&b->method.trainer, &late); /* the others serve until then */
  if (status == CURVD_OK && late.code != CURVD_OK) status = cv_fail(err, late.code, "%s", late.text);
  CV_TRY(trainer_agree(MPI_COMM_WORLD, status, err));
  gather(b);
  return CURVD_OK;
}

static curvd_status check_learning(const lane *l, cv_error *err) {
  if (l->last_loss < l->first_loss) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_NUMERIC, "check loss: %s went from %.6g in its first block to %.6g in its last one",
                 l->config.method, l->first_loss, l->last_loss);
}

static curvd_status bench_check(const bench *b, cv_error *err) {
  const train_config *v = &b->sgd.config.values;
  if (b->has_products) CV_TRY(step_check_products(&b->products, v->batch, (uint64_t)v->seed, err));
  CV_TRY(check_learning(&b->sgd, err));
  return b->has_method ? check_learning(&b->method, err) : CURVD_OK;
}

/* ---- Printing ---- */

/* A step's share of each stage that took time. */
static json_t *json_stages(const double s[STAGES], const double *begin_s, double steps) {
  json_t *stages = json_object();
  for (int i = 0; i < STAGES; i++) {
    double ms = 1e3 * (s[i] - (begin_s ? begin_s[i] : 0)) / steps;
    const char *name = i < TRAINER_STAGES ? trainer_stage_name(i) : curvd_stage_name(i - TRAINER_STAGES);
    if (ms > 0) json_object_set_new(stages, name, json_real(ms));
  }
  return stages;
}

static json_t *json_lane(const bench *b, const lane *l) {
  double s[STAGES];
  stages_read(&l->trainer, s);
  return json_stages(s, l->stage_begin_s, (double)b->rounds * b->block);
}

/* Per step, all ranks together. */
static json_t *json_sent(const bench *b) {
  double steps = ((double)b->rounds + 1) * b->block;
  json_t *sent = json_object();
  for (int i = 0; i < CURVD_TRAFFICS; i++) {
    if (b->sent_bytes[i] > 0)
      json_object_set_new(sent, curvd_traffic_name(i), json_real((double)b->sent_bytes[i] / steps));
  }
  return sent;
}

static void print_products(const bench *b, json_t *line) {
  int n = b->rounds;
  double flops = products_flops(&b->products.spec, b->sgd.config.values.batch);
  json_object_set_new(line, "products_ms", blocks_times(b->products_ms, n));
  json_object_set_new(line, "products_gflops", json_real(flops / blocks_median(b->products_ms, n) / 1e6));
  json_object_set_new(line, "sgd_over_products", blocks_ratio(b->sgd.ms, b->products_ms, n));
}

static json_t *json_precisions(const config *c) {
  static const char *const names[] = {"train_precision", "apply_precision", "statistics_precision", "refresh_precision",
                                      "matrix_unit"};
  json_t *precisions = json_object();
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    json_object_set_new(precisions, names[i], json_string(config_text(c, names[i])));
  return precisions;
}

static void print_method(const bench *b, json_t *line) {
  int n = b->rounds;
  json_object_set_new(line, "method", json_string(b->method.config.method));
  json_object_set_new(line, "precisions", json_precisions(&b->method.config));
  json_object_set_new(line, "method_timed", json_integer(b->method.timed));
  json_object_set_new(line, "method_ms", blocks_times(b->method.ms, n));
  json_object_set_new(line, "method_over_sgd", blocks_ratio(b->method.ms, b->sgd.ms, n));
  json_object_set_new(line, "method_stages_ms", json_lane(b, &b->method));
  json_object_set_new(line, "sent_bytes", json_sent(b));
  json_object_set_new(line, "curvature_ranks", json_integer(b->n_ranks - 1));
  json_object_set_new(line, "curvature_stages_ms", json_stages(b->served_s, NULL, ((double)n + 1) * b->block));
}

static void print_line(const bench *b) {
  const train_config *v = &b->sgd.config.values;
  int n = b->rounds;
  json_t *line = json_pack("{s:s, s:s, s:s, s:I, s:s, s:I, s:i, s:i}", "bench", "step", "build", curvd_build_info(),
                           "network", v->network, "batch", (json_int_t)v->batch, "data", v->data, "threads",
                           (json_int_t)v->blas_threads, "rounds", n, "block", b->block);
  if (b->has_products) print_products(b, line);
  json_object_set_new(line, "sgd_precision", json_string(config_text(&b->sgd.config, "train_precision")));
  json_object_set_new(line, "sgd_ms", blocks_times(b->sgd.ms, n));
  json_object_set_new(line, "sgd_stages_ms", json_lane(b, &b->sgd));
  if (b->has_method) print_method(b, line);
  json_dumpf(line, stdout, JSON_REAL_PRECISION(6));
  putchar('\n');
  json_decref(line);
}

/* ---- Command line ---- */

static int help(void) {
  puts(
      "usage: bench_step [--rounds N] [--block STEPS] [--method NAME] [--network N] [--batch B] [--name value ...]\n\n"
      "CPU milliseconds of a training step of one worker, one BLAS thread, as one JSON line: its bare matrix\n"
      "products (of a chain of fully connected layers only), a step of method sgd, and a step of --method (sgd: none\n"
      "further), in blocks that take turns. A step begins with gathering its batch from the examples in memory and\n"
      "ends with new weights. Under mpirun -n 1 + C, with --curvature-ranks C, the other ranks serve; what the worker\n"
      "sleeps until they have sent something counts, too.\n\n"
      "  --rounds N      blocks of each that are timed, after one that is not (default 11)\n"
      "  --block STEPS   steps in a block; a multiple of the method's intervals (default 10)\n"
      "  --updates no    steps with statistics or a refresh are taken, but not timed (default yes)\n"
      "  --sgd-lr RATE   learning rate of method sgd (default auto)\n"
      "  --name value    options of `curvd train`; default data: 10,240 examples of the synthetic teacher\n\n"
      "Exit code 1, a sentence and no line when a check fails (gradients against plain fp64 loops, products against\n"
      "the model, losses finite and falling), 2 for wrong usage.");
  return 0;
}

static curvd_status read_count(const char *name, const char *text, int most, int *count, cv_error *err) {
  char *end;
  long value = text ? strtol(text, &end, 10) : 0;
  if (text == NULL || *text == '\0' || *end != '\0' || value < 1 || value > most)
    return cv_fail(err, CURVD_ERR_OPTION, "%s needs a number from 1 to %d, not '%s'", name, most, text ? text : "");
  *count = (int)value;
  return CURVD_OK;
}

static curvd_status read_updates(const char *name, const char *text, bool *is_between, cv_error *err) {
  *is_between = text && strcmp(text, "no") == 0;
  if (*is_between || (text && strcmp(text, "yes") == 0)) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_OPTION, "%s is yes or no, not '%s'", name, text ? text : "");
}

/* The configuration reads it. */
static curvd_status read_rate(const char *name, const char *text, const char **rate, cv_error *err) {
  if (text == NULL) return cv_fail(err, CURVD_ERR_OPTION, "%s needs a learning rate", name);
  *rate = text;
  return CURVD_OK;
}

/* Takes out our own words and keeps the others. */
static curvd_status read_words(bench *b, int argc, char **argv, cv_error *err) {
  if (argc > GIVEN_MAX) return cv_fail(err, CURVD_ERR_OPTION, "more than %d words", (int)GIVEN_MAX);
  for (int i = 0; i < argc; i++) {
    const char *value = i + 1 < argc ? argv[i + 1] : NULL;
    if (strcmp(argv[i], "--rounds") == 0)
      CV_TRY(read_count(argv[i++], value, ROUNDS_MAX, &b->rounds, err));
    else if (strcmp(argv[i], "--block") == 0)
      CV_TRY(read_count(argv[i++], value, 100000, &b->block, err));
    else if (strcmp(argv[i], "--updates") == 0)
      CV_TRY(read_updates(argv[i++], value, &b->is_between, err));
    else if (strcmp(argv[i], "--sgd-lr") == 0)
      CV_TRY(read_rate(argv[i++], value, &b->sgd_lr, err));
    else
      b->word[b->n_words++] = argv[i];
  }
  return CURVD_OK;
}

static curvd_status bench_main(bench *b, int argc, char **argv, cv_error *err) {
  CV_TRY(read_words(b, argc, argv, err));
  curvd_status status = bench_open(b, err);
  if (status == CURVD_OK) status = bench_run(b, err);
  if (b->rank == 0 && status == CURVD_OK) status = bench_check(b, err);
  if (b->rank == 0 && status == CURVD_OK) print_line(b);
  bench_close(b);
  return status;
}

int main(int argc, char **argv) {
  static bench b = {.rounds = 11,
                    .block = 10,
                    .word = {"--data", "teacher", "--teacher-samples", "12288"},
                    .n_words = 4,
                    .sgd_lr = "auto"};
  cv_error err = {.code = CURVD_OK};
  for (int i = 1; i < argc; i++)
    if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return help();
  if (MPI_Init(NULL, NULL) != MPI_SUCCESS) return 1;
  curvd_status status = bench_main(&b, argc - 1, argv + 1, &err);
  if (b.rank == 0 && status != CURVD_OK) fprintf(stderr, "bench_step: %s\n", err.text);
  mpi_end();
  return status == CURVD_OK ? 0 : status == CURVD_ERR_OPTION ? 2 : 1;
}

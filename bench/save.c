/* What a checkpoint costs the training step: blocks of steps with one save in the first of them, and blocks without,
 * that take turns inside one run. Time is CPU time of the worker's process, the thread that hashes and writes included,
 * and what the worker sleeps until curvature ranks have sent something; a block ends when its checkpoint is there.
 * Prints one JSON line. */
#include "blocks.h"
#include "train/mpi_end.h"
#include "train/trainer_state.h"

#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { GIVEN_MAX = 112 };

typedef struct bench {
  int rounds, block;
  config config;
  trainer trainer;
  trainer_state state;
  saver *saver;
  char folder[64];
  double plain_ms[BLOCKS_MAX], saved_ms[BLOCKS_MAX]; /* of one step */
  double copy_ms[BLOCKS_MAX];                        /* of one save: what it holds the step up for */
  saver_outcome last;
} bench;

static curvd_status open_all(bench *b, int argc, char **argv, cv_error *err) {
  char steps[24];
  const char *word[GIVEN_MAX + 8] = {"--data", "fashion-mnist", "--lr-decay", "constant", "--steps", steps};
  snprintf(steps, sizeof steps, "%d", (2 * b->rounds + 1) * b->block);
  for (int i = 0; i < argc; i++) word[6 + i] = argv[i];
  CV_TRY(config_load(6 + argc, (char *const *)word, &b->config, err));
  openblas_set_num_threads((int)b->config.values.blas_threads);
  return trainer_create(&b->config, MPI_COMM_WORLD, &b->trainer, err);
}

static curvd_status open_saver(bench *b, cv_error *err) {
  trainer *t = &b->trainer;
  snprintf(b->folder, sizeof b->folder, "/tmp/curvd-bench-XXXXXX");
  if (t->rank == 0 && !mkdtemp(b->folder)) return cv_fail(err, CURVD_ERR_IO, "no folder in /tmp");
  MPI_Bcast(b->folder, (int)sizeof b->folder, MPI_CHAR, 0, t->world);
  const saver_settings settings = {.folder = b->folder,
                                   .rank = t->rank,
                                   .n_ranks = t->n_ranks,
                                   .keep = 1,
                                   .patience_s = 60,
                                   .about = t->rank == 0 ? json_object() : NULL};
  CV_TRY(saver_create(&settings, &b->saver, err));
  b->state.saver = b->saver;
  memcpy(b->state.own, b->folder, sizeof b->folder);
  return trainer_state_hook(&b->state, t, err);
}

/* As a process that is charged for its waits, asleep or not. */
static double charged_s(const trainer *t) {
  curvd_metrics m = {0};
  curvd_metrics_read(t->ctx, &m);
  return cv_cpu_s() + fmax(m.stage_wall_s[CURVD_STAGE_WAIT] - m.stage_cpu_s[CURVD_STAGE_WAIT], 0);
}

static curvd_status save(bench *b, double *copy_ms, cv_error *err) {
  double begin = cv_wall_s();
  CV_TRY(trainer_state_save(&b->state, err));
  *copy_ms = 1e3 * (cv_wall_s() - begin);
  return CURVD_OK;
}

static curvd_status run_block(bench *b, double *ms, double *copy_ms, cv_error *err) {
  trainer *t = &b->trainer;
  double begin = charged_s(t);
  for (int i = 0; i < b->block; i++) {
    if (i == 0 && copy_ms) CV_TRY(save(b, copy_ms, err));
    CV_TRY(trainer_step(t, err));
  }
  if (copy_ms) saver_wait(b->saver);
  *ms = 1e3 * (charged_s(t) - begin) / b->block;
  while (saver_outcome_take(b->saver, &b->last)) {
    if (b->last.error.code != CURVD_OK) return cv_fail(err, b->last.error.code, "%s", b->last.error.text);
  }
  return isfinite(trainer_loss(t)) ? CURVD_OK : cv_fail(err, CURVD_ERR_NUMERIC, "check loss: it is not finite");
}

/* Pairs change their order from one to the next. The first block has buffers made, and is not counted. */
static curvd_status run_worker(bench *b, cv_error *err) {
  CV_TRY(run_block(b, &b->saved_ms[0], &b->copy_ms[0], err));
  for (int i = 0; i < b->rounds; i++) {
    if (i % 2 == 0) CV_TRY(run_block(b, &b->plain_ms[i], NULL, err));
    CV_TRY(run_block(b, &b->saved_ms[i], &b->copy_ms[i], err));
    if (i % 2 == 1) CV_TRY(run_block(b, &b->plain_ms[i], NULL, err));
  }
  return CURVD_OK;
}

static curvd_status run(bench *b, cv_error *err) {
  trainer *t = &b->trainer;
  if (!trainer_is_worker(t)) return trainer_serve(t, err);
  curvd_status status = run_worker(b, err);
  cv_error late = {0};
  trainer_finish(t, &late);
  return status;
}

/* The checkpoint must be one: it is read again, every byte. */
static curvd_status check(const bench *b, cv_error *err) {
  char path[128];
  checkpoint *cp = NULL;
  if (!checkpoint_path(b->folder, b->last.step, path, sizeof path))
    return cv_fail(err, CURVD_ERR_IO, "%s is too long", b->folder);
  CV_TRY(checkpoint_open(path, &cp, err));
  curvd_status status = checkpoint_verify(cp, NULL, NULL, err);
  checkpoint_close(&cp);
  return status;
}

static void print(const bench *b) {
  const train_config *v = &b->config.values;
  int n = b->rounds;
  json_t *line = json_pack("{s:s, s:s, s:s, s:I, s:i, s:i, s:i}", "bench", "save", "network", v->network, "method",
                           b->config.method, "batch", (json_int_t)v->batch, "rounds", n, "block", b->block,
                           "curvature_ranks", b->trainer.n_ranks - b->trainer.n_workers);
  json_object_set_new(line, "plain_ms", blocks_times(b->plain_ms, n));
  json_object_set_new(line, "saved_ms", blocks_times(b->saved_ms, n));
  json_object_set_new(line, "saved_over_plain", blocks_ratio(b->saved_ms, b->plain_ms, n));
  json_object_set_new(line, "copy_ms", blocks_times(b->copy_ms, n));
  json_object_set_new(line, "shard_bytes", json_integer((json_int_t)b->last.bytes));
  json_dumpf(line, stdout, JSON_REAL_PRECISION(6));
  putchar('\n');
  json_decref(line);
}

/* mkdtemp made it, and the saver its checkpoints. */
static void remove_folder(const bench *b) {
  char command[128];
  snprintf(command, sizeof command, "rm -rf '%s'", b->folder);
  if (b->trainer.rank == 0 && b->folder[0] != '\0' && system(command) != 0) fprintf(stderr, "%s is left\n", b->folder);
}

static int help(void) {
  puts("usage: bench_save [--rounds N] [--block STEPS] [--name value ...]\n\n"
       "CPU milliseconds of a training step in blocks with one checkpoint each, and in blocks without, that take "
       "turns,\n"
       "as one JSON line; under mpirun with --curvature-ranks C the last C ranks serve. Checkpoints go to /tmp.\n\n"
       "  --rounds N      pairs of blocks that are timed (default 11)\n"
       "  --block STEPS   steps in a block (default 100)\n"
       "  --name value    options of `curvd train`\n\n"
       "Exit code 1 when a check fails (losses finite, the last checkpoint sound), 2 for wrong usage.");
  return 0;
}

static curvd_status read_words(bench *b, int *argc, char **argv, cv_error *err) {
  int kept = 0;
  for (int i = 0; i < *argc; i++) {
    int *count = strcmp(argv[i], "--rounds") == 0 ? &b->rounds : strcmp(argv[i], "--block") == 0 ? &b->block : NULL;
    if (!count) {
      argv[kept++] = argv[i];
      continue;
    }
    int64_t value = 0;
    if (++i < *argc) value = strtol(argv[i], NULL, 10);
    if (value < 1 || value > BLOCKS_MAX)
      return cv_fail(err, CURVD_ERR_OPTION, "%s needs a number from 1 to %d", argv[i - 1], (int)BLOCKS_MAX);
    *count = (int)value;
  }
  *argc = kept;
  return kept <= GIVEN_MAX ? CURVD_OK : cv_fail(err, CURVD_ERR_OPTION, "more than %d words", (int)GIVEN_MAX);
}

static curvd_status bench_main(bench *b, int argc, char **argv, cv_error *err) {
  CV_TRY(read_words(b, &argc, argv, err));
  CV_TRY(open_all(b, argc, argv, err));
  curvd_status status = trainer_agree(MPI_COMM_WORLD, open_saver(b, err), err);
  if (status == CURVD_OK) status = trainer_agree(MPI_COMM_WORLD, run(b, err), err);
  saver_free(&b->saver);
  if (status == CURVD_OK && b->trainer.rank == 0) status = check(b, err);
  if (status == CURVD_OK && b->trainer.rank == 0) print(b);
  remove_folder(b);
  trainer_free(&b->trainer);
  config_free(&b->config);
  return status;
}

int main(int argc, char **argv) {
  static bench b = {.rounds = 11, .block = 100};
  cv_error err = {.code = CURVD_OK};
  int rank = 0;
  for (int i = 1; i < argc; i++)
    if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return help();
  if (MPI_Init(NULL, NULL) != MPI_SUCCESS) return 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  curvd_status status = bench_main(&b, argc - 1, argv + 1, &err);
  if (rank == 0 && status != CURVD_OK) fprintf(stderr, "bench_save: %s\n", err.text);
  mpi_end();
  return status == CURVD_OK ? 0 : status == CURVD_ERR_OPTION ? 2 : 1;
}

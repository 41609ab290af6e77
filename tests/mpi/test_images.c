/* Convolutional networks trained on images by several ranks: with normalisations over all examples a run does not
 * depend on the split of the ranks, whatever else is drawn (dropout, crops, sampled targets) or cut (pieces); over a
 * worker's own examples it does.
 *
 * Tolerance: splits differ in the order of fp32 sums, 6e-8 a step, 7e-7 in 12 steps, which a smooth network (tanh, no
 * maxima) at small learning rates does not amplify tenfold: 1e-5 is beyond it. */
#include "mpi_assert.h"
#include "unit/data_files.h"

#include "base/rng.h"
#include "train/trainer.h"

#include <math.h>

#define COUNT(list) (sizeof list / sizeof list[0])

enum { STEPS = 12, SIDE = 8, CHANNELS = 2, CLASSES = 3, TRAIN = 120, TEST = 63, WEIGHTS_MAX = 4096, RUNNING_MAX = 64 };

static const double CLOSE = 1e-5;

static const char network[] = "- input: 8x8x2\n"
                              "- conv: 4\n  kernel: 3\n  pad: 1\n  bias: false\n"
                              "- norm: batch\n  name: way\n  activation: tanh\n"
                              "- conv: 4\n  kernel: 3\n  pad: 1\n  groups: 2\n"
                              "- norm: batch\n"
                              "- add: way\n  activation: tanh\n"
                              "- average: 2\n"
                              "- dropout: 0.2\n"
                              "- dense: 3\n";

/* ---- a data set of bright squares: the class is where they are ---- */

static void draw(int64_t i, uint8_t *image) {
  const cv_rng rng = {.seed = 5, .stream = CV_RNG_PROBE, .a = (uint32_t)i};
  int64_t square = i % CLASSES * 2;
  for (int64_t k = 0; k < SIDE * SIDE * CHANNELS; k++) {
    int64_t y = k / CHANNELS / SIDE, x = k / CHANNELS % SIDE;
    bool is_bright = y >= square && y < square + 4 && x >= 2 && x < 6;
    image[k] = (uint8_t)(cv_rng_uniform(&rng, (uint64_t)k) * (is_bright ? 255 : 120));
  }
}

static void write_half(const char *examples, const char *labels, int64_t first, int64_t n) {
  static uint8_t pixels[TRAIN + TEST][SIDE * SIDE * CHANNELS], class_of[TRAIN + TEST];
  char shape[80];
  for (int64_t i = 0; i < n; i++) {
    draw(first + i, pixels[i]);
    class_of[i] = (uint8_t)((first + i) % CLASSES);
  }
  snprintf(shape, sizeof shape, "%d, %d, %d, %d", (int)n, (int)SIDE, (int)SIDE, (int)CHANNELS);
  write_npy(examples, "|u1", shape, pixels, (size_t)n * sizeof pixels[0]);
  snprintf(shape, sizeof shape, "%d,", (int)n);
  write_npy(labels, "|u1", shape, class_of, (size_t)n);
}

static int rank_of(MPI_Comm comm) {
  int rank;
  MPI_Comm_rank(comm, &rank);
  return rank;
}

static int size_of(MPI_Comm comm) {
  int size;
  MPI_Comm_size(comm, &size);
  return size;
}

/* All ranks read the network, rank 0 the data. */
static void write_folder(void) {
  if (rank_of(MPI_COMM_WORLD) == 0 && mkdtemp(folder) != NULL) {
    write_half("train_x.npy", "train_y.npy", 0, TRAIN);
    write_half("test_x.npy", "test_y.npy", TRAIN, TEST);
    write_parts("net.yaml", network, strlen(network), "", 0);
  }
  MPI_Bcast(folder, sizeof folder, MPI_CHAR, 0, MPI_COMM_WORLD);
}

static void remove_folder(void) {
  MPI_Barrier(MPI_COMM_WORLD);
  if (rank_of(MPI_COMM_WORLD) != 0) return;
  after_each();
  rmdir(folder);
}

/* ---- runs ---- */

typedef struct training {
  double loss[STEPS];
  trainer_score before, after;
  float weight[WEIGHTS_MAX], running[RUNNING_MAX]; /* running: as evaluated */
} training;

static curvd_status configure(const char *options, int n_curvature, config *c, cv_error *why) {
  char text[1024], *words[96];
  int n = 0;
  snprintf(text, sizeof text,
           "--data %s --network %s/net.yaml --steps %d --seed 3 --lr-decay constant --eig-rank 6 --oversampling 2 "
           "--augment crop-flip --augment-pad 2 --norm-statistics all --curvature-ranks %d %s",
           folder, folder, (int)STEPS, n_curvature, options);
  for (char *word = strtok(text, " "); word; word = strtok(NULL, " ")) words[n++] = word;
  return config_load(n, words, c, why);
}

/* Takes the numbers of every normalisation to or from a list. */
static void running_of(const trainer *t, float *list, bool is_set) {
  for (int i = 0; i < t->model.spec.n_layers; i++) {
    const nn_layer *layer = &t->model.layer[i];
    if (layer->spec.kind != NN_NORM) continue;
    size_t count = (size_t)(2 * layer->d_out);
    memcpy(is_set ? nn_norm_running(layer) : list, is_set ? list : nn_norm_running(layer), count * sizeof *list);
    list += count;
  }
}

static void weights_of(const trainer *t, float *list, bool is_set) {
  for (int i = 0; i < t->model.spec.n_layers; i++) {
    const nn_layer *layer = &t->model.layer[i];
    size_t count = layer->weight ? (size_t)(layer->d_out * layer->ld) : 0;
    if (count > 0) memcpy(is_set ? layer->weight : list, is_set ? list : layer->weight, count * sizeof *list);
    list += count;
  }
}

static curvd_status train_worker(trainer *t, training *out, cv_error *why) {
  out->before = trainer_evaluate(t);
  for (int i = 0; i < STEPS; i++) {
    CV_TRY(trainer_step(t, why));
    out->loss[i] = trainer_loss(t);
  }
  out->after = trainer_evaluate(t);
  weights_of(t, out->weight, false);
  running_of(t, out->running, false);
  return trainer_finish(t, why);
}

/* On a worker, out is the run; on a curvature rank it is zero. */
static curvd_status train(MPI_Comm comm, const char *options, int n_curvature, training *out, cv_error *why) {
  static trainer t;
  config c;
  memset(out, 0, sizeof *out);
  CV_TRY(configure(options, n_curvature, &c, why));
  curvd_status status = trainer_create(&c, comm, &t, why);
  if (status == CURVD_OK) status = trainer_is_worker(&t) ? train_worker(&t, out, why) : trainer_serve(&t, why);
  trainer_free(&t);
  config_free(&c);
  return status;
}

static void run(MPI_Comm comm, const char *options, int n_curvature, training *out) {
  cv_error why = {0};
  curvd_status status = train(comm, options, n_curvature, out, &why);
  mpi_assert_msg(status == CURVD_OK, "%s, %d curvature ranks: %s", options, n_curvature, why.text);
}

/* Largest relative distance of two losses; NaN counts as infinite. */
static double loss_distance(const training *x, const training *y) {
  double worst = fabs(x->after.loss / y->after.loss - 1);
  for (int i = 0; i < STEPS; i++) {
    double d = fabs(x->loss[i] / y->loss[i] - 1);
    worst = isfinite(d) ? fmax(worst, d) : INFINITY;
  }
  return isfinite(worst) ? worst : INFINITY;
}

static double list_distance(const float *x, const float *y, int n) {
  double difference = 0, norm = 0;
  for (int i = 0; i < n; i++) {
    difference += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
    norm += (double)y[i] * y[i];
  }
  return sqrt(difference / norm);
}

static training reference, first, second, of_rank_0;

/* The same bits again, and on every worker. */
static void check_bits(const char *options, int c) {
  run(MPI_COMM_WORLD, options, c, &second);
  mpi_assert_msg(memcmp(&first, &second, sizeof first) == 0, "%s, %d curvature ranks: other bits again", options, c);
  of_rank_0 = first;
  MPI_Bcast(&of_rank_0, sizeof of_rank_0, MPI_BYTE, 0, MPI_COMM_WORLD);
  bool is_worker = rank_of(MPI_COMM_WORLD) < size_of(MPI_COMM_WORLD) - c;
  mpi_assert_msg(!is_worker || memcmp(&first, &of_rank_0, sizeof first) == 0, "%s, %d curvature ranks: not rank 0's",
                 options, c);
}

/* Against `reference`. */
static void check_run(const char *options, int c) {
  bool is_worker = rank_of(MPI_COMM_WORLD) < size_of(MPI_COMM_WORLD) - c;
  run(MPI_COMM_WORLD, options, c, &first);
  double d[3] = {loss_distance(&first, &reference), list_distance(first.weight, reference.weight, WEIGHTS_MAX),
                 list_distance(first.running, reference.running, RUNNING_MAX)};
  mpi_assert_msg(!is_worker || (d[0] < CLOSE && d[1] < CLOSE && d[2] < CLOSE),
                 "%s, %d curvature ranks: losses %.1e, weights %.1e, running statistics %.1e apart", options, c, d[0],
                 d[1], d[2]);
  mpi_assert(!is_worker ||
             (first.before.accuracy == reference.before.accuracy && first.after.accuracy == reference.after.accuracy));
}

static void check_splits(const char *options, int most_curvature) {
  int size = size_of(MPI_COMM_WORLD);
  run(MPI_COMM_SELF, options, 0, &reference);
  for (int c = 0; c < size && c <= most_curvature; c++) check_run(options, c);
}

/* ---- tests ---- */

/* A batch of 10 is divided by 1 and 2 workers. */
START_TEST(training_does_not_depend_on_the_split) {
  static const char *const some[] = {"--batch 10 --method sgd --lr 0.02",
                                     "--batch 10 --method nystrom-kfac --lr 1e-3 --factor-update-steps 2 "
                                     "--inv-update-steps 4"};
  for (size_t i = 0; i < COUNT(some); i++) {
    int most = i == 0 ? 0 : 2;
    run(MPI_COMM_SELF, some[i], 0, &reference);
    for (int c = 0; c < size_of(MPI_COMM_WORLD) && c <= most; c++) {
      check_run(some[i], c);
      check_bits(some[i], c);
    }
    mpi_assert_msg(reference.after.loss < 0.995 * reference.before.loss, "%s: the loss went from %g to %g", some[i],
                   reference.before.loss, reference.after.loss);
  }
}
END_TEST

/* Pieces are cut from the whole batch, so that a normalisation takes the same examples together on any number of
 * workers; they show in it. */
START_TEST(pieces_do_not_depend_on_the_split) {
  static const char *const some[] = {"--batch 10 --method sgd --lr 0.02",
                                     "--batch 10 --method kfac --lr 2e-4 --fisher empirical --fisher-stride 1",
                                     "--batch 11 --method nystrom-kfac --lr 2e-4 --factor-update-steps 2 "
                                     "--inv-update-steps 4 --fisher-stride 3"};
  for (size_t i = 0; i < COUNT(some); i++) {
    char pieces[300];
    snprintf(pieces, sizeof pieces, "%s --accumulate 2", some[i]);
    check_splits(pieces, i == 0 ? 0 : 1);
    run(MPI_COMM_SELF, some[i], 0, &first);
    mpi_assert_msg(loss_distance(&first, &reference) > 10 * CLOSE, "%s: pieces do not show", some[i]);
  }
}
END_TEST

/* From three workers on, some have no example, or none in a piece. */
START_TEST(workers_without_examples) {
  static const char *const some[] = {
      "--batch 2 --method sgd --lr 0.02", "--batch 2 --method nystrom-kfac --lr 2e-4 --fisher-stride 1",
      "--batch 3 --accumulate 3 --method nystrom-kfac --lr 2e-4", "--batch 2 --method kfac --lr 2e-4 --apply factored"};
  for (size_t i = 0; i < COUNT(some); i++) check_splits(some[i], i == 0 ? 0 : 1);
}
END_TEST

/* Statistics of a worker's own examples are others on two workers. One worker has all examples. */
START_TEST(local_statistics_depend_on_the_split) {
  static const char options[] = "--batch 10 --method sgd --lr 0.02 --norm-statistics local";
  run(MPI_COMM_SELF, "--batch 10 --method sgd --lr 0.02", 0, &first);
  run(MPI_COMM_SELF, options, 0, &reference);
  mpi_assert(memcmp(&first, &reference, sizeof first) == 0);
  run(MPI_COMM_WORLD, options, 0, &first);
  double d = loss_distance(&first, &reference);
  mpi_assert_msg(size_of(MPI_COMM_WORLD) == 1 ? d == 0 : d > 10 * CLOSE, "%.1e apart", d);
  check_bits(options, 0); /* running statistics are the same everywhere once evaluated */
}
END_TEST

/* Two examples on more than two workers: two of them have one each, as on two workers; the others have seen nothing
 * that running statistics could take. */
START_TEST(local_statistics_of_two_examples) {
  static const char options[] = "--batch 2 --method sgd --lr 0.02 --norm-statistics local";
  cv_error why = {0};
  curvd_status status = CURVD_OK;
  MPI_Comm two;
  if (size_of(MPI_COMM_WORLD) < 3) return;
  MPI_Comm_split(MPI_COMM_WORLD, rank_of(MPI_COMM_WORLD) < 2 ? 0 : MPI_UNDEFINED, 0, &two);
  if (two != MPI_COMM_NULL) {
    status = train(two, options, 0, &reference, &why);
    MPI_Comm_free(&two);
  }
  mpi_assert_msg(status == CURVD_OK, "%s", why.text);
  MPI_Bcast(&reference, sizeof reference, MPI_BYTE, 0, MPI_COMM_WORLD);
  check_run(options, 0);
}
END_TEST

/* Steps on all ranks; then one process with their weights and running statistics must see the same accuracy. */
static curvd_status evaluate_twice(trainer *t, trainer *alone, trainer_score scores[3], cv_error *why) {
  static float weight[WEIGHTS_MAX], running[RUNNING_MAX];
  for (int i = 0; i < STEPS; i++) CV_TRY(trainer_step(t, why));
  scores[0] = trainer_evaluate(t);
  scores[1] = trainer_evaluate(t);
  weights_of(t, weight, false);
  running_of(t, running, false);
  weights_of(alone, weight, true);
  running_of(alone, running, true);
  scores[2] = trainer_evaluate(alone);
  CV_TRY(trainer_finish(alone, why));
  return trainer_finish(t, why);
}

START_TEST(any_number_of_workers_evaluates_alike) {
  static trainer t, alone;
  static const char *const kinds[] = {"all", "local"};
  for (size_t i = 0; i < COUNT(kinds); i++) {
    config c, d;
    cv_error why = {0};
    trainer_score scores[3] = {{0, 0}, {1, 0}, {2, 0}};
    char options[200];
    snprintf(options, sizeof options, "--batch 14 --method sgd --lr 0.05 --norm-statistics %s", kinds[i]);
    mpi_assert(configure(options, 0, &c, &why) == CURVD_OK && configure(options, 0, &d, &why) == CURVD_OK);
    mpi_assert(trainer_create(&c, MPI_COMM_WORLD, &t, &why) == CURVD_OK);
    mpi_assert(trainer_create(&d, MPI_COMM_SELF, &alone, &why) == CURVD_OK);
    curvd_status status = evaluate_twice(&t, &alone, scores, &why);
    trainer_free(&t);
    trainer_free(&alone);
    config_free(&c);
    config_free(&d);
    mpi_assert_msg(status == CURVD_OK, "%s", why.text);
    mpi_assert_msg(fabs(scores[0].loss / scores[2].loss - 1) < 1e-6 && scores[0].accuracy == scores[2].accuracy &&
                       fabs(scores[1].loss / scores[0].loss - 1) < 1e-6 && scores[1].accuracy == scores[0].accuracy,
                   "%s: %g and %g, %g and %g, alone %g and %g", kinds[i], scores[0].loss, scores[0].accuracy,
                   scores[1].loss, scores[1].accuracy, scores[2].loss, scores[2].accuracy);
  }
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {
      training_does_not_depend_on_the_split, pieces_do_not_depend_on_the_split, workers_without_examples,
      local_statistics_depend_on_the_split,  local_statistics_of_two_examples,  any_number_of_workers_evaluates_alike};
  Suite *suite = suite_create("images");
  TCase *tcase = tcase_create("images");
  tcase_add_unchecked_fixture(tcase, write_folder, remove_folder);
  for (size_t i = 0; i < COUNT(tests); i++) tcase_add_test(tcase, tests[i]);
  suite_add_tcase(suite, tcase);
  return suite;
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}

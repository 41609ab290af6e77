/* What our convolutions cost beside oneDNN called bare, over the layers of VGG16 for 32 x 32 images (13 convolutions)
 * and of a small network (5). Prints one JSON line. */
#include "base/clock.h"
#include "base/number.h"
#include "base/rng.h"
#include "conv_bare.h"
#include "curvd.h"

#include <cblas.h>
#include <jansson.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int help(void) {
  puts("usage: bench_conv [--name value ...]\n\n"
       "CPU milliseconds of a forward and backward pass (gradients in input and weight, the weight's alone in a first\n"
       "layer) of every convolution of VGG16 for 32 x 32 x 3 images, 64 rows, and of a network of five, 128 rows, by "
       "our\n"
       "kernels and by oneDNN called bare in the layouts that it likes best, in turn, on one thread. Each shape is "
       "timed\n"
       "once a round and counts as often as the networks have it; results are compared before the first round.\n\n"
       "  --rounds N                     (default 11)\n"
       "  --kernels onednn|plain         ours (default onednn)\n"
       "  --precision fp32|bf16          of ours (default fp32); bare oneDNN stays fp32\n"
       "  --rows N                       instead of 64 and 128\n"
       "  --seed N                       (default 1)\n\n"
       "Exit code 1, a sentence and no line when a check fails, 2 for wrong usage.");
  return 0;
}

enum { ROUNDS_MAX = 101 };

typedef struct conv_options {
  int64_t rounds, rows, seed;
  const char *kernels, *precision;
  cv_multiplier by;
} conv_options;

/* A square convolution 3 x 3, stride 1, padding 1, and how many layers are like that. */
typedef struct layer {
  int64_t rows, c_in, c_out, size;
  int count;
  bool is_first;
} layer;

static const layer layers[] = {{64, 3, 64, 32, 1, true},     {64, 64, 64, 32, 1, false},  {64, 64, 128, 16, 1, false},
                               {64, 128, 128, 16, 1, false}, {64, 128, 256, 8, 1, false}, {64, 256, 256, 8, 2, false},
                               {64, 256, 512, 4, 1, false},  {64, 512, 512, 4, 2, false}, {64, 512, 512, 2, 3, false},
                               {128, 1, 32, 28, 1, true},    {128, 32, 64, 14, 1, false}, {128, 64, 128, 7, 1, false},
                               {128, 128, 256, 3, 1, false}, {128, 256, 256, 3, 1, false}};
enum { LAYERS = sizeof layers / sizeof *layers };

typedef struct pair {
  nn_conv shape;
  int64_t rows, n_x, n_y, n_w, ld;
  bool has_input;
  float *x, *w, *g, *y, *dx, *dw;
  void *state;
  conv_bare *bare;
  double ours_ms[ROUNDS_MAX], bare_ms[ROUNDS_MAX];
} pair;

static pair pairs[LAYERS];

/* ---- command line ---- */

static curvd_status read_word(conv_options *o, const char *name, const char *text, cv_error *err) {
  static const char *const names[] = {"--rounds", "--rows", "--seed"};
  int64_t *const values[] = {&o->rounds, &o->rows, &o->seed};
  const int64_t most[] = {ROUNDS_MAX, 1024, INT32_MAX};
  if (text == NULL) return cv_fail(err, CURVD_ERR_OPTION, "%s needs a value", name);
  if (strcmp(name, "--kernels") == 0 || strcmp(name, "--precision") == 0) {
    *(strcmp(name, "--kernels") == 0 ? &o->kernels : &o->precision) = text;
    return CURVD_OK;
  }
  int at = 0;
  while (at < 3 && strcmp(name, names[at]) != 0) at++;
  if (at == 3) return cv_fail(err, CURVD_ERR_OPTION, "no option %s; see --help", name);
  if (!cv_integer_parse(text, values[at]) || *values[at] < 1 || *values[at] > most[at])
    return cv_fail(err, CURVD_ERR_OPTION, "%s takes no '%s'; see --help", name, text);
  return CURVD_OK;
}

/* ---- one shape ---- */

static curvd_status random_array(cv_memory *memory, const conv_options *o, uint32_t layer_index, uint32_t what,
                                 int64_t n, float **made, cv_error *err) {
  CV_TRY(cv_floats_new(memory, CV_MEMORY_DATA, n, "an array", made, err));
  cv_rng rng = {.seed = (uint64_t)o->seed, .stream = CV_RNG_PROBE, .a = layer_index, .b = what};
  cv_rng_normal(&rng, 0, n, *made);
  return CURVD_OK;
}

static curvd_status make_pair(const conv_options *o, const nn_kernels *kernels, int i, cv_memory *memory,
                              cv_error *err) {
  const layer *l = &layers[i];
  pair *p = &pairs[i];
  p->shape = (nn_conv){l->c_in, l->c_out, 1, {l->size, l->size}, {0}, {3, 3}, {1, 1}, {1, 1}, {1, 1}};
  CV_TRY(nn_conv_size(&p->shape, err));
  p->rows = o->rows > 0 ? o->rows : l->rows;
  p->ld = nn_conv_d_in(&p->shape) + 1;
  p->has_input = !l->is_first;
  p->n_x = p->rows * l->size * l->size * l->c_in;
  p->n_y = p->rows * l->size * l->size * l->c_out;
  p->n_w = l->c_out * p->ld;
  CV_TRY(random_array(memory, o, (uint32_t)i, 0, p->n_x, &p->x, err));
  CV_TRY(random_array(memory, o, (uint32_t)i, 1, p->n_w, &p->w, err));
  CV_TRY(random_array(memory, o, (uint32_t)i, 2, p->n_y, &p->g, err));
  CV_TRY(cv_floats_new(memory, CV_MEMORY_DATA, p->n_y, "an array", &p->y, err));
  CV_TRY(cv_floats_new(memory, CV_MEMORY_DATA, p->n_x, "an array", &p->dx, err));
  CV_TRY(cv_floats_new(memory, CV_MEMORY_DATA, p->n_w, "an array", &p->dw, err));
  CV_TRY(
      kernels->conv_create(&p->shape, &(nn_conv_settings){.rows_max = p->rows, .by = o->by}, memory, &p->state, err));
  p->bare = conv_bare_new(&p->shape, p->rows, p->x, p->w, p->g, p->has_input);
  return p->bare != NULL ? CURVD_OK : cv_fail(err, CURVD_ERR_MEMORY, "oneDNN makes no convolution %d", i);
}

static curvd_status run_ours(const nn_kernels *kernels, pair *p, cv_error *err) {
  CV_TRY(kernels->conv_forward(p->state, p->rows, p->x, p->w, p->ld, true, p->y, err));
  CV_TRY(kernels->conv_backward_weight(p->state, p->rows, p->x, p->g, 1, true, 0, p->dw, p->ld, err));
  return p->has_input ? kernels->conv_backward_input(p->state, p->rows, p->g, p->w, p->ld, p->dx, err) : CURVD_OK;
}

/* Frobenius norm of the difference over that of b. */
static double apart(int64_t n, const float *a, const float *b) {
  double difference = 0, size = 0;
  for (int64_t i = 0; i < n; i++) {
    difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    size += (double)b[i] * b[i];
  }
  return sqrt(difference / size);
}

/* A sum of K random terms in fp32 is off by about sqrt(K) 2^-24 of its size; K <= 2^16 here. Rounding both factors adds
 * sqrt(2) of its error, twice which is allowed. NaN is no agreement. */
static curvd_status compare(const conv_options *o, pair *p, cv_memory *memory, cv_error *err) {
  const double most = 1e-4 + 2 * sqrt(2) * cv_precision_error(o->by.precision);
  float *y = NULL, *dx = NULL, *dw = NULL;
  CV_TRY(cv_floats_new(memory, CV_MEMORY_DATA, p->n_y, "an array", &y, err));
  CV_TRY(cv_floats_new(memory, CV_MEMORY_DATA, p->n_x, "an array", &dx, err));
  CV_TRY(cv_floats_new(memory, CV_MEMORY_DATA, p->n_w, "an array", &dw, err));
  if (!conv_bare_read(p->bare, y, p->has_input ? dx : NULL, dw))
    return cv_fail(err, CURVD_ERR_STATE, "oneDNN's results cannot be read");
  bool agrees = apart(p->n_y, p->y, y) <= most && apart(p->n_w, p->dw, dw) <= most &&
                (!p->has_input || apart(p->n_x, p->dx, dx) <= most);
  if (!agrees) cv_fail(err, CURVD_ERR_NUMERIC, "check results: ours and oneDNN's differ by more than %g", most);
  cv_floats_free(memory, &y);
  cv_floats_free(memory, &dx);
  cv_floats_free(memory, &dw);
  return agrees ? CURVD_OK : CURVD_ERR_NUMERIC;
}

/* Which goes first changes from round to round. */
static curvd_status time_pair(const nn_kernels *kernels, pair *p, int64_t round, cv_error *err) {
  for (int turn = 0; turn < 2; turn++) {
    bool is_ours = turn == round % 2;
    double begin = cv_cpu_s();
    if (is_ours)
      CV_TRY(run_ours(kernels, p, err));
    else if (!conv_bare_run(p->bare))
      return cv_fail(err, CURVD_ERR_STATE, "oneDNN failed");
    *(is_ours ? &p->ours_ms[round] : &p->bare_ms[round]) = 1e3 * (cv_cpu_s() - begin);
  }
  return CURVD_OK;
}

/* ---- the line ---- */

static int by_size(const void *x, const void *y) {
  double a = *(const double *)x, b = *(const double *)y;
  return (a > b) - (a < b);
}

static double median(const double *x, int64_t n) {
  double sorted[ROUNDS_MAX];
  memcpy(sorted, x, (size_t)n * sizeof *x);
  qsort(sorted, (size_t)n, sizeof *sorted, by_size);
  return (sorted[(n - 1) / 2] + sorted[n / 2]) / 2;
}

static const char *kernel_of(const nn_kernels *kernels, const pair *p, nn_conv_result result) {
  cv_precision precision;
  return kernels->conv_kernel(p->state, result, &precision);
}

static json_t *shapes_of(const nn_kernels *kernels, int64_t rounds) {
  json_t *list = json_array();
  for (int i = 0; i < LAYERS; i++) {
    const pair *p = &pairs[i];
    json_array_append_new(list, json_pack("{s:I, s:I, s:I, s:I, s:i, s:f, s:f, s:s, s:s, s:s}", "rows",
                                          (json_int_t)p->rows, "c_in", (json_int_t)p->shape.c_in, "c_out",
                                          (json_int_t)p->shape.c_out, "size", (json_int_t)p->shape.in[0], "layers",
                                          layers[i].count, "ours_ms", median(p->ours_ms, rounds), "bare_ms",
                                          median(p->bare_ms, rounds), "y", kernel_of(kernels, p, NN_CONV_Y), "dx",
                                          kernel_of(kernels, p, NN_CONV_DX), "dw", kernel_of(kernels, p, NN_CONV_DW)));
  }
  return list;
}

static void print_line(const conv_options *o, const nn_kernels *kernels) {
  double ours[ROUNDS_MAX] = {0}, bare[ROUNDS_MAX] = {0}, ratio[ROUNDS_MAX];
  double least = INFINITY, most = 0;
  for (int64_t r = 0; r < o->rounds; r++) {
    for (int i = 0; i < LAYERS; i++) {
      ours[r] += layers[i].count * pairs[i].ours_ms[r];
      bare[r] += layers[i].count * pairs[i].bare_ms[r];
    }
    ratio[r] = ours[r] / bare[r];
    least = fmin(least, ratio[r]), most = fmax(most, ratio[r]);
  }
  json_t *line = json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:{s:f, s:f, s:f}, s:f, s:f, s:o}", "bench", "conv", "build",
                           curvd_build_info(), "kernels", o->kernels, "precision", o->precision, "rounds",
                           (json_int_t)o->rounds, "seed", (json_int_t)o->seed, "ours_over_bare", "min", least, "median",
                           median(ratio, o->rounds), "max", most, "ours_ms", median(ours, o->rounds), "bare_ms",
                           median(bare, o->rounds), "shapes", shapes_of(kernels, o->rounds));
  json_dumpf(line, stdout, JSON_REAL_PRECISION(6));
  putchar('\n');
  json_decref(line);
}

static curvd_status make_multiplier(conv_options *o, cv_memory *memory, cv_error *err) {
  void *room = NULL;
  if (strcmp(o->precision, "fp32") == 0) return CURVD_OK;
  if (strcmp(o->precision, "bf16") != 0)
    return cv_fail(err, CURVD_ERR_OPTION, "--precision takes fp32 or bf16, not '%s'", o->precision);
  CV_TRY(cv_unit_find("auto", &o->by.unit, err));
  CV_TRY(cv_memory_new(memory, CV_MEMORY_WORKSPACE, cv_multiplier_room(CV_BF16), sizeof *o->by.room, "rounded matrices",
                       &room, err));
  o->by.precision = CV_BF16;
  o->by.room = room;
  return CURVD_OK;
}

static curvd_status bench_main(int argc, char **argv, cv_error *err) {
  conv_options o = {.rounds = 11, .seed = 1, .kernels = "onednn", .precision = "fp32"};
  cv_memory memory = {0};
  const nn_kernels *kernels = NULL;
  for (int i = 0; i < argc; i += 2) CV_TRY(read_word(&o, argv[i], i + 1 < argc ? argv[i + 1] : NULL, err));
  CV_TRY(nn_kernels_find(o.kernels, &kernels, err));
  CV_TRY(make_multiplier(&o, &memory, err));
  omp_set_num_threads(1); /* of the bare calls */
  openblas_set_num_threads(1);
  for (int i = 0; i < LAYERS; i++) {
    CV_TRY(make_pair(&o, kernels, i, &memory, err));
    CV_TRY(time_pair(kernels, &pairs[i], 0, err));
    CV_TRY(compare(&o, &pairs[i], &memory, err));
  }
  for (int64_t round = 0; round < o.rounds; round++)
    for (int i = 0; i < LAYERS; i++) CV_TRY(time_pair(kernels, &pairs[i], round, err));
  print_line(&o, kernels);
  for (int i = 0; i < LAYERS; i++) {
    pair *p = &pairs[i];
    kernels->conv_free(&memory, &p->state);
    conv_bare_free(p->bare);
    float **const arrays[] = {&p->x, &p->w, &p->g, &p->y, &p->dx, &p->dw};
    for (int j = 0; j < 6; j++) cv_floats_free(&memory, arrays[j]);
  }
  void *room = o.by.room;
  cv_memory_free(&memory, &room);
  return CURVD_OK;
}

int main(int argc, char **argv) {
  cv_error err = {.code = CURVD_OK};
  for (int i = 1; i < argc; i++)
    if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return help();
  curvd_status status = bench_main(argc - 1, argv + 1, &err);
  if (status != CURVD_OK) fprintf(stderr, "bench_conv: %s\n", err.text);
  return status == CURVD_OK ? 0 : status == CURVD_ERR_OPTION ? 2 : 1;
}

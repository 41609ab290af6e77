/* A synthetic data set: a network of two layers with random weights, outputs = W2 tanh(W1 x), says what is right.
 *   classes:     x ~ N(0, 1), label = argmax of the outputs
 *   regression:  x ~ N(0, 1), targets = the outputs
 *   autoencoder: features = 1 / (1 + e^(-4 output)) of a code of few N(0, 1) numbers, so that there is a code to be
 * found Every number depends on the seed and its own position only; the sums are plain fp32 in a fixed order, not BLAS.
 */
#include "base/rng.h"
#include "train/data_parts.h"

#include <inttypes.h>
#include <math.h>
#include <stddef.h>

enum { N_HIDDEN = 64, CODE_WIDTH = 16 };
enum { DRAW_INPUTS, DRAW_FIRST, DRAW_SECOND }; /* what a number is for: a of the generator */

typedef enum teacher_task { CLASSES, REGRESSION, AUTOENCODER } teacher_task;

typedef struct teacher {
  int64_t d_in, d_out;
  float *first;  /* W1^T (d_in, N_HIDDEN) */
  float *second; /* W2^T (N_HIDDEN, d_out) */
} teacher;

static cv_rng draws(uint64_t seed, uint32_t what) {
  return (cv_rng){.seed = seed, .stream = CV_RNG_TEACHER, .a = what};
}

static curvd_status matrix_new(uint64_t seed, uint32_t what, int64_t rows, int64_t columns, cv_memory *memory,
                               float **matrix, cv_error *err) {
  CV_TRY(cv_floats_new(memory, CV_MEMORY_DATA, rows * columns, "the teacher's weights", matrix, err));
  cv_rng rng = draws(seed, what);
  float scale = 1 / sqrtf((float)rows);
  cv_rng_normal(&rng, 0, rows * columns, *matrix);
  for (int64_t i = 0; i < rows * columns; i++) (*matrix)[i] *= scale;
  return CURVD_OK;
}

static void teacher_free(cv_memory *memory, teacher *net) {
  cv_floats_free(memory, &net->first);
  cv_floats_free(memory, &net->second);
}

static curvd_status teacher_create(uint64_t seed, int64_t d_in, int64_t d_out, cv_memory *memory, teacher *net,
                                   cv_error *err) {
  *net = (teacher){.d_in = d_in, .d_out = d_out};
  curvd_status status = matrix_new(seed, DRAW_FIRST, d_in, N_HIDDEN, memory, &net->first, err);
  if (status == CURVD_OK) status = matrix_new(seed, DRAW_SECOND, N_HIDDEN, d_out, memory, &net->second, err);
  if (status != CURVD_OK) teacher_free(memory, net);
  return status;
}

/* y (columns) = x (rows) times matrix (rows, columns). */
static void multiply(int64_t rows, int64_t columns, const float *restrict x, const float *restrict matrix,
                     float *restrict y) {
  for (int64_t j = 0; j < columns; j++) y[j] = 0;
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j++) y[j] += x[i] * matrix[i * columns + j];
}

static void teacher_outputs(const teacher *net, const float *x, float *outputs) {
  float hidden[N_HIDDEN];
  multiply(net->d_in, N_HIDDEN, x, net->first, hidden);
  for (int j = 0; j < N_HIDDEN; j++) hidden[j] = (float)tanh(hidden[j]);
  multiply(N_HIDDEN, net->d_out, hidden, net->second, outputs);
}

static int32_t position_of_max(int64_t n, const float *x) {
  int64_t best = 0;
  for (int64_t j = 1; j < n; j++) best = x[j] > x[best] ? j : best;
  return (int32_t)best;
}

/* targets: (n, d_out), or with classes one row that is only used while the labels are made. */
static curvd_status arrays_new(teacher_task task, cv_memory *memory, data_set *set, cv_error *err) {
  CV_TRY(cv_floats_new(memory, CV_MEMORY_DATA, set->n * set->d_in, "the teacher's examples", &set->features, err));
  if (task == AUTOENCODER) return CURVD_OK;
  int64_t n_targets = task == CLASSES ? set->d_out : set->n * set->d_out;
  CV_TRY(cv_floats_new(memory, CV_MEMORY_DATA, n_targets, "the teacher's outputs", &set->targets, err));
  if (task == REGRESSION) return CURVD_OK;
  void *labels = NULL;
  CV_TRY(cv_memory_new(memory, CV_MEMORY_DATA, set->n, sizeof(int32_t), "the teacher's labels", &labels, err));
  set->labels = labels;
  return CURVD_OK;
}

static void fill_autoencoder(const teacher *net, const cv_rng *rng, int64_t first, data_set *set) {
  float code[CODE_WIDTH];
  for (int64_t i = 0; i < set->n; i++) {
    float *row = set->features + i * set->d_in;
    cv_rng_normal(rng, (uint64_t)((first + i) * CODE_WIDTH), CODE_WIDTH, code);
    teacher_outputs(net, code, row);
    for (int64_t j = 0; j < set->d_in; j++) row[j] = (float)(1 / (1 + exp(-4 * (double)row[j])));
  }
}

static void fill_supervised(const teacher *net, const cv_rng *rng, int64_t first, data_set *set) {
  cv_rng_normal(rng, (uint64_t)(first * set->d_in), set->n * set->d_in, set->features);
  for (int64_t i = 0; i < set->n; i++) {
    float *outputs = set->labels == NULL ? set->targets + i * set->d_out : set->targets;
    teacher_outputs(net, set->features + i * set->d_in, outputs);
    if (set->labels != NULL) set->labels[i] = position_of_max(set->d_out, outputs);
  }
}

static curvd_status check_request(const data_request *request, cv_error *err) {
  int64_t d_in = request->teacher_d_in, d_out = request->teacher_d_out, widest = d_in > d_out ? d_in : d_out;
  if (d_in < 1 || d_out < 1 || request->teacher_samples > DATA_BYTES_MAX / 4 / widest)
    return cv_fail(err, CURVD_ERR_OPTION,
                   "teacher_samples %" PRId64 " of widths %" PRId64 " and %" PRId64 " exceed %" PRId64
                   " bytes; use fewer samples",
                   request->teacher_samples, d_in, d_out, DATA_BYTES_MAX);
  return CURVD_OK;
}

curvd_status data_teacher_make(const data_request *request, int64_t first, int64_t n, cv_memory *memory, data_set *set,
                               cv_error *err) {
  CV_TRY(check_request(request, err));
  teacher_task task = request->is_autoencoder ? AUTOENCODER : request->teacher_is_regression ? REGRESSION : CLASSES;
  int64_t d_in = request->teacher_d_in, d_out = task == AUTOENCODER ? d_in : request->teacher_d_out;
  teacher net;
  *set = (data_set){.n = n, .d_in = d_in, .d_out = d_out, .shape = {1, 1, d_in}, .stored = {1, 1, d_in}};
  CV_TRY(teacher_create(request->seed, task == AUTOENCODER ? CODE_WIDTH : d_in, d_out, memory, &net, err));
  cv_rng rng = draws(request->seed, DRAW_INPUTS);
  curvd_status status = arrays_new(task, memory, set, err);
  if (status == CURVD_OK && task == AUTOENCODER) fill_autoencoder(&net, &rng, first, set);
  if (status == CURVD_OK && task != AUTOENCODER) fill_supervised(&net, &rng, first, set);
  if (task == CLASSES) cv_floats_free(memory, &set->targets);
  teacher_free(memory, &net);
  return status;
}

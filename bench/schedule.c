/* Is the simulated schedule (plan/simulate.h) that of the service? Runs of the service whose work is sleep, so
 * that two cores do for eight ranks, beside the simulation of the same seconds. Prints one JSON line a case. */
#include "base/number.h"
#include "curvd.h"
#include "schedule_run.h"
#include "train/mpi_end.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static int help(void) {
  puts(
      "usage: mpirun -n P bench_schedule [--name value ...]\n\n"
      "Training sleeps, decompositions sleep (the last owner's longest, the first one's half as long), and nothing "
      "else\n"
      "takes time. Staleness 0, 1, 5 and free, by intervals of statistics and refreshes of 1 and 1, 2 and 4, 5 and 10\n"
      "steps. The slowest owner works for 0.5, 0.9 or 1.4 times the training between two refreshes.\n\n"
      "  --curvature-ranks N   (default 0: workers own)\n"
      "  --train-ms X          of a step; of one with statistics a quarter more (default 25)\n"
      "  --steps N             of a run, and one interval of refreshes more (default 10)\n\n"
      "Exit code 1, a sentence and no further line when preconditioners have another age than simulated, or LAPACK "
      "was\n"
      "called another number of times; 2 for wrong usage.");
  return 0;
}

enum { STEPS_MAX = SCHEDULE_STEPS_MAX - 10 };
enum { STALENESSES = 4, FREE = STALENESSES - 1, INTERVALS = 3, LOADS = 3 };
static const int64_t staleness[STALENESSES] = {0, 1, 5, 12}, interval[INTERVALS][2] = {{1, 1}, {2, 4}, {5, 10}};
static const double load[LOADS] = {0.5, 0.9, 1.4};

typedef struct options {
  int64_t curvature_ranks, steps;
  double train_ms;
  int rank, n_ranks;
} options;

/* ---- command line ---- */

static curvd_status read_word(options *o, const char *name, const char *text, cv_error *err) {
  bool is_fine = false;
  if (!text) return cv_fail(err, CURVD_ERR_OPTION, "%s needs a value; see --help", name);
  if (strcmp(name, "--curvature-ranks") == 0) {
    is_fine = cv_integer_parse(text, &o->curvature_ranks) && o->curvature_ranks >= 0 && o->curvature_ranks < o->n_ranks;
  } else if (strcmp(name, "--steps") == 0) {
    is_fine = cv_integer_parse(text, &o->steps) && o->steps >= 1 && o->steps <= STEPS_MAX;
  } else if (strcmp(name, "--train-ms") == 0) {
    is_fine = cv_real_parse(text, &o->train_ms) && o->train_ms > 0 && o->train_ms <= 1000;
  } else {
    return cv_fail(err, CURVD_ERR_OPTION, "no option %s; see --help", name);
  }
  return is_fine ? CURVD_OK : cv_fail(err, CURVD_ERR_OPTION, "%s takes no '%s' on %d ranks", name, text, o->n_ranks);
}

static curvd_status read_words(options *o, int argc, char **argv, cv_error *err) {
  for (int i = 0; i < argc; i += 2) CV_TRY(read_word(o, argv[i], i + 1 < argc ? argv[i + 1] : NULL, err));
  if (o->n_ranks > 1 && o->n_ranks <= SCHEDULE_OWNERS_MAX) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_OPTION, "%d ranks: it takes 2 to %d, under mpirun; see --help", o->n_ranks,
                 SCHEDULE_OWNERS_MAX);
}

/* ---- cases ---- */

static int owners_of(const options *o) {
  return o->curvature_ranks > 0 ? (int)o->curvature_ranks : o->n_ranks;
}

/* Each load meets each staleness and each pair of intervals. */
static schedule_case case_of(const options *o, int s, int i) {
  int n = owners_of(o);
  double train_s = 1e-3 * o->train_ms, most_s = load[(s + i + 2) % LOADS] * train_s * (double)interval[i][1];
  schedule_case c = {.n_curvature = (int)o->curvature_ranks,
                     .staleness = staleness[s],
                     .is_free = s == FREE,
                     .factor_update_steps = interval[i][0],
                     .inv_update_steps = interval[i][1],
                     .steps = o->steps + interval[i][1],
                     .train_s = train_s,
                     .capture_s = train_s / 4};
  for (int k = 0; k < n; k++) c.refresh_s[k] = most_s * (n > 1 ? 0.5 + 0.5 * k / (n - 1) : 1);
  return c;
}

/* ---- lines ---- */

static json_t *both_ms(double simulated_s, double measured_s) {
  return json_pack("[f, f]", 1e3 * simulated_s, 1e3 * measured_s);
}

static double worst_load_error(const options *o, const schedule_times *simulated, const schedule_times *measured) {
  double worst = 0;
  for (int k = 0; k < owners_of(o); k++) worst = fmax(worst, fabs(simulated->load[k] - measured->load[k]));
  return worst;
}

static void print_line(const options *o, const schedule_case *c, const schedule_times *simulated,
                       const schedule_times *measured) {
  json_t *line = json_pack("{s:s, s:i, s:i, s:I, s:b, s:I, s:I, s:I, s:f}", "bench", "schedule", "workers",
                           o->n_ranks - c->n_curvature, "curvature_ranks", c->n_curvature, "staleness",
                           (json_int_t)c->staleness, "is_free", (int)c->is_free, "factor_update_steps",
                           (json_int_t)c->factor_update_steps, "inv_update_steps", (json_int_t)c->inv_update_steps,
                           "steps", (json_int_t)c->steps, "refresh_ms", 1e3 * c->refresh_s[owners_of(o) - 1]);
  json_object_set_new(line, "step_error", json_real(fabs(measured->step_s / simulated->step_s - 1)));
  json_object_set_new(line, "step_ms", both_ms(simulated->step_s, measured->step_s));
  json_object_set_new(line, "wait_ms", both_ms(simulated->wait_s, measured->wait_s));
  json_object_set_new(line, "latency_ms", both_ms(simulated->latency_s, measured->latency_s));
  json_object_set_new(line, "latency_max_ms", both_ms(simulated->latency_max_s, measured->latency_max_s));
  json_object_set_new(line, "load_error", json_real(worst_load_error(o, simulated, measured)));
  json_object_set_new(line, "age_mean", json_pack("[f, f]", simulated->age_mean, measured->age_mean));
  json_object_set_new(line, "age_p99",
                      json_pack("[I, I]", (json_int_t)simulated->age_p99, (json_int_t)measured->age_p99));
  json_object_set_new(line, "age_max",
                      json_pack("[I, I]", (json_int_t)simulated->age_max, (json_int_t)measured->age_max));
  json_dumpf(line, stdout, JSON_REAL_PRECISION(5));
  putchar('\n');
  fflush(stdout);
  json_decref(line);
}

/* By step numbers alone, so there is nothing to be off by; the means are the same sum in another order. */
static curvd_status check_ages(const schedule_case *c, const schedule_times *x, const schedule_times *y,
                               cv_error *err) {
  bool is_same = x->age_p99 == y->age_p99 && x->age_max == y->age_max && fabs(x->age_mean - y->age_mean) < 1e-9;
  if (c->is_free || is_same) return CURVD_OK;
  return cv_fail(
      err, CURVD_ERR_NUMERIC,
      "check ages: staleness %lld, intervals %lld and %lld: mean, p99 and most %g, %lld and %lld in place of "
      "%g, %lld and %lld",
      (long long)c->staleness, (long long)c->factor_update_steps, (long long)c->inv_update_steps, y->age_mean,
      (long long)y->age_p99, (long long)y->age_max, x->age_mean, (long long)x->age_p99, (long long)x->age_max);
}

static curvd_status run_case(const options *o, const schedule_case *c, cv_error *err) {
  cv_memory memory = {0};
  schedule_times simulated = {0}, measured = {0};
  CV_TRY(schedule_simulate(c, owners_of(o), &memory, &simulated, err));
  CV_TRY(schedule_run(c, &measured, err));
  curvd_status status = o->rank == 0 ? check_ages(c, &simulated, &measured, err) : CURVD_OK;
  CV_TRY(schedule_agree(status));
  if (o->rank == 0) print_line(o, c, &simulated, &measured);
  return CURVD_OK;
}

static curvd_status bench_main(int argc, char **argv, cv_error *err) {
  options o = {.train_ms = 25, .steps = 10};
  MPI_Comm_rank(MPI_COMM_WORLD, &o.rank);
  MPI_Comm_size(MPI_COMM_WORLD, &o.n_ranks);
  CV_TRY(read_words(&o, argc, argv, err));
  for (int s = 0; s < STALENESSES; s++) {
    for (int i = 0; i < INTERVALS; i++) {
      schedule_case c = case_of(&o, s, i);
      CV_TRY(run_case(&o, &c, err));
    }
  }
  return CURVD_OK;
}

/* The rank that has the sentence prints it; wrong words are the same on all. */
int main(int argc, char **argv) {
  cv_error err = {.code = CURVD_OK};
  int rank;
  for (int i = 1; i < argc; i++)
    if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return help();
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  curvd_status status = bench_main(argc - 1, argv + 1, &err);
  if (err.text[0] && (rank == 0 || status != CURVD_ERR_OPTION)) fprintf(stderr, "bench_schedule: %s\n", err.text);
  mpi_end();
  return status == CURVD_OK ? 0 : status == CURVD_ERR_OPTION ? 2 : 1;
}

#include "eig_run.h"

#include "base/clock.h"
#include "linalg/dense.h"

#include <stdio.h>
#include <string.h>

/* ---- set-up ---- */

static bool is_dist(eig_solver solver) {
  return solver != EIG_EXACT && solver != EIG_RAND;
}

static bool is_exact(eig_solver solver) {
  return solver == EIG_EXACT || solver == EIG_EXACT_DIST;
}

/* Does this solver run at this place, with this start, rank and precision? An exact one knows neither start nor
 * precision, and costs the same for every rank: only the last. The products of dist are ScaLAPACK's. */
static bool is_case(const eig_run *run, eig_solver solver, const eig_place *place, int start, int at, int precision) {
  const eig_options *o = run->options;
  if (!o->solver[solver] || is_dist(solver) != (place->nprow > 0)) return false;
  if (is_exact(solver)) return start == EIG_COLD && at == o->n_eig_ranks - 1 && precision == CV_FP32;
  if (!o->precision[precision] || (solver == EIG_RAND_DIST && precision != CV_FP32)) return false;
  return o->start[start] && !(solver == EIG_RAND_SLAB && place->npcol > 1);
}

/* In every precision, next to each other. */
static curvd_status open_precisions(eig_run *run, eig_solver solver, int start, const eig_place *place, int at,
                                    cv_eig_scratch *need, cv_error *err) {
  for (int precision = 0; precision < MULTIPLIERS; precision++) {
    if (!is_case(run, solver, place, start, at, precision)) continue;
    if (run->n_lanes == EIG_LANES_MAX) return cv_fail(err, CURVD_ERR_OPTION, "more than %d cases", EIG_LANES_MAX);
    CV_TRY(eig_lane_open(run, solver, place, start == EIG_WARM, at, (cv_precision)precision, need,
                         &run->lane[run->n_lanes++], err));
  }
  return CURVD_OK;
}

static curvd_status open_lanes(eig_run *run, cv_eig_scratch *need, cv_error *err) {
  for (int at = 0; at < run->options->n_eig_ranks; at++)
    for (int solver = 0; solver < EIG_SOLVERS; solver++)
      for (int start = 0; start < EIG_STARTS; start++)
        for (int p = 0; p < run->n_places; p++)
          CV_TRY(open_precisions(run, solver, start, &run->places[p], at, need, err));
  return CURVD_OK;
}

int64_t eig_most_rows(const eig_options *o) {
  int64_t most = 0;
  for (int i = 0; i < o->n_eig_ranks; i++)
    if (o->eig_rank[i] > most) most = o->eig_rank[i];
  return most + o->oversampling;
}

static curvd_status shared_memory(eig_run *run, cv_eig_scratch need, cv_error *err) {
  int64_t basis = (eig_most_rows(run->options) + CV_EIG_PROBES) * run->ld;
  cv_memory *m = run->memory;
  void *block;
  CV_TRY(cv_floats_new(m, CV_MEMORY_WORKSPACE, need.floats, "a solver", &run->work.floats, err));
  CV_TRY(cv_doubles_new(m, CV_MEMORY_WORKSPACE, need.doubles, "a solver", &run->work.doubles, err));
  CV_TRY(cv_memory_new(m, CV_MEMORY_WORKSPACE, need.ints, sizeof(int32_t), "a solver", &block, err));
  run->work.ints = block;
  CV_TRY(cv_floats_new(m, CV_MEMORY_WORKSPACE, basis, "a whole basis", &run->full, err));
  CV_TRY(cv_floats_new(m, CV_MEMORY_WORKSPACE, basis, "a whole basis", &run->room, err));
  for (int i = 0; i < run->options->n_eig_ranks; i++) {
    CV_TRY(cv_memory_new(m, CV_MEMORY_DATA, 1, sizeof *run->products[i], "times", &block, err));
    run->products[i] = block;
    run->products[i]->per_round = (int)run->options->repeats;
  }
  return CURVD_OK;
}

static curvd_status set_up(eig_run *run, cv_error *err) {
  cv_eig_scratch need = {0};
  for (int p = 0; p < run->n_places; p++) CV_TRY(eig_place_size(&run->places[p], run->n, err));
  for (int i = 0; i < MULTIPLIERS; i++)
    if (run->options->precision[i])
      CV_TRY(multiplier_open((cv_precision)i, run->options->unit, run->memory, &run->by[i], err));
  CV_TRY(open_lanes(run, &need, err));
  CV_TRY(shared_memory(run, need, err));
  if (run->rank > 0) return cv_floats_new(run->memory, CV_MEMORY_FACTORS, run->n * run->ld, "a matrix", &run->M, err);
  run->M = run->source->M;
  run->ssyevd.per_round = 1;
  return eig_truth_open(run->source, eig_most_rows(run->options), run->memory, &run->truth, err);
}

static void take_down(eig_run *run) {
  for (int i = 0; i < run->n_lanes; i++) eig_lane_close(run, &run->lane[i]);
  cv_floats_free(run->memory, &run->work.floats);
  cv_doubles_free(run->memory, &run->work.doubles);
  cv_memory_free(run->memory, (void **)&run->work.ints);
  for (int i = 0; i < MULTIPLIERS; i++) multiplier_close(run->memory, &run->by[i]);
  cv_floats_free(run->memory, &run->full);
  cv_floats_free(run->memory, &run->room);
  for (int i = 0; i < run->options->n_eig_ranks; i++) cv_memory_free(run->memory, (void **)&run->products[i]);
  eig_truth_close(&run->truth);
  if (run->rank > 0) cv_floats_free(run->memory, &run->M);
}

/* ---- rounds ---- */

static curvd_status next_matrix(eig_run *run, cv_error *err) {
  if (run->rank == 0) run->source->next(run->source, err);
  CV_TRY(eig_agree(err));
  for (int64_t i = 0; i < run->n; i++) MPI_Bcast(run->M + i * run->ld, (int)run->ld, MPI_FLOAT, 0, MPI_COMM_WORLD);
  for (int p = 0; p < run->n_places; p++) eig_place_take(&run->places[p], run->M, run->ld);
  return CURVD_OK;
}

static curvd_status take_truth(eig_run *run, cv_error *err) {
  bool is_timed = run->options->with_ssyevd;
  if (run->rank == 0 && eig_truth_take(&run->truth, run->source, is_timed, err) == CURVD_OK && is_timed) {
    run->ssyevd.cpu_ms[run->ssyevd.count] = run->truth.cpu_ms;
    run->ssyevd.wall_ms[run->ssyevd.count++] = run->truth.wall_ms;
  }
  return eig_agree(err);
}

/* The product that no solver can do without: Y (k, n) = Q M, in the solvers' layout. */
static void time_product(eig_run *run, int at) {
  int64_t k = run->options->eig_rank[at] + run->options->oversampling;
  eig_times *t = run->products[at];
  if (run->rank > 0) return;
  memcpy(run->room, run->M, (size_t)(k * run->ld) * sizeof *run->room);
  double wall = cv_wall_s(), cpu = cv_cpu_s();
  cv_gemm(CV_N, CV_N, k, run->n, run->n, 1, run->room, run->ld, run->M, run->ld, 0, run->full, run->ld);
  t->cpu_ms[t->count] = 1e3 * (cv_cpu_s() - cpu);
  t->wall_ms[t->count++] = 1e3 * (cv_wall_s() - wall);
}

/* All lanes of a rank next to each other, and next to the product that they are compared with. */
static curvd_status repeat(eig_run *run, int64_t round, int64_t number, cv_error *err) {
  for (int at = 0; at < run->options->n_eig_ranks; at++) {
    time_product(run, at);
    for (int i = 0; i < run->n_lanes; i++) {
      eig_lane *l = run->lane[i];
      if (l->at == at && number < l->times.per_round) CV_TRY(eig_lane_solve(run, l, round, err));
    }
  }
  return CURVD_OK;
}

static curvd_status one_round(eig_run *run, int64_t round, cv_error *err) {
  if (run->rank == 0)
    fprintf(stderr, "bench_eig: %s, n %lld: round %lld of %lld\n", run->matrix, (long long)run->n, (long long)round + 1,
            (long long)run->options->rounds);
  CV_TRY(next_matrix(run, err));
  CV_TRY(take_truth(run, err));
  for (int64_t i = 0; i < run->options->repeats; i++) CV_TRY(repeat(run, round, i, err));
  for (int i = 0; i < run->n_lanes; i++) {
    CV_TRY(eig_lane_score(run, run->lane[i], round, err));
    eig_lane_keep(run->lane[i]);
  }
  return CURVD_OK;
}

/* Of warm lanes; the others touch their memory for the first time. */
static curvd_status first_bases(eig_run *run, cv_error *err) {
  CV_TRY(next_matrix(run, err));
  for (int i = 0; i < run->n_lanes; i++) {
    if (is_exact(run->lane[i]->solver)) continue;
    CV_TRY(eig_lane_solve(run, run->lane[i], -1, err));
    eig_lane_keep(run->lane[i]);
  }
  return CURVD_OK;
}

static curvd_status run_rounds(eig_run *run, cv_error *err) {
  set_up(run, err);
  CV_TRY(eig_agree(err));
  CV_TRY(first_bases(run, err));
  for (int64_t round = 0; round < run->options->rounds; round++) CV_TRY(one_round(run, round, err));
  if (run->rank == 0) eig_print(run);
  return CURVD_OK;
}

curvd_status eig_run_size(const eig_options *options, const char *matrix, int64_t n, eig_source *source,
                          eig_place *places, int n_places, cv_memory *memory, cv_error *err) {
  static eig_run run;
  run = (eig_run){.options = options,
                  .matrix = matrix,
                  .n = n,
                  .ld = cv_dense_ld(n),
                  .memory = memory,
                  .source = source,
                  .places = places,
                  .n_places = n_places};
  MPI_Comm_rank(MPI_COMM_WORLD, &run.rank);
  MPI_Comm_size(MPI_COMM_WORLD, &run.ranks);
  curvd_status status = run_rounds(&run, err);
  take_down(&run);
  return status;
}

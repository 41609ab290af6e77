#include "base/clock.h"
#include "eig_run.h"
#include "linalg/dense.h"

#include <string.h>

const char *const eig_solver_names[EIG_SOLVERS] = {"exact", "rand", "exact-dist", "dist", "slab"};
const char *const eig_start_names[EIG_STARTS] = {"cold", "warm"};
const char *const eig_method_names[4] = {"rsvd", "sre", "nystrom", "krylov"};

static const cv_eig_ops *ops_of(eig_solver solver) {
  const cv_eig_ops *const ops[EIG_SOLVERS] = {&cv_eig_exact, &cv_eig_rand, &cv_eig_exact_dist, &cv_eig_rand_dist,
                                              &cv_eig_rand_slab};
  return ops[solver];
}

static int64_t larger(int64_t x, int64_t y) {
  return x > y ? x : y;
}

static cv_eig_problem problem_of(const eig_run *run, const eig_place *place, int at, cv_precision precision) {
  const eig_options *o = run->options;
  return (cv_eig_problem){.n = run->n,
                          .grid = place->nprow ? &place->grid : NULL,
                          .ld = place->ld,
                          .method = o->method,
                          .eig_rank = o->eig_rank[at],
                          .oversampling = o->oversampling,
                          .k_max = o->eig_rank[at] + o->oversampling,
                          .key = {.seed = (uint64_t)o->seed, .stream = CV_RNG_SKETCH},
                          .by = &run->by[precision]};
}

static curvd_status lane_memory(eig_run *run, eig_lane *l, cv_error *err) {
  int64_t k = l->problem.k_max;
  CV_TRY(cv_floats_new(run->memory, CV_MEMORY_PRECONDITIONER, (k + CV_EIG_PROBES) * l->ldu, "a basis", &l->U, err));
  CV_TRY(cv_floats_new(run->memory, CV_MEMORY_PRECONDITIONER, k * l->ldu, "a start", &l->start, err));
  return cv_floats_new(run->memory, CV_MEMORY_PRECONDITIONER, k, "eigenvalues", &l->D, err);
}

curvd_status eig_lane_open(eig_run *run, eig_solver solver, const eig_place *place, bool is_warm, int at,
                           cv_precision precision, cv_eig_scratch *need, eig_lane **lane, cv_error *err) {
  void *block;
  CV_TRY(cv_memory_new(run->memory, CV_MEMORY_DATA, 1, sizeof **lane, "a lane", &block, err));
  eig_lane *l = *lane = block;
  const cv_eig_ops *ops = ops_of(solver);
  *l = (eig_lane){.solver = solver,
                  .place = place,
                  .is_warm = is_warm,
                  .at = at,
                  .precision = precision,
                  .problem = problem_of(run, place, at, precision),
                  .ldu = place->ld,
                  .times = {.per_round = ops->is_exact ? 1 : (int)run->options->repeats}};
  if (!place->is_in) return CURVD_OK;
  cv_eig_scratch own = ops->scratch(run->n, l->problem.k_max, l->problem.grid);
  need->floats = larger(need->floats, own.floats);
  need->doubles = larger(need->doubles, own.doubles);
  need->ints = larger(need->ints, own.ints);
  return lane_memory(run, l, err);
}

void eig_lane_close(eig_run *run, eig_lane **lane) {
  cv_floats_free(run->memory, &(*lane)->U);
  cv_floats_free(run->memory, &(*lane)->start);
  cv_floats_free(run->memory, &(*lane)->D);
  cv_memory_free(run->memory, (void **)lane);
}

static void count_time(eig_run *run, eig_lane *l, double cpu_s, double wall_s) {
  double mine[2] = {1e3 * cpu_s, 1e3 * wall_s}, slowest[2];
  MPI_Reduce(mine, slowest, 2, MPI_DOUBLE, MPI_MAX, 0, l->place->comm);
  if (run->rank > 0) return;
  l->times.cpu_ms[l->times.count] = slowest[0];
  l->times.wall_ms[l->times.count++] = slowest[1];
}

/* Round -1, the first basis of a warm lane, is cold and not timed. Warm: the fewest products that leave the start. */
static curvd_status solve(eig_run *run, eig_lane *l, int64_t round, cv_error *err) {
  cv_eig_problem *p = &l->problem;
  p->M = l->place->piece;
  p->key.b = (uint32_t)(round + 1);
  p->power_iters = p->n_start == 0 ? run->options->power_iters : p->method == CV_EIG_SRE ? 1 : 0;
  memcpy(l->U, l->start, (size_t)(p->n_start * l->ldu) * sizeof *l->U);
  MPI_Barrier(l->place->comm);
  double wall = cv_wall_s(), cpu = cv_cpu_s();
  CV_TRY(ops_of(l->solver)->solve(p, &run->work, l->U, l->ldu, l->D, &l->result, err));
  if (round >= 0) count_time(run, l, cv_cpu_s() - cpu, cv_wall_s() - wall);
  return CURVD_OK;
}

curvd_status eig_lane_solve(eig_run *run, eig_lane *l, int64_t round, cv_error *err) {
  if (l->place->is_in) solve(run, l, round, err);
  return eig_agree(err);
}

void eig_lane_keep(eig_lane *l) {
  if (!l->is_warm || !l->place->is_in) return;
  l->problem.n_start = l->result.found;
  memcpy(l->start, l->U, (size_t)(l->result.found * l->ldu) * sizeof *l->U);
}

curvd_status eig_lane_score(eig_run *run, eig_lane *l, int64_t round, cv_error *err) {
  const cv_eig_result *r = &l->result;
  if (l->place->is_in) {
    l->results[round] = *r;
    eig_place_gather(l->place, r->found, l->U, l->ldu, run->full, run->ld, run->room);
  }
  if (run->rank == 0) {
    eig_truth_score(&run->truth, l->problem.eig_rank, r->found, r->kept, run->full, l->D, r->tau, &l->scores[round]);
    eig_lane_check(run, l, round, err);
  }
  return eig_agree(err);
}

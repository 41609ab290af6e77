#include "eig_grids.h"

#include "linalg/dense.h"
#include "linalg/slices_dist.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { GRIDS = 5 };
static const int sides[GRIDS][2] = {{1, 1}, {2, 1}, {1, 2}, {2, 2}, {4, 1}};

/* One problem, its solution on rank 0 alone, and the same over a grid. */
typedef struct contest {
  const eig_options *options;
  cv_memory *memory;
  int rank;
  int64_t n, ld, k;  /* k: rows of the basis */
  eig_source source; /* on rank 0 */
  float *M;          /* (n, ld) on every rank */
  eig_place local, grid;
  float *U, *full, *room, *wanted; /* (k + CV_EIG_PROBES, ld): this place's, gathered, and of rank 0 alone */
  float *D, *wanted_D;
  float *E, *F; /* (n, ld) on rank 0 */
  cv_eig_result result, wanted_result;
} contest;

static curvd_status floats(contest *c, int64_t count, float **block, cv_error *err) {
  return cv_floats_new(c->memory, CV_MEMORY_WORKSPACE, count, "grids", block, err);
}

static curvd_status set_up(contest *c, cv_error *err) {
  int64_t basis = (c->k + CV_EIG_PROBES) * c->ld;
  CV_TRY(floats(c, basis, &c->U, err));
  CV_TRY(floats(c, basis, &c->full, err));
  CV_TRY(floats(c, basis, &c->room, err));
  CV_TRY(floats(c, basis, &c->wanted, err));
  CV_TRY(floats(c, c->k, &c->D, err));
  CV_TRY(floats(c, c->k, &c->wanted_D, err));
  if (c->rank > 0) return floats(c, c->n * c->ld, &c->M, err);
  CV_TRY(floats(c, c->n * c->ld, &c->E, err));
  CV_TRY(floats(c, c->n * c->ld, &c->F, err));
  CV_TRY(eig_source_open(&eig_kinds[0], c->n, (uint64_t)c->options->seed, c->memory, &c->source, err));
  c->M = c->source.M;
  return c->source.next(&c->source, err);
}

static void take_down(contest *c) {
  float **const blocks[] = {&c->U, &c->full, &c->room, &c->wanted, &c->D, &c->wanted_D, &c->E, &c->F};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) cv_floats_free(c->memory, blocks[i]);
  if (c->rank > 0) cv_floats_free(c->memory, &c->M);
  if (c->source.close) c->source.close(&c->source);
}

static cv_eig_problem problem_of(const contest *c, const eig_place *place) {
  const eig_options *o = c->options;
  return (cv_eig_problem){.n = c->n,
                          .grid = place->nprow ? &place->grid : NULL,
                          .M = place->piece,
                          .ld = place->ld,
                          .method = o->method,
                          .eig_rank = o->eig_rank[0],
                          .oversampling = o->oversampling,
                          .k_max = c->k,
                          .power_iters = o->power_iters,
                          .key = {.seed = (uint64_t)o->seed, .stream = CV_RNG_SKETCH}};
}

/* On rank 0: full = the rows of a Gaussian sketch. */
static curvd_status sketch(contest *c, const eig_place *place, cv_error *err) {
  cv_eig_problem p = problem_of(c, place);
  cv_slices slices;
  if (place->nprow == 0) {
    slices = cv_slices_local(&p);
  } else {
    CV_TRY(cv_slices_dist(&p, CV_DIST_SCALAPACK, NULL, &slices, err));
  }
  cv_slices_draw(&slices, p.key, 0, c->k, c->U, place->ld);
  eig_place_gather(place, c->k, c->U, place->ld, c->full, c->ld, c->room);
  return CURVD_OK;
}

/* On rank 0: full = the pairs. */
static curvd_status solve(contest *c, const eig_place *place, const cv_eig_ops *ops, cv_error *err) {
  cv_eig_problem p = problem_of(c, place);
  cv_eig_scratch need = ops->scratch(c->n, c->k, p.grid);
  cv_eig_work work = {0};
  void *ints = NULL;
  CV_TRY(floats(c, need.floats, &work.floats, err));
  CV_TRY(cv_doubles_new(c->memory, CV_MEMORY_WORKSPACE, need.doubles, "grids", &work.doubles, err));
  CV_TRY(cv_memory_new(c->memory, CV_MEMORY_WORKSPACE, need.ints, sizeof *work.ints, "grids", &ints, err));
  work.ints = ints;
  curvd_status status = ops->solve(&p, &work, c->U, place->ld, c->D, &c->result, err);
  cv_floats_free(c->memory, &work.floats);
  cv_doubles_free(c->memory, &work.doubles);
  cv_memory_free(c->memory, &ints);
  CV_TRY(status);
  eig_place_gather(place, c->result.found, c->U, place->ld, c->full, c->ld, c->room);
  return CURVD_OK;
}

/* out (n, ld) = U^T D U of the kept pairs; it does not depend on signs, nor on the basis of a multiple eigenvalue. */
static void restore(contest *c, const cv_eig_result *r, const float *U, const float *D, float *out) {
  for (int64_t i = 0; i < r->kept; i++) cv_mix(1, c->n, D[i], U + i * c->ld, c->ld, 0, c->room + i * c->ld, c->ld);
  cv_gemm(CV_T, CV_N, c->n, c->n, r->kept, 1, c->room, c->ld, U, c->ld, 0, out, c->ld);
}

static json_t *compare(contest *c, const char *solver, int64_t other_bits) {
  double values = 0, norm = sqrt(cv_sum_squares(c->n, c->n, c->E, c->ld));
  char grid[32];
  snprintf(grid, sizeof grid, "%dx%d", c->grid.nprow, c->grid.npcol);
  for (int64_t i = 0; i < c->result.kept; i++) values = fmax(values, fabs(c->D[i] / c->wanted_D[i] - 1));
  restore(c, &c->result, c->full, c->D, c->F);
  cv_mix(c->n, c->n, -1, c->E, c->ld, 1, c->F, c->ld);
  return json_pack("{s:s, s:s, s:I, s:I, s:s, s:s, s:I, s:f, s:f}", "bench", "eig-grids", "matrix", c->source.name, "n",
                   (json_int_t)c->n, "eig_rank", (json_int_t)c->options->eig_rank[0], "solver", solver, "grid", grid,
                   "other_sketch_numbers", (json_int_t)other_bits, "eigenvalues_off", values, "pairs_off",
                   sqrt(cv_sum_squares(c->n, c->n, c->F, c->ld)) / norm);
}

static curvd_status judge(contest *c, const char *solver, int64_t other_bits, cv_error *err) {
  if (c->result.kept != c->wanted_result.kept)
    return cv_fail(err, CURVD_ERR_NUMERIC, "check pairs: %s on %dx%d keeps %lld pairs, rank 0 alone keeps %lld", solver,
                   c->grid.nprow, c->grid.npcol, (long long)c->result.kept, (long long)c->wanted_result.kept);
  json_t *line = compare(c, solver, other_bits);
  json_dumpf(line, stdout, JSON_REAL_PRECISION(6));
  puts("");
  json_decref(line);
  return CURVD_OK;
}

/* Numbers of a sketch that differ in any bit from those in `wanted`. */
static int64_t count_other_bits(const contest *c, const float *wanted) {
  int64_t count = 0;
  for (int64_t i = 0; i < c->k; i++)
    for (int64_t j = 0; j < c->n; j++) count += memcmp(&wanted[i * c->ld + j], &c->full[i * c->ld + j], 4) != 0;
  return count;
}

static curvd_status run_solver(contest *c, const cv_eig_ops *ops, eig_solver solver, int64_t other_bits,
                               cv_error *err) {
  if (c->grid.is_in && solve(c, &c->grid, ops, err) == CURVD_OK && c->rank == 0)
    judge(c, eig_solver_names[solver], other_bits, err);
  return eig_agree(err);
}

static curvd_status run_grid(contest *c, const float *local_sketch, cv_error *err) {
  int64_t other_bits = 0;
  eig_place_size(&c->grid, c->n, err);
  CV_TRY(eig_agree(err));
  eig_place_take(&c->grid, c->M, c->ld);
  if (c->grid.is_in && sketch(c, &c->grid, err) == CURVD_OK && c->rank == 0)
    other_bits = count_other_bits(c, local_sketch);
  CV_TRY(run_solver(c, &cv_eig_rand_dist, EIG_RAND_DIST, other_bits, err));
  return c->grid.npcol > 1 ? CURVD_OK : run_solver(c, &cv_eig_rand_slab, EIG_RAND_SLAB, other_bits, err);
}

/* What rank 0 finds alone. */
static curvd_status solve_alone(contest *c, float *local_sketch, cv_error *err) {
  CV_TRY(eig_place_size(&c->local, c->n, err));
  eig_place_take(&c->local, c->M, c->ld);
  CV_TRY(sketch(c, &c->local, err));
  memcpy(local_sketch, c->full, (size_t)(c->k * c->ld) * sizeof *local_sketch);
  CV_TRY(solve(c, &c->local, &cv_eig_rand, err));
  memcpy(c->wanted, c->full, (size_t)(c->result.found * c->ld) * sizeof *c->wanted);
  memcpy(c->wanted_D, c->D, (size_t)c->result.found * sizeof *c->wanted_D);
  c->wanted_result = c->result;
  restore(c, &c->result, c->wanted, c->wanted_D, c->E);
  return CURVD_OK;
}

static curvd_status run_all(contest *c, float *local_sketch, cv_error *err) {
  int ranks;
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  CV_TRY(eig_agree(err));
  for (int64_t i = 0; i < c->n; i++) MPI_Bcast(c->M + i * c->ld, (int)c->ld, MPI_FLOAT, 0, MPI_COMM_WORLD);
  if (c->rank == 0) solve_alone(c, local_sketch, err);
  CV_TRY(eig_agree(err));
  for (int i = 0; i < GRIDS; i++) {
    if (sides[i][0] * sides[i][1] > ranks) continue;
    eig_place_open(sides[i][0], sides[i][1], c->memory, &c->grid, err);
    curvd_status status = eig_agree(err);
    if (status == CURVD_OK) status = run_grid(c, local_sketch, err);
    eig_place_close(&c->grid);
    CV_TRY(status);
  }
  return CURVD_OK;
}

curvd_status eig_grids_run(const eig_options *o, cv_memory *memory, cv_error *err) {
  contest c = {
      .options = o, .memory = memory, .n = o->n[0], .ld = cv_dense_ld(o->n[0]), .k = o->eig_rank[0] + o->oversampling};
  float *local_sketch = NULL;
  MPI_Comm_rank(MPI_COMM_WORLD, &c.rank);
  eig_place_open(0, 0, memory, &c.local, err);
  if (set_up(&c, err) == CURVD_OK) floats(&c, c.k * c.ld, &local_sketch, err);
  curvd_status status = run_all(&c, local_sketch, err);
  cv_floats_free(memory, &local_sketch);
  take_down(&c);
  eig_place_close(&c.local);
  return status;
}

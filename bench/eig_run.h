/* One size: every solver, start and rank on the same matrices, in turn. */
#ifndef EIG_RUN_H
#define EIG_RUN_H

#include "eig_place.h"
#include "eig_score.h"
#include "linalg/eig.h"
#include "multiplier.h"

enum { EIG_LIST_MAX = 8, EIG_ROUNDS_MAX = 50, EIG_REPEATS_MAX = 20, EIG_LANES_MAX = 128, EIG_PLACES_MAX = 3 };

typedef enum eig_solver { EIG_EXACT, EIG_RAND, EIG_EXACT_DIST, EIG_RAND_DIST, EIG_RAND_SLAB, EIG_SOLVERS } eig_solver;
enum { EIG_COLD, EIG_WARM, EIG_STARTS };
extern const char *const eig_solver_names[EIG_SOLVERS], *const eig_start_names[EIG_STARTS], *const eig_method_names[4];

typedef struct eig_options {
  int64_t n[EIG_LIST_MAX], eig_rank[EIG_LIST_MAX];
  int n_sizes, n_eig_ranks;
  bool solver[EIG_SOLVERS], start[EIG_STARTS];
  bool precision[MULTIPLIERS]; /* of the products with the matrix */
  const char *unit;
  bool matrix[EIG_KINDS + 1]; /* of eig_kinds; the last: factors of a trained network */
  cv_eig_method method;
  int64_t oversampling, power_iters, rounds, repeats, seed;
  int64_t grid_rows, grid_columns; /* 0: all ranks, 1 */
  bool with_ssyevd, is_grids;
} eig_options;

/* Milliseconds, per_round of them a round. A solve over ranks takes as long as its slowest. */
typedef struct eig_times {
  int per_round, count;
  double cpu_ms[EIG_ROUNDS_MAX * EIG_REPEATS_MAX], wall_ms[EIG_ROUNDS_MAX * EIG_REPEATS_MAX];
} eig_times;

/* One case: a solver with a start, at a place, for a rank, in a precision. */
typedef struct eig_lane {
  eig_solver solver;
  const eig_place *place;
  bool is_warm;
  int at; /* which eig_rank */
  cv_precision precision;
  cv_eig_problem problem;
  float *U, *start, *D; /* (k_max + CV_EIG_PROBES, ldu), (k_max, ldu), (k_max) */
  int64_t ldu;
  cv_eig_result result; /* of the last solve */
  eig_times times;
  cv_eig_result results[EIG_ROUNDS_MAX]; /* last solve of each round */
  eig_score scores[EIG_ROUNDS_MAX];      /* on rank 0 */
} eig_lane;

typedef struct eig_run {
  const eig_options *options;
  const char *matrix;
  int64_t n, ld;
  int rank, ranks;
  cv_memory *memory;
  eig_source *source; /* on rank 0 */
  float *M;           /* (n, ld) on every rank */
  eig_place *places;
  int n_places;
  eig_lane *lane[EIG_LANES_MAX];
  int n_lanes;
  cv_eig_work work;                  /* shared by the lanes */
  cv_multiplier by[MULTIPLIERS];     /* the same; of the precisions that are wanted */
  float *full, *room;                /* (k_max + CV_EIG_PROBES, ld) whole bases */
  eig_truth truth;                   /* on rank 0 */
  eig_times ssyevd;                  /* on rank 0 */
  eig_times *products[EIG_LIST_MAX]; /* of each eig_rank, on rank 0: A Q, k rows */
} eig_run;

/* Most rows of a basis. */
int64_t eig_most_rows(const eig_options *options);

/* [collective over all ranks] source: on rank 0, with n and its name; the others know n. Prints the lines. */
curvd_status eig_run_size(const eig_options *options, const char *matrix, int64_t n, eig_source *source,
                          eig_place *places, int n_places, cv_memory *memory, cv_error *err);

/* eig_lane.c. [collective over all ranks] A lane of its own memory; work grows to what it needs. */
curvd_status eig_lane_open(eig_run *run, eig_solver solver, const eig_place *place, bool is_warm, int at,
                           cv_precision precision, cv_eig_scratch *need, eig_lane **lane, cv_error *err);
void eig_lane_close(eig_run *run, eig_lane **lane);

/* One solve, timed, from the start of the round; and what it leaves: the start of the next round, and its score. */
curvd_status eig_lane_solve(eig_run *run, eig_lane *lane, int64_t round, cv_error *err);
void eig_lane_keep(eig_lane *lane);
curvd_status eig_lane_score(eig_run *run, eig_lane *lane, int64_t round, cv_error *err);

/* eig_print.c. NUMERIC when a score cannot be right. */
curvd_status eig_lane_check(const eig_run *run, const eig_lane *lane, int64_t round, cv_error *err);
void eig_print(const eig_run *run);

#endif

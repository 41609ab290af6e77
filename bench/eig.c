/* What a decomposition costs, and how good it is: every solver of linalg/eig.h on the same matrices, in turn, inside
 * one run. Prints one JSON line a case. */
#include "base/number.h"
#include "base/options.h"
#include "eig_factors.h"
#include "eig_grids.h"
#include "eig_run.h"
#include "train/mpi_end.h"

#include <cblas.h>
#include <stdio.h>
#include <string.h>

static const char *const matrix_names[EIG_KINDS + 1] = {"drift", "steep", "batch", "one", "factors"};

static int help(void) {
  puts("usage: bench_eig [--name value ...]\n"
       "       mpirun -n P bench_eig [--name value ...]     with solvers over a process grid, and on one rank of it\n"
       "       mpirun -n P bench_eig --compare-grids yes    bits and pairs over grids against those of one rank\n\n"
       "CPU milliseconds and quality of eigendecompositions, one JSON line a case. A round is a refresh: the matrix\n"
       "moves on, ssyevd runs on it, then every case takes its turn, several times. Lists are separated by commas.\n\n"
       "  --n LIST             sizes (default 512,1024,2048,4096)\n"
       "  --eig-rank LIST      wanted pairs (default 64,128,256)\n"
       "  --solvers LIST       exact, rand, exact-dist, dist, slab (default: all)\n"
       "  --starts LIST        cold, warm: from the pairs of the round before, one product (default: both)\n"
       "  --precisions LIST    fp32, bf16, bf16x3: of the products with the matrix of rand and slab (default fp32)\n"
       "  --unit NAME          matrix unit of those that are not fp32: auto or one of bench_product --list (default\n"
       "                       auto)\n"
       "  --method NAME        rsvd, sre, nystrom or krylov (default nystrom)\n"
       "  --power-iters N      of a cold start (default 2)\n"
       "  --oversampling N     further rows (default 10)\n"
       "  --matrix LIST        drift: running average of batches whose directions turn; steep: the same, eigenvalues\n"
       "                       down to 1e-12; batch: of one batch; one: of rank one; factors: of a network that\n"
       "                       trains on Fashion-MNIST, with sizes of its own (default drift)\n"
       "  --rounds N           refreshes in a row (default 5)\n"
       "  --repeats N          of each randomized case in a round (default 3)\n"
       "  --ssyevd yes|no      run and time it in every round (default yes)\n"
       "  --grid RxC           process grid under mpirun (default Px1)\n"
       "  --seed N             (default 1)\n\n"
       "Exit code 1, a sentence and no line when a check fails (orthogonality, error against the optimum, eigenvalues\n"
       "against trace and norm of the matrix), 2 for wrong usage.");
  return 0;
}

/* ---- command line ---- */

static curvd_status read_number(const char *name, const char *text, int64_t least, int64_t most, int64_t *value,
                                cv_error *err) {
  int64_t read;
  if (!cv_integer_parse(text, &read) || read < least || read > most)
    return cv_fail(err, CURVD_ERR_OPTION, "%s needs a number from %lld to %lld, not '%s'", name, (long long)least,
                   (long long)most, text);
  *value = read;
  return CURVD_OK;
}

static curvd_status read_choice(const char *name, const char *text, const char *const *choices, int count, int *at,
                                cv_error *err) {
  for (*at = 0; *at < count; ++*at)
    if (strcmp(text, choices[*at]) == 0) return CURVD_OK;
  const char *near = cv_nearest_name(text, choices, count);
  return cv_fail(err, CURVD_ERR_OPTION, "%s knows no '%s'%s%s", name, text, near ? "; did you mean " : "",
                 near ? near : "; see --help");
}

/* The part of a list up to its next comma; NULL at the end. */
static char *next_part(char **rest) {
  char *part = *rest, *comma = part ? strchr(part, ',') : NULL;
  if (comma) *comma = '\0';
  *rest = comma ? comma + 1 : NULL;
  return part;
}

static curvd_status read_numbers(const char *name, char *text, int64_t most, int64_t *list, int *count, cv_error *err) {
  *count = 0;
  for (char *part; (part = next_part(&text)) != NULL; ++*count) {
    if (*count == EIG_LIST_MAX)
      return cv_fail(err, CURVD_ERR_OPTION, "%s takes at most %d numbers", name, EIG_LIST_MAX);
    CV_TRY(read_number(name, part, 1, most, &list[*count], err));
  }
  return CURVD_OK;
}

static curvd_status read_chosen(const char *name, char *text, const char *const *choices, int count, bool *chosen,
                                cv_error *err) {
  memset(chosen, 0, (size_t)count * sizeof *chosen);
  for (char *part; (part = next_part(&text)) != NULL;) {
    int at;
    CV_TRY(read_choice(name, part, choices, count, &at, err));
    chosen[at] = true;
  }
  return CURVD_OK;
}

static curvd_status read_grid(char *text, eig_options *o, cv_error *err) {
  char *cross = strchr(text, 'x');
  if (cross == NULL) return cv_fail(err, CURVD_ERR_OPTION, "--grid needs rows and columns like 2x1, not '%s'", text);
  *cross = '\0';
  CV_TRY(read_number("--grid", text, 1, 1024, &o->grid_rows, err));
  return read_number("--grid", cross + 1, 1, 1024, &o->grid_columns, err);
}

static curvd_status read_word(eig_options *o, const char *name, char *text, cv_error *err) {
  static const char *const names[] = {"--n",      "--eig-rank",    "--solvers",      "--starts",        "--method",
                                      "--matrix", "--rounds",      "--repeats",      "--ssyevd",        "--grid",
                                      "--seed",   "--power-iters", "--oversampling", "--compare-grids", "--precisions",
                                      "--unit"};
  static const char *const yes_no[] = {"no", "yes"};
  enum {
    N,
    RANK,
    SOLVERS,
    STARTS,
    METHOD,
    MATRIX,
    ROUNDS,
    REPEATS,
    SSYEVD,
    GRID,
    SEED,
    POWER,
    OVER,
    GRIDS,
    PRECISIONS,
    UNIT,
    NAMES
  };
  int which, at = 0;
  CV_TRY(read_choice("bench_eig", name, names, NAMES, &which, err));
  if (text == NULL) return cv_fail(err, CURVD_ERR_OPTION, "%s needs a value", name);
  switch (which) {
  case N:
    return read_numbers(name, text, 32766, o->n, &o->n_sizes, err);
  case RANK:
    return read_numbers(name, text, 32766, o->eig_rank, &o->n_eig_ranks, err);
  case SOLVERS:
    return read_chosen(name, text, eig_solver_names, EIG_SOLVERS, o->solver, err);
  case STARTS:
    return read_chosen(name, text, eig_start_names, EIG_STARTS, o->start, err);
  case METHOD:
    CV_TRY(read_choice(name, text, eig_method_names, 4, &at, err));
    o->method = (cv_eig_method)at;
    break;
  case MATRIX:
    return read_chosen(name, text, matrix_names, EIG_KINDS + 1, o->matrix, err);
  case ROUNDS:
    return read_number(name, text, 1, EIG_ROUNDS_MAX, &o->rounds, err);
  case REPEATS:
    return read_number(name, text, 1, EIG_REPEATS_MAX, &o->repeats, err);
  case SSYEVD:
    CV_TRY(read_choice(name, text, yes_no, 2, &at, err));
    o->with_ssyevd = at;
    break;
  case GRID:
    return read_grid(text, o, err);
  case SEED:
    return read_number(name, text, 0, INT32_MAX, &o->seed, err);
  case POWER:
    return read_number(name, text, 0, 100, &o->power_iters, err);
  case OVER:
    return read_number(name, text, 0, 10000, &o->oversampling, err);
  case GRIDS:
    CV_TRY(read_choice(name, text, yes_no, 2, &at, err));
    o->is_grids = at;
    break;
  case PRECISIONS:
    return read_chosen(name, text, multiplier_precisions, MULTIPLIERS, o->precision, err);
  case UNIT:
    o->unit = text;
    break;
  }
  return CURVD_OK;
}

static curvd_status read_words(eig_options *o, int argc, char **argv, cv_error *err) {
  int ranks;
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  for (int i = 0; i < argc; i += 2) CV_TRY(read_word(o, argv[i], i + 1 < argc ? argv[i + 1] : NULL, err));
  if (o->grid_rows == 0) o->grid_rows = ranks;
  if (o->grid_rows * o->grid_columns > ranks)
    return cv_fail(err, CURVD_ERR_OPTION, "a grid of %lldx%lld needs more than %d ranks", (long long)o->grid_rows,
                   (long long)o->grid_columns, ranks);
  for (int i = 0; i < o->n_sizes * o->n_eig_ranks; i++) {
    int64_t n = o->n[i / o->n_eig_ranks], rows = o->eig_rank[i % o->n_eig_ranks] + o->oversampling;
    if (rows > n && !o->matrix[EIG_KINDS])
      return cv_fail(err, CURVD_ERR_OPTION, "%lld rows (--eig-rank and --oversampling) are more than n = %lld",
                     (long long)rows, (long long)n);
  }
  return CURVD_OK;
}

/* ---- running ---- */

/* Rank 0 alone, a grid of rank 0, and the grid of all. */
static curvd_status open_places(const eig_options *o, cv_memory *memory, eig_place *places, int *count, cv_error *err) {
  const int64_t sides[EIG_PLACES_MAX][2] = {{0, 0}, {1, 1}, {o->grid_rows, o->grid_columns}};
  int wanted = o->grid_rows * o->grid_columns > 1 ? 3 : 2;
  for (*count = 0; *count < wanted; ++*count)
    CV_TRY(eig_place_open((int)sides[*count][0], (int)sides[*count][1], memory, &places[*count], err));
  return CURVD_OK;
}

static curvd_status run_synthetic(const eig_options *o, const eig_kind *kind, int64_t n, eig_place *places,
                                  int n_places, cv_memory *memory, cv_error *err) {
  int rank;
  eig_source source = {0};
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  if (rank == 0) eig_source_open(kind, n, (uint64_t)o->seed, memory, &source, err);
  curvd_status status = eig_agree(err);
  if (status == CURVD_OK) status = eig_run_size(o, kind->name, n, &source, places, n_places, memory, err);
  if (source.close) source.close(&source);
  return status;
}

static curvd_status run_matrices(const eig_options *o, eig_place *places, int n_places, cv_memory *memory,
                                 cv_error *err) {
  for (int kind = 0; kind < EIG_KINDS; kind++)
    for (int i = 0; i < o->n_sizes && o->matrix[kind]; i++)
      CV_TRY(run_synthetic(o, &eig_kinds[kind], o->n[i], places, n_places, memory, err));
  return o->matrix[EIG_KINDS] ? eig_factors_run(o, places, n_places, memory, err) : CURVD_OK;
}

static curvd_status bench_main(int argc, char **argv, cv_error *err) {
  eig_options o = {.n = {512, 1024, 2048, 4096},
                   .eig_rank = {64, 128, 256},
                   .n_sizes = 4,
                   .n_eig_ranks = 3,
                   .solver = {true, true, true, true, true},
                   .start = {true, true},
                   .precision = {true},
                   .unit = "auto",
                   .matrix = {true},
                   .method = CV_EIG_NYSTROM,
                   .oversampling = 10,
                   .power_iters = 2,
                   .rounds = 5,
                   .repeats = 3,
                   .seed = 1,
                   .grid_columns = 1,
                   .with_ssyevd = true};
  cv_memory memory = {0};
  eig_place places[EIG_PLACES_MAX];
  int n_places = 0;
  CV_TRY(read_words(&o, argc, argv, err));
  openblas_set_num_threads(1);
  if (o.is_grids) return eig_grids_run(&o, &memory, err);
  open_places(&o, &memory, places, &n_places, err);
  curvd_status status = eig_agree(err);
  if (status == CURVD_OK) status = run_matrices(&o, places, n_places, &memory, err);
  for (int i = 0; i < n_places; i++) eig_place_close(&places[i]);
  return status;
}

int main(int argc, char **argv) {
  cv_error err = {.code = CURVD_OK};
  int rank;
  for (int i = 1; i < argc; i++)
    if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return help();
  if (MPI_Init(NULL, NULL) != MPI_SUCCESS) return 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  curvd_status status = bench_main(argc - 1, argv + 1, &err);
  if (status != CURVD_OK && rank == 0) fprintf(stderr, "bench_eig: %s\n", err.text);
  mpi_end();
  return status == CURVD_OK ? 0 : status == CURVD_ERR_OPTION ? 2 : 1;
}

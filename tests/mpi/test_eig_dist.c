/* The seam eig.h over process grids: every backend passes the body of eig_conformance.h on every grid of these ranks,
 * whatever part of M a rank holds, even none; a grid of ranks finds what one rank finds; and all ranks fail together.
 */
#include "eig_conformance.h"
#include "grid_fixture.h"

#include "linalg/slices.h"
#include "linalg/slices_dist.h"

#define COUNT(list) (sizeof list / sizeof list[0])

/* ---- grids as places ---- */

static cv_cyclic grid_rows(const place *at, int64_t n) {
  return cv_grid_rows(at->grid, n);
}

static cv_cyclic grid_columns(const place *at, int64_t n) {
  return cv_grid_columns(at->grid, n);
}

static bool all_say(const place *at, bool yes) {
  int mine = yes, all = 0;
  MPI_Allreduce(&mine, &all, 1, MPI_INT, MPI_LAND, at->grid->all);
  return all != 0;
}

static bool grid_is_same(const place *at, const void *x, size_t bytes) {
  char *first = ref_block((int64_t)bytes + 1, 1);
  memcpy(first, x, bytes);
  MPI_Bcast(first, (int)bytes, MPI_BYTE, 0, at->grid->all);
  bool is_same = memcmp(first, x, bytes) == 0;
  free(first);
  return all_say(at, is_same);
}

/* With all of U everywhere, grid columns agree when everybody has the bytes of the first rank. */
static bool grid_join(const place *at, float *x, int64_t count) {
  MPI_Allreduce(MPI_IN_PLACE, x, (int)count, MPI_FLOAT, MPI_SUM, at->grid->column);
  return grid_is_same(at, x, (size_t)count * sizeof *x);
}

/* The next grid as a place; false when there is none. */
static bool next_place(int *columns, place *at) {
  if (!next_grid(columns)) return false;
  *at = (place){.grid = &grid,
                .is_judge = world_rank() == 0,
                .rows = grid_rows,
                .columns = grid_columns,
                .join = grid_join,
                .is_same = grid_is_same};
  snprintf(at->name, sizeof at->name, "%d x %d", grid.nprow, grid.npcol);
  return true;
}

/* Slabs need a grid of one column. */
static int contenders_on(const place *at) {
  return at->grid->npcol == 1 ? OVER_GRIDS : OVER_WIDE_GRIDS;
}

static void solve_there(const cv_eig_problem *p, solution *s) {
  curvd_status status = solve(p, s);
  mpi_assert_msg(status == CURVD_OK && !s->v.text[0], "%s, %s, n %d: %s%s", s->by->name, s->at->name, (int)p->n,
                 s->err.text, s->v.text);
}

/* ---- the body that every backend passes ---- */

/* 1, 2, 3: most ranks hold nothing; 65: one thing beyond a block; 201: not divisible by anything. */
static void check_conformance(const int64_t *sizes, int n_sizes, const spectrum *kinds, int n_kinds, bool is_full) {
  bound_count bounds = {0, 0};
  place at;
  for (int columns = 0; next_place(&columns, &at);) {
    for (int t = 0; t < n_sizes * n_kinds; t++) {
      matrix a = matrix_new(&at, kinds[t / n_sizes], sizes[t % n_sizes]);
      for (int b = 0; b < contenders_on(&at); b++) {
        const contender *c = &eig_over_grids[b];
        verdict v = is_full ? conform_full(c, &a, &bounds) : conform_both(c, &a, t + b, &bounds);
        mpi_assert_msg(!v.text[0], "%s, %s, spectrum %d, n %d: %s", c->name, at.name, kinds[t / n_sizes], (int)a.n,
                       v.text);
      }
      matrix_free(&a);
    }
  }
  mpi_assert_msg(bounds.failed <= 4, "%d of %d error bounds are too small", bounds.failed, bounds.seen);
}

START_TEST(conformance) {
  const int64_t sizes[] = {3, 65, 201};
  const spectrum kinds[] = {POLYNOMIAL, STEEP, RANK_ONE, ZERO, INDEFINITE};
  check_conformance(sizes, COUNT(sizes), kinds, COUNT(kinds), false);
}
END_TEST

START_TEST(full_sketch_reproduces_the_matrix) {
  const int64_t sizes[] = {1, 2, 130};
  const spectrum kinds[] = {POLYNOMIAL, STEEP, DEFICIENT, IDENTITY};
  check_conformance(sizes, COUNT(sizes), kinds, COUNT(kinds), true);
}
END_TEST

/* With 450 things every one of seven ranks has some. */
START_TEST(every_rank_has_a_part) {
  const int64_t sizes[] = {450};
  const spectrum kinds[] = {POLYNOMIAL};
  check_conformance(sizes, 1, kinds, 1, false);
}
END_TEST

/* ---- the same as on one rank ---- */

/* eig-sketch-bits: the columns of a rank hold the bits of these columns on one rank. */
START_TEST(sketches_have_the_same_bits) {
  enum { K = 9 };
  const int64_t sizes[] = {1, 63, 64, 65, 129, 450, 1000};
  place at;
  for (int columns = 0; next_place(&columns, &at);) {
    for (size_t t = 0; t < COUNT(sizes); t++) {
      int64_t n = sizes[t], mine = cv_dist_mine(n, &grid), wrong = 0;
      cv_eig_problem problem = {.n = n, .grid = &grid};
      cv_slices here = {.columns = {.n = n, .block = n, .parts = 1}, .mine = n},
                there = {.columns = cv_grid_rows(&grid, n), .mine = mine, .problem = &problem};
      const cv_rng key = {.seed = 8, .stream = CV_RNG_SKETCH, .a = 2, .b = 5};
      float *all = ref_floats(K * n), *part = ref_floats(K * (mine + 3));
      cv_slices_draw(&here, key, 4, K, all, n);
      cv_slices_draw(&there, key, 4, K, part, mine + 3);
      for (int64_t i = 0; i < K * mine; i++) {
        int64_t row = i / mine, col = i % mine, global = cv_cyclic_global(&there.columns, col);
        wrong += memcmp(&part[row * (mine + 3) + col], &all[row * n + global], sizeof *all) != 0;
      }
      mpi_assert_msg(wrong == 0, "%s, n %d: %d numbers differ", at.name, (int)n, (int)wrong);
      free(all), free(part);
    }
  }
}
END_TEST

/* The contender that does the same on one rank. */
static const contender *twin_of(const contender *c) {
  if (c->ops->is_exact) return &eig_on_one_rank[0];
  for (int b = 0; b < ON_ONE_RANK; b++) {
    if (!eig_on_one_rank[b].ops->is_exact && eig_on_one_rank[b].method == c->method) return &eig_on_one_rank[b];
  }
  return NULL;
}

/* Eigenvalues and U^T D U over a grid against those of one rank: same key, so the same sketch. */
static void check_twin(const contender *c, spectrum kind, int64_t n, const place *at) {
  const contender *twin = twin_of(c);
  matrix a = matrix_new(at, kind, n), b = matrix_new(&eig_here, kind, n);
  cv_eig_problem over = eig_case(c, &a, 3), here = eig_case(twin, &b, 3);
  solution s = solution_new(c, &over, at, 1e30f), t = solution_new(twin, &here, &eig_here, 1e30f);
  solve_there(&over, &s);
  curvd_status status = solve(&here, &t);
  mpi_assert_msg(status == CURVD_OK && t.result.kept == s.result.kept && t.result.products == s.result.products,
                 "%s, %s: kept %d, on one rank %d", c->name, at->name, (int)s.result.kept, (int)t.result.kept);
  double worst = 0;
  for (int64_t i = 0; i < s.result.kept; i++) worst = fmax(worst, fabs(s.D[i] - t.D[i]));
  double *E = error_matrix(&a, &s, s.result.kept, 0), *F = error_matrix(&b, &t, t.result.kept, 0);
  for (int64_t i = 0; i < n * n; i++) E[i] -= F[i];
  double apart = ref_norm(n * n, E);
  mpi_assert_msg(worst <= 1e-5 * a.w[0] && apart <= 1e-5 * a.norm,
                 "%s, %s, n %d: eigenvalues %.1e, matrices %.1e apart", c->name, at->name, (int)n, worst / a.w[0],
                 apart / a.norm);
  mpi_assert_msg(fabs(s.result.error_norm - t.result.error_norm) <= 1e-4 * t.result.error_norm + 1e-5 * a.norm,
                 "%s, %s: error %.7g, on one rank %.7g", c->name, at->name, s.result.error_norm, t.result.error_norm);
  free(E), free(F);
  solution_free(&s), solution_free(&t);
  matrix_free(&a), matrix_free(&b);
}

START_TEST(every_grid_finds_what_one_rank_finds) {
  const int64_t sizes[] = {3, 129, 300};
  place at;
  for (int columns = 0; next_place(&columns, &at);) {
    for (int b = 0; b < contenders_on(&at); b++) {
      for (size_t t = 0; t < COUNT(sizes); t++) check_twin(&eig_over_grids[b], EXPONENTIAL, sizes[t], &at);
    }
  }
}
END_TEST

/* Whatever memory holds; M stays. */
START_TEST(same_bits_twice) {
  place at;
  for (int columns = 0; next_place(&columns, &at);) {
    matrix a = matrix_new(&at, POLYNOMIAL, 201);
    size_t bytes = (size_t)(cv_dist_mine(a.n, &grid) > 0 ? a.piece_ld : 0) * sizeof(float);
    float *before = ref_floats(a.piece_ld);
    memcpy(before, a.piece, bytes);
    for (int b = 0; b < contenders_on(&at); b++) {
      cv_eig_problem problem = problem_of(&eig_over_grids[b], &a, 20, 10, 1);
      const float garbage[] = {1e30f, NAN, 0};
      solution s[3];
      for (int t = 0; t < 3; t++) {
        s[t] = solution_new(&eig_over_grids[b], &problem, &at, garbage[t]);
        solve_there(&problem, &s[t]);
        s[t].result.seconds = 0;
      }
      for (int t = 1; t < 3; t++) {
        bool is_same = memcmp(&s[0].result, &s[t].result, sizeof s[0].result) == 0 &&
                       memcmp(s[0].D, s[t].D, (size_t)s[0].result.found * sizeof(float)) == 0 &&
                       memcmp(s[0].full, s[t].full, (size_t)(s[0].result.found * a.n) * sizeof(float)) == 0;
        mpi_assert_msg(is_same, "%s, %s", eig_over_grids[b].name, at.name);
      }
      mpi_assert(memcmp(before, a.piece, bytes) == 0);
      for (int t = 0; t < 3; t++) solution_free(&s[t]);
    }
    free(before);
    matrix_free(&a);
  }
}
END_TEST

/* check over a grid: the error of an old solution on another matrix. */
START_TEST(check_judges_an_old_solution) {
  place at;
  for (int columns = 0; next_place(&columns, &at);) {
    matrix a = matrix_new(&at, POLYNOMIAL, 130), other = matrix_new(&at, SLOW, 130);
    for (int b = 0; b < contenders_on(&at); b++) {
      cv_eig_problem problem = problem_of(&eig_over_grids[b], &a, 20, 10, 1), drifted = problem;
      drifted.M = other.piece;
      solution s = solution_new(&eig_over_grids[b], &problem, &at, 1e30f);
      solve_there(&problem, &s);
      cv_eig_result first = s.result;
      bool is_fine = check(&problem, &s) == CURVD_OK && fabs(s.result.error_norm / first.error_norm - 1) < 1e-4;
      mpi_assert_msg(is_fine && !s.v.text[0], "%s, %s: %s", eig_over_grids[b].name, at.name, s.v.text);
      mpi_assert(check(&drifted, &s) == CURVD_OK && !s.v.text[0]);
      error_norms e = error_norms_of(&other, &s);
      check_error_norm(&e, other.norm, s.result.error_norm, &s.v);
      mpi_assert_msg(!s.v.text[0] && s.result.error_bound >= e.spectral, "%s: %s", eig_over_grids[b].name, s.v.text);
      mpi_assert(fabs(s.result.trace - other.trace) <= 1e-12 * other.trace && s.result.tau == first.tau);
      solution_free(&s);
    }
    matrix_free(&a), matrix_free(&other);
  }
}
END_TEST

/* ---- failures ---- */

/* solve() has looked whether all ranks say the same. */
static void check_refused(const cv_eig_problem *p, solution *s, curvd_status expected, const char *word) {
  curvd_status status = solve(p, s);
  bool is_right = status == expected && s->err.code == expected && strstr(s->err.text, word) && !s->v.text[0];
  mpi_assert_msg(is_right, "%s, %s: %s: %s%s", s->by->name, s->at->name, cv_status_name(status), s->err.text,
                 s->v.text);
}

/* Entries (i, j) and (j, i) of M, where this rank holds them. */
static void set_entry(matrix *a, int64_t i, int64_t j, float x) {
  a->M[i * a->ld + j] = a->M[j * a->ld + i] = x;
  matrix_deal(a);
}

/* A single bad pair of entries lies on one rank or two; a bad row on all that have a part of it. */
START_TEST(not_finite_is_an_error_on_all_ranks) {
  const float bad[] = {NAN, INFINITY, -INFINITY};
  const int64_t places[][2] = {{0, 0}, {100, 100}, {200, 3}, {70, 130}, {200, 200}};
  place at;
  for (int columns = 0; next_place(&columns, &at);) {
    for (int t = 0; t < (int)COUNT(places) + 1; t++) {
      matrix a = matrix_new(&at, POLYNOMIAL, 201);
      if (t < (int)COUNT(places)) set_entry(&a, places[t][0], places[t][1], bad[t % 3]);
      for (int64_t j = 0; t == COUNT(places) && j < a.n; j++) a.M[90 * a.ld + j] = a.M[j * a.ld + 90] = NAN;
      if (t == COUNT(places)) matrix_deal(&a);
      for (int b = 0; b < contenders_on(&at); b++) {
        cv_eig_problem problem = problem_of(&eig_over_grids[b], &a, 5, 5, t % 2);
        solution s = solution_new(&eig_over_grids[b], &problem, &at, 1e30f);
        check_refused(&problem, &s, CURVD_ERR_NUMERIC, "not finite");
        solution_free(&s);
      }
      matrix_free(&a);
    }
  }
}
END_TEST

/* In the part of one grid row; the last one of 201 columns lies in the first, or the fourth. */
START_TEST(a_start_that_is_not_finite) {
  place at;
  for (int columns = 0; next_place(&columns, &at);) {
    matrix a = matrix_new(&at, POLYNOMIAL, 201);
    for (int b = 1; b < contenders_on(&at); b++) {
      for (int t = 0; t < 4; t++) {
        cv_eig_problem problem = problem_of(&eig_over_grids[b], &a, 5, 5, t % 2);
        solution s = solution_new(&eig_over_grids[b], &problem, &at, 1e30f);
        double *start = eig_start_near(&a, 10);
        start[3 * a.n + (t < 2 ? 200 : 70)] = t < 2 ? NAN : INFINITY;
        solution_start(&s, 10, start);
        problem.n_start = 10;
        check_refused(&problem, &s, CURVD_ERR_NUMERIC, "not finite");
        free(start);
        solution_free(&s);
      }
    }
    matrix_free(&a);
  }
}
END_TEST

START_TEST(what_is_not_semidefinite_is_refused_by_all) {
  place at;
  for (int columns = 0; next_place(&columns, &at);) {
    double values[100];
    for (int i = 0; i < 100; i++) values[i] = i == 7 ? -0.5 : 1;
    matrix a = matrix_of_values(&at, 100, values);
    for (int b = 0; b < contenders_on(&at); b++) {
      if (!eig_is_nystrom(&eig_over_grids[b])) continue;
      cv_eig_problem problem = problem_of(&eig_over_grids[b], &a, 95, 5, 1);
      solution s = solution_new(&eig_over_grids[b], &problem, &at, 1e30f);
      check_refused(&problem, &s, CURVD_ERR_NUMERIC, "semidefinite");
      solution_free(&s);
    }
    matrix_free(&a);
  }
}
END_TEST

START_TEST(slabs_need_one_column) {
  place at;
  for (int columns = 0; next_place(&columns, &at);) {
    matrix a = matrix_new(&at, POLYNOMIAL, 65);
    for (int b = OVER_WIDE_GRIDS; at.grid->npcol > 1 && b < OVER_GRIDS; b++) {
      cv_eig_problem problem = problem_of(&eig_over_grids[b], &a, 5, 5, 1);
      solution s = solution_new(&eig_over_grids[b], &problem, &at, 1e30f);
      check_refused(&problem, &s, CURVD_ERR_LAYOUT, "one column");
      solution_free(&s);
    }
    matrix_free(&a);
  }
}
END_TEST

/* 32-bit borders, before anything is allocated: told with the cure. */
START_TEST(sizes_beyond_32_bits) {
  const int64_t huge = (int64_t)1 << 22;
  place at;
  for (int columns = 0; next_place(&columns, &at);) {
    for (int b = 0; b < contenders_on(&at); b++) {
      const cv_eig_ops *ops = eig_over_grids[b].ops;
      cv_error err = {0};
      mpi_assert(ops->fits(201, 201, &grid, NULL) == CURVD_OK);
      mpi_assert(ops->fits(huge, 100, &grid, &err) == CURVD_ERR_SIZE && strstr(err.text, "use more ranks"));
    }
  }
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {conformance,
                                full_sketch_reproduces_the_matrix,
                                every_rank_has_a_part,
                                sketches_have_the_same_bits,
                                every_grid_finds_what_one_rank_finds,
                                same_bits_twice,
                                check_judges_an_old_solution,
                                not_finite_is_an_error_on_all_ranks,
                                a_start_that_is_not_finite,
                                what_is_not_semidefinite_is_refused_by_all,
                                slabs_need_one_column,
                                sizes_beyond_32_bits};
  Suite *suite = suite_create("eig_dist");
  TCase *tcase = tcase_create("eig_dist");
  for (size_t i = 0; i < COUNT(tests); i++) tcase_add_test(tcase, tests[i]);
  suite_add_tcase(suite, tcase);
  return suite;
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}

/* Sizes of spread factors, on grids that exist on paper only: pieces and blocks cover everything once, scratch is
 * 64-bit sane, and fits refuses exactly what MPI's and ScaLAPACK's 32-bit numbers cannot reach. No MPI is started. */
#include "comm/grid.h"
#include "curvature/internal.h"
#include "linalg/dense.h"
#include "suite.h"

#include <string.h>

#define COUNT(list) (sizeof list / sizeof list[0])

static const int64_t sizes[] = {2, 63, 64, 65, 130, 1000, 4096, 32767, 32768, 65553};
enum { OWNERS_MAX = 64, N_MAX = 65553 };

static cv_grid grid_of(int nprow, int npcol, int row, int column) {
  return (cv_grid){.nprow = nprow, .npcol = npcol, .my_row = row, .my_column = column, .system = -1, .context = -1};
}

/* ---- pieces ---- */

static int8_t times[N_MAX];

START_TEST(pieces_cover_every_index_once) {
  for (size_t s = 0; s < COUNT(sizes); s++) {
    for (int p = 1; p <= OWNERS_MAX; p++) {
      curvd_ctx ctx = {.comm.n_owners = p};
      cv_factor factor = {.n = sizes[s], .is_spread = true};
      int64_t sum = 0, wrong = 0;
      memset(times, 0, sizeof times);
      for (int o = 0; o < p; o++) {
        cv_cyclic piece = cv_spread_piece(&ctx, &factor, o);
        int64_t count = cv_cyclic_count(&piece);
        sum += count;
        for (int64_t i = 0; i < count; i++) times[cv_cyclic_global(&piece, i)]++;
      }
      for (int64_t i = 0; i < N_MAX; i++) wrong += times[i] != (i < sizes[s]);
      ck_assert_msg(wrong == 0 && sum == sizes[s], "n = %d, %d owners: %d wrong", (int)sizes[s], p, (int)wrong);
    }
  }
}
END_TEST

/* A whole factor is one piece. */
START_TEST(whole_factor_is_one_piece) {
  curvd_ctx ctx = {.comm.n_owners = 5};
  cv_factor factor = {.n = 1000};
  cv_cyclic piece = cv_spread_piece(&ctx, &factor, 3);
  ck_assert_int_eq(cv_cyclic_count(&piece), 1000);
  ck_assert_int_eq(cv_cyclic_global(&piece, 999), 999);
  ck_assert_int_eq(cv_cyclic_run(&piece, 0), 1000);
}
END_TEST

/* What an owner's blocks send: rows 0 .. end - 1 of each block of columns; all owners' together, all n (n + 1) / 2
 * entries and the other halves of the diagonal blocks. The plan's room is CV_GRID_BLOCK n. */
START_TEST(blocks_hold_every_entry_once) {
  for (size_t s = 0; s < COUNT(sizes); s++) {
    int64_t n = sizes[s], last = n % CV_GRID_BLOCK, full = n / CV_GRID_BLOCK;
    int64_t expected = n * (n + 1) / 2 + full * CV_GRID_BLOCK * (CV_GRID_BLOCK - 1) / 2 + last * (last - 1) / 2;
    for (int p = 1; p <= OWNERS_MAX; p++) {
      curvd_ctx ctx = {.comm.n_owners = p};
      cv_factor factor = {.n = n, .is_spread = true};
      int64_t sum = 0, most = 0;
      for (int o = 0; o < p; o++) {
        cv_cyclic piece = cv_spread_piece(&ctx, &factor, o);
        for (int64_t local = 0; local < cv_cyclic_count(&piece); local += cv_cyclic_run(&piece, local)) {
          int64_t floats = cv_spread_block_floats(&piece, local);
          sum += floats;
          most = floats > most ? floats : most;
        }
      }
      ck_assert_int_eq(sum, expected);
      ck_assert_int_le(most, CV_GRID_BLOCK * n);
    }
  }
}
END_TEST

/* ---- scratch ---- */

static int64_t floats_of(const cv_eig_ops *ops, int64_t n, int64_t k, int p, int row) {
  cv_grid grid = grid_of(p, 1, row, 0);
  cv_eig_scratch need = ops->scratch(n, k, &grid);
  ck_assert_msg(need.floats > 0 && need.doubles > 0 && need.ints > 0, "%s: n = %d on %d ranks", ops->name, (int)n, p);
  return need.floats;
}

/* Randomized: k rows of length n, some times; never n^2 / ranks. Exact: 5 n^2 / ranks (eig_exact_dist.c) and what is
 * linear in n. */
START_TEST(scratch_is_that_of_a_piece) {
  enum { K = 110 };
  static const int64_t large[] = {32768, 65536, 200000};
  for (size_t s = 0; s < COUNT(large); s++) {
    for (int p = 1; p <= OWNERS_MAX; p++) {
      double n = (double)large[s], rows = (double)(K + CV_EIG_PROBES), linear = (CV_GRID_BLOCK + 2 * rows + 300) * n;
      for (int row = 0; row<p; row += p - 1> 0 ? p - 1 : 1) {
        double slab = (double)floats_of(&cv_eig_rand_slab, large[s], K, p, row),
               product = (double)floats_of(&cv_eig_rand_dist, large[s], K, p, row),
               exact = (double)floats_of(&cv_eig_exact_dist, large[s], large[s], p, row);
        ck_assert_double_le(slab, (4 * rows + CV_EIG_PROBES) * n + 10 * K * K + 1e6); /* probes meet a rounded M, too */
        ck_assert_double_le(product, 2 * rows * n / p + 10 * K * K + 1e6);
        ck_assert_msg(exact >= 4 * n * n / p * 0.97 && exact <= 5 * n * n / p + linear, "n = %g on %d: %g floats", n, p,
                      exact);
      }
    }
  }
}
END_TEST

/* ---- 32-bit borders ---- */

static void check_fits(const cv_eig_ops *ops, int64_t n, int64_t k, int nprow, const char *cure) {
  cv_error err = {0};
  for (int row = 0; row < nprow; row++) { /* every rank says the same */
    cv_grid grid = grid_of(nprow, 1, row, 0);
    err = (cv_error){0};
    curvd_status status = ops->fits(n, k, nprow > 0 ? &grid : NULL, &err), expected = cure ? CURVD_ERR_SIZE : CURVD_OK;
    ck_assert_msg(status == expected, "%s, n = %lld, k = %lld on %d ranks: %s %s", ops->name, (long long)n,
                  (long long)k, nprow, curvd_status_name(status), err.text);
    ck_assert_msg(!cure || strstr(err.text, cure), "%s: '%s' lacks '%s'", ops->name, err.text, cure);
    ck_assert(cure || err.text[0] == '\0');
  }
}

/* LAPACK's workspace, 1 + 6 n + 2 n^2, is a 32-bit int. */
START_TEST(borders_on_one_rank) {
  check_fits(&cv_eig_exact, 32766, 32766, 1, NULL);
  check_fits(&cv_eig_exact, 32767, 32767, 1, "32766");
  check_fits(&cv_eig_exact, 32767, 32767, 1, "randomized");
  check_fits(&cv_eig_exact, 65536, 65536, 1, "65536");
  check_fits(&cv_eig_exact_f64, 32766, 32766, 1, NULL);
  check_fits(&cv_eig_exact_f64, 32767, 32767, 1, "randomized");
  check_fits(&cv_eig_rand, 65536, 110, 1, NULL);
  check_fits(&cv_eig_rand, CV_DENSE_MAX, 110, 1, NULL);
  check_fits(&cv_eig_rand, CV_DENSE_MAX + 1, 110, 1, "n = 1073741825");
  check_fits(&cv_eig_rand, 65536, 32766, 1, NULL);
  check_fits(&cv_eig_rand, 65536, 32767, 1, "eig_rank");
}
END_TEST

/* A piece has at most 2^31 - 1 entries, and so has pssyevd's workspace. */
START_TEST(borders_over_a_grid) {
  check_fits(&cv_eig_exact_dist, 32768, 32768, 2, NULL);
  check_fits(&cv_eig_exact_dist, 32768, 32768, 4, NULL);
  check_fits(&cv_eig_exact_dist, 32768, 32768, 1, "more ranks");
  check_fits(&cv_eig_exact_dist, 65536, 1000, 4, "more ranks");
  check_fits(&cv_eig_exact_dist, 65536, 1000, 16, NULL);
  const cv_eig_ops *const randomized[] = {&cv_eig_rand_dist, &cv_eig_rand_slab};
  for (size_t i = 0; i < COUNT(randomized); i++) {
    check_fits(randomized[i], 32768, 110, 1, NULL);
    check_fits(randomized[i], 32768, 110, 2, NULL);
    check_fits(randomized[i], 65536, 110, 1, "more ranks");
    check_fits(randomized[i], 65536, 110, 1, "65536");
    check_fits(randomized[i], 65536, 110, 4, NULL);
    check_fits(randomized[i], 262144, 110, 64, NULL);
    check_fits(randomized[i], 524288, 110, 64, "more ranks");
  }
}
END_TEST

/* Rows of a basis, over all ranks together; and (k, k) matrices of fp32, which are sent as bytes. */
START_TEST(borders_of_the_rank) {
  int64_t n = 65536, most = INT32_MAX / cv_dense_ld(n) - CV_EIG_PROBES;
  check_fits(&cv_eig_exact_dist, n, most, 16, NULL);
  check_fits(&cv_eig_exact_dist, n, most + 1, 16, "eig_rank");
  const cv_eig_ops *const randomized[] = {&cv_eig_rand_dist, &cv_eig_rand_slab};
  for (size_t i = 0; i < COUNT(randomized); i++) {
    check_fits(randomized[i], 40000, 23170, 4, NULL);
    check_fits(randomized[i], 40000, 23171, 4, "eig_rank");
    check_fits(randomized[i], n, most + 1, 16, "eig_rank");
  }
}
END_TEST

int main(void) {
  const TTest *const tests[] = {pieces_cover_every_index_once,
                                whole_factor_is_one_piece,
                                blocks_hold_every_entry_once,
                                scratch_is_that_of_a_piece,
                                borders_on_one_rank,
                                borders_over_a_grid,
                                borders_of_the_rank};
  return suite_run("spread plan", tests, COUNT(tests), NULL);
}

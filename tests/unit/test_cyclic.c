/* Block-cyclic deals against one that hands out index by index. */
#include "base/cyclic.h"
#include "suite.h"

enum { N_MAX = 40, BLOCK_MAX = 7, PARTS_MAX = 5 };

/* What each part gets, in order. */
typedef struct dealt {
  int64_t count[PARTS_MAX], global[PARTS_MAX][N_MAX];
} dealt;

static dealt deal(int64_t n, int64_t block, int64_t parts) {
  dealt d = {{0}, {{0}}};
  int64_t part = 0, in_block = 0;
  for (int64_t i = 0; i < n; i++) {
    d.global[part][d.count[part]++] = i;
    if (++in_block < block) continue;
    in_block = 0;
    part = (part + 1) % parts;
  }
  return d;
}

/* Things from `local` on whose global indices follow each other within a block. */
static int64_t run_from(const dealt *d, int64_t part, int64_t block, int64_t local) {
  int64_t run = 1;
  while (local + run < d->count[part] && d->global[part][local + run] / block == d->global[part][local] / block) run++;
  return run;
}

/* Mistakes in one deal, over all parts; *places counts what was looked at. */
static int mistakes_of(int64_t n, int64_t block, int64_t parts, int *places) {
  dealt d = deal(n, block, parts);
  int mistakes = 0;
  for (int64_t part = 0; part < parts; part++) {
    cv_cyclic c = {.n = n, .block = block, .parts = parts, .part = part};
    mistakes += cv_cyclic_count(&c) != d.count[part];
    for (int64_t local = 0; local < d.count[part]; local++, ++*places) {
      mistakes += cv_cyclic_global(&c, local) != d.global[part][local];
      mistakes += cv_cyclic_run(&c, local) != run_from(&d, part, block, local);
    }
    for (int64_t end = 0; end <= n + 2; end++) {
      int64_t below = 0;
      while (below < d.count[part] && d.global[part][below] < end) below++;
      mistakes += cv_cyclic_below(&c, end) != below;
    }
  }
  return mistakes;
}

START_TEST(test_every_deal_of_few_things) {
  int places = 0;
  for (int64_t n = 0; n <= N_MAX; n++) {
    for (int64_t block = 1; block <= BLOCK_MAX; block++) {
      for (int64_t parts = 1; parts <= PARTS_MAX; parts++) {
        int mistakes = mistakes_of(n, block, parts, &places);
        ck_assert_msg(mistakes == 0, "%d things in blocks of %d to %d parts: %d mistakes", (int)n, (int)block,
                      (int)parts, mistakes);
      }
    }
  }
  ck_assert_int_eq(places, N_MAX * (N_MAX + 1) / 2 * BLOCK_MAX * PARTS_MAX); /* each thing of each deal, once */
}
END_TEST

/* One block for all, as on one rank. */
START_TEST(test_one_part) {
  cv_cyclic c = {.n = 1000, .block = 1000, .parts = 1};
  ck_assert_int_eq(cv_cyclic_count(&c), 1000);
  ck_assert_int_eq(cv_cyclic_global(&c, 999), 999);
  ck_assert_int_eq(cv_cyclic_run(&c, 300), 700);
  ck_assert_int_eq(cv_cyclic_below(&c, 1001), 1000);
}
END_TEST

/* Sizes beyond 32 bits. */
START_TEST(test_large_sizes) {
  int64_t n = ((int64_t)1 << 40) + 5;
  cv_cyclic c = {.n = n, .block = 64, .parts = 7, .part = 3};
  int64_t count = cv_cyclic_count(&c), total = 0;
  ck_assert_int_lt(cv_cyclic_global(&c, count - 1), n);
  ck_assert_int_ge(cv_cyclic_global(&c, count), n);
  ck_assert_int_eq(cv_cyclic_below(&c, cv_cyclic_global(&c, count / 2)), count / 2);
  for (c.part = 0; c.part < 7; c.part++) total += cv_cyclic_count(&c);
  ck_assert_int_eq(total, n);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {test_every_deal_of_few_things, test_one_part, test_large_sizes};
  return suite_run("cyclic", tests, sizeof tests / sizeof tests[0], NULL);
}

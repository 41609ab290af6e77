/* simulate.h against closed forms of pipelines: every expected number is counted by hand from the rules in link.h. */
#include "plan/simulate.h"

#include "base/rng.h"
#include "suite.h"

#include <math.h>

enum { OWNERS_MAX = 4096 };

static cv_memory memory;

static cv_simulation simulated(const cv_timetable *t, double *load) {
  cv_simulation s;
  cv_error err = {0};
  ck_assert_msg(cv_simulate(t, &memory, &s, load, &err) == CURVD_OK, "%s", err.text);
  for (int i = 0; i < CV_MEMORY_KINDS; i++) ck_assert_int_eq(memory.bytes[i], 0);
  return s;
}

/* Sums of some hundred numbers of size 1. */
static void check_near(double x, double expected) {
  ck_assert_msg(fabs(x - expected) <= 1e-12 * fmax(1, fabs(expected)) * 100, "%.17g, expected %.17g", x, expected);
}

/* One curvature rank, steps of 1 s, a refresh of 4 s every 10 steps, all else free. */
static const cv_timetable_owner refreshes_4s = {.refresh_s = 4};

static cv_timetable table_of(const cv_timetable_owner *owner, int64_t staleness) {
  return (cv_timetable){.n_steps = 100,
                        .factor_update_steps = 10,
                        .inv_update_steps = 10,
                        .staleness = staleness,
                        .has_curvature = true,
                        .compute_s = 1,
                        .overlap = 1,
                        .n_owners = 1,
                        .owner = owner};
}

/* ---- limits ---- */

START_TEST(nothing_to_do_takes_no_time) {
  const cv_timetable_owner free_owner = {0};
  cv_timetable t = table_of(&free_owner, 3);
  t.compute_s = 0;
  cv_simulation s = simulated(&t, NULL);
  ck_assert(s.step_s == 0 && s.wait_s == 0 && s.load_max == 0 && s.latency_s == 0);
  t.n_owners = 0;
  t.compute_s = 2;
  s = simulated(&t, NULL);
  ck_assert(s.step_s == 2 && s.wait_s == 0);
}
END_TEST

/* Every part of a step's own work counts once, statistics and commands once in ten steps. */
START_TEST(steps_are_the_sum_of_their_parts) {
  const cv_timetable_owner owner = {.pack_s = 0.25, .receive_s = 0.5};
  cv_timetable t = table_of(&owner, 0);
  t.capture_s = 3;
  t.gradients_s = 0.125;
  t.command_s = 7;
  t.finish_s = 2;
  cv_simulation s = simulated(&t, NULL);
  check_near(s.step_s, 1 + 0.125 + 2 + (3 + 7 + 0.25 + 0.5) / 10);
  check_near(s.step_max_s, 1 + 0.125 + 2 + 3 + 7 + 0.25 + 0.5);
  ck_assert(s.wait_s == 0);
}
END_TEST

/* ---- who waits ---- */

START_TEST(without_staleness_a_refresh_is_seen_whole) {
  const cv_timetable_owner owner = {.up_s = 0.5, .average_s = 1, .refresh_s = 4, .publish_s = 0.25, .down_s = 2};
  cv_timetable t = table_of(&owner, 0);
  double load;
  cv_simulation s = simulated(&t, &load);
  check_near(s.wait_s, 7.75 / 10);
  check_near(s.step_s, 1 + 7.75 / 10);
  check_near(s.latency_s, 7.75);
  check_near(s.latency_max_s, 7.75);
  check_near(load, (1 + 4 + 0.25) / (10 + 7.75));
  ck_assert_int_eq(s.age_max, 9);
  ck_assert_int_eq(s.n_without, 0);
}
END_TEST

/* A refresh of old statistics begins when its step is told of. */
START_TEST(refreshes_without_new_statistics) {
  cv_timetable t = table_of(&refreshes_4s, 0);
  t.factor_update_steps = 1000;
  cv_simulation s = simulated(&t, NULL);
  check_near(s.step_s, 1.4);
  check_near(s.latency_max_s, 4);
  ck_assert_int_eq(s.age_max, 99);
}
END_TEST

/* A refresh of 4 steps is hidden by a staleness of 4; below that, the missing steps are waited for. */
START_TEST(staleness_hides_a_refresh) {
  for (int64_t staleness = 0; staleness <= 12; staleness++) {
    cv_timetable t = table_of(&refreshes_4s, staleness);
    cv_simulation s = simulated(&t, NULL);
    double wait = staleness < 4 ? (double)(4 - staleness) : 0;
    int64_t landed = (100 - 1 - staleness) / 10 + 1;
    check_near(s.wait_s, wait * (double)landed / 100);
    check_near(s.step_s, 1 + wait * (double)landed / 100);
    check_near(s.latency_s, 4);
    check_near(s.load_max, 10 * 4 / (100 + wait * (double)landed));
  }
}
END_TEST

/* Refreshes of 15 s every 10 steps of 1 s, statistics just as often: the rank works without a pause, and refresh i is
 * done at 1 + 15 (i + 1), when step 10 i + S lands it. Slots do not bind, as S / 10 of them are free when the oldest
 * refresh has landed. */
START_TEST(a_rank_that_cannot_keep_up_is_the_bound) {
  const cv_timetable_owner owner = {.refresh_s = 15};
  for (int64_t staleness = 0; staleness <= 80; staleness += 10) {
    cv_timetable t = table_of(&owner, staleness);
    t.n_steps = 200;
    double landed = (double)((200 - 1 - staleness) / 10 + 1), last = staleness + 10 * (landed - 1);
    double end = staleness == 0 ? 200 + 20 * 15 : fmax(200, 1 + 15 * landed + (200 - 1 - last));
    cv_simulation s = simulated(&t, NULL);
    check_near(s.step_s * 200, end);
    if (staleness > 0) check_near(s.wait_s * 200, end - 200);
    check_near(s.load_max, 300 / fmax(end, staleness == 0 ? 0 : 301)); /* it works on after the last step */
  }
}
END_TEST

/* In the long run a step takes a tenth of the slowest rank's refresh, whatever the others do. */
START_TEST(throughput_is_that_of_the_slowest_rank) {
  const cv_timetable_owner owner[] = {{.refresh_s = 3}, {.refresh_s = 15}, {.refresh_s = 14}, {.refresh_s = 0}};
  cv_timetable t = table_of(owner, 20);
  double load[4];
  t.n_owners = 4;
  t.n_steps = 1000;
  t.n_skipped = 400; /* the rank of 14 s falls behind at first, and catches up 1 s a refresh */
  cv_simulation s = simulated(&t, load);
  check_near(s.step_s, 1.5);
  check_near(s.latency_s, 30); /* told of while the one before is done; at the start there is none before */
  check_near(load[1], 1);
  check_near(load[2], 14.0 / 15);
  check_near(load[0], 3.0 / 15);
  ck_assert(load[3] == 0);
  check_near(s.load_mean, (1 + 14.0 / 15 + 0.2) / 4);
  check_near(s.load_max, 1);
}
END_TEST

/* ---- transfers ---- */

/* The part of a transfer that is not hidden is paid at the send and at the landing; the rest delays the parcel. */
START_TEST(transfers_overlap_to_a_share) {
  const cv_timetable_owner owner = {.up_s = 2, .down_s = 3};
  for (int i = 0; i <= 4; i++) {
    cv_timetable t = table_of(&owner, 0);
    t.overlap = 0.25 * i;
    cv_simulation s = simulated(&t, NULL);
    check_near(s.step_s, 1 + 0.5); /* nothing to hide behind */
    check_near(s.wait_s, t.overlap * 5 / 10);
    t.staleness = 5;
    s = simulated(&t, NULL);
    check_near(s.step_s, 1 + (1 - t.overlap) * 0.5);
    ck_assert(s.wait_s == 0);
  }
}
END_TEST

/* Statistics in every step that take 3 s to average and no refresh but the first: with S = 4 there are 4 slots, and a
 * step's statistics leave when those of 4 steps before have been taken, at 1 + 3 (k - 4) after the first. So the
 * worker runs free for 4 steps and is then held to the owner's 3 s a step. */
START_TEST(slots_hold_a_worker_that_is_ahead) {
  const cv_timetable_owner owner = {.average_s = 3};
  cv_timetable t = table_of(&owner, 4);
  t.factor_update_steps = 1;
  t.inv_update_steps = 1000;
  t.n_steps = 50;
  cv_simulation s = simulated(&t, NULL);
  /* step k >= 4 ends when statistic k - 4 is taken, at 1 + 3 (k - 4), or 1 s after step k - 1, whichever is later */
  double end = 0;
  for (int k = 0; k < 50; k++) end = fmax(end + 1, k >= 4 ? 1 + 3.0 * (k - 4) : 0);
  check_near(s.step_s * 50, end);
  check_near(s.wait_s * 50, end - 50);
  t.staleness = 1000000; /* 8 slots at most */
  end = 0;
  for (int k = 0; k < 50; k++) end = fmax(end + 1, k >= 8 ? 1 + 3.0 * (k - 8) : 0);
  s = simulated(&t, NULL);
  check_near(s.step_s * 50, end);
  ck_assert_int_eq(s.n_without, 50);
}
END_TEST

/* A parcel must have left before the next is written: a publication of 1 s, 6 s on the way, every 5 steps. */
START_TEST(a_parcel_leaves_before_the_next_is_made) {
  const cv_timetable_owner owner = {.publish_s = 1, .down_s = 6};
  cv_timetable t = table_of(&owner, 20);
  t.factor_update_steps = t.inv_update_steps = 5;
  t.n_steps = 1000;
  t.n_skipped = 100;
  cv_simulation s = simulated(&t, NULL);
  check_near(s.step_s, 7.0 / 5);
}
END_TEST

/* ---- workers that own ---- */

/* Each owner works inside its own step, and the next sum of gradients waits for the slowest. */
START_TEST(workers_that_own_wait_for_the_slowest) {
  const cv_timetable_owner owner[] = {{.up_s = 1, .average_s = 0.5, .refresh_s = 4}, {.pack_s = 0.25, .refresh_s = 2}};
  for (int64_t staleness = 0; staleness <= 20; staleness += 10) {
    cv_timetable t = table_of(owner, staleness);
    double load[2];
    t.has_curvature = false;
    t.n_owners = 2;
    t.overlap = 0.5; /* statistics are waited for */
    cv_simulation s = simulated(&t, load);
    check_near(s.step_s, 1 + (1 + 0.25 + 0.5 + 4) / 10);
    check_near(load[0], 4.5 / (10 + 5.75));
    check_near(load[1], 2 / (10 + 5.75));
    ck_assert(s.wait_s == 0);
  }
}
END_TEST

START_TEST(spread_factors_are_begun_together) {
  const cv_timetable_owner owner[] = {{.average_s = 5, .refresh_s = 1}, {.refresh_s = 2}};
  cv_timetable t = table_of(owner, 0);
  t.n_owners = 2;
  check_near(simulated(&t, NULL).wait_s, 6.0 / 10);
  t.is_spread = true;
  check_near(simulated(&t, NULL).wait_s, 7.0 / 10);
}
END_TEST

/* A refresh takes 15 s, and steps 10, 20, ... hand over blocks when it is done, whatever the staleness: the last at
 * 1 + 9 * 15. */
START_TEST(blocks_of_spread_factors_are_waited_for) {
  const cv_timetable_owner owner[] = {{.refresh_s = 15}, {.average_s = 0.5}};
  for (int64_t staleness = 10; staleness <= 90; staleness += 20) {
    cv_timetable t = table_of(owner, staleness);
    t.n_owners = 2;
    t.is_spread = true;
    cv_simulation s = simulated(&t, NULL);
    check_near(s.step_s * 100, 1 + 9 * 15.5 + 9); /* the second owner averages before they begin together */
    check_near(s.wait_s * 100, 9 * 5.5);
  }
}
END_TEST

/* ---- ages ---- */

/* At step k, the newest refresh j <= k - S, and the newest statistics <= j, looked for one by one. */
static int64_t age_at(int64_t k, int64_t factor, int64_t inv, int64_t staleness) {
  int64_t j = k - staleness;
  while (j >= 0 && j % inv != 0) j--;
  if (j < 0) return -1;
  int64_t statistics = j;
  while (statistics % factor != 0) statistics--;
  return k - statistics;
}

static void check_ages(int64_t factor, int64_t inv, int64_t staleness) {
  cv_timetable t = table_of(&refreshes_4s, staleness);
  int64_t most = 0, without = 0, n = 0;
  double sum = 0;
  t.n_steps = 300;
  t.n_skipped = 60;
  t.factor_update_steps = factor;
  t.inv_update_steps = inv;
  cv_simulation s = simulated(&t, NULL);
  for (int64_t k = 0; k < 300; k++) {
    int64_t age = age_at(k, factor, inv, staleness);
    if (age < 0) without++;
    if (age < 0 || k < 60) continue;
    sum += (double)age;
    most = age > most ? age : most;
    n++;
  }
  int64_t older = 0;
  for (int64_t k = 60; k < 300; k++) older += age_at(k, factor, inv, staleness) > s.age_p99;
  ck_assert_int_eq(s.age_max, most);
  ck_assert_int_eq(s.n_without, without);
  ck_assert_int_le(100 * older, n); /* and with one step less it would be more than 1 % */
  for (int64_t k = 60; k < 300; k++) older += age_at(k, factor, inv, staleness) == s.age_p99;
  ck_assert_int_gt(100 * older, n);
  check_near(s.age_mean, sum / (double)n);
  if (inv % factor == 0) ck_assert_int_eq(most, staleness + inv - 1); /* statistics as fresh as the refresh */
}

START_TEST(ages_follow_from_step_numbers) {
  static const int64_t factor[] = {1, 2, 3, 10, 7}, inv[] = {1, 5, 10, 3, 20}, staleness[] = {0, 1, 5, 10, 33};
  for (int f = 0; f < 5; f++) {
    for (int i = 0; i < 5; i++) {
      for (int s = 0; s < 5; s++) check_ages(factor[f], inv[i], staleness[s]);
    }
  }
}
END_TEST

/* With one refresh in 300 steps each age is seen once: the 1 % oldest of 300 are the last 3. */
START_TEST(p99_leaves_one_per_cent) {
  cv_timetable t = table_of(&refreshes_4s, 0);
  t.n_steps = t.inv_update_steps = 300;
  cv_simulation s = simulated(&t, NULL);
  ck_assert_int_eq(s.age_p99, 296);
  ck_assert_int_eq(s.age_max, 299);
  check_near(s.age_mean, 149.5);
}
END_TEST

/* Steps between a refresh and its use, of age 0 .. delay + 9 in a run with refreshes every 10 steps. */
static int64_t delay_of(const cv_simulation *s) {
  return s->age_max - 9;
}

/* Told of at the end of a step's training, a refresh of r seconds is here ceil(r) sums of 1 s later, the next one at
 * the earliest; at the latest allowed step it is waited for. */
START_TEST(free_workers_use_what_is_here) {
  static const double refresh_s[] = {0, 0.5, 1, 1.5, 4, 7.5};
  static const int64_t delay[] = {1, 1, 1, 2, 4, 8};
  for (int i = 0; i < 6; i++) {
    for (int64_t most = 1; most <= 12; most++) {
      const cv_timetable_owner owner = {.refresh_s = refresh_s[i]};
      cv_timetable t = table_of(&owner, most);
      t.is_free = true;
      t.n_skipped = 20;
      cv_simulation s = simulated(&t, NULL);
      double wait = fmax(refresh_s[i] - (double)most, 0);
      ck_assert_int_eq(delay_of(&s), delay[i] < most ? delay[i] : most);
      check_near(s.wait_s, wait / 10);
      check_near(s.step_s, 1 + wait / 10);
    }
  }
}
END_TEST

/* A rank that needs 12 s for every refresh falls behind until its refreshes are waited for. */
START_TEST(free_workers_wait_for_an_overloaded_rank) {
  const cv_timetable_owner owner = {.refresh_s = 12};
  cv_timetable t = table_of(&owner, 30);
  t.is_free = true;
  t.n_steps = 1000;
  t.n_skipped = 500;
  cv_simulation s = simulated(&t, NULL);
  check_near(s.step_s, 1.2);
  ck_assert_int_eq(delay_of(&s), 30);
}
END_TEST

/* Workers that own vote when they come to the sum, the fastest long before the slowest has made its part: 1.5 s and
 * 1 s of training after the step is too soon for the other's 4 s; 3.5 s is not. */
START_TEST(the_first_worker_votes_first) {
  for (int is_late = 0; is_late <= 1; is_late++) {
    const cv_timetable_owner owner[] = {{.refresh_s = 4}, {.refresh_s = is_late ? 3.5 : 1.5}};
    cv_timetable t = table_of(owner, 8);
    t.has_curvature = false;
    t.is_free = true;
    t.n_owners = 2;
    t.n_skipped = 20;
    cv_simulation s = simulated(&t, NULL);
    ck_assert_int_eq(delay_of(&s), is_late ? 1 : 2);
    check_near(s.step_s, 1.4);
    t.gradients_s = 3; /* the vote is from before */
    s = simulated(&t, NULL);
    ck_assert_int_eq(delay_of(&s), is_late ? 1 : 2);
  }
}
END_TEST

/* ---- monotone ---- */

static cv_timetable_owner drawn[64];

static void draw_owners(uint64_t seed) {
  const cv_rng rng = {.seed = seed, .stream = CV_RNG_PROBE};
  for (int o = 0; o < 64; o++) {
    double u[4];
    for (int i = 0; i < 4; i++) u[i] = cv_rng_uniform(&rng, (uint64_t)(4 * o + i));
    drawn[o] = (cv_timetable_owner){.up_s = u[0], .average_s = u[1], .refresh_s = 20 * u[2], .down_s = u[3]};
  }
}

START_TEST(more_staleness_never_costs_time) {
  for (uint64_t seed = 1; seed <= 20; seed++) {
    double last = INFINITY;
    draw_owners(seed);
    for (int64_t staleness = 0; staleness <= 60; staleness++) {
      cv_timetable t = table_of(drawn, staleness);
      t.n_owners = 4;
      t.overlap = 0.7;
      double step_s = simulated(&t, NULL).step_s;
      ck_assert_msg(step_s <= last * (1 + 1e-12), "staleness %d: %g after %g", (int)staleness, step_s, last);
      last = step_s;
    }
  }
}
END_TEST

START_TEST(longer_intervals_never_cost_time) {
  for (uint64_t seed = 1; seed <= 20; seed++) {
    double last = INFINITY;
    draw_owners(seed);
    for (int64_t interval = 1; interval <= 64; interval *= 2) {
      cv_timetable t = table_of(drawn, 8);
      t.n_owners = 4;
      t.n_steps = 640;
      t.factor_update_steps = t.inv_update_steps = interval;
      double step_s = simulated(&t, NULL).step_s;
      ck_assert_msg(step_s <= last * (1 + 1e-12), "interval %d: %g after %g", (int)interval, step_s, last);
      last = step_s;
    }
  }
}
END_TEST

/* The same 64 factors on 1, 2, 4, ... ranks, so that each rank's work is a part of what one had before. */
START_TEST(more_ranks_never_cost_time) {
  for (uint64_t seed = 1; seed <= 20; seed++) {
    double last = INFINITY;
    draw_owners(seed);
    for (int32_t ranks = 1; ranks <= 64; ranks *= 2) {
      cv_timetable_owner owner[64] = {0};
      for (int o = 0; o < 64; o++) owner[o % ranks].refresh_s += drawn[o].refresh_s;
      cv_timetable t = table_of(owner, 12);
      t.n_owners = ranks;
      double step_s = simulated(&t, NULL).step_s;
      ck_assert_msg(step_s <= last * (1 + 1e-12), "%d ranks: %g after %g", (int)ranks, step_s, last);
      last = step_s;
    }
  }
}
END_TEST

/* ---- size, arguments ---- */

/* 4.096 million refreshes in one call; the memory is a few numbers a rank and a step. */
START_TEST(thousands_of_ranks) {
  static cv_timetable_owner owner[OWNERS_MAX];
  for (int o = 0; o < OWNERS_MAX; o++) owner[o] = (cv_timetable_owner){.refresh_s = o == 77 ? 5 : 2};
  cv_timetable t = table_of(owner, 4);
  t.n_owners = OWNERS_MAX;
  t.n_steps = 1000;
  t.n_skipped = 100;
  t.factor_update_steps = t.inv_update_steps = 1;
  memory.peak_bytes = 0;
  check_near(simulated(&t, NULL).step_s, 5);
  ck_assert_int_le(memory.peak_bytes, 8 * (OWNERS_MAX * (4 + CV_PLAN_UP_SLOTS_MAX) + 1000 + 100));
  cv_simulation once = simulated(&t, NULL), again = simulated(&t, NULL);
  ck_assert_mem_eq(&once, &again, sizeof once);
}
END_TEST

START_TEST(arguments_out_of_range) {
  cv_timetable_owner bad = {.down_s = -1}, endless = {.refresh_s = INFINITY};
  cv_timetable good = table_of(&refreshes_4s, 0), t[11];
  for (int i = 0; i < 11; i++) t[i] = good;
  t[0].n_steps = 0;
  t[1].n_skipped = 100;
  t[2].n_skipped = -1;
  t[3].inv_update_steps = 0;
  t[4].factor_update_steps = 0;
  t[5].staleness = -1;
  t[6].overlap = 1.5;
  t[7].compute_s = NAN;
  t[8].owner = &bad;
  t[9].owner = &endless;
  t[10].n_owners = -1;
  for (int i = 0; i < 11; i++) {
    cv_simulation s = {.step_s = 42};
    cv_error err = {0};
    ck_assert_int_eq(cv_simulate(&t[i], &memory, &s, NULL, &err), CURVD_ERR_ARGUMENT);
    ck_assert(s.step_s == 42 && err.text[0]);
  }
  cv_simulation s;
  cv_error err = {0};
  good.n_steps = INT64_MAX / 16;
  ck_assert_int_eq(cv_simulate(&good, &memory, &s, NULL, &err), CURVD_ERR_MEMORY);
  for (int i = 0; i < CV_MEMORY_KINDS; i++) ck_assert_int_eq(memory.bytes[i], 0);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {nothing_to_do_takes_no_time,
                                steps_are_the_sum_of_their_parts,
                                without_staleness_a_refresh_is_seen_whole,
                                refreshes_without_new_statistics,
                                staleness_hides_a_refresh,
                                a_rank_that_cannot_keep_up_is_the_bound,
                                throughput_is_that_of_the_slowest_rank,
                                transfers_overlap_to_a_share,
                                slots_hold_a_worker_that_is_ahead,
                                a_parcel_leaves_before_the_next_is_made,
                                workers_that_own_wait_for_the_slowest,
                                spread_factors_are_begun_together,
                                blocks_of_spread_factors_are_waited_for,
                                ages_follow_from_step_numbers,
                                p99_leaves_one_per_cent,
                                free_workers_use_what_is_here,
                                free_workers_wait_for_an_overloaded_rank,
                                the_first_worker_votes_first,
                                more_staleness_never_costs_time,
                                longer_intervals_never_cost_time,
                                more_ranks_never_cost_time,
                                thousands_of_ranks,
                                arguments_out_of_range};
  return suite_run("simulate", tests, sizeof tests / sizeof tests[0], NULL);
}

/* Saves that succeed, fail at every step of the way, come late, or are killed; and what is there afterwards. */
#include "save/saver.h"

#include "save/folder.h"
#include "save/shard.h"
#include "save_fixture.h"
#include "suite.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

static const saver_faults no_faults = {.user = NULL};

static void assert_steps(int64_t n, const int64_t *steps) {
  cv_error err = {.code = CURVD_OK};
  int64_t found[20], n_found = 0;
  ck_assert_int_eq(checkpoint_list(save_folder, 20, found, &n_found, &err), CURVD_OK);
  ck_assert_int_eq(n_found, n);
  for (int64_t i = 0; i < n; i++) ck_assert_int_eq(found[i], steps[i]);
  ck_assert_int_eq(count_unfinished(), 0);
}

#define ASSERT_STEPS(...)                                                                                              \
  assert_steps(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), (const int64_t[]){__VA_ARGS__})

/* ---- it works ---- */

START_TEST(test_files_of_a_checkpoint) {
  make_folder();
  save_by_three(100);
  ASSERT_STEPS(100);
  DIR *list = opendir(in_folder("step-000000100"));
  int n = 0;
  for (const struct dirent *entry; (entry = readdir(list)) != NULL;) n += entry->d_name[0] != '.';
  closedir(list);
  ck_assert_int_eq(n, 4);
  ck_assert(exists("step-000000100/manifest.json") && exists("step-000000100/shard-00000.safetensors") &&
            exists("step-000000100/shard-00001.safetensors") && exists("step-000000100/shard-00002.safetensors"));
}
END_TEST

START_TEST(test_outcome) {
  saver_outcome outcome;
  struct stat about;
  make_folder();
  saver *s = new_saver(0, 1, 2, no_faults);
  ck_assert(!saver_is_busy(s) && !saver_outcome_take(s, &outcome));
  fill_shard(s, 0, 1, 7);
  ck_assert(!saver_is_busy(s));
  saver_commit(s);
  saver_wait(s);
  ck_assert(!saver_is_busy(s) && saver_outcome_take(s, &outcome));
  ck_assert_int_eq(outcome.error.code, CURVD_OK);
  ck_assert_int_eq(outcome.step, 7);
  ck_assert(outcome.seconds > 0 && outcome.seconds < 20);
  ck_assert_int_eq(stat(in_folder("step-000000007/shard-00000.safetensors"), &about), 0);
  ck_assert_int_eq(outcome.bytes, about.st_size);
  ck_assert(!saver_outcome_take(s, &outcome));
  saver_free(&s);
  ck_assert_ptr_null(s);
  saver_free(&s);
}
END_TEST

START_TEST(test_older_ones_go) {
  make_folder();
  saver *s = new_saver(0, 1, 3, no_faults);
  for (int64_t step = 100; step <= 500; step += 100) save_alone(s, step);
  ASSERT_STEPS(500, 400, 300);
  saver_free(&s);
  s = new_saver(0, 1, 2, no_faults);
  save_alone(s, 600);
  ASSERT_STEPS(600, 500);
  assert_whole(500);
  saver_free(&s);
}
END_TEST

/* Back from 300 to 100: what is saved then stays, and newer ones do not count. */
START_TEST(test_after_a_rollback) {
  make_folder();
  saver *s = new_saver(0, 1, 2, no_faults);
  save_alone(s, 200);
  save_alone(s, 300);
  save_alone(s, 150);
  ASSERT_STEPS(300, 200, 150);
  save_alone(s, 160);
  save_alone(s, 170);
  ASSERT_STEPS(300, 200, 170, 160);
  saver_free(&s);
}
END_TEST

static void save_numbers_of(saver *s, int64_t step, int64_t numbers_of) {
  cv_error err = {.code = CURVD_OK};
  curvd_array a = known_rows(0, 0, 17);
  fill_array(&a, numbers_of);
  ck_assert_int_eq(saver_begin(s, step, &err), CURVD_OK);
  ck_assert_int_eq(saver_add(s, &a, &err), CURVD_OK);
  free(a.data);
  saver_commit(s);
}

static void assert_numbers_of(int64_t step, int64_t numbers_of) {
  cv_error err = {.code = CURVD_OK};
  curvd_array a = known_rows(0, 0, 17);
  checkpoint *cp = open_step(step);
  ck_assert_msg(checkpoint_verify(cp, NULL, NULL, &err) == CURVD_OK, "%s", err.text);
  ck_assert_msg(checkpoint_read(cp, &a, &err) == CURVD_OK, "%s", err.text);
  assert_filled(&a, numbers_of);
  free(a.data);
  checkpoint_close(&cp);
}

START_TEST(test_same_step_again) {
  make_folder();
  saver *s = new_saver(0, 1, 2, no_faults);
  for (int64_t i = 0; i < 3; i++) {
    save_numbers_of(s, 100, 50 + i);
    ck_assert_int_eq(outcome_of(s).error.code, CURVD_OK);
    ASSERT_STEPS(100);
    assert_numbers_of(100, 50 + i);
  }
  saver_free(&s);
}
END_TEST

/* Where names cannot be exchanged at once: by three renames, and a process killed within has lost nothing. */
START_TEST(test_replacing_by_renames) {
  cv_error err = {.code = CURVD_OK};
  int parent = -1;
  make_folder();
  saver *s = new_saver(0, 1, 2, no_faults);
  save_numbers_of(s, 100, 61);
  saver_wait(s);
  ck_assert_int_eq(rename(in_folder("step-000000100"), in_folder("kept")), 0);
  save_numbers_of(s, 100, 60);
  saver_wait(s);
  ck_assert_int_eq(rename(in_folder("kept"), in_folder("step-000000100.tmp")), 0);
  ck_assert_int_eq(folder_open(save_folder, &parent, &err), CURVD_OK);
  ck_assert_int_eq(folder_publish(parent, 100, false, &err), CURVD_OK);
  assert_numbers_of(100, 61);
  ck_assert(exists("step-000000100.tmp/manifest.json") && !exists("step-000000100.old"));
  folder_withdraw(parent, 100, false);
  assert_numbers_of(100, 60);
  close(parent);
  ck_assert_int_eq(rename(in_folder("step-000000100"), in_folder("step-000000100.old")), 0); /* killed here */
  saver_free(&s);
  s = new_saver(0, 1, 2, no_faults);
  ASSERT_STEPS(100);
  assert_numbers_of(100, 60);
  saver_free(&s);
}
END_TEST

START_TEST(test_leftovers_go) {
  make_folder();
  static const char *const gone[] = {"step-000000100.tmp", "step-000000200.trash"};
  static const char *const stay[] = {"step-100.tmp", "notes.tmp", "step-0000000200.trash", "step-+00000001.tmp"};
  save_by_three(300);
  for (size_t i = 0; i < 2; i++) {
    char inner[100];
    mkdir(in_folder(gone[i]), 0777);
    snprintf(inner, sizeof inner, "%s/shard-00000.safetensors.part", gone[i]);
    write_bytes(inner, "x", 1);
  }
  for (size_t i = 0; i < 4; i++) mkdir(in_folder(stay[i]), 0777);
  saver *other = new_saver(1, 2, 1, no_faults);
  ck_assert(exists(gone[0]));
  saver *s = new_saver(0, 1, 1, no_faults);
  for (size_t i = 0; i < 2; i++) ck_assert_msg(!exists(gone[i]), "%s", gone[i]);
  for (size_t i = 0; i < 4; i++) ck_assert_msg(exists(stay[i]), "%s", stay[i]);
  assert_whole(300);
  saver_free(&s);
  saver_free(&other);
}
END_TEST

START_TEST(test_a_shard_keeps_its_memory) {
  cv_error err = {.code = CURVD_OK};
  shard s = {.data = NULL};
  const void *before[3] = {NULL, NULL, NULL};
  make_folder();
  for (int i = 0; i < 3; i++) {
    shard_clear(&s);
    for (int k = 0; k < N_KNOWN; k++) {
      curvd_array a = known_rows(k, 0, known[k].n_rows);
      ck_assert_int_eq(shard_add(&s, &a, &err), CURVD_OK);
      free(a.data);
    }
    const void *now[] = {s.data, s.tensor, s.n_rows};
    if (i > 0) ck_assert_int_eq(memcmp(now, before, sizeof now), 0);
    memcpy(before, now, sizeof now);
  }
  shard_free(&s);
}
END_TEST

/* ---- faults ---- */

/* Event number `at` (writes and fsyncs) fails. */
typedef struct fault {
  int at, n_seen, why_write, why_sync;
} fault;

static int fail_write(void *user, int64_t step) {
  fault *f = user;
  (void)step;
  return f->n_seen++ == f->at ? f->why_write : 0;
}

static int fail_sync(void *user, int64_t step) {
  fault *f = user;
  (void)step;
  return f->n_seen++ == f->at ? f->why_sync : 0;
}

static saver_faults faults_of(fault *f) {
  return (saver_faults){fail_write, fail_sync, f};
}

static void assert_failed(const saver_outcome *outcome, int64_t step) {
  ck_assert_int_eq(outcome->error.code, CURVD_ERR_IO);
  ck_assert_int_eq(outcome->step, step);
  ck_assert_msg(strstr(outcome->error.text, "No space left on device") != NULL ||
                    strstr(outcome->error.text, "Input/output error") != NULL,
                "%s", outcome->error.text);
}

/* A shard's header, numbers (in blocks, and what is left), fsync, fsync of its folder; a manifest's bytes and fsyncs;
 * the parent's: 8 or 9 events, as the file system takes blocks or not. */
static int count_events(const fault *f) {
  ck_assert(f->n_seen == 8 || f->n_seen == 9);
  return f->n_seen;
}

START_TEST(test_every_fault) {
  fault f = {.at = -1, .why_write = ENOSPC, .why_sync = EIO};
  make_folder();
  saver *s = new_saver(0, 1, 1, faults_of(&f));
  save_alone(s, 100);
  const int n_events = count_events(&f);
  for (int at = 0; at < n_events; at++) {
    f.at = at, f.n_seen = 0;
    fill_shard(s, 0, 1, 200 + at);
    saver_commit(s);
    saver_outcome outcome = outcome_of(s);
    assert_failed(&outcome, 200 + at);
    ck_assert_msg(strstr(outcome.error.text, at < n_events - 4   ? "shard-00000.safetensors cannot be written"
                                             : at < n_events - 1 ? "manifest.json cannot be written"
                                                                 : "cannot be made to stay") != NULL,
                  "%s", outcome.error.text);
    ck_assert_int_eq(f.n_seen, at + 1); /* nothing is written after a fault */
    ASSERT_STEPS(100);
    assert_whole(100);
  }
  save_alone(s, 300);
  ASSERT_STEPS(300);
  assert_whole(300);
  saver_free(&s);
}
END_TEST

/* The checkpoint that was to be replaced is as before. */
START_TEST(test_every_fault_of_the_same_step) {
  fault f = {.at = -1, .why_write = ENOSPC, .why_sync = EIO};
  make_folder();
  saver *s = new_saver(0, 1, 2, faults_of(&f));
  save_numbers_of(s, 100, 70);
  saver_wait(s);
  const int n_events = count_events(&f);
  for (int at = 0; at < n_events; at++) {
    f.at = at, f.n_seen = 0;
    save_numbers_of(s, 100, 80 + at);
    saver_outcome outcome = outcome_of(s);
    assert_failed(&outcome, 100);
    ASSERT_STEPS(100);
    assert_numbers_of(100, 70);
  }
  save_numbers_of(s, 100, 90);
  saver_wait(s);
  assert_numbers_of(100, 90);
  ck_assert_int_eq(count_unfinished(), 0);
  saver_free(&s);
}
END_TEST

/* Rank 0 hears of it and need not wait; then all go on. */
START_TEST(test_fault_of_another_rank) {
  fault f = {.at = 1, .why_write = ENOSPC, .why_sync = EIO};
  saver *s[3];
  make_folder();
  for (int r = 0; r < 3; r++) s[r] = new_saver(r, 3, 2, r == 1 ? faults_of(&f) : no_faults);
  for (int r = 0; r < 3; r++) fill_shard(s[r], r, 3, 100);
  saver_commit(s[2]);
  saver_commit(s[1]);
  saver_outcome outcome = outcome_of(s[1]);
  assert_failed(&outcome, 100);
  ck_assert(exists("step-000000100.tmp/shard-00001.failed"));
  ck_assert(!exists("step-000000100.tmp/shard-00001.safetensors.part")); /* room for others */
  saver_commit(s[0]);
  outcome = outcome_of(s[0]);
  ck_assert_int_eq(outcome.error.code, CURVD_ERR_REMOTE);
  ck_assert(outcome.seconds < 10);
  static const char *const words[] = {"rank 1", "shard-00001.safetensors", "No space left on device"};
  for (int i = 0; i < 3; i++) ck_assert_msg(strstr(outcome.error.text, words[i]) != NULL, "%s", outcome.error.text);
  saver_wait(s[2]);
  assert_steps(0, NULL);
  for (int r = 0; r < 3; r++) fill_shard(s[r], r, 3, 100);
  for (int r = 2; r >= 0; r--) saver_commit(s[r]);
  for (int r = 0; r < 3; r++) {
    saver_wait(s[r]);
    saver_free(&s[r]);
  }
  ASSERT_STEPS(100);
  assert_whole(100);
}
END_TEST

/* A shard and a failure of an earlier try of the same step, which nobody took away, are not those of this one. */
static int write_slowly(void *user, int64_t step) {
  (void)user, (void)step;
  nanosleep(&(struct timespec){0, 300000000}, NULL);
  return 0;
}

/* Rank 0 gives up at once, for itself or for rank 1; rank 2 has not even made its folder then, or writes still. */
START_TEST(test_a_rank_that_still_writes) {
  for (int bad = 0; bad < 2; bad++) {
    fault f = {.at = 0, .why_write = ENOSPC, .why_sync = EIO};
    saver_faults slow = {write_slowly, write_slowly, NULL};
    saver *s[3];
    make_folder();
    for (int r = 0; r < 3; r++) s[r] = new_saver(r, 3, 2, r == bad ? faults_of(&f) : r == 2 ? slow : no_faults);
    for (int r = 0; r < 3; r++) fill_shard(s[r], r, 3, 100);
    for (int r = 0; r < 3; r++) saver_commit(s[r]);
    for (int r = 0; r < 3; r++) saver_wait(s[r]);
    assert_steps(0, NULL);
    for (int r = 0; r < 3; r++) saver_free(&s[r]);
    remove_folder();
  }
}
END_TEST

START_TEST(test_an_earlier_try_is_not_believed) {
  saver *s[2];
  make_folder();
  for (int r = 0; r < 2; r++) s[r] = new_saver(r, 2, 2, no_faults);
  save_numbers_of(s[1], 100, 10); /* rank 0 is not there yet */
  saver_wait(s[1]);
  write_bytes("step-000000100.tmp/shard-00001.failed", "1 earlier", 9);
  for (int i = 0; i < 2; i++) {
    cv_error err = {.code = CURVD_OK};
    ck_assert_int_eq(saver_begin(s[0], 100, &err), CURVD_OK);
  }
  saver_commit(s[0]); /* the second save of rank 0 */
  nanosleep(&(struct timespec){0, 120 * 1000 * 1000}, NULL);
  ck_assert(saver_is_busy(s[0]));
  save_numbers_of(s[1], 100, 11);
  saver_wait(s[1]);
  saver_outcome outcome = outcome_of(s[0]);
  ck_assert_msg(outcome.error.code == CURVD_OK, "%s", outcome.error.text);
  assert_numbers_of(100, 11);
  for (int r = 0; r < 2; r++) saver_free(&s[r]);
}
END_TEST

/* By rank 1, of which rank 0 hears; or by rank 0, whose folder goes with what rank 1 has put there. */
START_TEST(test_cancel) {
  saver *s[2];
  make_folder();
  for (int r = 0; r < 2; r++) s[r] = new_saver(r, 2, 2, no_faults);
  for (int cancelled = 0; cancelled < 2; cancelled++) {
    for (int r = 1; r >= 0; r--) {
      fill_shard(s[r], r, 3, 100);
      if (r == cancelled) saver_cancel(s[r], "no memory for weights");
      if (r != cancelled) saver_commit(s[r]);
      saver_wait(s[r]);
    }
    saver_outcome outcome = outcome_of(s[0]);
    ck_assert_int_eq(outcome.error.code, cancelled == 0 ? CURVD_ERR_STATE : CURVD_ERR_REMOTE);
    ck_assert_msg(strstr(outcome.error.text, "no memory for weights") != NULL, "%s", outcome.error.text);
    assert_steps(0, NULL);
  }
  for (int r = 0; r < 2; r++) saver_free(&s[r]);
}
END_TEST

/* A rank that never comes. */
START_TEST(test_patience) {
  cv_error err = {.code = CURVD_OK};
  saver *s = NULL;
  saver_settings set = {save_folder, 0, 2, 1, 0.2, NULL, no_faults};
  make_folder();
  ck_assert_int_eq(saver_create(&set, &s, &err), CURVD_OK);
  save_numbers_of(s, 100, 10);
  saver_outcome outcome = outcome_of(s);
  ck_assert_int_eq(outcome.error.code, CURVD_ERR_IO);
  ck_assert_ptr_nonnull(strstr(outcome.error.text, "rank 1 did not come"));
  ck_assert(outcome.seconds >= 0.2 && outcome.seconds < 5);
  assert_steps(0, NULL);
  saver_free(&s);
}
END_TEST

/* What a rank writes after rank 0 has given up is gone with the next save. */
START_TEST(test_a_late_rank) {
  cv_error err = {.code = CURVD_OK};
  saver *s[2];
  saver_settings set = {save_folder, 0, 2, 1, 0.1, NULL, no_faults};
  make_folder();
  s[1] = new_saver(1, 2, 1, no_faults);
  ck_assert_int_eq(saver_create(&set, &s[0], &err), CURVD_OK);
  for (int r = 0; r < 2; r++) {
    save_numbers_of(s[r], 100, 10);
    saver_wait(s[r]);
  }
  ck_assert_int_eq(outcome_of(s[0]).error.code, CURVD_ERR_IO);
  ck_assert(exists("step-000000100.tmp"));
  for (int r = 1; r >= 0; r--) {
    ck_assert_int_eq(saver_begin(s[r], 200, &err), CURVD_OK);
    saver_commit(s[r]);
    saver_wait(s[r]);
  }
  ASSERT_STEPS(200);
  for (int r = 0; r < 2; r++) saver_free(&s[r]);
}
END_TEST

/* The system itself cuts the write at a limit on files, and refuses the next one. */
START_TEST(test_short_writes) {
  struct rlimit before, limit;
  make_folder();
  saver *s = new_saver(0, 1, 1, no_faults);
  save_alone(s, 100);
  ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
  limit = before, limit.rlim_cur = 10000; /* within the numbers */
  void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
  ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
  fill_shard(s, 0, 1, 200);
  saver_commit(s);
  saver_outcome outcome = outcome_of(s);
  ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
  signal(SIGXFSZ, handler);
  ck_assert_int_eq(outcome.error.code, CURVD_ERR_IO);
  ck_assert_msg(strstr(outcome.error.text, "File too large") != NULL, "%s", outcome.error.text);
  ASSERT_STEPS(100);
  save_alone(s, 300);
  assert_whole(300);
  saver_free(&s);
}
END_TEST

/* ---- what cannot be saved ---- */

static saver_outcome save_array(saver *s, const curvd_array *a, int times, curvd_status expected) {
  cv_error err = {.code = CURVD_OK};
  ck_assert_int_eq(saver_begin(s, 100, &err), CURVD_OK);
  for (int i = 0; i < times; i++) ck_assert_int_eq(saver_add(s, a, &err), expected);
  saver_commit(s);
  return outcome_of(s);
}

START_TEST(test_impossible_arrays) {
  static char long_name[CURVD_ARRAY_NAME_MAX + 1];
  static double data[64];
  const curvd_array good = {"a", CURVD_F64, false, 8, 8, 0, 8, 8, 1, data};
  curvd_array bad[10];
  memset(long_name, 'x', sizeof long_name - 1);
  for (int i = 0; i < 10; i++) bad[i] = good;
  bad[0].name = NULL, bad[1].name = "", bad[2].name = long_name, bad[3].rows = 9, bad[4].begin = 1;
  bad[5].begin = -1, bad[6].n_columns = -8, bad[7].is_triangle = true, bad[7].n_columns = 7;
  bad[8].n_columns = INT64_MAX / 16, bad[9].rows = -1;
  make_folder();
  saver *s = new_saver(0, 1, 1, no_faults);
  for (int i = 0; i < 10; i++) {
    saver_outcome outcome = save_array(s, &bad[i], 1, CURVD_ERR_ARGUMENT);
    ck_assert_int_eq(outcome.error.code, CURVD_ERR_ARGUMENT);
    ck_assert_msg(strstr(outcome.error.text, "impossible") != NULL, "%s", outcome.error.text);
    assert_steps(0, NULL);
  }
  saver_outcome twice = save_array(s, &good, 2, CURVD_OK);
  ck_assert_msg(strstr(twice.error.text, "array a was saved twice") != NULL, "%s", twice.error.text);
  bad[0].name = "\xff\xfe";
  saver_outcome binary = save_array(s, &bad[0], 1, CURVD_OK);
  ck_assert_msg(strstr(binary.error.text, "not UTF-8") != NULL, "%s", binary.error.text);
  assert_steps(0, NULL);
  ck_assert_int_eq(save_array(s, &good, 1, CURVD_OK).error.code, CURVD_OK);
  saver_free(&s);
}
END_TEST

/* Two ranks that both have row 1, or whose parts are of other arrays. */
START_TEST(test_parts_that_contradict) {
  static double data[64];
  static const curvd_array first = {"a", CURVD_F64, false, 4, 4, 0, 2, 4, 1, data};
  curvd_array second[6];
  saver *s[2];
  make_folder();
  for (int i = 0; i < 6; i++) second[i] = first, second[i].begin = 2;
  second[0].begin = 1, second[1].n_rows = 5, second[2].n_columns = 3, second[3].dtype = CURVD_F32;
  second[4].is_triangle = true;
  for (int r = 0; r < 2; r++) s[r] = new_saver(r, 2, 1, no_faults);
  for (int i = 0; i < 6; i++) {
    for (int r = 1; r >= 0; r--) {
      cv_error err = {.code = CURVD_OK};
      ck_assert_int_eq(saver_begin(s[r], 100, &err), CURVD_OK);
      ck_assert_int_eq(saver_add(s[r], r == 0 ? &first : &second[i], &err), CURVD_OK);
      saver_commit(s[r]);
    }
    saver_outcome outcome = outcome_of(s[0]);
    saver_wait(s[1]);
    ck_assert_int_eq(outcome.error.code, i < 5 ? CURVD_ERR_DATA : CURVD_OK);
    if (i == 5) continue;
    ck_assert_msg(strstr(outcome.error.text, "tensor a[0:2] of shard 0 and a") != NULL, "%s", outcome.error.text);
    ck_assert_msg(strstr(outcome.error.text, "of shard 1 contradict") != NULL, "%s", outcome.error.text);
    assert_steps(0, NULL);
  }
  ASSERT_STEPS(100);
  for (int r = 0; r < 2; r++) saver_free(&s[r]);
}
END_TEST

START_TEST(test_impossible_savers) {
  cv_error err = {.code = CURVD_OK};
  saver *s = NULL;
  saver_settings set = {"/proc/nothing/here", 0, 1, 1, 1, json_object(), no_faults};
  make_folder();
  ck_assert_int_eq(saver_create(&set, &s, &err), CURVD_ERR_IO);
  ck_assert_ptr_nonnull(strstr(err.text, "/proc/nothing/here"));
  set.folder = save_folder, set.keep = 0, set.about = json_object();
  ck_assert_int_eq(saver_create(&set, &s, NULL), CURVD_ERR_ARGUMENT);
  ck_assert_ptr_null(s);
}
END_TEST

/* ---- behind the back ---- */

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static sigset_t blocked; /* by the thread that writes */

static int wait_at_gate(void *user, int64_t step) {
  (void)user, (void)step;
  pthread_sigmask(SIG_SETMASK, NULL, &blocked);
  pthread_mutex_lock(&gate);
  pthread_mutex_unlock(&gate);
  return 0;
}

/* The trainer's thread goes on while a shard is written, and all signals are left to it. */
START_TEST(test_thread) {
  static const int signals[] = {SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM, SIGCHLD, SIGPIPE};
  sigset_t none, before, after;
  make_folder();
  sigemptyset(&none);
  pthread_sigmask(SIG_SETMASK, &none, &before);
  saver *s = new_saver(0, 1, 1, (saver_faults){.write = wait_at_gate});
  pthread_sigmask(SIG_SETMASK, &before, &after);
  pthread_mutex_lock(&gate);
  fill_shard(s, 0, 1, 100);
  saver_commit(s);
  nanosleep(&(struct timespec){0, 30 * 1000 * 1000}, NULL);
  ck_assert(saver_is_busy(s));
  pthread_mutex_unlock(&gate);
  saver_wait(s);
  for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
    ck_assert(sigismember(&blocked, signals[i]));
    ck_assert(!sigismember(&after, signals[i]));
  }
  saver_free(&s);
  assert_whole(100);
}
END_TEST

/* ---- killed ---- */

/* Saves step after step, each twice, and tells what is committed. */
static void save_until_killed(int64_t step, int told) {
  saver *s = new_saver(0, 1, 2, no_faults);
  for (;; step++) {
    for (int i = 0; i < 2; i++) {
      save_alone(s, step);
      if (write(told, &step, sizeof step) != sizeof step) _exit(1);
    }
  }
}

/* Newest step that a process told of before it was killed, or the one before. */
static int64_t run_and_kill(int64_t first, int64_t committed, long after_us) {
  int told[2];
  ck_assert_int_eq(pipe(told), 0);
  pid_t child = fork();
  ck_assert_int_ge(child, 0);
  if (child == 0) {
    close(told[0]);
    save_until_killed(first, told[1]);
  }
  close(told[1]);
  nanosleep(&(struct timespec){0, after_us * 1000}, NULL);
  kill(child, SIGKILL);
  int ended = 0;
  waitpid(child, &ended, 0);
  ck_assert_msg(WIFSIGNALED(ended), "%d", ended);
  for (int64_t step; read(told[0], &step, sizeof step) == sizeof step;) committed = step;
  close(told[0]);
  return committed;
}

START_TEST(test_killed_at_any_moment) {
  cv_error err = {.code = CURVD_OK};
  int64_t step[20], n = 0, first = 1, committed = 0;
  unsigned random = 12345;
  int n_told = 0;
  make_folder();
  for (int i = 0; i < 50; i++) {
    random = random * 1664525 + 1013904223;
    int64_t before = committed;
    committed = run_and_kill(first, committed, 1000 + (long)(random >> 8) % 80000);
    n_told += committed > before;
    ck_assert_int_eq(checkpoint_list(save_folder, 20, step, &n, &err), CURVD_OK);
    ck_assert_msg(committed == 0 || (n > 0 && step[0] >= committed), "%d: step %d is gone", i, (int)committed);
    for (int64_t j = 0; j < n; j++) assert_whole(step[j]);
    if (n > 0) first = step[0] + (i % 2); /* the same again, too */
  }
  ck_assert_int_ge(n_told, 5); /* saves did end between kills */
}
END_TEST

int main(void) {
  const TTest *const tests[] = {
      test_files_of_a_checkpoint,
      test_outcome,
      test_older_ones_go,
      test_after_a_rollback,
      test_same_step_again,
      test_replacing_by_renames,
      test_leftovers_go,
      test_a_shard_keeps_its_memory,
      test_every_fault,
      test_every_fault_of_the_same_step,
      test_fault_of_another_rank,
      test_a_rank_that_still_writes,
      test_an_earlier_try_is_not_believed,
      test_cancel,
      test_patience,
      test_a_late_rank,
      test_short_writes,
      test_impossible_arrays,
      test_parts_that_contradict,
      test_impossible_savers,
      test_thread,
      test_killed_at_any_moment,
  };
  return suite_run("saver", tests, sizeof tests / sizeof tests[0], remove_folder);
}

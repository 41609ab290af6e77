/* The flight recorder: what readers get, in order and whole, while a writer goes on. */
#include "base/clock.h"
#include "base/trace.h"

#include "suite.h"

#include <pthread.h>
#include <string.h>

static cv_trace trace;
static cv_operation last[CV_TRACE_ROOM];

static void reset(void) {
  memset(&trace, 0, sizeof trace);
}

static uint64_t begin(cv_trace_kind kind, const char *what) {
  return cv_trace_begin(&trace, kind, what, NULL, CV_PEER_NONE, 0);
}

static void run(int n) {
  for (int i = 0; i < n; i++) cv_trace_end(&trace, begin(CV_TRACE_WAIT, "call"));
}

START_TEST(test_fields) {
  int64_t step = 7;
  cv_operation in;
  ck_assert_int_eq(cv_trace_read(&trace, last, CV_TRACE_ROOM), 0);
  ck_assert(!cv_trace_innermost(&trace, &in));
  trace.step = &step;
  double before = cv_wall_s();
  uint64_t number = cv_trace_begin(&trace, CV_TRACE_WAIT, "reduce", "fc1", 4, 4096);
  ck_assert_uint_eq(number, 1);
  ck_assert_int_eq(cv_trace_read(&trace, last, 1), 1);
  ck_assert(cv_trace_innermost(&trace, &in) && in.number == 1);
  ck_assert_str_eq(last[0].what, "reduce");
  ck_assert_str_eq(last[0].layer, "fc1");
  ck_assert(last[0].number == 1 && last[0].kind == CV_TRACE_WAIT && last[0].peer == 4);
  ck_assert(last[0].bytes == 4096 && last[0].step == 7 && last[0].end_s == 0);
  /* a double has 53 bits: seconds of 9 decimals are off by less than 1e-6 for 200 years of uptime */
  ck_assert(last[0].begin_s >= before - 1e-6 && last[0].begin_s <= cv_wall_s() + 1e-6);
  step = 8;
  cv_trace_end(&trace, number);
  ck_assert_int_eq(cv_trace_read(&trace, last, 1), 1);
  ck_assert(last[0].step == 7 && last[0].end_s >= last[0].begin_s);
  ck_assert(!cv_trace_innermost(&trace, &in));
}
END_TEST

START_TEST(test_no_recorder) {
  ck_assert_uint_eq(cv_trace_begin(NULL, CV_TRACE_WAIT, "x", NULL, 0, 0), 0);
  cv_trace_end(NULL, 0);
  cv_trace_end(&trace, 0);
  ck_assert_uint_eq(cv_trace_beats(&trace), 0);
  ck_assert_int_eq(cv_trace_read(&trace, NULL, 0), 0);
}
END_TEST

START_TEST(test_order_and_overflow) {
  run(100);
  ck_assert_int_eq(cv_trace_read(&trace, last, CV_TRACE_ROOM), 100);
  for (int i = 0; i < 100; i++) ck_assert_uint_eq(last[i].number, (uint64_t)i + 1);
  run(900);
  ck_assert_int_eq(cv_trace_read(&trace, last, CV_TRACE_ROOM), CV_TRACE_ROOM);
  for (int i = 0; i < CV_TRACE_ROOM; i++) ck_assert_uint_eq(last[i].number, (uint64_t)(1000 - CV_TRACE_ROOM + 1 + i));
  ck_assert_int_eq(cv_trace_read(&trace, last, 10), 10);
  ck_assert(last[0].number == 991 && last[9].number == 1000);
}
END_TEST

START_TEST(test_heartbeat) {
  uint64_t number = begin(CV_TRACE_PHASE, "phase");
  ck_assert_uint_eq(cv_trace_beats(&trace), 1);
  for (int i = 0; i < 3; i++) cv_trace_read(&trace, last, 5);
  ck_assert_uint_eq(cv_trace_beats(&trace), 1);
  cv_trace_end(&trace, number);
  ck_assert_uint_eq(cv_trace_beats(&trace), 2);
}
END_TEST

/* What has not ended is told first, however much has passed since. */
START_TEST(test_open_ones_stay) {
  cv_operation in;
  begin(CV_TRACE_PHASE, "outer");
  run(10);
  uint64_t inner = begin(CV_TRACE_WAIT, "inner");
  run(1000);
  ck_assert_int_eq(cv_trace_read(&trace, last, CV_TRACE_ROOM), CV_TRACE_ROOM);
  ck_assert(last[0].number == 1 && last[1].number == inner && last[0].end_s == 0 && last[1].end_s == 0);
  ck_assert_str_eq(last[1].what, "inner");
  for (int i = 2; i < CV_TRACE_ROOM; i++)
    ck_assert_uint_eq(last[i].number, inner + 1000 - CV_TRACE_ROOM + 1 + (uint64_t)i);
  ck_assert_int_eq(cv_trace_read(&trace, last, 3), 3);
  ck_assert(last[0].number == 1 && last[1].number == inner && last[2].number == inner + 1000);
  ck_assert(cv_trace_innermost(&trace, &in) && in.number == inner);
  cv_trace_end(&trace, inner);
  ck_assert_int_eq(cv_trace_read(&trace, last, 3), 3);
  ck_assert(last[0].number == 1 && last[1].number == inner + 999);
  ck_assert(cv_trace_innermost(&trace, &in) && in.number == 1);
}
END_TEST

/* In a window that an open operation must make room in, another open one gives way: it comes first, too. */
START_TEST(test_open_ones_at_the_edge) {
  begin(CV_TRACE_PHASE, "a");
  begin(CV_TRACE_PHASE, "b");
  run(2); /* 3, 4 */
  ck_assert_int_eq(cv_trace_read(&trace, last, 3), 3);
  ck_assert(last[0].number == 1 && last[1].number == 2 && last[2].number == 4);
  ck_assert_int_eq(cv_trace_read(&trace, last, 1), 1);
  ck_assert_uint_eq(last[0].number, 1);
}
END_TEST

START_TEST(test_nesting) {
  uint64_t outer = cv_trace_begin(&trace, CV_TRACE_PHASE, "outer", "fc2", CV_PEER_NONE, 0);
  uint64_t transfer = begin(CV_TRACE_TRANSFER, "transfer");
  uint64_t inner = cv_trace_begin(&trace, CV_TRACE_PHASE, "inner", "fc3", CV_PEER_NONE, 0);
  begin(CV_TRACE_WAIT, "innermost");
  cv_operation in;
  ck_assert(cv_trace_innermost(&trace, &in));
  ck_assert_str_eq(in.layer, "fc3");
  cv_trace_end(&trace, inner); /* and the wait in it, which a failure left open */
  ck_assert_int_eq(cv_trace_read(&trace, last, 4), 4);
  ck_assert(last[0].end_s == 0 && last[1].end_s == 0 && last[2].end_s > 0 && last[3].end_s > 0);
  ck_assert_str_eq(last[1].layer, "fc2");
  ck_assert(cv_trace_innermost(&trace, &in) && in.number == outer);
  cv_trace_end(&trace, transfer); /* before the phase that it began in */
  double end_s = (cv_trace_read(&trace, last, 4), last[1].end_s);
  ck_assert(end_s > 0 && last[0].end_s == 0);
  cv_trace_end(&trace, outer);
  cv_trace_end(&trace, transfer);
  cv_trace_read(&trace, last, 4);
  ck_assert(last[1].end_s == end_s && last[0].end_s > 0);
  begin(CV_TRACE_WAIT, "next");
  ck_assert(cv_trace_innermost(&trace, &in) && in.layer == NULL);
}
END_TEST

START_TEST(test_deep_nesting) {
  uint64_t number[CV_TRACE_DEPTH + 3];
  cv_operation in;
  for (int i = 0; i < CV_TRACE_DEPTH + 3; i++) number[i] = begin(CV_TRACE_PHASE, "level");
  ck_assert(cv_trace_innermost(&trace, &in) && in.number == number[CV_TRACE_DEPTH - 1]);
  for (int i = CV_TRACE_DEPTH + 2; i >= 0; i--) cv_trace_end(&trace, number[i]);
  ck_assert(!cv_trace_innermost(&trace, &in));
  int n = cv_trace_read(&trace, last, CV_TRACE_ROOM);
  ck_assert_int_eq(n, CV_TRACE_DEPTH + 3);
  for (int i = 0; i < n; i++) ck_assert(last[i].end_s > 0);
}
END_TEST

/* Another operation has taken the place of the one that ends. */
START_TEST(test_late_end) {
  uint64_t first = begin(CV_TRACE_TRANSFER, "first");
  run(CV_TRACE_ROOM - 1);
  uint64_t second = begin(CV_TRACE_TRANSFER, "second");
  ck_assert_uint_eq(second, first + CV_TRACE_ROOM);
  cv_trace_end(&trace, first);
  ck_assert_int_eq(cv_trace_read(&trace, last, 1), 1);
  ck_assert(last[0].number == second && last[0].end_s == 0);
}
END_TEST

START_TEST(test_peers) {
  char text[24];
  ck_assert_str_eq(cv_trace_peer_text(12, text), "rank 12");
  ck_assert_str_eq(cv_trace_peer_text(CV_PEER_WORKERS, text), "all workers");
  ck_assert_str_eq(cv_trace_peer_text(CV_PEER_NONE, text), "");
}
END_TEST

/* ---- a reader beside a writer ---- */

enum { HAMMERED = 1000000, LOOKS = 100 };
static const char *const words[] = {"a", "b", "c", "d", "e", "f", "g"};
static atomic_bool is_over;

/* Every field follows from the number: a mixture of two operations does not fit. */
static void *hammer(void *unused) {
  (void)unused;
  int64_t step = 0;
  trace.step = &step;
  for (uint64_t i = 1; i <= HAMMERED; i++) {
    step = (int64_t)(3 * i);
    cv_trace_kind kind = i % 2 ? CV_TRACE_PHASE : CV_TRACE_WAIT;
    uint64_t number = cv_trace_begin(&trace, kind, words[i % 7], words[i % 5], (int32_t)(i % 1000), (int64_t)(i * i));
    cv_trace_end(&trace, number);
  }
  atomic_store(&is_over, true);
  return NULL;
}

static bool is_whole(const cv_operation *o) {
  uint64_t i = o->number;
  return o->what == words[i % 7] && o->layer == words[i % 5] && o->peer == (int32_t)(i % 1000) &&
         o->bytes == (int64_t)(i * i) && o->step == (int64_t)(3 * i) &&
         o->kind == (i % 2 ? CV_TRACE_PHASE : CV_TRACE_WAIT) && (o->end_s == 0 || o->end_s >= o->begin_s);
}

START_TEST(test_reader_beside_writer) {
  pthread_t writer;
  int64_t read = 0, torn = 0, disordered = 0, falling = 0;
  uint64_t beats = 0;
  atomic_store(&is_over, false);
  ck_assert_int_eq(pthread_create(&writer, NULL, hammer, NULL), 0);
  while (!atomic_load(&is_over)) {
    cv_operation in;
    uint64_t now = cv_trace_beats(&trace);
    int n = cv_trace_read(&trace, last, CV_TRACE_ROOM);
    falling += now < beats;
    beats = now;
    for (int i = 0; i < n; i++) torn += !is_whole(&last[i]);
    for (int i = 1; i < n; i++) disordered += last[i].number <= last[i - 1].number;
    for (int i = 0; i < LOOKS; i++) { /* always the same place: it changes under most of them */
      if (cv_trace_innermost(&trace, &in)) torn += !is_whole(&in), read++;
    }
    read += n;
  }
  pthread_join(writer, NULL);
  trace.step = NULL;
  ck_assert_int_eq(torn, 0);
  ck_assert_int_eq(disordered, 0);
  ck_assert_int_eq(falling, 0);
  ck_assert_int_gt(read, 1000);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {test_fields,    test_no_recorder,         test_order_and_overflow,
                                test_heartbeat, test_open_ones_stay,      test_open_ones_at_the_edge,
                                test_nesting,   test_deep_nesting,        test_late_end,
                                test_peers,     test_reader_beside_writer};
  return suite_run("trace", tests, sizeof tests / sizeof tests[0], reset);
}

#include "base/trace.h"

#include "base/clock.h"

#include <stdio.h>

/* Only one thread writes: no read-modify-write is needed. */
static void beat(cv_trace *trace) {
  uint64_t beats = atomic_load_explicit(&trace->beats, memory_order_relaxed);
  atomic_store_explicit(&trace->beats, beats + 1, memory_order_release);
}

/* Fields are stored with release and loaded with acquire: who sees a new field sees the odd mark before it, too. */
static void write_entry(cv_trace_entry *e, const cv_operation *o, int64_t begin_ns) {
  atomic_store_explicit(&e->mark, 2 * o->number + 1, memory_order_relaxed);
  atomic_store_explicit(&e->what, o->what, memory_order_release);
  atomic_store_explicit(&e->layer, o->layer, memory_order_release);
  atomic_store_explicit(&e->kind, (int32_t)o->kind, memory_order_release);
  atomic_store_explicit(&e->peer, o->peer, memory_order_release);
  atomic_store_explicit(&e->bytes, o->bytes, memory_order_release);
  atomic_store_explicit(&e->step, o->step, memory_order_release);
  atomic_store_explicit(&e->begin_ns, begin_ns, memory_order_release);
  atomic_store_explicit(&e->end_ns, 0, memory_order_release);
  atomic_store_explicit(&e->mark, 2 * o->number, memory_order_release);
}

/* false: empty, or another operation has come while it was read. */
static bool read_entry(const cv_trace_entry *e, cv_operation *o) {
  uint64_t mark = atomic_load_explicit(&e->mark, memory_order_acquire);
  if (mark == 0 || mark % 2 == 1) return false;
  o->number = mark / 2;
  o->what = atomic_load_explicit(&e->what, memory_order_acquire);
  o->layer = atomic_load_explicit(&e->layer, memory_order_acquire);
  o->kind = (cv_trace_kind)atomic_load_explicit(&e->kind, memory_order_acquire);
  o->peer = atomic_load_explicit(&e->peer, memory_order_acquire);
  o->bytes = atomic_load_explicit(&e->bytes, memory_order_acquire);
  o->step = atomic_load_explicit(&e->step, memory_order_acquire);
  o->begin_s = 1e-9 * (double)atomic_load_explicit(&e->begin_ns, memory_order_acquire);
  o->end_s = 1e-9 * (double)atomic_load_explicit(&e->end_ns, memory_order_acquire);
  return atomic_load_explicit(&e->mark, memory_order_relaxed) == mark;
}

static cv_trace_entry *place_of(cv_trace *trace, uint64_t number) {
  return &trace->ring[number % CV_TRACE_ROOM];
}

/* ---- writer ---- */

uint64_t cv_trace_begin(cv_trace *trace, cv_trace_kind kind, const char *what, const char *layer, int32_t peer,
                        int64_t bytes) {
  if (!trace) return 0;
  int depth = atomic_load_explicit(&trace->depth, memory_order_relaxed);
  if (!layer && depth > 0) layer = trace->layer[depth - 1];
  cv_operation o = {.number = atomic_load_explicit(&trace->begun, memory_order_relaxed) + 1,
                    .what = what,
                    .layer = layer,
                    .kind = kind,
                    .peer = peer,
                    .bytes = bytes,
                    .step = trace->step ? *trace->step : 0};
  int64_t now = cv_wall_ns();
  write_entry(place_of(trace, o.number), &o, now);
  if (kind != CV_TRACE_TRANSFER && depth < CV_TRACE_DEPTH) {
    write_entry(&trace->open[depth], &o, now);
    trace->nested[depth] = o.number;
    trace->layer[depth] = layer;
    atomic_store_explicit(&trace->depth, depth + 1, memory_order_release);
  }
  atomic_store_explicit(&trace->begun, o.number, memory_order_release);
  beat(trace);
  return o.number;
}

/* Unless others have taken its place. */
static void note_end(cv_trace_entry *e, uint64_t number, int64_t now) {
  bool is_there = atomic_load_explicit(&e->mark, memory_order_relaxed) == 2 * number;
  if (is_there && atomic_load_explicit(&e->end_ns, memory_order_relaxed) == 0)
    atomic_store_explicit(&e->end_ns, now, memory_order_release);
}

void cv_trace_end(cv_trace *trace, uint64_t number) {
  if (!trace || number == 0) return;
  int64_t now = cv_wall_ns();
  int depth = atomic_load_explicit(&trace->depth, memory_order_relaxed), outer = depth;
  while (outer > 0 && trace->nested[outer - 1] > number) outer--;
  if (outer > 0 && trace->nested[outer - 1] == number) {
    for (; depth >= outer; depth--) {
      note_end(place_of(trace, trace->nested[depth - 1]), trace->nested[depth - 1], now);
      note_end(&trace->open[depth - 1], trace->nested[depth - 1], now);
    }
    atomic_store_explicit(&trace->depth, depth, memory_order_release);
  } else {
    note_end(place_of(trace, number), number, now);
  }
  beat(trace);
}

/* ---- readers ---- */

/* Open operations before number `first`; the first `room` of them into list. */
static int read_open(const cv_trace *trace, uint64_t first, cv_operation *list, int room) {
  cv_operation o;
  int n = 0, depth = atomic_load_explicit(&trace->depth, memory_order_acquire);
  for (int i = 0; i < depth && n < room; i++) {
    if (read_entry(&trace->open[i], &o) && o.end_s == 0 && o.number < first) list[n++] = o;
  }
  return n;
}

int cv_trace_read(const cv_trace *trace, cv_operation *last, int n) {
  uint64_t begun = atomic_load_explicit(&trace->begun, memory_order_acquire);
  if (n <= 0) return 0;
  uint64_t room = (uint64_t)(n < CV_TRACE_ROOM ? n : CV_TRACE_ROOM), first = begun > room ? begun - room + 1 : 1;
  int count = read_open(trace, first, last, n);
  while (begun >= first && (uint64_t)count + (begun - first + 1) > (uint64_t)n) {
    first++; /* one more gives way, and may be an open one itself */
    count = read_open(trace, first, last, n);
  }
  for (uint64_t number = first; number <= begun; number++) {
    const cv_trace_entry *e = &trace->ring[number % CV_TRACE_ROOM];
    if (read_entry(e, &last[count]) && last[count].number == number) count++;
  }
  return count;
}

bool cv_trace_innermost(const cv_trace *trace, cv_operation *operation) {
  int depth = atomic_load_explicit(&trace->depth, memory_order_acquire);
  return depth > 0 && read_entry(&trace->open[depth - 1], operation) && operation->end_s == 0;
}

uint64_t cv_trace_beats(const cv_trace *trace) {
  return atomic_load_explicit(&trace->beats, memory_order_acquire);
}

const char *cv_trace_peer_text(int32_t peer, char text[24]) {
  switch (peer) {
  case CV_PEER_WORKERS:
    return "all workers";
  case CV_PEER_ALL:
    return "all ranks";
  case CV_PEER_OWNERS:
    return "all owners";
  case CV_PEER_NONE:
    return "";
  }
  snprintf(text, 24, "rank %d", peer);
  return text;
}

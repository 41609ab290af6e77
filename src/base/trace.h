/* A flight recorder: the last operations of one rank, for whoever wants to know where it stands.
 *
 * One thread at a time writes; any thread reads at any time. Neither waits for the other: an entry is guarded by its
 * own number, so a reader leaves out what changes under its eyes. Beginning and ending an operation take a few tens of
 * nanoseconds, most of them the clock's. Texts are borrowed: static ones, or names that live as long as the recorder.
 *
 * Operations that wait or work are nested, and those that have not ended are kept apart from the ring: what a rank
 * stands in is known however many operations have passed since that began. A transfer is an operation behind the
 * rank's back: it ends when it is seen to have ended. */
#ifndef CV_BASE_TRACE_H
#define CV_BASE_TRACE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { CV_TRACE_ROOM = 256, CV_TRACE_DEPTH = 8 };

typedef enum cv_trace_kind {
  CV_TRACE_PHASE,    /* its own work, and what is nested in it */
  CV_TRACE_WAIT,     /* for others, inside a call */
  CV_TRACE_IDLE,     /* for the next command: others decide how long */
  CV_TRACE_TRANSFER, /* behind its back */
} cv_trace_kind;

/* Whom an operation is with: a rank, or one of these. */
enum { CV_PEER_WORKERS = -1, CV_PEER_ALL = -2, CV_PEER_OWNERS = -3, CV_PEER_NONE = -4 };

typedef struct cv_operation {
  uint64_t number;   /* 1, 2, 3, ... in order of beginning */
  const char *what;  /* "reduce gradients" */
  const char *layer; /* NULL: none */
  cv_trace_kind kind;
  int32_t peer;
  int64_t bytes, step;
  double begin_s, end_s; /* cv_wall_s; end_s 0: has not ended */
} cv_operation;

/* One operation in memory that all threads see. mark: 2 number, odd while it is written, 0: empty. */
typedef struct cv_trace_entry {
  _Atomic uint64_t mark;
  _Atomic(const char *) what, layer;
  _Atomic int64_t bytes, step, begin_ns, end_ns;
  _Atomic int32_t kind, peer;
} cv_trace_entry;

/* All zeros: empty. */
typedef struct cv_trace {
  cv_trace_entry ring[CV_TRACE_ROOM];  /* operation i in place i % CV_TRACE_ROOM */
  cv_trace_entry open[CV_TRACE_DEPTH]; /* not ended, from the outermost on; further ones are in the ring only */
  _Atomic uint64_t begun, beats;
  _Atomic int depth;
  /* the writer's own */
  const int64_t *step;             /* read whenever an operation begins; NULL: steps are 0 */
  uint64_t nested[CV_TRACE_DEPTH]; /* numbers of the open ones, and their layers */
  const char *layer[CV_TRACE_DEPTH];
} cv_trace;

/* Writer. A NULL trace records nothing, as number 0. Without a layer an operation has that of the one around it. Ending
 * an operation ends those that are still open in it; ending one twice does nothing. */
uint64_t cv_trace_begin(cv_trace *trace, cv_trace_kind kind, const char *what, const char *layer, int32_t peer,
                        int64_t bytes);
void cv_trace_end(cv_trace *trace, uint64_t number);

/* Any thread. The last operations, oldest first, at most n; those that have not ended take the first places when the
 * last n do not hold them. Returns their number; last may be NULL when n is 0. */
int cv_trace_read(const cv_trace *trace, cv_operation *last, int n);

/* Any thread: the innermost operation that has not ended. Neither transfers nor an empty recorder have one. */
bool cv_trace_innermost(const cv_trace *trace, cv_operation *operation);

/* Any thread: grows with every beginning and every end. */
uint64_t cv_trace_beats(const cv_trace *trace);

/* "rank 4", "all workers"; "" of CV_PEER_NONE. */
const char *cv_trace_peer_text(int32_t peer, char text[24]);

#endif

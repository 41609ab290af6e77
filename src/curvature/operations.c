/* The flight recorder of a context: what is recorded, and what others may read of it. */
#include "curvature/internal.h"
#include "curvd_experimental.h"

_Static_assert((int)CURVD_OPERATIONS == (int)CV_TRACE_ROOM, "the public size is the ring's");
_Static_assert((int)CURVD_OPERATION_PHASE == (int)CV_TRACE_PHASE && (int)CURVD_OPERATION_WAIT == (int)CV_TRACE_WAIT &&
                   (int)CURVD_OPERATION_IDLE == (int)CV_TRACE_IDLE &&
                   (int)CURVD_OPERATION_TRANSFER == (int)CV_TRACE_TRANSFER,
               "the public kinds are those of base/trace.h");
_Static_assert((int)CURVD_PEER_WORKERS == (int)CV_PEER_WORKERS && (int)CURVD_PEER_ALL == (int)CV_PEER_ALL &&
                   (int)CURVD_PEER_OWNERS == (int)CV_PEER_OWNERS && (int)CURVD_PEER_NONE == (int)CV_PEER_NONE,
               "the public peers are those of base/trace.h");

void cv_record(curvd_ctx *ctx) {
  ctx->trace.step = &ctx->step;
  ctx->comm.trace = &ctx->trace;
  for (int i = 0; i < CURVD_STAGES; i++) {
    ctx->stage[i].trace = &ctx->trace;
    ctx->stage[i].name = curvd_stage_name(i);
  }
}

int curvd_trace_read(const curvd_ctx *ctx, curvd_operation *last, int n) {
  cv_operation room[CV_TRACE_ROOM];
  if (!ctx || !last) return 0;
  int count = cv_trace_read(&ctx->trace, room, n < CV_TRACE_ROOM ? n : CV_TRACE_ROOM);
  for (int i = 0; i < count; i++) {
    const cv_operation *o = &room[i];
    last[i] = (curvd_operation){.number = o->number,
                                .what = o->what,
                                .layer = o->layer,
                                .kind = (curvd_operation_kind)o->kind,
                                .peer = o->peer,
                                .bytes = o->bytes,
                                .step = o->step,
                                .begin_s = o->begin_s,
                                .end_s = o->end_s};
  }
  return count;
}

uint64_t curvd_heartbeat(const curvd_ctx *ctx) {
  return ctx ? cv_trace_beats(&ctx->trace) : 0;
}

bool curvd_is_idle(const curvd_ctx *ctx) {
  cv_operation innermost;
  return ctx && cv_trace_innermost(&ctx->trace, &innermost) && innermost.kind == CV_TRACE_IDLE;
}

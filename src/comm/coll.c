#include "comm/coll.h"

#include "base/order.h"
#include "product/bf16.h"

#include <sched.h>
#include <time.h>

enum { PIECE_BYTES = 1 << 29, SPINS = 200, SLEEP_MIN_NS = 10000, SLEEP_MAX_NS = 800000, SLEEP_GENTLE_NS = 100000 };
enum { TAG_COMMAND = 1, TAG_ROWS = 2, TAG_SUM = 3, TAG_MOVE = 4 };

/* A short spin for what is about to come, then sleeps that grow with the time waited: Open MPI's own waits keep a core
 * busy for ever. A sleep and a look take some 20 us of CPU, so an idle rank takes about 2 % of a core. */
void cv_coll_pause(cv_wait how, int64_t n) {
  if (how == CV_WAIT_ACTIVE || n < SPINS) {
    if (n % 64 == 63) sched_yield();
    return;
  }
  int64_t doublings = (n - SPINS) / 4, most = how == CV_WAIT_IDLE ? SLEEP_MAX_NS : SLEEP_GENTLE_NS;
  int64_t sleep_ns = doublings < 16 ? (int64_t)SLEEP_MIN_NS << doublings : most;
  nanosleep(&(struct timespec){.tv_nsec = (long)(sleep_ns < most ? sleep_ns : most)}, NULL);
}

/* ---- the record ---- */

static uint64_t call_begin(const cv_comm *comm, const char *what, int32_t peer, int64_t bytes) {
  return cv_trace_begin(comm->trace, CV_TRACE_WAIT, what, NULL, peer, bytes);
}

/* Ends the record of a blocking call. */
static curvd_status call_end(const cv_comm *comm, uint64_t operation, int code, const char *call, cv_error *err) {
  cv_trace_end(comm->trace, operation);
  return cv_comm_check(code, call, err);
}

void cv_coll_wait_begin(cv_transfer *transfer) {
  transfer->wait =
      cv_trace_begin(transfer->trace, CV_TRACE_WAIT, transfer->what, NULL, transfer->peer, transfer->bytes);
}

void cv_coll_wait_end(cv_transfer *transfer) {
  cv_trace_end(transfer->trace, transfer->wait);
  transfer->wait = 0;
}

/* A transfer of no bytes is none. Who waits for what came before waits for this one now. */
static void announce(const cv_comm *comm, const char *what, int32_t peer, int64_t bytes, cv_transfer *transfer) {
  bool is_awaited = transfer->wait > 0;
  if (is_awaited) cv_coll_wait_end(transfer);
  transfer->trace = comm->trace;
  transfer->what = what;
  transfer->peer = peer;
  transfer->bytes = bytes;
  transfer->operation = bytes > 0 ? cv_trace_begin(comm->trace, CV_TRACE_TRANSFER, what, NULL, peer, bytes) : 0;
  if (is_awaited) cv_coll_wait_begin(transfer);
}

/* Of a group: its owner, or on the owner all workers. */
static int32_t other_end(const cv_comm *comm, int owner) {
  return cv_comm_my_owner(comm) == owner ? CV_PEER_WORKERS : cv_comm_owner_rank(comm, owner);
}

/* ---- transfers ---- */

static void expect_one(cv_transfer *transfer) {
  transfer->n = 1;
  transfer->is_of_parts = false;
  transfer->rounded = 0;
  transfer->wait = 0;
}

typedef curvd_status (*begin_piece)(const cv_comm *comm, int owner, void *x, int count, MPI_Request *request,
                                    cv_error *err);

/* Nothing is under way yet, but may soon be: x has so many numbers of two sizes. */
static curvd_status clear(cv_transfer *transfer, int64_t bytes, int64_t more_bytes, cv_error *err) {
  int64_t pieces = cv_divide_up(bytes, PIECE_BYTES) + cv_divide_up(more_bytes, PIECE_BYTES);
  transfer->n = 0;
  transfer->is_of_parts = false;
  transfer->rounded = 0;
  transfer->wait = 0;
  if (pieces <= CV_TRANSFER_PIECES) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_SIZE, "a transfer of %lld bytes is above the limit of %lld",
                 (long long)(bytes + more_bytes), (long long)CV_TRANSFER_MAX_BYTES);
}

/* Adds x (count) to what is under way. */
static curvd_status begin_pieces(const cv_comm *comm, int owner, void *x, int64_t count, int64_t size,
                                 begin_piece piece, cv_transfer *transfer, cv_error *err) {
  int64_t most = PIECE_BYTES / size;
  for (int64_t done = 0; done < count; done += most) {
    int64_t now = count - done < most ? count - done : most;
    CV_TRY(piece(comm, owner, (char *)x + done * size, (int)now, &transfer->request[transfer->n], err));
    transfer->n++;
  }
  return CURVD_OK;
}

static curvd_status begin(const cv_comm *comm, int owner, void *x, int64_t bytes, begin_piece piece,
                          cv_transfer *transfer, cv_error *err) {
  CV_TRY(clear(transfer, bytes, 0, err));
  return begin_pieces(comm, owner, x, bytes, 1, piece, transfer, err);
}

/* The owner is last in a group with a curvature rank; among workers it stands at its own place. */
static int root_of(const cv_comm *comm, int owner) {
  return comm->n_curvature > 0 ? comm->n_workers : owner;
}

static curvd_status send_piece(const cv_comm *comm, int owner, const void *x, int count, MPI_Datatype type,
                               MPI_Request *request, cv_error *err) {
  int code = MPI_Isend(x, count, type, root_of(comm, owner), TAG_SUM, comm->up[owner], request);
  return cv_comm_check(code, "MPI_Isend of statistics", err);
}

static curvd_status part_out(const cv_comm *comm, int owner, void *x, int count, MPI_Request *request, cv_error *err) {
  return send_piece(comm, owner, x, count, MPI_FLOAT, request, err);
}

static curvd_status rounded_out(const cv_comm *comm, int owner, void *x, int count, MPI_Request *request,
                                cv_error *err) {
  return send_piece(comm, owner, x, count, MPI_UINT16_T, request, err);
}

static curvd_status sum_piece(const cv_comm *comm, int owner, void *x, int count, MPI_Datatype type, MPI_Op op,
                              MPI_Request *request, cv_error *err) {
  bool is_root = cv_comm_my_owner(comm) == owner;
  int code = MPI_Ireduce(is_root ? MPI_IN_PLACE : x, is_root ? x : NULL, count, type, op, root_of(comm, owner),
                         comm->up[owner], request);
  return cv_comm_check(code, "MPI_Ireduce of statistics", err);
}

static curvd_status reduce_piece(const cv_comm *comm, int owner, void *x, int count, MPI_Request *request,
                                 cv_error *err) {
  return sum_piece(comm, owner, x, count, MPI_FLOAT, MPI_SUM, request, err);
}

static curvd_status reduce_rounded(const cv_comm *comm, int owner, void *x, int count, MPI_Request *request,
                                   cv_error *err) {
  return sum_piece(comm, owner, x, count, MPI_UINT16_T, comm->add_bf16, request, err);
}

static curvd_status broadcast_piece(const cv_comm *comm, int owner, void *x, int count, MPI_Request *request,
                                    cv_error *err) {
  int code = MPI_Ibcast(x, count, MPI_BYTE, root_of(comm, owner), comm->down[owner], request);
  return cv_comm_check(code, "MPI_Ibcast of preconditioners", err);
}

curvd_status cv_coll_sum(const cv_comm *comm, float *x, int64_t count, cv_error *err) {
  const int64_t most = PIECE_BYTES / (int64_t)sizeof *x;
  for (int64_t done = 0; done < count && comm->n_workers > 1; done += most) {
    int now = (int)(count - done < most ? count - done : most);
    uint64_t operation = call_begin(comm, "sum gradients", CV_PEER_WORKERS, now * (int64_t)sizeof *x);
    int code = MPI_Allreduce(MPI_IN_PLACE, x + done, now, MPI_FLOAT, MPI_SUM, comm->workers);
    CV_TRY(call_end(comm, operation, code, "MPI_Allreduce of gradients", err));
  }
  return CURVD_OK;
}

/* ---- sums of a few workers' messages ---- */

bool cv_coll_sums_parts(const cv_comm *comm) {
  return comm->n_curvature > 0 && comm->n_workers <= CV_SUM_PARTS_MAX;
}

/* A sum by halves, up a tree, or along a chain of up to four ranks (Open MPI 4.1), of a group of p. */
int cv_coll_roundings(const cv_comm *comm) {
  int ranks = comm->n_workers + (comm->n_curvature > 0), roundings = 1;
  if (cv_coll_sums_parts(comm) || ranks == 1) return 0;
  for (int p = 1; p < ranks; p *= 2) roundings++;
  return roundings;
}

static curvd_status take_piece(const cv_comm *comm, int worker, int owner, void *x, int count, MPI_Datatype type,
                               MPI_Request *request, cv_error *err) {
  int code = MPI_Irecv(x, count, type, worker, TAG_SUM, comm->up[owner], request);
  return cv_comm_check(code, "MPI_Irecv of statistics", err);
}

static int64_t sum_bytes(int64_t count, int64_t rounded) {
  return count * (int64_t)sizeof(float) + rounded * (int64_t)sizeof(uint16_t);
}

/* Behind the floats of a part; without any there may be no inbox. */
static uint16_t *rounded_in(const cv_transfer *t) {
  return t->rounded > 0 ? (uint16_t *)(void *)(t->inbox + t->count) : NULL;
}

/* The floats of the first worker go where the sum is made; what is rounded is widened first. */
static curvd_status begin_part(cv_transfer *t, cv_error *err) {
  float *to = t->worker == 0 ? t->x : t->inbox;
  uint16_t *rounded = rounded_in(t);
  int64_t most = PIECE_BYTES / (int64_t)sizeof *to;
  announce(t->comm, "receive statistics", t->worker, sum_bytes(t->count, t->rounded), t);
  t->n = 0;
  for (int64_t done = 0; done < t->count; done += most, t->n++) {
    int now = (int)cv_smaller(t->count - done, most);
    CV_TRY(take_piece(t->comm, t->worker, t->owner, to + done, now, MPI_FLOAT, &t->request[t->n], err));
  }
  most = PIECE_BYTES / (int64_t)sizeof *rounded;
  for (int64_t done = 0; done < t->rounded; done += most, t->n++) {
    int now = (int)cv_smaller(t->rounded - done, most);
    CV_TRY(take_piece(t->comm, t->worker, t->owner, rounded + done, now, MPI_UINT16_T, &t->request[t->n], err));
  }
  return CURVD_OK;
}

/* A part is here; asks for the next one. */
static curvd_status add_part(cv_transfer *t, bool *is_last, cv_error *err) {
  const uint16_t *rounded = rounded_in(t);
  for (int64_t i = 0; t->worker > 0 && i < t->count; i++) t->x[i] += t->inbox[i];
  for (int64_t i = 0; i < t->rounded; i++) t->x[t->count + i] += cv_widen_bf16(rounded[i]);
  *is_last = ++t->worker == t->comm->n_workers;
  if (!*is_last) return begin_part(t, err);
  t->is_of_parts = false;
  t->rounded = 0;
  return CURVD_OK;
}

static curvd_status take_parts(const cv_comm *comm, int owner, float *x, float *inbox, int64_t count, int64_t rounded,
                               cv_transfer *transfer, cv_error *err) {
  transfer->is_of_parts = true;
  transfer->comm = comm;
  transfer->owner = owner;
  transfer->worker = 0;
  transfer->x = x;
  transfer->inbox = inbox;
  transfer->count = count;
  transfer->rounded = rounded;
  return begin_part(transfer, err);
}

curvd_status cv_coll_begin_reduce(const cv_comm *comm, int owner, float *x, float *inbox, int64_t count,
                                  int64_t rounded, cv_transfer *transfer, cv_error *err) {
  if (comm->n_ranks == 1) count = rounded = 0;
  bool sums_parts = cv_coll_sums_parts(comm), is_owner = cv_comm_my_owner(comm) == owner;
  int64_t bytes = sum_bytes(count, rounded);
  CV_TRY(clear(transfer, sum_bytes(count, 0), sum_bytes(0, rounded), err));
  if (sums_parts && is_owner) return take_parts(comm, owner, x, inbox, count, rounded, transfer, err);
  CV_TRY(begin_pieces(comm, owner, x, count, sizeof *x, sums_parts ? part_out : reduce_piece, transfer, err));
  CV_TRY(begin_pieces(comm, owner, x + count, rounded, sizeof(uint16_t), sums_parts ? rounded_out : reduce_rounded,
                      transfer, err));
  announce(comm, sums_parts ? "send statistics" : "sum statistics", other_end(comm, owner), bytes, transfer);
  transfer->x = x + count;
  transfer->rounded = is_owner ? rounded : 0;
  return CURVD_OK;
}

curvd_status cv_coll_begin_broadcast(const cv_comm *comm, int owner, const char *what, void *x, int64_t bytes,
                                     cv_transfer *transfer, cv_error *err) {
  if (comm->n_ranks == 1) bytes = 0;
  CV_TRY(begin(comm, owner, x, bytes, broadcast_piece, transfer, err));
  announce(comm, what, other_end(comm, owner), bytes, transfer);
  return CURVD_OK;
}

/* Floats of every worker. */
static int64_t bytes_of(const cv_comm *comm, const int *count) {
  int64_t sum = 0;
  for (int w = 0; w < comm->n_workers; w++) sum += count[w];
  return sum * (int64_t)sizeof(float);
}

curvd_status cv_coll_scatter_sum(const cv_comm *comm, const float *x, float *mine, const int *count, cv_error *err) {
  uint64_t operation = call_begin(comm, "scatter gradients", CV_PEER_WORKERS, bytes_of(comm, count));
  int code = MPI_Reduce_scatter(x, mine, count, MPI_FLOAT, MPI_SUM, comm->workers);
  return call_end(comm, operation, code, "MPI_Reduce_scatter of gradients", err);
}

curvd_status cv_coll_gather(const cv_comm *comm, float *x, const int *count, const int *begin, cv_error *err) {
  uint64_t operation = call_begin(comm, "gather directions", CV_PEER_WORKERS, bytes_of(comm, count));
  int code = MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_FLOAT, x, count, begin, MPI_FLOAT, comm->workers);
  return call_end(comm, operation, code, "MPI_Allgatherv of directions", err);
}

curvd_status cv_coll_sum_doubles(const cv_comm *comm, double *x, int count, cv_error *err) {
  uint64_t operation = call_begin(comm, "add up sums", CV_PEER_WORKERS, count * (int64_t)sizeof *x);
  int code = MPI_Allreduce(MPI_IN_PLACE, x, count, MPI_DOUBLE, MPI_SUM, comm->workers);
  return call_end(comm, operation, code, "MPI_Allreduce of sums", err);
}

curvd_status cv_coll_begin_send(const cv_comm *comm, int owner, const void *x, int64_t bytes, cv_transfer *transfer,
                                cv_error *err) {
  expect_one(transfer);
  announce(comm, "send statistics", cv_comm_owner_rank(comm, owner), bytes, transfer);
  int code = MPI_Isend(x, (int)bytes, MPI_BYTE, root_of(comm, owner), TAG_ROWS, comm->up[owner], transfer->request);
  return cv_comm_check(code, "MPI_Isend of captured rows", err);
}

curvd_status cv_coll_begin_receive(const cv_comm *comm, int owner, int worker, void *x, int64_t bytes,
                                   cv_transfer *transfer, cv_error *err) {
  expect_one(transfer);
  announce(comm, "receive statistics", worker, bytes, transfer);
  int code = MPI_Irecv(x, (int)bytes, MPI_BYTE, worker, TAG_ROWS, comm->up[owner], transfer->request);
  return cv_comm_check(code, "MPI_Irecv of captured rows", err);
}

curvd_status cv_coll_test(cv_transfer *transfer, bool *is_done, cv_error *err) {
  int done = 1;
  *is_done = transfer->n == 0;
  if (*is_done) return CURVD_OK;
  CV_TRY(cv_comm_check(MPI_Testall(transfer->n, transfer->request, &done, MPI_STATUSES_IGNORE), "MPI_Testall", err));
  if (!done) *is_done = false;
  if (!done) return CURVD_OK;
  transfer->n = 0;
  cv_trace_end(transfer->trace, transfer->operation);
  *is_done = true;
  if (transfer->is_of_parts) return add_part(transfer, is_done, err);
  cv_widen_in_place(transfer->rounded, transfer->x); /* of a sum that is here */
  transfer->rounded = 0;
  return CURVD_OK;
}

curvd_status cv_coll_end(cv_transfer *transfer, cv_wait how, cv_error *err) {
  bool is_done = false;
  curvd_status status = cv_coll_test(transfer, &is_done, err);
  if (is_done || status != CURVD_OK) return status;
  cv_coll_wait_begin(transfer);
  for (int64_t n = 0; !is_done && status == CURVD_OK; n++) {
    cv_coll_pause(how, n);
    status = cv_coll_test(transfer, &is_done, err);
  }
  cv_coll_wait_end(transfer);
  return status;
}

curvd_status cv_coll_told(cv_comm *comm, cv_error *err) {
  if (!comm->commands) return CURVD_OK;
  int64_t bytes = comm->n_curvature * (int64_t)sizeof *comm->words;
  uint64_t operation = call_begin(comm, "wait until a command has left", CV_PEER_OWNERS, bytes);
  int code = MPI_Waitall(comm->n_curvature, comm->commands, MPI_STATUSES_IGNORE);
  return call_end(comm, operation, code, "MPI_Waitall of commands", err);
}

curvd_status cv_coll_tell(cv_comm *comm, int64_t word, cv_error *err) {
  CV_TRY(cv_coll_told(comm, err));
  for (int c = 0; c < comm->n_curvature && comm->commands; c++) {
    comm->words[c] = word;
    uint64_t operation = call_begin(comm, "tell a command", comm->n_workers + c, sizeof word);
    int code =
        MPI_Isend(&comm->words[c], 1, MPI_INT64_T, comm->n_workers + c, TAG_COMMAND, comm->world, &comm->commands[c]);
    CV_TRY(call_end(comm, operation, code, "MPI_Isend of a command", err));
  }
  return CURVD_OK;
}

curvd_status cv_coll_hear(const cv_comm *comm, int64_t *word, cv_error *err) {
  cv_transfer transfer = {.n = 1};
  int code = MPI_Irecv(word, 1, MPI_INT64_T, 0, TAG_COMMAND, comm->world, &transfer.request[0]);
  CV_TRY(cv_comm_check(code, "MPI_Irecv of a command", err));
  uint64_t operation = cv_trace_begin(comm->trace, CV_TRACE_IDLE, "hear a command", NULL, 0, sizeof *word);
  curvd_status status = cv_coll_end(&transfer, CV_WAIT_IDLE, err);
  cv_trace_end(comm->trace, operation);
  return status;
}

curvd_status cv_coll_min(const cv_comm *comm, int64_t x, int64_t *least, cv_error *err) {
  uint64_t operation = call_begin(comm, "find the least", CV_PEER_WORKERS, sizeof x);
  int code = MPI_Allreduce(&x, least, 1, MPI_INT64_T, MPI_MIN, comm->workers);
  return call_end(comm, operation, code, "MPI_Allreduce", err);
}

curvd_status cv_coll_share(const cv_comm *comm, int32_t *x, int count, cv_error *err) {
  uint64_t operation = call_begin(comm, "share a plan", comm->rank == 0 ? CV_PEER_ALL : 0, count * (int64_t)sizeof *x);
  int code = MPI_Bcast(x, count, MPI_INT32_T, 0, comm->world);
  return call_end(comm, operation, code, "MPI_Bcast of a plan", err);
}

static curvd_status move_out(const cv_comm *comm, int owner, void *x, int count, MPI_Request *request, cv_error *err) {
  int code = MPI_Isend(x, count, MPI_BYTE, owner, TAG_MOVE, comm->owners, request);
  return cv_comm_check(code, "MPI_Isend of a factor", err);
}

static curvd_status move_in(const cv_comm *comm, int owner, void *x, int count, MPI_Request *request, cv_error *err) {
  int code = MPI_Irecv(x, count, MPI_BYTE, owner, TAG_MOVE, comm->owners, request);
  return cv_comm_check(code, "MPI_Irecv of a factor", err);
}

curvd_status cv_coll_send_to_owner(const cv_comm *comm, int owner, const void *x, int64_t bytes, cv_error *err) {
  cv_transfer transfer;
  void *from = (void *)(uintptr_t)x; /* MPI writes nothing there */
  CV_TRY(begin(comm, owner, from, bytes, move_out, &transfer, err));
  announce(comm, "send a factor", cv_comm_owner_rank(comm, owner), bytes, &transfer);
  return cv_coll_end(&transfer, CV_WAIT_ACTIVE, err);
}

curvd_status cv_coll_receive_from_owner(const cv_comm *comm, int owner, void *x, int64_t bytes, cv_error *err) {
  cv_transfer transfer;
  CV_TRY(begin(comm, owner, x, bytes, move_in, &transfer, err));
  announce(comm, "receive a factor", cv_comm_owner_rank(comm, owner), bytes, &transfer);
  return cv_coll_end(&transfer, CV_WAIT_GENTLY, err);
}

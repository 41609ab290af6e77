#include "comm/coll.h"

#include <sched.h>
#include <time.h>

enum { PIECE_BYTES = 1 << 29, SPINS = 2000, SLEEP_MIN_NS = 10000, SLEEP_MAX_NS = 500000 };

/* A short spin for what is about to come, then sleeps that double: Open MPI's own waits keep a core busy for ever. */
static curvd_status wait_idle(MPI_Request *request, cv_error *err) {
  int is_done = 0;
  long sleep_ns = SLEEP_MIN_NS;
  for (int64_t i = 0; !is_done; i++) {
    CV_TRY(cv_comm_check(MPI_Test(request, &is_done, MPI_STATUS_IGNORE), "MPI_Test", err));
    if (is_done) break;
    if (i < SPINS) {
      if (i % 64 == 63) sched_yield();
      continue;
    }
    nanosleep(&(struct timespec){.tv_nsec = sleep_ns}, NULL);
    sleep_ns = 2 * sleep_ns < SLEEP_MAX_NS ? 2 * sleep_ns : SLEEP_MAX_NS;
  }
  return CURVD_OK;
}

typedef curvd_status (*begin_piece)(const cv_comm *comm, int owner, void *x, int count, MPI_Request *request,
                                    cv_error *err);

static curvd_status begin(const cv_comm *comm, int owner, void *x, int64_t count, int64_t size, begin_piece piece,
                          cv_transfer *transfer, cv_error *err) {
  transfer->n = 0;
  if (count * size > CV_TRANSFER_MAX_BYTES) {
    return cv_fail(err, CURVD_ERR_SIZE, "a transfer of %lld bytes is above the limit of %lld",
                   (long long)(count * size), (long long)CV_TRANSFER_MAX_BYTES);
  }
  int64_t most = PIECE_BYTES / size;
  for (int64_t done = 0; done < count; done += most) {
    int64_t now = count - done < most ? count - done : most;
    CV_TRY(piece(comm, owner, (char *)x + done * size, (int)now, &transfer->request[transfer->n], err));
    transfer->n++;
  }
  return CURVD_OK;
}

static curvd_status sum_piece(const cv_comm *comm, int owner, void *x, int count, MPI_Request *request, cv_error *err) {
  (void)owner;
  int code = MPI_Iallreduce(MPI_IN_PLACE, x, count, MPI_FLOAT, MPI_SUM, comm->workers, request);
  return cv_comm_check(code, "MPI_Iallreduce of gradients", err);
}

/* The owner is last in a group with a curvature rank; among workers it stands at its own place. */
static int root_of(const cv_comm *comm, int owner) {
  return comm->n_curvature > 0 ? comm->n_workers : owner;
}

static curvd_status reduce_piece(const cv_comm *comm, int owner, void *x, int count, MPI_Request *request,
                                 cv_error *err) {
  bool is_root = cv_comm_my_owner(comm) == owner;
  int code = MPI_Ireduce(is_root ? MPI_IN_PLACE : x, is_root ? x : NULL, count, MPI_FLOAT, MPI_SUM,
                         root_of(comm, owner), comm->group[owner], request);
  return cv_comm_check(code, "MPI_Ireduce of statistics", err);
}

static curvd_status broadcast_piece(const cv_comm *comm, int owner, void *x, int count, MPI_Request *request,
                                    cv_error *err) {
  int code = MPI_Ibcast(x, count, MPI_BYTE, root_of(comm, owner), comm->group[owner], request);
  return cv_comm_check(code, "MPI_Ibcast of preconditioners", err);
}

curvd_status cv_coll_begin_sum(const cv_comm *comm, float *x, int64_t count, cv_transfer *transfer, cv_error *err) {
  if (comm->n_workers == 1) count = 0;
  return begin(comm, -1, x, count, sizeof *x, sum_piece, transfer, err);
}

curvd_status cv_coll_begin_reduce(const cv_comm *comm, int owner, float *x, int64_t count, cv_transfer *transfer,
                                  cv_error *err) {
  if (comm->n_ranks == 1) count = 0;
  return begin(comm, owner, x, count, sizeof *x, reduce_piece, transfer, err);
}

curvd_status cv_coll_begin_broadcast(const cv_comm *comm, int owner, void *x, int64_t bytes, cv_transfer *transfer,
                                     cv_error *err) {
  if (comm->n_ranks == 1) bytes = 0;
  return begin(comm, owner, x, bytes, 1, broadcast_piece, transfer, err);
}

curvd_status cv_coll_end(cv_transfer *transfer, cv_wait how, cv_error *err) {
  for (int i = 0; i < transfer->n && how == CV_WAIT_IDLE; i++) CV_TRY(wait_idle(&transfer->request[i], err));
  CV_TRY(cv_comm_check(MPI_Waitall(transfer->n, transfer->request, MPI_STATUSES_IGNORE), "MPI_Waitall", err));
  transfer->n = 0;
  return CURVD_OK;
}

curvd_status cv_coll_command(const cv_comm *comm, int64_t *command, int count, cv_error *err) {
  MPI_Request request;
  int code = MPI_Ibcast(command, count, MPI_INT64_T, 0, comm->world, &request);
  CV_TRY(cv_comm_check(code, "MPI_Ibcast of a command", err));
  return wait_idle(&request, err);
}

curvd_status cv_coll_min(const cv_comm *comm, int64_t x, int64_t *least, cv_error *err) {
  return cv_comm_check(MPI_Allreduce(&x, least, 1, MPI_INT64_T, MPI_MIN, comm->workers), "MPI_Allreduce", err);
}

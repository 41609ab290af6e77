/* Transfers: begin returns at once, end waits; the buffer stays untouched in between. Above 512 MiB a transfer is cut
 * into pieces. The order of transfers on a communicator is that of the plan, never of the data. */
#ifndef CV_COMM_COLL_H
#define CV_COMM_COLL_H

#include "comm/comm.h"

#include <limits.h>

enum { CV_TRANSFER_PIECES = 64 }; /* x 512 MiB = 32 GiB */

typedef struct cv_transfer {
  MPI_Request request[CV_TRANSFER_PIECES];
  int n;
  /* as it is recorded: what it is, with whom, and its numbers there and of a wait for it (0: nobody waits) */
  cv_trace *trace;
  const char *what;
  int32_t peer;
  int64_t bytes;
  uint64_t operation, wait;
  /* at the owner of a sum that comes as one message from each worker (cv_coll_begin_reduce); is_of_parts 0: elsewhere
   */
  bool is_of_parts;
  const cv_comm *comm;
  int owner, worker; /* worker: whose is under way */
  int64_t count, rounded;
  float *x, *inbox;
} cv_transfer;

/* Largest transfer in bytes; the plan refuses more. */
#define CV_TRANSFER_MAX_BYTES ((int64_t)CV_TRANSFER_PIECES << 29)

/* [collective over the workers] x (count) <- sum over workers, on all of them. This and the next two wait: nothing is
 * left to do for a worker before it has its gradients, and Open MPI's blocking sums are up to 2.5 times as fast as its
 * others (2 ranks, 7 MB). */
curvd_status cv_coll_sum(const cv_comm *comm, float *x, int64_t count, cv_error *err);

/* [collective over the group of owner] The owner's x (count) becomes the sum of the workers' x (its own counts only if
 * it is a worker: a curvature rank's x must be zero on entry). The order of the sum is the same for every curvature
 * rank and every count. A few workers send theirs to a curvature rank as they are: it adds them up in their order, as
 * it looks (cv_coll_sums_parts: then it needs an inbox (count), else NULL). Open MPI's reduction moves on only while
 * all of them look, between two ranks by 8 KiB a look: with two workers a refresh came a third later.
 * Behind the floats x may hold `rounded` numbers in bf16; the owner's x (count + rounded) ends as floats, the sums. A
 * curvature rank that adds them up does so in fp32; MPI's reduction rounds each of its sums, of which one follows the
 * other cv_coll_roundings times at most. */
enum { CV_SUM_PARTS_MAX = 3 }; /* workers: what a curvature rank receives grows with them */
bool cv_coll_sums_parts(const cv_comm *comm);
int cv_coll_roundings(const cv_comm *comm);
curvd_status cv_coll_begin_reduce(const cv_comm *comm, int owner, float *x, float *inbox, int64_t count,
                                  int64_t rounded, cv_transfer *transfer, cv_error *err);

/* [collective over the group of owner] bytes of the owner's x come to every worker. what: for the record. */
curvd_status cv_coll_begin_broadcast(const cv_comm *comm, int owner, const char *what, void *x, int64_t bytes,
                                     cv_transfer *transfer, cv_error *err);

/* [collective over the workers] x: count[0] + count[1] + ... floats of every worker. scatter_sum: mine (count of this
 * worker) becomes the sum over workers of its part of x. gather: worker w's part, at begin[w], comes to all. */
#define CV_GATHER_MAX ((int64_t)INT_MAX)
curvd_status cv_coll_scatter_sum(const cv_comm *comm, const float *x, float *mine, const int *count, cv_error *err);
curvd_status cv_coll_gather(const cv_comm *comm, float *x, const int *count, const int *begin, cv_error *err);

/* [collective over the workers] x (count) <- sum over the workers. */
curvd_status cv_coll_sum_doubles(const cv_comm *comm, double *x, int count, cv_error *err);

/* A worker's message of bytes to an owner, and the owner's place for the next one of a worker: at most bytes. The two
 * are different ranks. */
curvd_status cv_coll_begin_send(const cv_comm *comm, int owner, const void *x, int64_t bytes, cv_transfer *transfer,
                                cv_error *err);
curvd_status cv_coll_begin_receive(const cv_comm *comm, int owner, int worker, void *x, int64_t bytes,
                                   cv_transfer *transfer, cv_error *err);
#define CV_MESSAGE_MAX_BYTES ((int64_t)INT_MAX)

/* Has it ended? Looking also moves it, and every other transfer, on. */
curvd_status cv_coll_test(cv_transfer *transfer, bool *is_done, cv_error *err);

/* How a rank waits. Idle gives the core away between looks, for longer and longer: for small messages whose sender may
 * still be busy for long. Gently does so briefly: for large ones, which move only while somebody looks. Active is for
 * transfers that all ranks have come to. */
typedef enum cv_wait { CV_WAIT_ACTIVE, CV_WAIT_GENTLY, CV_WAIT_IDLE } cv_wait;
curvd_status cv_coll_end(cv_transfer *transfer, cv_wait how, cv_error *err);

/* For a wait of the caller's own making: records whom it waits for. */
void cv_coll_wait_begin(cv_transfer *transfer);
void cv_coll_wait_end(cv_transfer *transfer);

/* What a waiting rank does between two looks; n: looks since it began to wait. */
void cv_coll_pause(cv_wait how, int64_t n);

/* Worker 0 tells every curvature rank a word (does not wait for them); a curvature rank waits for the next one.
 * cv_coll_told: worker 0 waits until the last word has left. */
curvd_status cv_coll_tell(cv_comm *comm, int64_t word, cv_error *err);
curvd_status cv_coll_told(cv_comm *comm, cv_error *err);
curvd_status cv_coll_hear(const cv_comm *comm, int64_t *word, cv_error *err);

/* [collective over all ranks] x (count) of worker 0 comes to all. */
curvd_status cv_coll_share(const cv_comm *comm, int32_t *x, int count, cv_error *err);

/* From one owner to another, both of which call; waits until the bytes have left, or are here. */
curvd_status cv_coll_send_to_owner(const cv_comm *comm, int owner, const void *x, int64_t bytes, cv_error *err);
curvd_status cv_coll_receive_from_owner(const cv_comm *comm, int owner, void *x, int64_t bytes, cv_error *err);

/* [collective over the workers] Smallest x over the workers. */
curvd_status cv_coll_min(const cv_comm *comm, int64_t x, int64_t *least, cv_error *err);

#endif

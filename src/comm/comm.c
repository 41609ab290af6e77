#include "comm/comm.h"

#include "product/bf16.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

curvd_status cv_comm_check(int code, const char *what, cv_error *err) {
  if (code == MPI_SUCCESS) return CURVD_OK;
  char text[MPI_MAX_ERROR_STRING] = "?";
  int length = 0;
  MPI_Error_string(code, text, &length);
  return cv_fail(err, CURVD_ERR_MPI, "%s failed: %s", what, text);
}

/* An MPI_User_function. */
static void add_bf16(void *in, void *inout, int *count, MPI_Datatype *type) {
  const uint16_t *x = in;
  uint16_t *sum = inout;
  (void)type;
  for (int i = 0; i < *count; i++) sum[i] = cv_round_bf16(cv_widen_bf16(sum[i]) + cv_widen_bf16(x[i]));
}

curvd_status cv_comm_create(MPI_Comm user, cv_comm *comm, cv_error *err) {
  int is_up = 0, is_down = 0;
  MPI_Initialized(&is_up);
  if (is_up) MPI_Finalized(&is_down);
  *comm = (cv_comm){.world = MPI_COMM_NULL, .workers = MPI_COMM_NULL, .owners = MPI_COMM_NULL, .add_bf16 = MPI_OP_NULL};
  if (!is_up || is_down)
    return cv_fail(err, CURVD_ERR_STATE, "MPI is not running: call MPI_Init_thread before curvd_create");
  CV_TRY(cv_comm_check(MPI_Comm_dup(user, &comm->world), "MPI_Comm_dup", err));
  MPI_Comm_set_errhandler(comm->world, MPI_ERRORS_RETURN);
  MPI_Comm_rank(comm->world, &comm->rank);
  MPI_Comm_size(comm->world, &comm->n_ranks);
  return cv_comm_check(MPI_Op_create(add_bf16, 1, &comm->add_bf16), "MPI_Op_create of a sum of bf16 numbers", err);
}

static curvd_status links_new(cv_comm *comm, cv_memory *memory, cv_error *err) {
  int n_owners = comm->n_curvature > 0 ? comm->n_curvature : comm->n_workers;
  void *links = NULL, *requests = NULL, *words = NULL;
  CV_TRY(cv_memory_new(memory, CV_MEMORY_WORKSPACE, (int64_t)2 * n_owners, sizeof *comm->up, "communicators", &links,
                       err));
  comm->up = links;
  comm->down = comm->up + n_owners;
  for (int o = 0; o < 2 * n_owners; o++) comm->up[o] = MPI_COMM_NULL;
  comm->n_owners = n_owners;
  if (comm->n_curvature == 0 || comm->rank != 0) return CURVD_OK;
  CV_TRY(
      cv_memory_new(memory, CV_MEMORY_WORKSPACE, comm->n_curvature, sizeof(MPI_Request), "commands", &requests, err));
  comm->commands = requests;
  for (int c = 0; c < comm->n_curvature; c++) comm->commands[c] = MPI_REQUEST_NULL;
  CV_TRY(cv_memory_new(memory, CV_MEMORY_WORKSPACE, comm->n_curvature, sizeof(int64_t), "commands", &words, err));
  comm->words = words;
  return CURVD_OK;
}

static curvd_status split(cv_comm *comm, int64_t n_curvature, cv_memory *memory, cv_error *err) {
  if (n_curvature < 0 || n_curvature >= comm->n_ranks) {
    return cv_fail(err, CURVD_ERR_LAYOUT,
                   "%lld curvature ranks leave no worker among %d ranks: start more ranks or lower curvature_ranks",
                   (long long)n_curvature, comm->n_ranks);
  }
  comm->n_curvature = (int)n_curvature;
  comm->n_workers = comm->n_ranks - comm->n_curvature;
  int color = cv_comm_is_worker(comm) ? 0 : MPI_UNDEFINED;
  CV_TRY(cv_comm_check(MPI_Comm_split(comm->world, color, comm->rank, &comm->workers), "MPI_Comm_split of the workers",
                       err));
  if (comm->n_curvature == 0) {
    comm->owners = comm->workers;
  } else {
    color = cv_comm_is_worker(comm) ? MPI_UNDEFINED : 0;
    CV_TRY(cv_comm_check(MPI_Comm_split(comm->world, color, comm->rank, &comm->owners),
                         "MPI_Comm_split of the curvature ranks", err));
  }
  return links_new(comm, memory, err);
}

curvd_status cv_comm_split(cv_comm *comm, int64_t n_curvature, cv_memory *memory, cv_error *err) {
  uint64_t operation = cv_trace_begin(comm->trace, CV_TRACE_WAIT, "split the ranks", NULL, CV_PEER_ALL, 0);
  curvd_status status = split(comm, n_curvature, memory, err);
  cv_trace_end(comm->trace, operation);
  return status;
}

static curvd_status connect(cv_comm *comm, int owner, cv_error *err) {
  if (comm->n_curvature == 0) { /* sums are in one order over all owners, broadcasts are not */
    comm->up[owner] = comm->workers;
    return cv_comm_check(MPI_Comm_dup(comm->workers, &comm->down[owner]), "MPI_Comm_dup of the workers", err);
  }
  bool is_member = cv_comm_is_worker(comm) || cv_comm_owner_rank(comm, owner) == comm->rank;
  int code = MPI_Comm_split(comm->world, is_member ? 0 : MPI_UNDEFINED, comm->rank, &comm->up[owner]);
  CV_TRY(cv_comm_check(code, "MPI_Comm_split of an owner's group", err));
  if (!is_member) return CURVD_OK;
  return cv_comm_check(MPI_Comm_dup(comm->up[owner], &comm->down[owner]), "MPI_Comm_dup of an owner's group", err);
}

curvd_status cv_comm_connect(cv_comm *comm, int owner, cv_error *err) {
  uint64_t operation = cv_trace_begin(comm->trace, CV_TRACE_WAIT, "connect an owner", NULL, CV_PEER_ALL, 0);
  curvd_status status = connect(comm, owner, err);
  cv_trace_end(comm->trace, operation);
  return status;
}

static void free_comm(MPI_Comm *comm) {
  if (*comm != MPI_COMM_NULL) MPI_Comm_free(comm);
}

void cv_comm_free(cv_comm *comm, cv_memory *memory) {
  for (int o = 0; comm->up && o < comm->n_owners; o++) {
    if (comm->n_curvature > 0) free_comm(&comm->up[o]);
    free_comm(&comm->down[o]);
  }
  void *block[] = {comm->up, comm->commands, comm->words};
  for (size_t i = 0; i < sizeof block / sizeof block[0]; i++) cv_memory_free(memory, &block[i]);
  comm->up = comm->down = NULL;
  if (comm->n_curvature > 0) free_comm(&comm->owners);
  free_comm(&comm->workers);
  free_comm(&comm->world);
  if (comm->add_bf16 != MPI_OP_NULL) MPI_Op_free(&comm->add_bf16);
}

bool cv_comm_is_worker(const cv_comm *comm) {
  return comm->rank < comm->n_workers;
}

int cv_comm_owner_rank(const cv_comm *comm, int owner) {
  return comm->n_curvature > 0 ? comm->n_workers + owner : owner;
}

int cv_comm_my_owner(const cv_comm *comm) {
  if (comm->n_curvature == 0) return comm->rank;
  return cv_comm_is_worker(comm) ? -1 : comm->rank - comm->n_workers;
}

curvd_status cv_comm_same(const cv_comm *comm, uint64_t x, const char *what, cv_error *err) {
  int64_t half[2] = {(int64_t)(x >> 32), (int64_t)(x & 0xffffffffu)};
  int64_t pair[4] = {half[0], -half[0], half[1], -half[1]}, most[4];
  uint64_t operation = cv_trace_begin(comm->trace, CV_TRACE_WAIT, "compare", NULL, CV_PEER_ALL, sizeof pair);
  int code = MPI_Allreduce(pair, most, 4, MPI_INT64_T, MPI_MAX, comm->world);
  cv_trace_end(comm->trace, operation);
  CV_TRY(cv_comm_check(code, "MPI_Allreduce", err));
  if (most[0] == -most[1] && most[2] == -most[3]) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_MISMATCH, "rank %d: the ranks differ in %s: every rank must make the same calls",
                 comm->rank, what);
}

static curvd_status remote(int rank, cv_error *err) {
  return cv_fail(err, CURVD_ERR_REMOTE, "rank %d failed in the same call: its curvd_last_error has the reason", rank);
}

curvd_status cv_comm_agree(const cv_comm *comm, cv_scope scope, curvd_status mine, cv_error *err) {
  struct {
    int failed, rank;
  } in = {mine == CURVD_OK ? 0 : 1, comm->rank}, out = {0, 0};
  int32_t peer = scope == CV_WORKERS ? CV_PEER_WORKERS : CV_PEER_ALL;
  uint64_t operation = cv_trace_begin(comm->trace, CV_TRACE_WAIT, "agree", NULL, peer, sizeof in);
  int code = MPI_Allreduce(&in, &out, 1, MPI_2INT, MPI_MAXLOC, scope == CV_WORKERS ? comm->workers : comm->world);
  cv_trace_end(comm->trace, operation);
  if (mine != CURVD_OK) return mine;
  CV_TRY(cv_comm_check(code, "MPI_Allreduce", err));
  return out.failed ? remote(out.rank, err) : CURVD_OK;
}

curvd_status cv_comm_agree_flags(const cv_comm *comm, curvd_status mine, uint32_t flags, uint32_t *all, cv_error *err) {
  int in[1 + CV_FLAGS] = {mine == CURVD_OK ? 0 : comm->n_ranks - comm->rank}, out[1 + CV_FLAGS] = {0}; /* lowest rank */
  *all = flags;
  if (comm->n_workers == 1) return mine;
  for (int i = 0; i < CV_FLAGS; i++) in[1 + i] = (int)(flags >> i & 1);
  uint64_t operation =
      cv_trace_begin(comm->trace, CV_TRACE_WAIT, "agree on the step", NULL, CV_PEER_WORKERS, sizeof in);
  int code = MPI_Allreduce(in, out, 1 + CV_FLAGS, MPI_INT, MPI_MAX, comm->workers);
  cv_trace_end(comm->trace, operation);
  for (int i = 0; i < CV_FLAGS && code == MPI_SUCCESS; i++) *all |= (uint32_t)out[1 + i] << i;
  if (mine != CURVD_OK) return mine;
  CV_TRY(cv_comm_check(code, "MPI_Allreduce", err));
  return out[0] == 0 ? CURVD_OK : remote(comm->n_ranks - out[0], err);
}

const char *cv_comm_library(void) {
  static char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  MPI_Get_library_version(text, &length);
  text[strcspn(text, ",\n")] = '\0';
  return text;
}

/* What an owner keeps of a factor: one struct of numbers that mean the same on every rank, and its store's arrays. */
#include "curvature/store.h"
#include "linalg/dense.h"

int cv_pairs_arrays(cv_factor *factor, cv_array *list) {
  int64_t rows = factor->k_max + CV_EIG_PROBES;
  list[0] = (cv_array){&factor->own.basis, rows * factor->own.ld, "basis", CV_ARRAY_ROWS};
  list[1] = (cv_array){&factor->own.eigenvalues, factor->k_max, "eigenvalues", CV_ARRAY_NUMBERS};
  return 2;
}

curvd_status cv_owned_allocate(curvd_ctx *ctx, cv_factor *factor) {
  cv_array list[CV_ARRAYS_MAX];
  cv_cyclic piece = cv_spread_piece(ctx, factor, cv_comm_my_owner(&ctx->comm));
  factor->own.cols = cv_cyclic_count(&piece);
  factor->own.ld = cv_dense_ld(factor->own.cols);
  factor->store->size(ctx, factor);
  int n = factor->store->arrays(ctx, factor, list);
  for (int i = 0; i < n; i++)
    CV_TRY(cv_floats_new(&ctx->memory, CV_MEMORY_FACTORS, list[i].count, list[i].name, list[i].x, &ctx->error));
  return CURVD_OK;
}

/* Where nothing was allocated, too. */
void cv_owned_release(curvd_ctx *ctx, cv_factor *factor) {
  cv_array list[CV_ARRAYS_MAX];
  int n = factor->store->arrays(ctx, factor, list);
  for (int i = 0; i < n; i++) cv_floats_free(&ctx->memory, list[i].x);
}

curvd_status cv_owned_send(curvd_ctx *ctx, cv_factor *factor, int owner) {
  cv_array list[CV_ARRAYS_MAX];
  int n = factor->store->arrays(ctx, factor, list);
  int64_t bytes = sizeof factor->own;
  CV_TRY(cv_coll_send_to_owner(&ctx->comm, owner, &factor->own, bytes, &ctx->error));
  for (int i = 0; i < n; i++) {
    int64_t more = list[i].count * (int64_t)sizeof(float);
    CV_TRY(cv_coll_send_to_owner(&ctx->comm, owner, *list[i].x, more, &ctx->error));
    bytes += more;
  }
  ctx->sent_bytes[CURVD_TRAFFIC_MOVES] += bytes;
  return CURVD_OK;
}

/* The sender's addresses mean nothing here. */
curvd_status cv_owned_receive(curvd_ctx *ctx, cv_factor *factor, int owner) {
  cv_array list[CV_ARRAYS_MAX];
  float *mine[CV_ARRAYS_MAX];
  int n = factor->store->arrays(ctx, factor, list);
  for (int i = 0; i < n; i++) mine[i] = *list[i].x;
  curvd_status status = cv_coll_receive_from_owner(&ctx->comm, owner, &factor->own, sizeof factor->own, &ctx->error);
  for (int i = 0; i < n; i++) *list[i].x = mine[i];
  for (int i = 0; i < n && status == CURVD_OK; i++)
    status =
        cv_coll_receive_from_owner(&ctx->comm, owner, mine[i], list[i].count * (int64_t)sizeof(float), &ctx->error);
  return status;
}

/* Replicas: every worker computes the same parameters for itself, so what differs has been changed. */
#include "train/session_parts.h"

#include "base/hash.h"

/* service: of what the library's replicas have in common. */
static uint64_t hash_of(const trainer *t, uint64_t service) {
  uint64_t sum[2] = {service, 0};
  for (int i = 0; i < t->model.spec.n_layers; i++) {
    const nn_layer *layer = &t->model.layer[i];
    int64_t bytes = layer->d_out * layer->ld * (int64_t)sizeof(float);
    const float *alike[] = {layer->weight, t->optim.first[i], t->optim.second[i]};
    for (size_t k = 0; k < sizeof alike / sizeof alike[0]; k++) {
      if (!alike[k]) continue;
      sum[1] = cv_hash(alike[k], bytes);
      sum[0] = cv_hash(sum, sizeof sum);
    }
  }
  return sum[0];
}

/* A worker that differs from most others; -1: none. */
static int odd_one(const uint64_t *hash, int n, bool *is_clear) {
  int best = 0, most = 0;
  for (int a = 0; a < n; a++) {
    int like = 0;
    for (int b = 0; b < n; b++) like += hash[a] == hash[b];
    if (like > most) best = a, most = like;
  }
  *is_clear = 2 * most > n;
  for (int a = 0; a < n; a++) {
    if (hash[a] != hash[best]) return a;
  }
  return -1;
}

curvd_status session_check_replicas(session *s, cv_error *err) {
  trainer *t = s->trainer;
  uint64_t mine = 0;
  bool is_clear = true;
  if (session_values(s)->check_steps == 0 || s->checked_step == t->step) return CURVD_OK;
  s->checked_step = t->step;
  curvd_status status = curvd_check(t->ctx, &mine);
  if (status != CURVD_OK) cv_fail(err, status, "%s", curvd_last_error(t->ctx));
  CV_TRY(trainer_agree(t->workers, status, err));
  mine = hash_of(t, mine);
  MPI_Allgather(&mine, 1, MPI_UINT64_T, s->hashes, 1, MPI_UINT64_T, t->workers);
  int odd = odd_one(s->hashes, t->n_workers, &is_clear);
  if (odd < 0) return CURVD_OK;
  return cv_fail(
      err, CURVD_ERR_DAMAGE,
      "step %lld: the parameters of rank %d are not those of %s: its memory, or a sum on its way to it, has changed",
      (long long)t->step, odd, is_clear ? "the other workers" : "rank 0");
}

#include "save/gather.h"

#include "base/clock.h"
#include "save/checkpoint.h"
#include "save/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { FAILED_MAX = 600 };
static const long poll_ns = 50000000;
static const double LATE_S = 2;

/* ---- a rank that failed ---- */

/* "shard-00003.failed" */
static void failed_name(int64_t rank, char name[SHARD_NAME_MAX]) {
  snprintf(name, SHARD_NAME_MAX, "shard-%05lld.failed", (long long)rank);
}

/* The number of the save stands in front, so that a sentence about an earlier try of this step is not believed. */
void gather_tell(int tmp, const char *tmp_name, const shard_origin *origin, const char *why) {
  char name[SHARD_NAME_MAX], text[FAILED_MAX];
  failed_name(origin->rank, name);
  snprintf(text, sizeof text, "%lld %s", (long long)origin->save, why);
  file_piece piece = {text, (int64_t)strlen(text)};
  file_watch nobody = {.faults = NULL};
  if (file_put(tmp, tmp_name, name, &piece, 1, nobody, NULL) == CURVD_OK) return;
  int fd =
      openat(tmp, name, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666); /* on a full disk a name may still fit */
  if (fd >= 0) close(fd);
}

static curvd_status check_failed(const gather *g, int64_t rank, cv_error *err) {
  char name[SHARD_NAME_MAX], text[FAILED_MAX] = "";
  save_file file;
  failed_name(rank, name);
  if (file_open(g->tmp, g->tmp_name, name, &file, NULL) != CURVD_OK) return CURVD_OK;
  int64_t n = file.bytes < FAILED_MAX ? file.bytes : FAILED_MAX - 1;
  curvd_status status = file_read(&file, 0, text, n, NULL);
  file_close(&file);
  char *why = text;
  long long save = strtoll(text, &why, 10);
  if (status == CURVD_OK && n > 0 && save != g->origin->save) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_REMOTE, "rank %lld:%.400s", (long long)rank,
                 why[0] != '\0' ? why : " its shard failed, and there was no room to say why");
}

/* ---- shards ---- */

/* Is the shard there? DATA: it is, and is not what it should be. */
static curvd_status look_for(const gather *g, int64_t rank, cv_error *err) {
  char name[SHARD_NAME_MAX];
  struct stat about;
  shard_origin origin = *g->origin;
  safetensors_header header;
  save_file file;
  origin.rank = rank;
  manifest_shard_name(rank, name);
  CV_TRY(check_failed(g, rank, err));
  if (fstatat(g->tmp, name, &about, AT_SYMLINK_NOFOLLOW) != 0) return CURVD_OK;
  CV_TRY(file_open(g->tmp, g->tmp_name, name, &file, err));
  curvd_status status = shard_header_read(&file, &header, g->shard[rank].header_xxh3, err);
  g->shard[rank].bytes = file.bytes;
  g->is_there[rank] = status == CURVD_OK && shard_is_of(&header, &origin);
  safetensors_free(&header);
  file_close(&file);
  return status;
}

static int64_t first_missing(const gather *g) {
  for (int64_t r = 0; r < g->origin->n_ranks; r++)
    if (!g->is_there[r]) return r;
  return -1;
}

static curvd_status wait_for_all(const gather *g, cv_error *err) {
  double end_s = cv_wall_s() + g->patience_s;
  for (int64_t r = 0; r < g->origin->n_ranks; r++) g->is_there[r] = false;
  for (;;) {
    for (int64_t r = 0; r < g->origin->n_ranks; r++)
      if (!g->is_there[r]) CV_TRY(look_for(g, r, err));
    int64_t missing = first_missing(g);
    if (missing < 0) return CURVD_OK;
    if (cv_wall_s() >= end_s)
      return cv_fail(err, CURVD_ERR_IO, "%s: the shard of rank %lld did not come within %.0f s", g->tmp_name,
                     (long long)missing, g->patience_s);
    nanosleep(&(struct timespec){0, poll_ns}, NULL);
  }
}

/* All but rank 0, which is here. */
static bool have_all_ended(const gather *g) {
  bool is_over = true;
  for (int64_t r = 1; r < g->origin->n_ranks; r++)
    is_over = is_over && (g->is_there[r] || look_for(g, r, NULL) != CURVD_OK || g->is_there[r]);
  return is_over;
}

void gather_settle(const gather *g) {
  double end_s = cv_wall_s() + LATE_S;
  for (int64_t r = 0; r < g->origin->n_ranks; r++) g->is_there[r] = false;
  while (!have_all_ended(g) && cv_wall_s() < end_s) nanosleep(&(struct timespec){0, poll_ns}, NULL);
}

/* ---- the whole ---- */

static curvd_status put_manifest(const gather *g, cv_error *err) {
  manifest m = {g->origin->step, g->origin->n_ranks, g->shard, g->about};
  char *text = NULL;
  int64_t n = 0;
  CV_TRY(manifest_build(&m, &text, &n, err));
  file_piece piece = {text, n};
  curvd_status status = file_put(g->tmp, g->tmp_name, MANIFEST_FILE, &piece, 1, g->watch, err);
  free(text);
  return status;
}

/* Do the headers fit together? Asked of who will read them one day. */
static curvd_status check_whole(const gather *g, cv_error *err) {
  char path[4096];
  checkpoint *whole = NULL;
  snprintf(path, sizeof path, "%.4000s/%s", g->path, g->tmp_name);
  curvd_status status = checkpoint_open(path, &whole, err);
  checkpoint_close(&whole);
  return status;
}

curvd_status gather_publish(const gather *g, cv_error *err) {
  int64_t step = g->origin->step;
  CV_TRY(wait_for_all(g, err));
  CV_TRY(put_manifest(g, err));
  CV_TRY(check_whole(g, err));
  CV_TRY(folder_publish(g->parent, step, true, err));
  int why = file_sync(g->parent, g->watch);
  if (why == 0) return CURVD_OK;
  folder_withdraw(g->parent, step, true);
  return cv_fail(err, CURVD_ERR_IO, "%s cannot be made to stay (fsync of %.200s): %s", g->tmp_name, g->path,
                 strerror(why));
}

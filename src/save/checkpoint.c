/* Opens: manifest, headers, and which arrays they make together. */
#include "save/checkpoint.h"

#include "save/checkpoint_parts.h"
#include "save/folder.h"
#include "save/shard.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- files ---- */

curvd_status checkpoint_open_shard(const checkpoint *cp, int64_t rank, save_file *file, cv_error *err) {
  char name[SHARD_NAME_MAX];
  int64_t bytes = cp->manifest.shard[rank].bytes;
  manifest_shard_name(rank, name);
  CV_TRY(file_open(cp->folder, cp->name, name, file, err));
  if (file->bytes == bytes) return CURVD_OK;
  file_close(file);
  return cv_fail(err, CURVD_ERR_DATA, "%.120s has %lld bytes, but %lld by the manifest", file->place,
                 (long long)file->bytes, (long long)bytes);
}

curvd_status checkpoint_read_header(const checkpoint *cp, int64_t rank, const save_file *file,
                                    safetensors_header *header, cv_error *err) {
  char sum[CHECKSUM_MAX];
  const char *expected = cp->manifest.shard[rank].header_xxh3;
  CV_TRY(shard_header_read(file, header, sum, err));
  if (strcmp(sum, expected) == 0) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_DATA, "%.120s: its header is damaged, or not of this checkpoint: XXH3 %s, not %s",
                 file->place, sum, expected);
}

static curvd_status read_manifest(checkpoint *cp, cv_error *err) {
  save_file file;
  CV_TRY(file_open(cp->folder, cp->name, MANIFEST_FILE, &file, err));
  bool is_small = file.bytes <= MANIFEST_BYTES_MAX;
  char *text = is_small ? malloc((size_t)file.bytes + 1) : NULL;
  curvd_status status = CURVD_OK;
  if (!is_small) status = cv_fail(err, CURVD_ERR_DATA, "%.120s has more than %d bytes", file.place, MANIFEST_BYTES_MAX);
  if (is_small && text == NULL) status = cv_fail(err, CURVD_ERR_MEMORY, "no memory for %.120s", file.place);
  if (status == CURVD_OK) status = file_read(&file, 0, text, file.bytes, err);
  if (status == CURVD_OK) status = manifest_parse(text, file.bytes, file.place, &cp->manifest, err);
  free(text);
  file_close(&file);
  return status;
}

/* ---- parts ---- */

static bool grow(checkpoint *cp, int64_t n_more) {
  int64_t needed = cp->n_parts + n_more;
  if (needed <= cp->capacity) return true;
  int64_t more = needed > 2 * cp->capacity ? needed : 2 * cp->capacity;
  part *grown = realloc(cp->part, (size_t)more * sizeof *grown);
  if (grown == NULL) return false;
  cp->part = grown, cp->capacity = more;
  return true;
}

static curvd_status add_parts(checkpoint *cp, int64_t rank, const save_file *file, const safetensors_header *header,
                              cv_error *err) {
  if (!grow(cp, header->n_tensors))
    return cv_fail(err, CURVD_ERR_MEMORY, "%.120s: no memory for its %lld tensors", file->place,
                   (long long)header->n_tensors);
  for (int64_t i = 0; i < header->n_tensors; i++) {
    part *p = &cp->part[cp->n_parts];
    CV_TRY(part_describe(header, &header->tensor[i], file->place, p, err));
    p->shard = rank;
    cp->n_parts++;
  }
  return CURVD_OK;
}

static curvd_status read_shard(checkpoint *cp, int64_t rank, cv_error *err) {
  save_file file;
  safetensors_header header = {.bytes = 0};
  CV_TRY(checkpoint_open_shard(cp, rank, &file, err));
  curvd_status status = checkpoint_read_header(cp, rank, &file, &header, err);
  if (status == CURVD_OK) status = add_parts(cp, rank, &file, &header, err);
  safetensors_free(&header);
  file_close(&file);
  return status;
}

/* ---- arrays ---- */

static curvd_status add_array(checkpoint *cp, int64_t first, int64_t *end, cv_error *err) {
  const part *p = &cp->part[first];
  int64_t i = first + 1;
  for (; i < cp->n_parts && cp->part[i].is_readable && strcmp(cp->part[i].name, p->name) == 0; i++)
    if (!part_follows(&cp->part[i - 1], &cp->part[i]))
      return cv_fail(err, CURVD_ERR_DATA, "%.60s: tensor %.120s of shard %lld and %.120s of shard %lld contradict",
                     cp->name, cp->part[i - 1].tensor, (long long)cp->part[i - 1].shard, cp->part[i].tensor,
                     (long long)cp->part[i].shard);
  cp->array[cp->n_arrays] = (checkpoint_array){.name = p->name,
                                               .dtype = p->dtype,
                                               .is_triangle = p->is_triangle,
                                               .n_rows = p->n_rows,
                                               .n_columns = p->n_columns};
  cp->first[cp->n_arrays++] = first;
  *end = i;
  return CURVD_OK;
}

static curvd_status group(checkpoint *cp, cv_error *err) {
  int64_t next = 0;
  if (cp->n_parts > 0) qsort(cp->part, (size_t)cp->n_parts, sizeof *cp->part, part_compare);
  cp->array = calloc((size_t)cp->n_parts + 1, sizeof *cp->array);
  cp->first = calloc((size_t)cp->n_parts + 1, sizeof *cp->first);
  if (cp->array == NULL || cp->first == NULL)
    return cv_fail(err, CURVD_ERR_MEMORY, "%s: no memory for its list of arrays", cp->name);
  while (next < cp->n_parts && cp->part[next].is_readable) CV_TRY(add_array(cp, next, &next, err));
  cp->first[cp->n_arrays] = next;
  return CURVD_OK;
}

/* ---- the checkpoint ---- */

static curvd_status read_all(checkpoint *cp, cv_error *err) {
  CV_TRY(read_manifest(cp, err));
  for (int64_t rank = 0; rank < cp->manifest.n_shards; rank++) CV_TRY(read_shard(cp, rank, err));
  return group(cp, err);
}

/* The last word of a path. */
static void short_name(const char *path, char name[CHECKPOINT_NAME_MAX]) {
  size_t end = strlen(path);
  while (end > 1 && path[end - 1] == '/') end--;
  size_t begin = end;
  while (begin > 0 && path[begin - 1] != '/') begin--;
  snprintf(name, CHECKPOINT_NAME_MAX, "%.*s", (int)(end - begin), path + begin);
}

curvd_status checkpoint_open(const char *folder, checkpoint **made, cv_error *err) {
  checkpoint *cp = calloc(1, sizeof *cp);
  if (cp == NULL) return cv_fail(err, CURVD_ERR_MEMORY, "no memory for a checkpoint");
  short_name(folder, cp->name);
  cp->folder = -1;
  curvd_status status = folder_open(folder, &cp->folder, err);
  if (status == CURVD_OK) status = read_all(cp, err);
  if (status == CURVD_OK) *made = cp;
  if (status != CURVD_OK) checkpoint_close(&cp);
  return status;
}

void checkpoint_close(checkpoint **cp) {
  if (cp == NULL || *cp == NULL) return;
  if ((*cp)->folder >= 0) close((*cp)->folder);
  manifest_free(&(*cp)->manifest);
  free((*cp)->part);
  free((*cp)->array);
  free((*cp)->first);
  free(*cp);
  *cp = NULL;
}

int64_t checkpoint_step(const checkpoint *cp) {
  return cp->manifest.step;
}

int64_t checkpoint_ranks(const checkpoint *cp) {
  return cp->manifest.n_shards;
}

int64_t checkpoint_bytes(const checkpoint *cp) {
  int64_t bytes = 0;
  for (int64_t i = 0; i < cp->manifest.n_shards; i++) bytes += cp->manifest.shard[i].bytes;
  return bytes;
}

const json_t *checkpoint_about(const checkpoint *cp) {
  return cp->manifest.about;
}

int64_t checkpoint_count(const checkpoint *cp) {
  return cp->n_arrays;
}

checkpoint_array checkpoint_at(const checkpoint *cp, int64_t i) {
  return cp->array[i];
}

/* ---- folders of checkpoints ---- */

curvd_status checkpoint_set_aside(const char *folder, int64_t after, int64_t *n, cv_error *err) {
  int64_t *step = NULL, n_steps = 0;
  int parent;
  *n = 0;
  CV_TRY(folder_open(folder, &parent, err));
  curvd_status status = folder_steps(parent, false, &step, &n_steps, err);
  for (int64_t i = 0; i < n_steps && status == CURVD_OK; i++) {
    if (step[i] <= after) continue;
    status = folder_set_aside(parent, step[i], err);
    *n += status == CURVD_OK;
  }
  free(step);
  close(parent);
  return status;
}

bool checkpoint_path(const char *folder, int64_t step, char *path, int64_t size) {
  char name[FOLDER_NAME_MAX];
  folder_name(step, "", name);
  return snprintf(path, (size_t)size, "%s/%s", folder, name) < size;
}

curvd_status checkpoint_list(const char *folder, int64_t most, int64_t *step, int64_t *n, cv_error *err) {
  int64_t *found = NULL, n_found = 0;
  int parent = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  *n = 0;
  if (parent < 0 && errno == ENOENT) return CURVD_OK;
  if (parent < 0) return cv_fail(err, CURVD_ERR_IO, "folder %.300s cannot be opened: %s", folder, strerror(errno));
  curvd_status status = folder_steps(parent, true, &found, &n_found, err);
  close(parent);
  if (status != CURVD_OK) return status;
  for (; *n < n_found && *n < most; (*n)++) step[*n] = found[*n];
  free(found);
  return CURVD_OK;
}

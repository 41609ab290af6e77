/* The run folder: made, opened again, and cut back to the step that a run goes on from. */
#include "train/run_folder.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PATH_BYTES = CV_OPTION_TEXT_MAX + 32, SAME_SECOND_MAX = 999, LOCK_PATIENCE_S = 10 };

static curvd_status io_failure(const char *path, int reason, cv_error *err) {
  return cv_fail(err, CURVD_ERR_IO, "%s: %s; choose another place with --run-dir", path, strerror(reason));
}

/* mkdir of r->folder as it is now. Returns 0, or errno. */
static int make_folder(run *r) {
  if (mkdir(r->folder, 0777) != 0) return errno;
  if (r->made_length == 0) r->made_length = strlen(r->folder);
  return 0;
}

static curvd_status make_parents(run *r, cv_error *err) {
  for (char *slash = strchr(r->folder + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
    *slash = '\0';
    int reason = make_folder(r);
    if (reason != 0 && reason != EEXIST) return io_failure(r->folder, reason, err);
    *slash = '/';
  }
  return CURVD_OK;
}

static curvd_status make_folder_given(run *r, const char *path, cv_error *err) {
  size_t length = strlen(path);
  while (length > 1 && path[length - 1] == '/') length--;
  if (length == 0) return cv_fail(err, CURVD_ERR_OPTION, "run_dir is empty; give a folder, or the word auto");
  memcpy(r->folder, path, length);
  CV_TRY(make_parents(r, err));
  int reason = make_folder(r);
  return reason == 0 || reason == EEXIST ? CURVD_OK : io_failure(r->folder, reason, err);
}

static curvd_status make_folder_auto(run *r, const char *method, int64_t seed, cv_error *err) {
  char stamp[32] = "";
  time_t now = time(NULL);
  struct tm utc;
  if (gmtime_r(&now, &utc)) strftime(stamp, sizeof stamp, "%Y%m%d-%H%M%S", &utc);
  int length = snprintf(r->folder, sizeof r->folder, "runs/%s-%.64s-s%lld", stamp, method, (long long)seed);
  CV_TRY(make_parents(r, err));
  int reason = make_folder(r);
  for (int i = 2; reason == EEXIST && i <= SAME_SECOND_MAX; i++) {
    snprintf(r->folder + length, sizeof r->folder - (size_t)length, "-%d", i);
    reason = make_folder(r);
  }
  return reason == 0 ? CURVD_OK : io_failure(r->folder, reason, err);
}

static void file_path(const run *r, const char *name, char path[PATH_BYTES]) {
  snprintf(path, PATH_BYTES, "%s/%s", r->folder, name);
}

/* Opens a file that must not be there yet: what somebody else wrote is neither overwritten nor ever removed. */
static curvd_status file_new(const run *r, const char *name, FILE **file, cv_error *err) {
  char path[PATH_BYTES];
  file_path(r, name, path);
  *file = fopen(path, "wx");
  if (*file) return CURVD_OK;
  if (errno == EEXIST)
    return cv_fail(err, CURVD_ERR_IO,
                   "%s is there already: the folder holds a run; choose another --run-dir, or --resume it", path);
  return io_failure(path, errno, err);
}

static void file_remove(const run *r, const char *name) {
  char path[PATH_BYTES];
  file_path(r, name, path);
  unlink(path);
}

/* Removes the folders that run_open made, as far as they are empty. */
static void folders_remove(const run *r) {
  char path[CV_OPTION_TEXT_MAX];
  memcpy(path, r->folder, sizeof path);
  while (r->made_length > 0 && strlen(path) >= r->made_length) {
    rmdir(path);
    char *slash = strrchr(path, '/');
    path[slash ? slash - path : 0] = '\0';
  }
}

static void write_config_line(void *user, const char *text) {
  fprintf(user, "%s\n", text);
}

static curvd_status config_file_write(const run *r, const char *name, const config *settings, cv_error *err) {
  char path[PATH_BYTES];
  FILE *file;
  CV_TRY(file_new(r, name, &file, err));
  errno = 0;
  bool is_written = config_write(settings, write_config_line, file, true) == CURVD_OK && !ferror(file);
  if (fclose(file) == 0 && is_written) return CURVD_OK;
  int reason = errno ? errno : EIO;
  file_remove(r, name);
  file_path(r, name, path);
  return io_failure(path, reason, err);
}

/* ---- one run at a time ---- */

void run_unlock(run *r) {
  if (r->lock_file >= 0) close(r->lock_file);
  if (r->lock >= 0) close(r->lock);
  r->lock = r->lock_file = -1;
}

/* Both return 0, or EWOULDBLOCK when another run has the lock, or what the file system has against it. */
static int try_lock(run *r) {
  return flock(r->lock, LOCK_EX | LOCK_NB) == 0 ? 0 : errno;
}

/* NFS tells other hosts of locks on files alone. A file without a name is one that the run before has removed. */
static int try_lock_file(run *r) {
  char path[PATH_BYTES];
  struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  struct stat now;
  file_path(r, "lock", path);
  r->lock_file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  r->made_lock_file = r->lock_file >= 0;
  if (r->lock_file < 0 && errno == EEXIST) r->lock_file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (r->lock_file < 0) return errno;
  int reason = fcntl(r->lock_file, F_OFD_SETLK, &whole) == 0 ? 0 : errno;
  if (reason == 0 && fstat(r->lock_file, &now) == 0 && now.st_nlink == 0) reason = EWOULDBLOCK;
  if (reason == 0) return 0;
  close(r->lock_file);
  r->lock_file = -1;
  return reason;
}

static int wait_for(int (*try_once)(run *), run *r, double end_s) {
  int reason = try_once(r);
  while (reason == EINTR || (reason == EWOULDBLOCK && cv_wall_s() <= end_s)) {
    nanosleep(&(struct timespec){0, 20000000}, NULL);
    reason = try_once(r);
  }
  return reason;
}

/* The system drops the locks with the process that holds them, however that ends. Where a file system has none, runs
 * are as they would be without. */
static curvd_status lock_folder(run *r, cv_error *err) {
  r->lock = open(r->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (r->lock < 0) return io_failure(r->folder, errno, err);
  double end_s = cv_wall_s() + LOCK_PATIENCE_S;
  int reason = wait_for(try_lock, r, end_s);
  if (reason != EWOULDBLOCK) reason = r->lock_trouble = wait_for(try_lock_file, r, end_s);
  if (reason != EWOULDBLOCK) return CURVD_OK;
  run_unlock(r);
  return cv_fail(err, CURVD_ERR_IO, "%s: another run still writes there; end that one, or choose another --run-dir",
                 r->folder);
}

void run_tell_lock(run *r) {
  if (r->lock_trouble == 0) return;
  run_line(
      r, "warning: %s/lock cannot be locked: %s; nothing keeps another run out of this folder, so start one at a time",
      r->folder, strerror(r->lock_trouble));
}

curvd_status run_open(const config *settings, const char *method, int64_t seed, run *r, cv_error *err) {
  *r = (struct run){.begin_s = cv_wall_s(), .is_terminal = run_is_on_terminal(), .lock = -1, .lock_file = -1};
  r->last_line_s = -INFINITY;
  const char *wish = settings->values.run_dir;
  curvd_status status =
      strcmp(wish, "auto") == 0 ? make_folder_auto(r, method, seed, err) : make_folder_given(r, wish, err);
  if (status != CURVD_OK) goto remove_folders;
  status = config_file_write(r, "config.yaml", settings, err);
  if (status != CURVD_OK) goto remove_folders;
  status = file_new(r, "metrics.jsonl", &r->metrics, err);
  if (status != CURVD_OK) goto remove_config;
  status = lock_folder(r, err);
  if (status != CURVD_OK) goto remove_metrics;
  r->is_open = true;
  return CURVD_OK;

remove_metrics:
  fclose(r->metrics);
  file_remove(r, "metrics.jsonl");
remove_config:
  file_remove(r, "config.yaml");
remove_folders:
  folders_remove(r);
  return status;
}

void run_remove(const run *r) {
  if (r->made_lock_file) file_remove(r, "lock");
  file_remove(r, "metrics.jsonl");
  file_remove(r, "config.yaml");
  folders_remove(r);
}

/* ---- A run that goes on ---- */

/* What was written under a name of its own takes the place of a file, or the file stays as it is. */
static curvd_status file_replace(const run *r, const char *from, const char *to, cv_error *err) {
  char before[PATH_BYTES], after[PATH_BYTES];
  file_path(r, from, before);
  file_path(r, to, after);
  if (rename(before, after) == 0) return CURVD_OK;
  int reason = errno;
  file_remove(r, from);
  return io_failure(after, reason, err);
}

static curvd_status metrics_append(run *r, cv_error *err) {
  char path[PATH_BYTES];
  file_path(r, "metrics.jsonl", path);
  r->metrics = fopen(path, "a");
  return r->metrics ? CURVD_OK : io_failure(path, errno, err);
}

curvd_status run_reopen(const config *settings, run *r, cv_error *err) {
  static const char fresh[] = "config.yaml.new";
  *r = (struct run){.begin_s = cv_wall_s(),
                    .is_terminal = run_is_on_terminal(),
                    .last_line_s = -INFINITY,
                    .lock = -1,
                    .lock_file = -1};
  CV_TRY(make_folder_given(r, settings->values.run_dir, err));
  CV_TRY(lock_folder(r, err));
  file_remove(r, fresh);
  curvd_status status = config_file_write(r, fresh, settings, err);
  if (status == CURVD_OK) status = file_replace(r, fresh, "config.yaml", err);
  if (status == CURVD_OK) status = metrics_append(r, err);
  if (status != CURVD_OK) run_unlock(r);
  r->is_open = status == CURVD_OK;
  return status;
}

static bool is_word(const char *word, const char *wanted) {
  return word && strcmp(word, wanted) == 0;
}

/* Is the line a record, and of a step up to this one? One with a zero byte is none, though Jansson takes some. */
static bool is_kept(const char *line, size_t n, int64_t step, bool evaluates_again) {
  json_t *record = strlen(line) == n ? json_loads(line, 0, NULL) : NULL;
  const json_t *at = json_object_get(record, "step");
  const char *kind = json_string_value(json_object_get(record, "kind"));
  bool is_evaluation = is_word(kind, "epoch") || is_word(kind, "layer"),
       is_up_to = json_is_integer(at) && json_integer_value(at) <= step,
       comes_again = evaluates_again && is_evaluation && is_up_to && json_integer_value(at) == step,
       is_kept = is_up_to && kind && !is_word(kind, "end") && !comes_again;
  json_decref(record);
  return is_kept;
}

/* A last record that has lost nothing but its newline gets one, or the next would continue its line. */
static bool copy_kept(FILE *from, FILE *to, int64_t step, bool evaluates_again) {
  char *line = NULL;
  size_t room = 0;
  bool is_written = true;
  for (ssize_t n; (n = getline(&line, &room, from)) > 0;) {
    if (!is_kept(line, (size_t)n, step, evaluates_again)) continue;
    is_written = fputs(line, to) >= 0 && is_written;
    if (line[n - 1] != '\n') is_written = fputc('\n', to) != EOF && is_written;
  }
  free(line);
  return is_written && !ferror(from);
}

curvd_status run_trim(run *r, int64_t step, bool evaluates_again, cv_error *err) {
  static const char fresh[] = "metrics.jsonl.new";
  char path[PATH_BYTES];
  FILE *from, *to;
  if (!r->is_open) return CURVD_OK;
  if (r->metrics) fclose(r->metrics);
  r->metrics = NULL;
  file_path(r, "metrics.jsonl", path);
  file_remove(r, fresh);
  if (!(from = fopen(path, "r"))) return io_failure(path, errno, err);
  curvd_status status = file_new(r, fresh, &to, err);
  bool is_written = status == CURVD_OK && copy_kept(from, to, step, evaluates_again);
  fclose(from);
  CV_TRY(status);
  if (fclose(to) != 0 || !is_written) return io_failure(path, errno, err);
  CV_TRY(file_replace(r, fresh, "metrics.jsonl", err));
  return metrics_append(r, err);
}

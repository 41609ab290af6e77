#include "train/run.h"

#include "base/clock.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PATH_BYTES = CV_OPTION_TEXT_MAX + 16, SAME_SECOND_MAX = 999 };

/* ---- Folder and files ---- */

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
    return cv_fail(err, CURVD_ERR_IO, "%s is there already: the folder holds a run; choose another --run-dir", path);
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

static curvd_status config_file_write(const run *r, const config *settings, cv_error *err) {
  char path[PATH_BYTES];
  FILE *file;
  CV_TRY(file_new(r, "config.yaml", &file, err));
  errno = 0;
  bool is_written = config_write(settings, write_config_line, file, true) == CURVD_OK && !ferror(file);
  if (fclose(file) == 0 && is_written) return CURVD_OK;
  int reason = errno ? errno : EIO;
  file_remove(r, "config.yaml");
  file_path(r, "config.yaml", path);
  return io_failure(path, reason, err);
}

/* mpirun gives its ranks a terminal even when its own output goes to a file, but one without a width. */
static bool stdout_is_terminal(void) {
  struct winsize size;
  const char *kind = getenv("TERM");
  return isatty(STDOUT_FILENO) && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 &&
         !(kind && strcmp(kind, "dumb") == 0);
}

curvd_status run_open(const config *settings, const char *method, int64_t seed, run *r, cv_error *err) {
  *r = (struct run){.begin_s = cv_wall_s(), .is_terminal = stdout_is_terminal()};
  r->last_line_s = -INFINITY;
  const char *wish = settings->values.run_dir;
  curvd_status status =
      strcmp(wish, "auto") == 0 ? make_folder_auto(r, method, seed, err) : make_folder_given(r, wish, err);
  if (status != CURVD_OK) goto remove_folders;
  status = config_file_write(r, settings, err);
  if (status != CURVD_OK) goto remove_folders;
  status = file_new(r, "metrics.jsonl", &r->metrics, err);
  if (status != CURVD_OK) goto remove_config;
  r->is_open = true;
  return CURVD_OK;

remove_config:
  file_remove(r, "config.yaml");
remove_folders:
  folders_remove(r);
  return status;
}

static void end_redrawn_line(run *r) {
  if (r->line_is_open) putchar('\n');
  r->line_is_open = false;
}

void run_close(run *r, bool remove) {
  if (!r->is_open) return;
  end_redrawn_line(r);
  fflush(stdout);
  if (r->metrics) fclose(r->metrics);
  if (remove) {
    file_remove(r, "metrics.jsonl");
    file_remove(r, "config.yaml");
    folders_remove(r);
  }
  *r = (struct run){.is_open = false};
}

/* ---- metrics.jsonl ---- */

json_t *run_record_new(const char *kind, int64_t step) {
  return json_pack("{s:s, s:I}", "kind", kind, "step", (json_int_t)step);
}

void run_record_real(json_t *record, const char *key, double value) {
  json_object_set_new(record, key, isfinite(value) ? json_real(value) : json_null());
}

void run_record(run *r, json_t *record) {
  if (!record) run_line(r, "warning: a record is left out of metrics.jsonl (out of memory, or a number not finite)");
  if (record && r->is_open && r->metrics) {
    bool is_whole = json_dumpf(record, r->metrics, JSON_COMPACT | JSON_REAL_PRECISION(12)) == 0;
    if (!is_whole || fputc('\n', r->metrics) == EOF || fflush(r->metrics) != 0) {
      run_line(r, "warning: %s/metrics.jsonl ends here: %s", r->folder, strerror(errno));
      fclose(r->metrics);
      r->metrics = NULL;
    }
  }
  json_decref(record);
}

/* ---- Lines ---- */

void run_line(run *r, const char *format, ...) {
  if (!r->is_open) return;
  end_redrawn_line(r);
  va_list arguments;
  va_start(arguments, format);
  vprintf(format, arguments);
  va_end(arguments);
  putchar('\n');
  fflush(stdout);
}

/* "0:21", "1:02:03", "?" when nothing is known */
static void duration_text(double seconds, char *text, size_t size) {
  if (!(seconds >= 0 && seconds < 1e9)) {
    snprintf(text, size, "?");
    return;
  }
  long long s = llround(seconds);
  if (s < 3600) {
    snprintf(text, size, "%lld:%02lld", s / 60, s % 60);
  } else {
    snprintf(text, size, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
  }
}

static int progress_text(const run_progress *p, char *text, size_t size) {
  char left[32];
  bool is_timed = p->step_s > 0;
  duration_text(is_timed ? (double)(p->total_steps - p->step) * p->step_s : -1, left, sizeof left);
  double ms = p->step_s * 1e3, epochs = ceil(p->epochs);
  return snprintf(text, size, "epoch %.0f/%.0f step %lld/%lld loss %.4g lr %.3g %.*f ms/step %s left",
                  fmin(floor(p->epoch) + 1, epochs), epochs, (long long)p->step, (long long)p->total_steps, p->loss,
                  p->lr, ms < 10 ? 2 : 0, ms, left);
}

static int terminal_width(void) {
  struct winsize size;
  const char *columns = getenv("COLUMNS");
  long wish = columns ? strtol(columns, NULL, 10) : 0;
  if (wish > 0 && wish < 10000) return (int)wish;
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

/* The last column stays free: writing there would start a new line on some terminals. */
static void redraw(const run_progress *p, const char *text, int length) {
  static const char full[] = "########################################",
                    rest[] = "........................................";
  int room = terminal_width() - 1, cells = room - length - 3;
  if (cells > (int)sizeof full - 1) cells = (int)sizeof full - 1;
  if (cells >= 5) {
    double part = p->total_steps > 0 ? (double)p->step / (double)p->total_steps : 0;
    int done = (int)(fmin(fmax(part, 0), 1) * cells);
    printf("\r%s [%.*s%.*s]\033[K", text, done, full, cells - done, rest);
  } else {
    printf("\r%.*s\033[K", room, text);
  }
  fflush(stdout);
}

void run_progress_show(run *r, const run_progress *progress, bool is_due) {
  char text[256];
  if (!r->is_open) return;
  int length = progress_text(progress, text, sizeof text);
  double now = cv_wall_s();
  if (!r->is_terminal) {
    if (is_due) run_line(r, "%9.1f s  %s", now - r->begin_s, text);
    return;
  }
  if (now - r->last_line_s < 0.2 && progress->step < progress->total_steps) return;
  redraw(progress, text, length);
  r->last_line_s = now;
  r->line_is_open = true;
}

void run_stages(run *r, const run_stage *stage, int n, double wall_s) {
  int width = (int)strlen("wall clock");
  for (int i = 0; i < n; i++)
    if ((int)strlen(stage[i].name) > width) width = (int)strlen(stage[i].name);
  run_line(r, "%-*s  %10s  %10s  %10s  %7s", width, "stage", "min s", "mean s", "max s", "share");
  for (int i = 0; i < n; i++)
    run_line(r, "%-*s  %10.3f  %10.3f  %10.3f  %5.1f %%", width, stage[i].name, stage[i].min_s, stage[i].mean_s,
             stage[i].max_s, 100 * stage[i].share);
  run_line(r, "%-*s  %10s  %10.3f", width, "wall clock", "", wall_s);
}

#include "train/run_folder.h"

#include "base/clock.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* mpirun gives its ranks a terminal even when its own output goes to a file, but one without a width. */
bool run_is_on_terminal(void) {
  struct winsize size;
  const char *kind = getenv("TERM");
  return isatty(STDOUT_FILENO) && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 &&
         !(kind && strcmp(kind, "dumb") == 0);
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
  if (remove) run_remove(r);
  run_unlock(r);
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

/* Whoever reads the lines may have stopped: mpirun does when it is told to end, and a rank that waited for it would not
 * come to save. Lines that nobody has taken for a second are dropped until they are taken again. */
static bool has_reader(run *r) {
  enum { PATIENCE_MS = 1000 };
  struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};
  r->is_unread = poll(&out, 1, r->is_unread ? 0 : PATIENCE_MS) == 0;
  return !r->is_unread;
}

void run_line(run *r, const char *format, ...) {
  if (!r->is_open || !has_reader(r)) return;
  end_redrawn_line(r);
  va_list arguments;
  va_start(arguments, format);
  vprintf(format, arguments);
  va_end(arguments);
  putchar('\n');
  fflush(stdout);
}

void run_line_of_rank(run *r, int rank, const char *line) {
  if (!has_reader(r)) return;
  end_redrawn_line(r);
  printf("rank %d: %s\n", rank, line);
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

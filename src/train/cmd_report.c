/* curvd report: runs and scaling benchmarks as one page of figures. No MPI. */
#include "base/options.h"
#include "page/page.h"
#include "train/commands.h"
#include "train/words.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char initial_output[] = "report.html", suffix[] = ".html";

static curvd_status check_words(const words *w, const char *output, cv_error *err) {
  size_t n = strlen(output);
  for (int i = 0; i < w->argc; i++)
    if (w->argv[i][0] == '-' && w->argv[i][1] != '\0')
      return cv_fail(err, CURVD_ERR_OPTION,
                     "report: unknown option '%.60s'; there is --output FILE.html, all other words are paths",
                     w->argv[i]);
  if (w->argc == 0)
    return cv_fail(err, CURVD_ERR_OPTION,
                   "report: a path is missing; give run folders, or files of scaling lines: curvd report runs/*");
  if (n < sizeof suffix || strcmp(output + n - (sizeof suffix - 1), suffix) != 0 || n > PAGE_PATH_MAX)
    return cv_fail(err, CURVD_ERR_OPTION,
                   "--output: '%.60s' does not end in .html; whatever has that name is replaced, so it has to", output);
  return CURVD_OK;
}

static curvd_status write_failure(const char *path, int reason, cv_error *err) {
  return cv_fail(err, CURVD_ERR_IO, "%.300s: %s; choose another place with --output FILE.html", path, strerror(reason));
}

/* The file is there whole, or as it was. */
static curvd_status page_save(const markup *m, const char *path, cv_error *err) {
  char part[PAGE_PATH_MAX + 20];
  snprintf(part, sizeof part, "%s.part", path);
  FILE *file = fopen(part, "wb");
  if (file == NULL) return write_failure(part, errno, err);
  errno = 0;
  bool is_written = fwrite(m->bytes, 1, m->n, file) == m->n;
  is_written = fclose(file) == 0 && is_written;
  if (is_written && rename(part, path) == 0) return CURVD_OK;
  int reason = errno != 0 ? errno : EIO;
  unlink(part);
  return write_failure(path, reason, err);
}

static void tell(const page_data *d, const markup *m, const char *path) {
  for (int i = 0; i < d->n_runs; i++)
    if (d->run[i].history.is_cut)
      printf("%s: the last line of metrics.jsonl was cut off, and is left out\n", d->run[i].path);
  if (d->scaling.is_cut) printf("a last line of scaling lines was cut off, and is left out\n");
  printf("%s: %d run%s, %lld scaling line%s, %.0f kB\n", path, d->n_runs, d->n_runs == 1 ? "" : "s",
         (long long)d->scaling.n_lines, d->scaling.n_lines == 1 ? "" : "s", (double)m->n / 1e3);
}

static curvd_status make(const words *w, const char *output, cv_error *err) {
  page_data d = {.n_runs = 0};
  markup m = {.n = 0};
  curvd_status status = CURVD_OK;
  for (int i = 0; i < w->argc && status == CURVD_OK; i++) status = page_data_add(&d, w->argv[i], err);
  if (status == CURVD_OK) status = page_data_arrange(&d, err);
  if (status == CURVD_OK) status = page_write(&d, &m, err);
  if (status == CURVD_OK) status = page_save(&m, output, err);
  if (status == CURVD_OK) tell(&d, &m, output);
  markup_free(&m);
  page_data_free(&d);
  return status;
}

int cmd_report(int argc, char **argv) {
  words w = {argc, argv};
  cv_error err = {.code = CURVD_OK};
  const char *output = initial_output;
  curvd_status status = words_take_text(&w, "--output", &output, &err);
  if (status == CURVD_OK) status = check_words(&w, output, &err);
  if (status == CURVD_OK) status = make(&w, output, &err);
  return status == CURVD_OK ? EXIT_CODE_OK : command_failed(&err);
}

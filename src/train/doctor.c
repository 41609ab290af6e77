#include "train/doctor.h"

#include "train/commands.h"
#include "train/words.h"

#include <stdarg.h>
#include <string.h>

enum { COLUMNS = 110, LEVEL_COLUMNS = 9, NAME_COLUMNS = 15 };

const char *doctor_level_name(doctor_level level) {
  static const char *const names[] = {"ok", "warning", "error"};
  return names[level];
}

static doctor_line *next(doctor_findings *to, doctor_level level, const char *name) {
  static doctor_line lost; /* one too many would be a mistake of ours, which a test looks for */
  doctor_line *line = to->n < DOCTOR_LINES_MAX ? &to->line[to->n++] : &lost;
  *line = (doctor_line){.level = level, .code = level == DOCTOR_ERROR ? EXIT_CODE_UNFIT : EXIT_CODE_OK};
  snprintf(line->name, sizeof line->name, "%s", name);
  return line;
}

void doctor_add(doctor_findings *to, doctor_level level, const char *name, const char *format, ...) {
  doctor_line *line = next(to, level, name);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line->text, sizeof line->text, format, arguments);
  va_end(arguments);
}

void doctor_add_failure(doctor_findings *to, const char *name, const cv_error *err) {
  doctor_line *line = next(to, DOCTOR_ERROR, name);
  line->code = exit_code_of(err->code);
  snprintf(line->text, sizeof line->text, "%s", err->text[0] != '\0' ? err->text : cv_status_text(err->code));
}

/* ---- of all ranks ---- */

typedef struct opinion {
  int first, n_same;   /* with the worst level: the lowest rank, and how many say what it says */
  int other, n_others; /* of any level: the lowest rank that says something else */
} opinion;

static opinion weigh(const doctor_findings *found, int n_ranks, int at) {
  opinion o = {.other = -1};
  for (int r = 1; r < n_ranks; r++)
    if (found[r].line[at].level > found[o.first].line[at].level) o.first = r;
  for (int r = 0; r < n_ranks; r++) {
    bool is_same = strcmp(found[r].line[at].text, found[o.first].line[at].text) == 0;
    o.n_same += is_same, o.n_others += !is_same;
    if (!is_same && o.other < 0) o.other = r;
  }
  return o;
}

static void merge_line(const doctor_findings *found, const char (*host)[DOCTOR_HOST_MAX], int n_ranks, int at,
                       doctor_line *to) {
  const opinion o = weigh(found, n_ranks, at);
  const doctor_line *worst = &found[o.first].line[at];
  *to = *worst;
  if (o.n_others == 0) return;
  char also[40] = "";
  if (o.n_same > 1) snprintf(also, sizeof also, " (and %d more)", o.n_same - 1);
  int n = snprintf(to->text, sizeof to->text, "rank %d on %s%s: %s", o.first, host[o.first], also, worst->text);
  bool has_room = n >= 0 && (size_t)n < sizeof to->text;
  if (worst->level == DOCTOR_OK && has_room)
    snprintf(to->text + n, sizeof to->text - (size_t)n, "; rank %d on %s: %s", o.other, host[o.other],
             found[o.other].line[at].text);
}

void doctor_merge(const doctor_findings *found, const char (*host)[DOCTOR_HOST_MAX], int n_ranks, doctor_findings *to) {
  for (int i = 0; i < found[0].n && to->n < DOCTOR_LINES_MAX; i++)
    merge_line(found, host, n_ranks, i, &to->line[to->n++]);
}

/* ---- the report ---- */

int doctor_exit_code(const doctor_findings *findings) {
  for (int i = 0; i < findings->n; i++)
    if (findings->line[i].level == DOCTOR_ERROR) return findings->line[i].code;
  return EXIT_CODE_OK;
}

static int count(const doctor_findings *findings, doctor_level level) {
  int n = 0;
  for (int i = 0; i < findings->n; i++) n += findings->line[i].level == level;
  return n;
}

void doctor_print(const doctor_findings *findings, int n_ranks, FILE *out) {
  for (int i = 0; i < findings->n; i++) {
    const doctor_line *line = &findings->line[i];
    fprintf(out, "%-*s%-*s", LEVEL_COLUMNS, doctor_level_name(line->level), NAME_COLUMNS, line->name);
    words_wrap(out, line->text, LEVEL_COLUMNS + NAME_COLUMNS, COLUMNS);
  }
  fprintf(out, "%d rank%s; errors: %d, warnings: %d\n", n_ranks, n_ranks > 1 ? "s" : "", count(findings, DOCTOR_ERROR),
          count(findings, DOCTOR_WARNING));
}

json_t *doctor_json(const doctor_findings *findings, int n_ranks) {
  json_t *lines = json_array();
  for (int i = 0; i < findings->n; i++) {
    const doctor_line *line = &findings->line[i];
    /* texts may hold paths and names of any bytes */
    json_t *text = json_string(line->text);
    json_array_append_new(lines, json_pack("{s:s, s:s, s:o}", "level", doctor_level_name(line->level), "name",
                                           line->name, "text", text ? text : json_null()));
  }
  return json_pack("{s:i, s:i, s:i, s:i, s:o}", "ranks", n_ranks, "errors", count(findings, DOCTOR_ERROR), "warnings",
                   count(findings, DOCTOR_WARNING), "exit_code", doctor_exit_code(findings), "findings", lines);
}

/* ---- small helpers of all themes ---- */

const char *doctor_bytes(double bytes, char text[DOCTOR_BYTES_MAX]) {
  static const char *const units[] = {"bytes", "kB", "MB", "GB", "TB", "PB"};
  int unit = 0;
  while (bytes >= 1000 && unit < 5) bytes /= 1000, unit++;
  snprintf(text, DOCTOR_BYTES_MAX, "%.*f %s", unit > 0 && bytes < 100, bytes, units[unit]);
  return text;
}

bool doctor_read(const char *path, char *text, size_t size) {
  FILE *file = fopen(path, "r");
  text[0] = '\0';
  if (!file) return false;
  size_t n = fread(text, 1, size - 1, file);
  fclose(file);
  while (n > 0 && text[n - 1] == '\n') n--;
  text[n] = '\0';
  return true;
}

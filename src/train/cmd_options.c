#include "train/commands.h"
#include "train/config.h"
#include "train/manual.h"
#include "train/usage.h"
#include "train/words.h"

#include <stdbool.h>
#include <string.h>

enum { COLUMNS = 100, INDENT = 6 };

static void option_print(FILE *out, const curvd_option_info *info) {
  char flag[80], range[320], text[1024];
  usage_flag(info->name, flag, sizeof flag);
  fprintf(out, "  %-26s %-9s %-9s default %s\n", flag, info->type, info->unit,
          info->initial[0] != '\0' ? info->initial : "''");
  usage_spread(info->range, " | ", range, sizeof range);
  bool is_text = strcmp(info->type, "text") == 0; /* its range says nothing */
  snprintf(text, sizeof text, "%s%s%s%s", info->help, is_text ? "" : " (", is_text ? "" : range, is_text ? "" : ")");
  fprintf(out, "%*s", INDENT, "");
  words_wrap(out, text, INDENT, COLUMNS);
}

curvd_status options_print(FILE *out, cv_error *err) {
  config defaults;
  CV_TRY(config_defaults(&defaults, err));
  for (int i = 0; i < defaults.n; i++) {
    const curvd_option_info *info = &defaults.entry[i].info;
    if (i == 0 || strcmp(info->group, defaults.entry[i - 1].info.group) != 0)
      fprintf(out, "%s%s\n", i > 0 ? "\n" : "", info->group);
    option_print(out, info);
  }
  config_free(&defaults);
  return CURVD_OK;
}

/* One line per option: name, value in force, origin. */
static void origins_print(const config *shown) {
  int width = 0;
  for (int i = 0; i < shown->n; i++) {
    int n = (int)strlen(shown->entry[i].text);
    if (n > width && n <= 40) width = n; /* longer values push their own origin aside */
  }
  for (int i = 0; i < shown->n; i++) {
    const config_entry *entry = &shown->entry[i];
    printf("%-24s %-*s  %s\n", entry->name, width, entry->text[0] != '\0' ? entry->text : "''", entry->origin);
  }
}

/* format: NULL without a name, for a sentence that has all of them; left: what stands beside it. */
static int format_print(const char *format, const words *left) {
  cv_error err = {.code = CURVD_OK};
  curvd_status status = CURVD_OK;
  if (left->argc > 0)
    status = cv_fail(&err, CURVD_ERR_OPTION, "unexpected word '%.60s': --format NAME stands alone", left->argv[0]);
  if (status == CURVD_OK) status = manual_print(stdout, format, &err);
  return status == CURVD_OK ? EXIT_CODE_OK : command_failed(&err);
}

int cmd_options(int argc, char **argv) {
  cv_error err = {.code = CURVD_OK};
  if (argc == 0) return options_print(stdout, &err) == CURVD_OK ? EXIT_CODE_OK : command_failed(&err);
  words w = {argc, argv};
  const char *format = NULL;
  if (words_take_text(&w, "--format", &format, &err) != CURVD_OK || format != NULL) return format_print(format, &w);
  if (strcmp(argv[0], "--origins") != 0) {
    cv_fail(&err, CURVD_ERR_OPTION,
            "unexpected word '%.60s': write `curvd options`, `curvd options --origins ...` or "
            "`curvd options --format man|markdown|bash|zsh`",
            argv[0]);
    return command_failed(&err);
  }
  config loaded;
  if (config_load(argc - 1, argv + 1, &loaded, &err) != CURVD_OK) return command_failed(&err);
  origins_print(&loaded);
  config_free(&loaded);
  return EXIT_CODE_OK;
}

/* The manual of the program: one text in two styles, roff (man page) and Markdown. */
#include "train/commands.h"
#include "train/manual.h"
#include "train/usage.h"

#include <stdbool.h>
#include <string.h>

/* What the manual is made of. Texts are plain; a style escapes what means something to it. */
typedef struct style {
  void (*title)(FILE *out);
  void (*heading)(FILE *out, int level, const char *text);                 /* level: 1 or 2 */
  void (*paragraph)(FILE *out, const char *text);                          /* after a heading */
  void (*term)(FILE *out, int level, const char *name, const char *value); /* level: 1, or 2 inside another's text */
  void (*text)(FILE *out, int level, const char *text);                    /* of the term before */
  void (*example)(FILE *out, const char *lines);                           /* the same */
} style;

/* ---- roff ---- */

static void man_escaped(FILE *out, const char *text) {
  for (const char *c = text; *c != '\0'; c++) {
    bool is_first = c == text || c[-1] == '\n';
    if (is_first && (*c == '.' || *c == '\'')) fputs("\\&", out); /* no request of roff */
    const char *name = *c == '\\' ? "\\e" : *c == '-' ? "\\-" : *c == '^' ? "\\(ha" : *c == '~' ? "\\(ti" : NULL;
    if (name != NULL)
      fputs(name, out);
    else
      fputc(*c, out);
  }
}

static void man_title(FILE *out) {
  fprintf(out,
          ".\\\" Written by `curvd options --format man`.\n"
          ".TH CURVD 1 \"\" \"curvd %s\" \"User Commands\"\n"
          ".nh\n.ad l\n" /* a value that is broken into two words is none */
          ".SH NAME\ncurvd \\- second\\-order training of neural networks on MPI, with ranks that serve curvature\n",
          curvd_version());
}

static void man_heading(FILE *out, int level, const char *text) {
  fprintf(out, level == 1 ? ".SH " : ".SS ");
  man_escaped(out, text);
  fputc('\n', out);
}

static void man_paragraph(FILE *out, const char *text) {
  man_escaped(out, text);
  fputc('\n', out);
}

static void man_term(FILE *out, int level, const char *name, const char *value) {
  fprintf(out, "%s.TP\n\\fB", level == 2 ? ".RS\n" : "");
  man_escaped(out, name);
  fprintf(out, "\\fR");
  if (value[0] != '\0') {
    fprintf(out, " \\fI");
    man_escaped(out, value);
    fprintf(out, "\\fR");
  }
  fputc('\n', out);
}

static void man_text(FILE *out, int level, const char *text) {
  man_escaped(out, text);
  fprintf(out, level == 2 ? "\n.RE\n" : "\n");
}

static void man_example(FILE *out, const char *lines) {
  fprintf(out, ".EX\n");
  man_escaped(out, lines);
  fprintf(out, ".EE\n");
}

/* ---- Markdown ---- */

static void markdown_escaped(FILE *out, const char *text) {
  for (; *text != '\0'; text++) {
    if (strchr("\\`*_<[|", *text) != NULL) fputc('\\', out);
    fputc(*text, out);
  }
}

static void markdown_title(FILE *out) {
  fprintf(out,
          "<!-- Written by `curvd options --format markdown`. -->\n# curvd %s\n\n"
          "Second-order training of neural networks on MPI, with ranks that serve curvature.\n",
          curvd_version());
}

static void markdown_heading(FILE *out, int level, const char *text) {
  fprintf(out, "\n%s %s\n\n", level == 1 ? "##" : "###", text);
}

static void markdown_paragraph(FILE *out, const char *text) {
  markdown_escaped(out, text);
  fprintf(out, "\n\n");
}

static void markdown_term(FILE *out, int level, const char *name, const char *value) {
  fprintf(out, "%s- `%s%s%s`: ", level == 2 ? "  " : "", name, value[0] != '\0' ? " " : "", value);
}

static void markdown_text(FILE *out, int level, const char *text) {
  (void)level;
  markdown_escaped(out, text);
  fputc('\n', out);
}

static void markdown_example(FILE *out, const char *lines) {
  for (bool is_first = true; *lines != '\0'; lines++) {
    if (is_first) fprintf(out, "    ");
    fputc(*lines, out);
    is_first = *lines == '\n';
  }
}

/* ---- what it says ---- */

static void terms(FILE *out, const style *s, const char *const (*row)[2], size_t n) {
  for (size_t i = 0; i < n; i++) {
    s->term(out, 1, row[i][0], "");
    s->text(out, 1, row[i][1]);
  }
}

/* A command's text: sentences, and lines in two columns ("list FOLDER     checkpoints of ..."), which are terms. */
static void command_text(FILE *out, const style *s, const char *text) {
  char line[400], left[200];
  while (*text != '\0') {
    text += strspn(text, " \n");
    int n = (int)strcspn(text, "\n");
    snprintf(line, sizeof line, "%.*s", n, text);
    text += n;
    const char *gap = strstr(line, "  ");
    if (gap != NULL) {
      snprintf(left, sizeof left, "%.*s", (int)(gap - line), line);
      s->term(out, 2, left, "");
    }
    s->text(out, gap != NULL ? 2 : 1, gap != NULL ? gap + strspn(gap, " ") : line);
  }
}

static void commands_section(FILE *out, const style *s) {
  int n = 0;
  const command *row = commands_table(&n);
  s->heading(out, 1, "COMMANDS");
  for (int i = 0; i < n; i++) {
    s->term(out, 1, row[i].usage, "");
    command_text(out, s, row[i].text);
  }
  s->term(out, 1, "curvd COMMAND --help", "");
  s->text(out, 1, "Tells of one command.");
  s->term(out, 1, "curvd --version", "");
  s->text(out, 1, "Version, and the MPI and BLAS that are loaded.");
}

static void option_entry(FILE *out, const style *s, const curvd_option_info *info) {
  char flag[80], names[170], range[320], text[1200];
  bool is_switch = strcmp(info->type, "switch") == 0, is_text = strcmp(info->type, "text") == 0;
  usage_flag(info->name, flag, sizeof flag);
  snprintf(names, sizeof names, "%s%s%s", flag, is_switch ? ", --no-" : "", is_switch ? flag + 2 : "");
  usage_spread(info->range, ", ", range, sizeof range);
  snprintf(text, sizeof text, "%s.%s%s%s%s%s Default: %s.", info->help,
           is_text ? "" : " Values: ", is_text ? "" : range, info->unit[0] != '\0' ? " " : "", info->unit,
           is_text ? "" : ".", info->initial[0] != '\0' ? info->initial : "none");
  s->term(out, 1, names, is_switch ? "" : info->type);
  s->text(out, 1, text);
}

static void options_section(FILE *out, const style *s, const config *c) {
  s->heading(out, 1, "OPTIONS");
  s->paragraph(out, "Of every command with [--name value ...]. Values come from defaults < file (--config) < "
                    "environment < command line, as --name value or --name=value. In a file, NAME: VALUE with the "
                    "option's name, where - and _ are the same.");
  for (int i = 0; i < c->n; i++) {
    const curvd_option_info *info = &c->entry[i].info;
    if (i == 0 || strcmp(info->group, c->entry[i - 1].info.group) != 0) s->heading(out, 2, info->group);
    option_entry(out, s, info);
  }
}

static void exit_section(FILE *out, const style *s) {
  s->heading(out, 1, "EXIT STATUS");
#define EXIT_ENTRY(name, code, meaning) {#code, meaning "."},
  static const char *const codes[][2] = {EXIT_CODE_LIST(EXIT_ENTRY)};
#undef EXIT_ENTRY
  terms(out, s, codes, sizeof codes / sizeof codes[0]);
}

static void page(FILE *out, const style *s, const config *c) {
  static const char *const environment[][2] = {
      {"CURVD_NAME", "The option NAME in capitals: CURVD_LR_DECAY=cosine."},
      {"CURVD_DATA_DIR", "The folder of the data sets that have a name."},
  };
  static const char *const files[][2] = {
      {"RUN/config.yaml", "All values of a run, and where they came from; --config takes it."},
      {"RUN/metrics.jsonl", "One record a line: steps, evaluations, events, the end."},
      {"RUN/checkpoints/step-N", "A checkpoint: manifest.json, and one safetensors file of each rank."},
      {"RUN/hang-rank-N.txt", "The last operations of a rank that stood still."},
  };
  s->title(out);
  s->heading(out, 1, "SYNOPSIS");
  s->paragraph(out, "[mpirun -n RANKS] curvd COMMAND [--name value ...]");
  commands_section(out, s);
  options_section(out, s, c);
  s->heading(out, 1, "ENVIRONMENT");
  terms(out, s, environment, sizeof environment / sizeof environment[0]);
  s->heading(out, 1, "FILES");
  terms(out, s, files, sizeof files / sizeof files[0]);
  exit_section(out, s);
  s->heading(out, 1, "EXAMPLES");
  s->example(out, "mpirun -n 3 curvd train --curvature-ranks 1 --staleness 5 --epochs 3\n"
                  "mpirun -n 3 curvd train --resume runs/NAME\n"
                  "curvd plan --ranks 512 --curvature-ranks 32\n");
  s->heading(out, 1, "SEE ALSO");
  s->paragraph(out, "mpirun(1), and curvd.h, the manual of the library.");
}

void manual_man(FILE *out, const config *c) {
  static const style man = {man_title, man_heading, man_paragraph, man_term, man_text, man_example};
  page(out, &man, c);
}

void manual_markdown(FILE *out, const config *c) {
  static const style markdown = {markdown_title, markdown_heading, markdown_paragraph,
                                 markdown_term,  markdown_text,    markdown_example};
  page(out, &markdown, c);
}

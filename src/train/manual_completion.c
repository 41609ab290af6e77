/* Completion for bash and zsh: commands, their own flags (from their usages), options, and the words of values. */
#include "train/commands.h"
#include "train/manual.h"
#include "train/usage.h"

#include <stdbool.h>
#include <string.h>

enum { WORDS_MAX = 600 };

static bool is_type(const curvd_option_info *info, const char *type) {
  return strcmp(info->type, type) == 0;
}

/* The words that a value may be, with blanks between: all of a choice, "auto" of a range ">= 0 or auto", the default
 * of a text. */
static void value_words(const curvd_option_info *info, char words[WORDS_MAX]) {
  words[0] = '\0';
  if (is_type(info, "choice") || is_type(info, "switch")) {
    usage_spread(info->range, " ", words, WORDS_MAX);
  } else if (is_type(info, "text")) {
    snprintf(words, WORDS_MAX, "%s", info->initial);
  } else {
    for (const char *word = strstr(info->range, " or "); word != NULL; word = strstr(word, " or ")) {
      size_t n = strlen(words);
      word += strlen(" or ");
      snprintf(words + n, WORDS_MAX - n, "%s%.*s", n > 0 ? " " : "", (int)strcspn(word, " "), word);
    }
  }
}

/* ---- bash ---- */

static void bash_flags(FILE *out, const config *c) {
  char flag[80];
  fprintf(out, "  local options='");
  for (int i = 0; i < c->n; i++) {
    usage_flag(c->entry[i].name, flag, sizeof flag);
    fprintf(out, "%s%s", i > 0 ? " " : "", flag);
    if (is_type(&c->entry[i].info, "switch")) fprintf(out, " --no-%s", flag + 2);
  }
  fprintf(out, "'\n");
}

/* Values of options. A switch takes one after '=' only. */
static void bash_option_values(FILE *out, const config *c) {
  char flag[80], words[WORDS_MAX];
  for (int i = 0; i < c->n; i++) {
    const curvd_option_info *info = &c->entry[i].info;
    usage_flag(info->name, flag, sizeof flag);
    value_words(info, words);
    fprintf(out, "    *' %s='", flag);
    if (!is_type(info, "switch")) fprintf(out, " | *' %s '", flag);
    fprintf(out, ") words='%s'%s ;;\n", words, is_type(info, "text") ? " paths=1" : "");
  }
}

static void bash_command_values(FILE *out, const command *shown) {
  usage_word word;
  char words[sizeof word.value];
  for (const char *at = usage_words(shown->usage); usage_next(&at, &word);) {
    if (word.flag[0] == '\0' || word.value[0] == '\0' || usage_is_all_options(&word)) continue;
    usage_spread(usage_is_choice(&word) ? word.value : "", " ", words, sizeof words);
    fprintf(out, "    '%s %s=' | '%s %s ') words='%s'%s ;;\n", shown->name, word.flag, shown->name, word.flag, words,
            usage_is_path(&word) ? " paths=1" : "");
  }
}

/* What a command takes where no value is due. */
static void bash_command_words(FILE *out, const command *shown) {
  usage_word word;
  char first[sizeof word.value] = "";
  bool takes_paths = false, takes_options = false;
  fprintf(out, "        %s)\n          words=\"--help", shown->name);
  for (const char *at = usage_words(shown->usage); usage_next(&at, &word);) {
    bool is_alone = word.flag[0] == '\0';
    if (usage_is_all_options(&word)) takes_options = true;
    if (!is_alone && !usage_is_all_options(&word)) fprintf(out, " %s", word.flag);
    if (is_alone && usage_is_choice(&word)) usage_spread(word.value, " ", first, sizeof first);
    if (is_alone && !usage_is_choice(&word)) takes_paths = true;
  }
  fprintf(out, "%s\"%s\n", takes_options ? " $options" : "", takes_paths ? " paths=1" : "");
  if (first[0] != '\0') fprintf(out, "          ((COMP_CWORD > 2)) || words=\"%s $words\" paths=\n", first);
  fprintf(out, "          ;;\n");
}

void manual_bash(FILE *out, const config *c) {
  int n = 0;
  const command *row = commands_table(&n);
  fprintf(out, "# shellcheck shell=bash\n"
               "# Completion of curvd for bash. Written by `curvd options --format bash`.\n_curvd() {\n"
               "  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]}\n"
               "  local mark=' ' words='' paths=''\n");
  bash_flags(out, c);
  fprintf(out, "  COMPREPLY=()\n"
               "  # bash takes --name=value for three words\n"
               "  if [[ $word == '=' ]]; then\n    word='' mark='='\n"
               "  elif [[ $before == '=' ]]; then\n    before=${COMP_WORDS[COMP_CWORD - 2]} mark='='\n  fi\n"
               "  ((COMP_CWORD > 1)) || command=''\n"
               "  case \"$command $before$mark\" in\n");
  for (int i = 0; i < n; i++) bash_command_values(out, &row[i]);
  bash_option_values(out, c);
  fprintf(out, "    *)\n      [[ $mark == ' ' ]] || return 0\n      case $command in\n        '') words='");
  for (int i = 0; i < n; i++) fprintf(out, "%s ", row[i].name);
  fprintf(out, "--help --version' ;;\n");
  for (int i = 0; i < n; i++) bash_command_words(out, &row[i]);
  fprintf(out,
          "      esac\n      ;;\n  esac\n"
          "  mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\"; [[ -z $paths ]] || compgen -f -- \"$word\")\n"
          "  # blanks in names of files\n"
          "  [[ -z $paths ]] || compopt -o filenames 2>/dev/null || true\n}\ncomplete -F _curvd curvd\n");
}

/* ---- zsh ---- */

/* The first line of text, inside quotes and in the brackets of _arguments. */
static void zsh_escaped(FILE *out, const char *text) {
  for (; *text != '\0' && *text != '\n'; text++) {
    if (*text == '\'')
      fputs("'\\'", out);
    else if (strchr("[]:\\", *text) != NULL)
      fputc('\\', out);
    fputc(*text, out);
  }
}

static void zsh_option(FILE *out, const curvd_option_info *info) {
  char flag[80], words[WORDS_MAX];
  bool is_switch = is_type(info, "switch");
  usage_flag(info->name, flag, sizeof flag);
  value_words(info, words);
  fprintf(out, "    '%s%s[", flag, is_switch ? "" : "=");
  zsh_escaped(out, info->help);
  if (is_switch)
    fprintf(out, "]' '--no-%s'\n", flag + 2);
  else if (is_type(info, "text"))
    fprintf(out, "]:%s:_files'\n", info->name);
  else
    fprintf(out, "]:%s:(%s)'\n", info->type, words);
}

static void zsh_command(FILE *out, const command *shown) {
  usage_word word;
  char words[sizeof word.value];
  fprintf(out, "    %s) _arguments --help", shown->name);
  for (const char *at = usage_words(shown->usage); usage_next(&at, &word);) {
    usage_spread(word.value, " ", words, sizeof words);
    if (usage_is_all_options(&word))
      fprintf(out, " $flags");
    else if (word.flag[0] == '\0' && usage_is_choice(&word))
      fprintf(out, " '1:what:(%s)'", words);
    else if (word.flag[0] == '\0')
      fprintf(out, " '*:path:_files'");
    else if (word.value[0] == '\0')
      fprintf(out, " %s", word.flag);
    else if (usage_is_choice(&word))
      fprintf(out, " '%s=:value:(%s)'", word.flag, words);
    else
      fprintf(out, " '%s=:%s:%s'", word.flag, word.value, usage_is_path(&word) ? "_files" : "( )");
  }
  fprintf(out, " ;;\n");
}

void manual_zsh(FILE *out, const config *c) {
  int n = 0;
  const command *row = commands_table(&n);
  fprintf(out, "#compdef curvd\n# Completion of curvd for zsh. Written by `curvd options --format zsh`.\n_curvd() {\n"
               "  local -a flags subcommands\n  flags=(\n");
  for (int i = 0; i < c->n; i++) zsh_option(out, &c->entry[i].info);
  fprintf(out, "  )\n  subcommands=(\n");
  for (int i = 0; i < n; i++) {
    fprintf(out, "    '%s:", row[i].name);
    zsh_escaped(out, row[i].text);
    fprintf(out, "'\n");
  }
  fprintf(out, "  )\n  if ((CURRENT == 2)); then\n    _describe command subcommands\n    return\n  fi\n"
               "  shift words\n  ((CURRENT--))\n  case $words[1] in\n");
  for (int i = 0; i < n; i++) zsh_command(out, &row[i]);
  fprintf(out, "  esac\n}\n_curvd \"$@\"\n");
}

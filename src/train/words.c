#include "train/words.h"

#include "base/number.h"

#include <string.h>

static void drop(words *w, int at, int n) {
  for (int i = at; i + n < w->argc; i++) w->argv[i] = w->argv[i + n];
  w->argc -= n;
}

bool words_take_switch(words *w, const char *name) {
  for (int i = 0; i < w->argc; i++) {
    if (strcmp(w->argv[i], name) != 0) continue;
    drop(w, i, 1);
    return true;
  }
  return false;
}

static curvd_status read_integer(const char *name, const char *text, int64_t least, int64_t most, int64_t *value,
                                 cv_error *err) {
  int64_t read = 0;
  if (text == NULL) return cv_fail(err, CURVD_ERR_OPTION, "%s: a value is missing", name);
  if (!cv_integer_parse(text, &read) || read < least || read > most)
    return cv_fail(err, CURVD_ERR_OPTION, "%s: '%.60s' is no integer of %lld to %lld", name, text, (long long)least,
                   (long long)most);
  *value = read;
  return CURVD_OK;
}

curvd_status words_take_integer(words *w, const char *name, int64_t least, int64_t most, int64_t *value,
                                cv_error *err) {
  size_t length = strlen(name);
  for (int i = 0; i < w->argc; i++) {
    const char *word = w->argv[i];
    if (strncmp(word, name, length) != 0 || (word[length] != '\0' && word[length] != '=')) continue;
    bool is_one = word[length] == '=', is_last = i + 1 == w->argc;
    const char *text = is_one ? word + length + 1 : is_last ? NULL : w->argv[i + 1];
    CV_TRY(read_integer(name, text, least, most, value, err));
    drop(w, i, is_one ? 1 : 2);
    return CURVD_OK;
  }
  return CURVD_OK;
}

void words_wrap(FILE *out, const char *text, int indent, int columns) {
  int column = indent;
  for (const char *word = text; *word != '\0';) {
    int n = (int)strcspn(word, " ");
    bool is_first = column == indent;
    if (!is_first && column + 1 + n > columns) {
      fprintf(out, "\n%*s", indent, "");
      column = indent;
      is_first = true;
    }
    column += fprintf(out, "%s%.*s", is_first ? "" : " ", n, word);
    word += n + (word[n] == ' ');
  }
  fputc('\n', out);
}

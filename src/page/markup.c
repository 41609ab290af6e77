#include "page/markup.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const size_t BYTES_MAX = (size_t)1 << 30;
static const char replacement[] = "\xEF\xBF\xBD";

void markup_free(markup *m) {
  free(m->bytes);
  *m = (markup){.n = 0};
}

/* Room for n more bytes and a NUL. */
static bool grow(markup *m, size_t n) {
  if (m->is_lost) return false;
  if (m->n + n < m->room) return true;
  size_t room = 2 * m->room + n + 4096;
  char *bytes = room <= BYTES_MAX ? realloc(m->bytes, room) : NULL;
  m->is_lost = bytes == NULL;
  if (bytes != NULL) m->bytes = bytes, m->room = room;
  return bytes != NULL;
}

static void append(markup *m, const char *bytes, size_t n) {
  if (!grow(m, n)) return;
  memcpy(m->bytes + m->n, bytes, n);
  m->n += n;
  m->bytes[m->n] = '\0';
}

void markup_put(markup *m, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  int n = vsnprintf(NULL, 0, format, arguments);
  va_end(arguments);
  if (n < 0 || !grow(m, (size_t)n)) return;
  va_start(arguments, format);
  vsnprintf(m->bytes + m->n, (size_t)n + 1, format, arguments);
  va_end(arguments);
  m->n += (size_t)n;
}

/* Bytes of the character at c (RFC 3629) if XML 1.0 allows it; 0 if not. The NUL at the end stops every look ahead. */
static size_t character_length(const unsigned char *c) {
  if (c[0] < 0x80) return c[0] >= ' ' || c[0] == '\t' || c[0] == '\n' || c[0] == '\r' ? 1 : 0;
  size_t n = c[0] >= 0xF0 ? 4 : c[0] >= 0xE0 ? 3 : 2;
  static const unsigned long least[] = {0, 0, 0x80, 0x800, 0x10000};
  unsigned long code = c[0] & (0xFFU >> (n + 1));
  if (c[0] < 0xC2 || c[0] > 0xF4) return 0;
  for (size_t i = 1; i < n; i++) {
    if ((c[i] & 0xC0) != 0x80) return 0;
    code = code << 6 | (c[i] & 0x3F);
  }
  bool is_surrogate = code >= 0xD800 && code < 0xE000, is_barred = code == 0xFFFE || code == 0xFFFF;
  return code >= least[n] && code <= 0x10FFFF && !is_surrogate && !is_barred ? n : 0;
}

void markup_text(markup *m, const char *text) {
  for (const char *c = text; *c != '\0';) {
    size_t n = character_length((const unsigned char *)c);
    if (n == 0)
      append(m, replacement, sizeof replacement - 1);
    else if (n == 1 && strchr("&<>\"'", *c) != NULL)
      markup_put(m, "&#%d;", *c);
    else
      append(m, c, n);
    c += n > 0 ? n : 1;
  }
}

void markup_element(markup *m, const char *tag, const char *text) {
  markup_put(m, "<%s>", tag);
  markup_text(m, text);
  markup_put(m, "</%.*s>", (int)strcspn(tag, " "), tag);
}

void number_text(double value, char text[NUMBER_TEXT_MAX]) {
  if (!isfinite(value))
    snprintf(text, NUMBER_TEXT_MAX, "\xE2\x80\x93");
  else if (fabs(value) < 1e7 && (value == floor(value) || fabs(value) >= 1000))
    snprintf(text, NUMBER_TEXT_MAX, "%.0f", value + 0.0); /* never -0 */
  else
    snprintf(text, NUMBER_TEXT_MAX, "%.4g", value);
}

void markup_number_cell(markup *m, double value) {
  char text[NUMBER_TEXT_MAX];
  number_text(value, text);
  markup_put(m, "<td class=\"n\">%s</td>", text);
}

void markup_percent_cell(markup *m, double percent) {
  if (!isfinite(percent))
    markup_number_cell(m, percent);
  else
    markup_put(m, "<td class=\"n\">%.*f</td>", fabs(percent) < 9.995 ? 2 : 1, percent);
}

/* Text of XML and HTML that grows. What comes from outside only ever enters through markup_text and what calls it. */
#ifndef PAGE_MARKUP_H
#define PAGE_MARKUP_H

#include <stdbool.h>
#include <stddef.h>

/* All zeros: empty. */
typedef struct markup {
  char *bytes; /* NUL terminated; NULL while empty */
  size_t n, room;
  bool is_lost; /* memory ran out, or 1 GB was not enough: what came later is missing */
} markup;

void markup_free(markup *m);

/* As it is: markup and numbers of the program itself. */
void markup_put(markup *m, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Escaped for contents and for attributes in double quotes; U+FFFD in place of each byte that is no UTF-8 and of
 * characters that XML does not allow. */
void markup_text(markup *m, const char *text);

/* <tag>text</tag>; tag may be followed by attributes: "td class=\"n\"". */
void markup_element(markup *m, const char *tag, const char *text);

enum { NUMBER_TEXT_MAX = 32 };

/* Four significant digits, whole numbers up to 10^7 as they are; an en dash for what is no number. */
void number_text(double value, char text[NUMBER_TEXT_MAX]);

/* <td class="n">number</td>; of percent, two digits behind the point at most. */
void markup_number_cell(markup *m, double value);
void markup_percent_cell(markup *m, double percent);

#endif

/* Figures as SVG: scales, ticks, lines, bands, bars and labels. Lengths are pixels of the figure, whose left upper
 * corner is (0, 0). Every element carries its look on white; the classes let a page recolour it (chart_dark_style). */
#ifndef PAGE_CHART_H
#define PAGE_CHART_H

#include "page/markup.h"

#include <stdint.h>

enum {
  CHART_COLOURS = 8,
  CHART_GREY = CHART_COLOURS, /* one more, for what is no series */
  CHART_DASHES = 4,
  CHART_TICKS_MAX = 16,
  CHART_TICK_TEXT_MAX = 24,
  CHART_POINTS_MAX = 800, /* of a line: of a longer one each of half as many pieces shows its least and its largest */
};

/* ---- scales ---- */

typedef struct chart_axis {
  bool is_log;
  double from, to;   /* values at both ends; from < to, of logarithms from > 0 */
  double at, length; /* pixels: where `from` is, and from there to `to` (negative: leftwards, upwards) */
} chart_axis;

/* Least and largest of what an axis has to show; begins as chart_nothing. */
typedef struct chart_range {
  double least, most;
} chart_range;
extern const chart_range chart_nothing;
void chart_range_add(chart_range *range, double value);          /* NaN changes nothing */
void chart_range_add_positive(chart_range *range, double value); /* nor do values that have no logarithm */

/* from and to: the range, widened by `margin` of its length on both sides, but not beyond an end that is 0; one that is
 * empty or a point gets a length. Of logarithms both ends are within 1e-300 and 1e300, else within 1e300 in size. */
void chart_axis_fit(chart_axis *axis, chart_range range, double margin);

/* Where a value is; NaN for one that is not finite or has no logarithm. */
double chart_place(const chart_axis *axis, double value);

typedef struct chart_ticks {
  int n;
  double value[CHART_TICKS_MAX];
  double step; /* between them; 0: they are not even */
} chart_ticks;

/* Round numbers (1, 2, 5 times a power of ten; of logarithms powers of ten, or those) within the axis, at most `most`
 * (of 2 to CHART_TICKS_MAX) of them. */
void chart_ticks_make(const chart_axis *axis, int most, chart_ticks *ticks);

/* "0.25", "40k", "10" and a superscript */
void chart_tick_text(const chart_axis *axis, const chart_ticks *ticks, double value, char text[CHART_TICK_TEXT_MAX]);

/* ---- what is drawn ---- */

typedef struct chart_style {
  int colour; /* 0 to CHART_GREY */
  int dash;   /* 0: solid, to CHART_DASHES - 1 */
} chart_style;

typedef enum chart_text { CHART_TEXT_TICK, CHART_TEXT_NAME, CHART_TEXT_TITLE } chart_text;
typedef enum chart_anchor { CHART_START, CHART_MIDDLE, CHART_END } chart_anchor;

typedef struct chart_panel {
  const char *title, *x_title; /* may be "" */
  double left, top, width, height;
  chart_axis x, y;
  chart_ticks x_ticks, y_ticks;
  bool has_y_texts;
} chart_panel;

/* The <svg> element; the title is what a reader of the screen says. */
void chart_begin(markup *m, double width, double height, const char *title);
void chart_end(markup *m);

/* Colours on a dark ground: rules of CSS, to stand within a media query. */
void chart_dark_style(markup *m);

/* Fits both axes to the ranges, makes ticks, and sets where the axes are in the panel. */
void chart_panel_fit(chart_panel *p, chart_range x, chart_range y);

/* Grid, ticks, titles. */
void chart_frame(markup *m, const chart_panel *p);

/* A line through n points; one without a place interrupts it. name: attribute data-series. */
void chart_line(markup *m, const chart_panel *p, chart_style style, const char *name, int64_t n, const double *x,
                const double *y);
void chart_band(markup *m, const chart_panel *p, chart_style style, int64_t n, const double *x, const double *low,
                const double *high);

/* A point, with its interval where low < high; text appears when the pointer rests on it. */
void chart_point(markup *m, const chart_panel *p, chart_style style, double x, double y, double low, double high,
                 const char *text);
void chart_dot(markup *m, double x, double y, chart_style style, bool is_open, const char *text);
void chart_bar(markup *m, double x, double y, double width, double height, chart_style style, double opacity,
               const char *text);
void chart_rule(markup *m, double x0, double y0, double x1, double y1, chart_style style); /* thin */

/* A small square of a colour, an <svg> of its own for tables. */
void chart_key(markup *m, chart_style style);

/* Grey words; of a style, in its colour. */
void chart_words(markup *m, double x, double y, chart_text kind, chart_anchor anchor, const char *text);
void chart_words_of(markup *m, double x, double y, chart_style style, chart_anchor anchor, const char *text);

/* Pixels that the text takes, nearly. */
double chart_text_width(const char *text);

/* text, cut with an ellipsis to what has room in so many pixels. */
void chart_text_cut(const char *text, double width, char *cut, size_t size);

/* Names at the ends of lines. */
typedef struct chart_label {
  double y; /* wished; NaN: none */
  const char *text;
  chart_style style;
} chart_label;

/* Moves labels apart to `gap` pixels, within top and bottom as far as there is room; they keep their order. */
void chart_labels_spread(chart_label *label, int n, double gap, double top, double bottom);

/* Spreads and writes labels to the right of x, cut to width, on two lines where they have a comma and room; those
 * without any become one: "and 3 more". */
void chart_labels_write(markup *m, chart_label *label, int n, double x, double width, double top, double bottom);

#endif

/* Pieces of a page: a file for each group of figures, and what they share. */
#ifndef PAGE_PARTS_H
#define PAGE_PARTS_H

#include "page/page_data.h"

/* Pixels of every figure, and of the names at its right edge. */
enum { PAGE_WIDTH = 1040, PAGE_NAMES = 178 };

/* A page while it is written. */
typedef struct page {
  const page_data *data;
  markup *out;
  markup missing; /* list items: what is not shown, and what would fill it */
} page;

/* <section id><h2>title</h2>, and its end. */
void page_section_begin(page *p, const char *id, const char *title);
void page_section_end(page *p);

/* The line that says how to read a figure. */
void page_caption(page *p, const char *text);

/* In place of a section without data. */
void page_missing(page *p, const char *title, const char *what_fills_it);

/* <details> with a table; heads end with NULL. The first n_names columns hold words. */
void page_table_begin(page *p, const char *summary, const char *const *heads, int n_names);
void page_table_end(page *p);

/* Swatches with names in a row, from x on, as part of a figure; returns the height that they take. */
typedef struct page_swatch {
  const char *name;
  chart_style style;
  double opacity;
} page_swatch;
double page_swatches(markup *m, const page_swatch *swatch, int n, double x, double y, double width);

/* Figures; each says itself what is missing. MEMORY. */
curvd_status page_training(page *p, cv_error *err);
curvd_status page_layers(page *p, cv_error *err);
void page_stages(page *p);
void page_traffic(page *p);
void page_service(page *p);
void page_prediction(page *p);
void page_scaling(page *p);

/* Tables. */
void page_summary(page *p);
void page_runs(page *p);

#endif

/* All that a page shows: runs, which of them are seeds of one configuration, and scaling lines. */
#ifndef PAGE_DATA_H
#define PAGE_DATA_H

#include "page/chart.h"
#include "page/history.h"
#include "page/scaling.h"
#include "page/settings.h"

enum { PAGE_RUNS_MAX = 256, PAGE_NAME_MAX = 96, PAGE_PATH_MAX = 1000, PAGE_METHODS_MAX = 64 };

typedef struct page_run {
  char path[PAGE_PATH_MAX]; /* as it was given */
  char name[PAGE_NAME_MAX]; /* its last part */
  history history;
  settings settings; /* of the config.yaml beside its metrics.jsonl; none: there is none */
  int group;
} page_run;

/* Runs that differ in their seed alone; one without settings is a group by itself. */
typedef struct page_group {
  char label[PAGE_NAME_MAX]; /* the method, and what tells it from other groups of this method */
  chart_style style;
  int n_runs, first; /* index of its first run */
} page_group;

typedef struct page_data {
  page_run *run; /* (PAGE_RUNS_MAX) */
  page_group *group;
  int n_runs, n_groups;
  scaling scaling;
  char method[PAGE_METHODS_MAX][SCALING_TEXT_MAX]; /* in the order in which they come: their colours */
  int n_methods;
} page_data;

/* Adds a run folder, its metrics.jsonl, or a file of scaling lines. OPTION, IO, DATA, MEMORY: one sentence. */
curvd_status page_data_add(page_data *d, const char *path, cv_error *err);

/* The same of a file's bytes that were read already. is_run: from the run folder `path`. */
curvd_status page_data_take(page_data *d, const char *path, const char *file, bool is_run, const char *bytes, int64_t n,
                            cv_error *err);

/* When all is there: groups, labels and colours, points. MEMORY. */
curvd_status page_data_arrange(page_data *d, cv_error *err);
void page_data_free(page_data *d);

/* Colour and dash of scaling lines of a method: those of its runs. */
chart_style page_method_style(const page_data *d, const char *method);

/* Of a group: the median over its runs of a number of their records "end"; NaN where none has it. value(end, user). */
double page_group_median(const page_data *d, int group, double (*value)(const page_run *run, const void *user),
                         const void *user);

/* The run after this one of the group (start with -1); -1: no more. */
int page_next_run(const page_data *d, int group, int run);

#endif

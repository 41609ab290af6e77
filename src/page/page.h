/* One HTML page of runs and scaling lines: a section for each figure, nothing from outside, well-formed XML. */
#ifndef PAGE_H
#define PAGE_H

#include "page/page_data.h"

/* The whole page. MEMORY. */
curvd_status page_write(const page_data *d, markup *m, cv_error *err);

#endif

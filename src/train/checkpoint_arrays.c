#include "train/checkpoint_arrays.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* n_rows * n_columns numbers, row-major; zeros above the diagonal of a triangle. *data: free. */
static curvd_status read_whole(const checkpoint *cp, const checkpoint_array *a, void **data, cv_error *err) {
  int64_t size = curvd_dtype_bytes(a->dtype);
  bool is_possible = a->n_columns == 0 || a->n_rows <= INT64_MAX / size / a->n_columns;
  *data = is_possible ? calloc((size_t)(a->n_rows * a->n_columns) + 1, (size_t)size) : NULL;
  if (*data == NULL)
    return cv_fail(err, CURVD_ERR_MEMORY, "no memory for array %.160s (%lld, %lld)", a->name, (long long)a->n_rows,
                   (long long)a->n_columns);
  curvd_array whole = {.name = a->name,
                       .dtype = a->dtype,
                       .is_triangle = a->is_triangle,
                       .n_rows = a->n_rows,
                       .n_columns = a->n_columns,
                       .rows = a->n_rows,
                       .row_stride = a->n_columns,
                       .column_stride = 1,
                       .data = *data};
  curvd_status status = checkpoint_read(cp, &whole, err);
  if (status == CURVD_OK) return CURVD_OK;
  free(*data);
  *data = NULL;
  return status;
}

static double number(const void *data, curvd_dtype dtype, int64_t i) {
  return dtype == CURVD_F64 ? ((const double *)data)[i] : (double)((const float *)data)[i];
}

/* ---- diff ---- */

typedef struct difference {
  int64_t n; /* numbers that are not the same in bits */
  double absolute, relative;
} difference;

static difference compare(const void *x, const void *y, curvd_dtype dtype, int64_t count) {
  difference d = {0, 0, 0};
  size_t size = (size_t)curvd_dtype_bytes(dtype);
  for (int64_t i = 0; i < count && x && y; i++) {
    if (memcmp((const char *)x + (size_t)i * size, (const char *)y + (size_t)i * size, size) == 0) continue;
    double a = number(x, dtype, i), b = number(y, dtype, i), larger = fmax(fabs(a), fabs(b));
    bool is_finite = isfinite(a) && isfinite(b);
    d.n++;
    d.absolute = fmax(d.absolute, is_finite ? fabs(a - b) : INFINITY);
    d.relative = fmax(d.relative, !is_finite ? INFINITY : larger > 0 ? fabs(a - b) / larger : 0);
  }
  return d;
}

static void print_kind(const checkpoint_array *a) {
  printf("%s %s(%lld, %lld)", a->dtype == CURVD_F64 ? "F64" : "F32", a->is_triangle ? "triangle " : "",
         (long long)a->n_rows, (long long)a->n_columns);
}

static bool is_same_kind(const checkpoint_array *a, const checkpoint_array *b) {
  return a->dtype == b->dtype && a->is_triangle == b->is_triangle && a->n_rows == b->n_rows &&
         a->n_columns == b->n_columns;
}

static curvd_status compare_numbers(const checkpoint *x, const checkpoint *y, const checkpoint_array *a, bool *is_equal,
                                    cv_error *err) {
  void *of_x = NULL, *of_y = NULL;
  curvd_status status = read_whole(x, a, &of_x, err);
  if (status == CURVD_OK) status = read_whole(y, a, &of_y, err);
  if (status == CURVD_OK) {
    difference d = compare(of_x, of_y, a->dtype, a->n_rows * a->n_columns);
    *is_equal = d.n == 0;
    if (d.n > 0)
      printf("%s: %lld numbers differ, by at most %.3g, relative %.3g\n", a->name, (long long)d.n, d.absolute,
             d.relative);
  }
  free(of_x);
  free(of_y);
  return status;
}

static curvd_status compare_array(const checkpoint *x, const checkpoint *y, const checkpoint_array *a, bool *is_equal,
                                  cv_error *err) {
  checkpoint_array b;
  *is_equal = false;
  if (!checkpoint_find(y, a->name, &b)) {
    printf("%s: only in the first\n", a->name);
    return CURVD_OK;
  }
  if (is_same_kind(a, &b)) return compare_numbers(x, y, a, is_equal, err);
  printf("%s: ", a->name);
  print_kind(a);
  printf(" in the first, ");
  print_kind(&b);
  printf(" in the second\n");
  return CURVD_OK;
}

curvd_status checkpoint_diff(const checkpoint *x, const checkpoint *y, bool *is_equal, cv_error *err) {
  int64_t n_equal = 0, n_other = 0, n = checkpoint_count(x);
  checkpoint_array found;
  for (int64_t i = 0; i < n; i++) {
    checkpoint_array a = checkpoint_at(x, i);
    bool is_this_equal = false;
    CV_TRY(compare_array(x, y, &a, &is_this_equal, err));
    n_equal += is_this_equal;
  }
  for (int64_t i = 0; i < checkpoint_count(y); i++) {
    if (checkpoint_find(x, checkpoint_at(y, i).name, &found)) continue;
    printf("%s: only in the second\n", checkpoint_at(y, i).name);
    n_other++;
  }
  printf("%lld of %lld arrays are equal in bits\n", (long long)n_equal, (long long)(n + n_other));
  *is_equal = n_equal == n + n_other;
  return CURVD_OK;
}

/* ---- export ---- */

static void mirror(char *data, int64_t n, int64_t size) {
  for (int64_t i = 0; i < n && data; i++)
    for (int64_t j = 0; j < i; j++) memcpy(data + (j * n + i) * size, data + (i * n + j) * size, (size_t)size);
}

/* Letters, digits, '-', '_' and '.' that is not the first; everything else becomes '_'. */
static void file_name(const char *name, char safe[CURVD_ARRAY_NAME_MAX + 64]) {
  static const char kept[] =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."; /* isalnum asks the locale */
  snprintf(safe, CURVD_ARRAY_NAME_MAX + 64, "%.200s", name);
  for (char *c = safe; *c != '\0'; c++)
    if (strchr(kept, *c) == NULL || (*c == '.' && c == safe)) *c = '_';
}

/* Version 1 of npy; the numbers begin at byte 128. */
static bool write_npy(FILE *file, const checkpoint_array *a, const void *data) {
  enum { HEADER = 128, FRONT = 10 };
  char header[HEADER + 1];
  snprintf(header, sizeof header, "\x93NUMPY%c%c%c%c{'descr': '<f%d', 'fortran_order': False, 'shape': (%lld, %lld), }",
           1, 0, 0, 0, (int)curvd_dtype_bytes(a->dtype), (long long)a->n_rows, (long long)a->n_columns);
  size_t text = strlen(header + FRONT), count = (size_t)(a->n_rows * a->n_columns);
  memset(header + FRONT + text, ' ', HEADER - FRONT - text);
  header[HEADER - 1] = '\n';
  header[8] = HEADER - FRONT;
  return fwrite(header, 1, HEADER, file) == HEADER &&
         fwrite(data, (size_t)curvd_dtype_bytes(a->dtype), count, file) == count;
}

static curvd_status write_array(const checkpoint_array *a, const void *data, const char *folder, cv_error *err) {
  char path[1000], name[CURVD_ARRAY_NAME_MAX + 64];
  file_name(a->name, name);
  if (snprintf(path, sizeof path, "%s/%s.npy", folder, name) >= (int)sizeof path)
    return cv_fail(err, CURVD_ERR_IO, "the path of folder %.200s is too long", folder);
  FILE *file = fopen(path, "wx");
  if (file == NULL) return cv_fail(err, CURVD_ERR_IO, "%.400s cannot be made: %s", path, strerror(errno));
  bool is_written = write_npy(file, a, data);
  if (fclose(file) == 0 && is_written) return CURVD_OK;
  cv_fail(err, CURVD_ERR_IO, "%.400s cannot be written: %s", path, strerror(errno));
  unlink(path);
  return CURVD_ERR_IO;
}

curvd_status checkpoint_export(const checkpoint *cp, const char *folder, cv_error *err) {
  if (mkdir(folder, 0777) != 0 && errno != EEXIST)
    return cv_fail(err, CURVD_ERR_IO, "folder %.300s cannot be made: %s", folder, strerror(errno));
  for (int64_t i = 0; i < checkpoint_count(cp); i++) {
    checkpoint_array a = checkpoint_at(cp, i);
    void *data = NULL;
    CV_TRY(read_whole(cp, &a, &data, err));
    if (a.is_triangle) mirror(data, a.n_rows, curvd_dtype_bytes(a.dtype));
    curvd_status status = write_array(&a, data, folder, err);
    free(data);
    if (status != CURVD_OK) return status;
  }
  printf("%lld arrays in %s\n", (long long)checkpoint_count(cp), folder);
  return CURVD_OK;
}

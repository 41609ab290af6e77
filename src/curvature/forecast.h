/* From a run's shape as the caller gives it (curvd_experimental.h) to a case of predict.h, by the service's own rules.
 */
#ifndef CV_CURVATURE_FORECAST_H
#define CV_CURVATURE_FORECAST_H

#include "curvature/settings.h"
#include "plan/predict.h"

#include "curvd_experimental.h"

typedef struct cv_forecast {
  cv_memory memory;
  cv_settings_book book;
  cv_plan_machine machine;
  cv_plan_layer *layer; /* [n_layers] */
  cv_predict_case given;
} cv_forecast;

/* In given->run, rows and seconds are those of all workers together, as cv_tune takes them. On error *out is empty. */
curvd_status cv_forecast_make(const curvd_run_shape *shape, cv_forecast *out, cv_error *err);
void cv_forecast_free(cv_forecast *f);

/* Is something predicted only roughly? See curvd_experimental.h. */
bool cv_forecast_is_rough(const cv_settings *s);

/* Copies the sentence to the caller's room, if there is any. */
curvd_status cv_forecast_fail(const cv_error *err, curvd_status status, char *message, size_t size);

#endif

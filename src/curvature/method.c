#include "curvature/method.h"

const cv_method *cv_method_find(cv_method_kind kind, curvd_layer_kind layer) {
  if (kind == CV_METHOD_NONE) return NULL;
  return layer == CURVD_LAYER_NORM ? &cv_method_unit : &cv_method_kfac;
}

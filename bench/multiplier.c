#include "multiplier.h"

#include <stddef.h>

const char *const multiplier_precisions[MULTIPLIERS] = {"fp32", "bf16", "bf16x3"};

curvd_status multiplier_open(cv_precision precision, const char *unit, cv_memory *memory, cv_multiplier *by,
                             cv_error *err) {
  void *room = NULL;
  *by = (cv_multiplier){.precision = precision};
  if (precision == CV_FP32) return CURVD_OK;
  CV_TRY(cv_unit_find(unit, &by->unit, err));
  CV_TRY(cv_memory_new(memory, CV_MEMORY_WORKSPACE, cv_multiplier_room(precision), sizeof *by->room, "rounded matrices",
                       &room, err));
  by->room = room;
  return CURVD_OK;
}

void multiplier_close(cv_memory *memory, cv_multiplier *by) {
  void *room = by->room;
  cv_memory_free(memory, &room);
  by->room = NULL;
}

const char *multiplier_unit(const cv_multiplier *by) {
  return by->unit ? by->unit->name : "";
}

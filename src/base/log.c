#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

void cv_log_line(const cv_log *log, cv_log_level level, const char *format, ...) {
  if (log == NULL || log->write == NULL || (int)level > log->level) return;
  char line[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  log->write(log->user, (int)level, line);
}

/* Lines for the embedder: silent unless a function is set. */
#ifndef CV_BASE_LOG_H
#define CV_BASE_LOG_H

typedef enum cv_log_level { CV_LOG_WARNING = 1, CV_LOG_NOTE = 2, CV_LOG_DEBUG = 3 } cv_log_level;

typedef struct cv_log {
  void (*write)(void *user, int level, const char *line); /* NULL: silent; line has no newline */
  void *user;
  int level; /* lines above this level are dropped */
} cv_log;

void cv_log_line(const cv_log *log, cv_log_level level, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif

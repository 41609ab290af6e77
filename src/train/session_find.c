/* Which checkpoints a run goes on from, by option resume. */
#include "train/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { PATH_BYTES = CV_OPTION_TEXT_MAX };

static bool is_file(const char *folder, const char *name) {
  char path[PATH_BYTES + 64];
  struct stat about;
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return stat(path, &about) == 0 && S_ISREG(about.st_mode);
}

/* "a/b/c/" -> "a/b"; "c" -> "." */
static void cut_last(char *path) {
  size_t n = strlen(path);
  while (n > 1 && path[n - 1] == '/') path[--n] = '\0';
  char *slash = strrchr(path, '/');
  if (!slash) {
    snprintf(path, PATH_BYTES, ".");
  } else {
    slash[slash == path] = '\0';
  }
}

static int64_t count(const char *folder, cv_error *err) {
  int64_t step, n = 0;
  return checkpoint_list(folder, 1, &step, &n, err) == CURVD_OK ? n : 0;
}

/* One checkpoint: its step, and the folders around it. */
static curvd_status find_one(session *s, const char *path, char *run_folder, cv_error *err) {
  checkpoint *cp = NULL;
  CV_TRY(checkpoint_open(path, &cp, err));
  s->resume_step = checkpoint_step(cp);
  checkpoint_close(&cp);
  snprintf(s->resume_from, sizeof s->resume_from, "%s", path);
  cut_last(s->resume_from);
  snprintf(run_folder, PATH_BYTES, "%s", s->resume_from);
  cut_last(run_folder);
  return CURVD_OK;
}

static curvd_status find_folder(session *s, const char *path, char *run_folder, cv_error *err) {
  if (strlen(path) > PATH_BYTES - 64) return cv_fail(err, CURVD_ERR_OPTION, "resume: the path is too long");
  if (is_file(path, "manifest.json")) return find_one(s, path, run_folder, err);
  snprintf(run_folder, PATH_BYTES, "%s", path);
  snprintf(s->resume_from, sizeof s->resume_from, "%.440s/checkpoints", path);
  if (count(s->resume_from, err) > 0 || err->code != CURVD_OK) return err->code;
  return cv_fail(err, CURVD_ERR_IO, "resume: %s holds no checkpoint; give a run folder, or --resume no", path);
}

static curvd_status find_auto(session *s, cv_error *err) {
  const char *run_dir = s->trainer->config->values.run_dir;
  if (strcmp(run_dir, "auto") == 0)
    return cv_fail(err, CURVD_ERR_OPTION, "resume auto goes on in the run folder: name it with --run-dir");
  s->goes_on = true;
  snprintf(s->resume_from, sizeof s->resume_from, "%.440s/checkpoints", run_dir);
  if (count(s->resume_from, err) == 0) s->resume_from[0] = '\0';
  return err->code;
}

static curvd_status find(session *s, cv_error *err) {
  train_config *v = &s->trainer->config->values;
  char run_folder[PATH_BYTES];
  if (strcmp(v->resume, "no") == 0) return CURVD_OK;
  if (strcmp(v->resume, "auto") == 0) return find_auto(s, err);
  CV_TRY(find_folder(s, v->resume, run_folder, err));
  if (strcmp(v->run_dir, "auto") == 0) memcpy(v->run_dir, run_folder, sizeof v->run_dir);
  struct stat a, b;
  s->goes_on = stat(v->run_dir, &a) == 0 && stat(run_folder, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
  return CURVD_OK;
}

curvd_status session_find(session *s, trainer *t, double begin_s, cv_error *err) {
  *s = (session){.trainer = t, .begin_s = begin_s, .resume_step = -1};
  CV_TRY(inject_parse(t->config->values.inject, &s->inject, err)); /* the same text everywhere */
  curvd_status status = trainer_agree(t->world, t->rank == 0 ? find(s, err) : CURVD_OK, err);
  MPI_Bcast(s->resume_from, (int)sizeof s->resume_from, MPI_CHAR, 0, t->world);
  MPI_Bcast(&s->resume_step, 1, MPI_INT64_T, 0, t->world);
  return status;
}

/* Folders of checkpoints: "step-000000100" is whole, whatever stands behind that name (".tmp", ".trash", ".old") is
 * not, and no reader looks at it. Folders are open descriptors, so that nobody can swap them on the way. */
#ifndef SAVE_FOLDER_H
#define SAVE_FOLDER_H

#include "base/status.h"
#include "save/file.h"

#include <stdbool.h>
#include <stdint.h>

enum { FOLDER_NAME_MAX = 40 };

/* "step-000000100" and a suffix of at most 6 bytes. */
void folder_name(int64_t step, const char *suffix, char name[FOLDER_NAME_MAX]);

/* Opens the folder of that path. IO. */
curvd_status folder_open(const char *path, int *fd, cv_error *err);

/* Steps of the folders named step-N, newest first. needs_manifest: only those with a manifest in them. step: free. */
curvd_status folder_steps(int parent, bool needs_manifest, int64_t **step, int64_t *n, cv_error *err);

/* Removes a folder with the files in it, which may be missing. A folder within is left, and so is this one then. */
void folder_remove(int parent, const char *name);

/* Removes a checkpoint, which from the first moment on is none. */
void folder_trash(int parent, int64_t step);

/* A checkpoint is none any more, but stays: step-N.aside, or with a number behind it. IO. */
curvd_status folder_set_aside(int parent, int64_t step, cv_error *err);

/* What a process that was killed has left: *.tmp and *.trash go; a checkpoint that was to be replaced comes back. */
void folder_tidy(int parent);

/* step-N.tmp becomes step-N, and what was step-N before becomes step-N.tmp: at once where the system can exchange names
 * (and is_at_once); else a process killed within leaves step-N.old, which folder_tidy brings back. IO: as before. */
curvd_status folder_publish(int parent, int64_t step, bool is_at_once, cv_error *err);

/* Undoes it. */
void folder_withdraw(int parent, int64_t step, bool is_at_once);

#endif

/* One file of a checkpoint: read as what a stranger may have put there, written so that it is there whole or not. */
#ifndef SAVE_FILE_H
#define SAVE_FILE_H

#include "base/status.h"
#include "save/saver.h"

#include <stdint.h>

enum {
  FILE_PLACE_MAX = 120,
  FILE_BLOCK = 4096, /* bytes; what begins at a multiple, in memory and in the file, is written without a copy */
};

typedef struct save_file {
  int fd; /* -1: closed */
  int64_t bytes;
  char place[FILE_PLACE_MAX]; /* "step-000000100/shard-00000.safetensors", for sentences */
} save_file;

/* "step-000000100/name" */
void file_place(const char *folder_name, const char *name, char place[FILE_PLACE_MAX]);

/* Opens a regular file of that folder; links are not followed, and nothing is waited for. IO; DATA: no regular file. */
curvd_status file_open(int folder, const char *folder_name, const char *name, save_file *file, cv_error *err);
void file_close(save_file *file);

/* n bytes from there. IO; DATA: the file ends before. */
curvd_status file_read(const save_file *file, int64_t at, void *bytes, int64_t n, cv_error *err);

typedef struct file_piece {
  const void *bytes;
  int64_t n;
} file_piece;

/* What is asked before a write and an fsync; faults NULL: nothing. */
typedef struct file_watch {
  const saver_faults *faults;
  int64_t step;
} file_watch;

/* Writes NAME.part, fsyncs, renames it to NAME, fsyncs the folder. IO: no NAME.part is left. */
curvd_status file_put(int folder, const char *folder_name, const char *name, const file_piece *piece, int n_pieces,
                      file_watch watch, cv_error *err);

/* fsync of a folder. Returns an errno. */
int file_sync(int fd, file_watch watch);

#endif

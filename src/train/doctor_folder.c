#include "train/doctor_folder.h"

#include "base/clock.h"
#include "train/doctor_system.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

static const double SLOW_SYNC_S = 0.5;

/* ---- asking ---- */

static bool is_folder(const char *path) {
  struct stat about;
  return stat(path, &about) == 0 && S_ISDIR(about.st_mode);
}

/* Without its last part; "." above a single name, "/" above those of the root. */
static void go_up(char *path) {
  size_t n = strlen(path);
  while (n > 1 && path[n - 1] == '/') path[--n] = '\0';
  char *slash = strrchr(path, '/');
  if (!slash)
    snprintf(path, 2, ".");
  else
    slash[slash == path] = '\0';
}

static void find_folder(const char *run_dir, char path[DOCTOR_PATH_MAX]) {
  char at[PATH_MAX];
  snprintf(at, sizeof at, "%s", strcmp(run_dir, "auto") == 0 ? "runs" : run_dir);
  while (!is_folder(at) && strcmp(at, ".") != 0 && strcmp(at, "/") != 0) go_up(at);
  char *real = realpath(at, NULL);
  snprintf(path, DOCTOR_PATH_MAX, "%s", real ? real : at);
  free(real);
}

/* Makes a file of a name that nobody has; returns it open, or -1 with errno. */
static int make_file(const char *folder, char name[DOCTOR_PATH_MAX + 32]) {
  snprintf(name, DOCTOR_PATH_MAX + 32, "%s/.curvd-doctor-XXXXXX", folder);
  return mkstemp(name);
}

static int write_small(int fd, double *seconds) {
  static const char block[4096] = "curvd doctor";
  double begin_s = cv_wall_s();
  ssize_t put = write(fd, block, sizeof block);
  if (put != (ssize_t)sizeof block) return put < 0 ? errno : ENOSPC;
  if (fsync(fd) != 0) return errno;
  *seconds = cv_wall_s() - begin_s;
  return 0;
}

void doctor_folder_ask(const char *run_dir, doctor_folder *folder) {
  char name[DOCTOR_PATH_MAX + 32];
  struct statvfs room;
  struct statfs about;
  *folder = (doctor_folder){.free_bytes = -1};
  find_folder(run_dir, folder->path);
  if (statfs(folder->path, &about) == 0) folder->kind = (long)about.f_type;
  if (statvfs(folder->path, &room) == 0) folder->free_bytes = (int64_t)room.f_bavail * (int64_t)room.f_frsize;
  int fd = make_file(folder->path, name);
  folder->write_errno = fd < 0 ? errno : write_small(fd, &folder->sync_s);
  if (fd < 0) return;
  folder->direct_errno = doctor_write_directly(AT_FDCWD, name);
  unlink(name);
  close(fd);
}

typedef struct token {
  char name[DOCTOR_PATH_MAX + 32];
  uint64_t number;
  int32_t is_written;
} token;

static token write_token(const doctor_folder *folder) {
  token t = {.number = (uint64_t)cv_wall_ns() ^ (uint64_t)getpid() << 40};
  int fd = make_file(folder->path, t.name);
  if (fd < 0) return t;
  t.is_written = write(fd, &t.number, sizeof t.number) == (ssize_t)sizeof t.number && fsync(fd) == 0;
  close(fd);
  return t;
}

static bool finds_token(const token *t) {
  uint64_t number = 0;
  int fd = open(t->name, O_RDONLY | O_CLOEXEC);
  bool is_found = fd >= 0 && read(fd, &number, sizeof number) == (ssize_t)sizeof number && number == t->number;
  if (fd >= 0) close(fd);
  return is_found;
}

int doctor_folder_compare(MPI_Comm world, const doctor_folder *folder, bool looks) {
  int rank = 0, unseen = INT_MAX;
  token t = {.number = 0};
  MPI_Comm_rank(world, &rank);
  if (rank == 0) t = write_token(folder);
  MPI_Bcast(&t, (int)sizeof t, MPI_BYTE, 0, world);
  int mine = looks && t.is_written && !finds_token(&t) ? rank : INT_MAX;
  MPI_Allreduce(&mine, &unseen, 1, MPI_INT, MPI_MIN, world);
  if (rank == 0 && t.name[0] != '\0') unlink(t.name);
  return !t.is_written ? DOCTOR_FOLDER_UNWRITTEN : unseen == INT_MAX ? DOCTOR_FOLDER_SEEN : unseen;
}

/* ---- judging ---- */

typedef struct file_system {
  long kind; /* of statfs(2), and of the file systems' own headers */
  const char *name;
} file_system;

const char *doctor_file_system(long kind) {
  static const file_system known[] = {
      {0xEF53, "ext4"},       {0x58465342, "xfs"},    {0x9123683E, "btrfs"},   {0x2FC12FC1, "zfs"},
      {0xF2F52010, "f2fs"},   {0x01021994, "tmpfs"},  {0x858458F6, "ramfs"},   {0x794C7630, "overlay"},
      {0x6969, "nfs"},        {0x0BD00BD0, "lustre"}, {0x47504653, "gpfs"},    {0x00C36400, "ceph"},
      {0x19830326, "beegfs"}, {0x65735546, "fuse"},   {0x517B, "smb"},         {0xFF534D42, "cifs"},
      {0xFE534D42, "smb2"},   {0x01021997, "9p"},     {0x20030528, "orangefs"}};
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
    if (known[i].kind == kind) return known[i].name;
  return "of an unknown kind";
}

static bool is_one_of(const char *name, const char *x, const char *y, const char *z) {
  return strcmp(name, x) == 0 || strcmp(name, y) == 0 || strcmp(name, z) == 0;
}

/* 1, 10, 100, ...: the next above, so that hosts which are alike say the same. */
static double power_of_ten(double x) {
  double power = 1;
  while (power < x) power *= 10;
  return power;
}

void doctor_check_folder(const doctor_folder *folder, double needed, doctor_findings *to) {
  static const char name[] = "run folder";
  char has[DOCTOR_BYTES_MAX], needs[DOCTOR_BYTES_MAX];
  const char *kind = doctor_file_system(folder->kind);
  doctor_bytes((double)folder->free_bytes, has);
  doctor_bytes(needed, needs);
  if (folder->write_errno != 0)
    doctor_add(to, DOCTOR_ERROR, name, "%s (%s) cannot be written: %s; choose another place with --run-dir",
               folder->path, kind, strerror(folder->write_errno));
  else if (folder->free_bytes >= 0 && (double)folder->free_bytes < needed)
    doctor_add(to, DOCTOR_WARNING, name,
               "%s (%s) has %s left, and checkpoints take about %s; choose another place with --run-dir, or a smaller "
               "--checkpoint-keep",
               folder->path, kind, has, needs);
  else if (is_one_of(kind, "tmpfs", "ramfs", "overlay"))
    doctor_add(to, DOCTOR_WARNING, name,
               "%s is %s: checkpoints are lost with the %s; choose a file system that stays with --run-dir",
               folder->path, kind, strcmp(kind, "overlay") == 0 ? "container" : "machine's memory");
  else if (folder->sync_s > SLOW_SYNC_S)
    doctor_add(to, DOCTOR_WARNING, name,
               "%s (%s): a small file is safe after %.1f s; choose a faster place with --run-dir, or save less often "
               "(--checkpoint-minutes)",
               folder->path, kind, folder->sync_s);
  else
    doctor_add(to, DOCTOR_OK, name, "%s: %s, %s left, a small file safe within %.0f ms%s", folder->path, kind, has,
               power_of_ten(1e3 * folder->sync_s), folder->direct_errno == 0 ? ", page cache passed by" : "");
}

void doctor_check_sharing(int unseen_by, const char *host, int n_hosts, const doctor_folder *folder,
                          doctor_findings *to) {
  static const char name[] = "shared folder";
  if (unseen_by == DOCTOR_FOLDER_UNWRITTEN)
    doctor_add(to, DOCTOR_OK, name, "not tried: rank 0 cannot write there");
  else if (unseen_by >= 0)
    doctor_add(to, DOCTOR_ERROR, name,
               "%s: rank %d on %s does not see what rank 0 writes there, and every rank saves into it; choose a shared "
               "file system with --run-dir",
               folder->path, unseen_by, host);
  else
    doctor_add(to, DOCTOR_OK, name, n_hosts > 1 ? "seen by all %d hosts" : "%d host", n_hosts);
}

#include "train/doctor_machine.h"

#include "base/clock.h"
#include "base/number.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double COARSE_S = 1e-5, FINE_S = 1e-6;
static const double ROOM = 0.8; /* of memory, for the service: the program's data, network and images come beside it */

/* ---- texts ---- */

bool doctor_field(const char *text, const char *key, char *value, size_t size) {
  size_t n = strlen(key);
  value[0] = '\0';
  for (const char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
    if (strncmp(line, key, n) != 0) continue;
    const char *at = line + n + strspn(line + n, " \t");
    if (*at != ':') continue;
    at += 1 + strspn(at + 1, " \t");
    snprintf(value, size, "%.*s", (int)strcspn(at, "\n"), at);
    return true;
  }
  return false;
}

bool doctor_choice(const char *text, char *word, size_t size) {
  const char *begin = strchr(text, '[');
  word[0] = '\0';
  if (!begin || !strchr(begin, ']')) return false;
  snprintf(word, size, "%.*s", (int)strcspn(begin + 1, "]"), begin + 1);
  return true;
}

/* "4:memory:/job_7": number, controllers, path. */
static bool has_controller(const char *list, const char *controller) {
  size_t n = strlen(controller);
  if (n == 0) return *list == ':';
  for (const char *at = list; *at != ':' && *at != '\0'; at += *at == ',') {
    size_t length = strcspn(at, ",:\n");
    if (length == n && strncmp(at, controller, n) == 0) return true;
    at += length;
  }
  return false;
}

bool doctor_cgroup(const char *text, const char *controller, char *path, size_t size) {
  path[0] = '\0';
  for (const char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
    const char *list = line + strcspn(line, ":\n");
    if (*list != ':' || !has_controller(list + 1, controller)) continue;
    const char *at = list + 1 + strcspn(list + 1, ":\n");
    if (*at != ':') continue;
    snprintf(path, size, "%.*s", (int)strcspn(at + 1, "\n"), at + 1);
    return true;
  }
  return false;
}

/* Of memory.stat, lines of "key number"; 0: it does not say. */
static int64_t stat_number(const char *stat, const char *key) {
  size_t n = strlen(key);
  for (const char *line = stat; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
    if (strncmp(line, key, n) == 0 && line[n] == ' ') return strtoll(line + n, NULL, 10);
  return 0;
}

/* Files that were read or written stay in memory until somebody wants it, and count as used all the same. */
int64_t doctor_left(const char *limit, const char *used, const char *stat, const char *cached_key) {
  int64_t most = 0, now = 0, cached = stat_number(stat, cached_key);
  const int64_t NONE = INT64_MAX / 2; /* version 1 writes a large number for it */
  if (!cv_integer_parse(limit, &most) || most >= NONE) return -1;
  if (!cv_integer_parse(used, &now)) now = 0;
  if (cached > 0) now -= cached < now ? cached : now;
  return most > now ? most - now : 0;
}

/* ---- asking ---- */

static int64_t least_of(int64_t x, int64_t y) {
  if (x < 0 || y < 0) return x < 0 ? y : x;
  return x < y ? x : y;
}

/* Where the system tells of one version of control groups: names of files, and of a line of memory.stat. */
typedef struct group_files {
  const char *mount, *limit, *used, *cached_key;
} group_files;

static void read_of_group(const char *mount, const char *path, const char *file, char *text, size_t size) {
  char name[DOCTOR_PATH_MAX * 2];
  snprintf(name, sizeof name, "%s%s/%s", mount, path, file);
  doctor_read(name, text, size);
}

/* Of a group and all that hold it: path ends as the mount point alone. */
static int64_t left_in_groups(const group_files *files, char *path) {
  char most[64], now[64], stat[8192];
  int64_t left = -1;
  for (bool is_root = false; !is_root;) {
    is_root = path[0] == '\0';
    read_of_group(files->mount, path, files->limit, most, sizeof most);
    read_of_group(files->mount, path, files->used, now, sizeof now);
    read_of_group(files->mount, path, "memory.stat", stat, sizeof stat);
    left = least_of(left, doctor_left(most, now, stat, files->cached_key));
    char *slash = strrchr(path, '/');
    path[slash ? slash - path : 0] = '\0';
  }
  return left;
}

int64_t doctor_memory_free(void) {
  static const group_files first = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
                                    "total_inactive_file"},
                           second = {"/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"};
  char text[8192], value[64], path[DOCTOR_PATH_MAX];
  int64_t left = -1;
  doctor_read("/proc/meminfo", text, sizeof text);
  if (doctor_field(text, "MemAvailable", value, sizeof value)) left = 1024 * (int64_t)strtoll(value, NULL, 10);
  doctor_read("/proc/self/cgroup", text, sizeof text);
  if (doctor_cgroup(text, "memory", path, sizeof path)) left = least_of(left, left_in_groups(&first, path));
  if (doctor_cgroup(text, "", path, sizeof path)) left = least_of(left, left_in_groups(&second, path));
  return left;
}

static double smallest_step(void) {
  enum { TRIES = 1000 };
  double least = INFINITY;
  for (int i = 0; i < TRIES; i++) {
    int64_t begin = cv_wall_ns(), end = begin;
    while (end == begin) end = cv_wall_ns();
    least = fmin(least, 1e-9 * (double)(end - begin));
  }
  return least;
}

void doctor_processor_ask(doctor_processor *p) {
  char text[8192];
  *p = (doctor_processor){.clock_step_s = smallest_step()};
  doctor_read("/proc/cpuinfo", text, sizeof text);
  doctor_field(text, "model name", p->model, sizeof p->model);
  doctor_read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", p->governor, sizeof p->governor);
  doctor_read("/sys/kernel/mm/transparent_hugepage/enabled", text, sizeof text);
  doctor_choice(text, p->huge_pages, sizeof p->huge_pages);
  doctor_read("/sys/devices/system/clocksource/clocksource0/current_clocksource", p->clock_source,
              sizeof p->clock_source);
}

/* ---- judging ---- */

static const char *or_unknown(const char *text) {
  return text[0] != '\0' ? text : "unknown";
}

void doctor_check_processor(const doctor_processor *p, doctor_findings *to) {
  doctor_add(to, DOCTOR_OK, "processor", "%s; frequency governor %s, huge pages %s", or_unknown(p->model),
             or_unknown(p->governor), or_unknown(p->huge_pages));
}

void doctor_check_clock(const doctor_processor *p, doctor_findings *to) {
  if (p->clock_step_s > COARSE_S)
    doctor_add(to, DOCTOR_WARNING, "clock",
               "%s, steps of %.0f us: too coarse for times of stages; let the system take another clock source (boot "
               "with clocksource=tsc)",
               or_unknown(p->clock_source), 1e6 * p->clock_step_s);
  else
    doctor_add(to, DOCTOR_OK, "clock", "%s, steps below %d us", or_unknown(p->clock_source),
               p->clock_step_s < FINE_S ? 1 : 10);
}

typedef struct host_memory {
  double needed, left; /* left < 0: unknown */
} host_memory;

static host_memory memory_of(const doctor_rank *rank, int n, int host) {
  host_memory m = {.left = -1};
  for (int r = 0; r < n; r++) {
    if (strcmp(rank[r].host, rank[host].host) != 0) continue;
    m.needed += (double)rank[r].plan_bytes;
    m.left = (double)least_of((int64_t)m.left, rank[r].free_bytes);
  }
  return m;
}

/* The host where it is tightest. */
static int tightest(const doctor_rank *rank, int n) {
  int at = 0;
  double share = -1;
  for (int r = 0; r < n; r++) {
    host_memory m = memory_of(rank, n, r);
    double mine = m.left > 0 ? m.needed / m.left : m.left == 0 ? INFINITY : -1;
    if (mine > share) share = mine, at = r;
  }
  return at;
}

void doctor_check_memory(const doctor_rank *rank, int n, doctor_findings *to) {
  char needs[DOCTOR_BYTES_MAX], has[DOCTOR_BYTES_MAX];
  int at = tightest(rank, n);
  host_memory m = memory_of(rank, n, at);
  doctor_bytes(m.needed, needs);
  doctor_bytes(fmax(m.left, 0), has);
  static const char cure[] = "ask the job for more, put fewer ranks on a host, or lower eig_rank or the layers' widths "
                             "(curvd plan tells what each rank takes)";
  if (m.needed == 0)
    doctor_add(to, DOCTOR_OK, "memory", "%s free on %s; without a plan nobody knows what it takes", has, rank[at].host);
  else if (m.left < 0)
    doctor_add(to, DOCTOR_OK, "memory", "the service takes %s on %s; the system does not tell what is free", needs,
               rank[at].host);
  else if (m.needed > ROOM * m.left)
    doctor_add(to, m.needed > m.left ? DOCTOR_ERROR : DOCTOR_WARNING, "memory",
               "the service takes %s of %s that are free on %s, without data and network; %s", needs, has,
               rank[at].host, cure);
  else
    doctor_add(to, DOCTOR_OK, "memory", "the service takes %s of %s that are free on %s", needs, has, rank[at].host);
}

/* The host that a rank is on: processor, clock, memory. */
#ifndef TRAIN_DOCTOR_MACHINE_H
#define TRAIN_DOCTOR_MACHINE_H

#include "train/doctor_ranks.h"

/* "": the system does not tell. */
typedef struct doctor_processor {
  char model[128], governor[32], huge_pages[32], clock_source[32];
  double clock_step_s; /* smallest difference of two readings */
} doctor_processor;

void doctor_processor_ask(doctor_processor *p);

/* Parts of asking that are functions of text. */

/* The value of a line "key : value" of /proc/cpuinfo or /proc/meminfo; false: there is none. */
bool doctor_field(const char *text, const char *key, char *value, size_t size);

/* The word in brackets of "always [madvise] never". */
bool doctor_choice(const char *text, char *word, size_t size);

/* The path of this process in a hierarchy of /proc/self/cgroup: "memory" of version 1, "" of version 2. */
bool doctor_cgroup(const char *text, const char *controller, char *path, size_t size);

/* Of limits and use in bytes, text as the system has it ("max": none), less the cached files that it would give up,
 * which memory.stat tells behind that key. -1: no limit. */
int64_t doctor_left(const char *limit, const char *used, const char *stat, const char *cached_key);

/* Bytes of memory that this process and its neighbours may still take: of the host, or of the job's control group where
 * that is less. -1: unknown. */
int64_t doctor_memory_free(void);

/* Each adds one line. */
void doctor_check_processor(const doctor_processor *p, doctor_findings *to);
void doctor_check_clock(const doctor_processor *p, doctor_findings *to);
void doctor_check_memory(const doctor_rank *rank, int n, doctor_findings *to);

#endif

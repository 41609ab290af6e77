/* The command line: one function per command, and what the program returns to the shell. */
#ifndef TRAIN_COMMANDS_H
#define TRAIN_COMMANDS_H

#include "base/status.h"
#include "train/config.h"
#include "train/launcher.h"

#include <stdio.h>

/* X(name, code, text) */
#define EXIT_CODE_LIST(X)                                                                                              \
  X(EXIT_CODE_OK, 0, "done")                                                                                           \
  X(EXIT_CODE_INTERNAL, 1, "internal error")                                                                           \
  X(EXIT_CODE_USAGE, 2, "wrong usage or configuration")                                                                \
  X(EXIT_CODE_DATA, 3, "unusable data or file")                                                                        \
  X(EXIT_CODE_LAYOUT, 4, "impossible split of the ranks")                                                              \
  X(EXIT_CODE_NUMERIC, 5, "numbers that are not finite")                                                               \
  X(EXIT_CODE_MEMORY, 6, "out of memory")                                                                              \
  X(EXIT_CODE_MPI, 7, "MPI failed: a peer or the network was lost")                                                    \
  X(EXIT_CODE_HANG, 8, "a rank stood still longer than hang_timeout")                                                  \
  X(EXIT_CODE_DAMAGE, 9, "numbers changed in memory or on their way")                                                  \
  X(EXIT_CODE_DIFFERENT, 10, "two checkpoints differ")                                                                 \
  X(EXIT_CODE_UNFIT, 11, "`doctor` has found errors")                                                                  \
  X(EXIT_CODE_PREEMPTED, 85, "told to stop, and saved: start it again with --resume")

#define EXIT_CODE_ENUM(name, code, text) name = code,
typedef enum exit_code { EXIT_CODE_LIST(EXIT_CODE_ENUM) } exit_code;
#undef EXIT_CODE_ENUM

int exit_code_of(curvd_status status);

/* Writes "curvd: <sentence>" to stderr; returns the exit code of the error. */
int command_failed(const cv_error *err);

/* The whole program: finds the command, answers --help and --version. */
int commands_run(int argc, char **argv);

/* A command of all ranks: starts MPI, loads the configuration, runs, ends MPI; rank 0 tells what failed. *code: what it
 * returns when nothing did, 0 unless run says otherwise. LAYOUT when MPI has fewer ranks than what started it promised;
 * ..._any_mpi leaves that to run. */
typedef curvd_status command_of_ranks(config *c, int *code, cv_error *err);
int command_under_mpi(int argc, char **argv, command_of_ranks *run);
int command_under_any_mpi(int argc, char **argv, command_of_ranks *run);

/* Before MPI starts: LAYOUT when it could not, and would end the process with words that nobody understands. */
curvd_status command_can_start(const launcher *l, cv_error *err);

/* Commands: argv are the words after the command; they return an exit code. */
int cmd_train(int argc, char **argv);   /* under MPI */
int cmd_plan(int argc, char **argv);    /* under MPI: owners and memory of a run, without making it; or predicts one */
int cmd_tune(int argc, char **argv);    /* measures, and names the best split of the ranks; MPI only under mpirun */
int cmd_doctor(int argc, char **argv);  /* under MPI: what is wrong with machine, launcher and libraries */
int cmd_options(int argc, char **argv); /* lists options, or with --origins the values in force */
int cmd_check(int argc, char **argv);   /* checks a configuration without MPI and data */
int cmd_checkpoint(int argc, char **argv); /* lists, verifies, compares and exports checkpoints without MPI */

/* Writes every option with type, default, range and meaning, for help. */
curvd_status options_print(FILE *out, cv_error *err);

#endif

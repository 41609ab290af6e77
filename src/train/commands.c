#include "train/commands.h"

#include "base/options.h"
#include "curvd.h"

#include <stdbool.h>
#include <string.h>

typedef struct command {
  const char *name, *usage, *text;
  int (*run)(int argc, char **argv);
  bool lists_options; /* in its help */
} command;

static const command commands[] = {
    {"train", "curvd train [--config FILE] [--name value ...]",
     "Trains a network. Under mpirun every rank runs the same command; without, there is one rank.", cmd_train, true},
    {"plan", "curvd plan [--ranks N [--json]] [--config FILE] [--name value ...]",
     "Tells owners, and the service's memory on a rank, without taking it and without data.\n"
     "      With --ranks N (up to 4096, no MPI): predicts seconds, traffic, memory and ages.",
     cmd_plan, false},
    {"tune", "curvd tune [--ranks N] [--age-max STEPS] [--json] [--config FILE] [--name value ...]",
     "Measures this machine for some seconds, and names the number of curvature ranks and the\n"
     "      intervals with the shortest step, of preconditioners at most STEPS (20) old. Under\n"
     "      mpirun transfers are measured, too.",
     cmd_tune, false},
    {"doctor", "curvd doctor [--json] [--config FILE] [--name value ...]",
     "Tells what is wrong, or slow, with launcher, cores, libraries, network, run folder and memory,\n"
     "      and the cure, in two seconds. Start it as the run: under mpirun or srun, on the same hosts.",
     cmd_doctor, false},
    {"options", "curvd options [--origins [--config FILE] [--name value ...]]",
     "Lists every option; with --origins the value of each one and where it comes from.", cmd_options, false},
    {"check", "curvd check --config FILE [--name value ...]",
     "Checks a configuration in a moment: no MPI, no data, nothing written.", cmd_check, false},
    {"checkpoint", "curvd checkpoint list|verify|diff|export FOLDER ...",
     "What checkpoints hold, and whether they are whole; no MPI.\n"
     "      list FOLDER                 checkpoints of a run's folder: step, size, age, ranks, state\n"
     "      verify FOLDER               reads every byte of a checkpoint, or of all of a run\n"
     "      diff CHECKPOINT CHECKPOINT  the largest difference of each array; code 0: the same bits\n"
     "      export CHECKPOINT FOLDER    writes every array to FOLDER/NAME.npy",
     cmd_checkpoint, false},
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static void exit_codes_print(void) {
  printf("\nExit codes\n");
#define EXIT_CODE_PRINT(name, code, text) printf("  %d  %s\n", code, text);
  EXIT_CODE_LIST(EXIT_CODE_PRINT)
#undef EXIT_CODE_PRINT
}

static void help_print(void) {
  printf("curvd: second-order training of neural networks on MPI, with ranks that serve curvature\n\n"
         "Commands\n");
  for (int i = 0; i < N_COMMANDS; i++) printf("  %s\n      %s\n", commands[i].usage, commands[i].text);
  printf("  curvd --version\n  curvd COMMAND --help\n\n"
         "Options come from defaults < file < environment < command line:\n"
         "  file          lr_decay: cosine\n"
         "  environment   CURVD_LR_DECAY=cosine\n"
         "  command line  --lr-decay cosine  or  --lr-decay=cosine;  a switch: --name, --no-name\n"
         "CURVD_DATA_DIR=FOLDER says where the data sets lie.\n\n"
         "Example\n"
         "  mpirun -n 3 curvd train --network 784-1000-1000-10 --epochs 3 --curvature-ranks 1\n");
  exit_codes_print();
}

static int command_help(const command *shown) {
  cv_error err = {.code = CURVD_OK};
  printf("%s\n\n%s\n", shown->usage, shown->text);
  if (shown->lists_options) {
    printf("\n");
    if (options_print(stdout, &err) != CURVD_OK) return command_failed(&err);
  }
  exit_codes_print();
  return EXIT_CODE_OK;
}

static bool is_help(const char *word) {
  return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

static int unknown_command(const char *word) {
  const char *names[N_COMMANDS];
  cv_error err = {.code = CURVD_OK};
  for (int i = 0; i < N_COMMANDS; i++) names[i] = commands[i].name;
  const char *near = cv_nearest_name(word, names, N_COMMANDS);
  if (near != NULL)
    cv_fail(&err, CURVD_ERR_OPTION, "unknown command '%.60s'; did you mean '%s'?", word, near);
  else
    cv_fail(&err, CURVD_ERR_OPTION, "unknown command '%.60s'; `curvd --help` lists the commands", word);
  return command_failed(&err);
}

static int command_run(const command *found, int argc, char **argv) {
  for (int i = 0; i < argc; i++)
    if (is_help(argv[i])) return command_help(found);
  return found->run(argc, argv);
}

static int dispatch(int argc, char **argv) {
  if (argc < 2) {
    cv_error err = {.code = CURVD_OK};
    cv_fail(&err, CURVD_ERR_OPTION, "a command is missing; `curvd --help` lists the commands");
    return command_failed(&err);
  }
  for (int i = 0; i < N_COMMANDS; i++)
    if (strcmp(argv[1], commands[i].name) == 0) return command_run(&commands[i], argc - 2, argv + 2);
  if (is_help(argv[1])) {
    help_print();
    return EXIT_CODE_OK;
  }
  if (strcmp(argv[1], "--version") == 0) {
    printf("%s\n", curvd_build_info());
    return EXIT_CODE_OK;
  }
  return unknown_command(argv[1]);
}

int commands_run(int argc, char **argv) {
  int code = dispatch(argc, argv);
  if (fflush(stdout) == 0 || code != EXIT_CODE_OK) return code;
  cv_error err = {.code = CURVD_OK};
  cv_fail(&err, CURVD_ERR_IO, "the output cannot be written; is the disk full or the pipe closed?");
  return command_failed(&err);
}

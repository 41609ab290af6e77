/* Runs every seed and every former finding through its harness, by any compiler: fuzz_corpus FOLDER. A seed that kills
 * the program is named on the line before. */
#include "fuzz.h"

#include <dirent.h>

enum { SEED_MAX = 1 << 20, PATH_BYTES = 4096 };

static const struct {
  const char *name;
  void (*run)(const uint8_t *bytes, size_t n_bytes);
} targets[] = {{"checkpoint", fuzz_checkpoint},
               {"cifar", fuzz_cifar},
               {"config", fuzz_config},
               {"file", fuzz_file},
               {"folder", fuzz_folder},
               {"history", fuzz_history},
               {"idx", fuzz_idx},
               {"inject", fuzz_inject},
               {"manifest", fuzz_manifest},
               {"metrics", fuzz_metrics},
               {"network", fuzz_network},
               {"npy", fuzz_npy},
               {"options", fuzz_options},
               {"plan", fuzz_plan},
               {"safetensors", fuzz_safetensors}};
enum { TARGETS = sizeof targets / sizeof *targets };

/* The block ends where the seed does, so that the address sanitizer sees reads beyond it. */
static void run_seed(int target, const char *path) {
  static uint8_t seed[SEED_MAX];
  FILE *file = fopen(path, "rb");
  fuzz_require(file != NULL, path);
  size_t n = fread(seed, 1, sizeof seed, file);
  fclose(file);
  printf("%s\n", path);
  fflush(stdout);
  uint8_t *exact = malloc(n + (n == 0));
  fuzz_require(exact != NULL, "there is memory for a seed");
  memcpy(exact, seed, n);
  targets[target].run(exact, n);
  free(exact);
}

/* Runs what is in the folder of a target; the number of seeds. */
static int run_folder(int target, const char *root) {
  char path[PATH_BYTES];
  int n = 0;
  snprintf(path, sizeof path, "%s/%s", root, targets[target].name);
  size_t length = strlen(path);
  DIR *folder = opendir(path);
  fuzz_require(folder != NULL, path);
  for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
    if (entry->d_name[0] == '.') continue;
    snprintf(path + length, sizeof path - length, "/%s", entry->d_name);
    run_seed(target, path);
    n++;
  }
  closedir(folder);
  return n;
}

static int folders_in(const char *root) {
  int n = 0;
  DIR *folder = opendir(root);
  fuzz_require(folder != NULL, root);
  for (struct dirent *entry; (entry = readdir(folder)) != NULL;) n += entry->d_name[0] != '.';
  closedir(folder);
  return n;
}

int main(int argc, char **argv) {
  int n = 0;
  fuzz_require(argc == 2, "usage: fuzz_corpus FOLDER");
  fuzz_require(folders_in(argv[1]) == TARGETS, "a folder for each harness, a harness for each folder");
  for (int i = 0; i < TARGETS; i++) {
    int seeds = run_folder(i, argv[1]);
    fuzz_require(seeds > 0, "every harness has seeds");
    n += seeds;
  }
  printf("%d seeds of %d harnesses: nothing found\n", n, (int)TARGETS);
  return EXIT_SUCCESS;
}

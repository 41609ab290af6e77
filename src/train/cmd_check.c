#include "train/commands.h"
#include "train/config.h"
#include "train/model.h"

/* The words of --network, against activation and loss. */
static curvd_status network_check(const train_config *values, cv_error *err) {
  model_spec spec;
  return model_spec_parse(values->network, (nn_activation_kind)values->activation, (nn_loss_kind)values->loss, &spec,
                          err);
}

int cmd_check(int argc, char **argv) {
  cv_error err = {.code = CURVD_OK};
  config loaded;
  if (config_load(argc, argv, &loaded, &err) != CURVD_OK) return command_failed(&err);
  int n_set = 0;
  for (int i = 0; i < loaded.n; i++) n_set += loaded.entry[i].is_set;
  int code = EXIT_CODE_OK;
  if (network_check(&loaded.values, &err) != CURVD_OK)
    code = command_failed(&err);
  else
    printf("%s: ok (%d value%s set)\n", loaded.file[0] != '\0' ? loaded.file : "command line", n_set,
           n_set == 1 ? "" : "s");
  config_free(&loaded);
  return code;
}

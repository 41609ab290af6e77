/* Every option of the program in one table; the library's are in its own (curvd_option_get). */
#include "train/config_parts.h"

#include "product/multiply.h"

#include <string.h>

#define AT(field) offsetof(train_config, field)
#define COUNT_MAX 0x1p53 /* every integer below is exact as a double */

static const cv_option table[] = {
    /* name, type, group, unit, min, max, choices, initial, help, offset */
    {"data", CV_OPTION_TEXT, "data", "", 0, 0, NULL, "fashion-mnist",
     "data set: fashion-mnist, teacher (synthetic, needs no file), or a folder with idx(.gz), npy or CIFAR's .bin "
     "files",
     AT(data)},
    {"teacher_samples", CV_OPTION_INTEGER, "data", "examples", 12, COUNT_MAX, NULL, "60000",
     "size of the synthetic data set; 1/6 of it is the test set", AT(teacher_samples)},
    {"validation_images", CV_OPTION_INTEGER, "data", "examples", 0, COUNT_MAX, NULL, "0",
     "take so many examples from the end of the training set and evaluate on them instead of the test set",
     AT(validation_images)},
    {"augment", CV_OPTION_CHOICE, "data", "", 0, 0, "none|crop-flip", "none",
     "random changes of training images: none, or crops of the image with a black border and horizontal flips",
     AT(augment)},
    {"augment_pad", CV_OPTION_INTEGER, "data", "pixels", 0, 65536, NULL, "4",
     "width of the border that crops may reach", AT(augment_pad)},

    {"network", CV_OPTION_TEXT, "model", "", 0, 0, NULL, "784-1000-1000-10",
     "widths from input to output, each with an optional :activation (784-500:tanh-10), repeated by xTIMES "
     "(784-500x3-10); autoencoder, cnn, vgg16_bn or resnet20, the last three with an optional input and classes "
     "(cnn:32x32x3:100); or a model file, which ends in .yaml",
     AT(network)},
    {"activation", CV_OPTION_CHOICE, "model", "", 0, 0, "linear|relu|tanh|sigmoid|gelu", "relu",
     "activation of the hidden layers of a network that is given by its widths", AT(activation)},
    {"loss", CV_OPTION_CHOICE, "model", "", 0, 0, "auto|softmax|sigmoid|squared", "auto",
     "cross-entropy of classes (softmax), of each output (sigmoid), or half the squared error; auto: by the data and "
     "the network",
     AT(loss)},
    {"norm_statistics", CV_OPTION_CHOICE, "model", "", 0, 0, "local|all", "local",
     "examples whose mean and deviation a batch normalisation takes in training: those of one worker, or of all, which "
     "makes a run the same on any number of workers",
     AT(norm_statistics)},
    {"kernels", CV_OPTION_CHOICE, "model", "", 0, 0, "auto|plain|onednn", "auto",
     "convolutions by plain loops or by oneDNN; auto: oneDNN where the program was built with it", AT(kernels)},
    {"train_precision", CV_OPTION_CHOICE, "model", "", 0, 0, CV_PRECISION_NAMES, "fp32",
     "products of the forward and backward passes: as they are, or with numbers rounded to bf16 (one term, or three "
     "products of two terms each, which convolutions leave at fp32) for the processor's matrix unit; weights, momentum "
     "and sums stay fp32",
     AT(train_precision)},
    {"init", CV_OPTION_CHOICE, "model", "", 0, 0, "auto|he|xavier", "auto",
     "initial weights: He normal or Xavier uniform; auto: He for relu and gelu, else Xavier", AT(init)},

    {"method", CV_OPTION_CHOICE, "training", "", 0, 0,
     "sgd|adamw|kfac|rs-kfac|sre-kfac|nystrom-kfac|b-kfac|b-r-kfac|b-r-c-kfac", "nystrom-kfac",
     "first order (sgd, adamw), or how the layers' curvature factors are decomposed: exactly (kfac), by a randomized "
     "SVD (rs-kfac), by a symmetric randomized eigendecomposition (sre-kfac), by Nystrom, or online by every statistic "
     "(b-kfac), with decompositions (b-r-kfac) and corrections (b-r-c-kfac) between",
     AT(method)},
    {"batch", CV_OPTION_INTEGER, "training", "examples", 1, COUNT_MAX, NULL, "512",
     "examples in one step, over all workers", AT(batch)},
    {"accumulate", CV_OPTION_INTEGER, "training", "pieces", 1, COUNT_MAX, NULL, "1",
     "pieces that each worker's share of the batch (norm_statistics all: the batch) is cut into, to save memory",
     AT(accumulate)},
    {"epochs", CV_OPTION_REAL, "training", "epochs", 0, 1e9, NULL, "1", "length of the run; may be a fraction",
     AT(epochs)},
    {"steps", CV_OPTION_INTEGER, "training", "steps", 0, COUNT_MAX, NULL, "0",
     "stop after so many steps instead; 0: after epochs", AT(steps)},
    {"lr", CV_OPTION_SCHEDULE, "training", "", 1e-12, 1e6, "auto=0", "auto",
     "learning rate, before warm-up and decay; \"0.1, 0.05@2e, 0.01@700\" changes it at epoch 2 and at step 700",
     AT(lr)},
    {"lr_decay", CV_OPTION_CHOICE, "training", "", 0, 0, "constant|linear|cosine", "linear",
     "decay of the learning rate to 0 at the end of the run", AT(lr_decay)},
    {"lr_warmup_steps", CV_OPTION_INTEGER, "training", "steps", 0, COUNT_MAX, NULL, "0",
     "steps over which the learning rate grows linearly from 0", AT(lr_warmup_steps)},
    {"optimizer", CV_OPTION_CHOICE, "training", "", 0, 0, "auto|sgd|adamw", "auto",
     "what applies the direction to the weights; auto: adamw for the method adamw, else sgd", AT(optimizer)},
    {"sgd_momentum", CV_OPTION_REAL, "training", "", 0, 0.9999, "auto=-1", "auto",
     "momentum of the optimizer sgd, after preconditioning", AT(sgd_momentum)},
    {"weight_decay", CV_OPTION_REAL, "training", "", 0, 1e6, "auto=-1", "auto",
     "weight decay per unit of learning rate; normalisations have none", AT(weight_decay)},
    {"weight_decay_kind", CV_OPTION_CHOICE, "training", "", 0, 0, "decoupled|coupled|coupled-after", "decoupled",
     "shrink the weights beside the step (decoupled), or add to the gradient before (coupled) or after preconditioning "
     "(coupled-after)",
     AT(weight_decay_kind)},
    {"fisher", CV_OPTION_CHOICE, "training", "", 0, 0, "empirical|sampled", "sampled",
     "targets of the curvature statistics: those of the data (empirical), or drawn from the model (sampled)",
     AT(fisher)},
    {"fisher_stride", CV_OPTION_INTEGER, "training", "examples", 1, COUNT_MAX, NULL, "2",
     "curvature statistics come from every so many-th example of a batch; 1: from all", AT(fisher_stride)},
    {"seed", CV_OPTION_INTEGER, "training", "", 0, COUNT_MAX, NULL, "1",
     "seed of initial weights, order of examples, sampled targets and sketches", AT(seed)},

    {"curvature_ranks", CV_OPTION_INTEGER, "ranks", "ranks", 0, INT32_MAX, "auto=-1", "auto",
     "ranks that only own and refresh curvature factors; 0: the workers do it themselves", AT(curvature_ranks)},
    {"blas_threads", CV_OPTION_INTEGER, "ranks", "threads", 1, 4096, NULL, "1", "BLAS threads of each rank",
     AT(blas_threads)},
    {"hang_timeout", CV_OPTION_REAL, "ranks", "s", 0, 1e9, NULL, "600",
     "end the run with exit code 8 when a rank has stood still for so long, and write what it was in into the run "
     "folder; 0: wait for ever",
     AT(hang_timeout)},

    {"checkpoint_steps", CV_OPTION_INTEGER, "checkpoints", "steps", 0, COUNT_MAX, NULL, "0",
     "steps between two checkpoints, and one at the end; 0: not by steps", AT(checkpoint_steps)},
    {"checkpoint_minutes", CV_OPTION_REAL, "checkpoints", "minutes", 0, 1e6, NULL, "10",
     "minutes between two checkpoints, whichever comes first; 0: not by time", AT(checkpoint_minutes)},
    {"checkpoint_keep", CV_OPTION_INTEGER, "checkpoints", "checkpoints", 1, 1 << 20, NULL, "2",
     "the newest so many stay", AT(checkpoint_keep)},
    {"checkpoint_failure", CV_OPTION_CHOICE, "checkpoints", "", 0, 0, "go-on|stop", "go-on",
     "where one cannot be written: tell, and go on with those that are there; or stop the run", AT(checkpoint_failure)},
    {"resume", CV_OPTION_TEXT, "checkpoints", "", 0, 0, NULL, "no",
     "go on from the newest sound checkpoint: no; auto: of run_dir, where it has one; or a run folder, or one "
     "checkpoint, which must be there (its config.yaml counts where no --config is given)",
     AT(resume)},
    {"time_budget", CV_OPTION_REAL, "checkpoints", "seconds", 0, 1e9, NULL, "0",
     "save and end in time, so long after the start, with exit code 85; 0: no limit. SIGUSR1 and SIGTERM do the same "
     "at "
     "once",
     AT(time_budget)},
    {"nan", CV_OPTION_CHOICE, "checkpoints", "", 0, 0, "stop|skip|rollback", "stop",
     "a step whose gradient is not finite, on any worker: stop; leave the step out; or go back to the last checkpoint, "
     "and leave the step out when it fails again",
     AT(nan)},
    {"check_steps", CV_OPTION_INTEGER, "checkpoints", "steps", 0, COUNT_MAX, NULL, "100",
     "steps between comparisons of what all workers hold alike, and one before every checkpoint; 0: never",
     AT(check_steps)},
    {"damage", CV_OPTION_CHOICE, "checkpoints", "", 0, 0, "stop|rollback", "rollback",
     "numbers that changed in memory or on their way: stop, or go back to the last checkpoint", AT(damage)},
    {"inject", CV_OPTION_TEXT, "checkpoints", "", 0, 0, NULL, "",
     "faults to try: KIND@STEP:rank=R:layer=NAME:factor=A:bit=N:seconds=S, commas between; kinds: kill, hang, delay, "
     "nan, weight, factor, preconditioner, transfer, statistic, solver, disk, sync, shard",
     AT(inject)},

    {"run_dir", CV_OPTION_TEXT, "output", "", 0, 0, NULL, "auto",
     "folder for config.yaml and metrics.jsonl; auto: runs/<date>-<method>-s<seed>", AT(run_dir)},
    {"log_every", CV_OPTION_INTEGER, "output", "steps", 1, COUNT_MAX, NULL, "20",
     "steps between two lines of the log and two records of metrics.jsonl", AT(log_every)},
    {"eval_every", CV_OPTION_REAL, "output", "epochs", 1e-6, 1e9, NULL, "1",
     "epochs between two evaluations; the last step is always evaluated", AT(eval_every)},
    {"target_accuracy", CV_OPTION_REAL, "output", "percent", 0, 100, NULL, "0",
     "stop at the first evaluation that reaches so much; 0: never", AT(target_accuracy)},
};

const cv_option *config_table(int *n) {
  *n = (int)(sizeof table / sizeof table[0]);
  return table;
}

bool config_is_reserved(const char *name) {
  static const char *const reserved[] = {"grad_reduction", "loss_reduction", "steps_per_epoch", "momentum_place",
                                         "dry_run"};
  for (size_t i = 0; i < sizeof reserved / sizeof reserved[0]; i++)
    if (strcmp(reserved[i], name) == 0) return true;
  return false;
}

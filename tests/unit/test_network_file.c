/* Model files, and networks that have a name: published sizes, and every way to write a file wrong. */
#include "net/model_build.h"
#include "suite.h"
#include "train/network.h"

#include <string.h>

static curvd_status parse(const char *text, model_spec *spec, cv_error *err) {
  *err = (cv_error){0};
  return network_file_parse(text, strlen(text), "net.yaml", spec, err);
}

static model_spec spec_of(const char *text) {
  model_spec spec;
  cv_error err = {0};
  ck_assert_msg(network_parse(text, NN_RELU, NN_LOSS_AUTO, &spec, &err) == CURVD_OK, "%s", err.text);
  return spec;
}

/* Sizes of A and G of all convolutions and fully connected layers, bias column included, against a list. */
static void assert_factors(const model_spec *spec, const int64_t (*size)[2], int count) {
  int n = 0;
  for (int i = 0; i < spec->n_layers; i++) {
    const nn_layer_spec *s = &spec->layer[i];
    if (s->kind != NN_DENSE && s->kind != NN_CONV) continue;
    ck_assert_int_lt(n, count);
    ck_assert_int_eq(nn_weight_columns(s) + s->has_bias, size[n][0]);
    ck_assert_int_eq(nn_weight_rows(s), size[n][1]);
    n++;
  }
  ck_assert_int_eq(n, count);
}

/* The published runs' network: 14,990,922 parameters. */
START_TEST(test_vgg16_bn) {
  static const int64_t size[][2] = {{28, 64},    {577, 64},   {577, 128},  {1153, 128}, {1153, 256},
                                    {2305, 256}, {2305, 256}, {2305, 512}, {4609, 512}, {4609, 512},
                                    {4609, 512}, {4609, 512}, {4609, 512}, {513, 512},  {513, 10}};
  model_spec spec = spec_of("vgg16_bn");
  ck_assert_int_eq(model_parameters(&spec), 14990922);
  assert_factors(&spec, size, 15);
  ck_assert(nn_size(spec.input) == 3072 && spec.loss == NN_SOFTMAX_CE);
  spec = spec_of("vgg16_bn:32x32x1:100");
  ck_assert_int_eq(model_parameters(&spec), 14990922 - 2 * 9 * 64 + 90 * 513);
}
END_TEST

START_TEST(test_resnet20_and_cnn) {
  model_spec spec = spec_of("resnet20");
  ck_assert_int_eq(model_parameters(&spec), 272474); /* 0.27 M with projections, as published elsewhere */
  nn_shape last = spec.layer[spec.n_layers - 4].out;
  ck_assert(last.height == 8 && last.width == 8 && last.channels == 64);
  static const int64_t size[][2] = {{10, 32}, {289, 64}, {577, 128}, {1153, 256}, {2305, 256}, {257, 10}};
  spec = spec_of("cnn");
  assert_factors(&spec, size, 6);
  ck_assert_int_eq(nn_size(spec.input), 784);
}
END_TEST

START_TEST(test_a_file_of_every_kind) {
  model_spec spec;
  cv_error err;
  ck_assert_msg(
      parse("- input: 8x6x4\n- conv: 6\n  kernel: 3x2\n  stride: 2x1\n  pad: 1x0\n  groups: 2\n  name: first\n"
            "- norm: batch\n  activation: relu\n- conv: 6\n  kernel: 1\n  bias: false\n- add: first\n"
            "- max: 2\n- average: all\n- dropout: 0.25\n- flatten: image\n- dense: 5\n  activation: gelu\n"
            "- dense: 3\n",
            &spec, &err) == CURVD_OK,
      "%s", err.text);
  ck_assert_int_eq(spec.n_layers, 10);
  ck_assert(spec.layer[0].out.height == 4 && spec.layer[0].out.width == 5 && spec.layer[0].out.channels == 6);
  ck_assert_int_eq(nn_weight_columns(&spec.layer[0]), 3 * 2 * 2);
  ck_assert(spec.layer[3].from[0] == 3 && spec.layer[3].from[1] == 1);
  ck_assert(spec.layer[4].window.stride[0] == 2 && spec.layer[4].out.width == 2);
  ck_assert(spec.layer[5].window.kernel[0] == 2 && spec.layer[5].out.height == 1);
  ck_assert_str_eq(spec.layer[1].name, "norm1");
  ck_assert_str_eq(spec.layer[9].name, "fc2");
  ck_assert(spec.layer[8].activation == NN_GELU && !spec.layer[2].has_bias && spec.layer[6].drop == 0.25);
  ck_assert_int_eq(model_parameters(&spec), 6 * 13 + 12 + 36 + 7 * 5 + 6 * 3);
}
END_TEST

START_TEST(test_refused_files) {
  static const char *const refused[][2] = {
      {"", "net.yaml: no network"},
      {"input: 3\n", "net.yaml:1:1: expected a list"},
      {"- 3\n", "net.yaml:1:3: expected a \"- name: value\""},
      {"- conv: 3\n", "net.yaml:1: the first item is \"- input:"},
      {"- input: 3x4\n", "net.yaml:1: the first item"},
      {"- input: 0\n", "net.yaml:1: the first item"},
      {"- input: 16777216x16777216x16777216\n", "net.yaml:1: the first item"},
      {"- input: 4\n  name: x\n", "net.yaml:2: the input has one line"},
      {"- input: 4\n", "net.yaml: a network without layers"},
      {"- input: 4\n- dnese: 3\n", "net.yaml:2: no kind of layer \"dnese\", did you mean \"dense\"?"},
      {"- input: 4\n- dense: three\n", "net.yaml:2: dense needs a number"},
      {"- input: 4\n- dense: 99999999999\n", "net.yaml:2: dense needs a number"},
      {"- input: 4\n- dense: 0\n", "net.yaml:2: fc1: its width is from 1"},
      {"- input: 4\n- dense: 3\n  activation: rleu\n- dense: 2\n", "net.yaml:3: unknown activation \"rleu\""},
      {"- input: 4\n- dense: 3\n  kernel: 3\n", "net.yaml:3: a layer \"dense\" knows no \"kernel\""},
      {"- input: 4\n- dense: 3\n  bias: yes\n", "net.yaml:3: bias is true or false"},
      {"- input: 4\n- dense: 3\n  activation: relu\n", "net.yaml: fc1: the last layer is fully connected and linear"},
      {"- input: 4\n- conv: 3\n  kernel: 1\n", "net.yaml:2: conv1: it takes an image"},
      {"- input: 4x4x3\n- conv: 3\n  kernel: 6\n  pad: 0\n", "net.yaml:2: conv1: a kernel of 6"},
      {"- input: 4x4x3\n- conv: 3\n", "net.yaml:2: conv1: it needs a kernel"},
      {"- input: 4x4x3\n- conv: 3\n  kernel: 0x2\n", "net.yaml:2: conv1: kernel, stride and dilation are at least 1"},
      {"- input: 4x4x3\n- conv: 3\n  kernal: 2\n",
       "net.yaml:3: a layer \"conv\" knows no \"kernal\", did you mean \"kernel\"?"},
      {"- input: 4x4x3\n- conv: 3\n  kernel: 2\n  kernel: 3\n", "net.yaml:4: kernel is set twice"},
      {"- input: 4x4x3\n- max: 0\n- dense: 2\n", "net.yaml:2: max1: kernel, stride and dilation are at least 1"},
      {"- input: 8x8x1\n- conv: 4194304\n  kernel: 1\n  pad: 1048572\n- dense: 2\n", "net.yaml:2: conv1: more than"},
      {"- input: 1x1x16777216\n- conv: 1\n  kernel: 2\n  pad: 1\n- dense: 2\n",
       "net.yaml:2: conv1: its kernel sees more than"}, /* 2^26 numbers; sides of 2^20 would be 2^64: 0 */
      {"- input: 4\n- dense: 3\n  name: input\n- dense: 3\n", "net.yaml:2: input: this is the name of"},
      {"- input: 4x4x3\n- conv: 3\n  kernel: 2x-1\n", "net.yaml:3: kernel needs a number"},
      {"- input: 4x4x3\n- conv: 4\n  kernel: 1\n  groups: 3\n", "net.yaml:2: conv1: 3 groups do not divide 3 input"},
      {"- input: 4x4x3\n- max: 2\n  pad: 2\n- dense: 2\n", "net.yaml:2: max1: a window may lie outside"},
      {"- input: 4x4x3\n- dropout: 1\n- dense: 2\n", "net.yaml:2: dropout1: the share that is dropped"},
      {"- input: 4x4x3\n- dropout: half\n- dense: 2\n", "net.yaml:2: dropout needs the share"},
      {"- input: 4x4x3\n- norm: layer\n- dense: 2\n", "net.yaml:2: the normalisation that there is"},
      {"- input: 4x4x3\n- conv: 2\n  kernel: 2\n- add: input\n- dense: 2\n", "net.yaml:4: add1: 3x3x2 and 4x4x3"},
      {"- input: 4x4x3\n- add: conv1\n- dense: 2\n", "net.yaml:2: no layer \"conv1\" before this one"},
      {"- input: 4\n- dense: 3\n  name: a\n- dense: 3\n  name: a\n", "net.yaml:4: a: a second layer of this name"},
      {"- input: 4\n- dense: 3\n- dense: 2\n  from: input\n", "net.yaml: fc1: no later layer takes"},
      {"- input: &x 4\n- dense: 3\n", "net.yaml:1:10: an anchor"},
      {"- input: 4\n- dense: [3]\n", "net.yaml:2:10: a list is refused"},
  };
  for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
    model_spec spec;
    cv_error err;
    ck_assert_msg(parse(refused[i][0], &spec, &err) == CURVD_ERR_OPTION, "%s: taken", refused[i][0]);
    ck_assert_msg(strncmp(err.text, refused[i][1], strlen(refused[i][1])) == 0, "%s: %s", refused[i][0], err.text);
  }
}
END_TEST

START_TEST(test_refused_names) {
  static const char *const refused[] = {"vgg16",         "resnet",  "cnn:",           "cnn:28x28",       "cnn:28x28x1:",
                                        "cnn:28x28x1:0", "cnn:784", "vgg16_bn:8x8x3", "nonexistent.yaml"};
  for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
    model_spec spec;
    cv_error err = {0};
    curvd_status wanted = strstr(refused[i], ".yaml") ? CURVD_ERR_IO : CURVD_ERR_OPTION;
    ck_assert_msg(network_parse(refused[i], NN_RELU, NN_LOSS_AUTO, &spec, &err) == wanted, "%s: %s", refused[i],
                  err.text);
    ck_assert_msg(strstr(err.text, refused[i]) != NULL, "%s: %s", refused[i], err.text);
  }
}
END_TEST

/* Every shorter text of a good file is refused or is a network, and nothing else happens. */
START_TEST(test_truncated_files) {
  const char *text = "- input: 4x4x3\n- conv: 4\n  kernel: 2\n  name: a\n- norm: batch\n- add: a\n- dense: 2\n";
  for (size_t n = 0; n <= strlen(text); n++) {
    model_spec spec;
    cv_error err = {0};
    curvd_status status = network_file_parse(text, n, "net.yaml", &spec, &err);
    ck_assert(status == CURVD_OK || (status == CURVD_ERR_OPTION && strncmp(err.text, "net.yaml", 8) == 0));
  }
}
END_TEST

int main(void) {
  const TTest *const tests[] = {test_vgg16_bn,      test_resnet20_and_cnn, test_a_file_of_every_kind,
                                test_refused_files, test_refused_names,    test_truncated_files};
  return suite_run("network_file", tests, sizeof tests / sizeof tests[0], NULL);
}

/* curvd checkpoint as a shell sees it. */
#include "run_command.h"
#include "save_fixture.h"
#include "suite.h"

#include <mpi.h>

static void set_up(void) {
  make_folder();
  save_by_three(100);
  save_by_three(200);
}

static void assert_has(const char *text, const char *words) {
  ck_assert_msg(strstr(text, words) != NULL, "no '%s' in: %s", words, text);
}

/* Flips a bit of the last tensor of the third shard. */
static void damage(const char *file) {
  int64_t n = 0;
  char *bytes = read_bytes(file, &n);
  bytes[n - 1] ^= 4;
  write_bytes(file, bytes, n);
  free(bytes);
}

START_TEST(test_list) {
  set_up();
  mkdir(in_folder("step-000000300"), 0777);
  ck_assert_int_eq(RUN("checkpoint", "list", save_folder), 0);
  ck_assert_str_eq(errors, "");
  const char *first = strstr(out, "step-000000300/manifest.json cannot be opened: No such file or directory"),
             *second = strstr(out, "\n         200 "), *third = strstr(out, "\n         100 ");
  ck_assert_msg(first != NULL && second > first && third > second, "%s", out);
  assert_has(second, " 3  ok\n");
  /* a run's folder, whose checkpoints lie in one of their own */
  char run_folder[60], inner[90];
  snprintf(run_folder, sizeof run_folder, "%s-run", save_folder);
  snprintf(inner, sizeof inner, "%s/checkpoints", run_folder);
  ck_assert(mkdir(run_folder, 0777) == 0 && rename(save_folder, inner) == 0);
  int code = RUN("checkpoint", "list", run_folder);
  remove_tree(run_folder);
  ck_assert_int_eq(code, 0);
  assert_has(out, " 3  ok\n");
}
END_TEST

START_TEST(test_list_of_nothing) {
  make_folder();
  ck_assert_int_eq(RUN("checkpoint", "list", save_folder), 0);
  assert_has(out, ": no checkpoints\n");
  ck_assert_int_eq(RUN("checkpoint", "list", in_folder("nothing")), 3);
  assert_has(errors, "cannot be opened: No such file or directory");
  ck_assert_str_eq(out, "");
}
END_TEST

START_TEST(test_verify) {
  set_up();
  ck_assert_int_eq(RUN("checkpoint", "verify", save_folder), 0);
  assert_has(out, "step 200: ok (6 arrays in 3 shards, ");
  assert_has(out, "step 100: ok (6 arrays in 3 shards, ");
  damage("step-000000100/shard-00002.safetensors");
  ck_assert_int_eq(RUN("checkpoint", "verify", save_folder), 3);
  assert_has(out, "step 200: ok");
  assert_has(out, "step-000000100/shard-00002.safetensors: tensor transposed[34:35]: damaged: XXH3 ");
  ck_assert_str_eq(errors, "curvd: 1 of 2 checkpoints are damaged\n");
  ck_assert_int_eq(RUN("checkpoint", "verify", in_folder("step-000000200")), 0);
  ck_assert_int_eq(RUN("checkpoint", "verify", in_folder("step-000000100")), 3);
  unlink(in_folder("step-000000100/shard-00001.safetensors"));
  ck_assert_int_eq(RUN("checkpoint", "verify", in_folder("step-000000100/")), 3);
  assert_has(out, "step-000000100/shard-00001.safetensors cannot be opened");
  unlink(in_folder("step-000000100/manifest.json"));
  ck_assert_int_eq(RUN("checkpoint", "verify", in_folder("step-000000100")), 3);
  assert_has(out, "step-000000100/manifest.json cannot be opened");
  remove_folder();
  make_folder();
  ck_assert_int_eq(RUN("checkpoint", "verify", save_folder), 3);
  assert_has(errors, "no checkpoints");
}
END_TEST

/* A checkpoint of step 300 with these arrays. */
static void save_arrays(const curvd_array *arrays, int n) {
  cv_error err = {.code = CURVD_OK};
  saver *s = new_saver(0, 1, 3, (saver_faults){.user = NULL});
  ck_assert_int_eq(saver_begin(s, 300, &err), CURVD_OK);
  for (int i = 0; i < n; i++) ck_assert_int_eq(saver_add(s, &arrays[i], &err), CURVD_OK);
  saver_commit(s);
  saver_free(&s);
}

/* number_at: steps 100 and 200 differ by 17 * 100 everywhere; the smallest numbers are those of "bias", row 0. */
START_TEST(test_diff) {
  char first[80], words[80];
  set_up();
  strcpy(first, in_folder("step-000000100"));
  ck_assert_int_eq(RUN("checkpoint", "diff", first, first), 0);
  ck_assert_str_eq(out, "6 of 6 arrays are equal in bits\n");
  ck_assert_int_eq(RUN("checkpoint", "diff", first, in_folder("step-000000200")), EXIT_CODE_DIFFERENT);
  double later = number_at("bias", 200, 0, 0);
  snprintf(words, sizeof words, "bias: 13 numbers differ, by at most 1.7e+03, relative %.3g\n", 1700 / later);
  assert_has(out, words);
  assert_has(out, "factor.A: 45 numbers differ, by at most 1.7e+03");
  assert_has(out, "1 of 6 arrays are equal in bits\n");
  ck_assert_ptr_null(strstr(out, "empty:"));
  float w[17 * 5] = {0}, nan[1] = {0.0f / 0.0f};
  curvd_array arrays[] = {{"weights", CURVD_F32, false, 5, 17, 0, 5, 17, 1, w},
                          {"new", CURVD_F32, false, 1, 1, 0, 1, 1, 1, nan}};
  save_arrays(arrays, 2);
  ck_assert_int_eq(RUN("checkpoint", "diff", first, in_folder("step-000000300")), EXIT_CODE_DIFFERENT);
  assert_has(out, "weights: F32 (17, 5) in the first, F32 (5, 17) in the second\n");
  assert_has(out, "gram: only in the first\n");
  assert_has(out, "new: only in the second\n");
  assert_has(out, "0 of 7 arrays are equal in bits\n");
  ck_assert_int_eq(RUN("checkpoint", "diff", in_folder("step-000000300"), in_folder("step-000000300")), 0);
  ck_assert_int_eq(RUN("checkpoint", "diff", first, in_folder("nothing")), 3);
  damage("step-000000200/shard-00002.safetensors");
  ck_assert_int_eq(RUN("checkpoint", "diff", first, in_folder("step-000000200")), 3);
  assert_has(errors, "shard-00002.safetensors: tensor transposed[34:35]: damaged");
}
END_TEST

/* One that has all that the other has, and more. */
START_TEST(test_diff_of_more) {
  char first[80];
  float w[1] = {1};
  curvd_array arrays[] = {{"a", CURVD_F32, false, 1, 1, 0, 1, 1, 1, w}, {"b", CURVD_F32, false, 1, 1, 0, 1, 1, 1, w}};
  make_folder();
  save_arrays(arrays, 1);
  ck_assert_int_eq(rename(in_folder("step-000000300"), in_folder("x")), 0);
  strcpy(first, in_folder("x"));
  save_arrays(arrays, 2);
  ck_assert_int_eq(RUN("checkpoint", "diff", first, in_folder("step-000000300")), EXIT_CODE_DIFFERENT);
  ck_assert_str_eq(out, "b: only in the second\n1 of 2 arrays are equal in bits\n");
}
END_TEST

/* Signs of zeros and numbers that are none. */
START_TEST(test_diff_of_odd_numbers) {
  char first[80];
  make_folder();
  double x[] = {0.0, 1, 2}, y[] = {-0.0, 1, 2};
  curvd_array a = {"a", CURVD_F64, false, 1, 3, 0, 1, 3, 1, x}, b = a;
  save_arrays(&a, 1);
  ck_assert_int_eq(rename(in_folder("step-000000300"), in_folder("x")), 0);
  strcpy(first, in_folder("x"));
  b.data = y;
  save_arrays(&b, 1);
  ck_assert_int_eq(RUN("checkpoint", "diff", first, in_folder("step-000000300")), EXIT_CODE_DIFFERENT);
  assert_has(out, "a: 1 numbers differ, by at most 0, relative 0\n");
  y[1] = 0.0 / 0.0, y[2] = 2.5;
  save_arrays(&b, 1);
  ck_assert_int_eq(RUN("checkpoint", "diff", first, in_folder("step-000000300")), EXIT_CODE_DIFFERENT);
  assert_has(out, "a: 3 numbers differ, by at most inf, relative inf\n");
}
END_TEST

static const char reader[] =
    "import array, ast, struct, sys\n"
    "def value(name, i, j): return 1000 * ord(name[0]) + 17 * 100 + 31 * i + j / 64\n"
    "whole = {'weights': (17, 5, 'f'), 'bias': (1, 13, 'f'), 'factor.A': (9, 9, 'd'), 'gram': (40, 40, 'f'),\n"
    "         'transposed': (35, 66, 'd'), 'empty': (0, 7, 'f')}\n"
    "for name, (rows, columns, code) in whole.items():\n"
    "  data = open(sys.argv[1] + '/' + name + '.npy', 'rb').read()\n"
    "  assert data[:8] == b'\\x93NUMPY\\x01\\x00'\n"
    "  n, = struct.unpack('<H', data[8:10])\n"
    "  assert (10 + n) % 64 == 0 and data[9 + n:10 + n] == b'\\n'\n"
    "  about = ast.literal_eval(data[10:10 + n].decode('latin1'))\n"
    "  assert about == {'descr': '<f4' if code == 'f' else '<f8', 'fortran_order': False, 'shape': (rows, columns)}\n"
    "  numbers = array.array(code, data[10 + n:])\n"
    "  assert len(numbers) == rows * columns\n"
    "  for i in range(rows):\n"
    "    for j in range(columns):\n"
    "      k, l = (max(i, j), min(i, j)) if name in ('factor.A', 'gram') else (i, j)\n"
    "      assert numbers[i * columns + j] == value(name, k, l), (name, i, j)\n";

START_TEST(test_export) {
  char python[300], first[80];
  set_up();
  strcpy(first, in_folder("step-000000100"));
  ck_assert_int_eq(RUN("checkpoint", "export", first, in_folder("arrays")), 0);
  assert_has(out, "6 arrays in ");
  write_bytes("read.py", reader, sizeof reader - 1);
  snprintf(python, sizeof python, "python3 %s/read.py %s/arrays", save_folder, save_folder);
  ck_assert_int_eq(system(python), 0);
  ck_assert_int_eq(RUN("checkpoint", "export", first, in_folder("arrays")), 3);
  assert_has(errors, "bias.npy cannot be made: File exists");
  ck_assert_int_eq(system(python), 0);
  ck_assert_int_eq(RUN("checkpoint", "export", first, "/proc/nothing"), 3);
  assert_has(errors, "/proc/nothing cannot be made");
}
END_TEST

START_TEST(test_export_of_wild_names) {
  float w[1] = {0};
  curvd_array a = {"../a/b c\xc3\xa9", CURVD_F32, false, 1, 1, 0, 1, 1, 1, w};
  make_folder();
  save_arrays(&a, 1);
  ck_assert_int_eq(RUN("checkpoint", "export", in_folder("step-000000300"), in_folder("arrays")), 0);
  ck_assert(exists("arrays/_._a_b_c__.npy"));
}
END_TEST

static void assert_said(int code, const char *sentence) {
  ck_assert_int_eq(code, 2);
  ck_assert_str_eq(errors, sentence);
  ck_assert_str_eq(out, "");
}

START_TEST(test_words) {
  make_folder();
  assert_said(RUN("checkpoint", "lst"), "curvd: checkpoint: unknown word 'lst'; did you mean 'list'?\n");
  assert_said(RUN("checkpoint", "verfy", "x"), "curvd: checkpoint: unknown word 'verfy'; did you mean 'verify'?\n");
  assert_said(RUN("checkpoint", "zzz"), "curvd: checkpoint: expected list, verify, diff or export, not 'zzz'\n");
  assert_said(RUN("checkpoint"), "curvd: checkpoint: expected list, verify, diff or export, not ''\n");
  assert_said(RUN("checkpoint", "list"), "curvd: usage: curvd checkpoint list FOLDER\n");
  assert_said(RUN("checkpoint", "list", "--all"), "curvd: usage: curvd checkpoint list FOLDER\n");
  assert_said(RUN("checkpoint", "diff", "a"), "curvd: usage: curvd checkpoint diff CHECKPOINT CHECKPOINT\n");
  assert_said(RUN("checkpoint", "export", "a", "b", "c"), "curvd: usage: curvd checkpoint export CHECKPOINT FOLDER\n");
  ck_assert_int_eq(RUN("checkpoint", "--help"), 0);
  assert_has(out, "verify FOLDER");
  assert_has(out, "  10  two checkpoints differ");
  ck_assert_int_eq(RUN("checkpoint", "diff", "--help"), 0);
  assert_said(RUN("chekpoint"), "curvd: unknown command 'chekpoint'; did you mean 'checkpoint'?\n");
}
END_TEST

START_TEST(test_none_of_this_used_mpi) {
  int is_initialised = 1;
  make_folder();
  MPI_Initialized(&is_initialised);
  ck_assert(!is_initialised);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {
      test_list,         test_list_of_nothing,       test_verify, test_diff,
      test_diff_of_more, test_diff_of_odd_numbers,   test_export, test_export_of_wild_names,
      test_words,        test_none_of_this_used_mpi,
  };
  return suite_run("cmd_checkpoint", tests, sizeof tests / sizeof tests[0], remove_folder);
}

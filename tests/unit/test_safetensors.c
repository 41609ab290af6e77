/* Headers of safetensors files: built, parsed, refused; and read by a stranger, Python's standard library. */
#include "save/safetensors.h"

#include "save_fixture.h"
#include "suite.h"

/* A header with this JSON, and the number that stands in front. */
static curvd_status parse_text(const char *json, safetensors_header *h, cv_error *err) {
  int64_t n = (int64_t)strlen(json);
  char *bytes = malloc((size_t)n + 8); /* of exactly that size, for sanitizers */
  for (int i = 0; i < 8; i++) bytes[i] = (char)(n >> (8 * i));
  memcpy(bytes + 8, json, (size_t)n);
  curvd_status status = safetensors_parse(bytes, n + 8, "file", h, err);
  free(bytes);
  return status;
}

static void assert_refused(const char *json, const char *said) {
  cv_error err = {.code = CURVD_OK};
  safetensors_header h;
  curvd_status status = parse_text(json, &h, &err);
  ck_assert_msg(status == CURVD_ERR_DATA, "%s: %d", json, status);
  ck_assert_msg(strncmp(err.text, "file: ", 6) == 0 && strstr(err.text, said) != NULL, "%s: %s", json, err.text);
  safetensors_free(&h);
}

/* The format's own example, and types that are not read here. */
START_TEST(test_parse) {
  cv_error err = {.code = CURVD_OK};
  safetensors_header h;
  ck_assert_int_eq(parse_text("{\"b\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[16,22]},"
                              "\"__metadata__\":{\"k\":\"v\"},"
                              "\"TEST\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},"
                              "\"none\":{\"dtype\":\"F64\",\"shape\":[0,5],\"data_offsets\":[16,16]},"
                              "\"four\":{\"dtype\":\"F4\",\"shape\":[4],\"data_offsets\":[22,24]},"
                              "\"scalar\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[24,32]}}   ",
                              &h, &err),
                   CURVD_OK);
  ck_assert_int_eq(h.n_tensors, 5);
  ck_assert_int_eq(h.data_bytes, 32);
  static const char *const names[] = {"TEST", "none", "b", "four", "scalar"};
  static const int n_dimensions[] = {2, 2, 1, 1, 0};
  for (int i = 0; i < 5; i++) {
    ck_assert_str_eq(h.tensor[i].name, names[i]);
    ck_assert_int_eq(h.tensor[i].n_dimensions, n_dimensions[i]);
  }
  ck_assert_int_eq(h.tensor[0].shape[1], 2);
  ck_assert_int_eq(h.tensor[2].end, 22);
  ck_assert_str_eq(h.tensor[2].dtype, "BF16");
  ck_assert_str_eq(json_string_value(json_object_get(h.metadata, "k")), "v");
  safetensors_free(&h);
  ck_assert_int_eq(parse_text("{}", &h, &err), CURVD_OK);
  ck_assert(h.n_tensors == 0 && h.data_bytes == 0 && h.bytes == 10);
  safetensors_free(&h);
}
END_TEST

#define T(dtype, shape, offsets) "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

START_TEST(test_refused) {
  assert_refused("[]", "does not begin with {");
  assert_refused(" {}", "does not begin with {");
  assert_refused("{} x", "no JSON object");
  assert_refused("{\"a\":", "no JSON object");
  assert_refused("{\"a\":" T("F32", "[1]", "[0,4]") ",\"a\":" T("F32", "[1]", "[4,8]") "}", "no JSON object");
  assert_refused("{\"\xff\":" T("F32", "[1]", "[0,4]") "}", "no JSON object");
  assert_refused("{\"a\":7}", "expected dtype");
  assert_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", "expected dtype");
  assert_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", "expected dtype");
  assert_refused("{\"a\":{\"dtype\":32,\"shape\":[1],\"data_offsets\":[0,4]}}", "expected dtype");
  assert_refused("{\"a\":" T("F31", "[1]", "[0,4]") "}", "dtype is not known");
  assert_refused("{\"a\":" T("F32", "7", "[0,4]") "}", "shape is no list");
  assert_refused("{\"a\":" T("F32", "[1.0]", "[0,4]") "}", "no size");
  assert_refused("{\"a\":" T("F32", "[-1]", "[0,4]") "}", "no size");
  assert_refused("{\"a\":" T("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", "more than 8 dimensions");
  assert_refused("{\"a\":" T("F32", "[1]", "[0,4,4]") "}", "offsets are not");
  assert_refused("{\"a\":" T("F32", "[1]", "[4,0]") "}", "offsets are not");
  assert_refused("{\"a\":" T("F32", "[1]", "[-4,0]") "}", "offsets are not");
  assert_refused("{\"a\":" T("F32", "[1]", "[0,5]") "}", "does not have the bytes");
  assert_refused("{\"a\":" T("F4", "[3]", "[0,1]") "}", "than 64 bits count");
  /* 2^62 * 4 bytes is 2^64, which is 0 in 64 bits; so is 2^32 * 2^32 */
  assert_refused("{\"a\":" T("F32", "[4611686018427387904]", "[0,0]") "}", "than 64 bits count");
  assert_refused("{\"a\":" T("F32", "[4294967296,4294967296]", "[0,0]") "}", "than 64 bits count");
  assert_refused("{\"a\":" T("F32", "[9223372036854775808]", "[0,0]") "}", "no JSON object");
  assert_refused("{\"a\":" T("F32", "[1]", "[4,8]") "}", "begins at byte 4, but the one before ends at 0");
  assert_refused("{\"a\":" T("F32", "[2]", "[0,8]") ",\"b\":" T("F32", "[1]", "[4,8]") "}", "begins at byte 4");
  assert_refused("{\"a\":" T("F32", "[1]", "[0,4]") ",\"b\":" T("F32", "[1]", "[8,12]") "}", "begins at byte 8");
  assert_refused("{\"__metadata__\":{\"a\":1}}", "is no text");
  assert_refused("{\"__metadata__\":[]}", "is no object");
}
END_TEST

START_TEST(test_long_names) {
  cv_error err = {.code = CURVD_OK};
  safetensors_header h;
  char json[400], name[201];
  memset(name, 'n', 200);
  name[200] = '\0';
  snprintf(json, sizeof json, "{\"%s\":" T("F32", "[1]", "[0,4]") "}", name + 1);
  ck_assert_int_eq(parse_text(json, &h, &err), CURVD_OK);
  safetensors_free(&h);
  snprintf(json, sizeof json, "{\"%s\":" T("F32", "[1]", "[0,4]") "}", name);
  assert_refused(json, "longer than 199 bytes");
}
END_TEST

/* The number in front against the bytes that are there. */
START_TEST(test_lengths) {
  static const struct {
    uint64_t length;
    int64_t n;
    const char *said;
  } cases[] = {{2, 7, "ends after 7 bytes"},
               {2, 0, "ends after 0 bytes"},
               {3, 10, "ends after 10 bytes, within its header of 11"},
               {0, 10, "header of 0 bytes"},
               {1, 10, "header of 1 bytes"},
               {100000000, 10, "within its header of 100000008"},
               {100000001, 10, "header of 100000001 bytes"},
               {UINT64_MAX, 10, "header of 18446744073709551615 bytes"}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    cv_error err = {.code = CURVD_OK};
    safetensors_header h;
    char *bytes = malloc((size_t)cases[i].n + 1), all[10] = "........{}";
    for (int b = 0; b < 8; b++) all[b] = (char)(cases[i].length >> (8 * b));
    memcpy(bytes, all, (size_t)cases[i].n);
    ck_assert_int_eq(safetensors_parse(bytes, cases[i].n, "file", &h, &err), CURVD_ERR_DATA);
    ck_assert_msg(strstr(err.text, cases[i].said) != NULL, "%s", err.text);
    safetensors_free(&h);
    free(bytes);
  }
}
END_TEST

START_TEST(test_build) {
  cv_error err = {.code = CURVD_OK};
  safetensors_tensor tensor[] = {{"x", "F32", 2, {3, 5}, 0, 60}, {"\"y\" \xc3\xa9", "F64", 1, {2}, 60, 76}};
  safetensors_header h = {.n_tensors = 2, .tensor = tensor, .metadata = json_pack("{s:s}", "k", "v\n\"")}, again;
  char *bytes = NULL;
  int64_t n = 0;
  ck_assert_int_eq(safetensors_build(&h, &bytes, &n, &err), CURVD_OK);
  ck_assert_int_eq(n % 64, 0);
  ck_assert_int_eq(bytes[8], '{');
  ck_assert_int_eq(safetensors_parse(bytes, n, "file", &again, &err), CURVD_OK);
  ck_assert(again.bytes == n && again.data_bytes == 76 && again.n_tensors == 2);
  for (int i = 0; i < 2; i++) {
    ck_assert_str_eq(again.tensor[i].name, tensor[i].name);
    ck_assert_str_eq(again.tensor[i].dtype, tensor[i].dtype);
    ck_assert(again.tensor[i].begin == tensor[i].begin && again.tensor[i].end == tensor[i].end &&
              again.tensor[i].shape[0] == tensor[i].shape[0]);
  }
  ck_assert(json_equal(again.metadata, h.metadata));
  safetensors_free(&again);
  free(bytes);
  strcpy(tensor[1].name, "x");
  ck_assert_int_eq(safetensors_build(&h, &bytes, &n, &err), CURVD_ERR_ARGUMENT);
  json_decref(h.metadata);
}
END_TEST

/* Numbers as number_at makes them, with nothing of ours but that formula. */
static const char stranger[] =
    "import array, json, struct, sys\n"
    "def value(name, i, j): return 1000 * ord(name[0]) + 17 * 100 + 31 * i + j / 64\n"
    "whole = {'weights': (17, 5), 'bias': (1, 13), 'factor.A': 9, 'gram': 40, 'transposed': (35, 66), 'empty': (0, "
    "7)}\n"
    "seen = {name: set() for name in whole}\n"
    "for path in sys.argv[1:]:\n"
    "  data = open(path, 'rb').read()\n"
    "  n, = struct.unpack('<Q', data[:8])\n"
    "  assert data[8:9] == b'{' and (8 + n) % 64 == 0\n"
    "  header = json.loads(data[8:8 + n])\n"
    "  texts = header.pop('__metadata__')\n"
    "  end = 0\n"
    "  for tensor, entry in header.items():\n"
    "    begin_end = entry['data_offsets']\n"
    "    assert begin_end[0] == end\n"
    "    end = begin_end[1]\n"
    "    code = {'F32': 'f', 'F64': 'd'}[entry['dtype']]\n"
    "    numbers = array.array(code, data[8 + n + begin_end[0]:8 + n + end])\n"
    "    name, _, rows = tensor.partition('[')\n"
    "    first, last = map(int, rows[:-1].split(':')) if rows else (0, None)\n"
    "    if name.endswith('_lower'):\n"
    "      name = name[:-6]\n"
    "      assert int(texts['n_rows:' + tensor]) == whole[name] and entry['shape'] == [len(numbers)]\n"
    "      length = lambda i: i + 1\n"
    "      last = whole[name] if last is None else last\n"
    "    else:\n"
    "      height, width = entry['shape']\n"
    "      assert width == whole[name][1] and len(numbers) == height * width\n"
    "      length = lambda i: width\n"
    "      assert last is None or (last - first == height and int(texts['n_rows:' + tensor]) == whole[name][0])\n"
    "      last = first + height\n"
    "    k = 0\n"
    "    for i in range(first, last):\n"
    "      assert i not in seen[name]\n"
    "      seen[name].add(i)\n"
    "      for j in range(length(i)):\n"
    "        assert numbers[k] == value(name, i, j), (tensor, i, j)\n"
    "        k += 1\n"
    "    assert k == len(numbers) and len(texts['xxh3:' + tensor]) == 16\n"
    "  assert 8 + n + end == len(data)\n"
    "for name, shape in whole.items():\n"
    "  assert len(seen[name]) == (shape if isinstance(shape, int) else shape[0]), name\n";

START_TEST(test_python_reads_it) {
  char command[900];
  make_folder();
  save_by_three(100);
  write_bytes("read.py", stranger, sizeof stranger - 1);
  snprintf(command, sizeof command, "python3 %s/read.py %s/step-000000100/shard-*", save_folder, save_folder);
  ck_assert_int_eq(system(command), 0);
  remove_folder();
}
END_TEST

int main(void) {
  const TTest *const tests[] = {
      test_parse, test_refused, test_long_names, test_lengths, test_build, test_python_reads_it,
  };
  return suite_run("safetensors", tests, sizeof tests / sizeof tests[0], NULL);
}

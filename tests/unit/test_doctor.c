/* What `curvd doctor` makes of findings of several ranks, and its judgements of libraries, machine, network, folder and
 * transfers, fed with made-up answers. Files of the system are those of Linux 6.1, as its documentation has them. */
#include "train/doctor.h"

#include "doctor_fixture.h"
#include "suite.h"
#include "train/doctor_blas.h"
#include "train/doctor_folder.h"
#include "train/doctor_machine.h"
#include "train/doctor_network.h"
#include "train/doctor_transfers.h"
#include "train/doctor_units.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- findings of several ranks ---- */

enum { RANKS = 4 };
static const char hosts[RANKS][DOCTOR_HOST_MAX] = {"n0", "n0", "n1", "n1"};

/* One line of each rank, merged. */
static const doctor_line *merge(const doctor_level level[RANKS], const char *const text[RANKS]) {
  static doctor_findings of[RANKS], all;
  all.n = 0;
  for (int r = 0; r < RANKS; r++) {
    of[r].n = 0;
    doctor_add(&of[r], level[r], "line", "%s", text[r]);
  }
  doctor_merge(of, hosts, RANKS, &all);
  ck_assert_int_eq(all.n, 1);
  return &all.line[0];
}

START_TEST(test_merge) {
  static const char *const same[] = {"x", "x", "x", "x"}, *const two[] = {"x", "x", "y", "y"};
  static const doctor_level ok[RANKS] = {DOCTOR_OK}, mixed[] = {DOCTOR_OK, DOCTOR_OK, DOCTOR_ERROR, DOCTOR_WARNING};
  const doctor_line *line = merge(ok, same);
  ck_assert_str_eq(line->text, "x");
  ck_assert_int_eq(line->level, DOCTOR_OK);
  ck_assert_str_eq(merge(ok, two)->text, "rank 0 on n0 (and 1 more): x; rank 2 on n1: y");
  line = merge(mixed, two);
  ck_assert_int_eq(line->level, DOCTOR_ERROR);
  ck_assert_int_eq(line->code, EXIT_CODE_UNFIT);
  ck_assert_str_eq(line->text, "rank 2 on n1 (and 1 more): y");
  static const char *const last[] = {"x", "x", "x", "z"};
  static const doctor_level warned[] = {DOCTOR_OK, DOCTOR_OK, DOCTOR_OK, DOCTOR_WARNING};
  ck_assert_str_eq(merge(warned, last)->text, "rank 3 on n1: z");
}
END_TEST

START_TEST(test_long_texts) {
  static char x[2 * DOCTOR_TEXT_MAX], y[2 * DOCTOR_TEXT_MAX];
  static const doctor_level ok[RANKS] = {DOCTOR_OK};
  memset(x, 'x', sizeof x - 1), memset(y, 'y', sizeof y - 1);
  const char *const texts[] = {x, x, x, y};
  ck_assert_uint_eq(strlen(merge(ok, texts)->text), DOCTOR_TEXT_MAX - 1);
}
END_TEST

START_TEST(test_too_many_lines) {
  for (int i = 0; i < DOCTOR_LINES_MAX + 3; i++) doctor_add(&found, DOCTOR_OK, "line", "%d", i);
  ck_assert_int_eq(found.n, DOCTOR_LINES_MAX);
  ck_assert_str_eq(found.line[DOCTOR_LINES_MAX - 1].text, "23");
}
END_TEST

START_TEST(test_exit_code) {
  cv_error err = {0};
  doctor_add(&found, DOCTOR_OK, "a", "x");
  doctor_add(&found, DOCTOR_WARNING, "b", "x; y");
  ck_assert_int_eq(doctor_exit_code(&found), 0);
  cv_fail(&err, CURVD_ERR_LAYOUT, "no; do");
  doctor_add_failure(&found, "c", &err);
  doctor_add(&found, DOCTOR_ERROR, "d", "x; y");
  ck_assert_int_eq(doctor_exit_code(&found), 4);
  ck_assert_str_eq(found.line[2].text, "no; do");
  found.n = 0;
  doctor_add(&found, DOCTOR_ERROR, "d", "x; y");
  ck_assert_int_eq(doctor_exit_code(&found), 11);
}
END_TEST

START_TEST(test_print) {
  char text[2000] = "";
  FILE *out = fmemopen(text, sizeof text, "w");
  ck_assert_ptr_nonnull(out);
  doctor_add(&found, DOCTOR_OK, "first", "short");
  doctor_add(&found, DOCTOR_WARNING, "second",
             "a text of many words, which does not fit into the columns of one line, so that it goes on in a second");
  doctor_print(&found, 1, out);
  fclose(out);
  ck_assert_str_eq(text,
                   "ok       first          short\n"
                   "warning  second         a text of many words, which does not fit into the columns of one line, so "
                   "that it goes\n                        on in a second\n"
                   "1 rank; errors: 0, warnings: 1\n");
}
END_TEST

START_TEST(test_json) {
  doctor_add(&found, DOCTOR_WARNING, "folder", "name of bytes \xff that are no text; rename it");
  doctor_add(&found, DOCTOR_ERROR, "MPI", "\"quoted\"; cure");
  json_t *all = doctor_json(&found, 3);
  ck_assert_ptr_nonnull(all);
  const json_t *lines = json_object_get(all, "findings");
  ck_assert_int_eq(json_integer_value(json_object_get(all, "ranks")), 3);
  ck_assert_int_eq(json_integer_value(json_object_get(all, "errors")), 1);
  ck_assert_int_eq(json_integer_value(json_object_get(all, "warnings")), 1);
  ck_assert_int_eq(json_integer_value(json_object_get(all, "exit_code")), 11);
  ck_assert_uint_eq(json_array_size(lines), 2);
  ck_assert(json_is_null(json_object_get(json_array_get(lines, 0), "text")));
  ck_assert_str_eq(json_string_value(json_object_get(json_array_get(lines, 1), "text")), "\"quoted\"; cure");
  ck_assert_str_eq(json_string_value(json_object_get(json_array_get(lines, 1), "level")), "error");
  json_decref(all);
}
END_TEST

START_TEST(test_bytes) {
  char text[DOCTOR_BYTES_MAX];
  ck_assert_str_eq(doctor_bytes(0, text), "0 bytes");
  ck_assert_str_eq(doctor_bytes(999, text), "999 bytes");
  ck_assert_str_eq(doctor_bytes(1500, text), "1.5 kB");
  ck_assert_str_eq(doctor_bytes(24.1e9, text), "24.1 GB");
  ck_assert_str_eq(doctor_bytes(512e12, text), "512 TB");
  ck_assert_str_eq(doctor_bytes(9e18, text), "9000 PB");
}
END_TEST

/* ---- libraries ---- */

static doctor_blas sound_blas(void) {
  return (doctor_blas){.config = "OpenBLAS 0.3.21 DYNAMIC_ARCH NO_AFFINITY SkylakeX MAX_THREADS=64",
                       .core = "SkylakeX",
                       .pool = DOCTOR_POOL_PTHREAD,
                       .n_threads = 1,
                       .c_calls = "/usr/lib/openblas-pthread/libopenblasp-r0.3.21.so",
                       .fortran_calls = "/usr/lib/openblas-pthread/libopenblasp-r0.3.21.so",
                       .sets_threads = "/usr/lib/openblas-pthread/libopenblasp-r0.3.21.so",
                       .library = {"/usr/lib/openblas-pthread/libopenblasp-r0.3.21.so",
                                   "/usr/lib/openblas-pthread/libblas.so.3", "/usr/lib/libgomp.so.1.0.0"},
                       .n_libraries = 3};
}

START_TEST(test_blas) {
  doctor_blas blas = sound_blas();
  doctor_check_blas(&blas, &found);
  assert_line(DOCTOR_OK, "BLAS", "OpenBLAS 0.3.21, SkylakeX kernels, pthread threads (1 a rank), /usr/lib/openblas");
  snprintf(blas.fortran_calls, sizeof blas.fortran_calls, "/usr/lib/blas/libblas.so.3.11.0");
  doctor_check_blas(&blas, &found);
  assert_line(DOCTOR_WARNING, "BLAS", "ScaLAPACK and LAPACK compute by /usr/lib/blas/libblas.so.3.11.0");
  snprintf(blas.c_calls, sizeof blas.c_calls, "/usr/lib/blas/libblas.so.3.11.0");
  doctor_check_blas(&blas, &found);
  assert_line(DOCTOR_ERROR, "BLAS", "products are computed by /usr/lib/blas/libblas.so.3.11.0, while threads are set");
  blas = sound_blas();
  blas.pool = DOCTOR_POOL_NONE;
  doctor_check_blas(&blas, &found);
  assert_line(DOCTOR_OK, "BLAS", "no threads (1 a rank)");
  blas.n_threads = 2;
  doctor_check_blas(&blas, &found);
  assert_line(DOCTOR_WARNING, "BLAS", "has no threads, and 2 are wanted");
}
END_TEST

static void load(doctor_blas *blas, const char *path) {
  snprintf(blas->library[blas->n_libraries++], DOCTOR_PATH_MAX, "%s", path);
}

START_TEST(test_pools) {
  doctor_blas blas = sound_blas();
  doctor_check_pools(&blas, &found);
  assert_line(DOCTOR_OK, "thread pools", "none: 1 thread a rank");
  blas.n_threads = 4;
  doctor_check_pools(&blas, &found);
  assert_line(DOCTOR_WARNING, "thread pools", "OpenBLAS has 4 pthreads and oneDNN as many of OpenMP");
  blas.pool = DOCTOR_POOL_OPENMP;
  doctor_check_pools(&blas, &found);
  assert_line(DOCTOR_OK, "thread pools", "one");
  load(&blas, "/usr/lib/blas/libblas.so.3.11.0");
  doctor_check_pools(&blas, &found);
  ck_assert_ptr_null(strstr(found.line[0].text, "3.11.0")); /* OpenBLAS's own libblas stands before it */
  forget();
  blas = sound_blas();
  snprintf(blas.library[1], DOCTOR_PATH_MAX, "/usr/lib/blas/libblas.so.3.11.0");
  doctor_check_pools(&blas, &found);
  assert_line(DOCTOR_OK, "thread pools", "loaded, and not called: /usr/lib/blas/libblas.so.3.11.0");
}
END_TEST

START_TEST(test_second_libraries) {
  static const char *const paths[] = {"/usr/lib/openblas-openmp/libopenblaso-r0.3.21.so", "/opt/mkl/libmkl_rt.so.2",
                                      "/usr/lib/llvm/libomp.so.5", "/opt/intel/libiomp5.so"};
  static const char *const words[] = {"two OpenBLAS are loaded", "/opt/mkl/libmkl_rt.so.2 is loaded beside",
                                      "/usr/lib/llvm/libomp.so.5 is loaded beside", "/opt/intel/libiomp5.so is loaded"};
  for (int i = 0; i < 4; i++) {
    doctor_blas blas = sound_blas();
    load(&blas, paths[i]);
    doctor_check_pools(&blas, &found);
    assert_line(DOCTOR_WARNING, "thread pools", words[i]);
  }
  doctor_blas twice = sound_blas();
  load(&twice, twice.library[0]); /* one file under two names */
  doctor_check_pools(&twice, &found);
  assert_line(DOCTOR_OK, "thread pools", "none");
}
END_TEST

/* This process's own: the test is linked as the program is. */
START_TEST(test_blas_of_this_process) {
  doctor_blas blas;
  doctor_blas_ask(1, &blas);
  ck_assert_int_eq(blas.n_threads, 1);
  ck_assert_ptr_nonnull(strstr(blas.config, "OpenBLAS"));
  ck_assert_ptr_nonnull(strstr(blas.c_calls, "openblas"));
  ck_assert_str_eq(blas.c_calls, blas.sets_threads);
  ck_assert_int_eq(access(blas.c_calls, R_OK), 0);
  ck_assert_int_ge(blas.n_libraries, 1);
}
END_TEST

START_TEST(test_convolutions) {
  doctor_check_convolutions("auto", &found);
  ck_assert_int_eq(found.line[0].level, DOCTOR_OK);
  forget();
  doctor_check_convolutions("plain", &found);
  assert_line(DOCTOR_OK, "convolutions", "plain loops");
}
END_TEST

START_TEST(test_units) {
  doctor_units all = {.there = "amx, avx512-bf16, avx2, portable", .chosen = "amx", .has_amx = true, .isa = "some_isa"};
  doctor_check_units(&all, &found);
  assert_line(DOCTOR_OK, "matrix units", "the kernel permits AMX; oneDNN uses some_isa; none is in use, all is fp32");
  snprintf(all.asked, sizeof all.asked, "apply_precision");
  doctor_check_units(&all, &found);
  assert_line(DOCTOR_OK, "matrix units", "in use: amx");
  snprintf(all.chosen, sizeof all.chosen, "avx512-bf16");
  doctor_check_units(&all, &found);
  assert_line(DOCTOR_OK, "matrix units", "in use: avx512-bf16");
  snprintf(all.chosen, sizeof all.chosen, "avx2");
  doctor_check_units(&all, &found);
  assert_line(DOCTOR_WARNING, "matrix units",
              "apply_precision asks for bf16, for which avx2 has no instructions: fp32 is faster; leave it at fp32, or "
              "matrix_unit at auto");
  doctor_units old = {.there = "avx2, portable", .chosen = "avx2", .asked = "train_precision"};
  doctor_check_units(&old, &found);
  ck_assert_ptr_null(strstr(found.line[0].text, "matrix_unit"));
  assert_line(DOCTOR_WARNING, "matrix units", "train_precision asks for bf16, for which avx2 has no instructions");
  old.asked[0] = '\0';
  doctor_check_units(&old, &found);
  ck_assert_ptr_null(strstr(found.line[0].text, "AMX"));
  assert_line(DOCTOR_OK, "matrix units", "avx2, portable; none is in use, all is fp32");
  old.has_amx = true;
  doctor_check_units(&old, &found);
  assert_line(DOCTOR_WARNING, "matrix units",
              "avx2, portable; the processor has AMX, and the kernel does not permit it");
  cv_fail(&old.none, CURVD_ERR_OPTION, "no such unit; there are others");
  doctor_check_units(&old, &found);
  assert_line(DOCTOR_ERROR, "matrix units", "no such unit");
}
END_TEST

/* ---- machine ---- */

START_TEST(test_fields) {
  char value[32];
  ck_assert(
      doctor_field("processor\t: 0\nmodel name\t: Intel(R) Xeon(R)\nmodel\t\t: 5\n", "model", value, sizeof value));
  ck_assert_str_eq(value, "5");
  ck_assert(doctor_field("MemTotal:  9 kB\nMemAvailable:   2345 kB", "MemAvailable", value, sizeof value));
  ck_assert_str_eq(value, "2345 kB");
  ck_assert(!doctor_field("MemTotal: 9 kB\n", "MemAvailable", value, sizeof value));
  ck_assert_str_eq(value, "");
  ck_assert(!doctor_field("", "x", value, sizeof value));
  ck_assert(doctor_choice("always [madvise] never", value, sizeof value));
  ck_assert_str_eq(value, "madvise");
  ck_assert(!doctor_choice("always madvise never", value, sizeof value));
  ck_assert(!doctor_choice("always [madvise never", value, sizeof value));
}
END_TEST

START_TEST(test_cgroups) {
  char path[64];
  static const char both[] = "12:cpu,memory:/slurm/job_7\n4:memory_migrate:/no\n1:name=systemd:/x\n0::/user.slice/a:b";
  ck_assert(doctor_cgroup(both, "memory", path, sizeof path));
  ck_assert_str_eq(path, "/slurm/job_7");
  ck_assert(doctor_cgroup(both, "", path, sizeof path));
  ck_assert_str_eq(path, "/user.slice/a:b");
  ck_assert(!doctor_cgroup("4:memory_migrate:/no\n", "memory", path, sizeof path));
  ck_assert(!doctor_cgroup("4:memory:/no\n", "", path, sizeof path));
  ck_assert(!doctor_cgroup("", "memory", path, sizeof path));
  ck_assert(!doctor_cgroup("junk", "memory", path, sizeof path));
}
END_TEST

START_TEST(test_left_in_a_cgroup) {
  ck_assert_int_eq(doctor_left("1000", "300", "", "inactive_file"), 700);
  ck_assert_int_eq(doctor_left("1000", "1300", "", "inactive_file"), 0);
  ck_assert_int_eq(doctor_left("1000", "", "", "inactive_file"), 1000);
  ck_assert_int_eq(doctor_left("max", "300", "", "inactive_file"), -1);
  ck_assert_int_eq(doctor_left("9223372036854771712", "300", "", "inactive_file"), -1); /* version 1: no limit */
  ck_assert_int_eq(doctor_left("", "", "", "inactive_file"), -1);
}
END_TEST

/* Cached files fill a group up to its limit, and are given up as soon as somebody wants the memory. */
START_TEST(test_left_in_a_cgroup_with_cached_files) {
  static const char second[] = "anon 200\nfile 700\ninactive_anon 50\ninactive_file 600\nactive_file 100\n",
                    first[] = "cache 7\ninactive_file 10\ntotal_cache 700\ntotal_inactive_file 500";
  ck_assert_int_eq(doctor_left("1000", "1000", second, "inactive_file"), 600);
  ck_assert_int_eq(doctor_left("1000", "1000", first, "total_inactive_file"), 500);
  ck_assert_int_eq(doctor_left("1000", "400", second, "inactive_file"), 1000); /* not read at the same moment */
  ck_assert_int_eq(doctor_left("max", "1000", second, "inactive_file"), -1);
  ck_assert_int_eq(doctor_left("1000", "900", "inactive_file", "inactive_file"), 100);
  ck_assert_int_eq(doctor_left("1000", "900", "inactive_file -7", "inactive_file"), 100);
}
END_TEST

START_TEST(test_processor_and_clock) {
  doctor_processor p = {.model = "Xeon", .governor = "powersave", .clock_source = "tsc", .clock_step_s = 2e-8};
  doctor_check_processor(&p, &found);
  assert_line(DOCTOR_OK, "processor", "Xeon; frequency governor powersave, huge pages unknown");
  doctor_check_clock(&p, &found);
  assert_line(DOCTOR_OK, "clock", "tsc, steps below 1 us");
  p.clock_step_s = 4e-3;
  doctor_check_clock(&p, &found);
  assert_line(DOCTOR_WARNING, "clock", "tsc, steps of 4000 us: too coarse");
}
END_TEST

static doctor_rank remembers(const char *host, int64_t plan, int64_t left) {
  doctor_rank r = {.plan_bytes = plan, .free_bytes = left};
  snprintf(r.host, sizeof r.host, "%s", host);
  return r;
}

START_TEST(test_memory) {
  doctor_rank rank[] = {remembers("n0", 1000000, 9000000), remembers("n1", 3000000, 9000000),
                        remembers("n1", 3000000, 8000000)};
  doctor_check_memory(rank, 3, &found);
  assert_line(DOCTOR_OK, "memory", "takes 6.0 MB of 8.0 MB that are free on n1");
  rank[2].plan_bytes = 4000000;
  doctor_check_memory(rank, 3, &found);
  assert_line(DOCTOR_WARNING, "memory", "takes 7.0 MB of 8.0 MB that are free on n1");
  rank[2].plan_bytes = 6000000;
  doctor_check_memory(rank, 3, &found);
  assert_line(DOCTOR_ERROR, "memory", "takes 9.0 MB of 8.0 MB that are free on n1");
  rank[0].free_bytes = 0;
  doctor_check_memory(rank, 3, &found);
  assert_line(DOCTOR_ERROR, "memory", "of 0 bytes that are free on n0");
  rank[0].free_bytes = rank[1].free_bytes = rank[2].free_bytes = -1;
  doctor_check_memory(rank, 3, &found);
  assert_line(DOCTOR_OK, "memory", "does not tell what is free");
  doctor_rank unplanned = remembers("n0", 0, 5000000);
  doctor_check_memory(&unplanned, 1, &found);
  assert_line(DOCTOR_OK, "memory", "5.0 MB free on n0; without a plan");
}
END_TEST

/* ---- network ---- */

static const doctor_interface lo = {"lo", "127.0.0.1", true, true, 0}, eth = {"eth0", "10.0.0.5", true, false, 25000},
                              ib = {"ib0", "10.1.0.5", true, false, 0}, down = {"eth1", "10.2.0.5", false, false, 0},
                              docker = {"docker0", "172.17.0.1", true, false, 0};

START_TEST(test_interfaces) {
  static const char by_default[] = "127.0.0.1/8,sppp"; /* Open MPI's own */
  ck_assert(doctor_interface_is_allowed(&eth, "", by_default));
  ck_assert(!doctor_interface_is_allowed(&lo, "", by_default));
  ck_assert(!doctor_interface_is_allowed(&down, "", by_default));
  ck_assert(!doctor_interface_is_allowed(&down, "eth1", by_default));
  ck_assert(doctor_interface_is_allowed(&ib, "eth0,ib0", by_default));
  ck_assert(!doctor_interface_is_allowed(&ib, "eth0,ib01", by_default));
  ck_assert(!doctor_interface_is_allowed(&ib, "ib", by_default));
  ck_assert(doctor_interface_is_allowed(&ib, "10.1.0.0/16", by_default));
  ck_assert(!doctor_interface_is_allowed(&eth, "10.1.0.0/16", by_default));
  ck_assert(doctor_interface_is_allowed(&eth, "0.0.0.0/0", by_default));
  ck_assert(doctor_interface_is_allowed(&eth, "10.0.0.5/32", by_default));
  ck_assert(!doctor_interface_is_allowed(&eth, "10.0.0.4/32", by_default));
  ck_assert(!doctor_interface_is_allowed(&eth, "10.0.0.0/33", by_default));
  ck_assert(!doctor_interface_is_allowed(&eth, "10.0.0/8", by_default));
  ck_assert(!doctor_interface_is_allowed(&eth, "", "eth0"));
  ck_assert(doctor_interface_is_allowed(&lo, "lo", by_default)); /* as told */
}
END_TEST

START_TEST(test_network) {
  doctor_network n = {.pml = "ob1", .interface = {lo, eth, down}, .n_interfaces = 3};
  doctor_check_network(&n, 1, &found);
  assert_line(DOCTOR_OK, "network", "not used: one host");
  doctor_check_network(&n, 2, &found);
  assert_line(DOCTOR_OK, "network", "TCP by eth0 (25 Gbit/s)");
  n.interface[2] = docker;
  doctor_check_network(&n, 2, &found);
  assert_line(DOCTOR_WARNING, "network", "TCP may take docker0");
  doctor_check_network(&n, 2, &found);
  assert_line(DOCTOR_WARNING, "network", "OMPI_MCA_btl_tcp_if_include=eth0");
  snprintf(n.include, sizeof n.include, "eth0");
  doctor_check_network(&n, 2, &found);
  assert_line(DOCTOR_OK, "network", "TCP by eth0");
  snprintf(n.include, sizeof n.include, "lo,eth0");
  doctor_check_network(&n, 2, &found);
  assert_line(DOCTOR_WARNING, "network", "TCP may take lo, which does not lead to other hosts, of: lo, eth0");
  snprintf(n.include, sizeof n.include, "ib0");
  doctor_check_network(&n, 2, &found);
  assert_line(DOCTOR_ERROR, "network", "no interface for messages to other hosts: btl_tcp_if_include is ib0;");
  snprintf(n.pml, sizeof n.pml, "ucx");
  doctor_check_network(&n, 2, &found);
  assert_line(DOCTOR_OK, "network", "chosen by ucx");
}
END_TEST

START_TEST(test_shared_memory) {
  doctor_network n = {.pml = "ob1", .copy = "cma"};
  doctor_check_shared_memory(&n, 2, &found);
  assert_line(DOCTOR_OK, "shared memory", "single copies (cma)");
  n.copy_errno = EPERM;
  doctor_check_shared_memory(&n, 2, &found);
  assert_line(DOCTOR_WARNING, "shared memory", "OMPI_MCA_btl_vader_single_copy_mechanism=none");
  doctor_check_shared_memory(&n, 1, &found);
  assert_line(DOCTOR_OK, "shared memory", "not used");
  static const char *const twice[] = {"none", "emulated"};
  for (int i = 0; i < 2; i++) {
    n = (doctor_network){.pml = "ob1"};
    snprintf(n.copy, sizeof n.copy, "%s", twice[i]);
    doctor_check_shared_memory(&n, 2, &found);
    assert_line(DOCTOR_WARNING, "shared memory", "every message is copied twice");
  }
  n = (doctor_network){.pml = "ucx"};
  doctor_check_shared_memory(&n, 2, &found);
  assert_line(DOCTOR_OK, "shared memory", "by ucx");
}
END_TEST

/* ---- folder ---- */

START_TEST(test_folder) {
  doctor_folder f = {.path = "/data/runs", .kind = 0x0BD00BD0, .sync_s = 0.02, .free_bytes = 5000000};
  doctor_check_folder(&f, 1e6, &found);
  assert_line(DOCTOR_OK, "run folder",
              "/data/runs: lustre, 5.0 MB left, a small file safe within 100 ms, page cache passed by");
  f.direct_errno = EINVAL;
  doctor_check_folder(&f, 1e6, &found);
  ck_assert_ptr_null(strstr(found.line[0].text, "passed by"));
  assert_line(DOCTOR_OK, "run folder", "lustre");
  doctor_check_folder(&f, 6e6, &found);
  assert_line(DOCTOR_WARNING, "run folder", "has 5.0 MB left, and checkpoints take about 6.0 MB");
  f.sync_s = 0.7;
  doctor_check_folder(&f, 1e6, &found);
  assert_line(DOCTOR_WARNING, "run folder", "a small file is safe after 0.7 s");
  f.sync_s = 0, f.kind = 0x01021994;
  doctor_check_folder(&f, 1e6, &found);
  assert_line(DOCTOR_WARNING, "run folder", "is tmpfs: checkpoints are lost with the machine's memory");
  f.kind = 0x794C7630;
  doctor_check_folder(&f, 1e6, &found);
  assert_line(DOCTOR_WARNING, "run folder", "is overlay: checkpoints are lost with the container");
  f.write_errno = EROFS;
  doctor_check_folder(&f, 1e6, &found);
  assert_line(DOCTOR_ERROR, "run folder", "cannot be written: Read-only file system");
}
END_TEST

START_TEST(test_sharing) {
  doctor_folder f = {.path = "/tmp/runs"};
  doctor_check_sharing(DOCTOR_FOLDER_SEEN, "n0", 2, &f, &found);
  assert_line(DOCTOR_OK, "shared folder", "seen by all 2 hosts");
  doctor_check_sharing(DOCTOR_FOLDER_SEEN, "n0", 1, &f, &found);
  assert_line(DOCTOR_OK, "shared folder", "1 host");
  doctor_check_sharing(3, "n1", 2, &f, &found);
  assert_line(DOCTOR_ERROR, "shared folder", "/tmp/runs: rank 3 on n1 does not see");
  doctor_check_sharing(DOCTOR_FOLDER_UNWRITTEN, "n0", 2, &f, &found);
  assert_line(DOCTOR_OK, "shared folder", "not tried");
}
END_TEST

static int count_entries(const char *path) {
  DIR *folder = opendir(path);
  int n = 0;
  ck_assert_ptr_nonnull(folder);
  while (readdir(folder)) n++;
  closedir(folder);
  return n - 2; /* . and .. */
}

START_TEST(test_asking_a_folder) {
  char path[] = "/tmp/doctor-XXXXXX", inside[64];
  doctor_folder f;
  ck_assert_ptr_nonnull(mkdtemp(path));
  snprintf(inside, sizeof inside, "%s/not/yet/there/", path);
  doctor_folder_ask(inside, &f);
  ck_assert_str_eq(f.path, path);
  ck_assert_int_eq(f.write_errno, 0);
  ck_assert(f.sync_s > 0 && f.free_bytes > 0 && f.kind != 0);
  ck_assert_int_eq(count_entries(path), 0);
  rmdir(path);
  doctor_folder_ask("/proc/nowhere", &f);
  ck_assert_str_eq(f.path, "/proc");
  ck_assert_int_ne(f.write_errno, 0);
  ck_assert_str_eq(doctor_file_system(0x12345), "of an unknown kind");
}
END_TEST

/* ---- transfers ---- */

START_TEST(test_skew) {
  doctor_skew skew = {.seconds = -0.004, .within = 1e-4, .rank = 2};
  doctor_check_skew(&skew, 1, "n0", &found);
  assert_line(DOCTOR_OK, "clocks", "1 host");
  doctor_check_skew(&skew, 2, "n1", &found);
  assert_line(DOCTOR_OK, "clocks", "at most 4 ms apart (n1; known to 0.1 ms)");
  skew.seconds = -60;
  doctor_check_skew(&skew, 2, "n1", &found);
  assert_line(DOCTOR_WARNING, "clocks", "the clock of n1 is 60.0 s behind");
  skew.seconds = 60;
  doctor_check_skew(&skew, 2, "n1", &found);
  assert_line(DOCTOR_WARNING, "clocks", "the clock of n1 is 60.0 s before");
}
END_TEST

START_TEST(test_overlap) {
  doctor_overlap o = {.is_tried = true, .share = 0.98, .by = CURVD_PROGRESS_THREAD};
  doctor_check_overlap(&o, MPI_THREAD_MULTIPLE, false, &found);
  assert_line(DOCTOR_OK, "overlap", "98 % of a transfer hides behind products, moved on by a thread");
  o = (doctor_overlap){.is_tried = true, .share = 0.49, .by = CURVD_PROGRESS_TEST};
  doctor_check_overlap(&o, MPI_THREAD_MULTIPLE, false, &found);
  assert_line(DOCTOR_WARNING, "overlap", "49 % of a transfer hides behind products, moved on by calls of the program");
  doctor_check_overlap(&o, MPI_THREAD_FUNNELED, false, &found);
  assert_line(DOCTOR_WARNING, "overlap", "an MPI with MPI_THREAD_MULTIPLE");
  doctor_check_overlap(&o, MPI_THREAD_FUNNELED, true, &found);
  assert_line(DOCTOR_WARNING, "overlap", "give every rank a core of its own");
  o.share = -1;
  doctor_check_overlap(&o, MPI_THREAD_MULTIPLE, false, &found);
  assert_line(DOCTOR_OK, "overlap", "too short to measure");
  o.is_tried = false;
  doctor_check_overlap(&o, MPI_THREAD_MULTIPLE, false, &found);
  assert_line(DOCTOR_OK, "overlap", "not tried");
}
END_TEST

int main(void) {
  const TTest *const tests[] = {test_merge,
                                test_long_texts,
                                test_too_many_lines,
                                test_exit_code,
                                test_print,
                                test_json,
                                test_bytes,
                                test_blas,
                                test_pools,
                                test_second_libraries,
                                test_blas_of_this_process,
                                test_convolutions,
                                test_units,
                                test_fields,
                                test_cgroups,
                                test_left_in_a_cgroup,
                                test_left_in_a_cgroup_with_cached_files,
                                test_processor_and_clock,
                                test_memory,
                                test_interfaces,
                                test_network,
                                test_shared_memory,
                                test_folder,
                                test_sharing,
                                test_asking_a_folder,
                                test_skew,
                                test_overlap};
  return suite_run("doctor", tests, sizeof tests / sizeof tests[0], forget);
}

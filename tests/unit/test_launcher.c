/* Who started this process, by made-up environments. Those of SLURM are what SLURM 22.05 sets (srun, sbatch, salloc,
 * heterogeneous steps), as its own cluster showed them. */
#include "train/launcher.h"

#include "suite.h"

#include <stdio.h>
#include <string.h>

typedef struct pair {
  const char *name, *value;
} pair;

static const char *look_up(void *user, const char *name) {
  for (const pair *p = user; p->name; p++)
    if (strcmp(p->name, name) == 0) return p->value;
  return NULL;
}

/* The launcher of an environment of these pairs. */
#define FIND(...) launcher_find(look_up, (void *)(pair[]){__VA_ARGS__, {NULL, NULL}})

static cv_error err;

static curvd_status check(const launcher *l, int n_ranks) {
  err = (cv_error){0};
  return launcher_check(l, n_ranks, "Open MPI v4.1.4, package: Debian OpenMPI, ident: 4.1.4", &err);
}

static void assert_found(const launcher *l, launcher_kind kind, int64_t n_ranks, int64_t rank) {
  ck_assert_int_eq(l->kind, kind);
  ck_assert_int_eq(l->n_ranks, n_ranks);
  ck_assert_int_eq(l->rank, rank);
}

static void assert_said(const char *words) {
  ck_assert_int_eq(err.code, CURVD_ERR_LAYOUT);
  ck_assert_msg(strstr(err.text, words) != NULL, "not '%s' in '%s'", words, err.text);
}

/* ---- mpirun and others ---- */

START_TEST(test_nobody) {
  launcher l = FIND({"HOME", "/root"});
  assert_found(&l, LAUNCHER_NONE, 0, -1);
  ck_assert(!launcher_has_ranks(&l));
  ck_assert_int_eq(l.job_tasks, 0);
  ck_assert_int_eq(check(&l, 1), CURVD_OK);
  ck_assert_str_eq(launcher_name(&l), "none");
}
END_TEST

START_TEST(test_mpirun) {
  launcher l = FIND({"OMPI_COMM_WORLD_SIZE", "3"}, {"OMPI_COMM_WORLD_RANK", "2"}, {"PMIX_NAMESPACE", "1"},
                    {"PMIX_RANK", "2"}, {"PMIX_VERSION", "4.2.2"});
  assert_found(&l, LAUNCHER_MPIRUN, 3, 2);
  ck_assert_str_eq(l.pmix_version, "4.2.2");
  ck_assert(launcher_has_ranks(&l));
  ck_assert_int_eq(check(&l, 3), CURVD_OK);
  ck_assert_int_eq(check(&l, 4), CURVD_OK); /* spawned ones */
  ck_assert_int_eq(check(&l, 2), CURVD_ERR_LAYOUT);
  ck_assert_int_eq(check(&l, 1), CURVD_ERR_LAYOUT);
  assert_said("mpirun started 3 ranks, but MPI has 1 in this world");
  assert_said("Open MPI v4.1.4;"); /* no more of its words */
}
END_TEST

START_TEST(test_other_launchers) {
  launcher l = FIND({"PMI_SIZE", "8"}, {"PMI_RANK", "5"});
  assert_found(&l, LAUNCHER_PMI, 8, 5);
  ck_assert(launcher_has_ranks(&l));
  ck_assert_int_eq(check(&l, 8), CURVD_OK);
  ck_assert_int_eq(check(&l, 1), CURVD_ERR_LAYOUT);
  assert_said("an mpiexec that speaks PMI (MPICH, Intel MPI) started 8 ranks");
  l = FIND({"PMIX_NAMESPACE", "prte"}, {"PMIX_RANK", "4"});
  assert_found(&l, LAUNCHER_PMIX, 0, 4);
  ck_assert(launcher_has_ranks(&l));
  ck_assert_int_eq(check(&l, 1), CURVD_OK); /* it promised no number */
}
END_TEST

START_TEST(test_words_that_are_no_numbers) {
  static const char *const bad[] = {"", "three", "0", "-2", "3x", "99999999999999999999"};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    launcher l = FIND({"OMPI_COMM_WORLD_SIZE", bad[i]}, {"SLURM_STEP_NUM_TASKS", bad[i]}, {"SLURM_PROCID", "0"},
                      {"PMI_SIZE", bad[i]});
    assert_found(&l, LAUNCHER_NONE, 0, -1);
    ck_assert_int_eq(check(&l, 1), CURVD_OK);
  }
}
END_TEST

/* ---- SLURM ---- */

#define STEP(task, node, tasks_here)                                                                                   \
  {"SLURM_JOB_ID", "8"}, {"SLURM_STEP_ID", "0"}, {"SLURM_NTASKS", "4"}, {"SLURM_STEP_NUM_TASKS", "4"},                 \
      {"SLURM_STEP_TASKS_PER_NODE", "2(x2)"}, {"SLURM_TASKS_PER_NODE", "2(x2)"}, {"SLURM_PROCID", task},               \
      {"SLURM_NODEID", node}, {                                                                                        \
    "SLURM_GTIDS", tasks_here                                                                                          \
  }

START_TEST(test_srun_without_pmix) {
  launcher l = FIND(STEP("2", "1", "2,3"));
  assert_found(&l, LAUNCHER_SRUN, 4, 2);
  ck_assert(launcher_has_ranks(&l) && launcher_needs_pmi(&l) && !launcher_is_alone_in_step(&l));
  ck_assert_int_eq(check(&l, 1), CURVD_ERR_LAYOUT);
  assert_said("srun started 4 tasks, but MPI has 1 in this world");
  assert_said("`srun --mpi=pmix` (`srun --mpi=list` has to show pmix), or by mpirun inside of the job");
  err = (cv_error){0};
  ck_assert_int_eq(launcher_failed_without_pmi(&l, &err), CURVD_ERR_LAYOUT);
  assert_said("`srun --mpi=pmix`");
}
END_TEST

START_TEST(test_srun_with_pmix) {
  launcher l = FIND(STEP("3", "1", "2,3"), {"PMIX_NAMESPACE", "slurm.pmix.8.0"}, {"PMIX_RANK", "3"});
  assert_found(&l, LAUNCHER_SRUN, 4, 3);
  ck_assert(launcher_has_ranks(&l) && !launcher_needs_pmi(&l) && !launcher_is_alone_in_step(&l));
  ck_assert_int_eq(check(&l, 4), CURVD_OK);
  ck_assert_int_eq(check(&l, 1), CURVD_ERR_LAYOUT); /* an MPI that does not understand it */
  ck_assert(!l.has_ring);
  ck_assert(FIND(STEP("3", "1", "2,3"), {"SLURM_PMIX_FENCE", "ring"}).has_ring);
  ck_assert(!FIND(STEP("3", "1", "2,3"), {"SLURM_PMIX_FENCE", "tree"}).has_ring);
}
END_TEST

/* Steps count the tasks and nodes of all components. */
START_TEST(test_srun_of_a_heterogeneous_job) {
  static const char *const tasks[][3] = {{"0", "0", "0"}, {"2", "1", "1,2"}, {"3", "2", "3"}}; /* task, node, GTIDS */
  for (int i = 0; i < 3; i++) {
    launcher l = FIND({"SLURM_JOB_ID", "9"}, {"SLURM_STEP_ID", "1"}, {"SLURM_HET_SIZE", "2"}, {"SLURM_NTASKS", "4"},
                      {"SLURM_STEP_NUM_TASKS", "4"}, {"SLURM_STEP_TASKS_PER_NODE", "1,2,1"},
                      {"SLURM_PROCID", tasks[i][0]}, {"SLURM_NODEID", tasks[i][1]}, {"SLURM_GTIDS", tasks[i][2]});
    ck_assert_int_eq(l.kind, LAUNCHER_SRUN);
    ck_assert_int_eq(l.n_ranks, 4);
  }
}
END_TEST

START_TEST(test_batch_script) {
  launcher l =
      FIND({"ENVIRONMENT", "BATCH"}, {"SLURM_JOB_ID", "6"}, {"SLURM_NTASKS", "3"}, {"SLURM_NPROCS", "3"},
           {"SLURM_PROCID", "0"}, {"SLURM_NODEID", "0"}, {"SLURM_GTIDS", "0"}, {"SLURM_TASKS_PER_NODE", "2,1"});
  assert_found(&l, LAUNCHER_NONE, 0, -1);
  ck_assert_int_eq(l.job_tasks, 3);
  ck_assert(!launcher_has_ranks(&l) && !launcher_needs_pmi(&l) && !launcher_is_alone_in_step(&l));
  ck_assert_int_eq(check(&l, 1), CURVD_OK);
}
END_TEST

START_TEST(test_mpirun_in_a_batch_script_and_in_a_step) {
  launcher l = FIND(STEP("0", "0", "0,1"), {"OMPI_COMM_WORLD_SIZE", "2"}, {"OMPI_COMM_WORLD_RANK", "1"});
  assert_found(&l, LAUNCHER_MPIRUN, 2, 1);
  ck_assert(!launcher_needs_pmi(&l) && !launcher_is_alone_in_step(&l));
  ck_assert_int_eq(check(&l, 2), CURVD_OK);
}
END_TEST

/* `srun --pty bash`, and the shell of salloc where it is a step: one task. */
START_TEST(test_shell_in_a_step) {
  launcher l =
      FIND({"SLURM_JOB_ID", "8"}, {"SLURM_STEP_ID", "4294967290"}, {"SLURM_NTASKS", "4"}, {"SLURM_STEP_NUM_TASKS", "1"},
           {"SLURM_STEP_TASKS_PER_NODE", "1"}, {"SLURM_PROCID", "0"}, {"SLURM_NODEID", "0"}, {"SLURM_GTIDS", "0"});
  assert_found(&l, LAUNCHER_SRUN, 1, 0);
  ck_assert(!launcher_has_ranks(&l) && !launcher_needs_pmi(&l) && launcher_is_alone_in_step(&l));
  ck_assert_int_eq(check(&l, 1), CURVD_OK);
}
END_TEST

/* A job that was submitted by a task of a step has what that task had; SLURM replaces the rest. */
START_TEST(test_batch_script_from_a_step) {
  static const char *const steps[][2] = {{"3", "2,1"}, {"4", "4"}, {"8", "4(x2)"}, {"8", "2(x3),1(x2)"}};
  for (int i = 0; i < 4; i++) {
    launcher l = FIND({"SLURM_JOB_ID", "7"}, {"SLURM_STEP_ID", "2"}, {"SLURM_STEP_NUM_TASKS", steps[i][0]},
                      {"SLURM_STEP_TASKS_PER_NODE", steps[i][1]}, {"SLURM_NTASKS", "1"}, {"SLURM_PROCID", "0"},
                      {"SLURM_NODEID", "0"}, {"SLURM_GTIDS", "0"});
    ck_assert_int_eq(l.kind, LAUNCHER_NONE);
    ck_assert(!launcher_needs_pmi(&l) && launcher_is_alone_in_step(&l));
    ck_assert_int_eq(check(&l, 1), CURVD_OK);
  }
}
END_TEST

/* The step had one task on each node, as every batch script has, but more nodes than the job. */
START_TEST(test_batch_script_of_fewer_nodes_than_the_step) {
  static const char *const tasks[] = {"1", "2"}; /* sbatch -n 1, and without -n: inherited */
  for (int i = 0; i < 2; i++) {
    launcher l =
        FIND({"SLURM_JOB_ID", "9"}, {"SLURM_STEP_ID", "0"}, {"SLURM_NTASKS", tasks[i]}, {"SLURM_STEP_NUM_TASKS", "2"},
             {"SLURM_STEP_TASKS_PER_NODE", "1(x2)"}, {"SLURM_PROCID", "0"}, {"SLURM_NODEID", "0"}, {"SLURM_GTIDS", "0"},
             {"SLURM_STEP_NUM_NODES", "2"}, {"SLURM_JOB_NUM_NODES", "1"}, {"SLURM_TASKS_PER_NODE", "1"});
    assert_found(&l, LAUNCHER_NONE, 0, -1);
    ck_assert(!launcher_needs_pmi(&l) && launcher_is_alone_in_step(&l));
    ck_assert_int_eq(check(&l, 1), CURVD_OK);
  }
}
END_TEST

/* Nodes of steps that are there: srun of all nodes, of some, with the job's counts kept, and of several components. */
START_TEST(test_nodes_of_steps) {
  static const struct {
    const char *step_nodes, *job_nodes, *n_tasks, *components;
  } cases[] = {{"2", "2", "2", NULL}, {"2", "4", "2", NULL},  {"2", "2", "4", NULL},
               {"2", "1", "2", "2"},  {"2", NULL, "2", NULL}, {NULL, "1", "2", NULL}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    launcher l = FIND({"SLURM_NTASKS", cases[i].n_tasks}, {"SLURM_STEP_NUM_TASKS", "2"},
                      {"SLURM_STEP_TASKS_PER_NODE", "1(x2)"}, {"SLURM_PROCID", "1"}, {"SLURM_NODEID", "1"},
                      {"SLURM_GTIDS", "1"}, {"SLURM_STEP_NUM_NODES", cases[i].step_nodes},
                      {"SLURM_JOB_NUM_NODES", cases[i].job_nodes}, {"SLURM_HET_SIZE", cases[i].components});
    ck_assert_msg(l.kind == LAUNCHER_SRUN, "case %d: %s", (int)i, launcher_name(&l));
  }
}
END_TEST

/* Tasks of every node of such a step are its tasks; of nodes that it does not have, they are none. */
START_TEST(test_lists_of_tasks) {
  static const struct {
    const char *list, *node, *gtids;
    launcher_kind kind;
  } cases[] = {{"2(x3),1(x2)", "2", "4,5", LAUNCHER_SRUN},
               {"2(x3),1(x2)", "3", "6", LAUNCHER_SRUN},
               {"2(x3),1(x2)", "4", "7", LAUNCHER_SRUN},
               {"2(x3),1(x2)", "5", "7", LAUNCHER_NONE},
               {"2(x3),1(x2)", "3", "6,7", LAUNCHER_NONE},
               {"8", "0", "0,1,2,3,4,5,6,7", LAUNCHER_SRUN},
               {"2(x", "0", "0,1", LAUNCHER_NONE},
               {"x", "0", "0", LAUNCHER_NONE},
               {"", "0", "", LAUNCHER_NONE},
               {"8", "-1", "0", LAUNCHER_SRUN},
               {"8", "0", NULL, LAUNCHER_SRUN},
               {NULL, "0", "0", LAUNCHER_SRUN}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    launcher l =
        FIND({"SLURM_STEP_NUM_TASKS", "8"}, {"SLURM_PROCID", "0"}, {"SLURM_STEP_TASKS_PER_NODE", cases[i].list},
             {"SLURM_NODEID", cases[i].node}, {"SLURM_GTIDS", cases[i].gtids});
    ck_assert_msg(l.kind == cases[i].kind, "case %d: %s", (int)i, launcher_name(&l));
  }
}
END_TEST

START_TEST(test_tasks_out_of_range) {
  launcher l = FIND({"SLURM_STEP_NUM_TASKS", "4"}, {"SLURM_PROCID", "4"});
  ck_assert_int_eq(l.kind, LAUNCHER_NONE);
  l = FIND({"SLURM_STEP_NUM_TASKS", "4"});
  ck_assert_int_eq(l.kind, LAUNCHER_NONE);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {test_nobody,
                                test_mpirun,
                                test_other_launchers,
                                test_words_that_are_no_numbers,
                                test_srun_without_pmix,
                                test_srun_with_pmix,
                                test_srun_of_a_heterogeneous_job,
                                test_batch_script,
                                test_mpirun_in_a_batch_script_and_in_a_step,
                                test_shell_in_a_step,
                                test_batch_script_from_a_step,
                                test_batch_script_of_fewer_nodes_than_the_step,
                                test_nodes_of_steps,
                                test_lists_of_tasks,
                                test_tasks_out_of_range};
  return suite_run("launcher", tests, sizeof tests / sizeof tests[0], NULL);
}

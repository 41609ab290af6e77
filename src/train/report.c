#include "train/report.h"

#include "train/report_environment.h"
#include "train/report_precision.h"
#include "train/report_prediction.h"
#include "train/report_service.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { STAGES = (int)TRAINER_STAGES + (int)CURVD_STAGES };

/* Of the whole run, whatever processes it has had. */
static void record_seconds(const trainer *t, json_t *record) {
  run_record_real(record, "wall_s", t->wall_before_s + trainer_wall_s(t));
  run_record_real(record, "cpu_s", t->cpu_before_s + trainer_cpu_s(t));
}

/* ---- begin ---- */

static curvd_layer_metrics layer_of(const trainer *t, int32_t i) {
  curvd_layer_metrics layer = {.name = "?", .method = "?", .reason = "?"};
  curvd_layer_metrics_read(t->ctx, i, &layer);
  return layer;
}

static void coverage(const trainer *t, run *out) {
  double covered = 0;
  run_line(out, "%-8s %14s  %-13s %6s  %-20s %s", "layer", "shape", "method", "share", "statistics of A, G", "owner");
  for (int32_t i = 0; i < curvd_layer_count(t->ctx); i++) {
    curvd_layer_metrics layer = layer_of(t, i);
    char shape[48], owner[160], carriers[64];
    const char *spread[] = {"", "; A over all owners", "; G over all owners", "; A and G over all owners"};
    snprintf(shape, sizeof shape, "%lld x %lld", (long long)layer.d_out, (long long)layer.d_in + layer.has_bias);
    snprintf(owner, sizeof owner, "rank %d%s", layer.owner,
             spread[(layer.factor[0].ranks > 1) + 2 * (layer.factor[1].ranks > 1)]);
    snprintf(carriers, sizeof carriers, "%s%s%s", layer.factor[0].carrier, layer.factor[1].n > 0 ? ", " : "",
             layer.factor[1].carrier);
    run_line(out, "%-8s %14s  %-13s %5.1f%%  %-20s %s", layer.name, shape, layer.method, 100 * layer.share,
             layer.owner >= 0 ? carriers : "", layer.owner >= 0 ? owner : layer.reason);
    if (layer.owner >= 0) covered += layer.share;
  }
  run_line(out, "%.1f%% of the parameters are preconditioned", 100 * covered);
}

/* ---- while it runs ---- */

void report_step(const trainer *t, run *out, double loss) {
  if (!out->is_open) return;
  curvd_metrics metrics = {0};
  curvd_metrics_read(t->ctx, &metrics);
  json_t *record = run_record_new("step", t->step);
  run_record_real(record, "loss", loss);
  run_record_real(record, "lr", t->lr);
  run_record_real(record, "clip_scale", metrics.clip_scale);
  record_seconds(t, record);
  run_record(out, record);
}

static void set_factor(json_t *record, const char *key, const curvd_factor_metrics *factor, int64_t step) {
  json_t *object = json_object();
  json_object_set_new(object, "n", json_integer(factor->n));
  json_object_set_new(object, "eig_rank", json_integer(factor->eig_rank));
  json_object_set_new(object, "age",
                      factor->statistics_step < 0 ? json_null() : json_integer(step - factor->statistics_step));
  json_object_set_new(object, "refused", json_integer(factor->refused));
  run_record_real(object, "trace", factor->trace);
  run_record_real(object, "lambda_max", factor->lambda_max);
  run_record_real(object, "lambda_min", factor->lambda_min);
  run_record_real(object, "tau", factor->tau);
  run_record_real(object, "missing_trace", factor->missing_trace);
  run_record_real(object, "error_bound", factor->error_bound);
  run_record_real(object, "error_norm", factor->error_norm);
  run_record_real(object, "residual", factor->residual);
  run_record_real(object, "orthogonality", factor->orthogonality);
  run_record_real(object, "drift", factor->drift);
  run_record_real(object, "wire_error_statistics", factor->wire_error_statistics);
  run_record_real(object, "wire_error_basis", factor->wire_error_basis);
  run_record_real(object, "refresh_s", factor->refresh_s);
  json_object_set_new(object, "carrier", json_string(factor->carrier));
  json_object_set_new(object, "store", json_string(factor->store));
  json_object_set_new(object, "products", json_integer(factor->products));
  json_object_set_new(object, "ranks", json_integer(factor->ranks));
  run_record_real(object, "damping", factor->damping);
  json_object_set_new(record, key, object);
}

static void record_layers(const trainer *t, run *out) {
  for (int32_t i = 0; i < curvd_layer_count(t->ctx); i++) {
    curvd_layer_metrics layer = layer_of(t, i);
    if (layer.owner < 0) continue;
    json_t *record = run_record_new("layer", t->step);
    json_object_set_new(record, "layer", json_string(layer.name));
    json_object_set_new(record, "owner", json_integer(layer.owner));
    json_object_set_new(record, "apply", json_string(layer.apply));
    run_record_real(record, "owner_s", layer.owner_s);
    run_record_real(record, "direction_rms", layer.direction_rms);
    set_factor(record, "A", &layer.factor[0], t->step);
    if (layer.factor[1].n > 0) set_factor(record, "G", &layer.factor[1], t->step);
    run_record(out, record);
  }
}

void report_epoch(const trainer *t, run *out, const trainer_score *score) {
  if (!out->is_open) return;
  double epoch = (double)t->step / (double)t->steps_per_epoch;
  json_t *record = run_record_new("epoch", t->step);
  run_record_real(record, "epoch", epoch);
  run_record_real(record, "test_loss", score->loss);
  run_record_real(record, "test_accuracy", score->accuracy);
  record_seconds(t, record);
  run_record(out, record);
  record_layers(t, out);
  const char *set = t->config->values.validation_images > 0 ? "validation" : "test";
  if (isnan(score->accuracy)) {
    run_line(out, "epoch %.4g: %s loss %.4f after %.1f s", epoch, set, score->loss, trainer_wall_s(t));
  } else {
    run_line(out, "epoch %.4g: %s accuracy %.2f %%, loss %.4f after %.1f s", epoch, set, score->accuracy, score->loss,
             trainer_wall_s(t));
  }
}

void report_goal(const trainer *t, train_goal *goal) {
  *goal = (train_goal){true, t->step};
}

/* ---- every rank's numbers on rank 0 ---- */

/* One rank's share of the end tables; plain numbers, sent as bytes. */
typedef struct rank_numbers {
  double stage_wall_s[STAGES], stage_cpu_s[STAGES];
  double cpu_s, wall_s;
  double transfer_s, exposed_s;
  double sent_bytes[CURVD_TRAFFICS];
  double memory_bytes[CV_MEMORY_KINDS], memory_peak_bytes;
  rank_place place;
} rank_numbers;

static rank_numbers numbers_of(const trainer *t) {
  rank_numbers mine = {.cpu_s = trainer_cpu_s(t), .wall_s = trainer_wall_s(t)};
  curvd_metrics metrics = {0};
  curvd_metrics_read(t->ctx, &metrics);
  for (int i = 0; i < STAGES; i++) {
    int library = i - TRAINER_STAGES;
    mine.stage_wall_s[i] = library < 0 ? t->stage[i].wall_s : metrics.stage_wall_s[library];
    mine.stage_cpu_s[i] = library < 0 ? t->stage[i].cpu_s : metrics.stage_cpu_s[library];
  }
  /* captures happen inside the backward passes */
  int inside = t->config->values.fisher == 1 ? TRAINER_SAMPLED : TRAINER_BACKWARD;
  mine.stage_wall_s[inside] -= metrics.stage_wall_s[CURVD_STAGE_CAPTURE];
  mine.stage_cpu_s[inside] -= metrics.stage_cpu_s[CURVD_STAGE_CAPTURE];
  mine.stage_wall_s[TRAINER_BACKWARD] -= metrics.stage_wall_s[CURVD_STAGE_FOLLOW];
  mine.stage_cpu_s[TRAINER_BACKWARD] -= metrics.stage_cpu_s[CURVD_STAGE_FOLLOW];
  mine.transfer_s = metrics.transfer_s;
  mine.exposed_s = metrics.exposed_s;
  for (int i = 0; i < CURVD_TRAFFICS; i++) mine.sent_bytes[i] = (double)metrics.sent_bytes[i];
  for (int i = 0; i < CV_MEMORY_KINDS; i++) {
    mine.memory_bytes[i] = (double)t->memory.bytes[i] + (i < CURVD_MEMORIES ? (double)metrics.memory_bytes[i] : 0);
  }
  mine.memory_peak_bytes = (double)t->memory.peak_bytes + (double)metrics.memory_peak_bytes;
  rank_place_read(&mine.place);
  return mine;
}

/* [collective over world] On rank 0 an array of all ranks' numbers, to be freed; NULL elsewhere and when memory is out.
 */
static rank_numbers *gather(const trainer *t) {
  rank_numbers mine = numbers_of(t), *all = NULL;
  if (t->rank == 0) all = calloc((size_t)t->n_ranks, sizeof *all);
  int is_ready = t->rank != 0 || all != NULL;
  MPI_Bcast(&is_ready, 1, MPI_INT, 0, t->world);
  if (is_ready) MPI_Gather(&mine, sizeof mine, MPI_BYTE, all, sizeof mine, MPI_BYTE, 0, t->world);
  return all;
}

static const char *stage_text(int i) {
  return i < TRAINER_STAGES ? trainer_stage_name(i) : curvd_stage_name(i - TRAINER_STAGES);
}

/* Of ranks [from, to), whether they have the stage or not: means of all stages add up to their wall clock. */
static double stage_mean(const rank_numbers *rank, int from, int to, int stage) {
  double sum = 0;
  for (int r = from; r < to; r++) sum += rank[r].stage_wall_s[stage];
  return to > from ? sum / (to - from) : 0;
}

static void stage_table(const trainer *t, const rank_numbers *rank, run *out, json_t *record) {
  run_stage row[STAGES];
  int n = 0;
  json_t *stages = json_object();
  for (int i = 0; i < STAGES; i++) {
    double sum = 0, least = INFINITY, most = 0, cpu = 0;
    int having = 0;
    for (int r = 0; r < t->n_ranks; r++) {
      double s = rank[r].stage_wall_s[i];
      if (!(s > 0)) continue;
      having++, sum += s, least = fmin(least, s), most = fmax(most, s);
      cpu += rank[r].stage_cpu_s[i];
    }
    if (having == 0) continue;
    row[n++] = (run_stage){stage_text(i), least, sum / having, most, sum / having / rank[0].wall_s};
    json_object_set_new(stages, stage_text(i),
                        json_pack("{s:f,s:f,s:f,s:f,s:f,s:f}", "wall_min_s", least, "wall_mean_s", sum / having,
                                  "wall_max_s", most, "worker_mean_s", stage_mean(rank, 0, t->n_workers, i),
                                  "curvature_mean_s", stage_mean(rank, t->n_workers, t->n_ranks, i), "cpu_sum_s", cpu));
  }
  run_stages(out, row, n, rank[0].wall_s);
  json_object_set_new(record, "stages", stages);
}

static void traffic_line(const rank_numbers *rank, int n_ranks, run *out, json_t *record) {
  json_t *bytes = json_object();
  char line[256] = "sent:";
  for (int i = 0; i < CURVD_TRAFFICS; i++) {
    double sum = 0;
    for (int r = 0; r < n_ranks; r++) sum += rank[r].sent_bytes[i];
    size_t at = strlen(line);
    snprintf(line + at, sizeof line - at, "%s %s %.1f MB", i ? "," : "", curvd_traffic_name(i), sum / 1e6);
    json_object_set_new(bytes, curvd_traffic_name(i), json_integer((json_int_t)sum));
  }
  run_line(out, "%s", line);
  json_object_set_new(record, "sent_bytes", bytes);
}

/* min, mean and max over the ranks of one number of each. */
static json_t *spread(const rank_numbers *rank, int n_ranks, size_t offset, run *out, const char *name) {
  double sum = 0, least = INFINITY, most = 0;
  for (int r = 0; r < n_ranks; r++) {
    double bytes = *(const double *)(const void *)((const char *)&rank[r] + offset);
    sum += bytes, least = fmin(least, bytes), most = fmax(most, bytes);
  }
  if (most > 0) run_line(out, "%-32s %10.1f %10.1f %10.1f", name, least / 1e6, sum / n_ranks / 1e6, most / 1e6);
  return json_pack("{s:f,s:f,s:f}", "min", least, "mean", sum / n_ranks, "max", most);
}

/* All of it is made before the first step. */
static void memory_table(const rank_numbers *rank, int n_ranks, run *out, json_t *record) {
  json_t *memory = json_object();
  run_line(out, "%-32s %10s %10s %10s", "memory per rank (MB)", "min", "mean", "max");
  for (int i = 0; i < CV_MEMORY_KINDS; i++) {
    const char *name = cv_memory_kind_name((cv_memory_kind)i);
    size_t offset = offsetof(rank_numbers, memory_bytes) + (size_t)i * sizeof(double);
    json_object_set_new(memory, name, spread(rank, n_ranks, offset, out, name));
  }
  json_object_set_new(record, "memory_bytes", memory);
}

static void peak_line(const rank_numbers *rank, int n_ranks, run *out, json_t *record) {
  json_object_set_new(
      record, "memory_peak_bytes",
      spread(rank, n_ranks, offsetof(rank_numbers, memory_peak_bytes), out, "peak memory per rank (MB)"));
}

/* How transfers move: rank 0 is a worker. */
static void progress_line(const trainer *t, run *out, json_t *record) {
  static const char *const kind[] = {"none", "test", "thread"}, *const way[] = {"", "testing", "a thread"};
  curvd_metrics metrics = {0};
  curvd_metrics_read(t->ctx, &metrics);
  double overlap = metrics.overlap_measured;
  json_object_set_new(record, "progress", json_string(kind[metrics.progress]));
  run_record_real(record, "overlap_measured", overlap >= 0 ? overlap : NAN);
  if (metrics.progress == CURVD_PROGRESS_NONE) return;
  if (overlap >= 0) {
    run_line(out, "transfers overlap: %.0f %% by %s, in a trial", 100 * overlap, way[metrics.progress]);
  } else {
    run_line(out, "transfers overlap by %s, not measured", way[metrics.progress]);
  }
}

static void record_places(const trainer *t, const rank_numbers *rank, json_t *record) {
  rank_place *places = calloc((size_t)t->n_ranks, sizeof *places);
  for (int r = 0; places != NULL && r < t->n_ranks; r++) places[r] = rank[r].place;
  if (places != NULL) json_object_set_new(record, "environment", report_environment(places, t->n_ranks));
  free(places);
}

static void write_begin(const trainer *t, const rank_numbers *rank, run *out) {
  const train_config *v = &t->config->values;
  json_t *record = run_record_new("run", 0);
  json_object_set_new(record, "schema", json_integer(1));
  json_object_set_new(record, "version", json_string(curvd_version()));
  json_object_set_new(record, "build", json_string(curvd_build_info()));
  json_object_set_new(record, "method", json_string(t->config->method));
  json_object_set_new(record, "network", json_string(v->network));
  json_object_set_new(record, "parameters", json_integer(model_parameters(&t->model.spec)));
  json_object_set_new(record, "workers", json_integer(t->n_workers));
  json_object_set_new(record, "curvature_ranks", json_integer(t->n_ranks - t->n_workers));
  json_object_set_new(record, "threads", json_integer(v->blas_threads));
  json_object_set_new(record, "batch", json_integer(v->batch));
  json_object_set_new(record, "seed", json_integer(v->seed));
  json_object_set_new(record, "train_examples", json_integer(t->data.train.n));
  json_object_set_new(record, "test_examples", json_integer(t->data.test.n));
  json_object_set_new(record, "total_steps", json_integer(t->total_steps));
  json_object_set_new(record, "steps_per_epoch", json_integer(t->steps_per_epoch));
  run_line(out, "%s", curvd_build_info());
  run_line(out, "%s on %s, %lld parameters, batch %lld, %lld steps: %d worker%s, %d curvature rank%s",
           t->config->method, v->network, (long long)model_parameters(&t->model.spec), (long long)v->batch,
           (long long)t->total_steps, t->n_workers, t->n_workers == 1 ? "" : "s", t->n_ranks - t->n_workers,
           t->n_ranks - t->n_workers == 1 ? "" : "s");
  report_precision(t, out, record);
  coverage(t, out);
  progress_line(t, out, record);
  memory_table(rank, t->n_ranks, out, record);
  record_places(t, rank, record);
  run_record(out, record);
}

void report_begin(const trainer *t, run *out) {
  rank_numbers *all = gather(t);
  if (all) write_begin(t, all, out);
  free(all);
}

/* ---- end ---- */

/* Share of the workers' transfers that went on behind their backs. */
static void overlap_line(const trainer *t, const rank_numbers *rank, run *out, json_t *record) {
  double transfer_s = 0, exposed_s = 0;
  for (int r = 0; r < t->n_workers; r++) transfer_s += rank[r].transfer_s, exposed_s += rank[r].exposed_s;
  run_record_real(record, "transfer_s", transfer_s / t->n_workers);
  run_record_real(record, "exposed_s", exposed_s / t->n_workers);
  if (!(transfer_s > 0)) return;
  run_line(out, "curvature under way %.2f s, waited for %.2f s (mean of the workers): %.0f %% overlapped",
           transfer_s / t->n_workers, exposed_s / t->n_workers, 100 * (1 - exposed_s / transfer_s));
}

static void event_lines(const trainer *t, run *out, json_t *record) {
  curvd_metrics metrics = {0};
  json_t *events = json_object();
  curvd_metrics_read(t->ctx, &metrics);
  for (int i = 0; i < CURVD_EVENTS; i++) {
    json_object_set_new(events, curvd_event_name(i), json_integer(metrics.events[i]));
    if (metrics.events[i] > 0) run_line(out, "%s: %lld", curvd_event_name(i), (long long)metrics.events[i]);
  }
  json_object_set_new(record, "events", events);
}

/* Of the time of training: what an owner does in it. Evaluation, in which owners idle, is no part of either. */
static double busy_of(const rank_numbers *rank, int r) {
  static const int work[] = {CURVD_STAGE_AVERAGE, CURVD_STAGE_REFRESH, CURVD_STAGE_BROADCAST};
  double busy_s = 0;
  for (size_t i = 0; i < sizeof work / sizeof work[0]; i++) busy_s += rank[r].stage_wall_s[TRAINER_STAGES + work[i]];
  return busy_s / rank[0].wall_s;
}

/* Of the curvature ranks: workers come first. */
static json_t *loads(const trainer *t, const rank_numbers *rank) {
  json_t *list = json_array();
  for (int r = t->n_workers; r < t->n_ranks; r++) json_array_append_new(list, json_real(busy_of(rank, r)));
  return list;
}

static service_load load_of(const trainer *t, const rank_numbers *rank) {
  enum { WAIT = (int)TRAINER_STAGES + (int)CURVD_STAGE_WAIT };
  service_load load = {.n_curvature = t->n_ranks - t->n_workers,
                       .is_stale = strcmp(curvd_get(t->ctx, "staleness"), "0") != 0,
                       .busy_min = t->n_ranks > t->n_workers};
  for (int r = 0; r < t->n_ranks; r++) {
    double busy = busy_of(rank, r);
    if (r < t->n_workers) {
      load.waited += rank[r].stage_wall_s[WAIT] / rank[0].wall_s / t->n_workers;
    } else {
      load.busy_min = fmin(load.busy_min, busy), load.busy_max = fmax(load.busy_max, busy);
    }
  }
  return load;
}

/* Of the workers; program's own seconds per step, as a prediction takes them. */
static run_measured measured_of(const trainer *t, const rank_numbers *rank) {
  enum { LIBRARY = TRAINER_STAGES };
  double steps = (double)t->steps_here;
  run_measured m = {.steps = t->steps_here, .step_s = rank[0].wall_s / steps};
  for (int r = 0; r < t->n_workers; r++) {
    const double *s = rank[r].stage_wall_s, share = 1.0 / t->n_workers / steps;
    m.train_s += share * (s[TRAINER_BATCH] + s[TRAINER_FORWARD] + s[TRAINER_BACKWARD] + s[TRAINER_UPDATE]);
    m.sampled_s += share * s[TRAINER_SAMPLED];
    for (int i = 0; i < CURVD_STAGES; i++) m.worker_s[i] += share * s[LIBRARY + i];
  }
  for (int r = 0; r < t->n_ranks; r++)
    for (int i = 0; i < CURVD_STAGES; i++) m.most_s[i] = fmax(m.most_s[i], rank[r].stage_wall_s[LIBRARY + i] / steps);
  return m;
}

static void write_end(const trainer *t, const rank_numbers *rank, run *out, const trainer_score *score,
                      const train_goal *goal, step_times *times) {
  double cpu = 0;
  for (int r = 0; r < t->n_ranks; r++) cpu += rank[r].cpu_s;
  json_t *record = run_record_new("end", t->step);
  json_object_set_new(record, "process_steps", json_integer(t->steps_here));
  stage_table(t, rank, out, record);
  traffic_line(rank, t->n_ranks, out, record);
  overlap_line(t, rank, out, record);
  peak_line(rank, t->n_ranks, out, record);
  event_lines(t, out, record);
  service_load load = load_of(t, rank);
  if (load.n_curvature > 0) json_object_set_new(record, "curvature_busy", loads(t, rank));
  report_service(t, &load, out, record);
  run_measured measured = measured_of(t, rank);
  if (t->steps_here > 0) report_prediction(t, &measured, out, record);
  run_record_real(record, "test_loss", score->loss);
  run_record_real(record, "test_accuracy", score->accuracy);
  run_record_real(record, "wall_s", rank[0].wall_s);
  run_record_real(record, "cpu_s", cpu);
  run_record_real(record, "step_median_s", step_times_quantile(times, times->n, 0.5));
  run_record_real(record, "step_p99_s", step_times_quantile(times, times->n, 0.99));
  json_object_set_new(record, "target_reached", json_boolean(goal->is_reached));
  run_record(out, record);
  if (goal->is_reached) run_line(out, "target accuracy reached in step %lld", (long long)goal->step);
  run_line(out, "%.1f s training, %.1f CPU seconds of all ranks (evaluation left out)", rank[0].wall_s, cpu);
  if (!isnan(score->accuracy)) run_line(out, "accuracy %.2f %%", score->accuracy);
  run_line(out, "run folder %s", out->folder);
}

void report_end(const trainer *t, run *out, const trainer_score *score, const train_goal *goal, step_times *times) {
  rank_numbers *all = gather(t);
  if (all) write_end(t, all, out, score, goal, times);
  free(all);
}

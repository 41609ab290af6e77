/* curvd for C++17: a context that owns itself, exceptions in place of statuses, callables in place of hooks. Header
 * only and without copies; what each call means, its shapes and its errors are in curvd.h, and every C function takes
 * context::get(). Predictions and the flight recorder (curvd_experimental.h) are called as in C.
 *
 *   curvd::context service(MPI_COMM_WORLD);
 *   service.set("curvature_ranks", 1).set("damping", 0.03);
 *   const int32_t fc1 = service.add_layer("fc1", 784, 100, true);
 *   service.plan();
 *   if (service.is_worker()) { ... service.step(lr, gradients); ... service.finish(); } else service.serve(); */
#ifndef CURVD_HPP
#define CURVD_HPP

#include "curvd.h"

#include <exception>
#include <functional>
#include <iomanip>
#include <iterator>
#include <limits>
#include <locale>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace curvd {

/* what(): the library's sentence. */
class error : public std::runtime_error {
public:
  error(curvd_status code, const std::string &sentence) : std::runtime_error(sentence), code_(code) {}
  curvd_status code() const noexcept { return code_; }

private:
  curvd_status code_;
};

/* What curvd_save and curvd_load do on this rank; an empty one does nothing. What one throws ends the visit, and comes
 * out of context::save or load on a worker, in the end out of context::serve on a curvature rank. */
struct state_hooks {
  std::function<void(bool is_load, int64_t step)> begin;
  std::function<void(bool is_load, const curvd_array &)> array;
  std::function<void(bool is_load, curvd_status)> end;
};

/* One layer's gradient without a parameter: weight (d_out, d_in), rows ld apart. */
inline curvd_gradient gradient(float *weight, int64_t ld, float *bias = nullptr, int64_t bias_stride = 1) noexcept {
  return {weight, ld, bias, bias_stride, nullptr, nullptr, 0};
}

/* The same with W, laid out as the gradient is, which curvd_step then updates itself. */
inline curvd_gradient gradient(float *weight, int64_t ld, float *bias, int64_t bias_stride, float *parameter,
                               float *parameter_bias, float shrink = 0) noexcept {
  return {weight, ld, bias, bias_stride, parameter, parameter_bias, shrink};
}

/* Movable, not copyable. Ending a context is collective, as curvd_destroy is. Where it is left by an exception the
 * other ranks may be anywhere, so nothing is freed then, and nobody waited for: the catcher calls MPI_Abort, or all
 * ranks have caught the same. A moved-from context can only be assigned to or end. */
class context {
public:
  explicit context(MPI_Comm comm) : hooks_(new callables) { require(curvd_create(comm, &ctx_), "curvd_create"); }
  context(context &&from) noexcept
      : hooks_(std::move(from.hooks_)), ctx_(std::exchange(from.ctx_, nullptr)), exceptions_(from.exceptions_) {}
  context &operator=(context &&from) noexcept {
    context old(std::move(*this));
    hooks_ = std::move(from.hooks_);
    ctx_ = std::exchange(from.ctx_, nullptr);
    exceptions_ = from.exceptions_;
    return *this;
  }
  ~context() noexcept {
    if (std::uncaught_exceptions() <= exceptions_) {
      curvd_destroy(&ctx_);
    } else {
      hooks_.release(); /* the context that is left behind may still call them */
    }
  }

  curvd_ctx *get() const noexcept { return ctx_; }

  /* Before plan(). Any value that a stream can write: "kfac", 0.03, 10, true. */
  template <typename T> context &set(const std::string &key, const T &value) {
    std::ostringstream text;
    text.imbue(std::locale::classic());
    text << std::boolalpha << std::setprecision(std::numeric_limits<double>::max_digits10) << value;
    check(curvd_set(ctx_, key.c_str(), text.str().c_str()));
    return *this;
  }
  int32_t add_layer(const std::string &name, int64_t d_in, int64_t d_out, bool has_bias) {
    int32_t layer = -1;
    check(curvd_layer_add(ctx_, name.c_str(), d_in, d_out, has_bias, &layer));
    return layer;
  }
  int32_t add_norm(const std::string &name, int64_t channels) {
    int32_t layer = -1;
    check(curvd_layer_add_norm(ctx_, name.c_str(), channels, &layer));
    return layer;
  }
  int32_t add_conv(const std::string &name, const curvd_conv &shape, bool has_bias) {
    int32_t layer = -1;
    check(curvd_layer_add_conv(ctx_, name.c_str(), &shape, has_bias, &layer));
    return layer;
  }
  void plan() { check(curvd_plan(ctx_)); }

  bool is_worker() const noexcept { return curvd_role_get(ctx_) == CURVD_ROLE_WORKER; }
  int worker_count() const noexcept { return curvd_worker_count(ctx_); }
  int worker_index() const noexcept { return curvd_worker_index(ctx_); }
  int32_t layer_count() const noexcept { return curvd_layer_count(ctx_); }

  bool wants_capture() const noexcept { return curvd_wants_capture(ctx_); }
  void capture(int32_t layer, int64_t rows, const float *a, int64_t lda, const float *g, int64_t ldg) {
    check(curvd_capture(ctx_, layer, rows, a, lda, g, ldg));
  }
  void capture_gradient(int32_t layer, int64_t rows, const float *a, int64_t lda, const float *g, int64_t ldg,
                        float scale) {
    check(curvd_capture_gradient(ctx_, layer, rows, a, lda, g, ldg, scale));
  }
  void progress() { check(curvd_progress(ctx_)); }
  bool is_factored(int32_t layer) const noexcept { return curvd_is_factored(ctx_, layer); }
  void precondition(int32_t layer, int64_t rows, const float *a, int64_t lda, const float *g, int64_t ldg, float scale,
                    float keep, const curvd_gradient &to) {
    check(curvd_precondition(ctx_, layer, rows, a, lda, g, ldg, scale, keep, &to));
  }
  /* gradients: a std::vector, std::array, std::span or C array of curvd_gradient, in layer order. */
  template <typename Gradients> void step(double lr, const Gradients &gradients) {
    check(curvd_step(ctx_, lr, std::data(gradients), static_cast<int32_t>(std::size(gradients))));
  }
  void serve() { check_hooks(curvd_serve(ctx_)); }
  void finish() { check(curvd_finish(ctx_)); }

  void on_state(state_hooks hooks) {
    static const curvd_state_hooks calls = {call_begin, call_array, call_end};
    hooks_->state = std::move(hooks);
    check(curvd_on_state(ctx_, &calls, hooks_.get()));
  }
  void save() { check_hooks(curvd_save(ctx_)); }
  void load(int64_t step) { check_hooks(curvd_load(ctx_, step)); }
  uint64_t check_replica() {
    uint64_t replica = 0;
    check(curvd_check(ctx_, &replica));
    return replica;
  }
  void raise(uint32_t flags) noexcept { curvd_raise(ctx_, flags); }
  uint32_t flags() const noexcept { return curvd_flags(ctx_); }

  curvd_metrics metrics() const {
    curvd_metrics all;
    require(curvd_metrics_read(ctx_, &all), "curvd_metrics_read");
    return all;
  }
  curvd_layer_metrics layer_metrics(int32_t layer) const {
    curvd_layer_metrics all;
    require(curvd_layer_metrics_read(ctx_, layer, &all), "curvd_layer_metrics_read");
    return all;
  }
  /* The value in force. */
  std::string option(const std::string &key) const {
    const char *value = curvd_get(ctx_, key.c_str());
    if (!value) throw error(CURVD_ERR_OPTION, "unknown option '" + key + "'");
    return value;
  }
  /* What write throws is lost: a line that cannot be written stops no training. */
  void log_to(std::function<void(int level, const char *line)> write, int level) {
    hooks_->log = std::move(write);
    check(curvd_log_to(ctx_, hooks_->log ? call_log : nullptr, hooks_.get(), level));
  }

private:
  struct callables { /* stays where it is when its context moves */
    state_hooks state;
    std::function<void(int, const char *)> log;
    std::exception_ptr thrown;
  };

  void check(curvd_status status) const {
    if (status != CURVD_OK) throw error(status, curvd_last_error(ctx_));
  }
  /* Of functions that leave no sentence. */
  static void require(curvd_status status, const char *what) {
    if (status != CURVD_OK) throw error(status, std::string(what) + ": " + curvd_status_text(status));
  }
  void check_hooks(curvd_status status) {
    const std::exception_ptr thrown = std::exchange(hooks_->thrown, nullptr);
    if (thrown) std::rethrow_exception(thrown);
    check(status);
  }

  /* No exception passes through C: it waits in thrown. */
  template <typename Call> static curvd_status guard(callables *hooks, Call call) noexcept {
    try {
      call();
      return CURVD_OK;
    } catch (const error &e) {
      hooks->thrown = std::current_exception();
      return e.code();
    } catch (...) {
      hooks->thrown = std::current_exception();
      return CURVD_ERR_IO;
    }
  }
  static curvd_status call_begin(void *user, bool is_load, int64_t step) {
    callables *hooks = static_cast<callables *>(user);
    return guard(hooks, [=] {
      if (hooks->state.begin) hooks->state.begin(is_load, step);
    });
  }
  static curvd_status call_array(void *user, bool is_load, const curvd_array *array) {
    callables *hooks = static_cast<callables *>(user);
    return guard(hooks, [=] {
      if (hooks->state.array) hooks->state.array(is_load, *array);
    });
  }
  static curvd_status call_end(void *user, bool is_load, curvd_status status) {
    callables *hooks = static_cast<callables *>(user);
    return guard(hooks, [=] {
      if (hooks->state.end) hooks->state.end(is_load, status);
    });
  }
  static void call_log(void *user, int level, const char *line) {
    try {
      static_cast<callables *>(user)->log(level, line);
    } catch (...) {
    }
  }

  std::unique_ptr<callables> hooks_;
  curvd_ctx *ctx_ = nullptr;
  int exceptions_ = std::uncaught_exceptions();
};

/* Every option that set() takes. */
inline std::vector<curvd_option_info> options() {
  std::vector<curvd_option_info> all(static_cast<size_t>(curvd_option_count()));
  for (size_t i = 0; i < all.size(); i++) curvd_option_get(static_cast<int>(i), &all[i]);
  return all;
}

} // namespace curvd

#endif

// A user's own network in C++ by curvd.hpp and nothing else: 2-20-20-2 with tanh tells two spirals apart.
// usage: train   Exit 0 when 99 % of the points are on their side.
#include <curvd.hpp>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

namespace {

constexpr int n_layers = 3, width = 20, n_points = 192, n_steps = 100;

using numbers = std::vector<float>;

struct layer {
  int d_in, d_out;
  numbers w, b, dw, db; // (d_out, d_in), (d_out)
  numbers a, g;         // (rows, d_in), (rows, d_out)
};

[[noreturn]] void stop(const char *why) {
  std::fprintf(stderr, "%s\n", why);
  MPI_Abort(MPI_COMM_WORLD, 1);
  std::abort();
}

void require(bool is_so, const char *what) {
  if (!is_so) stop(what);
}

// Uniform in (-1, 1), the same on every rank (Park and Miller 1988).
float draw(long long &state) {
  state = state * 16807 % 2147483647;
  return static_cast<float>(2 * static_cast<double>(state) / 2147483647 - 1);
}

layer make_layer(int d_in, int d_out, long long &state) {
  layer of{d_in, d_out, {}, numbers(d_out), numbers(d_in * d_out), numbers(d_out), {}, {}};
  for (int i = 0; i < d_in * d_out; i++) of.w.push_back(draw(state) * static_cast<float>(std::sqrt(3.0 / d_in)));
  return of;
}

// Every n-th point, from the first on: one and a half turns; the class of point i is i % 2.
std::vector<int> take(int first, int n, numbers &x) {
  std::vector<int> label;
  x.clear();
  for (int i = first; i < n_points; i += n) {
    const double r = (i / 2 + 1.0) / (n_points / 2), angle = 3 * 3.14159265358979 * (r + i % 2 / 3.0);
    x.insert(x.end(), {static_cast<float>(r * std::cos(angle)), static_cast<float>(r * std::sin(angle))});
    label.push_back(i % 2);
  }
  return label;
}

// Logits of the rows in net[0].a.
numbers forward(std::vector<layer> &net, int rows) {
  numbers z;
  for (size_t l = 0; l < net.size(); l++) {
    layer &of = net[l];
    z.assign(rows * of.d_out, 0);
    for (int r = 0; r < rows; r++) {
      for (int o = 0; o < of.d_out; o++) {
        float sum = of.b[o];
        for (int i = 0; i < of.d_in; i++) sum += of.w[o * of.d_in + i] * of.a[r * of.d_in + i];
        z[r * of.d_out + o] = l + 1 < net.size() ? std::tanh(sum) : sum;
      }
    }
    if (l + 1 < net.size()) net[l + 1].a = z;
  }
  return z;
}

// dw and db of a layer, and g of the layer before.
void backward(layer &of, layer *before, int rows) {
  of.dw.assign(of.dw.size(), 0);
  of.db.assign(of.db.size(), 0);
  if (before) before->g.assign(rows * of.d_in, 0);
  for (int r = 0; r < rows; r++) {
    for (int o = 0; o < of.d_out; o++) {
      const float g = of.g[r * of.d_out + o];
      of.db[o] += g;
      for (int i = 0; i < of.d_in; i++) {
        const float a = of.a[r * of.d_in + i];
        of.dw[o * of.d_in + i] += g * a;
        if (before) before->g[r * of.d_in + i] += g * of.w[o * of.d_in + i] * (1 - a * a);
      }
    }
  }
}

// Of the mean cross-entropy of the rows.
void backward(std::vector<layer> &net, const std::vector<int> &label, const numbers &z) {
  const int rows = static_cast<int>(label.size());
  numbers &g = net.back().g;
  g.resize(z.size());
  for (int r = 0; r < rows; r++) {
    const float p = 1 / (1 + std::exp(z[2 * r] - z[2 * r + 1])); // of class 1
    g[2 * r + 1] = (p - static_cast<float>(label[r])) / static_cast<float>(rows);
    g[2 * r] = -g[2 * r + 1];
  }
  for (size_t l = net.size(); l-- > 0;) backward(net[l], l > 0 ? &net[l - 1] : nullptr, rows);
}

void step(curvd::context &service, std::vector<layer> &net, int rows, double lr) {
  std::vector<curvd_gradient> gradients;
  for (size_t l = 0; l < net.size(); l++) {
    layer &of = net[l];
    if (service.wants_capture())
      service.capture(static_cast<int32_t>(l), rows, of.a.data(), of.d_in, of.g.data(), of.d_out);
    gradients.push_back(
        curvd::gradient(of.dw.data(), of.d_in, of.db.data(), 1, of.w.data(), of.b.data())); // w -= lr * direction
  }
  service.step(lr, gradients);
}

bool train(curvd::context &service, std::vector<layer> &net) {
  for (int s = 0; s < n_steps; s++) {
    const std::vector<int> label = take(service.worker_index(), service.worker_count(), net[0].a);
    backward(net, label, forward(net, static_cast<int>(label.size())));
    step(service, net, static_cast<int>(label.size()), 0.05 * (1 - static_cast<double>(s) / n_steps));
  }
  require(service.metrics().step == n_steps, "metrics count the steps");
  service.finish();
  const std::vector<int> label = take(0, 1, net[0].a);
  const numbers z = forward(net, n_points);
  int right = 0;
  for (int r = 0; r < n_points; r++) right += (z[2 * r + 1] > z[2 * r]) == label[r];
  if (service.worker_index() == 0) std::printf("%d of %d points are on their side\n", right, n_points);
  return 100 * right >= 99 * n_points;
}

// What the wrapper adds to C: sentences, moves, hooks that throw.
void try_errors(int curvature_ranks) {
  curvd::context service(MPI_COMM_WORLD);
  try {
    service.set("dampng", 0.1);
    stop("an unknown option is refused");
  } catch (const curvd::error &e) {
    require(e.code() == CURVD_ERR_OPTION && std::string(e.what()).find("'damping'") != std::string::npos, e.what());
  }
  try {
    service.option("dampng");
    stop("an unknown option has no value");
  } catch (const curvd::error &e) {
    require(e.code() == CURVD_ERR_OPTION, e.what());
  }
  service.set("damping", 0.1 + 0.2).set("curvature_ranks", curvature_ranks).set("warm_start", false);
  require(service.option("damping") == "0.30000000000000004" && service.option("warm_start") == "false",
          "values are written in full");
  service.add_layer("only", 1, 1, false);
  service.plan();
  curvd::context moved(std::move(service));
  require(service.get() == nullptr && moved.layer_count() == 1, "a moved context is empty");
  std::map<std::string, numbers> kept;
  moved.on_state({nullptr,
                  [&](bool is_load, const curvd_array &array) {
                    if (is_load) throw std::out_of_range(array.name);
                    kept[array.name].resize(curvd_array_count(&array));
                  },
                  nullptr});
  float g = 3;
  const curvd_gradient gradients[] = {curvd::gradient(&g, 1)};
  try {
    if (moved.is_worker()) {
      moved.step(0, gradients);
      moved.save();
      require(moved.worker_index() > 0 || kept.count("curvature.run") == 1, "the state has been visited");
      moved.load(1);
    } else {
      moved.serve();
    }
    stop("what a hook throws comes out");
  } catch (const std::out_of_range &e) {
    require(std::string(e.what()) == "curvature.run", e.what());
  }
}

bool run(int curvature_ranks) {
  curvd::context service(MPI_COMM_WORLD);
  long long state = 1;
  std::vector<layer> net;
  for (int l = 0; l < n_layers; l++) net.push_back(make_layer(l == 0 ? 2 : width, l + 1 < n_layers ? width : 2, state));
  service.set("curvature_ranks", curvature_ranks).set("method", "kfac");
  for (int l = 0; l < n_layers; l++) service.add_layer("fc" + std::to_string(l), net[l].d_in, net[l].d_out, true);
  service.plan();
  if (service.is_worker()) return train(service, net);
  service.serve();
  return true;
}

} // namespace

int main(int argc, char **argv) {
  MPI_Init(&argc, &argv);
  int failed = 0, any = 0, n_ranks = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &n_ranks);
  try {
    for (int curvature_ranks = 0; curvature_ranks < 2 && curvature_ranks < n_ranks; curvature_ranks++) {
      try_errors(curvature_ranks);
      failed |= !run(curvature_ranks);
    }
  } catch (const std::exception &e) {
    stop(e.what());
  }
  MPI_Allreduce(&failed, &any, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  MPI_Finalize();
  return any;
}

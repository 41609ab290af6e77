"""A user's own network in Python by curvd.py, numpy and mpi4py: 2-20-20-2 with tanh tells two spirals apart; one step is
compared with exact K-FAC in dense fp64; and what curvd.py refuses. Run by python3 -m mpi4py; with --leave rank 0 fails
while the others wait for it."""
import sys

import curvd
import numpy as np
from kfac_direction import OPTIONS, direction, distance, factor
from mpi4py import MPI

WIDTHS, N_POINTS, N_STEPS = (2, 20, 20, 2), 192, 100
COMM = MPI.COMM_WORLD


def require(is_so, what):
    if not is_so:
        raise AssertionError(what)


def make_layers(widths, dtype=np.float32):
    random = np.random.default_rng(3)
    return [{"w": random.uniform(-1, 1, (m, n)).astype(dtype) * np.sqrt(dtype(3 / n)), "b": np.zeros(m, dtype),
             "dw": np.empty((m, n), dtype), "db": np.empty(m, dtype)} for n, m in zip(widths, widths[1:])]


def points(first, n):
    """Every n-th point, from the first on: one and a half turns; the class of point i is i % 2."""
    i = np.arange(first, N_POINTS, n)
    r = (i // 2 + 1) / (N_POINTS / 2)
    angle = 3 * np.pi * (r + i % 2 / 3)
    return np.stack([r * np.cos(angle), r * np.sin(angle)], 1).astype(np.float32), i % 2


def forward(layers, x):
    for layer in layers:
        layer["a"] = x
        z = x @ layer["w"].T + layer["b"]
        x = np.tanh(z)
    return z


def backward(layers, z, label):
    """Of the mean cross-entropy."""
    p = np.exp(z - z.max(1, keepdims=True))
    g = (p / p.sum(1, keepdims=True) - np.eye(2, dtype=z.dtype)[label]) / z.dtype.type(len(z))
    for layer in reversed(layers):
        layer["g"] = g
        np.matmul(g.T, layer["a"], out=layer["dw"])
        g.sum(0, out=layer["db"])
        g = g @ layer["w"] * (1 - layer["a"] ** 2)


def add_layers(service, layers):
    for i, layer in enumerate(layers):
        m, n = layer["w"].shape
        require(service.add_layer(f"fc{i}", n, m) == i, "layers are counted from 0")
    service.plan()


def capture(service, layers):
    if service.wants_capture:
        for i, layer in enumerate(layers):
            service.capture(i, layer["a"], layer["g"])


# ---- a network ----


def train(curvature_ranks):
    layers = make_layers(WIDTHS)
    with curvd.Context(COMM, curvature_ranks=curvature_ranks, method="kfac") as service:
        add_layers(service, layers)
        if not service.is_worker:
            service.serve()
            return
        x, label = points(service.worker_index, service.worker_count)
        gradients = [curvd.gradient(y["dw"], y["db"], y["w"], y["b"]) for y in layers]
        for step in range(N_STEPS):
            backward(layers, forward(layers, x), label)
            capture(service, layers)
            service.step(0.05 * (1 - step / N_STEPS), gradients)
        check_metrics(service)
        x, label = points(0, 1)
        right = int((forward(layers, x).argmax(1) == label).sum())
        if COMM.rank == 0:
            print(f"{right} of {N_POINTS} points are on their side")
        require(right >= 0.99 * N_POINTS, f"{right} of {N_POINTS} points are on their side, of {N_STEPS} steps")


def check_metrics(service):
    metrics, layer = service.metrics(), service.layer_metrics(1)
    require(metrics["step"] == N_STEPS and metrics["events"]["factors refreshed"] > 0, metrics)
    require(metrics["stage_calls"]["precondition"] == N_STEPS and len(metrics["memory_bytes"]) == 6, metrics)
    require((layer["name"], layer["d_in"], layer["d_out"], layer["method"]) == ("fc1", 20, 20, "kfac"), layer)
    require(layer["factor"][0]["n"] == 21 and layer["factor"][1]["n"] == 20 and layer["reason"] == "", layer)


# ---- one step ----


def compare(curvature_ranks, exponent, rows=9, damping=0.1):
    """Largest relative distance of a direction from dense K-FAC's, over the layers of a small network."""
    layers = make_layers((5, 7, 2))
    random = np.random.default_rng(100 + COMM.rank)
    for layer in layers:  # biases as the last columns, and rows of a wider array
        layer["joined"] = np.empty((layer["w"].shape[0], layer["w"].shape[1] + 3), np.float32)
    with curvd.Context(COMM, curvature_ranks=curvature_ranks, damping=damping, exponent_a=exponent, exponent_g=exponent,
                       **OPTIONS) as service:
        add_layers(service, layers)
        mine = None
        if service.is_worker:
            wide = random.normal(size=(rows, 8)).astype(np.float32)
            backward(layers, forward(layers, wide[:, 2:7]), random.integers(0, 2, rows))
            capture(service, layers)
            mine = [(y["a"], y["g"] * rows) for y in layers]
            gradients = []
            for y in layers:
                n = y["w"].shape[1]
                y["joined"][:, :n], y["joined"][:, n] = y["dw"], y["db"]
                gradients.append(curvd.gradient(y["joined"][:, :n], y["joined"][:, n]))
            service.step(1.0, gradients)
            service.finish()
        else:
            service.serve()
        all_rows = [x for x in COMM.allgather(mine) if x is not None]
        if mine is None:
            return 0.0
    found = []
    for i, y in enumerate(layers):
        a, g = (np.vstack([x[i][k] for x in all_rows]) for k in (0, 1))
        gradient = g.T @ np.hstack([a, np.ones((len(a), 1))]) / len(a)
        expected = direction(factor(a, len(a), True), factor(g, len(g)), gradient, damping, exponent)
        found.append(distance(y["joined"][:, :expected.shape[1]], expected))
    return max(found)


# ---- the rest ----


def refused(kind, call, *arguments, says=""):
    try:
        call(*arguments)
    except kind as e:
        require(says in str(e), f"'{says}' is not in: {e}")
        return e
    raise AssertionError(f"{call.__name__} {arguments} was not refused")


def try_errors():
    with curvd.Context(MPI.COMM_SELF) as service:
        e = refused(curvd.Error, lambda: service.set(dampng=1), says="did you mean 'damping'")
        require(e.code == curvd.ERR_OPTION and str(e).startswith("CURVD_ERR_OPTION"), e)
        require(refused(curvd.Error, service.serve).code == curvd.ERR_STATE, "serve comes behind plan")
        refused(curvd.Error, service.get, "dampng", says="dampng")
        service.set(warm_start=False, damping="0.1, 0.05@100")
        require((service.get("warm_start"), service.get("damping")) == ("false", "0.1, 0.05@100"), "values are kept")
        layer = service.add_layer("only", 4, 3, bias=False)
        service.plan()
        a, g = np.zeros((6, 4), np.float32), np.zeros((6, 3), np.float32)
        service.capture(layer, a, g)
        service.capture(layer, np.zeros((6, 9), np.float32)[:, 5:], None)
        refused(TypeError, service.capture, layer, a.astype(float), g, says="float64")
        refused(TypeError, service.capture, layer, a.tolist(), g, says="list")
        refused(ValueError, service.capture, layer, a[:, :3], g, says="(rows, 4)")
        refused(ValueError, service.capture, layer, np.zeros((4, 6), np.float32).T, g, says="strides")
        refused(ValueError, service.capture, layer, a[::-1], g, says="strides")
        refused(ValueError, service.capture, layer, a[:5], g, says="5 rows")
        refused(IndexError, service.capture, 1, a, g, says="no layer 1")
        w = np.zeros((3, 4), np.float32)
        refused(ValueError, service.step, 0.1, [curvd.gradient(w.T.copy())], says="(3, 4)")
        refused(ValueError, curvd.gradient, w, None, np.zeros((3, 9), np.float32)[:, :4], says="laid out")
        refused(ValueError, curvd.gradient, np.broadcast_to(w[:1], (3, 4)), says="read-only")
        refused(curvd.Error, service.step, 0.1, [], says="needs 1 gradients, not 0")
        refused(TypeError, service.step, 0.1, [w], says="curvd.gradient()")
        refused(ValueError, curvd.gradient, w[0], says="(d_out, d_in)")
        service.step(0.1, [curvd.gradient(w)])
    refused(curvd.Error, service.get, "damping", says="closed")
    require(len(curvd.options()) > 40 and {o["name"] for o in curvd.options()} > {"damping", "method"}, "options")
    refused(curvd.Error, curvd.check_option, "damping", "x", says="damping")
    curvd.check_option("damping", 0.5)


def try_state():
    """What was saved makes the same step again; a hook that raises is heard."""
    saved, w = {}, [np.ones((3, 4), np.float32) for _ in range(2)]

    def visit(is_load, part):
        name = part.name.decode()
        if is_load:
            part.unpack(saved[name])
        else:
            saved[name] = part.pack()

    rows = np.random.default_rng(5).normal(size=(6, 7)).astype(np.float32)
    with curvd.Context(MPI.COMM_SELF) as first, curvd.Context(MPI.COMM_SELF) as second:
        for service in (first, second):
            service.add_layer("only", 4, 3, bias=False)
            service.plan()
            service.on_state(visit)
        first.capture(0, rows[:, :4], rows[:, 4:])
        first.step(0.1, [curvd.gradient(w[0])])
        first.save()
        second.load(1)
        require(first.check() == second.check() and second.metrics()["step"] == 1, "both hold the same")
        for x, service in zip(w, (first, second)):
            x[:] = rows[:3, :4]
            service.step(0.1, [curvd.gradient(x)])
        require(np.array_equal(*w), "what was loaded makes the same step")
        saved.clear()
        refused(KeyError, second.load, 1)


def leave():
    with curvd.Context(COMM, curvature_ranks=1) as service:
        service.add_layer("only", 4, 3)
        service.plan()
        if service.worker_index == 0:
            raise FileNotFoundError("a file of rank 0")
        if not service.is_worker:
            return service.serve()
        w = np.zeros((3, 5), np.float32)
        service.step(0.1, [curvd.gradient(w[:, :4], w[:, 4])])


def main():
    if sys.argv[1:] == ["--leave"]:
        return leave()
    try_errors()
    try_state()
    for curvature_ranks in range(min(COMM.size, 2)):
        for exponent in (0.5, 1.0):
            far = compare(curvature_ranks, exponent)
            require(far < 1e-4, f"C = {curvature_ranks}: {far} from dense K-FAC")
        train(curvature_ranks)


if __name__ == "__main__":
    main()

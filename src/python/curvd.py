"""curvd for Python: ctypes, numpy and mpi4py; nothing is compiled. What each call means is in curvd.h.

    with curvd.Context(MPI.COMM_WORLD, curvature_ranks=1, damping=0.03) as service:
        fc1 = service.add_layer("fc1", 784, 100)
        service.plan()
        if not service.is_worker:
            service.serve()                                  # until the workers finish
        for x in batches if service.is_worker else ():
            ...                                              # forward and backward: a, g, dw, db of each layer
            if service.wants_capture:
                service.capture(fc1, a, g)                   # inputs (rows, 784), output gradients (rows, 100)
            service.step(lr, [curvd.gradient(dw, db, w, b)]) # averages over workers; w <- w - lr * direction

Arrays are numpy's, float32, used where they lie: rows of adjacent numbers, any distance between rows; others are
refused, never copied. Failures raise curvd.Error with code and sentence. The library is CURVD_LIBRARY, or the one of the prefix
that this file was installed to, or the loader's.

Leaving the with-block ends the context, on all ranks together. Leaving it by an exception does not: the other ranks may
be anywhere. Start programs with python3 -m mpi4py PROGRAM, which then ends the job.
"""
import ctypes
import glob
import os
from ctypes import POINTER, byref, c_bool, c_char_p, c_double, c_float, c_int, c_int32, c_int64, c_size_t, c_uint32, \
    c_uint64, c_void_p

import numpy as np
from mpi4py import MPI  # before the library, which must find the same libmpi loaded

VERSION_MAJOR, VERSION_MINOR, VERSION_PATCH = 0, 1, 0
(OK, ERR_ARGUMENT, ERR_STATE, ERR_OPTION, ERR_MEMORY, ERR_MPI, ERR_NUMERIC, ERR_LAYOUT, ERR_IO, ERR_DATA, ERR_MISMATCH,
 ERR_SIZE, ERR_REMOTE, ERR_DAMAGE) = range(0, -14, -1)
CHANNELS_LAST, CHANNELS_FIRST = 0, 1
ROLE_WORKER, ROLE_CURVATURE = 0, 1
LAYER_DENSE, LAYER_NORM = 0, 1
F32, F64 = 0, 1
PROGRESS_NONE, PROGRESS_TEST, PROGRESS_THREAD = 0, 1, 2
STAGES, TRAFFICS, MEMORIES, EVENTS, FLAGS, ARRAY_NAME_MAX = 12, 5, 6, 12, 8, 160


class Error(Exception):
    """code: curvd.ERR_STATE, ...; str(): the library's sentence."""

    def __init__(self, code, sentence):
        super().__init__(f"{_lib.curvd_status_name(code).decode()}: {sentence}")
        self.code = code


# ---- structures, as in curvd.h ----


class Gradient(ctypes.Structure):
    """Made by gradient()."""
    _fields_ = [("weight", c_void_p), ("ld", c_int64), ("bias", c_void_p), ("bias_stride", c_int64),
                ("parameter", c_void_p), ("parameter_bias", c_void_p), ("shrink", c_float)]


class Conv(ctypes.Structure):
    _fields_ = [("c_in", c_int64), ("c_out", c_int64), ("in", c_int64 * 2), ("kernel", c_int64 * 2),
                ("stride", c_int64 * 2), ("pad", c_int64 * 2), ("dilation", c_int64 * 2), ("layout", c_int)]


class Array(ctypes.Structure):
    """A part of the state, in a hook of Context.on_state."""
    _fields_ = [("name", c_char_p), ("dtype", c_int), ("is_triangle", c_bool), ("n_rows", c_int64),
                ("n_columns", c_int64), ("begin", c_int64), ("rows", c_int64), ("row_stride", c_int64),
                ("column_stride", c_int64), ("data", c_void_p)]

    def pack(self):
        """Its numbers, row after row; of a triangle, row i has i + 1."""
        packed = np.empty(_lib.curvd_array_count(byref(self)), np.float64 if self.dtype == F64 else np.float32)
        _lib.curvd_array_pack(byref(self), packed.ctypes.data)
        return packed

    def unpack(self, packed):
        """The numbers that pack() gave."""
        expected = _lib.curvd_array_count(byref(self)), np.dtype(np.float64 if self.dtype == F64 else np.float32)
        if packed.ndim != 1 or not packed.flags.c_contiguous or (packed.size, packed.dtype) != expected:
            raise ValueError(f"{self.name.decode()}: {expected[0]} packed numbers of {expected[1]} are expected, not "
                             f"{packed.dtype} {packed.shape}")
        _lib.curvd_array_unpack(byref(self), packed.ctypes.data)


class Metrics(ctypes.Structure):
    _fields_ = [("step", c_int64), ("stage_wall_s", c_double * STAGES), ("stage_cpu_s", c_double * STAGES),
                ("stage_calls", c_int64 * STAGES), ("sent_bytes", c_int64 * TRAFFICS), ("events", c_int64 * EVENTS),
                ("memory_bytes", c_int64 * MEMORIES), ("memory_peak_bytes", c_int64), ("n_allocations", c_int64),
                ("clip_scale", c_double), ("age_mean", c_double), ("age_p99", c_int64), ("age_max", c_int64),
                ("refreshes_arrived", c_int64), ("latency_mean_s", c_double), ("latency_max_s", c_double),
                ("progress", c_int), ("overlap_measured", c_double), ("transfer_s", c_double), ("exposed_s", c_double)]


class FactorMetrics(ctypes.Structure):
    _fields_ = [("n", c_int64), ("eig_rank", c_int64), ("statistics_step", c_int64), ("trace", c_double),
                ("lambda_max", c_double), ("lambda_min", c_double), ("tau", c_double), ("missing_trace", c_double),
                ("error_bound", c_double), ("error_norm", c_double), ("residual", c_double),
                ("orthogonality", c_double), ("drift", c_double), ("products", c_int64), ("refresh_s", c_double),
                ("ranks", c_int), ("damping", c_double), ("refused", c_int64), ("carrier", c_char_p),
                ("store", c_char_p), ("precision", c_char_p), ("wire_error_statistics", c_double),
                ("wire_error_basis", c_double)]


class LayerMetrics(ctypes.Structure):
    _fields_ = [("name", c_char_p), ("method", c_char_p), ("reason", c_char_p), ("d_in", c_int64), ("d_out", c_int64),
                ("has_bias", c_bool), ("owner", c_int), ("apply", c_char_p), ("share", c_double),
                ("factor", FactorMetrics * 2), ("direction_rms", c_double), ("owner_s", c_double)]


class OptionInfo(ctypes.Structure):
    _fields_ = [(name, c_char_p) for name in ("name", "type", "group", "unit", "range", "initial", "help")]


_BeginHook = ctypes.CFUNCTYPE(c_int, c_void_p, c_bool, c_int64)
_ArrayHook = ctypes.CFUNCTYPE(c_int, c_void_p, c_bool, POINTER(Array))
_EndHook = ctypes.CFUNCTYPE(c_int, c_void_p, c_bool, c_int)
_LogHook = ctypes.CFUNCTYPE(None, c_void_p, c_int, c_char_p)


class StateHooks(ctypes.Structure):
    _fields_ = [("begin", _BeginHook), ("array", _ArrayHook), ("end", _EndHook)]


# ---- the library ----

_ctx = c_void_p
_matrix = [c_void_p, c_int64]
_PROTOTYPES = {  # name: (result, arguments)
    "create_f": (c_int, [c_int, POINTER(_ctx)]), "destroy": (None, [POINTER(_ctx)]),
    "set": (c_int, [_ctx, c_char_p, c_char_p]), "get": (c_char_p, [_ctx, c_char_p]),
    "layer_add": (c_int, [_ctx, c_char_p, c_int64, c_int64, c_bool, POINTER(c_int32)]),
    "layer_add_norm": (c_int, [_ctx, c_char_p, c_int64, POINTER(c_int32)]),
    "layer_add_conv": (c_int, [_ctx, c_char_p, POINTER(Conv), c_bool, POINTER(c_int32)]),
    "plan": (c_int, [_ctx]), "role_get": (c_int, [_ctx]), "worker_count": (c_int, [_ctx]),
    "worker_index": (c_int, [_ctx]), "layer_count": (c_int32, [_ctx]), "wants_capture": (c_bool, [_ctx]),
    "capture": (c_int, [_ctx, c_int32, c_int64, *_matrix, *_matrix]),
    "capture_gradient": (c_int, [_ctx, c_int32, c_int64, *_matrix, *_matrix, c_float]),
    "progress": (c_int, [_ctx]), "is_factored": (c_bool, [_ctx, c_int32]),
    "precondition": (c_int, [_ctx, c_int32, c_int64, *_matrix, *_matrix, c_float, c_float, POINTER(Gradient)]),
    "step": (c_int, [_ctx, c_double, POINTER(Gradient), c_int32]), "serve": (c_int, [_ctx]), "finish": (c_int, [_ctx]),
    "on_state": (c_int, [_ctx, POINTER(StateHooks), c_void_p]), "save": (c_int, [_ctx]),
    "load": (c_int, [_ctx, c_int64]), "check": (c_int, [_ctx, POINTER(c_uint64)]), "raise": (None, [_ctx, c_uint32]),
    "flags": (c_uint32, [_ctx]), "array_count": (c_int64, [POINTER(Array)]),
    "array_pack": (None, [POINTER(Array), c_void_p]), "array_unpack": (None, [POINTER(Array), c_void_p]),
    "metrics_read": (c_int, [_ctx, POINTER(Metrics)]),
    "layer_metrics_read": (c_int, [_ctx, c_int32, POINTER(LayerMetrics)]),
    "stage_name": (c_char_p, [c_int]), "traffic_name": (c_char_p, [c_int]), "memory_name": (c_char_p, [c_int]),
    "event_name": (c_char_p, [c_int]), "log_to": (c_int, [_ctx, _LogHook, c_void_p, c_int]),
    "option_count": (c_int, []), "option_get": (c_int, [c_int, POINTER(OptionInfo)]),
    "option_check": (c_int, [c_char_p, c_char_p, c_void_p, c_size_t]), "last_error": (c_char_p, [_ctx]),
    "matrix_unit": (c_char_p, [_ctx]), "status_name": (c_char_p, [c_int]), "status_text": (c_char_p, [c_int]),
    "version": (c_char_p, []),
    "build_info": (c_char_p, []),
}


def _load():
    name = f"libcurvd.so.{VERSION_MAJOR}.{VERSION_MINOR}"
    prefix = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..")
    found = sorted(glob.glob(f"{prefix}/lib*/{name}") + glob.glob(f"{prefix}/lib/*/{name}"))
    path = os.environ.get("CURVD_LIBRARY") or (found[0] if found else name)
    ctypes.CDLL(MPI.__file__, mode=ctypes.RTLD_GLOBAL)  # Open MPI's plug-ins look for libmpi among the global names
    try:
        lib = ctypes.CDLL(path)
    except OSError as e:
        cure = f"Set CURVD_LIBRARY to its path, .../{name}"
        raise ImportError(f"the library of curvd cannot be loaded: {e}. {cure}") from e
    for function, (result, arguments) in _PROTOTYPES.items():
        entry = getattr(lib, "curvd_" + function, None)
        if entry is None:
            raise ImportError(f"{path} has no function curvd_{function}: it is not the library of this module, {name}")
        entry.restype, entry.argtypes = result, arguments
    if not lib.curvd_version().decode().startswith(f"{VERSION_MAJOR}.{VERSION_MINOR}."):
        raise ImportError(f"{path} is curvd {lib.curvd_version().decode()}, but this module is for {name}")
    mine, theirs = lib.curvd_build_info().decode(), MPI.Get_library_version().split(",")[0].split("\n")[0]
    if theirs not in mine:
        raise ImportError(f"mpi4py runs on {theirs}, but curvd does not ({mine}): both need the same MPI library")
    return lib


_lib = _load()
version = _lib.curvd_version().decode()
build_info = _lib.curvd_build_info().decode()


def _value_text(value):
    return str(value).lower() if isinstance(value, (bool, np.bool_)) else str(value)


def _plain(x, names=None):
    """A structure as a dict, arrays of the lists by their texts."""
    if isinstance(x, ctypes.Structure):
        return {field: _plain(getattr(x, field), _NAMES.get(field)) for field, _ in x._fields_}
    if isinstance(x, ctypes.Array):
        values = [_plain(value) for value in x]
        return {names(i).decode(): value for i, value in enumerate(values)} if names else values
    return x.decode() if isinstance(x, bytes) else x


_NAMES = {"stage_wall_s": _lib.curvd_stage_name, "stage_cpu_s": _lib.curvd_stage_name,
          "stage_calls": _lib.curvd_stage_name, "sent_bytes": _lib.curvd_traffic_name,
          "events": _lib.curvd_event_name, "memory_bytes": _lib.curvd_memory_name}


def options():
    """Every option that Context takes: dicts of name, type, group, unit, range, initial, help."""
    info = OptionInfo()
    return [_plain(info) for i in range(_lib.curvd_option_count()) if _lib.curvd_option_get(i, byref(info)) == 0]


def check_option(key, value):
    """Raises Error when Context would not take it; needs no MPI."""
    message = ctypes.create_string_buffer(512)
    code = _lib.curvd_option_check(key.encode(), _value_text(value).encode(), message, len(message))
    if code != 0:
        raise Error(code, message.value.decode())


# ---- arrays ----


def _is_rows(x):
    """Are the numbers of a row adjacent, and rows whole numbers apart?"""
    inner = 4
    for n, stride in zip(x.shape[:0:-1], x.strides[:0:-1]):
        if n != 1 and stride != inner:
            return False
        inner *= n
    return x.ndim > 0 and x.strides[0] % 4 == 0 and (x.shape[0] < 2 or x.strides[0] >= inner)


def _rows(what, x, shape):
    """Address and distance of rows of x, whose rows have this shape; an error says what to do."""
    if not isinstance(x, np.ndarray) or x.dtype != np.float32:
        kind = x.dtype if isinstance(x, np.ndarray) else type(x).__name__
        raise TypeError(f"{what} is of {kind}: curvd takes numpy arrays of float32 (astype(numpy.float32) copies)")
    if x.shape[1:] != tuple(shape) or x.ndim == 0:
        raise ValueError(f"{what} has shape {x.shape}: (rows, {', '.join(map(str, shape))}) is expected")
    if not _is_rows(x):
        raise ValueError(f"{what} has strides {x.strides}: curvd takes rows of adjacent numbers "
                         "(numpy.ascontiguousarray copies)")
    return x.ctypes.data, x.strides[0] // 4 if x.shape[0] > 1 else max(int(np.prod(shape)), 1)


def _vector(what, x, n):
    is_array = isinstance(x, np.ndarray)
    if not is_array or x.dtype != np.float32 or x.shape != (n,) or x.strides[0] % 4 or x.strides[0] < 4:
        kind = f"{x.dtype} {x.shape} {x.strides}" if is_array else type(x).__name__
        raise ValueError(f"{what} is {kind}: a numpy array of float32 ({n},) is expected, in rising order")
    return x.ctypes.data, x.strides[0] // 4


def gradient(weight, bias=None, parameter=None, parameter_bias=None, shrink=0.0):
    """One layer's gradient for Context.step: weight (d_out, d_in; a convolution's may have its four dimensions), bias
    (d_out). With parameter, W laid out as weight is, the step does W <- (1 - shrink) W - lr * direction; without, the
    direction replaces the gradient. The arrays are kept alive by what is returned, which can be used in every step."""
    if np.ndim(weight) < 2:
        raise ValueError(f"weight has shape {np.shape(weight)}: (d_out, d_in) is expected")
    out = Gradient(shrink=shrink)
    out.arrays = [x for x in (weight, bias, parameter, parameter_bias) if x is not None]
    if any(isinstance(x, np.ndarray) and not x.flags.writeable for x in out.arrays):
        raise ValueError("a gradient or parameter is read-only: curvd writes directions to them")
    out.weight, out.ld = _rows("weight", weight, np.shape(weight)[1:])
    if bias is not None:
        out.bias, out.bias_stride = _vector("bias", bias, weight.shape[0])
    if parameter is not None:
        out.parameter, ld = _rows("parameter", parameter, weight.shape[1:])
        if ld != out.ld or parameter.shape != weight.shape:
            raise ValueError(f"parameter {parameter.shape} {parameter.strides} is not laid out as weight is, "
                             f"{weight.shape} {weight.strides}")
    if parameter_bias is not None:
        out.parameter_bias, stride = _vector("parameter_bias", parameter_bias, weight.shape[0])
        if bias is None or stride != out.bias_stride:
            raise ValueError("parameter_bias is not laid out as bias is")
    return out


# ---- the service ----


class Context:
    """One service. comm: mpi4py's communicator, duplicated. Collective; options must be the same on every rank."""

    def __init__(self, comm=MPI.COMM_WORLD, **options):
        self._handle, self._keep, self._layers, self._thrown = c_void_p(), [], [], None
        self._require(_lib.curvd_create_f(comm.py2f(), byref(self._handle)), "curvd_create")
        self.set(**options)

    def __enter__(self):
        return self

    def __exit__(self, kind, exception, trace):
        if kind is None:
            self.close()

    def close(self):
        """Collective. Ends and frees the service; nothing when called twice."""
        _lib.curvd_destroy(byref(self._handle))

    @property
    def _ctx(self):
        if not self._handle:
            raise Error(ERR_STATE, "the context is closed")
        return self._handle

    def _check(self, code):
        thrown, self._thrown = self._thrown, None
        if thrown is not None:
            raise thrown
        if code != 0:
            raise Error(code, _lib.curvd_last_error(self._ctx).decode())

    def _require(self, code, what):
        """Of functions that leave no sentence."""
        if code != 0:
            raise Error(code, f"{what}: {_lib.curvd_status_text(code).decode()}")

    def set(self, **options):
        """Before plan()."""
        for key, value in options.items():
            self._check(_lib.curvd_set(self._ctx, key.encode(), _value_text(value).encode()))

    def get(self, key):
        """The value in force, as text."""
        value = _lib.curvd_get(self._ctx, key.encode())
        if value is None:
            raise Error(ERR_OPTION, f"unknown option '{key}'")
        return value.decode()

    # ---- layers ----

    def _add(self, function, name, *arguments, a, g, weight, has_bias):
        layer = c_int32(-1)
        self._check(function(self._ctx, name.encode(), *arguments, byref(layer)))
        self._layers.append({"name": name, "a": a, "g": g, "weight": weight, "has_bias": has_bias})
        return layer.value

    def add_layer(self, name, d_in, d_out, bias=True):
        return self._add(_lib.curvd_layer_add, name, d_in, d_out, bias, a=(d_in,), g=(d_out,), weight=(d_out, d_in),
                         has_bias=bias)

    def add_norm(self, name, channels):
        return self._add(_lib.curvd_layer_add_norm, name, channels, a=(channels,), g=(channels,), weight=(channels, 1),
                         has_bias=True)

    def add_conv(self, name, c_in, c_out, size, kernel, stride=(1, 1), pad=(0, 0), dilation=(1, 1), bias=True):
        """Channels first, as in PyTorch: a (rows, c_in, *size), g (rows, c_out, oh, ow), weight (c_out, c_in, *kernel).
        """
        shape = Conv(c_in, c_out, *map(tuple, (size, kernel, stride, pad, dilation)), CHANNELS_FIRST)
        out = [(n + 2 * p - d * (k - 1) - 1) // max(s, 1) + 1
               for n, k, s, p, d in zip(size, kernel, stride, pad, map(lambda d: max(d, 1), dilation))]
        return self._add(_lib.curvd_layer_add_conv, name, byref(shape), bias, a=(c_in, *size), g=(c_out, *out),
                         weight=(c_out, c_in, *kernel), has_bias=bias)

    def plan(self):
        self._check(_lib.curvd_plan(self._ctx))

    is_worker = property(lambda self: _lib.curvd_role_get(self._ctx) == ROLE_WORKER)
    worker_count = property(lambda self: _lib.curvd_worker_count(self._ctx))
    worker_index = property(lambda self: _lib.curvd_worker_index(self._ctx))
    layer_count = property(lambda self: _lib.curvd_layer_count(self._ctx))
    matrix_unit = property(lambda self: _lib.curvd_matrix_unit(self._ctx).decode())

    # ---- training ----

    wants_capture = property(lambda self: _lib.curvd_wants_capture(self._ctx))

    def _matrices(self, layer, a, g):
        """rows, a, lda, g, ldg of C; None is NULL."""
        if not 0 <= layer < len(self._layers):
            raise IndexError(f"there is no layer {layer}: {len(self._layers)} were added")
        known = self._layers[layer]
        at_a, lda = _rows(f"a of layer {known['name']}", a, known["a"]) if a is not None else (None, 0)
        at_g, ldg = _rows(f"g of layer {known['name']}", g, known["g"]) if g is not None else (None, 0)
        if a is not None and g is not None and a.shape[0] != g.shape[0]:
            raise ValueError(f"layer {known['name']}: a has {a.shape[0]} rows and g {g.shape[0]}")
        rows = a.shape[0] if a is not None else g.shape[0] if g is not None else 0
        return rows, at_a, lda, at_g, ldg

    def capture(self, layer, a, g):
        """a (rows, d_in): inputs; g (rows, d_out): gradients in the outputs. None leaves that factor alone."""
        self._check(_lib.curvd_capture(self._ctx, layer, *self._matrices(layer, a, g)))

    def capture_gradient(self, layer, a, g, scale=1.0):
        self._check(_lib.curvd_capture_gradient(self._ctx, layer, *self._matrices(layer, a, g), scale))

    def progress(self):
        self._check(_lib.curvd_progress(self._ctx))

    def is_factored(self, layer):
        return _lib.curvd_is_factored(self._ctx, layer)

    def precondition(self, layer, a, g, to, scale=1.0, keep=0.0):
        self._check_gradient(layer, to)
        self._check(_lib.curvd_precondition(self._ctx, layer, *self._matrices(layer, a, g), scale, keep, byref(to)))

    def _check_gradient(self, layer, of):
        if not isinstance(of, Gradient):
            raise TypeError(f"the gradient of layer {layer} is of {type(of).__name__}: curvd.gradient() makes one")
        known, shape = self._layers[layer], of.arrays[0].shape
        if shape[0] != known["weight"][0] or np.prod(shape) != np.prod(known["weight"]):
            raise ValueError(f"layer {known['name']}: the gradient's weight is {shape}, not {known['weight']}")
        if known["has_bias"] and not of.bias:
            raise ValueError(f"layer {known['name']} has a bias, and the gradient has none")

    def step(self, lr, gradients):
        """Collective over the workers. gradients: of gradient(), in layer order."""
        for layer, of in enumerate(gradients[:len(self._layers)]):
            self._check_gradient(layer, of)
        self._check(_lib.curvd_step(self._ctx, lr, (Gradient * len(gradients))(*gradients), len(gradients)))

    def serve(self):
        """Collective over the curvature ranks: until the workers finish. Returns at once on a worker."""
        self._check(_lib.curvd_serve(self._ctx))

    def finish(self):
        self._check(_lib.curvd_finish(self._ctx))

    # ---- state ----

    def _call(self, hook, *arguments):
        """No exception passes through C: it waits for the end of the call."""
        try:
            hook(*arguments)
            return 0
        except BaseException as e:
            self._thrown = e
            return e.code if isinstance(e, Error) else ERR_IO

    def on_state(self, array, begin=None, end=None):
        """array(is_load, part): part is an Array, to be packed or unpacked before it returns. begin(is_load, step),
        end(is_load, status). What they raise comes out of save or load, in the end out of serve on a curvature rank."""
        nothing = lambda *_: None  # noqa: E731
        hooks = StateHooks(_BeginHook(lambda _, is_load, step: self._call(begin or nothing, is_load, step)),
                           _ArrayHook(lambda _, is_load, part: self._call(array, is_load, part.contents)),
                           _EndHook(lambda _, is_load, status: self._call(end or nothing, is_load, status)))
        self._check(_lib.curvd_on_state(self._ctx, byref(hooks), None))
        self._keep.append(hooks)

    def save(self):
        self._check(_lib.curvd_save(self._ctx))

    def load(self, step):
        self._check(_lib.curvd_load(self._ctx, step))

    def check(self):
        """The checksum of what all workers hold alike."""
        replica = c_uint64()
        self._check(_lib.curvd_check(self._ctx, byref(replica)))
        return replica.value

    def raise_flags(self, flags):
        _lib.curvd_raise(self._ctx, flags)

    flags = property(lambda self: _lib.curvd_flags(self._ctx))

    # ---- what it is doing ----

    def metrics(self):
        out = Metrics()
        self._require(_lib.curvd_metrics_read(self._ctx, byref(out)), "metrics")
        return _plain(out)

    def layer_metrics(self, layer):
        out = LayerMetrics()
        self._require(_lib.curvd_layer_metrics_read(self._ctx, layer, byref(out)), f"metrics of layer {layer}")
        return _plain(out)

    def log_to(self, write, level=1):
        """write(level, line): 1 warning, 2 note, 3 debug; None: silence."""
        hook = _LogHook(lambda _, level, line: write(level, line.decode())) if write else _LogHook()
        self._check(_lib.curvd_log_to(self._ctx, hook, None, level))
        self._keep.append(hook)

"""Do curvd.f90 and curvd.py say what curvd.h says: constants, structures, functions and their arguments?
usage: interfaces.py INCLUDE [PYTHON]   folders of the installed headers and of curvd.py (which needs the library)"""
import ctypes
import os
import re
import subprocess
import sys
import tempfile

KINDS = {"int64_t": "i8", "uint64_t": "i8", "size_t": "i8", "long": "i8", "int": "i4", "int32_t": "i4",
         "uint32_t": "i4", "MPI_Fint": "i4", "bool": "b1", "_Bool": "b1", "double": "f8", "float": "f4", "void": "", "MPI_Comm": "MPI_Comm"}
# what the others have no need for, or under another name
NOT_IN_PYTHON = {"curvd_create", "curvd_dtype_bytes", "curvd_array_rows"}
NOT_IN_FORTRAN = {"curvd_create"}
FORTRAN_NAMES = {"CURVD_FLAGS": "CURVD_FLAG_COUNT"}
LISTS = ("CURVD_STAGE_", "CURVD_TRAFFIC_", "CURVD_MEMORY_", "CURVD_EVENT_")  # of which Python has the texts


class Header:
    """Constants, structures and functions of C text, with types as kinds: i8, f4, pointer, the name of a structure."""

    def __init__(self, text, constants=None):
        self.constants, self.structs, self.functions = dict(constants or {}), {}, {}
        self.kinds = dict(KINDS)
        text = re.sub(r"__attribute__\s*\(\(.*?\)\)\s*\)?", "", text)
        for body, name in re.findall(r"\benum(?:\s+\w+)?\s*\{([^{}]*)\}\s*(\w*)\s*;", text):
            self.read_enum(body)
            self.kinds[name] = "i4"
        for name, body in re.findall(r"typedef struct (curvd_\w+)\s*\{(.*?)\}\s*\1\s*;", text, re.S):
            self.kinds[name] = name
            self.structs[name] = [field for line in body.split(";") if line.strip() for field in self.read_fields(line)]
        for result, name, arguments in re.findall(r"([\w ]+[ *])(curvd_\w+)\s*\(((?:[^()]|\([^()]*\))*)\)\s*;", text):
            kinds = [self.kind(a) for a in re.split(r",(?![^(]*\))", arguments) if a.strip() not in ("", "void")]
            self.functions[name] = (self.kind(result + "x"), *kinds)

    def read_enum(self, body):
        value = -1
        for item in filter(None, map(str.strip, body.split(","))):
            name, _, given = (word.strip() for word in item.partition("="))
            value = int(given) if given else value + 1
            if name.startswith("CURVD_"):
                self.constants[name] = value

    def kind(self, declaration):
        """Of "const float *a"."""
        words = re.findall(r"\w+", declaration)
        base = [w for w in words if w not in ("const", "struct", "extern")][0]
        return "pointer" if "*" in declaration or "(" in declaration else self.kinds[base]

    def read_fields(self, line):
        """[(name, kind, count)] of "int64_t n, *m[3]"."""
        called = re.search(r"\(\s*\*\s*(\w+)\s*\)", line)
        if called:
            return [(called.group(1), "pointer", 1)]
        first, *others = line.split(",")
        base = re.match(r"\s*((?:const )?\w+)", first).group(1)
        return [self.read_field(base, declarator) for declarator in [first[first.index(base) + len(base):], *others]]

    def read_field(self, base, declarator):
        name, count = re.search(r"(\w+)\s*(?:\[(\w+)\])?\s*$", declarator).groups()
        return name, self.kind(base + declarator), int(self.constants.get(count, count or 1))


def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def read_headers(include):
    with tempfile.NamedTemporaryFile("w", suffix=".c") as file:
        file.write("#include <curvd.h>\n")
        file.flush()
        text = run("mpicc", "-E", "-P", "-I", include, file.name)
    with open(os.path.join(include, "curvd.h")) as header:
        versions = re.findall(r"#define (CURVD_VERSION_\w+) (\d+)", header.read())
    return Header(text, {name: int(value) for name, value in versions})


class Findings:
    def __init__(self):
        self.n = 0

    def compare(self, where, what, expected, found):
        if expected != found:
            print(f"{where}: {what} is {found}, and in the headers {expected}")
            self.n += 1

    def compare_all(self, where, expected, found, left_out=()):
        for name in sorted((expected.keys() | found.keys()) - set(left_out)):
            self.compare(where, name, expected.get(name), found.get(name))


# ---- Fortran ----


def read_fortran(include):
    path = os.path.join(include, "curvd.f90")
    with tempfile.TemporaryDirectory() as folder:
        prototypes = run("gfortran", "-fsyntax-only", "-fc-prototypes", "-J", folder, path)
    with open(path) as source:
        text = re.sub(r"!.*", "", source.read())
    lines = re.findall(r"^ *integer\(c_int\), parameter ::((?:.*&\n)*.*)", text, re.M)
    constants = {name: int(value) for line in lines for name, value in re.findall(r"(CURVD_\w+) = (-?\d+)", line)}
    return Header(prototypes, constants)


def compare_fortran(findings, headers, include):
    module = read_fortran(include)
    expected = {FORTRAN_NAMES.get(name, name): value for name, value in headers.constants.items()}
    findings.compare_all("curvd.f90", expected, module.constants)
    findings.compare_all("curvd.f90", headers.structs, module.structs)
    hooks = {name for name in module.functions if name.endswith("_hook")}
    findings.compare_all("curvd.f90", headers.functions, module.functions, NOT_IN_FORTRAN | hooks)


# ---- Python ----


def python_kind(t, structs):
    """Of a type of ctypes; a function without result has None."""
    if t is None:
        return ""
    if t in structs:
        return structs[t]
    if t is ctypes.c_bool:
        return "b1"
    if t in (ctypes.c_double, ctypes.c_float):
        return f"f{ctypes.sizeof(t)}"
    is_integer = isinstance(getattr(t, "_type_", None), str) and t._type_ in "iIlLqQ"
    return f"i{ctypes.sizeof(t)}" if is_integer else "pointer"


def python_fields(struct, structs):
    return [(name, python_kind(getattr(t, "_type_", t) if issubclass(t, ctypes.Array) else t, structs),
             getattr(t, "_length_", 1)) for name, t in struct._fields_]


def compare_python(findings, headers):
    import curvd
    names = {"curvd_" + re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower(): value for name, value in vars(curvd).items()
             if isinstance(value, type) and issubclass(value, ctypes.Structure)}
    structs = {struct: name for name, struct in names.items()}
    findings.compare_all("curvd.py", headers.structs, {name: python_fields(s, structs) for name, s in names.items()})
    for name, value in headers.constants.items():
        if not name.startswith(LISTS):
            findings.compare("curvd.py", name, value, getattr(curvd, name[len("CURVD_"):], None))
    functions = {"curvd_" + name: tuple(python_kind(t, structs) for t in (result, *arguments))
                 for name, (result, arguments) in curvd._PROTOTYPES.items()}
    findings.compare_all("curvd.py", headers.functions, functions, NOT_IN_PYTHON)


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    findings, headers = Findings(), read_headers(sys.argv[1])
    compare_fortran(findings, headers, sys.argv[1])
    if len(sys.argv) == 3:
        sys.path.insert(0, sys.argv[2])
        compare_python(findings, headers)
    print(f"interfaces: {len(headers.constants)} constants, {len(headers.structs)} structures, "
          f"{len(headers.functions)} functions, {findings.n} differences")
    return 1 if findings.n or min(map(len, (headers.constants, headers.structs, headers.functions))) < 8 else 0


if __name__ == "__main__":
    sys.exit(main())

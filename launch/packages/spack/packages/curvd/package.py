"""spack repo add launch/packages/spack && spack install curvd"""
import os

from spack.package import *

try:  # Spack 1.0 and later
    from spack_repo.builtin.build_systems.cmake import CMakePackage
except ImportError:
    pass


class Curvd(CMakePackage):
    """A distributed curvature service for second-order training of neural networks, in C on MPI."""

    # the clone that this recipe lies in
    git = "file://" + os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 5))

    license("BSD-3-Clause")
    version("main", branch="main")

    variant("onednn", default=True, description="convolutions by oneDNN 2, in place of plain loops")
    variant("native", default=False, description="-march=native; Spack chooses for its target otherwise")
    variant("tests", default=False, description="build the tests")

    depends_on("c", type="build")
    depends_on("cmake@3.22:", type="build")
    depends_on("ninja", type="build")
    depends_on("pkgconfig", type="build")
    depends_on("mpi")
    depends_on("openblas")  # itself, not any BLAS: its threads are set and its kernels are told
    depends_on("scalapack")
    depends_on("libyaml")
    depends_on("jansson")
    depends_on("zlib-api")
    depends_on("xxhash")
    depends_on("random123")
    depends_on("onednn@2", when="+onednn")
    depends_on("check", when="+tests")
    depends_on("cxx", type="build", when="+tests")
    depends_on("python@3:", type=("build", "test"), when="+tests")

    generator("ninja")

    def cmake_args(self):
        return [
            self.define("SCALAPACK_LIBRARY", self.spec["scalapack"].libs[0]),
            self.define("CURVD_ONEDNN", "ON" if self.spec.satisfies("+onednn") else "OFF"),
            self.define_from_variant("CURVD_NATIVE", "native"),
            self.define_from_variant("CURVD_TESTS", "tests"),
            self.define("CURVD_BENCH", False),
            self.define("CURVD_WERROR", False),
        ]

    @run_after("install")
    @on_package_attributes(run_tests=True)
    def check_install(self):
        Executable(self.prefix.bin.curvd)("check", "--epochs", "2")

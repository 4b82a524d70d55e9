# SPDX-License-Identifier: BSD-3-Clause
"""Extensions and generated protocol code; all else about the package is in pyproject.toml."""

import os
import platform
import sys
from pathlib import Path

import numpy
from Cython.Build import cythonize
from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import Extension, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT / "bess_plugins"))

import _build_proto  # noqa: E402

CORE_DIRS = ("host", "crypto", "engine", "ports", "modules", "nf")
PLUGIN_DIRS = ("host", "crypto", "engine", "modules", "nf")
# What every kernel may count on; better ones are chosen when the program runs (ext/host/isa.h).
BASELINE = ["-march=x86-64-v2"] if platform.machine() == "x86_64" else []
# g++ 12 takes the unused alternatives of std::variant for uninitialised memory.
NO_FALSE_ALARM = ["-Wno-maybe-uninitialized"]
# What plugins may call is visible to them, and yet the engine calls it directly.
LOCAL_CALLS = ["-fno-semantic-interposition"]
WARNINGS = ["-Wall", "-Wextra", *NO_FALSE_ALARM]
if os.environ.get("CI"):
    WARNINGS.append("-Werror")


def sources_of(folder: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / "ext" / folder).glob("*.cc"))


def host_sources(*names: str) -> list[str]:
    return [f"ext/host/{name}.cc" for name in names]


def core_sources() -> list[str]:
    """Every C++ file of the core; modules and ports register themselves when linked in."""
    return [source for folder in CORE_DIRS for source in sources_of(folder)]


def cython_extension(package: str, name: str, *sources: str) -> Extension:
    """`PACKAGE._NAME`, whose arrays are numpy's."""
    return Extension(
        f"{package}._{name}",
        [f"ext/bindings/{name}.pyx", *sources],
        include_dirs=["ext", numpy.get_include()],
        depends=headers(),
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
        language="c++",
        extra_compile_args=["-std=c++17", "-O3", "-g0", *BASELINE, *NO_FALSE_ALARM],
    )


def headers() -> list[str]:
    """Every file that others include: what is built from them is old when one of them is new."""
    found = [path for kind in ("*.h", "*.pxi") for path in (ROOT / "ext").rglob(kind)]
    return sorted(str(path.relative_to(ROOT)) for path in found)


def needs_recompile(obj: str, source: str) -> bool:
    """Whether an object is older than its source or any header of the core."""
    if not os.path.exists(obj):
        return True
    newest = max(os.stat(path).st_mtime for path in (source, *headers()))
    return newest > os.stat(obj).st_mtime


class BuildWithProtocol(build_py):
    """Generates bess_plugins/pb before packages are collected; adds what plugins are made of."""

    def run(self) -> None:
        _build_proto.generate(ROOT)
        super().run()
        # A checkout that is installed in place has them in ext/.
        if self.editable_mode:
            return
        for folder in PLUGIN_DIRS:
            for path in sorted((ROOT / "ext" / folder).glob("*.[ch]*")):
                target = Path(self.build_lib, "bess_plugins", "ext", folder, path.name)
                self.mkpath(str(target.parent))
                self.copy_file(str(path), str(target))


_build_proto.generate(ROOT)
ParallelCompile(
    "NPY_NUM_BUILD_JOBS", needs_recompile=needs_recompile, default=os.cpu_count() or 1
).install()
setup(
    cmdclass={"build_py": BuildWithProtocol},
    ext_modules=[
        Pybind11Extension(
            "bess_plugins._engine",
            ["ext/bindings/engine.cc", *core_sources()],
            include_dirs=["ext"],
            depends=headers(),
            cxx_std=17,
            extra_compile_args=["-O3", "-g0", "-fno-plt", *LOCAL_CALLS, *BASELINE, *WARNINGS],
            extra_link_args=["-Wl,-Bsymbolic-functions"],
        ),
        *cythonize(
            [
                cython_extension(
                    "bess_plugins",
                    "arrays",
                    *host_sources("headers", "flow_hash", "checksum", "isa"),
                ),
                cython_extension(
                    "bess_plugins", "crypto", *sources_of("crypto"), *host_sources("isa")
                ),
                cython_extension("e2ctl", "placement"),
            ],
            build_dir="build",
            language_level=3,
        ),
    ],
)

# SPDX-License-Identifier: BSD-3-Clause
"""Compiles module sources and the adapter into one shared object for a daemon."""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bess_plugins.bessd.tree import PluginError, Tree, include_flags, run

__all__ = ["build", "plugin_path", "sources_for"]

_HERE = Path(__file__).resolve().parent
_ADAPTER = _HERE / "src"
_PROTO = _HERE.parent / "proto"
_PROTOS = ("e2_msg.proto", "embark_msg.proto", "e2_bessd_msg.proto")
# An installed package has the core's sources inside, a checkout beside it.
_EXT = next(path / "ext" for path in _HERE.parents if (path / "ext").is_dir())
_MODULE_FOLDERS = ("modules", "nf")
_SPLIT = "engine/gate_split.cc"  # of the engine the only part that both hosts have
_CLASS = re.compile(r'\bModuleClass k\w+\s*=\s*\{\s*"(\w+)"')
_INCLUDE = re.compile(r'^#include "([^"]+)"', re.MULTILINE)
# Nothing of the plugin is for others, and it must be gone once it is unloaded.
_FLAGS = (
    "-std=c++17", "-O3", "-DNDEBUG", "-g0", "-fPIC", "-fno-gnu-unique", "-fvisibility=hidden",
    "-fno-strict-aliasing", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wno-maybe-uninitialized",
    "-Wno-deprecated-copy", "-Wno-stringop-overflow",
)  # fmt: skip


def plugin_path(tree: Tree, out: Path, name: str = "e2_modules") -> Path:
    return out / f"{name}-{tree.identity}.so"


def _includes(path: Path) -> list[str]:
    return _INCLUDE.findall(path.read_text(encoding="utf-8"))


def _classes(path: Path) -> set[str]:
    return set(_CLASS.findall(path.read_text(encoding="utf-8")))


def _closure(paths: Iterable[Path]) -> set[str]:
    """Our headers that these files include, directly or not, relative to ext/."""
    seen: set[str] = set()
    todo = [name for path in paths for name in _includes(path)]
    while todo:
        name = todo.pop()
        if name in seen or not (_EXT / name).is_file():
            continue
        seen.add(name)
        todo += _includes(_EXT / name)
    return seen


def sources_for(tree: Tree, own: Sequence[Path] = ()) -> list[Path]:
    """`own`, or every module that the tree lacks, with all that they need."""
    everything = [path for name in _MODULE_FOLDERS for path in sorted((_EXT / name).glob("*.cc"))]
    modules = list(own) or [path for path in everything if _classes(path) - tree.classes]
    helpers = [path for path in everything if not _classes(path)]
    chosen = dict.fromkeys(modules)
    for _ in range(len(helpers)):  # until no helper brings another
        headers = _closure(chosen)
        # One source may be spread over several files, which share its header.
        parts = {name for name in headers if (_EXT / name).with_suffix(".cc") in chosen}
        found = [
            path
            for path in helpers
            if path not in chosen
            and (
                str(path.relative_to(_EXT).with_suffix(".h")) in headers
                or parts & set(_includes(path))
            )
        ]
        if not found:
            break
        chosen |= dict.fromkeys(found)
    if any(name.startswith("crypto/") for name in _closure(chosen)):
        chosen |= dict.fromkeys(sorted((_EXT / "crypto").glob("*.cc")))
    host = sorted((_EXT / "host").glob("*.cc"))
    return [*chosen, *host, _EXT / _SPLIT, *sorted(_ADAPTER.glob("*.cc"))]


def _descriptors(protos: Sequence[Path], tree: Tree, folder: Path) -> Path:
    """A source file with the types of all messages."""
    described = folder / "descriptors.bin"
    paths = [f"-I{parent}" for parent in dict.fromkeys([_PROTO, *(p.parent for p in protos)])]
    names = [*_PROTOS, *(path.name for path in protos)]
    run(
        ["protoc", *paths, "--include_imports", f"--descriptor_set_out={described}", *names],
        "compiling the messages",
    )
    data = described.read_bytes()
    body = ",\n".join(
        ",".join(map(str, data[start : start + 24])) for start in range(0, len(data), 24)
    )
    source = folder / "descriptors.cc"
    quoted = tree.version.replace("\\", "\\\\").replace('"', '\\"')
    source.write_text(
        '#include "descriptors.h"\n'
        "namespace e2 {\n"
        f"const unsigned char kDescriptorSet[] = {{\n{body}}};\n"
        "const size_t kDescriptorSetBytes = sizeof kDescriptorSet;\n"
        f'const char kDaemonVersion[] = "{quoted}";\n'
        "}  // namespace e2\n",
        encoding="utf-8",
    )
    return source


def _client_classes(protos: Sequence[Path], out: Path) -> None:
    """What BESS's own Python client needs to know of our messages: for its pybess/plugin_pb."""
    target = out / "plugin_pb"
    target.mkdir(exist_ok=True)
    for path in [*(_PROTO / name for name in _PROTOS), *protos]:
        run(
            ["protoc", f"-I{path.parent}", f"-I{_PROTO}", f"--python_out={target}", path.name],
            "compiling the messages for pybess",
        )


def build(
    tree: Tree,
    out: Path,
    *,
    sources: Sequence[Path] = (),
    protos: Sequence[Path] = (),
    march: str = "native",
    jobs: int = 0,
) -> Path:
    """Write the plugin and, beside it, `plugin_pb` for pybess; return the plugin's path."""
    for path in [*sources, *protos]:
        if not path.is_file():
            raise PluginError(f"{path} is no file")
    own = [path.resolve() for path in sources]
    given = [path.resolve() for path in protos]
    out.mkdir(parents=True, exist_ok=True)
    target = plugin_path(tree, out, own[0].stem if own else "e2_modules")
    compiler = shlex.split(os.environ.get("CXX", "g++"))
    flags = [
        *_FLAGS, f"-march={march}", f"-I{_ADAPTER}", f"-I{_EXT}", *include_flags(tree),
        *shlex.split(os.environ.get("CXXFLAGS", "")),
    ]  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="bessd-plugin-") as name:
        folder = Path(name)
        files = [*sources_for(tree, own), _descriptors(given, tree, folder)]
        # The daemon's headers take longer than all the rest: they are compiled once.
        common = folder / "common.h"
        common.write_text('#include "host/bess.h"\n', encoding="utf-8")
        header = ["-x", "c++-header", str(common), "-o", f"{common}.gch"]
        run([*compiler, *flags, *header], "compiling the daemon's headers")
        flags += ["-include", str(common)]

        def compile_one(number: int) -> str:
            path = files[number]
            made = str(folder / f"{number}-{path.stem}.o")
            run([*compiler, *flags, "-c", str(path), "-o", made], f"compiling {path}")
            return made

        with ThreadPoolExecutor(jobs or os.cpu_count() or 1) as pool:
            objects = list(pool.map(compile_one, range(len(files))))
        unfinished = target.with_suffix(".tmp")
        run([*compiler, "-shared", "-o", str(unfinished), *objects], "linking the plugin")
        # A daemon may have the old file mapped: it keeps it.
        unfinished.replace(target)
    _client_classes(given, out)
    return target

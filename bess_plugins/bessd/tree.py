# SPDX-License-Identifier: BSD-3-Clause
"""A BESS source tree that a daemon was built in, and what a plugin for it must agree with."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PluginError", "Tree", "open_tree", "run"]

# What modules and daemon share in memory is declared in these.
_ABI_HEADERS = (
    "commands.h", "event.h", "gate.h", "message.h", "metadata.h", "module.h", "module_graph.h",
    "packet.h", "packet_pool.h", "pktbatch.h", "snbuf_layout.h", "task.h", "traffic_class.h",
    "worker.h",
)  # fmt: skip
_PACKAGES = ("libdpdk", "libglog", "protobuf")


class PluginError(Exception):
    """The plugin can't be built, loaded or checked; the text says why and what would help."""


@dataclass(frozen=True)
class Tree:
    """`version` is what the daemon calls itself, `abi` a digest of the headers."""

    home: Path
    version: str
    batch: int
    abi: str
    classes: frozenset[str]

    @property
    def identity(self) -> str:
        """What tells plugins for different daemons apart; part of their file names."""
        return f"{re.sub(r'[^A-Za-z0-9.]+', '-', self.version)}-b{self.batch}-{self.abi}"

    @property
    def daemon(self) -> Path:
        return self.home / "core" / "bessd"


def run(command: list[str], what: str) -> str:
    """Standard output of a command; PluginError with the end of its complaints where it fails."""
    if shutil.which(command[0]) is None:
        raise PluginError(f"{what}: {command[0]} is not installed")
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        tail = "\n".join(result.stderr.strip().splitlines()[-20:])
        raise PluginError(f"{what} failed:\n{tail}")
    return result.stdout


def _text(path: Path, why: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        raise PluginError(f"{path} is missing: {why}") from None


def open_tree(home: Path) -> Tree:
    """The tree at `home`, in which `bessd` must have been built."""
    core = home.resolve() / "core"
    if not (core / "module.h").is_file():
        raise PluginError(
            f"{home} is no BESS source tree: it has no core/module.h; set BESS_HOME to one of "
            "omec-project/bess or NetSys/bess"
        )
    built = "build bessd in this tree first (./build.py bess)"
    version = re.search(r'VERSION "([^"]*)"', _text(core / "version.h", built))
    _text(core / "pb" / "module_msg.pb.h", built)
    burst = re.search(r"kMaxBurst = (\d+)", _text(core / "pktbatch.h", "it sets the batch size"))
    if version is None or burst is None:
        raise PluginError(f"{core}: version.h or pktbatch.h is of a kind that is not known here")
    digest = hashlib.sha256()
    for name in _ABI_HEADERS:
        digest.update(_text(core / name, "modules are written against it").encode())
    registered = re.compile(r"^ADD_MODULE\(\s*(\w+)", re.MULTILINE)
    classes = {
        name
        for source in sorted((core / "modules").glob("*.cc"))
        for name in registered.findall(source.read_text(encoding="utf-8"))
    }
    return Tree(
        home.resolve(), version[1], int(burst[1]), digest.hexdigest()[:8], frozenset(classes)
    )


def include_flags(tree: Tree) -> list[str]:
    """Where the tree's headers and those of its libraries are."""
    core = tree.home / "core"
    flags = ["-isystem", str(core), "-isystem", str(core / "modules")]
    inside = sorted(tree.home.glob("deps/dpdk*/*/include/rte_config.h"))
    packages = [name for name in _PACKAGES if name != "libdpdk" or not inside]
    if inside:
        flags += ["-isystem", str(inside[-1].parent), "-include", str(inside[-1])]
    for word in run(["pkg-config", "--cflags", *packages], "looking for libraries").split():
        # It would come after ours and win; what the daemon was built for is for the caller to say.
        if not word.startswith("-march="):
            flags.append(word)
    return flags

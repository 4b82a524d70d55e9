# SPDX-License-Identifier: BSD-3-Clause
"""Generate the Python protocol classes in ``bess_plugins/pb``.

``protoc`` writes imports that only work with the output directory on the
module path; they are rewritten so that the result is an ordinary package.
"""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

PACKAGE = "bess_plugins.pb"
SOURCES = Path(__file__).resolve().parent / "proto"
SERVICE = "service.proto"

_HEADER = '# SPDX-License-Identifier: BSD-3-Clause\n"""Generated protocol classes."""\n'
_IMPORT = re.compile(r"^import (\w+_pb2)( as \w+)?$", re.MULTILINE)
_FROM = re.compile(r"^from (?!google\b)([a-z]\w*) import (\w+_pb2)( as \w+)?$", re.MULTILINE)


def _package_relative(text: str, local: frozenset[str]) -> str:
    """Point imports of generated modules and packages into the package."""

    def plain(match: re.Match[str]) -> str:
        return f"from {PACKAGE} import {match[1]}{match[2] or ''}"

    def nested(match: re.Match[str]) -> str:
        if match[1] not in local:
            return match[0]
        return f"from {PACKAGE}.{match[1]} import {match[2]}{match[3] or ''}"

    return _FROM.sub(nested, _IMPORT.sub(plain, text))


def generate(out_root: Path) -> list[Path]:
    """Write the classes below ``out_root`` and return the files written."""
    # Only needed while building, hence not among the imports of this file.
    protoc: Any = importlib.import_module("grpc_tools.protoc")
    target = Path(out_root) / Path(*PACKAGE.split("."))
    target.mkdir(parents=True, exist_ok=True)
    protos = sorted(path.relative_to(SOURCES).as_posix() for path in SOURCES.rglob("*.proto"))
    well_known = Path(protoc.__file__).parent / "_proto"
    status = protoc.main(
        [
            "protoc",
            f"-I{SOURCES}",
            f"-I{well_known}",
            f"--python_out={target}",
            f"--pyi_out={target}",
            *protos,
        ]
    )
    # Only this file declares a service.
    status = status or protoc.main(
        ["protoc", f"-I{SOURCES}", f"-I{well_known}", f"--grpc_python_out={target}", SERVICE]
    )
    if status != 0:
        raise RuntimeError(f"protoc failed with status {status}")

    folders = {(target / proto).parent for proto in protos}
    for folder in folders:
        (folder / "__init__.py").write_text(_HEADER, encoding="utf-8")
    local = frozenset(folder.name for folder in folders if folder != target)
    written = [path for pattern in ("*.py", "*.pyi") for path in sorted(target.rglob(pattern))]
    for path in written:
        text = path.read_text(encoding="utf-8")
        text = _package_relative(text, local)
        path.write_text(f"# mypy: ignore-errors\n{text}", encoding="utf-8")
    return written


if __name__ == "__main__":
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCES.parent.parent
    for generated in generate(root):
        print(generated)

# SPDX-License-Identifier: BSD-3-Clause
"""What the sources say about themselves: manual pages in C++ files, comments in .proto files."""

from __future__ import annotations

import importlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "bess_plugins" / "proto"

# Headings of a manual page in the order in which they stand; those in the second tuple may be left
# out.
MODULE_HEADINGS = (
    (
        "Family",
        "Gates",
        "Arguments",
        "Commands",
        "Metadata",
        "Drop reasons",
        "Events",
        "Limits",
        "Method",
        "Origin",
    ),
    ("Events", "Limits", "Method"),
)
PORT_HEADINGS = (("Queues", "Needs", "Arguments", "Threads", "Losses", "Origin"), ())

_ITEM = re.compile(r'^  (?! )("[^"]*"|\S+)  +(\S.*)$')


class ManualError(Exception):
    """A manual page is missing, or has another shape than all others."""


@dataclass
class Page:
    """The manual page of one module class or port driver."""

    path: Path
    name: str
    summary: str
    about: list[str] = field(default_factory=list)
    sections: dict[str, list[str]] = field(default_factory=dict)

    def text(self, heading: str) -> str:
        """A section as one line, or nothing."""
        return " ".join(line.strip() for line in self.sections.get(heading, ())).strip()

    def items(self, heading: str) -> dict[str, str]:
        """A section of two columns, names to meanings; empty for a section that says `none.`"""
        found: dict[str, str] = {}
        lines = [line for line in self.sections[heading] if line.strip()]
        if len(lines) == 1 and lines[0].startswith("none"):
            return found
        last = ""
        for line in lines:
            if match := _ITEM.match(line):
                last = match[1].strip('"')
                found[last] = match[2].strip()
            elif last and line.startswith("   "):
                found[last] += " " + line.strip()
            else:
                raise ManualError(f"{self.path}: {self.name}: {heading}: not an item: {line!r}")
        return found


def head_comment(path: Path) -> list[str]:
    """The comment at the head of a C++ file, without slashes and licence."""
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    comment: list[str] = []
    for line in lines:
        if not line.startswith("//"):
            break
        comment.append(line[3:])
    return comment


def read_pages(
    folders: Sequence[str], names: set[str], shape: tuple[tuple[str, ...], tuple[str, ...]]
) -> dict[str, Page]:
    """The pages of the named classes, which must all be there and well-shaped."""
    pages: dict[str, Page] = {}
    for folder in folders:
        for path in sorted((ROOT / "ext" / folder).glob("*.cc")):
            for page in _pages_of(path, names, shape[0]):
                _check(page, *shape)
                pages[page.name] = page
    if missing := names - set(pages):
        raise ManualError(f"no manual page in ext/ for: {', '.join(sorted(missing))}")
    return pages


def _pages_of(path: Path, names: set[str], headings: tuple[str, ...]) -> Iterator[Page]:
    page: Page | None = None
    section: list[str] | None = None
    for line in head_comment(path):
        word, colon, rest = line.partition(": ")
        if colon and word in names:
            if page is not None:
                yield page
            page = Page(path.relative_to(ROOT), word, rest)
            section = None
        elif page is not None and (head := line.partition(":"))[0] in headings:
            section = page.sections[head[0]] = [head[2].strip()] if head[2].strip() else []
            if list(page.sections) != [name for name in headings if name in page.sections]:
                raise ManualError(f"{path}: {page.name}: '{head[0]}' is not in its place")
        elif page is not None:
            (page.about if section is None else section).append(line)
    if page is not None:
        yield page


def _check(page: Page, headings: tuple[str, ...], optional: tuple[str, ...]) -> None:
    for heading in headings:
        if heading not in optional and not page.text(heading):
            raise ManualError(f"{page.path}: {page.name}: no section '{heading}'")
    if not page.summary.endswith("."):
        raise ManualError(f"{page.path}: {page.name}: the summary is not one sentence on one line")


@dataclass(frozen=True)
class Argument:
    """One field of a message."""

    name: str
    type: str
    default: str
    meaning: str
    message: str  # of a field that is one, or a list of them; else empty


@dataclass(frozen=True)
class MessageDoc:
    """A message: what its comment says, and its fields; nested ones are written `outer[].inner`."""

    name: str
    meaning: str
    arguments: tuple[Argument, ...]


def read_messages() -> dict[str, MessageDoc]:
    """Every top-level message of the protocol, by name."""
    found: dict[str, MessageDoc] = {}
    for file in _descriptors():
        comments = {
            tuple(place.path): " ".join(
                (place.leading_comments + " " + place.trailing_comments).split()
            )
            for place in file.source_code_info.location
        }
        for index, message in enumerate(file.message_type):
            path = (4, index)
            arguments = tuple(_arguments(message, path, comments))
            found[message.name] = MessageDoc(message.name, comments.get(path, ""), arguments)
    return found


def _descriptors() -> list[FileDescriptorProto]:
    # A build requirement, which only whoever works on the project has.
    protoc: Any = importlib.import_module("grpc_tools.protoc")
    well_known = Path(protoc.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "all"
        status = protoc.main(
            [
                "protoc",
                f"-I{PROTOS}",
                f"-I{well_known}",
                "--include_source_info",
                f"--descriptor_set_out={out}",
                *(str(path.relative_to(PROTOS)) for path in sorted(PROTOS.rglob("*.proto"))),
            ]
        )
        if status != 0:
            raise ManualError(f"protoc failed with status {status}")
        return list(FileDescriptorSet.FromString(out.read_bytes()).file)


_DEFAULT = re.compile(r"\s*\((?:default (?P<default>.+)|required)\)$")
_ZERO = {"string": '""', "bytes": '""', "bool": "false"}


# Nested messages in sight, by name: where they stand in their file, and what they are.
_Scope = dict[str, tuple[tuple[int, ...], DescriptorProto]]


def _arguments(
    message: DescriptorProto,
    path: tuple[int, ...],
    comments: dict[tuple[int, ...], str],
    prefix: str = "",
    outer: _Scope | None = None,
) -> Iterator[Argument]:
    scope = dict(outer or {})
    scope |= {inner.name: ((*path, 3, i), inner) for i, inner in enumerate(message.nested_type)}
    for index, item in enumerate(message.field):
        meaning = comments.get((*path, 2, index), "")
        match = _DEFAULT.search(meaning)
        name = prefix + item.name
        inner = scope.get(item.type_name.rpartition(".")[2])
        shared = "" if inner else item.type_name.rpartition(".")[2]
        default = _absent(item, inner) if match is None else match["default"] or "required"
        meaning = meaning[: match.start()] if match else meaning
        yield Argument(name, _type(item, inner), default, meaning, shared)
        if inner and not inner[1].options.map_entry:
            brackets = "[]." if _repeated(item) else "."
            yield from _arguments(inner[1], inner[0], comments, name + brackets, scope)


def _repeated(item: FieldDescriptorProto) -> bool:
    return item.label == FieldDescriptorProto.LABEL_REPEATED


def _absent(item: FieldDescriptorProto, inner: tuple[Any, DescriptorProto] | None) -> str:
    """The value of a field that is not given; nothing where it can be told from every value."""
    if _repeated(item):
        return "{}" if inner and inner[1].options.map_entry else "[]"
    if item.HasField("oneof_index") or item.type == FieldDescriptorProto.TYPE_MESSAGE:
        return ""
    return _ZERO.get(_scalar(item), "0")


def _scalar(item: FieldDescriptorProto) -> str:
    return FieldDescriptorProto.Type.Name(item.type).removeprefix("TYPE_").lower()


def _type(item: FieldDescriptorProto, inner: tuple[Any, DescriptorProto] | None) -> str:
    """How a field's type is written."""
    if inner and inner[1].options.map_entry:
        key, value = (_type(entry, None) for entry in inner[1].field)
        return f"map of {key} to {value}"
    if inner:
        return "list of messages" if _repeated(item) else "message"
    name = item.type_name.rpartition(".")[2]
    kind = f"`{name}`" if name else _scalar(item)
    return f"list of {kind}" if _repeated(item) else kind

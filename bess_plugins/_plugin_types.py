# SPDX-License-Identifier: BSD-3-Clause
"""Messages of plugins: what the arguments of their classes are made of.

`PLUGIN.binpb` beside `PLUGIN.so` describes them, as `protoc --descriptor_set_out` writes it. They
are read into a pool of their own, so that a plugin can be loaded, built anew and loaded again.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from pathlib import Path

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError

from bess_plugins import _proto

__all__ = ["PluginTypeError", "description_of", "forget", "learn"]

_MOST_BYTES = 16 << 20
_known: dict[str, bytes] = {}  # contents of the description, by path of the plugin


class PluginTypeError(Exception):
    """A description that is there can't be used; the message says why."""


def description_of(plugin: str) -> Path:
    """The file that describes the messages of a plugin."""
    return Path(plugin).with_suffix(".binpb")


def learn(plugin: str, beside: Container[str] = ()) -> None:
    """Make the messages of a plugin known, where it has any, instead of those it had before.

    A message of the same name is refused where it is BESS's or of a plugin among `beside`; others
    have gone, or are of a daemon that this process talked to before.
    """
    path = description_of(plugin)
    try:
        if not path.is_file():
            forget(plugin)
            return
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise PluginTypeError(f"{path}: {error.strerror}") from None
    if _known.get(plugin) == content:
        return
    forget(plugin)
    if len(content) > _MOST_BYTES:
        raise PluginTypeError(f"{path}: longer than {_MOST_BYTES:,} bytes")
    types = _types(path, content)
    for other in _proto.owners_of(types):
        if other not in beside:
            forget(other)
    try:
        _proto.add_types(plugin, types)
    except ValueError as error:
        raise PluginTypeError(str(error)) from None
    _known[plugin] = content


def forget(plugin: str) -> None:
    """Drop the messages of a plugin."""
    _known.pop(plugin, None)
    _proto.remove_types(plugin)


def _types(path: Path, content: bytes) -> dict[str, Descriptor]:
    try:
        files = FileDescriptorSet.FromString(content).file
    except DecodeError:
        raise PluginTypeError(
            f"{path}: not a FileDescriptorSet, as protoc --descriptor_set_out writes it"
        ) from None
    pool = descriptor_pool.DescriptorPool()
    described = {file.name: file for file in files}
    added: set[str] = set()
    found: dict[str, Descriptor] = {}
    try:
        for name in described:
            for file in _with_imports(name, described, added):
                pool.Add(file)
                ours = file.package == _proto.PACKAGE and not _is_built_in(file.name)
                for message in file.message_type if ours else ():
                    full = f"{_proto.PACKAGE}.{message.name}"
                    found[message.name] = pool.FindMessageTypeByName(full)
    except (KeyError, TypeError, ValueError) as error:
        raise PluginTypeError(f"{path}: {error}") from None
    if not found:
        raise PluginTypeError(f"{path}: no message of package {_proto.PACKAGE}")
    return found


def _is_built_in(name: str) -> bool:
    return name in _proto.FILES


def _with_imports(
    name: str, described: dict[str, FileDescriptorProto], added: set[str]
) -> Iterator[FileDescriptorProto]:
    """A file after those that it imports; what is built in is taken from here."""
    if name in added:
        return
    added.add(name)
    file = described.get(name)
    if _is_built_in(name) or file is None:
        file = FileDescriptorProto()
        _built_in(name).CopyToProto(file)
    for imported in file.dependency:
        yield from _with_imports(imported, described, added)
    yield file


def _built_in(name: str) -> _proto.FileDescriptor:
    if name in _proto.FILES:
        return _proto.FILES[name]
    file: _proto.FileDescriptor = descriptor_pool.Default().FindFileByName(name)
    return file

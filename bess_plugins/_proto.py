# SPDX-License-Identifier: BSD-3-Clause
"""Protocol messages by name, and their conversion to and from plain dicts."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from bess_plugins import pb
from bess_plugins.pb import service_pb2

__all__ = [
    "FILES",
    "MESSAGE_NAMES",
    "PACKAGE",
    "SERVICE",
    "FileDescriptor",
    "add_types",
    "from_dict",
    "is_message",
    "message_type",
    "owners_of",
    "pack",
    "remove_types",
    "to_dict",
    "unpack",
    "unpack_any",
]

PACKAGE = "bess.pb"
SERVICE = service_pb2.DESCRIPTOR.services_by_name["BESSControl"]

# Field descriptors of the C and of the Python runtime share no base class.
_Field = Any
_LABEL_REPEATED = 3


def _files() -> Iterator[FileDescriptor]:
    """Descriptors of all generated files of the package."""
    for module in pkgutil.walk_packages(pb.__path__, f"{pb.__name__}."):
        if module.name.endswith("_pb2"):
            file: FileDescriptor = importlib.import_module(module.name).DESCRIPTOR
            if file.package == PACKAGE:
                yield file


FILES = {file.name: file for file in _files()}
_DESCRIPTORS: dict[str, Descriptor] = {
    name: descriptor
    for file in FILES.values()
    for name, descriptor in file.message_types_by_name.items()
}
MESSAGE_NAMES = frozenset(_DESCRIPTORS)
_owners: dict[str, str] = {}  # of the messages that plugins have added


def add_types(owner: str, types: Mapping[str, Descriptor]) -> None:
    """Make messages known that no generated file has; raises ``ValueError`` for a taken name."""
    for name in types:
        if name in _DESCRIPTORS:
            whose = _owners.get(name, "the protocol")
            raise ValueError(f"{owner}: message {name} is one of {whose} already")
    _DESCRIPTORS.update(types)
    _owners.update(dict.fromkeys(types, owner))


def owners_of(names: Iterable[str]) -> set[str]:
    """Who has added messages of these names."""
    return {_owners[name] for name in names if name in _owners}


def remove_types(owner: str) -> None:
    """Drop what `owner` has added."""
    for name in [name for name, whose in _owners.items() if whose == owner]:
        del _owners[name], _DESCRIPTORS[name]


def is_message(name: str) -> bool:
    """Tell whether a message of this flat name exists."""
    return name.removeprefix(f"{PACKAGE}.") in _DESCRIPTORS


def message_type(name: str) -> type[Message]:
    """Return the class of a message; nested ones are named ``Outer.Inner``."""
    outer, *inner = name.removeprefix(f"{PACKAGE}.").split(".")
    try:
        descriptor = _DESCRIPTORS[outer]
        for part in inner:
            descriptor = descriptor.nested_types_by_name[part]
    except KeyError:
        raise KeyError(f"no message named {name!r} in {PACKAGE}") from None
    return GetMessageClass(descriptor)


def _is_repeated(field: _Field) -> bool:
    # Older runtimes only know the label.
    if hasattr(field, "is_repeated"):
        return bool(field.is_repeated)
    return bool(field.label == _LABEL_REPEATED)


def _is_map(field: _Field) -> bool:
    kind = field.message_type
    return bool(kind is not None and kind.GetOptions().map_entry)


def to_dict(message: Message) -> dict[str, Any]:
    """Convert a message to plain values.

    Scalars without presence always appear, with their default if need be;
    members of a oneof and submessages appear only when set.
    """
    result: dict[str, Any] = {}
    field: _Field
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        if _is_map(field):
            inner = field.message_type.fields_by_name["value"].message_type
            result[field.name] = {
                key: to_dict(item) if inner is not None else item for key, item in value.items()
            }
        elif _is_repeated(field):
            nested = field.message_type is not None
            result[field.name] = [to_dict(item) if nested else item for item in value]
        else:
            result[field.name] = to_dict(value) if field.message_type is not None else value
    return result


def _scalar(field: _Field, value: Any, path: str) -> Any:
    if field.type == FieldDescriptor.TYPE_BYTES:
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value)
        raise TypeError(f"{path}: expected bytes, got {type(value).__name__}")
    if field.type == FieldDescriptor.TYPE_STRING and not isinstance(value, str):
        raise TypeError(f"{path}: expected str, got {type(value).__name__}")
    return value


def _fill(message: Message, values: Mapping[str, Any], path: str) -> None:
    fields = message.DESCRIPTOR.fields_by_name
    for key, value in values.items():
        where = f"{path}.{key}"
        field = fields.get(key)
        if field is None:
            raise ValueError(f"{where}: no such field")
        if value is None:
            continue
        try:
            _set_field(message, field, value, where)
        except (TypeError, ValueError, OverflowError) as error:
            text = str(error)
            if text.startswith(path):
                raise
            raise type(error)(f"{where}: {text}") from None


def _set_field(message: Message, field: _Field, value: Any, path: str) -> None:
    target = getattr(message, field.name)
    nested = field.message_type is not None
    if _is_map(field):
        entry = field.message_type.fields_by_name["value"]
        if not isinstance(value, Mapping):
            raise TypeError(f"{path}: expected a mapping, got {type(value).__name__}")
        for key, item in value.items():
            if entry.message_type is not None:
                _merge(target[key], item, f"{path}[{key!r}]")
            else:
                target[key] = _scalar(entry, item, f"{path}[{key!r}]")
    elif _is_repeated(field):
        if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
            raise TypeError(f"{path}: expected a list, got {type(value).__name__}")
        for index, item in enumerate(value):
            if nested:
                _merge(target.add(), item, f"{path}[{index}]")
            else:
                target.append(_scalar(field, item, f"{path}[{index}]"))
    elif nested:
        target.SetInParent()
        _merge(target, value, path)
    else:
        setattr(message, field.name, _scalar(field, value, path))


def _merge(target: Message, value: Any, path: str) -> None:
    if isinstance(value, Message):
        target.CopyFrom(value)
    elif isinstance(value, Mapping):
        _fill(target, value, path)
    else:
        raise TypeError(f"{path}: expected a mapping, got {type(value).__name__}")


def from_dict(name: str, values: Mapping[str, Any]) -> Message:
    """Build the named message; values of ``None`` are left out.

    Raises ``ValueError`` or ``TypeError``, naming the field, when a value
    does not fit.
    """
    message = message_type(name)()
    _fill(message, values, name)
    return message


def pack(message: Message) -> AnyMessage:
    """Wrap a message."""
    packed = AnyMessage()
    packed.Pack(message)
    return packed


def unpack_any(packed: AnyMessage) -> dict[str, Any]:
    """Convert whatever message is wrapped; an empty wrapper gives ``{}``."""
    if not packed.type_url:
        return {}
    message = message_type(packed.TypeName())()
    message.ParseFromString(packed.value)
    return to_dict(message)


def _is_part_of(actual: str, expected: str) -> bool:
    """Tell whether every field of one message means the same in another."""
    fields = _DESCRIPTORS[expected].fields_by_number
    field: _Field
    for field in _DESCRIPTORS[actual].fields:
        other: _Field = fields.get(field.number)
        if other is None or (other.name, other.type) != (field.name, field.type):
            return False
    return True


def unpack(packed: AnyMessage, name: str, alias: str = "") -> dict[str, Any]:
    """Convert the wrapped message, which has to be of the named type.

    An empty wrapper, or a wrapped message without contents whose type has no
    fields, stands for the default message. A message of the type ``alias``
    will do if its fields are among those of the named type. Raises
    ``TypeError`` otherwise when types differ and ``ValueError`` when the
    contents are broken.
    """
    expected = (name or "EmptyArg").removeprefix(f"{PACKAGE}.")
    message = message_type(expected)()
    if not packed.type_url:
        if packed.value:
            raise TypeError(f"argument has no type, expected {expected}")
        return to_dict(message)
    actual = packed.TypeName().removeprefix(f"{PACKAGE}.")
    if actual != expected:
        known = actual in _DESCRIPTORS
        empty = known and not packed.value and not _DESCRIPTORS[actual].fields
        if not empty and not (known and actual == alias and _is_part_of(actual, expected)):
            raise TypeError(f"argument is {actual}, expected {expected}")
    try:
        message.ParseFromString(packed.value)
    except DecodeError as error:
        raise ValueError(f"malformed {expected}: {error}") from None
    return to_dict(message)

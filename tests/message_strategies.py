# SPDX-License-Identifier: BSD-3-Clause
"""Hypothesis strategies for arbitrary protobuf messages, made from their descriptors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

__all__ = ["Shape", "messages", "packed"]

HOSTILE_STRINGS = (
    "", " ", "\0", "a\0b", "..", "/", "//", ".", "/dev/null", "/dev/full", "/dev/zero",
    "/nowhere/x", "%s%n%p", "'; --", "\u202e\U0001f980", "\ufeff", "a" * 300, "x/" * 3000,
    "-1", "0x10", "1e999",
    "10.0.0.1", "10.0.0.0/8", "0.0.0.0/0", "255.255.255.255", "::1", "1.2.3.4/33", "256.0.0.1",
    "02:00:00:00:00:01", "ff:ff:ff:ff:ff:ff", "zz:00:00:00:00:01",
    "udp", "tcp dst port 80", "not", "((((", "ip and " * 200 + "ip", "len > 4294967296",
)  # fmt: skip
HOSTILE_BYTES = (b"", b"\0", b"\xff" * 6, b"\0" * 60, b"\x80\xff", b"\x45" * 1500, b"z" * 5000)
_FRAME = bytes.fromhex(
    "02000000000102000000000208004500002800010000401100000a0000010a00000200350050001400000000000000"
)
_UNSIGNED = {FieldDescriptor.CPPTYPE_UINT32: 32, FieldDescriptor.CPPTYPE_UINT64: 64}
_SIGNED = {FieldDescriptor.CPPTYPE_INT32: 32, FieldDescriptor.CPPTYPE_INT64: 64}
_DEPTH = 4


class Shape:
    """What the values of some fields look like, and which messages wrappers hold.

    `known` and `only` go by the name of the field. A strategy in `known` mostly takes the place
    of arbitrary values; one in `only` always, for values that would reach outside of the test.
    """

    def __init__(
        self,
        known: Mapping[str, st.SearchStrategy[Any]] | None = None,
        only: Mapping[str, st.SearchStrategy[Any]] | None = None,
        wrapped: Sequence[Descriptor] = (),
    ) -> None:
        self.known = known or {}
        self.only = only or {}
        self.wrapped = wrapped

    def wrapping(self, kind: Descriptor) -> Shape:
        """The same with one message in wrappers."""
        return Shape(self.known, self.only, (kind,))


def integers(bits: int, signed: bool) -> st.SearchStrategy[int]:
    """Small numbers, the ends of the range, powers of two and their neighbours, anything."""
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    edges = {low, low + 1, high, high - 1}
    edges |= {n for e in range(4, bits, 4) for n in ((1 << e) - 1, 1 << e) if low <= n <= high}
    return st.one_of(
        st.integers(max(low, -2), 9), st.sampled_from(sorted(edges)), st.integers(low, high)
    )


def _scalars(kind: Any) -> st.SearchStrategy[Any]:
    cpp = kind.cpp_type
    if cpp in _UNSIGNED:
        return integers(_UNSIGNED[cpp], signed=False)
    if cpp in _SIGNED:
        return integers(_SIGNED[cpp], signed=True)
    if cpp == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if cpp == FieldDescriptor.CPPTYPE_ENUM:
        return st.integers(-1, len(kind.enum_type.values) + 1)
    if cpp == FieldDescriptor.CPPTYPE_DOUBLE:
        return st.one_of(st.floats(0, 1), st.floats())
    if cpp == FieldDescriptor.CPPTYPE_FLOAT:
        return st.floats(width=32)
    if kind.type == FieldDescriptor.TYPE_BYTES:
        return st.one_of(st.sampled_from((*HOSTILE_BYTES, _FRAME)), st.binary(max_size=20))
    return st.one_of(st.sampled_from(HOSTILE_STRINGS), st.text(max_size=8))


def _values(draw: st.DrawFn, kind: Any, shape: Shape, depth: int) -> Any:
    if kind.message_type is not None:
        return draw(messages(kind.message_type, shape, depth + 1))
    if kind.name in shape.only:
        return draw(shape.only[kind.name])
    if kind.name in shape.known and draw(st.integers(0, 3)):
        value = draw(shape.known[kind.name])
        # Messages may use a name for different things, such as a port's and its number.
        if isinstance(value, str) == (kind.cpp_type == FieldDescriptor.CPPTYPE_STRING):
            return value
    return draw(_scalars(kind))


@st.composite
def messages(
    draw: st.DrawFn, kind: Descriptor, shape: Shape | None = None, depth: int = 0
) -> Message:
    """Any message of a type: fields set or not, one member of each oneof, lists, maps."""
    shape = shape or Shape()
    if kind.full_name == AnyMessage.DESCRIPTOR.full_name:
        return draw(packed(shape, depth))
    message = GetMessageClass(kind)()
    chosen = {
        draw(st.sampled_from(list(group.fields))).name
        for group in kind.oneofs
        if draw(st.booleans())
    }
    for member in kind.fields:
        nested = member.message_type
        if nested is not None and depth >= _DEPTH:
            continue
        if member.containing_oneof is not None:
            if member.name not in chosen:
                continue
        elif draw(st.integers(0, 3)) == 0:
            continue
        target = getattr(message, member.name)
        if nested is not None and nested.GetOptions().map_entry:
            key, value = nested.fields_by_name["key"], nested.fields_by_name["value"]
            text = key.cpp_type == FieldDescriptor.CPPTYPE_STRING  # words are no numbers
            for _ in range(draw(st.integers(0, 2))):
                name = _values(draw, key, shape, depth) if text else draw(_scalars(key))
                if value.message_type is None:
                    target[name] = _values(draw, value, shape, depth)
                else:
                    target[name].CopyFrom(_values(draw, value, shape, depth))
        elif member.is_repeated:
            target.extend(
                [_values(draw, member, shape, depth) for _ in range(draw(st.integers(0, 3)))]
            )
        elif nested is not None:
            target.CopyFrom(_values(draw, member, shape, depth))
        else:
            setattr(message, member.name, _values(draw, member, shape, depth))
    return message


@st.composite
def packed(draw: st.DrawFn, shape: Shape, depth: int = 0) -> AnyMessage:
    """A wrapper around one of the messages of the shape, or around nonsense."""
    wrapper = AnyMessage()
    if shape.wrapped and draw(st.integers(0, 4)):
        wrapper.Pack(draw(messages(draw(st.sampled_from(shape.wrapped)), shape, depth + 1)))
        if draw(st.integers(0, 9)) == 0:
            wrapper.value = draw(st.binary(max_size=20))
    elif draw(st.booleans()):
        wrapper.type_url = draw(
            st.sampled_from(["type.googleapis.com/bess.pb.NoSuchArg", "/", "bess.pb", "\0", ""])
        )
        wrapper.value = draw(st.binary(max_size=20))
    return wrapper

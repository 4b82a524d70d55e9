# SPDX-License-Identifier: BSD-3-Clause
"""Packets in capture files: pcap and pcapng, plain or compressed with gzip."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

__all__ = ["CaptureError", "count_packets", "read_packets"]

_PCAP_MAGIC = {
    b"\xa1\xb2\xc3\xd4": ">",
    b"\xa1\xb2\x3c\x4d": ">",
    b"\xd4\xc3\xb2\xa1": "<",
    b"\x4d\x3c\xb2\xa1": "<",
}
_GZIP_MAGIC = b"\x1f\x8b"
_SECTION = b"\x0a\x0d\x0d\x0a"
_BYTE_ORDER = {b"\x1a\x2b\x3c\x4d": ">", b"\x4d\x3c\x2b\x1a": "<"}
# Where a block with a packet has the captured length (a simple one: the original), and the packet.
_PACKET_BLOCKS = {2: (12, 20), 3: (0, 4), 6: (12, 20)}
_MAX_CAPTURED = 262144
_MAX_BLOCK = 1 << 24


class CaptureError(Exception):
    """A capture can't be read; ``offset`` is where it is damaged, if it is.

    In a compressed capture the offset counts decompressed bytes.
    """

    def __init__(self, path: Path, problem: str, offset: int | None = None) -> None:
        place = "" if offset is None else f" at byte {offset}"
        super().__init__(f"capture {path}: {problem}{place}")
        self.path = path
        self.offset = offset


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Stream:
    """Reads exact amounts and knows its position."""

    def __init__(self, path: Path, file: _Readable) -> None:
        self.path = path
        self.file = file
        self.offset = 0

    def read(self, size: int, what: str, *, may_end: bool = False) -> bytes:
        """Read ``size`` bytes, or nothing where the file may end."""
        try:
            data = self.file.read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise CaptureError(self.path, f"damaged gzip data ({error})", self.offset) from None
        if len(data) < size and not (may_end and not data):
            raise self.fail(f"{what} is cut short")
        self.offset += len(data)
        return data

    def fail(self, problem: str) -> CaptureError:
        return CaptureError(self.path, problem, self.offset)


def count_packets(path: Path | str) -> int:
    """Return the number of packets in a capture, or raise `CaptureError`."""
    return sum(1 for _ in read_packets(path))


def read_packets(path: Path | str) -> Iterator[bytes]:
    """Yield what was captured of each packet of a capture, or raise `CaptureError`."""
    path = Path(path)
    try:
        with path.open("rb", buffering=1 << 20) as raw:
            packed = raw.read(2) == _GZIP_MAGIC
            raw.seek(0)
            yield from _packets(_Stream(path, gzip.GzipFile(fileobj=raw) if packed else raw))
    except OSError as error:
        raise CaptureError(path, error.strerror or str(error)) from None


def _packets(stream: _Stream) -> Iterator[bytes]:
    magic = stream.read(4, "the file header")
    if magic == _SECTION:
        return _blocks(stream)
    if magic in _PCAP_MAGIC:
        return _records(stream, _PCAP_MAGIC[magic])
    raise CaptureError(stream.path, "neither pcap nor pcapng", 0)


def _records(stream: _Stream, order: str) -> Iterator[bytes]:
    stream.read(20, "the file header")
    header = struct.Struct(f"{order}4I")
    while data := stream.read(header.size, "a packet header", may_end=True):
        captured = header.unpack(data)[2]
        if captured > _MAX_CAPTURED:
            stream.offset -= header.size
            raise stream.fail(f"a packet claims {captured} bytes")
        yield stream.read(captured, "a packet")


def _blocks(stream: _Stream) -> Iterator[bytes]:
    kind_bytes, order = _SECTION, "<"
    while kind_bytes:
        start = stream.offset - 4
        length_bytes = stream.read(4, "a block")
        rest = 4
        if kind_bytes == _SECTION:
            magic = stream.read(4, "a section header")
            if magic not in _BYTE_ORDER:
                raise CaptureError(stream.path, "a section has no byte order", start)
            order = _BYTE_ORDER[magic]
            rest = 0
        kind = struct.unpack(f"{order}I", kind_bytes)[0]
        length = struct.unpack(f"{order}I", length_bytes)[0]
        if length < 12 + 4 * (rest == 0) or length % 4 or length > _MAX_BLOCK:
            raise CaptureError(stream.path, f"a block claims {length} bytes", start)
        body = stream.read(length - 16 + rest, "a block")
        if stream.read(4, "a block") != length_bytes:
            raise CaptureError(stream.path, "a block's two lengths differ", start)
        if kind in _PACKET_BLOCKS:
            yield _packet_of(body, _PACKET_BLOCKS[kind], order)
        kind_bytes = stream.read(4, "a block", may_end=True)


def _packet_of(body: bytes, layout: tuple[int, int], order: str) -> bytes:
    """The packet in a block: where its length stands, and where it starts."""
    length_at, start = layout
    if len(body) < start:
        return b""
    return body[start : start + int(struct.unpack_from(f"{order}I", body, length_at)[0])]

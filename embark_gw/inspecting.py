# SPDX-License-Identifier: BSD-3-Clause
"""What a provider can read of encrypted packets: all that is in them but what the keys hide.

The formats are those of ``docs/embark.md``. Nothing here needs a key, as a provider has none.
"""

from __future__ import annotations

import ipaddress
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

__all__ = ["Seen", "Summary", "inspect", "summarize"]

_ETHERNET_BYTES, _IPV6_BYTES = 14, 40
_IPV6_TYPE = 0x86DD
_OPTIONS, _FRAGMENT = 60, 44  # IPv6 extension headers
_OPTION = 0x1E  # experimental (RFC 4727)
_OPTION_HEAD_BYTES = 4 + 1 + 1 + 12 + 8  # the header, the option's and all before the text
_SEAL_BYTES = 32
_SEALED, _SEALED_HERE, _PIECE = 1, 2, 4
_TEXT4_BYTES, _TEXT6_BYTES = 22, 46
_TCP, _UDP, _ICMP, _ICMPV6 = 6, 17, 1, 58
_NAMES = {_TCP: "tcp", _UDP: "udp", _ICMP: "icmp", _ICMPV6: "icmp6"}
_FLAGS = ("fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr")


@dataclass(frozen=True)
class Seen:
    """A packet as a provider sees it. ``clear`` is what of its payload is readable."""

    src: str
    dst: str
    protocol: str
    hop_limit: int
    traffic_class: int
    flow_label: int
    length: int
    epoch: int
    kind: str
    sealed: bool
    ports: tuple[int, int] | None = None
    tcp_flags: tuple[str, ...] = ()
    payload_bytes: int = 0
    clear: bytes = b""

    def __str__(self) -> str:
        ports = "" if self.ports is None else f" ports {self.ports[0]} > {self.ports[1]}"
        flags = f" {','.join(self.tcp_flags)}" if self.tcp_flags else ""
        payload = f"{self.payload_bytes} bytes {'sealed' if self.sealed else 'IN CLEAR'}"
        payload = payload if self.payload_bytes else "none"
        return (
            f"{self.src} > {self.dst} {self.protocol}{ports}{flags}; {self.kind}, epoch "
            f"{self.epoch}, hop limit {self.hop_limit}, {self.length} bytes, payload: {payload}"
        )


@dataclass(frozen=True)
class Summary:
    """Of many packets. ``other`` are frames that no gateway has encrypted, by why not."""

    packets: int = 0
    size: int = 0
    flows: int = 0
    protocols: Mapping[str, int] = field(default_factory=dict)
    kinds: Mapping[str, int] = field(default_factory=dict)
    lengths: Mapping[int, int] = field(default_factory=dict)
    in_clear: int = 0
    other: Mapping[str, int] = field(default_factory=dict)


class _OtherError(Exception):
    """A frame that isn't an encrypted packet; the message says what it is."""


def inspect(frames: Iterable[bytes]) -> Iterator[Seen | str]:
    """Yield each packet as it is seen, or what the frame is instead."""
    for frame in frames:
        try:
            yield _read(frame)
        except _OtherError as why:
            yield str(why)
        except struct.error:
            yield "cut short"


def summarize(seen: Iterable[Seen | str]) -> Summary:
    """Count what a provider can count."""
    packets = size = in_clear = 0
    flows: set[tuple[object, ...]] = set()
    protocols, kinds = Counter[str](), Counter[str]()
    lengths, other = Counter[int](), Counter[str]()
    for one in seen:
        if isinstance(one, str):
            other[one] += 1
            continue
        packets += 1
        size += one.length
        in_clear += not one.sealed and one.payload_bytes > 0
        protocols[one.protocol] += 1
        kinds[one.kind] += 1
        lengths[one.length] += 1
        flows.add((one.src, one.dst, one.protocol, one.ports))
    counts = (
        dict(protocols.most_common()),
        dict(kinds.most_common()),
        dict(sorted(lengths.items())),
    )
    return Summary(packets, size, len(flows), *counts, in_clear, dict(other))


def _read(frame: bytes) -> Seen:
    if struct.unpack_from("!H", frame, 12)[0] != _IPV6_TYPE:
        raise _OtherError("not IPv6")
    word, length, following, hop_limit = struct.unpack_from("!IHBB", frame, _ETHERNET_BYTES)
    source, target = frame[22:38], frame[38:54]
    at = _ETHERNET_BYTES + _IPV6_BYTES
    end = min(at + length, len(frame))
    if following != _OPTIONS:
        raise _OtherError("not encrypted: no option")
    following, words, kind, size, version, epoch = struct.unpack_from("!6B", frame, at)
    if kind != _OPTION or version >> 4 != 1:
        raise _OtherError("not encrypted: another option")
    flags = version & 0xF
    seal_bytes = _SEAL_BYTES if flags & (_SEALED | _SEALED_HERE) else 0
    text_bytes = size + 4 - _OPTION_HEAD_BYTES - seal_bytes
    at += 8 * (words + 1)
    if flags & _PIECE and following == _FRAGMENT:
        following = frame[at]
        at += 8
    ports, tcp_flags, start = _transport(frame, following, at)
    sealed = bool(seal_bytes)
    payload = frame[at if flags & _SEALED_HERE else start : end]
    return Seen(
        src=str(ipaddress.ip_address(source)),
        dst=str(ipaddress.ip_address(target)),
        protocol=_NAMES.get(following, f"protocol {following}"),
        hop_limit=hop_limit,
        traffic_class=word >> 20 & 0xFF,
        flow_label=word & 0xFFFFF,
        length=_IPV6_BYTES + length,
        epoch=epoch,
        kind=_kind(text_bytes),
        sealed=sealed,
        ports=ports,
        tcp_flags=tcp_flags,
        payload_bytes=len(payload),
        clear=b"" if sealed else payload,
    )


def _kind(text_bytes: int) -> str:
    """What the length of an option's text gives away."""
    kinds = {_TEXT4_BYTES: "IPv4", _TEXT6_BYTES: "IPv6"}
    return kinds.get(text_bytes, f"uncommon headers ({text_bytes} bytes)")


def _transport(
    frame: bytes, protocol: int, at: int
) -> tuple[tuple[int, int] | None, tuple[str, ...], int]:
    """Ports, TCP's flags, and where the payload starts."""
    if protocol == _TCP and len(frame) >= at + 20:
        sport, dport, _, _, offset, bits = struct.unpack_from("!HHIIBB", frame, at)
        flags = tuple(name for bit, name in enumerate(_FLAGS) if bits >> bit & 1)
        return (sport, dport), flags, at + 4 * (offset >> 4)
    if protocol == _UDP and len(frame) >= at + 8:
        sport, dport = struct.unpack_from("!HH", frame, at)
        return (sport, dport), (), at + 8
    if protocol in (_ICMP, _ICMPV6) and len(frame) >= at + 8:
        return None, (), at + 8
    return None, (), at

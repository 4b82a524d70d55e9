# SPDX-License-Identifier: BSD-3-Clause
"""Packets and comparisons that the tests of classifiers share."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from harness import EngineError, Result

MACS = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
DROP = 8192


def udp(src: str = "10.0.0.1", dst: str = "10.0.0.2", sport: int = 1, dport: int = 2) -> bytes:
    return bytes(Ether(**MACS) / IP(src=src, dst=dst) / UDP(sport=sport, dport=dport) / b"data")


def tcp(src: str = "10.0.0.1", dst: str = "10.0.0.2", sport: int = 1, dport: int = 2) -> bytes:
    return bytes(Ether(**MACS) / IP(src=src, dst=dst) / TCP(sport=sport, dport=dport) / b"data")


def udp6(dst: str) -> bytes:
    return bytes(Ether(**MACS) / IPv6(src="2001:db8::1", dst=dst) / UDP(sport=1, dport=2))


def gates_of(result: Result) -> dict[int, int]:
    return {gate: len(packets) for gate, packets in result.out.items() if packets}


def as_bytes(value: Any) -> Any:
    """The same, with every value_bin as bytes: the engine gives text where it is text."""
    if isinstance(value, list):
        return [as_bytes(item) for item in value]
    if isinstance(value, dict):
        return {key: as_bytes(item) for key, item in value.items()}
    return value.encode() if isinstance(value, str) else value


@contextmanager
def raises(text: str, code: int = errno.EINVAL) -> Iterator[None]:
    """Expects an error with this code and with `text` in its message."""
    with pytest.raises(EngineError) as caught:
        yield
    assert caught.value.code == code
    assert text in caught.value.message

# SPDX-License-Identifier: BSD-3-Clause
"""SAs as a line of a file and as scapy has them, and modules that have some."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.ipsec import ESP, SecurityAssociation
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from harness import Engine, new_engine

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
ENDS: dict[int, tuple[str, str]] = {
    4: ("192.0.2.1", "198.51.100.2"),
    6: ("2001:db8:1::1", "2001:db8:2::2"),
}
FAMILIES = pytest.mark.parametrize("outer", [4, 6])
DRAW = random.Random(1)


@dataclass(frozen=True)
class Sa:
    """One SA, as a line of a file and as scapy has it."""

    outer: int = 4
    spi: int = 0x1001
    key_bytes: int = 16
    flags: tuple[str, ...] = ()
    # No key serves two modules of a process.
    key: bytes = field(default_factory=partial(DRAW.randbytes, 36))

    @property
    def secret(self) -> bytes:
        return self.key[: self.key_bytes + 4]

    @property
    def esn(self) -> bool:
        return "esn" in self.flags

    @property
    def line(self) -> str:
        return " ".join((f"{self.spi:#x}", self.secret.hex(), *ENDS[self.outer], *self.flags))

    def scapy(self, **header: Any) -> SecurityAssociation:
        src, dst = ENDS[self.outer]
        made = (
            IPv6(src=src, dst=dst, hlim=64, **header)
            if self.outer == 6
            else IP(src=src, dst=dst, ttl=64, **header)
        )
        return SecurityAssociation(
            ESP, self.spi, crypt_algo="AES-GCM", crypt_key=self.secret, tunnel_header=made
        )

    def seal(self, packet: Packet, number: int, **header: Any) -> bytes:
        """A frame as scapy makes it."""
        made = self.scapy(**header)
        made.seq_num = number & 0xFFFFFFFF
        iv = number.to_bytes(8, "big")
        return bytes(ETHER / made.encrypt(packet, iv=iv, esn_en=self.esn, esn=number >> 32))


def sa_file(folder: Path, *sas: Sa | str) -> str:
    path = folder / "sas"
    path.touch(0o600)
    path.write_text("".join(f"{sa.line if isinstance(sa, Sa) else sa}\n" for sa in sas))
    return str(path)


def esp(mclass: str, folder: Path, *sas: Sa, **args: Any) -> Engine:
    engine = new_engine()
    engine.create_module("m", mclass, {"sa_file": sa_file(folder, *sas), **args})
    return engine


def push(engine: Engine, *frames: bytes | Packet) -> list[bytes]:
    return engine.run_packets("m", [bytes(frame) for frame in frames], 0).get(0, [])


def drops(engine: Engine) -> dict[str, int]:
    return {k: v for k, v in engine.module_info("m")["drops"].items() if v}


def udp(size: int = 100, **fields: Any) -> Packet:
    return IP(src="10.0.0.1", dst="10.0.0.2", **fields) / UDP() / Raw(bytes(size))


def sealed_frames(sa: Sa, count: int = 1, first: int = 1) -> list[bytes]:
    return [sa.seal(udp(), number) for number in range(first, first + count)]

# SPDX-License-Identifier: BSD-3-Clause
"""A Linux router in a namespace of its own: frames in at one side, frames out at the other.

Frames are told apart by what routing leaves as it is. A ping of the router, which no chain for
forwarded packets sees, tells that it is done with all that came before it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import Ether

__all__ = ["HOST_MAC", "ROUTER_MAC", "Router", "needs_router", "router"]

HOST_MAC = "02:00:00:00:0a:02"
ROUTER_MAC = "02:00:00:00:0a:01"
_NEXT_HOP_MAC = "02:00:00:00:0b:02"
_MTU = "9000"
_CLONE_NEWNET = 0x40000000
_ALL = 3  # ETH_P_ALL
_BURST = 64  # frames on their way at a time: no queue overflows
_TIMEOUT_S = 10.0


def _can_route() -> bool:
    return os.geteuid() == 0 and shutil.which("ip") is not None


needs_router = pytest.mark.skipif(not _can_route(), reason="needs root and iproute2")


def _run(*command: str, text: str | None = None) -> str:
    result = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{' '.join(command)}: {result.stderr}"
    return result.stdout


def _key(frame: bytes) -> bytes:
    """What a router leaves: all but MAC addresses, TTL or hop limit, and IPv4's checksum."""
    if frame[12:14] == b"\x86\xdd":
        return frame[12:21] + frame[22:]
    return frame[12:22] + frame[23:24] + frame[26:]


@dataclass(frozen=True)
class Router:
    """The router's namespace, and the far ends of its two cables."""

    space: str
    inside: socket.socket
    outside: socket.socket

    def run(self, *command: str, text: str | None = None) -> str:
        """What a program in the router prints, which must succeed."""
        return _run("ip", "netns", "exec", self.space, *command, text=text)

    def passed(self, frames: Sequence[bytes]) -> list[bool]:
        """Which of the frames come out at the other side, besides what a REJECT answers."""
        found: set[bytes] = set()
        for start in range(0, len(frames), _BURST):
            for frame in frames[start : start + _BURST]:
                self.inside.send(frame)
            self._wait(start)
            found |= self._read()
        keys = [_key(frame) for frame in frames]
        assert len({*keys}) == len(keys), "frames can't be told apart"
        return [key in found for key in keys]

    def _wait(self, number: int) -> None:
        ping = Ether(src=HOST_MAC, dst=ROUTER_MAC) / IP(src="192.0.2.2", dst="192.0.2.1")
        self.inside.send(bytes(ping / ICMP(id=number, seq=1)))
        while True:
            answer = Ether(self.inside.recv(65535))
            if ICMP in answer and answer[ICMP].type == 0 and answer[ICMP].id == number:
                return

    def _read(self) -> set[bytes]:
        found = set()
        self.outside.setblocking(False)
        while True:
            try:
                frame = self.outside.recv(65535)
            except BlockingIOError:
                return found
            if frame[:6] == bytes.fromhex(_NEXT_HOP_MAC.replace(":", "")):
                found.add(_key(frame))


def _sockets(space: str) -> list[socket.socket]:
    """Of both devices in a namespace, which only this thread enters."""
    with open(f"/run/netns/{space}") as handle:
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.setns(handle.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    made = []
    for device in ("inside", "outside"):
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
        end.bind((device, 0))
        end.settimeout(_TIMEOUT_S)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        made.append(end)
    return made


@contextmanager
def router(name: str) -> Iterator[Router]:
    """A router that forwards everything; `name` has at most 6 letters."""
    space, ends = f"{name}-r", f"{name}-h"
    cores = os.sched_getaffinity(0)
    sockets: list[socket.socket] = []
    try:
        os.sched_setaffinity(0, {min(cores)})  # frames that one core sends stay in order
        for each in (space, ends):
            _run("ip", "netns", "add", each)
        inside = (space, "in0", ROUTER_MAC, "inside", HOST_MAC)
        for where, device, mac, end, end_mac in (
            inside,
            (space, "out0", "02:00:00:00:0b:01", "outside", _NEXT_HOP_MAC),
        ):
            _run(
                *("ip", "link", "add", device, "netns", where, "mtu", _MTU, "address", mac),
                *("type", "veth", "peer", "name", end, "netns", ends, "mtu", _MTU),
                *("address", end_mac),
            )
            quiet = f"/proc/sys/net/ipv6/conf/{end}/disable_ipv6"
            _run("ip", "netns", "exec", ends, "sh", "-c", f"echo 1 > {quiet}")
            _run("ip", "-n", where, "link", "set", device, "up")
            _run("ip", "-n", ends, "link", "set", end, "up")
        settings = (
            "net.ipv4.ip_forward=1",
            "net.ipv6.conf.all.forwarding=1",
            "net.ipv4.conf.all.rp_filter=0",
            "net.ipv4.conf.in0.rp_filter=0",
            "net.ipv4.conf.all.send_redirects=0",
        )
        for setting in settings:
            path, _, value = setting.partition("=")
            file = "/proc/sys/" + path.replace(".", "/")
            _run("ip", "netns", "exec", space, "sh", "-c", f"echo {value} > {file}")
        for command in (
            "addr add 192.0.2.1/30 dev in0",
            f"neigh add 192.0.2.2 lladdr {HOST_MAC} dev in0 nud permanent",
            "addr add 192.0.2.5/30 dev out0",
            f"neigh add 192.0.2.6 lladdr {_NEXT_HOP_MAC} dev out0 nud permanent",
            f"neigh add fe80::2 lladdr {_NEXT_HOP_MAC} dev out0 nud permanent",
            "route add default via 192.0.2.6 dev out0",
            "-6 route add default via fe80::2 dev out0",
        ):
            _run("ip", "-n", space, *command.split())
        with ThreadPoolExecutor(1) as thread:
            sockets = thread.submit(_sockets, ends).result()
        yield Router(space, *sockets)
    finally:
        os.sched_setaffinity(0, cores)
        for end_socket in sockets:
            end_socket.close()
        for each in (space, ends):
            subprocess.run(["ip", "netns", "del", each], capture_output=True, check=False)

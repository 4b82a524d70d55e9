# SPDX-License-Identifier: BSD-3-Clause
"""PathMtu and NeighborResponder before two hosts that are network namespaces: what Linux makes of
their answers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from harness import Engine, EngineError, new_engine, run_program, wait_until

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or None in map(shutil.which, ("ip", "ethtool")),
    reason="needs root, and Debian's iproute2 and ethtool",
)
MTU = 1396
MAC = "02:00:00:00:00:77"
V4, V6 = ("10.77.0.1", "10.77.0.2"), ("fd77::1", "fd77::2")

# Counts the bytes of a datagram and of a stream for each family.
SERVER = """
import socket, sys
def answer(address, family):
    udp = socket.socket(family, socket.SOCK_DGRAM)
    udp.bind((address, 7000))
    tcp = socket.create_server((address, 7000), family=family)
    return udp, tcp
ends = [answer(a, f) for a, f in zip(sys.argv[1:], (socket.AF_INET, socket.AF_INET6))]
print("ready", flush=True)
print(len(ends[0][0].recv(65535)), flush=True)
for udp, tcp in ends:
    peer, _ = tcp.accept()
    count = 0
    while data := peer.recv(65536):
        count += len(data)
    print(count, peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG), flush=True)
"""
# Learns the path's MTU by datagrams, sends one that may be cut, and a stream.
CLIENT = """
import json, socket, sys, time
IP_MTU_DISCOVER, IP_MTU, IPV6_MTU_DISCOVER, IPV6_MTU = 10, 14, 23, 24
DONT, DO = 0, 2
found = {}
for address, family, level, how, what in (
    (sys.argv[1], socket.AF_INET, socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_MTU),
    (sys.argv[2], socket.AF_INET6, socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_MTU),
):
    if family == socket.AF_INET:  # before the route has learned anything
        udp = socket.socket(family, socket.SOCK_DGRAM)
        udp.setsockopt(level, how, DONT)
        udp.sendto(bytes(1440), (address, 7000))
    tcp = socket.create_connection((address, 7000))
    found[f"mss of {address}"] = tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
    tcp.sendall(bytes(300000))
    tcp.close()
    udp = socket.socket(family, socket.SOCK_DGRAM)
    udp.setsockopt(level, how, DO)
    udp.connect((address, 9))
    deadline = time.monotonic() + 20
    mtus = [udp.getsockopt(level, what)]
    while mtus[-1] == mtus[0] and time.monotonic() < deadline:
        try:
            udp.send(bytes(1440))
        except OSError:  # ECONNREFUSED, or EMSGSIZE by now
            pass
        time.sleep(0.05)
        mtus.append(udp.getsockopt(level, what))
    found[f"mtu of {address}"] = [mtus[0], mtus[-1]]
print(json.dumps(found))
"""


def within(space: str, *command: str) -> str:
    return run_program(["ip", "netns", "exec", space, *command])


@contextmanager
def host(letter: str) -> Iterator[str]:
    """A namespace with one interface, which has the name of the other end here."""
    name = f"mt{os.getpid() % 10**5}{letter}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("no network namespaces here")
    try:
        run_program(["ip", "link", "add", name, "type", "veth", "peer", "eth0", "netns", name])
        run_program(["ip", "link", "set", name, "addrgenmode", "none", "up"])
        within(name, "ethtool", "-K", "eth0", "tx", "off")
        within(name, "ip", "link", "set", "lo", "up")
        within(name, "ip", "link", "set", "eth0", "up")
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def open_ports(engine: Engine, names: tuple[str, ...]) -> None:
    for name in names:
        args = {"ifname": name, "promiscuous": True}
        try:
            engine.create_port(name, "AFPacketPort", 1, 1, 1024, 1024, args)
        except EngineError as error:
            pytest.skip(f"no packet sockets: {error}")
        engine.create_module(f"in_{name}", "PortInc", {"port": name})
        engine.create_module(f"out_{name}", "PortOut", {"port": name})


@contextmanager
def running(engine: Engine) -> Iterator[None]:
    engine.add_worker(0, -1)
    engine.resume_all()
    try:
        yield
    finally:
        engine.pause_all()
        engine.reset_modules()


def add_addresses(space: str, number: int) -> None:
    within(space, "ip", "address", "add", f"{V4[number]}/24", "dev", "eth0")
    within(space, "ip", "address", "add", f"{V6[number]}/64", "dev", "eth0", "nodad")


def test_linux_learns_the_mtu() -> None:
    engine = new_engine()
    with host("a") as a, host("b") as b:
        for number, space in enumerate((a, b)):
            add_addresses(space, number)
        open_ports(engine, (a, b))
        for here, there in ((a, b), (b, a)):
            engine.create_module(f"mtu_{here}", "PathMtu", {"mtu": MTU})
            engine.connect(f"in_{here}", 0, f"mtu_{here}", 0)
            engine.connect(f"mtu_{here}", 0, f"out_{there}", 0)
            engine.connect(f"mtu_{here}", 1, f"out_{here}", 0)
        server = [sys.executable, "-c", SERVER, V4[1], V6[1]]
        with (
            running(engine),
            subprocess.Popen(
                ["ip", "netns", "exec", b, *server], stdout=subprocess.PIPE, text=True
            ) as heard,
        ):
            try:
                assert heard.stdout is not None
                assert heard.stdout.readline() == "ready\n"
                found = json.loads(within(a, sys.executable, "-c", CLIENT, V4[1], V6[1]))
                assert heard.wait(30) == 0
                received = heard.stdout.read().split()
            finally:
                heard.kill()
            drops = engine.module_info(f"mtu_{a}")["drops"]
    stamps = 12  # of TCP, in every segment
    assert found == {
        f"mss of {V4[1]}": MTU - 40 - stamps,
        f"mtu of {V4[1]}": [1500, MTU],
        f"mss of {V6[1]}": MTU - 60 - stamps,
        f"mtu of {V6[1]}": [1500, MTU],
    }
    assert received[0] == "1440"  # it came in two pieces
    assert received[1:] == ["300000", str(MTU - 52), "300000", str(MTU - 72)]
    assert {reason: count for reason, count in drops.items() if count} == {}


def test_linux_takes_answers_for_a_neighbour() -> None:
    engine = new_engine()
    with host("c") as c:
        add_addresses(c, 0)
        open_ports(engine, (c,))
        args = {"ip": "fd77::8:0/112", "mac_addr": MAC, "router": True}
        engine.create_module("answers", "NeighborResponder", args)
        engine.connect(f"in_{c}", 0, "answers", 0)
        engine.connect("answers", 0, f"out_{c}", 0)
        with running(engine):
            ask = "import socket; socket.socket(10, 2).sendto(b'x', ('fd77::8:5', 9))"
            within(c, sys.executable, "-c", ask)
            known = f"lladdr {MAC} router REACHABLE"
            show = ("ip", "-6", "neigh", "show", "fd77::8:5", "dev", "eth0")
            wait_until(lambda: known in within(c, *show))
            # Somebody who wants to use an address that is answered for may not; one beside it may.
            for address in ("fd77::8:6/64", "fd77::9:6/64"):
                within(c, "ip", "address", "add", address, "dev", "eth0")
            wait_until(lambda: "tentative" not in settled(c, "fd77::9:6"))
            wait_until(lambda: "dadfailed" in settled(c, "fd77::8:6"))
            assert "dadfailed" not in settled(c, "fd77::9:6")


def settled(space: str, address: str) -> str:
    return within(space, "ip", "-6", "-o", "address", "show", "dev", "eth0", "to", address)

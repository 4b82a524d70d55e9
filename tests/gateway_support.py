# SPDX-License-Identifier: BSD-3-Clause
"""A gateway and its provider, each on a daemon of its own, joined by a cable that a test holds.

::

    inside -- gateway -- outside          provider:  in -> way -> firewall -> NAT -> turn -> out
                 |                                      |                      ^
               cable                                    '-- to the NAT's own --'
                 |
              provider

Devices of the gateway are UNIX sockets here, so that nobody needs to be root.
"""

from __future__ import annotations

import itertools
import select
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Protocol

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from typer.testing import CliRunner

from bess_plugins.client import Client
from daemon_support import CORE
from embark_gw import pipelines
from embark_gw.cli import app
from embark_gw.journal import Swap
from embark_gw.keeper import Keeper
from embark_gw.provider.metadata_match import config_of
from embark_gw.rules.document import EncryptedRules, read_document
from embark_gw.site import Gateway, load
from embark_gw.swaps import make_swap
from harness import E2d, real_daemon, wait_until

__all__ = [
    "EXTERNAL",
    "Cable",
    "Ends",
    "Lab",
    "Plug",
    "Rules",
    "Traffic",
    "connects",
    "encrypt_rules",
    "frame",
    "kept",
    "new_lab",
    "over_sockets",
    "read",
    "site_file",
]

EXTERNAL = "203.0.113.1"  # the NAT's address
_NUMBERS = itertools.count()
_SITE = """\
daemon: {daemon}
inside:
  device: inside
  mac: "02:00:00:00:01:01"
  peer: "02:00:00:00:01:02"
  networks: [10.0.0.0/16]
outside:
  device: outside
  mac: "02:00:00:00:02:01"
  peer: "02:00:00:00:02:02"
provider:
  device: provider
  mac: "02:00:00:00:03:01"
  peer: "02:00:00:00:03:02"
  mtu: 1700
key: {{file: site.key, epoch: 1}}
maps: site.maps
"""
_POOL = f"pool:\n  - {{prefix: {EXTERNAL}/32, nat: true}}\n"


def site_file(folder: Path, daemon: str, *, nat: bool) -> Path:
    """A description of a gateway."""
    path = folder / "gateway.yaml"
    path.write_text(_SITE.format(daemon=daemon) + (_POOL if nat else ""), encoding="utf-8")
    return path


def frame(
    src: str, dst: str, *, sport: int = 1000, dport: int = 80, payload: bytes = b"none"
) -> bytes:
    """A packet of UDP, as a host sends it."""
    ether = Ether(src="02:00:00:00:01:02", dst="02:00:00:00:01:01")
    return bytes(ether / IP(src=src, dst=dst) / UDP(sport=sport, dport=dport) / payload)


def read(packet: bytes) -> tuple[str, int, str, int, bytes]:
    """Source and destination, each with its port, and payload of a packet of UDP."""
    found = Ether(packet)
    ip, udp = found[IP], found[UDP]
    return ip.src, udp.sport, ip.dst, udp.dport, bytes(udp.payload)


class Plug:
    """The other end of a daemon's UnixSocketPort."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._socket: socket.socket | None = None

    def connect(self) -> None:
        """Be its client, again where the daemon was restarted."""
        self.close()
        fresh = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            fresh.connect("\0" + self._name)
        except OSError:
            fresh.close()
            raise
        self._socket = fresh

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None

    def fileno(self) -> int:
        assert self._socket is not None
        return self._socket.fileno()

    def send(self, packet: bytes) -> None:
        if self._socket is None:
            raise OSError("nobody is there")
        self._socket.send(packet)

    def receive(self, timeout_s: float = 5.0) -> bytes | None:
        """A packet, or None where none comes in time."""
        assert self._socket is not None
        ready, _, _ = select.select([self._socket], [], [], timeout_s)
        return self._socket.recv(65536) or None if ready else None

    def all(self, quiet_s: float = 0.3) -> list[bytes]:
        """Packets until none comes for so long."""
        found = []
        while (packet := self.receive(quiet_s)) is not None:
            found.append(packet)
        return found


class Ends(Protocol):
    """Where packets go in and come out."""

    @property
    def host(self) -> Plug: ...
    @property
    def server(self) -> Plug: ...


Change = Callable[[bytes], Sequence[bytes]]


class Cable(threading.Thread):
    """Carries packets between the gateway and its provider, and keeps a copy of each.

    `there` and `back` say what becomes of a packet on its way to the provider, and from it.
    """

    def __init__(self, gateway: Plug, provider: Plug) -> None:
        super().__init__(name="cable")
        self.seen: list[bytes] = []
        self.there: Change = lambda packet: [packet]
        self.back: Change = lambda packet: [packet]
        self._ends = (gateway, provider)
        self._stopped = threading.Event()

    def send_back(self, packet: bytes) -> None:
        """To the gateway, as if the provider had."""
        self._ends[0].send(packet)

    def run(self) -> None:
        up = [False, False]
        while not self._stopped.is_set():
            for number, end in enumerate(self._ends):
                if not up[number]:
                    with suppress(OSError):
                        end.connect()
                        up[number] = True
            if not all(up):
                self._stopped.wait(0.01)
                continue
            ready, _, _ = select.select(self._ends, [], [], 0.05)
            for end in ready:
                up[self._ends.index(end)] = self._carry(end)

    def _carry(self, end: Plug) -> bool:
        """One packet; false where nobody is there any more."""
        other = self._ends[1 - self._ends.index(end)]
        try:
            packet = end.receive(0)
        except OSError:
            return False
        if packet is None:
            return False
        self.seen.append(packet)
        change = self.there if end is self._ends[0] else self.back
        for one in change(packet):
            with suppress(OSError):  # the other end is noticed when it is its turn
                other.send(one)
        return True

    def stop(self) -> None:
        self._stopped.set()
        self.join()


@dataclass(frozen=True)
class Rules:
    """Encrypted rules: for gateways, and for the provider."""

    maps: Path
    document: EncryptedRules

    @property
    def config(self) -> dict[str, Any]:
        return config_of(self.document)


@dataclass(frozen=True)
class Lab:
    """All of it; `host` and `server` are inside and outside."""

    folder: Path
    site: Path
    ours: E2d
    theirs: E2d
    host: Plug
    server: Plug
    cable: Cable
    nat: bool

    @property
    def gateway(self) -> Gateway:
        return load(self.site)

    def encrypt(self, name: str, rules: str, *more: str, key: Path | None = None) -> Rules:
        return encrypt_rules(self.folder, name, rules, *more, nat=self.nat, key=key)

    def swap(self, rules: Rules, settle_s: float = 0.2) -> Swap:
        """From these rules to others; packets may be in the cable for a while."""
        nats = ["nat"] if self.nat else []
        return make_swap(
            self.theirs.address, rules.maps, rules.document, ["firewall"], nats, settle_s
        )

    def over_sockets(self, gateway: Gateway) -> pipelines.Graph:
        return over_sockets(gateway, self.ours.port)

    def plug_in(self) -> None:
        """Join host and server with the gateway, once it is built."""
        for plug in (self.host, self.server):
            wait_until(partial(connects, plug))

    def pass_through(self, packet: bytes, *, within_s: float = 5.0) -> bytes | None:
        """What the server gets for a packet of the host."""
        self.host.send(packet)
        return self.server.receive(within_s)

    def catch(self, packet: bytes) -> bytes:
        """How a packet of the host is encrypted; the provider doesn't get it."""
        carried, caught = self.cable.there, list[bytes]()
        self.cable.there = lambda one: caught.append(one) or []  # type: ignore[func-returns-value]
        try:
            self.host.send(packet)
            wait_until(lambda: len(caught) == 1)
        finally:
            self.cable.there = carried
        return caught[0]

    def kill_ours(self) -> None:
        """Have the gateway's daemon crash, and start another one, which is empty."""
        pid = self.ours.pid
        self.ours.kill()
        wait_until(lambda: not Path(f"/proc/{pid}").exists())
        started = self.ours("start")
        assert started.returncode == 0, started.stderr

    def drops(self, module: str) -> dict[str, int]:
        """What a module of the gateway or the provider has dropped."""
        for e2d in (self.ours, self.theirs):
            with Client(e2d.address) as client:
                for found in client.counters().modules:
                    if found.name == module:
                        return dict(found.drops)
        raise AssertionError(f"no module {module}")


class Traffic(threading.Thread):
    """A host that sends until stopped; `sent` tells how often."""

    def __init__(self, lab: Ends, make: Callable[[int], bytes]) -> None:
        super().__init__(name="traffic")
        self.sent = 0
        self.stopped = threading.Event()
        self._lab, self._make = lab, make

    def run(self) -> None:
        while not self.stopped.wait(0.002):
            try:
                self._lab.host.send(self._make(self.sent))
            except OSError:
                continue  # nobody is there; the next one is sent again
            self.sent += 1

    def __enter__(self) -> Traffic:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.join()


def connects(plug: Plug) -> bool:
    with suppress(OSError):
        plug.connect()
        return True
    return False


def over_sockets(gateway: Gateway, number: int) -> pipelines.Graph:
    """A gateway's pipelines with UNIX sockets for devices."""
    graph = pipelines.draw(gateway)
    ports = tuple(
        pipelines.Port(port.name, "UnixSocketPort", {"path": f"@es-{number}-{port.name}"})
        for port in graph.ports
    )
    return replace(graph, ports=ports)


def encrypt_rules(
    folder: Path, name: str, rules: str, *more: str, nat: bool, key: Path | None = None
) -> Rules:
    """Rules of a chain FORWARD, one a line, the policy first."""
    policy, *lines = rules.strip().splitlines()
    text = f"*filter\n:FORWARD {policy} [0:0]\n"
    text += "".join(f"-A FORWARD {line.strip()}\n" for line in lines) + "COMMIT\n"
    saved, maps, out = (folder / f"{name}{ending}" for ending in (".v4", ".maps", ".json"))
    saved.write_text(text, encoding="utf-8")
    words = ["encrypt-rules", saved, "--format", "iptables", "--key", key or folder / "site.key"]
    words += ["--maps", maps, "--out", out, *more]
    words += ["--pool", f"{EXTERNAL}/32:nat"] if nat else []
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return Rules(maps, read_document(out))


def provide(
    client: Client, rules: Rules, *, nat: bool, path: str, ports: Mapping[str, int] | None = None
) -> None:
    """The provider's pipelines."""
    client.add_worker(0, CORE)
    client.create_port("UnixSocketPort", "gateway", path=path)
    client.create_module("PortInc", "in", port="gateway")
    client.create_module("MetadataMatch", "firewall", **rules.config)
    client.create_module("MACSwap", "turn")
    client.create_module("PortOut", "out", port="gateway")
    if nat:
        (pooled,) = [one.encrypted for one in rules.document.pool]
        own = {"field": "ip6.dst", "value_bin": ip_address(pooled).packed}
        way = {"rules": [{"gate": 1, "priority": 1, "terms": [own]}], "default_gate": 0}
        external = {"ext_addr": pooled, **({"port_ranges": [ports]} if ports else {})}
        client.create_module("MetadataMatch", "way", **way)
        client.create_module("NAT", "nat", ext_addrs=[external], encrypted_ports=True)
        client.connect("in", "way")
        client.connect("way", "firewall", 0)
        client.connect("firewall", "nat", 0, 0)
        client.connect("way", "nat", 1, 1)
        client.connect("nat", "turn", 0)
        client.connect("nat", "turn", 1)
    else:
        client.connect("in", "firewall")
        client.connect("firewall", "turn")
    client.connect("turn", "out")
    client.resume()


@contextmanager
def kept(lab: Lab, patch: pytest.MonkeyPatch) -> Iterator[tuple[Keeper, list[str]]]:
    """A gateway that runs, and what its keeper tells."""
    patch.setattr("embark_gw.keeper.draw", lab.over_sockets)
    patch.setattr("embark_gw.keeper._POLL_S", 0.02)
    told: list[str] = []
    keeper = Keeper(lambda: lab.gateway, told.append)
    keeper.start()
    lab.plug_in()
    stopped = threading.Event()
    runs = threading.Thread(target=keeper.run, args=[stopped.wait])
    runs.start()
    try:
        yield keeper, told
    finally:
        stopped.set()
        runs.join()


@contextmanager
def new_lab(
    folder: Path, rules: str, *, nat: bool = True, ports: Mapping[str, int] | None = None
) -> Iterator[Lab]:
    """A provider that runs, and a gateway's daemon without pipelines yet."""
    with ExitStack() as stack:
        for name in ("ours", "theirs"):
            (folder / name).mkdir(mode=0o700)
        ours = stack.enter_context(real_daemon(folder / "ours"))
        theirs = stack.enter_context(real_daemon(folder / "theirs"))
        site = site_file(folder, ours.address, nat=nat)
        assert CliRunner().invoke(app, ["keygen", str(folder / "site.key")]).exit_code == 0
        first = encrypt_rules(folder, "site", rules, nat=nat)
        with Client(theirs.address) as client:
            provide(client, first, nat=nat, path=f"@es-{theirs.port}-cloud", ports=ports)
        names = {side: f"es-{ours.port}-{side}" for side in ("inside", "outside", "provider")}
        host, server = Plug(names["inside"]), Plug(names["outside"])
        cable = Cable(Plug(names["provider"]), Plug(f"es-{theirs.port}-cloud"))
        cable.start()
        stack.callback(cable.stop)
        for plug in (host, server):
            stack.callback(plug.close)
        yield Lab(folder, site, ours, theirs, host, server, cable, nat)

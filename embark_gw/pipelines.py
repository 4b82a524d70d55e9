# SPDX-License-Identifier: BSD-3-Clause
"""The pipelines of a gateway, as data: what modules there are and what leads where.

::

    inside  -> pass_inside  -> mtu_inside  -.
    outside -> pass_outside -> mtu_outside -+-> [steer] -> spread_out -> queue:out.N -> seal
                                                        -> encrypt -> [tunnel_out] -> provider
    provider -> [tunnel_in] -> spread_in -> queue:in.N -> decrypt -> open -> side -> inside
                                                                                  -> outside

With a backup at the provider, `steer` keeps flows with the rules that they began under. What
follows it, up to the provider, is there twice; of the second chain all names end in `_backup`.

What the gateway has to tell a host (that a packet is too long) goes back to where it came from;
what is not for the provider (ARP, neighbour discovery) goes to the other side.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from embark_gw.site import Gateway, Side, Way, way_of_new_flows

__all__ = ["FLOW_IDS", "Graph", "Link", "Module", "Port", "decrypt_args", "draw", "encrypt_args"]

_IPV4, _IPV6 = 0x0800, 0x86DD
_ICMPV6 = 58
# Of the link: multicast listeners, routers and neighbours (RFC 2710, RFC 3810, RFC 4861), 130 to
# 137 and 143, as values and masks.
_LINK_TYPES = ((130, 0xFE), (132, 0xFC), (136, 0xFE), (143, 0xFF))
_QUEUE_PACKETS = 4096
FLOW_IDS = 1 << 32  # of a FlowSteer
_RETURNS = "returns"


@dataclass(frozen=True)
class Port:
    """A port of the daemon."""

    name: str
    driver: str
    args: Mapping[str, Any]


@dataclass(frozen=True)
class Module:
    """A module; ``worker`` runs its task, if it has one."""

    name: str
    mclass: str
    args: Mapping[str, Any] = field(default_factory=dict)
    worker: int | None = None


@dataclass(frozen=True)
class Link:
    """From an output gate to an input gate."""

    source: str
    ogate: int
    target: str
    igate: int = 0


@dataclass(frozen=True)
class Graph:
    """All that a daemon is to have."""

    ports: tuple[Port, ...]
    modules: tuple[Module, ...]
    links: tuple[Link, ...]
    workers: int


def encrypt_args(gateway: Gateway) -> dict[str, Any]:
    """What PrefixMatchEncrypt encrypts by, which changes as keys and rules do."""
    key = {"file": str(gateway.key.file), "epoch": gateway.key.epoch}
    return {"key": key, "maps_file": str(gateway.maps), "pool": _pool(gateway)}


def decrypt_args(gateway: Gateway) -> dict[str, Any]:
    """What PrefixMatchDecrypt decrypts by."""
    keys = [{"file": str(key.file), "epoch": key.epoch} for key in gateway.keys]
    return {"keys": keys, "pool": _pool(gateway)}


def _pool(gateway: Gateway) -> list[dict[str, Any]]:
    return [{"prefix": entry.prefix, "nat": entry.nat} for entry in gateway.pool]


def _returns(gateway: Gateway) -> dict[str, Any]:
    """Sources to remember, for what the provider's NAT sends back, or its L4LB keeps together."""
    return {
        "name": _RETURNS,
        "max_flows": gateway.flows,
        "sources": list(gateway.inside.networks),
        "clients": gateway.clients,
    }


def draw(gateway: Gateway) -> Graph:
    """The pipelines of a gateway."""
    return _Drawing(gateway).graph()


class _Drawing:
    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.ports: list[Port] = []
        self.modules: list[Module] = []
        self.links: list[Link] = []

    def graph(self) -> Graph:
        gateway = self.gateway
        for name, side in self.sides():
            self.ports.append(
                Port(name, "AFPacketPort", {"ifname": side.device, "promiscuous": True})
            )
            self.add(f"{name}_in", "PortInc", {"port": name}, worker=0)
            # One worker has the port, whoever sends.
            queue = self.add(f"{name}_out", "Queue", {"size": _QUEUE_PACKETS}, worker=0)
            self.link(queue, self.add(f"{name}_send", "PortOut", {"port": name}))
        self.to_provider()
        self.from_provider()
        return Graph(tuple(self.ports), tuple(self.modules), tuple(self.links), 1 + gateway.workers)

    def sides(self) -> Iterator[tuple[str, Side]]:
        yield "inside", self.gateway.inside
        if self.gateway.outside is not None:
            yield "outside", self.gateway.outside
        yield "provider", self.gateway.provider

    def add(
        self,
        name: str,
        mclass: str,
        args: Mapping[str, Any] | None = None,
        worker: int | None = None,
    ) -> str:
        self.modules.append(Module(name, mclass, args or {}, worker))
        return name

    def link(self, source: str, target: str, ogate: int = 0) -> None:
        self.links.append(Link(source, ogate, target))

    def chain(self, *names: str) -> None:
        for source, target in pairwise(names):
            self.link(source, target)

    def to_provider(self) -> None:
        """From inside and outside to the provider."""
        gateway = self.gateway
        ways = gateway.provider.ways
        spreads = [self.spread("out" + way.ending) for way in ways]
        first = spreads[0]
        if gateway.provider.backup is not None:
            first = self.add("steer", "FlowSteer", _steer_args(gateway))
            for number, spread in enumerate(spreads):
                self.link(first, spread, number)
        for name in ("inside", "outside")[: 1 if gateway.outside is None else 2]:
            other = {"inside": "outside", "outside": "inside"}[name]
            passes = self.add(f"pass_{name}", "MetadataMatch", _link_rules())
            guard = self.add(f"mtu_{name}", "PathMtu", {"mtu": gateway.mtu})
            self.chain(f"{name}_in", passes, guard, first)
            self.link(guard, f"{name}_out", 1)
            if gateway.outside is not None:
                self.link(passes, f"{other}_out", 1)
            else:
                self.link(passes, self.add(f"no_other_{name}", "Sink"), 1)
        for way in ways:
            self.encrypting(way)

    def encrypting(self, way: Way) -> None:
        """From workers' queues to one of the provider's chains."""
        gateway, provider = self.gateway, self.gateway.provider
        encrypt = self.add(
            "encrypt" + way.ending,
            "PrefixMatchEncrypt",
            {
                **encrypt_args(gateway),
                "mtu": gateway.encrypted_mtu,
                "src_mac": provider.mac,
                "dst_mac": way.peer,
                "sealed_payload": gateway.sealed,
                "bound_seals": gateway.bound,
                **({"returns": _returns(gateway)} if gateway.has_nat else {}),
            },
        )
        first = encrypt
        if gateway.sealed:
            key = {"key": encrypt_args(gateway)["key"]}
            first = self.add("seal" + way.ending, "PayloadSeal", key)
            self.link(first, encrypt)
        self.work("out" + way.ending, first)
        if way.tunnel is None:
            self.link(encrypt, "provider_out")
            return
        tunnel = self.add(
            "tunnel_out" + way.ending,
            "TunnelEncap",
            {
                "src_mac": provider.mac,
                "dst_mac": way.peer,
                "src_ip": way.tunnel.local,
                "dst_ip": way.tunnel.remote,
                "vni": way.tunnel.vni,
                "mtu": provider.mtu,
                # What is inside has checksums of its own; IPv6's has to be there (RFC 8200).
                "zero_checksum": way.tunnel.version == 4,
            },
        )
        self.chain(encrypt, tunnel, "provider_out")

    def from_provider(self) -> None:
        """From the provider to inside and outside."""
        gateway, provider = self.gateway, self.gateway.provider
        spread = self.spread("in")
        if provider.tunnel is None:
            self.link("provider_in", spread)
        else:
            edges = {way.tunnel.vni: 0 for way in provider.ways if way.tunnel is not None}
            self.chain(
                "provider_in", self.add("tunnel_in", "TunnelDecap", {"edges": edges}), spread
            )
        decrypt = self.add(
            "decrypt",
            "PrefixMatchDecrypt",
            {
                **decrypt_args(gateway),
                "src_mac": gateway.inside.mac,
                "dst_mac": gateway.inside.peer,
                "sealed_payload": gateway.sealed,
                **({"return_table": _RETURNS} if gateway.has_nat else {}),
            },
        )
        self.work("in", decrypt)
        last = decrypt
        if gateway.sealed:
            last = self.add("open", "PayloadOpen", {"keys": decrypt_args(gateway)["keys"]})
            self.link(decrypt, last)
        if gateway.outside is None:
            self.link(last, "inside_out")
            return
        side = self.add("side", "MetadataMatch", _inside_rules(gateway))
        self.link(last, side)
        self.link(side, "inside_out", 1)
        addresses = self.add("address_outside", "Update", _addresses(gateway.outside))
        self.chain(side, addresses, "outside_out")

    def spread(self, way: str) -> str:
        """Flows to workers, each by a queue of its own."""
        workers = range(1, self.gateway.workers + 1)
        spread = self.add(f"spread_{way}", "HashLB", {"mode": "l4", "gates": [*workers]})
        for worker in workers:
            queue = self.add(f"queue:{way}.{worker}", "Queue", {"size": _QUEUE_PACKETS}, worker)
            self.link(spread, queue, worker)
        return spread

    def work(self, way: str, first: str) -> None:
        """What workers do with what their queues have."""
        for worker in range(1, self.gateway.workers + 1):
            self.link(f"queue:{way}.{worker}", first)


def _steer_args(gateway: Gateway) -> dict[str, Any]:
    """Both directions of a connection go the same way, and keep to it until it ends."""
    backup = gateway.provider.backup
    assert backup is not None
    whole = {"start": 0, "end": FLOW_IDS, "gate": way_of_new_flows(gateway)}
    return {
        "symmetric": True,
        "ranges": [whole],
        "max_flows": backup.flows,
        "timeout_ms": 1000 * backup.idle_s,
        "other_gate": 0,
    }


def _link_rules() -> dict[str, Any]:
    """Gate 1: what belongs to the link. Gate 0: what is for the provider."""
    others = [
        {"gate": 0, "priority": 1, "terms": [{"field": "eth.type", "value": kind}]}
        for kind in (_IPV4, _IPV6)
    ]
    link = [
        {
            "gate": 1,
            "priority": 2,
            "terms": [
                {"field": "ip.version", "value": 6},
                {"field": "ip.proto", "value": _ICMPV6},
                {"field": "icmp.type", "value": first, "mask": mask},
            ],
        }
        for first, mask in _LINK_TYPES
    ]
    return {"rules": [*others, *link], "default_gate": 1}


def _inside_rules(gateway: Gateway) -> dict[str, Any]:
    """Gate 1: to a host of the enterprise. Gate 0: to others."""
    rules = []
    for text in gateway.inside.networks:
        network = ipaddress.ip_network(text)
        field_name = "ip.dst" if network.version == 4 else "ip6.dst"
        term = {
            "field": field_name,
            "value_bin": network.network_address.packed,
            "mask_bin": network.netmask.packed,
        }
        rules.append({"gate": 1, "priority": 1, "terms": [term]})
    return {"rules": rules, "default_gate": 0}


def _addresses(side: Side) -> dict[str, Any]:
    """Ethernet addresses of frames to a side."""
    return {
        "fields": [
            {"offset": offset, "size": 6, "value": int(mac.replace(":", ""), 16)}
            for offset, mac in ((0, side.peer), (6, side.mac))
        ]
    }

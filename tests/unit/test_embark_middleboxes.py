# SPDX-License-Identifier: BSD-3-Clause
"""Middleboxes between gateways do to each capture what they do to it in clear (Lan, 4.7)."""

from __future__ import annotations

from pathlib import Path

import pytest
from embark_support import Site, restored
from middlebox_support import Gateways, Seen, captures, packets_of

from harness import Engine, new_engine
from twins.embark_parts_twin import parse
from twins.nat_twin import Endpoint, ends, translate

NAT4, NAT6 = "203.0.113.9", "2001:db8:5::9"
POOL = ((NAT4, True), (NAT6, True))
RETURNS = {"name": "site", "max_flows": 16384}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"), pool=POOL)


class Nats:
    """One NAT of both families in clear, and one for each family between gateways, as nobody but
    the gateway can tell them apart."""

    def __init__(self, site: Site) -> None:
        self.clear: Engine = new_engine()
        addresses = [{"ext_addr": NAT4}, {"ext_addr": NAT6}]
        self.clear.create_module("nat", "NAT", {"ext_addrs": addresses, "encrypted_ports": True})
        self.gateways = Gateways(site, RETURNS)
        pool = self.gateways.pool()
        for name, address in (("nat4", NAT4), ("nat6", NAT6)):
            args = {"ext_addrs": [{"ext_addr": pool[address]}], "encrypted_ports": True}
            self.gateways.engine.create_module(name, "NAT", args)

    def run(self, frame: bytes, ipv6: bool, reverse: bool) -> tuple[bytes | None, bytes | None]:
        """What comes out in clear, as gateways leave packets, and out of the second gateway."""
        gate, out_gate = (1, 0) if reverse else (0, 1)
        clear = self.clear.run_packets("nat", [frame], gate).get(out_gate, [])
        return (restored(clear[0]) if clear else None), self.between(frame, ipv6, reverse)

    def between(self, frame: bytes, ipv6: bool, reverse: bool) -> bytes | None:
        gate, out_gate = (1, 0) if reverse else (0, 1)
        encrypted = self.gateways.encrypt(frame)
        name = "nat6" if ipv6 else "nat4"
        through = self.gateways.engine.run_packets(name, [encrypted], gate).get(out_gate, [])
        return self.gateways.decrypt(through[0]) if through else None


def first_flows(packets: list[Seen]) -> list[Seen]:
    """Without flows whose internal endpoint has talked to another one before: a NAT that cannot
    see that they share an endpoint gives them ports of their own."""
    owner: dict[tuple[object, ...], tuple[object, ...]] = {}
    internal: dict[tuple[object, ...], Endpoint] = {}
    kept = []
    for seen in packets:
        if seen.ends is not None:
            end = internal.setdefault(seen.flow, seen.ends[0])
            if owner.setdefault((seen.parts.protocol, end), seen.flow) != seen.flow:
                continue
        kept.append(seen)
    return kept


@pytest.mark.parametrize("path", captures())
def test_a_nat_is_the_same_byte_by_byte(site: Site, path: Path) -> None:
    """Both directions; answers go to the endpoint that their flow got."""
    nats = Nats(site)
    internal: dict[tuple[object, ...], Endpoint] = {}
    external: dict[tuple[object, ...], Endpoint] = {}
    for seen in first_flows(list(packets_of(path))):
        if seen.ends is None:
            clear, back = nats.run(seen.frame, seen.ipv6, reverse=False)
            assert back is None
            # Of a malformed header behind its ports only the clear NAT sees them.
            assert clear is None or seen.parts.kind == "opaque"
        elif seen.ends[0] == internal.setdefault(seen.flow, seen.ends[0]):
            clear, back = nats.run(seen.frame, seen.ipv6, reverse=False)
            assert clear is not None
            assert back == clear
            pair = ends(parse(clear))
            assert pair is not None
            assert external.setdefault(seen.flow, pair[0]) == pair[0]
            assert clear == restored(translate(seen.frame, False, pair[0]))
        else:
            answer = translate(seen.frame, True, external[seen.flow])
            clear, back = nats.run(answer, seen.ipv6, reverse=True)
            assert clear == back == restored(seen.frame)
    assert nats.gateways.drops("decrypt") == {}


@pytest.mark.parametrize("path", captures())
def test_a_nat_loses_no_packet_of_any_flow(site: Site, path: Path) -> None:
    """Each flow has an endpoint of its own, whatever its source talks to besides."""
    nats = Nats(site)
    internal: dict[tuple[object, ...], Endpoint] = {}
    external: dict[tuple[object, ...], Endpoint] = {}
    for seen in packets_of(path):
        if seen.ends is None:
            continue
        if seen.ends[0] == internal.setdefault(seen.flow, seen.ends[0]):
            back = nats.between(seen.frame, seen.ipv6, reverse=False)
            assert back is not None
            pair = ends(parse(back))
            assert pair is not None
            assert external.setdefault(seen.flow, pair[0]) == pair[0]
            assert back == restored(translate(seen.frame, False, pair[0]))
        else:
            answer = translate(seen.frame, True, external[seen.flow])
            assert nats.between(answer, seen.ipv6, reverse=True) == restored(seen.frame)
    taken = [(flow[0], end) for flow, end in external.items()]
    assert len(set(taken)) == len(taken)
    assert nats.gateways.drops("decrypt") == {}

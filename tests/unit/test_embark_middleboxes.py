# SPDX-License-Identifier: BSD-3-Clause
"""Middleboxes between gateways do to each capture what they do to it in clear (Lan, 4.7)."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address
from pathlib import Path

import pytest
from embark_support import Site, restored
from middlebox_support import POOL, Gateways, Nats, Seen, captures, first_flows, packets_of

from harness import new_engine
from twins.embark_parts_twin import parse
from twins.nat_twin import Endpoint, ends, translate


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"), pool=POOL)


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


def servers_of(packets: list[Seen]) -> tuple[Endpoint, int, bool] | None:
    """The server that most packets of TCP or UDP go to."""
    counted = Counter(
        (seen.ends[1], seen.parts.protocol, seen.ipv6)
        for seen in packets
        if seen.ends is not None and seen.parts.protocol in (6, 17)
    )
    return counted.most_common(1)[0][0] if counted else None


def flow_of(seen: Seen) -> tuple[object, ...]:
    """One direction of a connection."""
    return (seen.parts.protocol, *(seen.ends or seen.parts.addresses))


@pytest.mark.parametrize("path", captures())
def test_an_l3_load_balancer_partitions_flows(site: Site, path: Path) -> None:
    """Equation 4.8: a flow has one gate, in clear and encrypted; all gates are used alike."""
    gateways = Gateways(site)
    for engine in (gateways.engine, clear := new_engine()):
        engine.create_module("lb", "HashLB", {"gates": [0, 1, 2, 3], "mode": "l4"})
    gates: dict[tuple[object, ...], tuple[int, int]] = {}
    for seen in packets_of(path):
        (in_clear,) = clear.run_packets("lb", [seen.frame])
        ((between, (packet,)),) = gateways.engine.run_packets(
            "lb", [gateways.encrypt(seen.frame)]
        ).items()
        # What is no fragment and has a header that makes sense has ports for both.
        if seen.parts.kind in ("tcp", "udp") and seen.parts.fragment is None:
            assert gates.setdefault(flow_of(seen), (in_clear, between)) == (in_clear, between)
        assert gateways.decrypt(packet) == restored(seen.frame)
    if len(gates) > 100:
        counted = Counter(between for _, between in gates.values())
        assert min(counted.values()) > len(gates) / 8


@pytest.mark.parametrize("path", captures())
def test_an_l4_load_balancer_keeps_flows_together(
    path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Equation 4.9: the same packets go to a backend, each flow to one; answers get the virtual
    endpoint; all else passes."""
    # Routing headers, which say that a packet is for another stop first, are in the option.
    packets = [seen for seen in packets_of(path) if not (seen.ipv6 and seen.parts.ip[6] == 43)]
    found = servers_of(packets)
    if found is None:
        pytest.skip("no connections in it")
    server, protocol, ipv6 = found
    name = "2001:db8:7::{}" if ipv6 else "198.18.0.{}"
    backends = [name.format(n) for n in range(1, 5)]
    virtual = str(ip_address(server.address))
    pool = tuple((one, True) for one in (virtual, *backends))
    gateways = Gateways(Site(tmp_path_factory.mktemp("site"), pool=pool))
    names = gateways.pool()
    clear = new_engine()
    for engine, named in ((clear, {one: one for one, _ in pool}), (gateways.engine, names)):
        listed = [{"address": named[one], "port": 8080} for one in backends]
        service = {"address": named[virtual], "port": server.port, "protocol": protocol}
        engine.create_module("lb", "L4LB", {"services": [service | {"backends": listed}]})
    chosen: dict[tuple[object, ...], tuple[Endpoint, Endpoint]] = {}
    for seen in packets:
        ours = seen.parts.protocol == protocol and seen.ends is not None
        if seen.ends is not None and ours and seen.ends[1] == server:
            (one,) = clear.run_packets("lb", [seen.frame])[1]
            (other,) = gateways.engine.run_packets("lb", [gateways.encrypt(seen.frame)])[1]
            back = gateways.decrypt(other)
            pairs = [ends(parse(packet)) for packet in (one, back)]
            assert pairs[0] is not None and pairs[1] is not None
            both = (pairs[0][1], pairs[1][1])
            assert chosen.setdefault(flow_of(seen), both) == both
            assert all(str(ip_address(end.address)) in backends for end in both)
            assert back == restored(translate(seen.frame, True, both[1]))
            assert one == translate(seen.frame, True, both[0])
        elif seen.ends is not None and ours and seen.ends[0] == server:
            reverse = (protocol, seen.ends[1], seen.ends[0])
            end = (
                chosen[reverse][1]
                if reverse in chosen
                else Endpoint.of({"address": backends[0], "port": 8080})
            )
            answer = translate(seen.frame, False, end)
            (one,) = clear.run_packets("lb", [answer], 1)[0]
            (other,) = gateways.engine.run_packets("lb", [gateways.encrypt(answer)], 1)[0]
            assert gateways.decrypt(other) == restored(one) == restored(seen.frame)
        elif seen.parts.fragment is None:
            assert clear.run_packets("lb", [seen.frame])[1] == [seen.frame]
            (other,) = gateways.engine.run_packets("lb", [gateways.encrypt(seen.frame)])[1]
            assert gateways.decrypt(other) == restored(seen.frame)


@pytest.mark.parametrize("path", captures())
def test_a_firewall_sees_addresses_and_ports(site: Site, path: Path) -> None:
    """MetadataMatch finds encrypted fields behind the option where the twin puts them."""
    engine = new_engine()
    gateways = Gateways(site)
    engine.create_module("fw", "MetadataMatch", {})
    for number, seen in enumerate(list(packets_of(path))[:100]):
        packet = gateways.encrypt(seen.frame)
        terms = [
            {"field": "ip6.src", "value_bin": packet[22:38]},
            {"field": "ip6.dst", "value_bin": packet[38:54]},
        ]
        if seen.parts.kind in ("tcp", "udp") and seen.parts.fragment is None:
            at = 54 + (packet[55] + 1) * 8
            ports = [int.from_bytes(packet[at + i : at + i + 2], "big") for i in (0, 2)]
            terms += [{"field": "l4.sport", "value": ports[0]}]
            terms += [{"field": "l4.dport", "value": ports[1]}]
        rule = {"gate": 1 + number % 2, "priority": 1, "terms": terms}
        engine.module_command("fw", "set_runtime_config", {"default_gate": 0, "rules": [rule]})
        assert list(engine.run_packets("fw", [packet])) == [1 + number % 2]

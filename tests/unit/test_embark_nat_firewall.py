# SPDX-License-Identifier: BSD-3-Clause
"""A firewall on either side of the provider's NAT decides as one does about packets in clear.

::

    gateway -- inner -- NAT -- outer -- gateway
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from embark_support import Site, build
from middlebox_support import NAT4, NAT6, POOL, Nats, Seen, captures, first_flows, packets_of
from scapy.layers.inet import IP, UDP

from bess_plugins._crypto import SiteKeys, write_prefix_maps
from embark_gw.provider.metadata_match import config_of
from embark_gw.rules import ranges
from embark_gw.rules.document import FIELDS
from embark_gw.rules.encrypt import encrypt
from embark_gw.rules.model import ANY_ADDRESS, Action, Match, Rule, RuleSet
from embark_gw.rules.pool import read_pool
from harness import new_engine
from rules_support import HERE, number, packet_of, rules_for
from twins.embark_parts_twin import parse
from twins.nat_twin import Endpoint, ends, translate

POOLED = ranges.join((number(one), number(one)) for one in (NAT4, NAT6))
OTHERS = ranges.subtract(ANY_ADDRESS, POOLED)


class Firewall:
    """Rules in clear, and encrypted in the provider's classifier."""

    def __init__(self, site: Site, rules: RuleSet, *, shared: bool = True) -> None:
        self.rules = rules
        pool = read_pool([f"{NAT4}/32:nat", f"{NAT6}/128:nat"])
        made = encrypt(rules, SiteKeys(site.key_file), pool=pool, shared=shared)
        write_prefix_maps(site.maps_file, *(made.maps[name] for name in FIELDS))
        self._engine = new_engine()
        self._engine.create_module("fw", "MetadataMatch", config_of(made.document))

    def decide(self, encrypted: bytes) -> Action:
        accepted = self._engine.run_packets("fw", [encrypted]).get(0, [])
        return Action.ACCEPT if accepted else Action.DENY


def rules_of(site: Site, path: Path) -> RuleSet:
    """Rules about a capture's packets on either side of the NAT.

    Ports beside the NAT's own addresses are in clear: none may be asked for there.
    """
    rewritten = []
    for seen in packets_of(path):
        packet = packet_of(seen.frame)
        if packet is not None:
            nat = number(NAT6 if seen.ipv6 else NAT4)
            rewritten += [packet, packet._replace(src=nat), packet._replace(dst=nat)]
    found = rules_for(rewritten, 40, 11)
    kept = []
    for rule in found.rules:
        match = rule.both(
            Match(
                src=ANY_ADDRESS if rule.sport is None else OTHERS,
                dst=ANY_ADDRESS if rule.dport is None else OTHERS,
            )
        )
        if not match.empty:
            kept.append(Rule.of(match, rule.action, HERE, rule.text))
    draw = random.Random(3)
    for side in ("src", "dst"):  # in front of all: the NAT's addresses are told apart
        match = Match(**{side: POOLED, "protocols": ((6, 6),)})
        kept.insert(0, Rule.of(match, draw.choice([*Action]), HERE, f"NAT {side}"))
    return RuleSet(tuple(kept), found.default)


def sights(nats: Nats, packets: list[Seen]) -> Iterator[tuple[str, bytes, bytes]]:
    """Where a firewall may be, a packet there in clear, and encrypted."""
    internal: dict[tuple[object, ...], Endpoint] = {}
    external: dict[tuple[object, ...], Endpoint] = {}
    for seen in first_flows(packets):
        if seen.ends is None or packet_of(seen.frame) is None:
            continue
        forward = seen.ends[0] == internal.setdefault(seen.flow, seen.ends[0])
        frame = seen.frame if forward else translate(seen.frame, True, external[seen.flow])
        encrypted = nats.gateways.encrypt(frame)
        clear = nats.in_clear(frame, not forward)
        through = nats.translated(encrypted, seen.ipv6, not forward)
        assert clear is not None and through is not None
        sides = ("inner", "outer") if forward else ("outer", "inner")
        way = "out" if forward else "back"
        yield f"{sides[0]}, {way}", frame, encrypted
        yield f"{sides[1]}, {way}", clear, through
        if forward:
            pair = ends(parse(clear))
            assert pair is not None
            external[seen.flow] = pair[0]


@pytest.mark.parametrize("path", captures())
def test_decisions_are_the_same(tmp_path: Path, path: Path) -> None:
    site = Site(tmp_path / "site", pool=POOL)
    packets = list(packets_of(path))
    if not any(seen.ends and packet_of(seen.frame) for seen in packets):
        pytest.skip("nothing in it that a NAT translates")
    firewall = Firewall(site, rules_of(site, path))
    seen_at: Counter[tuple[str, Action]] = Counter()
    for place, clear, encrypted in sights(Nats(site), packets):
        packet = packet_of(clear)
        assert packet is not None
        wanted = firewall.rules.decide(packet)
        assert firewall.decide(encrypted) is wanted, (place, packet)
        seen_at[place, wanted] += 1
    assert {"inner, out", "outer, out"} <= {place for place, _ in seen_at}


@pytest.mark.parametrize("shared", [False, True])
def test_it_takes_shared_maps(tmp_path: Path, shared: bool) -> None:
    """A host that may not be reached, by a server that the NAT lets answer; and the NAT itself."""
    site = Site(tmp_path / "site", pool=POOL)
    host, server = "10.1.2.3", "198.51.100.7"
    closed = [
        Rule.of(Match(dst=((number(one), number(one)),)), Action.DENY, HERE, one)
        for one in (host, NAT4)
    ]
    firewall = Firewall(site, RuleSet(tuple(closed), Action.ACCEPT), shared=shared)
    nats = Nats(site)
    out = build(IP(src=host, dst=server), UDP(sport=5000, dport=53), b"query")
    back = nats.between(out, ipv6=False, reverse=False)
    assert back is not None
    pair = ends(parse(back))
    assert pair is not None
    answer = build(IP(src=server, dst=NAT4), UDP(sport=53, dport=pair[0].port), b"answer")
    encrypted = nats.gateways.encrypt(answer)
    through = nats.translated(encrypted, ipv6=False, reverse=True)
    assert through is not None
    wanted = Action.DENY if shared else Action.ACCEPT
    assert (firewall.decide(encrypted), firewall.decide(through)) == (wanted, wanted)

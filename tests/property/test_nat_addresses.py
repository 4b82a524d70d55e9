# SPDX-License-Identifier: BSD-3-Clause
"""Addresses of a NAT that change, and old ones that are kept: whose a packet is, as its twin says.

Commands of any kind, many of which are refused, and after each of them packets to every address
that there ever was.
"""

from __future__ import annotations

from functools import cache
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from harness import Engine, EngineError, new_engine
from twins.embark_parts_twin import parse
from twins.nat_twin import AddressesTwin, Endpoint, RefusedError, ends, translate

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
MOST = 256
HOSTS = {4: "10.0.0.", 6: "2001:db8:1::"}
SERVERS = {4: "198.51.100.7", 6: "2001:db8:2::7"}
ADDRESSES = {
    4: [f"203.0.113.{n}" for n in range(1, 8)],
    6: [f"2001:db8:{n:x}:f0{n}::{n}" for n in range(1, 8)],
}
moves = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 6), st.booleans()), max_size=3
)  # by the numbers of addresses
commands = st.lists(st.tuples(moves, st.lists(st.integers(0, 6), max_size=2)), max_size=6)


def sent(version: int, host: int) -> list[Packet]:
    """What a host sends: TCP, UDP and an echo."""
    head = (IP if version == 4 else IPv6)(src=f"{HOSTS[version]}{host}", dst=SERVERS[version])
    echo = ICMP(id=host) if version == 4 else ICMPv6EchoRequest(id=host)
    l4 = [TCP(sport=4000 + host, dport=80), UDP(sport=4000 + host, dport=53), echo]
    return [ETHER / head / one for one in l4]


@cache
def replies(version: int, protocol: int) -> list[bytes]:
    """A server's, to no address yet: with a checksum and, of UDP over IPv4, without one."""
    head = (IP if version == 4 else IPv6)(src=SERVERS[version], dst=SERVERS[version])
    if protocol == 6:
        return [bytes(ETHER / head / TCP(sport=80) / b"answer")]
    if protocol == 17:
        made = [bytes(ETHER / head / UDP(sport=53) / b"answer!")]
        bare = [bytes(ETHER / head / UDP(sport=53, chksum=0) / b"x")]
        return made + (bare if version == 4 else [])
    echo = ICMP(type=0) if version == 4 else ICMPv6EchoReply()
    return [bytes(ETHER / head / echo / b"answer")]


def answers(version: int, address: str, protocol: int, port: int) -> list[bytes]:
    end = Endpoint(ip_address(address).packed, port)
    return [translate(one, True, end) for one in replies(version, protocol)]


def told(engine: Engine) -> tuple[list[bytes], dict[bytes, bytes]]:
    found = engine.module_command("nat", "get_mappings", {})
    current = [ip_address(address).packed for address in found["external_addresses"]]
    kept = found["kept_addresses"]
    packed = {ip_address(one["old"]).packed: ip_address(one["current"]).packed for one in kept}
    assert len(packed) == len(kept)
    return current, packed


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([4, 6]), st.integers(1, 3), commands)
def test_whose_a_packet_is(
    version: int,
    count: int,
    given_commands: list[tuple[list[tuple[int, int, bool]], list[int]]],
) -> None:
    names = ADDRESSES[version]
    packed = [ip_address(name).packed for name in names]
    engine = new_engine()
    engine.create_module("nat", "NAT", {"ext_addrs": [{"ext_addr": n} for n in names[:count]]})
    twin = AddressesTwin(packed[:count])
    packets = [bytes(one) for host in (1, 2) for one in sent(version, host)]
    for before, after in zip(packets, engine.run_packets("nat", packets)[1], strict=True):
        inner, outer = ends(parse(before)), ends(parse(after))
        assert inner is not None and outer is not None
        number = twin.current.index(outer[0].address)
        twin.owners[number, parse(after).protocol, outer[0].port] = inner[0]
    known = [(protocol, port) for _, protocol, port in twin.owners] + [(6, 1)]
    for wanted, forgotten in given_commands:
        code = twin_code = 0
        try:
            named = [(packed[old], packed[new], keep) for old, new, keep in wanted]
            twin.replace(named, [packed[number] for number in forgotten], MOST)
        except RefusedError as refused:
            twin_code = refused.code
        try:
            arg = {
                "external_addresses": [
                    {"old": names[old], "new": names[new], "keep_old": keep}
                    for old, new, keep in wanted
                ],
                "forget_addresses": [names[number] for number in forgotten],
            }
            engine.module_command("nat", "replace_mappings", arg)
        except EngineError as error:
            code = error.code
        assert code == twin_code
        kept = {address: twin.current[number] for address, number in twin.kept.items()}
        assert told(engine) == (twin.current, kept)
        for name in names:
            frames = [one for end in known for one in answers(version, name, *end)]
            expected = [back for frame in frames if (back := twin.back(frame)) is not None]
            assert engine.run_packets("nat", frames, 1).get(0, []) == expected


def test_old_addresses_are_bounded() -> None:
    """As addresses are: all or none of a command."""
    names = [str(ip_address((0x20010DB8 << 96) + n)) for n in range(1, 3 * MOST + 1)]
    engine = new_engine()
    engine.create_module("nat", "NAT", {"ext_addrs": [{"ext_addr": n} for n in names[:MOST]]})

    def move(first: int, to: int, count: int) -> None:
        pairs = zip(names[first : first + count], names[to : to + count], strict=True)
        arg = [{"old": old, "new": new, "keep_old": True} for old, new in pairs]
        engine.module_command("nat", "replace_mappings", {"external_addresses": arg})

    move(0, MOST, MOST - 1)
    before = told(engine)
    with pytest.raises(EngineError, match="257 old addresses would be kept; must be at most 256"):
        move(MOST, 2 * MOST, 2)
    assert told(engine) == before
    move(MOST, 2 * MOST, 1)
    assert len(told(engine)[1]) == MOST


def test_a_port_is_found_by_either_address() -> None:
    """And what is sent has the new one."""
    old, new = ADDRESSES[6][:2]
    engine = new_engine()
    engine.create_module("nat", "NAT", {"ext_addrs": [{"ext_addr": old}]})
    (packet, *_) = (bytes(one) for one in sent(6, 1))
    (first,) = engine.run_packets("nat", [packet])[1]
    move = {"old": old, "new": new, "keep_old": True}
    engine.module_command("nat", "replace_mappings", {"external_addresses": [move]})
    (second,) = engine.run_packets("nat", [packet])[1]
    pair, moved = ends(parse(first)), ends(parse(second))
    assert pair is not None and moved is not None
    assert moved[0] == Endpoint(ip_address(new).packed, pair[0].port)
    back = [one for name in (old, new) for one in answers(6, name, 6, pair[0].port)]
    assert len(engine.run_packets("nat", back, 1)[0]) == 2
    engine.module_command("nat", "replace_mappings", {"forget_addresses": [old]})
    assert len(engine.run_packets("nat", back, 1)[0]) == 1

# SPDX-License-Identifier: BSD-3-Clause
"""What a provider's NAT sends back to encrypted sources, and changes of keys behind its back."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from embark_support import MAC_ARGS, SECRET, V4, V6, Site, build, change, restored
from middlebox_support import Gateways
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6

from harness import EngineError, new_engine
from twins import embark_twin as twin
from twins.nat_twin import Endpoint, ends, parse, translate

S = 1_000_000_000
START = 1 << 61  # later than any clock, so that the packets' times count
NAT, NAT6, SERVER = "203.0.113.9", "2001:db8:5::9", "192.0.2.8"
POOL = ((NAT, True), (NAT6, True), (SERVER, False))
HOSTS = {4: (IP, V4, NAT), 6: (IPv6, V6, NAT6)}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site", pool=POOL)


def out(l4: Any, version: int = 4, **ip: Any) -> bytes:
    layer, ends_of, _ = HOSTS[version]
    return build(layer(**ends_of | ip), l4, SECRET)


def answer(l4: Any, version: int = 4, dst: str = "") -> bytes:
    """To the NAT's address; `l4` says which port."""
    layer, ends_of, nat = HOSTS[version]
    return build(layer(src=ends_of["dst"], dst=dst or nat), l4, SECRET)


def run(gateways: Gateways, module: str, frame: bytes, seconds: float = 0) -> list[bytes]:
    now = START + int(seconds * S)
    return gateways.engine.run_packets(module, [frame], 0, now).get(0, [])


def source_of(frame: bytes) -> Endpoint:
    pair = ends(parse(frame))
    assert pair is not None
    return pair[0]


def returned(
    gateways: Gateways, packet: bytes, reply: bytes, seconds: float = 0, of: bytes = b""
) -> list[bytes]:
    """Sends a packet, and `seconds` later a reply as a NAT rewrites it: to that packet's source."""
    if packet:
        (of,) = run(gateways, "encrypt", packet)
    (encrypted,) = run(gateways, "encrypt", reply, seconds)
    return run(gateways, "decrypt", translate(encrypted, True, source_of(of)), seconds)


EXCHANGES = [
    (4, TCP(sport=5555, dport=80), TCP(sport=80, dport=40000), 5555),
    (4, UDP(sport=1234, dport=53), UDP(sport=53, dport=40000), 1234),
    (4, ICMP(id=77), ICMP(type=0, id=40000), 77),
    (6, TCP(sport=5555, dport=80), TCP(sport=80, dport=40000), 5555),
    (6, UDP(sport=1234, dport=53), UDP(sport=53, dport=40000), 1234),
    (6, ICMPv6EchoRequest(id=77), ICMPv6EchoReply(id=40000), 77),
]


@pytest.mark.parametrize(("version", "sent", "reply", "port"), EXCHANGES)
def test_an_answer_comes_back(site: Site, version: int, sent: Any, reply: Any, port: int) -> None:
    gateways = Gateways(site, {"name": "table"})
    packet = answer(reply, version)
    wanted = translate(
        packet, True, Endpoint.of({"address": HOSTS[version][1]["src"], "port": port})
    )
    assert returned(gateways, out(sent, version), packet) == [restored(wanted)]
    told = gateways.engine.module_command("encrypt", "get_returns", {})
    assert told["max_flows"] == 65536


def test_without_checksum_it_stays_so(site: Site) -> None:
    gateways = Gateways(site, {"name": "table"})
    (back,) = returned(gateways, out(UDP(sport=9)), answer(UDP(sport=53, dport=7, chksum=0)))
    assert back[40:42] == bytes(2)
    assert back[30:34] == parse(out(UDP())).addresses[0]


def test_who_is_unknown_is_outside_the_pool(site: Site, tmp_path: Path) -> None:
    """One that was never sent, of another protocol or port, too late; and no NAT's packet."""
    gateways = Gateways(site, {"name": "table", "timeout_ms": 130_000})
    (stranger,) = Gateways(site).engine.run_packets("encrypt", [out(UDP(sport=9))])[0]
    reply = answer(UDP(sport=53, dport=7))
    assert returned(gateways, b"", reply, of=stranger) == []
    (sent,) = run(gateways, "encrypt", out(UDP(sport=9)))
    assert returned(gateways, b"", answer(TCP(sport=53, dport=7)), of=sent) == []
    end = source_of(sent)
    for at in range(4, 16):  # any byte behind the prefix
        other = replace(end, address=change(end.address, at, bytes([end.address[at] ^ 1])))
        (encrypted,) = run(gateways, "encrypt", reply)
        assert run(gateways, "decrypt", translate(encrypted, True, other)) == []
    assert returned(gateways, b"", reply, 129, of=sent) != []
    assert returned(gateways, b"", reply, 135, of=sent) == []
    # A provider cannot send packets to others than those that they were for.
    for address in (SERVER, "198.51.100.99"):
        assert returned(gateways, b"", answer(UDP(dport=7), dst=address), of=sent) == []
    assert gateways.drops("decrypt") == {"outside pool": 17}


def test_a_flow_that_sends_is_kept(site: Site) -> None:
    gateways = Gateways(site, {"name": "table", "timeout_ms": 130_000})
    packet, reply = out(UDP(sport=9)), answer(UDP(sport=53, dport=7))
    (sent,) = run(gateways, "encrypt", packet)
    for seconds in (60, 120, 180, 240):
        run(gateways, "encrypt", packet, seconds)
    assert returned(gateways, b"", reply, 360, of=sent) != []


def test_only_some_sources(site: Site) -> None:
    gateways = Gateways(site, {"name": "table", "sources": ["10.1.0.0/16", "2001:db8::/64"]})
    inside, other = out(UDP(sport=9)), out(UDP(sport=9), src="10.2.2.3")
    reply = answer(UDP(sport=53, dport=7))
    assert returned(gateways, inside, reply) != []
    assert returned(gateways, other, reply) == []
    assert returned(gateways, out(UDP(sport=9), 6), answer(UDP(dport=7), 6)) != []


@pytest.mark.parametrize("clients", [False, True])
def test_clients_of_the_pool(site: Site, tmp_path: Path, clients: bool) -> None:
    """Sources of TCP and UDP to it are told anew by other keys, wherever they are, if asked for."""
    gateways = Gateways(site, {"name": "table", "sources": ["10.1.0.0/16"], "clients": clients})
    new = replace(site, folder=tmp_path / "new", site_key=bytes(range(32)), epoch=9, made={})
    packets = [
        out(l4, version, dst=HOSTS[version][2])
        for version in (4, 6)
        for l4 in (TCP(sport=4444, dport=80), UDP(sport=5555, dport=53))
    ]
    query = out(ICMP(id=7), dst=NAT)  # whose identifier is the NAT's
    from_pool = build(IP(src=NAT, dst=SERVER), UDP(sport=9), SECRET)
    unasked = out(UDP(sport=9), src="10.2.2.3")
    sources = []
    for packet in (*packets, query, from_pool, unasked):
        encrypted = parse(gateways.encrypt(packet))
        pair = ends(encrypted)
        assert pair is not None
        sources.append({"protocol": encrypted.protocol, "source": pair[0].args})
    told = gateways.engine.module_command(
        "encrypt", "reencrypt", {"sources": sources, "plan": new.plan}
    )
    wanted = [source_of(twin.encrypt(one, new.gateway, bytes(12))) for one in packets]
    assert [Endpoint.of(one["new"]) for one in told.get("mappings", [])] == wanted * clients
    assert told["unknown"] == (3 if clients else 7)


def test_a_full_table_keeps_who_sends(site: Site) -> None:
    """More flows than there is room for: those that were quiet for longest go, and are counted."""
    gateways = Gateways(site, {"name": "table", "max_flows": 64})
    reply = answer(UDP(sport=53, dport=7))
    last = b""
    for number in range(2000):
        (last,) = run(gateways, "encrypt", out(UDP(sport=1000 + number)), number / 10)
    assert returned(gateways, b"", reply, 200, of=last) != []
    told = gateways.engine.module_command("encrypt", "get_returns", {})
    assert (told["max_flows"], told["displaced"] > 1000) == (64, True)


def test_new_keys_behind_a_nat(site: Site, tmp_path: Path) -> None:
    """What section 4.3.2 asks for: mappings shipped, encrypted anew, put back; flows go on."""
    gateways = Gateways(site, {"name": "table"})
    engine = gateways.engine
    encrypted_nat = gateways.pool()[NAT]
    new = replace(site, folder=tmp_path / "new", site_key=bytes(range(32)), epoch=9, made={})
    args = {"ext_addrs": [{"ext_addr": encrypted_nat}], "encrypted_ports": True}
    engine.create_module("nat", "NAT", args)
    packets = [out(UDP(sport=port, dport=53)) for port in (1111, 2222)]
    packets.append(out(TCP(sport=3333, dport=80)))

    def through(frame: bytes, gate: int) -> bytes:
        (one,) = engine.run_packets("encrypt", [frame])[0]
        (one,) = engine.run_packets("nat", [one], gate)[1 - gate]
        (one,) = engine.run_packets("decrypt", [one])[0]
        return one

    before = [through(packet, 0) for packet in packets]
    answers = []
    for packet, translated in zip(packets, before, strict=True):
        pair = ends(parse(packet))
        assert pair is not None
        layers = TCP if parse(packet).protocol == 6 else UDP
        l4 = layers(sport=pair[1].port, dport=source_of(translated).port)
        answers.append(answer(l4))
    back = [through(packet, 1) for packet in answers]
    assert [parse(one).addresses[1] for one in back] == [parse(p).addresses[0] for p in packets]

    told = engine.module_command("nat", "get_mappings", {})["mappings"]
    sources = [{"protocol": one["protocol"], "source": one["internal"]} for one in told]
    stranger = {"protocol": 17, "source": {"address": "2001:db8::1", "port": 1}}
    plan = new.plan
    reencrypted = engine.module_command(
        "encrypt", "reencrypt", {"sources": [*sources, stranger], "plan": plan}
    )
    assert reencrypted["unknown"] == 1
    # The same as the twin's, and as the packets of the new epoch have.
    wanted = {source_of(twin.encrypt(packet, new.gateway, bytes(12))) for packet in packets}
    assert {Endpoint.of(one["new"]) for one in reencrypted["mappings"]} == wanted
    engine.module_command("nat", "replace_mappings", {"mappings": reencrypted["mappings"]})

    # An answer in old keys meets new mappings before any packet in new keys was sent.
    engine.module_command(
        "decrypt", "update", {"keys": [site.key, new.key], "pool": site.pool_args}
    )
    assert [through(packet, 1) for packet in answers] == back
    assert gateways.drops("decrypt") == {}
    # Then the pool's address changes, too, and all goes on in new keys as it did before.
    told = engine.module_command("encrypt", "get_pool", {"plan": plan})["addresses"]
    assert gateways.pool()[NAT] == encrypted_nat
    engine.module_command("encrypt", "update", plan)
    assert {one["address"]: one["encrypted"] for one in told} == gateways.pool()
    moved = [{"old": encrypted_nat, "new": gateways.pool()[NAT]}]
    engine.module_command("nat", "replace_mappings", {"external_addresses": moved})
    assert [through(packet, 1) for packet in answers] == back
    assert [through(packet, 0) for packet in packets] == before
    assert len(engine.module_command("nat", "get_mappings", {})["mappings"]) == len(packets)
    assert gateways.drops("decrypt") == {}


def test_new_rules_behind_a_nat(site: Site, tmp_path: Path) -> None:
    """Other prefixes for the address and the port of a source, under the same key: what the NAT
    sends to the old encryption or to the new one comes back, whatever port it has there."""
    gateways = Gateways(site, {"name": "table"})
    packet, reply = out(UDP(sport=5500)), answer(UDP(sport=53, dport=7))
    changed = replace(
        site,
        folder=tmp_path / "changed",
        ranges=([(0, 1), (2, 3)], *[[(0, 1)]] * 3),
        map_seed=bytes(range(30, 46)),
        made={},
    )
    old = source_of(gateways.encrypt(packet))

    def reencrypted(end: Endpoint, **plan: Any) -> Endpoint:
        args = {"sources": [{"protocol": 17, "source": end.args}], **plan}
        (one,) = gateways.engine.module_command("encrypt", "reencrypt", args)["mappings"]
        return Endpoint.of(one["new"])

    def back(end: Endpoint) -> bytes:
        return gateways.decrypt(translate(gateways.encrypt(reply), True, end))

    wanted = back(old)
    new = reencrypted(old, plan=changed.plan)
    assert new.address[:2] != old.address[:2] and new.address[4:] == old.address[4:]
    assert new.port != old.port
    gateways.engine.module_command("encrypt", "update", changed.plan)
    assert source_of(gateways.encrypt(packet)) == new == reencrypted(new) == reencrypted(old)
    for end in (old, new, replace(new, port=new.port ^ 1)):
        assert back(end) == wanted
    assert gateways.drops("decrypt") == {}


def test_tables_are_shared_by_name(site: Site) -> None:
    """By modules of one engine that agree; another engine's are others."""
    gateways = Gateways(site, {"name": "table", "max_flows": 100})
    [(mclass, args)] = site.encrypts()
    gateways.engine.create_module("second", mclass, args | {"returns": {"name": "table"}})
    (sent,) = gateways.engine.run_packets("second", [out(UDP(sport=9))])[0]
    (encrypted,) = gateways.engine.run_packets("encrypt", [answer(UDP(dport=7))])[0]
    rewritten = translate(encrypted, True, source_of(sent))
    assert gateways.engine.run_packets("decrypt", [rewritten])[0]
    other = {"returns": {"name": "table", "max_flows": 101}}
    with pytest.raises(EngineError) as error:
        gateways.engine.create_module("third", mclass, args | other)
    assert error.value.code == errno.EEXIST
    assert "max_flows 100" in str(error.value)
    elsewhere = Gateways(site, {"name": "table", "max_flows": 7})
    (encrypted,) = elsewhere.engine.run_packets("encrypt", [answer(UDP(dport=7))])[0]
    rewritten = translate(encrypted, True, source_of(sent))
    assert elsewhere.engine.run_packets("decrypt", [rewritten]) == {}


@pytest.mark.parametrize(
    ("returns", "message"),
    [
        ({}, "name is missing"),
        ({"name": "t", "max_flows": 1 << 23}, "max_flows"),
        ({"name": "t", "timeout_ms": 1 << 40}, "timeout_ms"),
        ({"name": "t", "sources": ["10.0.0.0/33"]}, "sources[0]"),
        ({"name": "t", "sources": ["10.0.0.0/8"] * 65}, "at most 64"),
    ],
)
def test_bad_arguments(site: Site, returns: dict[str, Any], message: str) -> None:
    [(mclass, args)] = site.encrypts()
    with pytest.raises(EngineError) as error:
        new_engine().create_module("m", mclass, args | MAC_ARGS | {"returns": returns})
    assert message in str(error.value)


def test_reencrypt_needs_a_table(site: Site, tmp_path: Path) -> None:
    """But for telling whether keys and maps are good."""
    engine = Gateways(site).engine
    source = {"protocol": 17, "source": {"address": "2001:db8::1", "port": 1}}
    with pytest.raises(EngineError) as error:
        engine.module_command("encrypt", "reencrypt", {"sources": [source]})
    assert error.value.code == errno.ENOENT
    assert engine.module_command("encrypt", "get_returns", {}) == {}
    assert engine.module_command("encrypt", "reencrypt", {"plan": site.plan}) == {}
    missing = site.plan | {"maps_file": str(tmp_path / "none")}
    for command in ("reencrypt", "get_pool"):
        with pytest.raises(EngineError, match=f"{command}: plan.maps_file"):
            engine.module_command("encrypt", command, {"plan": missing})

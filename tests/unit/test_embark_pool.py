# SPDX-License-Identifier: BSD-3-Clause
"""What a provider does to encrypted packets: reads them, and rewrites addresses of the pool."""

from __future__ import annotations

import shutil
import subprocess
from ipaddress import ip_address
from pathlib import Path

import pytest
from embark_support import FRAMES, MAC_ARGS, SECRET, V4, V6, Site, build, change, restored
from scapy.all import wrpcap
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from harness import new_engine
from twins import embark_open_twin as open_twin
from twins import embark_twin as twin

NAT, SERVER, NAT6 = "203.0.113.9", "192.0.2.8", "2001:db8:5::9"
POOL = ((NAT, True), (SERVER, False), (NAT6, True))
L4 = {"tcp": TCP(sport=5555, dport=80), "udp": UDP(sport=1234, dport=53)}
OUTER = {"src": 22, "dst": 38}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site", pool=POOL)


def pool_of(site: Site) -> dict[str, bytes]:
    """What get_pool says."""
    engine = new_engine()
    engine.create_module("m", *site.encrypts()[0])
    answer = engine.module_command("m", "get_pool", {})
    assert [(one["address"], one["nat"]) for one in answer["addresses"]] == list(POOL)
    return {one["address"]: ip_address(one["encrypted"]).packed for one in answer["addresses"]}


def body_of(encrypted: bytes) -> int:
    return 54 + (encrypted[55] + 1) * 8


def rewrite(encrypted: bytes, at: int, value: bytes) -> bytes:
    """As a NAT does: the bytes, and by RFC 1624 the checksum behind the option."""
    body = body_of(encrypted)
    where = {6: 16, 17: 6, 1: 2, 58: 2}[encrypted[54]] + body
    old = encrypted[at : at + len(value)]
    changed = change(encrypted, at, value)
    if encrypted[54] == 1 and at < body:
        return changed  # its checksum is of no address
    total = 0xFFFF - twin.u16(encrypted, where) + twin.words(value)
    total += sum(0xFFFF - twin.u16(old, i) for i in range(0, len(old), 2))
    new = twin.checksum(total) or (0xFFFF if encrypted[54] == 17 else 0)
    return change(changed, where, new.to_bytes(2, "big"))


def fixed(packet: Packet) -> bytes:
    """Built anew, so that checksums fit what was changed."""
    return bytes(Ether(bytes(Ether(src=MAC_ARGS["src_mac"], dst=MAC_ARGS["dst_mac"]) / packet)))


@pytest.mark.parametrize("name", L4)
@pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])
def test_a_nat(site: Site, name: str, ipv6: bool) -> None:
    """Source address and port come from the pool; checksums fit, or do not, as before."""
    nat = NAT6 if ipv6 else NAT
    ip = IPv6(**V6) if ipv6 else IP(**V4)
    packet = build(ip, L4[name], SECRET)
    (encrypted,) = site.encrypt([packet])
    rewritten = rewrite(encrypted, OUTER["src"], pool_of(site)[nat])
    rewritten = rewrite(rewritten, body_of(rewritten), (40000).to_bytes(2, "big"))
    l4 = L4[name].copy()
    l4.sport = 40000
    other = IPv6(src=nat, dst=V6["dst"]) if ipv6 else IP(src=nat, dst=V4["dst"])
    assert site.decrypt([rewritten]) == ([fixed(other / l4 / SECRET)], {})
    by_twin = open_twin.decrypt(rewritten, site.ring, site.gateway.macs, site.gateway.pool)
    assert by_twin[0] == fixed(other / l4 / SECRET)

    l4_at = 54 if ipv6 else 34
    where = l4_at + (16 if name == "tcp" else 6)
    wrong = change(packet, where, (twin.u16(packet, where) ^ 0x0101).to_bytes(2, "big"))
    (encrypted,) = site.encrypt([wrong])
    (out,), _ = site.decrypt([rewrite(encrypted, OUTER["src"], pool_of(site)[nat])])
    off_by = twin.u16(wrong, where) - twin.u16(packet, where)
    right = build(IPv6(src=nat, dst=V6["dst"]) if ipv6 else IP(src=nat, dst=V4["dst"]), l4, SECRET)
    assert twin.u16(out, where) != twin.u16(right, where)
    assert off_by != 0


def test_udp_without_checksum_behind_a_nat(site: Site) -> None:
    packet = FRAMES["udp checksum 0"]
    (encrypted,) = site.encrypt([packet])
    (out,), _ = site.decrypt([rewrite(encrypted, OUTER["src"], pool_of(site)[NAT])])
    assert out[40:42] == bytes(2)
    assert out[26:30] == ip_address(NAT).packed


def test_a_load_balancer(site: Site) -> None:
    """An address without port: the destination port stays the packet's own."""
    (encrypted,) = site.encrypt([build(IP(**V4), L4["tcp"], SECRET)])
    rewritten = rewrite(encrypted, OUTER["dst"], pool_of(site)[SERVER])
    wanted = fixed(IP(src=V4["src"], dst=SERVER) / L4["tcp"] / SECRET)
    assert site.decrypt([rewritten]) == ([wanted], {})


def test_a_query_behind_a_nat(site: Site) -> None:
    """Its identifier is what a NAT rewrites for a port."""
    (encrypted,) = site.encrypt([build(IP(**V4), ICMP(id=77, seq=2), SECRET)])
    rewritten = rewrite(encrypted, OUTER["src"], pool_of(site)[NAT])
    rewritten = rewrite(rewritten, body_of(rewritten) + 4, (999).to_bytes(2, "big"))
    wanted = fixed(IP(src=NAT, dst=V4["dst"]) / ICMP(id=999, seq=2) / SECRET)
    assert site.decrypt([rewritten]) == ([wanted], {})
    (encrypted,) = site.encrypt([build(IPv6(**V6), ICMPv6EchoRequest(id=77, data=SECRET))])
    rewritten = rewrite(encrypted, OUTER["src"], pool_of(site)[NAT6])
    rewritten = rewrite(rewritten, body_of(rewritten) + 4, (999).to_bytes(2, "big"))
    wanted = fixed(IPv6(src=NAT6, dst=V6["dst"]) / ICMPv6EchoRequest(id=999, data=SECRET))
    assert site.decrypt([rewritten]) == ([wanted], {})


def test_pool_addresses_are_the_same_in_all_flows(site: Site) -> None:
    """And so are a NAT's ports; no other address has two encryptions that are the same."""
    pool = pool_of(site)
    packets = [
        build(IP(src=V4["src"], dst=address), UDP(sport=sport, dport=4000))
        for address in (NAT, SERVER)
        for sport in range(20)
    ]
    encrypted = site.encrypt(packets)
    for packet, made in zip(packets, encrypted, strict=True):
        address = str(ip_address(packet[30:34]))
        assert made[38:54] == pool[address]
        body = body_of(made)
        if address == NAT:
            assert made[body + 2 : body + 4] == (4000).to_bytes(2, "big")
    assert len({made[22:38] for made in encrypted}) == len(packets)
    sources = site.encrypt([build(IP(src=NAT, dst=V4["dst"]), UDP(sport=i)) for i in range(9)])
    assert {made[22:38] for made in sources} == {pool[NAT]}
    assert {twin.u16(made, body_of(made)) for made in sources} == {*range(9)}


def test_all_else_is_outside_the_pool(site: Site, tmp_path: Path) -> None:
    pool = pool_of(site)
    (encrypted,) = site.encrypt([build(IP(**V4), L4["udp"], SECRET)])
    (another,) = site.encrypt([build(IP(src="10.9.9.9", dst="10.8.8.8"), L4["udp"])])
    beyond = change(pool[NAT], 15, bytes([pool[NAT][15] ^ 0x40]))
    unmarked = [change(pool[NAT], at, bytes([pool[NAT][at] ^ 1])) for at in range(4, 12)]
    port = body_of(encrypted)
    for at, value in (
        (OUTER["src"], bytes(15) + b"\1"),
        (OUTER["dst"], another[38:54]),
        (OUTER["src"], another[22:38]),
        (OUTER["src"], beyond),
        *((OUTER["src"], address) for address in unmarked),
        (OUTER["src"], pool[NAT6]),  # of the other family
        (port, b"\x12\x34"),  # a port alone
        (port + 2, b"\x12\x34"),
    ):
        assert site.drops(rewrite(encrypted, at, value)) == "outside pool"
    other = Site(tmp_path / "other", site_key=bytes(32), pool=POOL)
    foreign = pool_of(other)[NAT]
    assert site.drops(rewrite(encrypted, OUTER["src"], foreign)) == "outside pool"


@pytest.mark.parametrize("sealed", [False, True])
def test_nothing_of_a_packet_is_in_clear(site: Site, sealed: bool) -> None:
    packets = [*FRAMES.values()]
    for packet, encrypted in zip(packets, site.encrypt(packets, sealed), strict=True):
        parts = twin.parse(packet)
        secrets = [*parts.addresses]
        secrets += [parts.tags] if parts.tags else []
        secrets += [parts.extensions] if len(parts.extensions) > 8 else []
        if sealed or parts.kind in ("error", "opaque"):
            payload = parts.body[parts.clear :]
            secrets += [payload[at : at + 8] for at in range(max(len(payload) - 7, 0))]
        assert [secret for secret in secrets if secret in encrypted[14:]] == []
        if parts.kind in ("tcp", "udp"):
            assert encrypted[body_of(encrypted) :][:4] != parts.body[:4]


@pytest.mark.parametrize("sealed", [False, True])
def test_tshark_finds_valid_packets(site: Site, tmp_path: Path, sealed: bool) -> None:
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed (Debian: tshark)")
    names = [
        "tcp", "bare ack", "udp", "echo", "options", "vlan", "tcp6", "udp6", "echo6", "hop by hop",
        "atomic", "udp checksum 0", "udp checksum", "tcp checksum", "padded", "unreachable",
    ]  # fmt: skip
    encrypted = site.encrypt([FRAMES[name] for name in names], sealed)
    wrpcap(str(tmp_path / "t.pcap"), [Ether(packet) for packet in encrypted])
    fields = ["tcp.checksum.status", "udp.checksum.status", "icmp.checksum.status",
              "icmpv6.checksum.status", "frame.protocols"]  # fmt: skip
    command = ["tshark", "-r", str(tmp_path / "t.pcap"), "-T", "fields", "-E", "separator=;"]
    command += ["-o", "udp.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE"]
    for name in fields:
        command += ["-e", name]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    rows = [line.split(";") for line in result.stdout.splitlines()]
    for name, row in zip(names, rows, strict=True):
        kind = {6: "tcp", 17: "udp", 1: "icmp", 58: "icmpv6"}[twin.parse(FRAMES[name]).protocol]
        assert row[4].startswith(f"eth:ethertype:ipv6:ipv6.dstopts:{kind}"), (name, row)
        assert [status.split(",")[0] for status in row[:4] if status] == ["1"], (name, row)


def test_every_packet_is_restored_with_a_pool(site: Site) -> None:
    packets = [*FRAMES.values()]
    out, drops = site.decrypt(site.encrypt(packets))
    assert (out, drops) == ([restored(packet) for packet in packets], {})

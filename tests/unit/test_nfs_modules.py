# SPDX-License-Identifier: BSD-3-Clause
"""The sample network functions: IDS, TrafficNormalizer, WebCache and NetworkMonitor."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from harness import EngineError, run

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")


def web(payload: bytes, **ports: int) -> bytes:
    return bytes(ETHER / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(**ports) / Raw(payload))


# --- IDS ---


def alerts(signatures: list[Any], payloads: list[bytes]) -> tuple[dict[int, int], dict[Any, int]]:
    packets = [web(payload) for payload in payloads]
    result = run("IDS", {"signatures": signatures}, packets, after=[("get_alerts", {})])
    counts = {gate: len(out) for gate, out in result.out.items() if out}
    found = {a["signature"]: a["packets"] for a in result.command_results[0].get("alerts", [])}
    return counts, found


def test_ids_random_against_find() -> None:
    rng = random.Random(1)
    for _ in range(60):
        words = {"".join(rng.choices("abc", k=rng.randrange(1, 6))) for _ in range(12)}
        payloads = ["".join(rng.choices("abcd", k=rng.randrange(1, 30))) for _ in range(50)]
        expected = {w: sum(w in p for p in payloads) for w in words}
        unsafe = sum(any(w in p for w in words) for p in payloads)
        counts, found = alerts(sorted(words), [p.encode() for p in payloads])
        assert found == {w: n for w, n in expected.items() if n}
        assert counts.get(1, 0) == unsafe
        assert counts.get(0, 0) == len(payloads) - unsafe


def test_ids_counts_a_packet_once_per_signature() -> None:
    assert alerts(["a", "aa", "aaa"], [b"aaaaaa", b"xa"]) == ({1: 2}, {"a": 2, "aa": 1, "aaa": 1})


def test_ids_defaults_are_case_sensitive() -> None:
    counts, found = alerts([], [b"GET /etc/passwd", b"GET /ETC/PASSWD", b"${jndi:ldap://x}"])
    assert counts == {0: 1, 1: 2}
    assert found == {"/etc/passwd": 1, "${jndi:": 1}


def test_ids_binary_signatures_and_duplicates() -> None:
    counts, found = alerts([b"\x00\xff", b"\x00\xff"], [b"x\x00\xffy", b"\x00\xfe"])
    assert counts == {0: 1, 1: 1}
    assert found == {b"\x00\xff": 1}


def test_ids_looks_at_payloads_only() -> None:
    frame = web(b"harmless", sport=0x4142)
    padded = bytes(ETHER / ARP()) + b"AB"
    result = run("IDS", {"signatures": ["AB"]}, [frame, padded, b"AB"])
    assert result.out == {0: [frame, padded, b"AB"]}


def test_ids_scans_later_fragments_and_udp() -> None:
    ip = IP(src="10.0.0.1", dst="10.0.0.2")
    packets = [
        bytes(ETHER / IP(frag=2, proto=6) / Raw(b"evil bytes")),
        bytes(ETHER / ip / UDP() / Raw(b"evil")),
        bytes(ETHER / Dot1Q(vlan=1) / IPv6() / UDP() / Raw(b"evil")),
    ]
    assert run("IDS", {"signatures": ["evil"]}, packets).out == {1: packets}


@pytest.mark.parametrize("signatures", [[""], ["x" * 16385], [str(n) for n in range(4097)]])
def test_ids_bad_arguments(signatures: list[str]) -> None:
    with pytest.raises(EngineError) as error:
        run("IDS", {"signatures": signatures}, [])
    assert error.value.code == 22


# --- TrafficNormalizer ---


def normalize(packets: list[bytes], repair: bool = False) -> tuple[list[bytes], dict[str, int]]:
    result = run("TrafficNormalizer", {"repair": repair}, packets)
    return result.out.get(0, []), result.drops


def dropped(packet: bytes | Packet, repair: bool = True) -> dict[str, int]:
    out, drops = normalize([bytes(packet)], repair)
    assert not out
    return drops


def good() -> list[bytes]:
    ip = IP(src="10.0.0.1", dst="10.0.0.2")
    ip6 = IPv6(src="2001:db8::1", dst="2001:db8::2")
    return [
        bytes(ETHER / layers)
        for layers in (
            ip / TCP(flags="S") / Raw(b"x"),
            ip / UDP() / Raw(b"odd"),
            ip / ICMP() / Raw(b"ping"),
            ip6 / TCP(flags="A"),
            Dot1Q(vlan=3) / ip6 / UDP() / Raw(b"y"),
            ip / TCP(flags="FA", options=[("NOP", None)] * 4),
            ip / Raw(b"raw"),
            ARP(),
        )
    ]


@pytest.mark.parametrize("repair", [False, True])
def test_normalizer_leaves_good_packets_alone(repair: bool) -> None:
    assert normalize(good(), repair) == (good(), {})


def test_normalizer_drops_or_repairs_checksums() -> None:
    for number, frame in enumerate(good()[:5]):
        is_v6 = number > 2
        spoiled = bytearray(frame)
        spoiled[-1 if number != 3 else 14 + 40 + 4] ^= 1
        reason = "bad L4 checksum"
        assert dropped(bytes(spoiled), repair=False) == {reason: 1}
        (repaired,), drops = normalize([bytes(spoiled)], repair=True)
        assert not drops
        assert normalize([repaired]) == ([repaired], {})
        assert len(repaired) == len(frame)
        if not is_v6:
            spoiled = bytearray(frame)
            spoiled[24] ^= 0x5A
            assert dropped(bytes(spoiled), repair=False) == {"bad IP checksum": 1}
            assert normalize([bytes(spoiled)], repair=True) == ([frame], {})


def test_normalizer_trims_padding_only_when_repairing() -> None:
    padded = [frame + b"\0" * 7 for frame in good()]
    assert normalize(padded) == (padded, {})
    out, drops = normalize(padded, repair=True)
    assert out == [*good()[:-1], padded[-1]]
    assert not drops


def test_normalizer_udp_without_checksum() -> None:
    v4 = bytes(ETHER / IP() / UDP(chksum=0) / Raw(b"x"))
    assert normalize([v4], repair=True) == ([v4], {})
    v6 = ETHER / IPv6() / UDP(chksum=0) / Raw(b"x")
    assert dropped(v6, repair=False) == {"bad L4 checksum": 1}


def test_normalizer_drops_malformed_packets() -> None:
    ip = IP(src="10.0.0.1", dst="10.0.0.2")
    whole = bytes(ETHER / ip / TCP(flags="S"))
    for size in range(1, len(whole)):
        assert sum(dropped(whole[:size]).values()) == 1
    assert dropped(whole[:13]) == {"truncated header": 1}
    assert dropped(whole[:30]) == {"truncated header": 1}
    assert dropped(whole[:40]) == {"bad length": 1}
    assert dropped(ETHER / IP(ihl=4) / TCP()) == {"bad IP header": 1}
    assert dropped(ETHER / IP(version=6) / TCP()) == {"bad IP header": 1}
    assert dropped(ETHER / IP(len=19) / TCP()) == {"bad length": 1}
    assert dropped(ETHER / IP(len=200) / TCP()) == {"bad length": 1}
    assert dropped(ETHER / IPv6(plen=99) / UDP()) == {"bad length": 1}
    assert dropped(ETHER / ip / TCP(dataofs=4, flags="S")) == {"bad length": 1}
    assert dropped(ETHER / ip / TCP(dataofs=9, flags="S")) == {"bad length": 1}
    assert dropped(ETHER / ip / UDP(len=7)) == {"bad length": 1}
    assert dropped(ETHER / ip / UDP(len=9)) == {"bad length": 1}
    assert dropped(ETHER / IP(proto=6) / Raw(b"short")) == {"truncated header": 1}


@pytest.mark.parametrize("flags", ["", "P", "U", "SF", "SR", "FR", "F", "FPU", "SFA", "FRA"])
def test_normalizer_impossible_flags(flags: str) -> None:
    assert dropped(ETHER / IP() / TCP(flags=flags)) == {"bad TCP flags": 1}


@pytest.mark.parametrize("flags", ["S", "SA", "A", "PA", "FA", "R", "RA", "FPUA", "SEC"])
def test_normalizer_possible_flags(flags: str) -> None:
    frame = bytes(ETHER / IP() / TCP(flags=flags))
    assert normalize([frame]) == ([frame], {})


def piece(begin: int, end: int, more: bool = True, ident: int = 1, v6: bool = False) -> bytes:
    """Bytes begin..end of a datagram, as a fragment."""
    data = Raw(bytes(byte % 251 for byte in range(begin, end)))
    if v6:
        header = IPv6ExtHdrFragment(offset=begin // 8, m=int(more), id=ident, nh=253)
        return bytes(ETHER / IPv6(src="2001:db8::1", dst="2001:db8::2") / header / data)
    flags = "MF" if more else 0
    ip = IP(src="10.0.0.1", dst="10.0.0.2", id=ident, frag=begin // 8, flags=flags, proto=253)
    return bytes(ETHER / ip / data)


@pytest.mark.parametrize("v6", [False, True])
def test_normalizer_fragments(v6: bool) -> None:
    good_pieces = [
        piece(0, 16, v6=v6),
        piece(32, 40, v6=v6),
        piece(16, 32, v6=v6),
        piece(40, 43, more=False, v6=v6),
    ]
    assert normalize(good_pieces) == (good_pieces, {})
    # A complete datagram is forgotten: its identification may come again.
    assert normalize(good_pieces * 2) == (good_pieces * 2, {})
    for bad in (piece(8, 24, v6=v6), piece(0, 16, v6=v6), piece(8, 13, more=False, v6=v6)):
        pieces = [piece(0, 16, v6=v6), bad]
        out, drops = normalize(pieces)
        assert out == pieces[:1]
        assert sum(drops.values()) == 1
        assert set(drops) <= {"overlapping fragment", "bad length"}
    other = [piece(0, 16, v6=v6), piece(8, 24, ident=2, v6=v6)]
    assert normalize(other) == (other, {})


def test_normalizer_bad_fragments() -> None:
    assert dropped(piece(0, 15)) == {"bad length": 1}
    assert dropped(piece(8, 8)) == {"bad length": 1}
    assert dropped(piece(65528, 65544, more=False)) == {"bad length": 1}
    pieces = [piece(16, 24, more=False), piece(24, 32), piece(8, 16, more=False)]
    assert normalize(pieces) == (pieces[:1], {"bad length": 2})


def test_normalizer_random_fragments_never_overlap() -> None:
    rng = random.Random(5)
    for _ in range(40):
        pieces = []
        for _ in range(20):
            begin = 8 * rng.randrange(20)
            pieces.append((begin, begin + 8 * rng.randrange(1, 4)))
        out, drops = normalize([piece(begin, end) for begin, end in pieces])
        kept: list[tuple[int, int]] = []
        for begin, end in pieces:
            if all(end <= b or begin >= e for b, e in kept):
                kept.append((begin, end))
        refused = drops.pop("fragment table full", 0)
        assert refused or out == [piece(begin, end) for begin, end in kept]
        assert set(drops) <= {"overlapping fragment"}
        covered = Counter(
            byte
            for frame in out
            for byte in range(
                Ether(frame)[IP].frag * 8, Ether(frame)[IP].frag * 8 + Ether(frame)[IP].len - 20
            )
        )
        assert set(covered.values()) == {1}


def test_normalizer_fragment_table_is_bounded() -> None:
    packets = [piece(8, 16, ident=number) for number in range(3000)]
    out, drops = normalize(packets)
    assert len(out) <= 1024
    assert drops == {"fragment table full": 3000 - len(out)}
    gaps = [piece(begin, begin + 8) for begin in range(0, 160, 16)]
    assert normalize(gaps) == (gaps[:8], {"fragment table full": 2})


# --- WebCache ---


def get(path: str, host: str | None = "a.example", end: str = "\r\n\r\n") -> bytes:
    line = f"GET {path} HTTP/1.1\r\nAccept: */*"
    return web((line + (f"\r\nHost: {host}" if host is not None else "") + end).encode())


def cache_stats(packets: list[bytes], entries: int = 0) -> dict[str, int]:
    result = run("WebCache", {"entries": entries}, packets, after=[("get_stats", {})])
    assert result.out == {0: packets}
    return dict(result.command_results[0])


def test_web_cache_counts() -> None:
    packets = [get("/"), get("/"), get("/a"), get("/", "b.example"), get("/", "A.EXAMPLE")]
    assert cache_stats(packets) == {"requests": 5, "hits": 2, "keys": 3}


def test_web_cache_ignores_what_is_not_a_request() -> None:
    packets = [
        web(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n"),
        web(b"GET"),
        web(b"GET /unfinished"),
        web(b"GET \r\n\r\n"),
        web(b"GE"),
        bytes(ETHER / IP() / UDP() / Raw(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")),
        bytes(ETHER / ARP()),
    ]
    assert cache_stats(packets) == {"requests": 0, "hits": 0, "keys": 0}


def test_web_cache_without_host() -> None:
    cut = get("/", None, end="\r\n")
    whole = get("/", None)
    assert cache_stats([cut, cut]) == {"requests": 2, "hits": 0, "keys": 0}
    assert cache_stats([whole, whole]) == {"requests": 2, "hits": 1, "keys": 1}


def test_web_cache_is_bounded() -> None:
    stats = cache_stats([get(f"/{number}") for number in range(500)], entries=16)
    assert stats == {"requests": 500, "hits": 0, "keys": 16}


def test_web_cache_bad_entries() -> None:
    with pytest.raises(EngineError) as error:
        run("WebCache", {"entries": 1 << 25}, [])
    assert error.value.code == 22


# --- NetworkMonitor ---


def top(packets: list[bytes], n: int = 0, flows: int = 0) -> dict[str, Any]:
    result = run("NetworkMonitor", {"flows": flows}, packets, after=[("top", {"n": n})])
    assert result.out == {0: packets}
    return dict(result.command_results[0])


def test_network_monitor_counts_like_a_dict() -> None:
    rng = random.Random(3)
    packets = []
    counts: dict[tuple[Any, ...], list[int]] = {}
    for _ in range(600):
        source, sport = f"10.0.0.{rng.randrange(4)}", rng.randrange(1, 5)
        payload = Raw(bytes(rng.randrange(100)))
        frame = bytes(ETHER / IP(src=source, dst="10.9.9.9") / UDP(sport=sport, dport=53) / payload)
        packets.append(frame)
        count = counts.setdefault((source, "10.9.9.9", sport, 53, 17), [0, 0])
        count[0] += 1
        count[1] += len(frame)
    answer = top(packets, n=100)
    names = ("src", "dst", "sport", "dport", "proto")
    found = {tuple(f[k] for k in names): [f["packets"], f["bytes"]] for f in answer["flows"]}
    assert found == counts
    assert answer["total_flows"] == len(counts)
    sizes = [flow["bytes"] for flow in answer["flows"]]
    assert sizes == sorted(sizes, reverse=True)
    assert top(packets, n=3)["flows"] == answer["flows"][:3]
    assert len(top(packets)["flows"]) == 10


def test_network_monitor_kinds_of_flows() -> None:
    packets = [
        bytes(ETHER / ARP()),
        bytes(ETHER / IPv6(src="2001:db8::1", dst="::2") / TCP(sport=7, dport=8)),
        bytes(ETHER / Dot1Q(vlan=9) / IP(src="1.2.3.4", dst="5.6.7.8") / ICMP()),
    ]
    flows = {flow["src"]: flow for flow in top(packets)["flows"]}
    assert set(flows) == {"2001:db8::1", "1.2.3.4"}
    assert flows["2001:db8::1"]["dst"] == "::2"
    assert (flows["2001:db8::1"]["sport"], flows["2001:db8::1"]["dport"]) == (7, 8)
    assert (flows["1.2.3.4"]["sport"], flows["1.2.3.4"]["proto"]) == (0, 1)


def test_network_monitor_is_bounded() -> None:
    packets = [web(b"", sport=port) for port in range(1, 400)]
    answer = top(packets, n=1000, flows=100)
    assert answer["total_flows"] == len(answer["flows"]) == 100
    assert {flow["sport"] for flow in answer["flows"]} == set(range(1, 101))


def test_network_monitor_bad_flows() -> None:
    with pytest.raises(EngineError) as error:
        run("NetworkMonitor", {"flows": (1 << 22) + 1}, [])
    assert error.value.code == 22

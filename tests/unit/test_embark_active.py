# SPDX-License-Identifier: BSD-3-Clause
"""What a provider that deviates can do all the same, so that docs/embark-security.md stays true.

Embark promises to keep out those who only look; each test here is a limit, not a wish.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from embark_support import FRAMES, MAC_ARGS, MAPPED, V4, Site, build, change
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether

from embark_flows import Flow, flow_of
from harness import new_engine
from twins import embark_twin as twin

PAYLOAD = b"for somebody else, and longer"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


def option_end(encrypted: bytes) -> int:
    return 54 + (encrypted[55] + 1) * 8


def with_payload_of(header: bytes, other: bytes, l4_bytes: int) -> bytes:
    """A packet's headers around the seal and the payload of another one."""
    ours, theirs = option_end(header), option_end(other)
    payload = other[theirs + l4_bytes :]
    changed = header[: ours - 32] + other[theirs - 32 : theirs] + header[ours:][:l4_bytes] + payload
    changed = change(changed, 18, (len(changed) - 54).to_bytes(2, "big"))
    if header[54] == twin.UDP:
        changed = change(changed, ours + 4, (l4_bytes + len(payload)).to_bytes(2, "big"))
    return changed


@pytest.mark.parametrize("bound", [False, True])
def test_a_payload_in_another_packet(tmp_path: Path, bound: bool) -> None:
    """As a cache must be able to; then an accomplice to whom packets go can be sent any payload.

    Where seals are bound no payload opens behind another header, nor without saying that it is.
    """
    site = Site(tmp_path / "bound", bound=bound)
    accomplice, victim = site.encrypt(
        [
            build(IP(src="10.1.1.1", dst="198.51.100.66"), TCP(sport=5, dport=80), b"hello"),
            build(IP(src="10.2.2.2", dst="192.0.2.5"), TCP(sport=7, dport=80), PAYLOAD),
        ],
        sealed=True,
    )
    moved = with_payload_of(accomplice, victim, 20)
    if bound:
        assert site.drops(moved, opened=True) == "bad tag"
        unbound = bytes([moved[58] & ~twin.BOUND])
        assert site.drops(change(moved, 58, unbound), opened=True) == "bad tag"
        assert len(site.decrypt([accomplice, victim], opened=True)[0]) == 2
        return
    (out,), drops = site.decrypt([moved], opened=True)
    assert drops == {}
    assert Ether(out)[IP].dst == "198.51.100.66" and out.endswith(PAYLOAD)


def test_a_payload_as_often_as_there_are_headers(site: Site) -> None:
    """A header is accepted once, a payload that isn't bound to one isn't counted."""
    packets = [build(IP(**V4), UDP(sport=1000 + i, dport=9), b"x" * i) for i in range(1, 5)]
    encrypted = site.encrypt([*packets, build(IP(**V4), UDP(), PAYLOAD)], sealed=True)
    copies = [with_payload_of(one, encrypted[-1], 8) for one in encrypted[:-1]]
    out, drops = site.decrypt(copies, opened=True)
    assert drops == {} and [one.endswith(PAYLOAD) for one in out] == [True] * 4
    again = with_payload_of(encrypted[0], encrypted[1], 8)
    assert site.decrypt([*copies, again], opened=True)[1] == {"replayed": 1}


def test_payloads_and_tags_are_one(site: Site) -> None:
    """No seal opens but its own payload, whole and at its place."""
    one, other = site.encrypt(
        [build(IP(**V4), UDP(sport=n), bytes([n]) * 40) for n in (1, 2)], sealed=True
    )
    end = option_end(one)
    swapped = one[: end + 8] + other[end + 8 :]
    moved = change(one, end - 30, (9).to_bytes(2, "big"))  # how much of it is clear
    for spoiled in (swapped, moved):
        assert site.drops(spoiled, opened=True) == "bad tag"


@pytest.mark.parametrize(
    ("at", "value"),
    [(13, b"\x04"), (4, b"\xde\xad\xbe\xef"), (8, b"\xde\xad\xbe\xef"), (14, b"\0\1")],
    ids=["flags", "sequence number", "acknowledgement", "window"],
)
def test_what_of_tcp_stays_in_clear_is_not_authentic(site: Site, at: int, value: bytes) -> None:
    (encrypted,) = site.encrypt([FRAMES["tcp"]], sealed=True)
    changed = change(encrypted, option_end(encrypted) + at, value)
    (out,), drops = site.decrypt([changed], opened=True)
    assert drops == {} and out[34 + at : 34 + at + len(value)] == value


def test_bytes_behind_a_packet_that_had_no_payload(site: Site) -> None:
    """They come out as they are. The checksum, which comes back as it was, is none for them; but a
    provider that keeps the sum needn't know it."""
    (encrypted,) = site.encrypt([FRAMES["bare ack"]], sealed=True)
    forged = b"written by the provider!"
    changed = change(encrypted + forged, 18, (len(encrypted) + len(forged) - 54).to_bytes(2, "big"))
    (out,), drops = site.decrypt([changed], opened=True)
    assert drops == {} and out.endswith(forged)


def test_nothing_says_which_way_a_packet_was_going(site: Site) -> None:
    """A gateway takes its own packets back: so traffic comes out of Fig. 4.1a at all."""
    out, drops = site.decrypt(site.encrypt([FRAMES["udp"]], sealed=True), opened=True)
    assert len(out) == 1 and drops == {}


def boundary(same: Callable[[int], bool], first: int, last: int) -> tuple[int, int]:
    """The last value that looks as the first one does, and how often was looked."""
    looks = 0
    while last - first > 1:
        middle = (first + last) // 2
        looks += 1
        first, last = (middle, last) if same(middle) else (first, middle)
    return first, looks


def test_whoever_chooses_packets_finds_where_ranges_end(site: Site) -> None:
    """32 packets with sources of one's choice for an end of a range of IPv4 addresses, whichever
    flow they are in: the prefix is the range's in all of them."""
    engine = new_engine()
    engine.create_module("gateway", "PrefixMatchEncrypt", site.plan | MAC_ARGS)

    def prefix(source: int) -> int:
        packet = Flow(source, MAPPED + 0xC0000201, 53, 53, twin.UDP).packet()
        return flow_of(engine.run_packets("gateway", [packet])[0][0]).sip >> 112

    known = prefix(MAPPED + (10 << 24) + 6)
    last, looks = boundary(
        lambda source: prefix(source) == known, MAPPED + (10 << 24) + 6, MAPPED + 2**32
    )
    assert last == MAPPED + (11 << 24) - 1  # of 10.0.0.0/8
    assert looks <= 32
    assert prefix(last + 1) != known

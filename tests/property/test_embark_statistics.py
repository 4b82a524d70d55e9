# SPDX-License-Identifier: BSD-3-Clause
"""What a provider can't find out by counting, over packets that modules make.

Keys, maps and flows are fixed, so encryptions are, and a test that passes once always does. Bounds
are six standard deviations wide or, for distributions, of a probability of 10^-9: of wrong
encryptions, hardly one would pass. Each test of equal distributions shows that it tells unequal
ones apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log, sqrt
from pathlib import Path

import numpy as np
import pytest
from embark_support import MAC_ARGS, MAPPED, SITE, Site
from numpy.typing import NDArray

from embark_flows import Flow, flow_of
from harness import Engine, new_engine
from twins import embark_twin as twin

POOL = (("203.0.113.9", True), ("192.0.2.8", False))
NAT, SERVER = MAPPED + 0xCB007109, MAPPED + 0xC0000208
HOSTS = MAPPED + (10 << 24)  # 10.0.0.0/8 is a range of the rules, 10.0.0.5 another
COUNT = 2**14
SUFFIX = (1 << 112) - 1
PORT_SUFFIX = 0x0FFF  # of 16 bits, at least
Numbers = NDArray[np.float64]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("embark") / "site", pool=POOL)


@pytest.fixture(scope="module")
def engine(site: Site) -> Engine:
    made = new_engine()
    made.create_module("gateway", "PrefixMatchEncrypt", site.plan | MAC_ARGS)
    return made


def packets_of(engine: Engine, flows: Sequence[Flow]) -> list[bytes]:
    packets: list[bytes] = engine.run_packets("gateway", [flow.packet() for flow in flows])[0]
    assert len(packets) == len(flows)
    return packets


def encrypt(engine: Engine, flows: Sequence[Flow]) -> list[Flow]:
    return [flow_of(packet) for packet in packets_of(engine, flows)]


def flows_from(source: int, count: int = COUNT, sport: int = 2000) -> list[Flow]:
    """One host and port, many destinations."""
    return [Flow(source, HOSTS + 2**16 + i, sport, 3000, twin.TCP) for i in range(count)]


def differ(one: Sequence[int], other: Sequence[int], bits: int) -> bool:
    """Two-sample test of Kolmogorov and Smirnov, at 10^-9."""
    values = np.sort(np.array([value / 2**bits for value in (*one, *other)]))
    first, second = (np.sort(np.array([v / 2**bits for v in part])) for part in (one, other))
    below = np.searchsorted(first, values, "right") / len(first)
    also = np.searchsorted(second, values, "right") / len(second)
    bound = sqrt(-log(1e-9 / 2) / 2 * (len(one) + len(other)) / (len(one) * len(other)))
    return bool(np.abs(below - also).max() > bound)


def uneven(values: Sequence[int], bits: int) -> bool:
    """Whether the lower `bits` of values (8, or two bytes of them) favour some: chi-square."""
    found = np.array([value & ((1 << bits) - 1) for value in values], np.uint64)
    for shift in range(0, bits, 8):
        seen = np.bincount((found >> np.uint64(shift) & np.uint64(255)).astype(int), minlength=256)
        expected = len(values) / 256
        chi_square = float(((seen - expected) ** 2 / expected).sum())
        if abs(chi_square - 255) > 6 * sqrt(2 * 255):
            return True
    return False


def correlation(clear: Sequence[int], encrypted: Sequence[int], bits: int) -> float:
    """The most that a bit of one says about a bit of the other, in standard deviations."""

    def matrix(values: Sequence[int]) -> Numbers:
        rows = np.array([[value >> bit & 1 for bit in range(bits)] for value in values])
        return rows * 2.0 - 1

    found = matrix(clear).T @ matrix(encrypted) / sqrt(len(clear))
    varied = [len({value >> bit & 1 for value in clear}) == 2 for bit in range(bits)]
    return float(np.abs(found[varied]).max())


def test_two_addresses_of_one_set_are_encrypted_alike(engine: Engine) -> None:
    """Nothing but the set of an address can be learned from how it is encrypted."""
    one, other, alone = (
        [flow.sip for flow in encrypt(engine, flows_from(source))]
        for source in (HOSTS + 77, HOSTS + 2**20, HOSTS + 5)
    )
    assert not differ(one, other, 128)
    assert differ(one, alone, 128)  # 10.0.0.5 has a set of its own
    assert not differ([sip & SUFFIX for sip in one], [sip & SUFFIX for sip in alone], 112)
    for shift in range(0, 112, 8):
        assert not uneven([sip >> shift for sip in one], 8)
    assert not {*one} & {*other}


def test_no_bit_of_an_address_shows(engine: Engine) -> None:
    flows = [Flow(HOSTS + 2**17 + i, HOSTS, 2000, 3000, twin.UDP) for i in range(COUNT)]
    clear = [flow.sip for flow in flows]
    encrypted = [flow.sip for flow in encrypt(engine, flows)]
    assert correlation(clear, encrypted, 112) < 6
    assert correlation(clear, clear, 112) > 100


@pytest.mark.parametrize("family", [HOSTS + 2**16, SITE], ids=["IPv4", "IPv6"])
def test_flows_have_no_address_in_common(engine: Engine, family: int) -> None:
    """Of one source, of one destination, nor of an address that is both in turn."""
    here, count = family + 2**12, 2**12
    out = [Flow(here, family + i, 2000, 3000, twin.TCP) for i in range(count)]
    back = [Flow(family + i, here, 3000, 2000, twin.TCP) for i in range(count)]
    ports = [Flow(here, family, 2000, port, twin.TCP) for port in range(count)]
    encrypted = encrypt(engine, [*out, *back, *ports])
    suffixes = [field & SUFFIX for flow in encrypted for field in (flow.sip, flow.dip)]
    again = sum(one in out for one in ports)  # a flow of each list may be one of another
    assert len({*suffixes}) == 2 * (3 * count - again)


def test_ports_of_one_set_are_encrypted_alike(engine: Engine) -> None:
    """But for their number, of which 16 bits have few: a port is in many flows, and none of its
    encryptions tells it."""
    one, other, alone = (
        [flow.sp for flow in encrypt(engine, flows_from(HOSTS + 77, sport=port))]
        for port in (2000, 65535, 80)
    )
    assert not differ(one, other, 16)
    assert differ(one, alone, 16)
    assert not uneven([port & PORT_SUFFIX for port in one], 8)
    flows = [Flow(HOSTS + 77, HOSTS, 7000 + i, 3000, twin.TCP) for i in range(COUNT)]
    clear, encrypted = [flow.sp for flow in flows], [flow.sp for flow in encrypt(engine, flows)]
    suffixes = [port & 0x03FF for port in encrypted]
    assert correlation(clear, suffixes, 10) < 6


def test_both_directions_of_a_flow_have_nothing_in_common(engine: Engine) -> None:
    """A provider pairs them by time, and by TCP's numbers, only."""
    there = [Flow(SITE + i, SITE, 2000, 80, twin.TCP) for i in range(1000)]
    back = [Flow(flow.dip, flow.sip, flow.dp, flow.sp, flow.proto) for flow in there]
    pairs = zip(encrypt(engine, there), encrypt(engine, back), strict=True)
    for one, other in pairs:
        assert one.sip & SUFFIX != other.dip & SUFFIX
        assert one.dip & SUFFIX != other.sip & SUFFIX


def test_the_pool_is_the_same_in_all_flows_by_design(engine: Engine) -> None:
    """And a NAT's port stays in clear: the provider knows both, as it writes them."""
    out = encrypt(engine, [Flow(HOSTS + i, NAT, 2000, 40000, twin.UDP) for i in range(500)])
    assert {(flow.dip, flow.dp) for flow in out} == {(out[0].dip, 40000)}
    assert len({flow.sip for flow in out}) == 500
    servers = encrypt(engine, [Flow(HOSTS + i, SERVER, 2000, 80, twin.UDP) for i in range(500)])
    assert {flow.dip for flow in servers} != {out[0].dip} and len({f.dip for f in servers}) == 1
    assert len({flow.dp for flow in servers}) > 100  # a load balancer writes no port


def test_flow_labels_are_of_the_flow_and_tell_nothing_more(engine: Engine) -> None:
    """RFC 6437: the same in all packets of a flow, even over flows."""
    flows = flows_from(HOSTS + 77)

    def labels(packets: Sequence[bytes]) -> list[int]:
        return [int.from_bytes(packet[14:18], "big") & 0xFFFFF for packet in packets]

    packets = packets_of(engine, flows)
    found = labels(packets)
    assert found == labels(packets_of(engine, flows))
    for packet, label in zip(packets, found, strict=True):
        both = int.from_bytes(packet[34:38], "big") ^ int.from_bytes(packet[50:54], "big")
        assert label == both & 0xFFFFF  # so it can't say what addresses don't
    assert not uneven(found, 16)
    assert not uneven([label >> 4 for label in found], 16)
    expected = COUNT**2 / 2**21  # pairs of flows that have one in common
    assert abs(COUNT - len({*found}) - expected) < 6 * sqrt(expected)


def test_equal_packets_differ_in_all_that_is_hidden(engine: Engine) -> None:
    """Nonce, tag and text: a packet that is sent again can't be told from another of its flow."""
    packets = packets_of(engine, [Flow(SITE, SITE + 1, 1, 2, twin.UDP)] * 1000)
    for first, last in ((60, 72), (72, 80), (80, 126)):  # of a text for IPv6
        assert len({packet[first:last] for packet in packets}) == 1000
    assert len({packet[22:54] + packet[126:] for packet in packets}) == 1


def test_gateways_and_restarts_never_share_a_nonce(site: Site) -> None:
    """Two of one key: what they draw at their start, not what they count, tells them apart."""
    starts, nonces = set(), set()
    for _ in range(50):
        made = new_engine()
        made.create_module("gateway", "PrefixMatchEncrypt", site.plan | MAC_ARGS)
        for packet in packets_of(made, flows_from(HOSTS, 40)):
            starts.add(packet[60:68])
            nonces.add(packet[60:72])
    assert (len(starts), len(nonces)) == (50, 2000)


def test_what_a_chosen_rule_tells(tmp_path: Path) -> None:
    """Whoever chooses k rules learns about an address just in which of them it is: k bits find one
    address of 2^k (docs/embark-security.md)."""
    bits, base = 8, HOSTS
    halves = [
        [
            (base + first, base + first + 2**bit - 1)
            for first in range(2**bit, 2**bits, 2 ** (bit + 1))
        ]
        for bit in range(bits)
    ]
    chosen = [pair for pairs in halves for pair in pairs]
    attacked = Site(tmp_path / "site", ranges=(chosen, [(0, 1)], [(0, 1)], [(0, 1)]))
    made = new_engine()
    made.create_module("gateway", "PrefixMatchEncrypt", attacked.plan | MAC_ARGS)
    flows = [Flow(base + i, base, 2000, 3000, twin.UDP) for i in range(2**bits)]
    prefixes = [flow.sip >> 112 for flow in encrypt(made, flows)]
    assert len({*prefixes}) == 2**bits  # each address is told from all others
    outside = [Flow(base + 2**bits + i, base, 2000, 3000, twin.UDP) for i in range(2**bits)]
    others = {flow.sip >> 112 for flow in encrypt(made, outside)}
    assert len(others) == 1  # and nothing of those that no rule is about

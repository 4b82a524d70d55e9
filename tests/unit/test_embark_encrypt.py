# SPDX-License-Identifier: BSD-3-Clause
"""PrefixMatchEncrypt and PayloadSeal: byte by byte what the twin makes under the same nonces.

tests/unit/test_crypto_levels.py runs one of these tests again for each instruction set.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from chain_support import run_counted
from embark_frames import frames
from embark_support import FRAMES, REFUSED, V4, V6, Site, build
from hypothesis import HealthCheck, given, settings
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet

from twins import embark_twin as twin

SEALED = pytest.mark.parametrize("sealed", [False, True], ids=["payload clear", "payload sealed"])
POOL = (("198.51.100.7", True), ("10.1.2.3", False), ("2001:db8::1:2", True))


@pytest.fixture(params=[False, True], ids=["for any header", "bound"])
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Site:
    """With seals that open behind any header, as a cache needs, and behind their own only."""
    return Site(tmp_path / "site", bound=request.param)


@SEALED
@pytest.mark.parametrize("name", FRAMES)
def test_each_kind_is_the_twins(site: Site, name: str, sealed: bool) -> None:
    """Alone, and often enough to fill batches."""
    for count in (1, 40):
        for encrypted in site.encrypt([FRAMES[name]] * count, sealed):
            assert encrypted == site.expected(FRAMES[name], encrypted, sealed)


@SEALED
def test_all_kinds_together_are_the_twins(site: Site, sealed: bool) -> None:
    """Groups of one text length in one batch, in order."""
    packets = [*FRAMES.values()] * 5
    packets += [*FRAMES.values()][::3] * 20 + [FRAMES["tcp"], FRAMES["udp6"]] * 50
    for packet, encrypted in zip(packets, site.encrypt(packets, sealed), strict=True):
        assert encrypted == site.expected(packet, encrypted, sealed)


@SEALED
def test_pool_addresses_are_the_twins(tmp_path: Path, sealed: bool) -> None:
    site = Site(tmp_path / "site", pool=POOL)
    packets = [*FRAMES.values()]
    for packet, encrypted in zip(packets, site.encrypt(packets, sealed), strict=True):
        assert encrypted == site.expected(packet, encrypted, sealed)


@SEALED
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(packets=frames())
def test_generated_packets_are_the_twins(site: Site, packets: list[bytes], sealed: bool) -> None:
    out, drops = run_counted(site.folder, site.encrypts(sealed), packets)
    left = iter(out)
    refused: Counter[str] = Counter()
    for packet in packets:
        try:
            twin.encrypt(packet, site.gateway, bytes(12), seal_nonce=bytes(12))
        except twin.RefusedError as reason:
            refused[str(reason)] += 1
            continue
        encrypted = next(left)
        assert encrypted == site.expected(packet, encrypted, sealed)
    assert next(left, None) is None
    assert drops == refused


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(site: Site, name: str) -> None:
    packet, reason = REFUSED[name]
    for sealed in (False, True):
        packets = [packet, FRAMES["tcp"], packet]
        out, drops = run_counted(site.folder, site.encrypts(sealed), packets)
        assert drops == {reason: 2}
        assert len(out) == 1
    with pytest.raises(twin.RefusedError, match=reason):
        twin.encrypt(packet, site.gateway, bytes(12))


@SEALED
@pytest.mark.parametrize("ip", [IP(**V4), IP(**V4, flags="MF"), IPv6(**V6)])
def test_mtu(tmp_path: Path, ip: Packet, sealed: bool) -> None:
    """The longest packet that fits, and one with a byte more."""
    site = Site(tmp_path / "site", mtu=1280)
    (encrypted,) = site.encrypt([build(ip, UDP(), b"x")], sealed)
    room = 1 + 14 + 1280 - len(encrypted)
    longest = build(ip, UDP(), bytes(room))
    (encrypted,) = site.encrypt([longest], sealed)
    assert len(encrypted) == 14 + 1280
    assert encrypted == site.expected(longest, encrypted, sealed)
    longer = build(ip, UDP(), bytes(room + 1))
    assert run_counted(site.folder, site.encrypts(sealed), [longer]) == ([], {"over MTU": 1})


def test_too_many_headers(site: Site) -> None:
    """The last extension header that has room in an option, and the next longer one."""
    packet = FRAMES["destination"]

    def with_extension(words: int) -> bytes:
        body = packet[62:]
        header = bytes([6, words - 1, 1, 8 * words - 4]) + bytes(8 * words - 4)
        length = (len(header) + len(body)).to_bytes(2, "big")
        return packet[:18] + length + packet[20:54] + header + body

    fits = next(n for n in range(1, 40) if over(with_extension(n + 1)))
    assert (2 + 1 + 8 * fits) <= twin.MAX_TEXT - 46 < 2 + 1 + 8 * (fits + 1)
    (encrypted,) = site.encrypt([with_extension(fits)])
    assert encrypted == site.expected(with_extension(fits), encrypted)
    out, drops = run_counted(site.folder, site.encrypts(), [with_extension(fits + 1)])
    assert (out, drops) == ([], {"too many headers": 1})


def over(packet: bytes) -> bool:
    try:
        twin.extras_of(twin.parse(packet))
    except twin.RefusedError:
        return True
    return False

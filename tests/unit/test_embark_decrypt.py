# SPDX-License-Identifier: BSD-3-Clause
"""PrefixMatchDecrypt and PayloadOpen: there and back, what was tampered with, what was replayed."""

from __future__ import annotations

import os
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from chain_support import Chain, prefixes, run_counted
from embark_frames import frames
from embark_support import FRAMES, MAC_ARGS, REFUSED, Site, change, restored
from hypothesis import HealthCheck, given, settings
from scapy.all import RawPcapReader

from harness import new_engine
from twins import embark_open_twin as open_twin
from twins import embark_twin as twin

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("E2_DATA", ROOT.parent / "shared" / "data"))
SEALED = pytest.mark.parametrize("sealed", [False, True], ids=["payload clear", "payload sealed"])
HOP_LIMIT = 14 + 7


@pytest.fixture(params=[False, True], ids=["for any header", "bound"])
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Site:
    """With seals that open behind any header, as a cache needs, and behind their own only."""
    return Site(tmp_path / "site", bound=request.param)


def there_and_back(site: Site, sealed: bool) -> Chain:
    return [*site.encrypts(sealed), *site.decrypts(sealed)]


def open_by_twin(site: Site, encrypted: bytes) -> bytes:
    packet, seal = open_twin.decrypt(encrypted, site.ring, site.gateway.macs, site.gateway.pool)
    return open_twin.open_payload(packet, seal, site.ring)


@SEALED
def test_every_kind_comes_back(site: Site, sealed: bool) -> None:
    packets = [*FRAMES.values()] * 3
    out, drops = run_counted(site.folder, there_and_back(site, sealed), packets)
    assert drops == {}
    assert out == [restored(packet) for packet in packets]


@SEALED
def test_the_twin_opens_what_the_modules_make(site: Site, sealed: bool) -> None:
    packets = [*FRAMES.values()]
    for packet, encrypted in zip(packets, site.encrypt(packets, sealed), strict=True):
        assert open_by_twin(site, encrypted) == restored(packet)


@SEALED
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(packets=frames())
def test_generated_packets_come_back(site: Site, packets: list[bytes], sealed: bool) -> None:
    out, drops = run_counted(site.folder, there_and_back(site, sealed), packets)
    expected = []
    refused: Counter[str] = Counter()
    for packet in packets:
        try:
            twin.encrypt(packet, site.gateway, bytes(12), seal_nonce=bytes(12))
            expected.append(restored(packet))
        except twin.RefusedError as reason:
            refused[str(reason)] += 1
    assert out == expected
    assert drops == refused


def captures() -> list[Any]:
    found = sorted((DATA / "traces").glob("**/*.pcap*"))
    reason = f"no captures in {DATA / 'traces'}; set E2_DATA to the folder with the captures"
    if not found:
        return [pytest.param(Path(), marks=pytest.mark.skip(reason=reason))]
    return [pytest.param(path, id=path.name) for path in found]


@pytest.mark.parametrize("path", captures())
def test_captures_come_back(site: Site, path: Path) -> None:
    with RawPcapReader(str(path)) as reader:
        some = islice(reader, 5000)
        packets = [data for data, _ in some if len(data) <= 1750]
    expected = []
    refused: Counter[str] = Counter()
    for packet in packets:
        try:
            parts = twin.parse(packet)
            if parts.kind == "link":
                refused["of the link"] += 1
            else:
                twin.extras_of(parts)
                expected.append(restored(packet))
        except twin.RefusedError as reason:
            refused[str(reason)] += 1
    for sealed in (False, True):
        out, drops = run_counted(site.folder, there_and_back(site, sealed), packets)
        assert out == expected
        assert drops == refused


def mark(frame: bytes, number: int) -> bytes:
    """A number as traffic class and hop limit, which are taken over from the encrypted packet."""
    ip = frame.index(b"\x86\xdd") + 2 if twin.parse(frame).ipv6 else frame.index(b"\x08\x00") + 2
    low, high = number & 0xFF, number >> 8
    if frame[ip] >> 4 == 6:
        first = twin.u16(frame, ip) & 0xF00F | low << 4
        return change(change(frame, ip, first.to_bytes(2, "big")), ip + 7, bytes([high]))
    frame = change(
        change(change(frame, ip + 1, bytes([low])), ip + 8, bytes([high])), ip + 10, bytes(2)
    )
    header = frame[ip : ip + (frame[ip] & 15) * 4]
    return change(frame, ip + 10, twin.checksum(twin.words(header)).to_bytes(2, "big"))


def marked(frame: bytes) -> int:
    ip = twin.parse(frame).ip
    return ip[7] << 8 | twin.u16(ip, 0) >> 4 & 0xFF if ip[0] >> 4 == 6 else ip[8] << 8 | ip[1]


def flip(packet: bytes, at: int, bit: int) -> bytes:
    return change(packet, at, bytes([packet[at] ^ 1 << bit]))


@SEALED
@pytest.mark.parametrize("name", ["tcp", "udp6", "echo", "unreachable", "gre", "first", "vlan6"])
def test_every_bit(site: Site, name: str, sealed: bool) -> None:
    """One bit of an encrypted packet is another: it is dropped, or what comes out is right.

    What nobody sealed, and what TCP, UDP and ICMP keep in clear, comes out as the provider wrote
    it: a byte is another, or the end is missing.
    """
    (example,) = site.encrypt([FRAMES[name]], sealed)
    places = [
        (at, bit)
        for at in range(14, len(example))
        for bit in range(8)
        if at not in (14, 15, HOP_LIMIT)  # the mark
    ]
    mutants = []
    fresh = site.encrypt([FRAMES[name]] * len(places), sealed)
    for number, ((at, bit), encrypted) in enumerate(zip(places, fresh, strict=True)):
        assert len(encrypted) == len(example)
        mutants.append(flip(mark(encrypted, number), at, bit))
    out, drops = site.decrypt(mutants, opened=True)
    assert len(out) + sum(drops.values()) == len(mutants)
    dropped = {*places} - {places[marked(packet)] for packet in out}
    option_end = 54 + (example[55] + 1) * 8
    body_at = len(example) - len(twin.parse(FRAMES[name]).body)
    for packet in out:
        at, _ = places[marked(packet)]
        right = mark(restored(FRAMES[name]), marked(packet))
        if at in (18, 19):
            assert not sealed and len(packet) < len(right)
            body = twin.parse(packet).body
            assert body == twin.parse(right).body[: len(body)]
        elif at < body_at:
            # The number of the header behind the option is that of the Fragment header, or wrong.
            assert at < 54 or at >= option_end or (at == 54 and name == "first")
            assert packet == right
        elif at == body_at and name == "unreachable":
            # Of another kind of ICMP nobody can restore a checksum; the one there doesn't fit.
            assert twin.checksum(twin.words(twin.parse(packet).body)) != 0
        else:
            assert not sealed or at < body_at + twin.parse(FRAMES[name]).clear
            at += len(right) - len(example)
            assert packet[:at] + packet[at + 1 :] == right[:at] + right[at + 1 :]
    # All of the option, and the end of each address that stands for it.
    assert dropped >= {(at, bit) for at in range(55, option_end) for bit in range(8)}
    assert dropped >= {(at, bit) for at in (36, 37, 52, 53) for bit in range(8)}
    if sealed or name in ("unreachable", "gre"):
        clear = body_at + twin.parse(FRAMES[name]).clear
        assert dropped >= {(at, bit) for at in range(clear, len(example)) for bit in range(8)}


def assert_rest_is_right(packet: bytes, right: bytes) -> None:
    """But for traffic class, hop limit, and the IPv4 checksum, which follows them."""
    parts, wanted = twin.parse(packet), twin.parse(right)
    assert (parts.tags, parts.addresses, parts.protocol, parts.body, parts.extensions) == (
        (wanted.tags, wanted.addresses, wanted.protocol, wanted.body, wanted.extensions)
    )
    if parts.ipv6:
        assert parts.ip[1] & 15 == wanted.ip[1] & 15 and parts.ip[2:7] == wanted.ip[2:7]
    else:
        assert parts.ip[2:8] == wanted.ip[2:8] and parts.ip[20:] == wanted.ip[20:]
        assert twin.checksum(twin.words(parts.ip)) == 0


def test_hop_limit_and_traffic_class_are_the_providers(site: Site) -> None:
    for name in ("tcp", "tcp6", "vlan", "options"):
        (encrypted,) = site.encrypt([FRAMES[name]])
        first = twin.u16(encrypted, 14) & 0xF00F | 0xA4 << 4
        encrypted = change(change(encrypted, 14, first.to_bytes(2, "big")), HOP_LIMIT, b"\x03")
        (out,), drops = site.decrypt([encrypted])
        assert drops == {}
        assert_rest_is_right(out, restored(FRAMES[name]))
        ip = twin.parse(out).ip
        seen = (twin.u16(ip, 0) >> 4 & 0xFF, ip[7]) if ip[0] >> 4 == 6 else (ip[1], ip[8])
        assert seen == (0xA4, 3)


def test_wrong_checksums_of_ipv4_stay_wrong_behind_a_router(site: Site) -> None:
    for name in ("ip checksum", "ip checksum 0"):
        (encrypted,) = site.encrypt([FRAMES[name]])
        (out,), _ = site.decrypt([change(encrypted, HOP_LIMIT, bytes([encrypted[HOP_LIMIT] - 1]))])
        assert twin.checksum(twin.words(out[14:34])) != 0


@SEALED
@pytest.mark.parametrize("name", ["tcp", "udp6", "unreachable", "gre", "first6"])
def test_truncated_at_each_length(site: Site, name: str, sealed: bool) -> None:
    (encrypted,) = site.encrypt([FRAMES[name]], sealed)
    cut = prefixes(encrypted)[:-1]
    out, drops = site.decrypt(cut, opened=True)
    assert out == []
    assert drops == {"not encrypted": 54 + 26, "cut": len(cut) - 54 - 26}


@pytest.mark.parametrize("name", ["tcp", "gre"])
def test_truncated_with_lengths_that_fit(site: Site, name: str) -> None:
    """As if less had been sent."""
    (encrypted,) = site.encrypt([FRAMES[name]], sealed=True)
    for length in range(54, len(encrypted)):
        shorter = change(encrypted[:length], 18, (length - 54).to_bytes(2, "big"))
        out, drops = site.decrypt([shorter], opened=True)
        assert out == []
        assert sum(drops.values()) == 1


def test_clear_packets_are_refused(site: Site) -> None:
    packets = [*FRAMES.values(), *(packet for packet, _ in REFUSED.values())]
    assert site.decrypt(packets) == ([], {"not encrypted": len(packets)})


def test_a_provider_may_add_a_tag_and_padding(site: Site) -> None:
    for name in ("tcp", "udp6", "gre"):
        (encrypted,) = site.encrypt([FRAMES[name]])
        tagged = encrypted[:12] + b"\x81\x00\x00\x07" + encrypted[12:] + b"padding"
        assert site.decrypt([tagged]) == ([restored(FRAMES[name])], {})


class TestReplay:
    def test_a_copy(self, site: Site) -> None:
        encrypted = site.encrypt([FRAMES["tcp"], FRAMES["udp6"]])
        out, drops = site.decrypt([*encrypted, *encrypted, encrypted[0]])
        assert len(out) == 2
        assert drops == {"replayed": 3}

    def test_order_does_not_matter_within_4096(self, site: Site) -> None:
        encrypted = site.encrypt([FRAMES["tcp"]] * 4097)
        mixed = [encrypted[0], *encrypted[:0:-1]]
        out, drops = site.decrypt(mixed)
        assert (len(out), drops) == (4097, {})
        # The first one can't be told from one seen once 4096 others were there.
        out, drops = site.decrypt([*encrypted[1:], encrypted[0]])
        assert (len(out), drops) == (4096, {"replayed": 1})
        out, drops = site.decrypt([*encrypted[1:-1], encrypted[0]])
        assert (len(out), drops) == (4096, {})

    def test_tampered_packets_are_not_remembered(self, site: Site) -> None:
        (encrypted,) = site.encrypt([FRAMES["tcp"]])
        tampered = change(encrypted, 80, bytes([encrypted[80] ^ 1]))
        out, drops = site.decrypt([tampered, encrypted])
        assert (len(out), drops) == (1, {"bad tag": 1})

    @pytest.mark.parametrize(("others", "again"), [(63, "replayed"), (64, "")])
    def test_64_senders_are_remembered(self, site: Site, others: int, again: str) -> None:
        encrypted = [site.encrypt([FRAMES["tcp"]])[0] for _ in range(others + 1)]
        assert len({twin.u16(packet, 60) << 16 | twin.u16(packet, 62) for packet in encrypted}) > 60
        out, drops = site.decrypt([*encrypted, encrypted[0]])
        assert drops == ({again: 1} if again else {})
        assert len(out) == others + (1 if again else 2)

    def test_update_forgets_nothing(self, site: Site) -> None:
        (encrypted,) = site.encrypt([FRAMES["tcp"]])
        engine = new_engine()
        engine.create_module("d", *site.decrypts()[0])
        assert len(engine.run_packets("d", [encrypted])[0]) == 1
        engine.module_command("d", "update", {"keys": [site.key]})
        assert engine.run_packets("d", [encrypted]) == {}
        assert engine.module_info("d")["drops"]["replayed"] == 1


class TestKeys:
    def test_unknown_epoch(self, site: Site) -> None:
        (encrypted,) = site.encrypt([FRAMES["tcp"]])
        assert site.drops(change(encrypted, 59, b"\x04")) == "unknown epoch"

    def test_wrong_key(self, site: Site, tmp_path: Path) -> None:
        other = Site(tmp_path / "other", site_key=bytes(32))
        for packet in site.encrypt([*FRAMES.values()]):
            assert other.drops(packet) == "bad tag"

    def test_wrong_key_of_the_payload(self, site: Site, tmp_path: Path) -> None:
        other = Site(tmp_path / "other", site_key=bytes(32))
        encrypted = site.encrypt([FRAMES["tcp"]], sealed=True)
        for keys, reason in (
            ([other.key], "bad tag"),
            ([{**other.key, "epoch": 9}], "unknown epoch"),
        ):
            chain: Chain = [site.decrypts(opened=True)[0], ("PayloadOpen", {"keys": keys})]
            assert run_counted(site.folder, chain, encrypted) == ([], {reason: 1})

    def test_sealed_payloads_need_a_payload_open(self, site: Site) -> None:
        encrypted = site.encrypt([FRAMES["tcp"], FRAMES["bare ack"], FRAMES["gre"]], sealed=True)
        out, drops = site.decrypt(encrypted)
        assert out == [restored(FRAMES["bare ack"])]
        assert drops == {"payload sealed": 2}

    def test_both_epochs(self, site: Site, tmp_path: Path) -> None:
        other = Site(tmp_path / "other", site_key=bytes(32), epoch=200)
        packets = [*FRAMES.values()]
        one, two = site.encrypt(packets, sealed=True), other.encrypt(packets, sealed=True)
        mixed = [packet for pair in zip(one, two, strict=True) for packet in pair]
        keys = [site.key, other.key]
        chain: Chain = [
            ("PrefixMatchDecrypt", {"keys": keys, "sealed_payload": True} | MAC_ARGS),
            ("PayloadOpen", {"keys": keys}),
        ]
        out, drops = run_counted(site.folder, chain, mixed)
        assert drops == {}
        assert out == [restored(packet) for packet in packets for _ in range(2)]

    def test_seals_of_another_epoch_than_the_header(self, site: Site, tmp_path: Path) -> None:
        """PayloadSeal is updated before PrefixMatchEncrypt is."""
        other = Site(tmp_path / "other", site_key=bytes(32), epoch=200)
        encrypt = [("PayloadSeal", {"key": other.key}), *site.encrypts(sealed=True)[1:]]
        decrypt = [site.decrypts(opened=True)[0], ("PayloadOpen", {"keys": [other.key]})]
        packets = [FRAMES["tcp"], FRAMES["gre"]]
        out, drops = run_counted(site.folder, [*encrypt, *decrypt], packets)
        assert (out, drops) == ([restored(packet) for packet in packets], {})


@pytest.mark.parametrize("name", ["tcp", "gre", "bare ack"])
def test_a_seal_that_says_it_is_none(site: Site, name: str) -> None:
    """Else the sealed payload would come out as it is."""
    (encrypted,) = site.encrypt([FRAMES[name]], sealed=True)
    if name == "bare ack":
        assert site.decrypt([encrypted], opened=True) == ([restored(FRAMES[name])], {})
        return
    seal_at = 54 + (encrypted[55] + 1) * 8 - 32
    assert encrypted[seal_at] == 1
    assert site.drops(change(encrypted, seal_at, b"\0"), opened=True) == "bad payload tag"

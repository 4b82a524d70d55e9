# SPDX-License-Identifier: BSD-3-Clause
"""Arguments and commands of Embark's modules: key files, maps, pools, updates, and no key shown."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
from embark_support import FRAMES, MAC_ARGS, RANGES, Site, nonces_of, restored
from scapy.all import RawPcapReader

from bess_plugins._crypto import CryptoError, PrefixMap, write_prefix_maps
from harness import EngineError, new_engine, run, wait_until
from twins import embark_twin as twin

KEY_OWNERS = ("PayloadSeal", "PrefixMatchEncrypt", "PrefixMatchDecrypt", "PayloadOpen")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


def args_with(site: Site, mclass: str, key: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a class, with another key."""
    if mclass == "PrefixMatchEncrypt":
        return site.plan | MAC_ARGS | {"key": key}
    if mclass == "PrefixMatchDecrypt":
        return {"keys": [key]} | MAC_ARGS
    return {"key": key} if mclass == "PayloadSeal" else {"keys": [key]}


def error_of(mclass: str, args: dict[str, Any]) -> str:
    with pytest.raises(EngineError) as error:
        new_engine().create_module("m", mclass, args)
    return str(error.value)


def private(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def make_folder(path: Path) -> Path:
    path.mkdir(mode=0o700)
    return path


def make_pipe(path: Path) -> Path:
    os.mkfifo(path, 0o600)
    return path


HEX = "64 hexadecimal digits"
SECRET_DIGITS = "c0ffee" * 10 + "beef"
BAD_KEYS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "others may read": (lambda p: private(p, SECRET_DIGITS, 0o644), "chmod 600"),
    "group may write": (lambda p: private(p, SECRET_DIGITS, 0o620), "chmod 600"),
    "folder": (make_folder, "no regular file"),
    "pipe": (make_pipe, "no regular file"),
    "missing": (lambda p: p, "No such file"),
    "empty": (lambda p: private(p, ""), HEX),
    "too short": (lambda p: private(p, SECRET_DIGITS[:-1] + "\n"), HEX),
    "too long": (lambda p: private(p, SECRET_DIGITS + "ab"), HEX),
    "much too long": (lambda p: private(p, SECRET_DIGITS * 50), HEX),
    "two lines": (lambda p: private(p, SECRET_DIGITS + "\n\n"), HEX),
    "not hexadecimal": (lambda p: private(p, SECRET_DIGITS[:-1] + "g"), HEX),
    "bytes": (lambda p: private(p, SECRET_DIGITS[:31] + "\0"), HEX),
}


@pytest.mark.parametrize("mclass", KEY_OWNERS)
@pytest.mark.parametrize("name", BAD_KEYS)
def test_key_files_that_are_refused(site: Site, tmp_path: Path, mclass: str, name: str) -> None:
    make, message = BAD_KEYS[name]
    path = make(tmp_path / "bad.key")
    text = error_of(mclass, args_with(site, mclass, {"file": str(path)}))
    assert message in text and str(path) in text and mclass in text
    assert SECRET_DIGITS[:6] not in text


@pytest.mark.parametrize("mclass", KEY_OWNERS)
def test_keys_that_make_no_sense(site: Site, mclass: str) -> None:
    assert "must be a key file" in error_of(mclass, args_with(site, mclass, {}))
    key = site.key | {"epoch": 256}
    assert "epoch is 256; must be within 0..255" in error_of(mclass, args_with(site, mclass, key))
    for epoch in (0, 255):
        new_engine().create_module(
            "m", mclass, args_with(site, mclass, site.key | {"epoch": epoch})
        )
    if mclass in ("PrefixMatchDecrypt", "PayloadOpen"):
        args = args_with(site, mclass, site.key)
        assert "keys is empty" in error_of(mclass, args | {"keys": []})
        assert "epoch 3 is given twice" in error_of(mclass, args | {"keys": [site.key] * 2})


def test_upper_case_and_no_newline(site: Site, tmp_path: Path) -> None:
    (encrypted,) = site.encrypt([FRAMES["tcp"]])
    key = private(tmp_path / "other.key", site.site_key.hex().upper())
    args = args_with(site, "PrefixMatchDecrypt", {"file": str(key), "epoch": site.epoch})
    assert run("PrefixMatchDecrypt", args, [encrypted]).out == {0: [restored(FRAMES["tcp"])]}


class TestMapsFile:
    def test_it_is_the_twins(self, site: Site) -> None:
        assert site.maps_file.read_bytes() == twin.maps_file(site.gateway.maps)
        assert site.maps_file.stat().st_mode & 0o777 == 0o600

    def test_it_is_replaced_as_a_whole(self, site: Site, tmp_path: Path) -> None:
        maps = [PrefixMap(r, b, bytes(16)) for r, b in zip(RANGES, (128, 128, 16, 16), strict=True)]
        before = site.maps_file.read_bytes()
        write_prefix_maps(site.maps_file, *maps)
        assert site.maps_file.read_bytes() != before
        assert sorted(p.name for p in site.folder.iterdir()) == ["site.key", "site.maps"]
        with pytest.raises(OSError, match="can't write"):
            write_prefix_maps(tmp_path / "none" / "maps", *maps)
        with pytest.raises(CryptoError, match="destination address has a domain of 16 bits"):
            write_prefix_maps(site.maps_file, maps[0], maps[2], maps[2], maps[3])

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda b: b[:-1], "it is cut or was changed"),
            (lambda b: b[:100] + bytes([b[100] ^ 1]) + b[101:], "it is cut or was changed"),
            (lambda b: b"", "no prefix maps"),
            (lambda b: b"E2PM\x02" + b[5:], "no prefix maps of version 1"),
            (lambda b: b[:5], "it is cut"),
        ],
    )
    def test_spoiled(self, site: Site, spoil: Callable[[bytes], bytes], message: str) -> None:
        site.maps_file.write_bytes(spoil(site.maps_file.read_bytes()))
        text = error_of("PrefixMatchEncrypt", site.plan | MAC_ARGS)
        assert message in text and str(site.maps_file) in text and "maps_file" in text

    def test_others_may_read_it(self, site: Site) -> None:
        site.maps_file.chmod(0o640)
        assert "chmod 600" in error_of("PrefixMatchEncrypt", site.plan | MAC_ARGS)

    def test_missing(self, site: Site) -> None:
        site.maps_file.unlink()
        assert "No such file" in error_of("PrefixMatchEncrypt", site.plan | MAC_ARGS)
        args = {"key": site.key} | MAC_ARGS
        assert "maps_file is missing" in error_of("PrefixMatchEncrypt", args)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"mtu": 1279}, "mtu is 1279; must be within 1280..65535"),
        ({"mtu": 65536}, "mtu is 65536; must be within 1280..65535"),
        ({"src_mac": "02:00"}, "src_mac"),
        ({"dst_mac": ""}, "dst_mac"),
        ({"pool": [{"prefix": "10.0.0.1/24"}]}, r"pool\[0\].prefix is \"10.0.0.1/24\""),
        ({"pool": [{"prefix": "10.0.0.0/33"}]}, "must be an address or a prefix"),
        ({"pool": [{"prefix": "10.0.0.0/-1"}]}, "must be an address or a prefix"),
        ({"pool": [{"prefix": "there"}]}, "must be an address or a prefix"),
        ({"pool": [{}]}, "must be an address or a prefix"),
        ({"pool": [{"prefix": "10.0.0.0/15"}]}, "at most 65536 addresses"),
        ({"pool": [{"prefix": "10.0.0.0/16"}, {"prefix": "::1"}]}, "at most 65536 addresses"),
        ({"pool": [{"prefix": "10.0.0.0/30"}, {"prefix": "10.0.0.2"}]}, "10.0.0.2 is given twice"),
        ({"pool": [{"prefix": "2001:db8::/64"}]}, "at most 65536 addresses"),
    ],
)
def test_arguments_that_make_no_sense(site: Site, more: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        new_engine().create_module("m", "PrefixMatchEncrypt", site.plan | MAC_ARGS | more)


def test_no_answer_shows_a_key(site: Site, tmp_path: Path) -> None:
    shown = []
    for mclass in KEY_OWNERS:
        engine = new_engine()
        engine.create_module("m", mclass, args_with(site, mclass, site.key))
        shown += [engine.module_info("m"), engine.module_command("m", "e2_stats", {})]
    engine = new_engine()
    engine.create_module("m", "PrefixMatchEncrypt", site.plan | MAC_ARGS)
    shown += [engine.module_command("m", "get_pool", {})]
    text = repr(shown)
    keys = site.gateway.keys
    for secret in (site.site_key, keys.header, keys.payload, keys.pool, keys.flow4, *keys.fields):
        assert secret.hex() not in text.lower()
        assert repr(secret)[2:-1] not in text


class TestUpdate:
    def test_to_the_next_epoch_and_errors_leave_all(self, site: Site, tmp_path: Path) -> None:
        after = Site(tmp_path / "after", site_key=bytes(32), epoch=4)
        engine = new_engine()
        engine.create_module("e", "PrefixMatchEncrypt", site.plan | MAC_ARGS)
        keys = [site.key, after.key]
        engine.create_module("d", "PrefixMatchDecrypt", {"keys": keys} | MAC_ARGS)

        def check(used: Site) -> None:
            packets = [*FRAMES.values()]
            encrypted = engine.run_packets("e", packets)[0]
            for packet, made in zip(packets, encrypted, strict=True):
                assert made == used.expected(packet, made)
            assert engine.run_packets("d", encrypted)[0] == [restored(p) for p in packets]

        check(site)
        engine.module_command("e", "update", after.plan)
        check(after)
        spoiled = tmp_path / "spoiled"
        spoiled.write_bytes(b"no maps")
        spoiled.chmod(0o600)
        none = str(tmp_path / "none")
        for bad in (
            {"key": {"file": none}}, {"key": {}}, {"maps_file": none}, {"maps_file": str(spoiled)},
            {"maps_file": ""}, {"pool": [{"prefix": "x"}]}, {"key": after.key | {"epoch": 256}},
        ):  # fmt: skip
            with pytest.raises(EngineError):
                engine.module_command("e", "update", site.plan | bad)
        with pytest.raises(EngineError):
            engine.module_command("d", "update", {"keys": [site.key, {"file": none, "epoch": 9}]})
        check(after)
        engine.module_command("d", "update", {"keys": [site.key]})
        (encrypted,) = engine.run_packets("e", [FRAMES["tcp"]])[0]
        assert engine.run_packets("d", [encrypted]) == {}
        assert engine.module_info("d")["drops"]["unknown epoch"] == 1

    def test_batches_meet_whole_plans(self, site: Site, tmp_path: Path) -> None:
        """Hundreds of updates while a worker encrypts; the other side opens every packet."""
        after = Site(tmp_path / "after", site_key=bytes(32), epoch=4)
        engine = new_engine()
        engine.create_module("source", "Source", {})
        flows = [*FRAMES.values()][:32]
        engine.create_module("templates", "Rewrite", {"templates": flows})
        engine.create_module("seal", "PayloadSeal", {"key": site.key})
        engine.create_module("e", "PrefixMatchEncrypt", site.encrypts(sealed=True)[1][1])
        epochs = {"fields": [{"offset": 59, "num_bytes": 1}]}
        engine.create_module("by_epoch", "ExactMatch", epochs)
        for gate, used in enumerate((site, after)):
            value = bytes([used.epoch])
            rule = {"gate": gate, "fields": [{"value_bin": value}]}
            engine.module_command("by_epoch", "add", rule)
            ring = {"keys": [used.key], "sealed_payload": True}
            engine.create_module(f"d{gate}", "PrefixMatchDecrypt", ring | MAC_ARGS)
            both = {"keys": [site.key, after.key]}
            engine.create_module(f"o{gate}", "PayloadOpen", both)
            engine.create_module(f"sink{gate}", "Sink", {})
            engine.connect("by_epoch", gate, f"d{gate}", 0)
            engine.connect(f"d{gate}", 0, f"o{gate}", 0)
            engine.connect(f"o{gate}", 0, f"sink{gate}", 0)
        names = ["source", "templates", "seal", "e", "by_epoch"]
        for one, other in pairwise(names):
            engine.connect(one, 0, other, 0)

        def sent() -> int:
            return int(engine.module_info("templates")["ogates"][0]["cnt"])

        engine.add_worker(0, -1)
        engine.resume_all()
        for change in range(300):
            used = after if change % 2 == 0 else site
            engine.module_command("seal", "update", {"key": used.key})
            engine.module_command("e", "update", used.plan)
            enough = sent() + 1
            wait_until(lambda enough=enough: sent() >= enough)  # type: ignore[misc]
        engine.pause_all()

        def passed(name: str) -> tuple[int, int]:
            gate = engine.module_info(name)["ogates"][0]
            return int(gate["cnt"]), int(gate["pkts"])

        batches, packets = passed("templates")
        assert packets == batches * 32
        assert sum(passed(f"o{gate}")[1] for gate in (0, 1)) == packets
        for gate in (0, 1):
            assert passed(f"o{gate}")[1] % 32 == 0 and passed(f"o{gate}")[1] > 0
        for name in ("seal", "e", "by_epoch", "d0", "d1", "o0", "o1"):
            assert sum(engine.module_info(name)["drops"].values()) == 0


class TestNonces:
    def test_a_gateway_that_restarts(self, site: Site) -> None:
        seen: list[bytes] = []
        for _ in range(20):
            for encrypted in site.encrypt(
                [FRAMES["tcp"], FRAMES["gre"], FRAMES["udp6"]] * 20, True
            ):
                seen += [nonce for nonce in nonces_of(encrypted) if any(nonce)]
        assert len(seen) == 20 * 60 * 2
        assert len({*seen}) == len(seen)

    def test_a_nonce_of_the_payload_is_none_of_the_header(self, site: Site) -> None:
        """What PrefixMatchEncrypt seals itself takes a nonce from the same counter."""
        pairs = [nonces_of(packet) for packet in site.encrypt([FRAMES["gre"]] * 100)]
        assert len({nonce for pair in pairs for nonce in pair}) == 200

    def test_two_workers(self, site: Site, tmp_path: Path) -> None:
        engine = new_engine()
        engine.create_module("e", "PrefixMatchEncrypt", site.plan | MAC_ARGS)
        engine.create_module("split", "WorkerSplit", {})
        engine.connect("e", 0, "split", 0)
        paths = [tmp_path / f"out{wid}.pcap" for wid in (0, 1)]
        for wid, path in enumerate(paths):
            engine.add_worker(wid, -1)
            engine.create_port(f"p{wid}", "PCAPPort", 0, 1, 0, 1024, {"write_path": str(path)})
            engine.create_module(f"source{wid}", "Source", {})
            engine.create_module(f"t{wid}", "Rewrite", {"templates": [FRAMES["udp"]]})
            engine.create_module(f"out{wid}", "PortOut", {"port": f"p{wid}"})
            engine.connect(f"source{wid}", 0, f"t{wid}", 0)
            engine.connect(f"t{wid}", 0, "e", 0)
            engine.connect("split", wid, f"out{wid}", 0)

        def fewest() -> int:
            return int(min(gate["pkts"] for gate in engine.module_info("split")["ogates"]))

        engine.resume_all()
        wait_until(lambda: fewest() > 2000)
        engine.pause_all()
        engine.reset_modules()
        seen = []
        for wid, path in enumerate(paths):
            engine.destroy_port(f"p{wid}")
            with RawPcapReader(str(path)) as reader:
                seen.append([nonces_of(data)[0] for data, _ in islice(reader, 5000)])
        assert [len({nonce[:8] for nonce in nonces}) for nonces in seen] == [1, 1]
        assert min(map(len, seen)) > 2000
        assert len({*seen[0], *seen[1]}) == len(seen[0]) + len(seen[1])

# SPDX-License-Identifier: BSD-3-Clause
"""Files of EspEncrypt and EspDecrypt, and SAs that change."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest
from scapy.layers.ipsec import ESP
from scapy.layers.l2 import Ether

from esp_support import DRAW, ETHER, Sa, drops, esp, push, sa_file, sealed_frames, udp
from harness import Engine, EngineError, new_engine


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "it has no security association"),
        ("# 0x100", "it has no security association"),
        ("0x100 {k}", r"line 1: must be SPI KEY SOURCE DESTINATION \[esn\] \[no-anti-replay\]"),
        ("255 {k} {e}", r"line 1: the SPI '255' must be a number within 256\.\.4294967295"),
        ("0x1ffffffff {k} {e}", "line 1: the SPI '0x1ffffffff' must be"),
        ("spi {k} {e}", "line 1: the SPI 'spi' must be"),
        ("\n\n0x100 {k}00 {e}", "line 3: the key must be 40 hexadecimal digits, of AES-128, or 72"),
        ("0x100 {k:.39}g {e}", "line 1: the key must be 40 hexadecimal digits"),
        ("0x100 {k:.39} {e}", "line 1: the key must be 40 hexadecimal digits"),
        ("0x100 {k} 1.2.3 4.5.6.7", r"line 1: '1\.2\.3' must be an IPv4 or IPv6 address"),
        ("0x100 {k} 1.2.3.4 x", "line 1: 'x' must be an IPv4 or IPv6 address"),
        ("0x100 {k} 1.2.3.4 ::1", r"line 1: '::1' must be of the same family as '1\.2\.3\.4'"),
        ("0x100 {k} {e} ens", "line 1: 'ens' is unknown; expected esn or no-anti-replay"),
        ("0x100 {k} {e} esn no-anti-replay", "line 1: esn needs the protection from replay"),
        ("0x100 {k} {e}\n256 {o} {e}", "line 2: the SPI is given twice"),
        ("0x100 {k} {e}\n257 {k} {e}", "line 2: the key is that of SPI 0x00000100; each needs one"),
    ],
)
@pytest.mark.parametrize("mclass", ["EspEncrypt", "EspDecrypt"])
def test_files_that_are_wrong(tmp_path: Path, mclass: str, line: str, message: str) -> None:
    key, other = DRAW.randbytes(20).hex(), DRAW.randbytes(20).hex()
    path = sa_file(tmp_path, line.format(k=key, o=other, e="192.0.2.1 192.0.2.2"))
    with pytest.raises(EngineError, match=f"{mclass}.sa_file: '{path}': {message}") as caught:
        new_engine().create_module("m", mclass, {"sa_file": path})
    assert caught.value.code == errno.EINVAL
    assert key[:30] not in str(caught.value)


@pytest.mark.parametrize("mclass", ["EspEncrypt", "EspDecrypt"])
def test_files_of_others_are_refused(tmp_path: Path, mclass: str) -> None:
    path = Path(sa_file(tmp_path, Sa()))
    path.chmod(0o640)
    with pytest.raises(EngineError, match="must be private: chmod 600"):
        new_engine().create_module("m", mclass, {"sa_file": str(path)})
    with pytest.raises(EngineError, match="can't read '/nowhere'"):
        new_engine().create_module("m", mclass, {"sa_file": "/nowhere"})
    with pytest.raises(EngineError, match=f"{mclass}.sa_file is missing"):
        new_engine().create_module("m", mclass, {})


def test_arguments_that_are_wrong(tmp_path: Path) -> None:
    path = sa_file(tmp_path, Sa())
    for args, message in [
        ({"mtu": 127}, r"EspEncrypt.mtu is 127; must be within 128\.\.65535"),
        ({"mtu": 65536}, "EspEncrypt.mtu is 65536"),
        ({"ttl": 256}, r"EspEncrypt.ttl is 256; must be within 1\.\.255"),
        ({"spi": 5}, f"EspEncrypt.spi: '{path}' has no SPI 0x00000005"),
    ]:
        with pytest.raises(EngineError, match=message):
            new_engine().create_module("m", "EspEncrypt", {"sa_file": path, **args})


def test_a_key_encrypts_in_one_module(tmp_path: Path) -> None:
    sa = Sa()
    engine = esp("EspEncrypt", tmp_path, sa)
    args = {"sa_file": sa_file(tmp_path, sa)}
    with pytest.raises(
        EngineError, match="the key of SPI 0x00001001 encrypts already in this process"
    ):
        engine.create_module("other", "EspEncrypt", args)
    engine.create_module("back", "EspDecrypt", args)
    engine.destroy_module("m")
    engine.create_module("other", "EspEncrypt", args)


def test_a_clock_that_is_behind_is_refused(tmp_path: Path) -> None:
    path = sa_file(tmp_path, Sa())
    later = time.time() + 3600
    os.utime(path, (later, later))
    with pytest.raises(EngineError, match="the clock is behind the last change"):
        new_engine().create_module("m", "EspEncrypt", {"sa_file": path})


def test_ivs_go_on_where_a_module_begins_anew(tmp_path: Path) -> None:
    sa = Sa()
    ivs: list[int] = []
    for _ in range(3):
        engine = esp("EspEncrypt", tmp_path, sa)
        frames = push(engine, *[ETHER / udp()] * 100)
        ivs += [int.from_bytes(Ether(frame)[ESP].data[:8], "big") for frame in frames]
        engine.destroy_module("m")
    assert ivs == sorted(set(ivs))


def test_another_sa_while_the_module_lives(tmp_path: Path) -> None:
    old, new = Sa(), Sa(6, spi=0x2002, key_bytes=32, flags=("esn",))
    there, back = new_engine(), new_engine()
    path = sa_file(tmp_path, old, new)
    there.create_module("m", "EspEncrypt", {"sa_file": path})
    back.create_module("m", "EspDecrypt", {"sa_file": path})

    def cross(count: int = 1) -> list[int]:
        sealed = push(there, *[ETHER / udp()] * count)
        assert len(push(back, *sealed)) == count
        return [Ether(frame)[ESP].seq for frame in sealed]

    assert cross(2) == [1, 2]
    there.module_command("m", "update", {"sa_file": path})
    assert cross() == [3]  # the same SA goes on
    with pytest.raises(EngineError, match="has no SPI 0x00000007"):
        there.module_command("m", "update", {"sa_file": path, "spi": 7})
    assert cross() == [4]
    there.module_command("m", "update", {"sa_file": path, "spi": 0x2002})
    assert cross() == [1]
    assert there.module_command("m", "get_status", {}) == {
        "spi": 0x2002,
        "packets": 1,
        "bytes": len(udp()),
        "packets_left": 2**64 - 2,
    }
    found = back.module_command("m", "get_status", {})["sas"]
    assert [(sa["spi"], sa["packets"], sa["highest"]) for sa in found] == [
        (0x1001, 4, 4),
        (0x2002, 1, 1),
    ]

    replayed = push(there, ETHER / udp())
    assert push(back, *replayed) != []
    back.module_command("m", "update", {"sa_file": sa_file(tmp_path, new)})
    assert push(back, *replayed) == []  # what was seen stays seen
    assert push(back, *sealed_frames(old, first=100)) == []
    assert drops(back) == {"replayed": 1, "unknown SA": 1}
    with pytest.raises(EngineError, match="line 1"):
        back.module_command("m", "update", {"sa_file": sa_file(tmp_path, "x")})
    assert cross() == [3]


def test_keys_are_nowhere_to_be_read(tmp_path: Path) -> None:
    sa = Sa()
    for mclass in ("EspEncrypt", "EspDecrypt"):
        engine = esp(mclass, tmp_path, sa)
        text = str(engine.module_info("m")) + str(engine.module_command("m", "get_status", {}))
        assert sa.secret.hex()[:16] not in text
        engine.destroy_module("m")


def test_sas_change_under_traffic(tmp_path: Path) -> None:
    """Both ends take other files again and again while packets pass: none is lost."""
    free = ("no-anti-replay",)
    sas = [Sa(flags=free), Sa(6, spi=0x2002, key_bytes=32, flags=free)]
    paths = []
    for number, order in enumerate((sas, sas[::-1])):
        folder = tmp_path / str(number)
        folder.mkdir()
        paths.append(sa_file(folder, *order))
    engine = Engine(pool_packets=1024, buffer_bytes=2048)
    engine.add_worker(0, max(os.sched_getaffinity(0)))
    chain = [
        ("Source", {}),
        ("Rewrite", {"templates": [bytes(ETHER / udp())]}),
        ("EspEncrypt", {"sa_file": paths[0]}),
        ("EspDecrypt", {"sa_file": paths[0]}),
        ("Sink", {}),
    ]
    for at, (mclass, args) in enumerate(chain):
        engine.create_module(mclass, mclass, args)
        if at:
            engine.connect(chain[at - 1][0], 0, mclass, 0)
    engine.resume_all()
    for number in range(200):
        for mclass in ("EspEncrypt", "EspDecrypt"):
            engine.module_command(mclass, "update", {"sa_file": paths[number % 2]})
    engine.pause_all()
    found = engine.module_command("EspDecrypt", "get_status", {})["sas"]
    assert all(sa["packets"] > 0 for sa in found)
    passed = engine.module_info("Sink")["igates"][0]["pkts"]
    assert passed == sum(sa["packets"] for sa in found)
    for mclass in ("EspEncrypt", "EspDecrypt"):
        assert not any(engine.module_info(mclass)["drops"].values())
    engine.reset_modules()

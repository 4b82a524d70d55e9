# SPDX-License-Identifier: BSD-3-Clause
"""PrefixMap over sets of values with names, and what a later map keeps; keys of a site."""

from __future__ import annotations

import hmac
import random
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from embark_support import RANGES, Site, write_key

from bess_plugins._crypto import (
    CryptoError,
    DuplicateRangeError,
    PrefixMap,
    SiteKeys,
    TooManySetsError,
)
from crypto_support import FLOW, KEY, SEED, encrypt
from embark_gw.rules import ranges
from embark_gw.rules.pool import read_pool
from harness import new_engine
from twins import prefix_match_twin as twin

SITE_KEY = bytes(range(100, 132))


def sets_of(draw: random.Random, bits: int, count: int) -> tuple[list[twin.Range], list[int]]:
    """Ranges of a few sets each, with an id per set; disjoint within a set."""
    ranges, ids = [], []
    for _ in range(count):
        name = draw.getrandbits(128) | 1
        cuts = sorted(draw.sample(range(2**bits), 2 * draw.randint(1, 4)))
        for first, last in zip(cuts[::2], cuts[1::2], strict=True):
            ranges.append((first, last))
            ids.append(name)
    return ranges, ids


def pair(
    ranges: list[twin.Range], ids: list[int], bits: int, **more: object
) -> tuple[PrefixMap, twin.PrefixMap]:
    made = PrefixMap(ranges, bits, KEY, seed=SEED, ids=ids, **more)  # type: ignore[arg-type]
    oracle = twin.PrefixMap(ranges, bits, KEY, SEED, ids=ids, **more)  # type: ignore[arg-type]
    assert made.set_prefixes() == oracle.set_prefixes
    assert (made.prefix_bits, made.sets) == (oracle.prefix_bits, len(oracle.set_prefixes))
    assert [rule.tolist() for rule in made.encrypted_rules()] == oracle.rules
    values = [0, 2**bits - 1, *(value for one in ranges for value in one)]
    wanted = [oracle.encrypt(value, FLOW) for value in values]
    assert encrypt(made, values, [FLOW] * len(values)) == wanted
    return made, oracle


@pytest.mark.parametrize("bits", [16, 20, 32])
@pytest.mark.parametrize("count", [1, 5, 40])
def test_sets_as_the_twin(bits: int, count: int) -> None:
    pair(*sets_of(random.Random(count), bits, count), bits)


def test_a_set_of_many_ranges_has_one_prefix() -> None:
    ranges = [(value, value + 1) for value in range(0, 9000, 3)]
    made = PrefixMap(ranges, 128, KEY, ids=[5] * len(ranges))
    assert made.sets == 2
    assert len({int(rule[0]) for rule in made.encrypted_rules()}) == 1


@pytest.mark.parametrize("bits", [16, 128])
def test_what_is_kept_keeps_its_prefix(bits: int) -> None:
    draw = random.Random(bits)
    ranges, ids = sets_of(draw, 16, 30)
    before, _ = pair(ranges, ids, bits)
    more, more_ids = sets_of(draw, 16, 3)
    after, _ = pair(
        ranges + more,
        ids + more_ids,
        bits,
        prefix_bits=before.prefix_bits,
        kept=before.set_prefixes(),
    )
    old, new = before.set_prefixes(), after.set_prefixes()
    assert len({*new.values()}) == len(new)
    assert {name: new[name] for name in old if name in new} == {
        name: prefix for name, prefix in old.items() if name in new
    }
    fresh = {prefix for name, prefix in new.items() if name not in old}
    assert fresh
    assert not fresh & {*old.values()}  # packets on their way don't find another meaning


def test_prefixes_of_sets_that_are_gone_serve_where_there_is_no_room() -> None:
    before = PrefixMap([(n, n) for n in range(3)], 16, KEY, ids=[1, 2, 4], prefix_bits=2)
    kept = before.set_prefixes()
    after, _ = pair([(5, 6), (0, 0), (9, 9)], [9, 1, 17], 16, prefix_bits=2, kept=kept)
    assert after.set_prefixes()[1] == kept[1]
    with pytest.raises(TooManySetsError):
        PrefixMap([(n, n) for n in range(4)], 16, KEY, ids=[1, 2, 4, 8], prefix_bits=2, kept=kept)


@pytest.mark.parametrize("seed", range(20))
def test_prefixes_of_addresses_are_forwarded(seed: int) -> None:
    """None is of loopback, link-local or multicast addresses."""
    ranges = [(n, n) for n in range(200)]
    made = PrefixMap(ranges, 128, KEY, prefix_bits=8, seed=bytes([seed] * 16))
    first = {int(rule[0]) for rule in made.encrypted_rules()}
    assert len(first) == 200
    assert not first & {0x00, 0xFE, 0xFF}
    with pytest.raises(TooManySetsError):  # 256 prefixes, of which 253 can be used
        PrefixMap([(n, n) for n in range(253)], 128, KEY, prefix_bits=8)


@pytest.mark.parametrize(
    ("ids", "kept", "bits", "error", "message"),
    [
        ([1], None, 0, CryptoError, "1 ids for 2 ranges"),
        ([1, 0], None, 0, CryptoError, "has the id 0"),
        ([1, 1], None, 0, DuplicateRangeError, "overlaps range 0 of the same id"),
        ([1, 2**128], None, 0, CryptoError, "more than 128 bits"),
        ([1, 2], {1: 3}, 0, CryptoError, "their bits are not given"),
        ([1, 2], {1: 16}, 4, CryptoError, "has more than 4 bits"),
        ([1, 2], {1: 3, 2: 3}, 4, DuplicateRangeError, "is kept twice"),
        ([1, 2], {1: 2**32}, 4, CryptoError, "more than 32 bits"),
        (None, {1: 3}, 4, CryptoError, "ranges have none"),
    ],
)
def test_names_that_make_no_sense(
    ids: list[int] | None,
    kept: dict[int, int] | None,
    bits: int,
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        PrefixMap([(1, 5), (4, 9)], 16, KEY, prefix_bits=bits, ids=ids, kept=kept)


def test_names_of_texts_are_a_prf_under_the_site_key(tmp_path: Path) -> None:
    key = write_key(tmp_path / "site.key", SITE_KEY)
    derived = HKDF(SHA256(), 16, b"bess-e2 embark 1", b"rule sets").derive(SITE_KEY)
    texts = [b"", b"src 0-5", b"dst 0-5"]
    wanted = [int.from_bytes(hmac.digest(derived, text, "sha256")[:16], "big") for text in texts]
    assert SiteKeys(key).names_of(texts) == wanted


def test_the_pool_is_as_the_module_has_it(tmp_path: Path) -> None:
    site = Site(tmp_path, pool=(("192.0.2.0/30", True), ("2001:db8::7", False)))
    engine = new_engine()
    [(name, args)] = site.encrypts()
    engine.create_module("m", name, args)
    listed = engine.module_command("m", "get_pool", {})["addresses"]
    maps = [PrefixMap(found, 128, bytes(16), seed=bytes(range(16))) for found in RANGES[:2]]
    pool = read_pool(["192.0.2.0/30:nat", "2001:db8::7"])
    clear = [(entry.number.to_bytes(16, "big"), entry.nat) for entry in pool]
    encrypted = SiteKeys(site.key_file).encrypt_pool(maps[0], maps[1], clear)
    mine = [
        {
            "address": ranges.address_text(entry.number),
            "encrypted": ranges.address_text(int.from_bytes(one, "big")),
            "nat": entry.nat,
        }
        for entry, one in zip(pool, encrypted, strict=True)
    ]
    assert mine == [{"nat": False, **one} for one in listed]
    with pytest.raises(DuplicateRangeError, match="given twice"):
        SiteKeys(site.key_file).encrypt_pool(maps[0], maps[1], clear + clear[:1])


def test_key_files_that_others_can_read(tmp_path: Path) -> None:
    key = write_key(tmp_path / "site.key", SITE_KEY)
    key.chmod(0o640)
    with pytest.raises(PermissionError, match="chmod 600"):
        SiteKeys(key)
    key.chmod(0o600)
    key.write_text("abc\n")
    with pytest.raises(CryptoError, match="64 hexadecimal digits"):
        SiteKeys(key)

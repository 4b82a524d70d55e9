# SPDX-License-Identifier: BSD-3-Clause
"""AES, counter mode and GCM: published vectors, and another implementation on random input.

tests/unit/test_crypto_levels.py runs this file again for each instruction set.
"""

from __future__ import annotations

import random

import numpy as np
import pytest
from Crypto.Cipher import AES
from numpy.typing import NDArray

from bess_plugins._crypto import AesKey, CryptoError, GcmKey, KeyLengthError
from crypto_support import KEY, rows

# Around a block, a vector of 4, the strides of 16 and 32 blocks, and a packet.
LENGTHS = [*range(0, 70), 79, 80, 81, 127, 128, 129, 191, 192, 193, 239, 240, 241, 255, 256, 257]
LENGTHS += [271, 272, 273, 300, 511, 512, 513, 527, 767, 768, 1023, 1024, 1025, 1500, 4096, 5000]
KEY_BYTES = (16, 32)


def unhex(text: str) -> bytes:
    return bytes.fromhex(text)


def one(data: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8).reshape(1, len(data))


def seal(key: bytes, nonce: bytes, text: bytes, aad: bytes = b"") -> tuple[bytes, bytes]:
    sealed, tags = GcmKey(key).seal(one(nonce), one(text), aad)
    return bytes(sealed[0]), bytes(tags[0])


# FIPS 197, appendices B, C.1 and C.3; SP 800-38A, F.1.1 and F.1.5.
BLOCKS = [
    ("2b7e151628aed2a6abf7158809cf4f3c", "3243f6a8885a308d313198a2e0370734",
     "3925841d02dc09fbdc118597196a0b32"),
    ("000102030405060708090a0b0c0d0e0f", "00112233445566778899aabbccddeeff",
     "69c4e0d86a7b0430d8cdb78070b4c55a"),
    ("2b7e151628aed2a6abf7158809cf4f3c", "6bc1bee22e409f96e93d7e117393172a",
     "3ad77bb40d7a3660a89ecaf32466ef97"),
    ("2b7e151628aed2a6abf7158809cf4f3c", "ae2d8a571e03ac9c9eb76fac45af8e51",
     "f5d3d58503b9699de785895a96fdbaaf"),
    ("2b7e151628aed2a6abf7158809cf4f3c", "30c81c46a35ce411e5fbc1191a0a52ef",
     "43b1cd7f598ece23881b00e3ed030688"),
    ("2b7e151628aed2a6abf7158809cf4f3c", "f69f2445df4f9b17ad2b417be66c3710",
     "7b0c785e27e8ad3f8223207104725dd4"),
    ("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
     "00112233445566778899aabbccddeeff", "8ea2b7ca516745bfeafc49904b496089"),
    ("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
     "6bc1bee22e409f96e93d7e117393172a", "f3eed1bdb5d2a03c064b5a7e3db181f8"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "block", "wanted"), BLOCKS)
def test_published_blocks(key: str, block: str, wanted: str) -> None:
    assert bytes(AesKey(unhex(key)).blocks(one(unhex(block)))[0]) == unhex(wanted)


def test_published_counter_mode() -> None:
    """SP 800-38A, F.5.1."""
    text = "".join(block for _, block, _ in BLOCKS[2:6])
    wanted = (
        "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff"
        "5ae4df3edbd5d35e5b4f09020db03eab1e031dda2fbe03d1792170a0f3009cee"
    )
    key = AesKey(unhex(BLOCKS[2][0]))
    nonce = unhex("f0f1f2f3f4f5f6f7f8f9fafb")
    assert bytes(key.ctr(one(nonce), one(unhex(text)), 0xFCFDFEFF)[0]) == unhex(wanted)


GCM_KEY = "feffe9928665731c6d6a8f9467308308"
GCM_NONCE = "cafebabefacedbaddecaf888"
GCM_TEXT = (
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
    "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255"
)
GCM_SEALED = (
    "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e"
    "21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091473f5985"
)
GCM_SEALED_256 = (
    "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
    "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad"
)
# McGrew and Viega, "The Galois/Counter Mode of Operation", test cases 1 to 4, and 13 to 16.
GCM = [
    ("00" * 16, "00" * 12, "", "", "", "58e2fccefa7e3061367f1d57a4e7455a"),
    ("00" * 16, "00" * 12, "", "00" * 16, "0388dace60b6a392f328c2b971b2fe78",
     "ab6e47d42cec13bdf53a67b21257bddf"),
    (GCM_KEY, GCM_NONCE, "", GCM_TEXT, GCM_SEALED, "4d5c2af327cd64a62cf35abd2ba6fab4"),
    (GCM_KEY, GCM_NONCE, "feedfacedeadbeeffeedfacedeadbeefabaddad2", GCM_TEXT[:120],
     GCM_SEALED[:120], "5bc94fbc3221a5db94fae95ae7121a47"),
    ("00" * 32, "00" * 12, "", "", "", "530f8afbc74536b9a963b4f1c4cb738b"),
    ("00" * 32, "00" * 12, "", "00" * 16, "cea7403d4d606b6e074ec5d3baf39d18",
     "d0d1c8a799996bf0265b98b5d48ab919"),
    (2 * GCM_KEY, GCM_NONCE, "", GCM_TEXT, GCM_SEALED_256, "b094dac5d93471bdec1a502270e3cc6c"),
    (2 * GCM_KEY, GCM_NONCE, "feedfacedeadbeeffeedfacedeadbeefabaddad2", GCM_TEXT[:120],
     GCM_SEALED_256[:120], "76fc6ece0f4e1768cddf8853bb2d551b"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "nonce", "aad", "text", "sealed", "tag"), GCM)
def test_published_gcm(key: str, nonce: str, aad: str, text: str, sealed: str, tag: str) -> None:
    assert seal(unhex(key), unhex(nonce), unhex(text), unhex(aad)) == (unhex(sealed), unhex(tag))


@pytest.mark.parametrize("count", [*range(0, 41), 64, 100, 1000])
def test_blocks_like_another_implementation(count: int) -> None:
    draw = random.Random(count)
    key, data = draw.randbytes(draw.choice(KEY_BYTES)), draw.randbytes(16 * count)
    made = AesKey(key).blocks(np.frombuffer(data, np.uint8).reshape(count, 16))
    assert made.tobytes() == AES.new(key, AES.MODE_ECB).encrypt(data)


@pytest.mark.parametrize("length", LENGTHS)
def test_counter_mode_like_another_implementation(length: int) -> None:
    draw = random.Random(length)
    key = draw.randbytes(draw.choice(KEY_BYTES))
    nonces = [draw.randbytes(12) for _ in range(3)]
    packets = [draw.randbytes(length) for _ in range(3)]
    counter = draw.choice([0, 1, 2, 0xFE, 0xFFFF, 0xFFFFFFF0 - length])
    made = AesKey(key).ctr(rows(nonces, 12), rows3(packets), counter)
    for nonce, packet, row in zip(nonces, packets, made, strict=True):
        other = AES.new(key, AES.MODE_CTR, nonce=nonce, initial_value=counter)
        assert bytes(row) == other.encrypt(packet)


def rows3(packets: list[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(packets), np.uint8).reshape(3, len(packets[0]))


@pytest.mark.parametrize("length", LENGTHS)
def test_gcm_like_another_implementation(length: int) -> None:
    draw = random.Random(length)
    for aad_length in (0, 1, 16, 20, 47, 48, 49, 64, 255, 256, 300):
        key, nonce = draw.randbytes(draw.choice(KEY_BYTES)), draw.randbytes(12)
        text, aad = draw.randbytes(length), draw.randbytes(aad_length)
        other = AES.new(key, AES.MODE_GCM, nonce=nonce)
        other.update(aad)
        sealed, tag = other.encrypt_and_digest(text)
        assert seal(key, nonce, text, aad) == (sealed, tag), (length, aad_length)
        opened, right = GcmKey(key).open(one(nonce), one(sealed), one(tag), aad)
        assert right.tolist() == [True] and bytes(opened[0]) == text


def test_in_place() -> None:
    draw = random.Random(1)
    text, nonce = draw.randbytes(1500), one(draw.randbytes(12))
    sealed, tag = seal(KEY, bytes(nonce[0]), text, b"head")
    buffer = one(text).copy()
    _, tags = GcmKey(KEY).seal(nonce, buffer, b"head", buffer)
    assert (bytes(buffer[0]), bytes(tags[0])) == (sealed, tag)
    assert GcmKey(KEY).open(nonce, buffer, tags, b"head", buffer)[1].all()
    assert bytes(buffer[0]) == text


@pytest.mark.parametrize("length", [0, 1, 16, 64, 255, 256, 1000])
def test_a_changed_bit_anywhere_is_found(length: int) -> None:
    draw = random.Random(length)
    text, nonce, aad = draw.randbytes(length), draw.randbytes(12), draw.randbytes(20)
    sealed, tag = seal(KEY, nonce, text, aad)
    parts = [nonce, sealed, tag, aad]
    for which, part in enumerate(parts):
        for bit in {0, 7, 8 * len(part) - 1, draw.randrange(max(1, 8 * len(part)))}:
            if not 0 <= bit < 8 * len(part):
                continue
            changed = bytearray(part)
            changed[bit // 8] ^= 1 << bit % 8
            given = [bytes(changed) if i == which else old for i, old in enumerate(parts)]
            out = np.full((1, length), 0xEE, np.uint8)
            _, right = GcmKey(KEY).open(one(given[0]), one(given[1]), one(given[2]), given[3], out)
            assert not right[0] and (out == 0xEE).all()


@pytest.mark.parametrize("length", [0, 15, 17, 24, 31, 33])
def test_key_of_another_length(length: int) -> None:
    for kind in (AesKey, GcmKey):
        with pytest.raises(KeyLengthError, match=f"the key has {length} bytes; must be 16 or 32"):
            kind(bytes(length))


def test_arguments_that_do_not_fit() -> None:
    key, packets = AesKey(KEY), np.zeros((2, 64), np.uint8)
    with pytest.raises(KeyLengthError, match="a nonce has 16 bytes; must be 12"):
        key.ctr(np.zeros((2, 16), np.uint8), packets)
    with pytest.raises(CryptoError, match="3 nonces for 2 rows"):
        key.ctr(np.zeros((3, 12), np.uint8), packets)
    with pytest.raises(CryptoError, match="are too few for 64 bytes"):
        key.ctr(np.zeros((2, 12), np.uint8), packets, 0xFFFFFFFD)
    with pytest.raises(CryptoError, match=r"out has shape \(2, 63\); must be \(2, 64\)"):
        key.ctr(np.zeros((2, 12), np.uint8), packets, out=np.zeros((2, 63), np.uint8))
    with pytest.raises(CryptoError, match="1 tags for 2 rows"):
        GcmKey(KEY).open(np.zeros((2, 12), np.uint8), packets, np.zeros((1, 16), np.uint8))


def test_keys_stay_secret() -> None:
    secret = bytes(range(0x41, 0x51))
    for made in (AesKey(secret), GcmKey(secret)):
        for text in (repr(made), str(made)):
            assert secret.hex() not in text and secret.decode() not in text
        with pytest.raises(TypeError):
            made.__reduce__()

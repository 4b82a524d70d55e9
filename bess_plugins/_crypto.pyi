# SPDX-License-Identifier: BSD-3-Clause
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

# Anything with a contiguous buffer of unsigned bytes.
_Bytes = bytes | bytearray | memoryview | NDArray[np.uint8]
_Rows = NDArray[np.uint8]  # two dimensions, contiguous

class CryptoError(ValueError): ...
class KeyLengthError(CryptoError): ...
class DuplicateRangeError(CryptoError): ...
class TooManySetsError(CryptoError): ...
class OutOfDomainError(CryptoError): ...

def isa() -> str: ...
def best_level() -> str: ...

class AesKey:
    def __init__(self, key: _Bytes) -> None: ...
    def blocks(self, blocks: _Rows, out: _Rows | None = None) -> _Rows: ...
    def ctr(
        self, nonces: _Rows, packets: _Rows, counter: int = 1, out: _Rows | None = None
    ) -> _Rows: ...

class GcmKey:
    def __init__(self, key: _Bytes) -> None: ...
    def seal(
        self, nonces: _Rows, packets: _Rows, aad: _Bytes = b"", out: _Rows | None = None
    ) -> tuple[_Rows, _Rows]: ...
    def open(
        self,
        nonces: _Rows,
        packets: _Rows,
        tags: _Rows,
        aad: _Bytes = b"",
        out: _Rows | None = None,
    ) -> tuple[_Rows, NDArray[np.bool_]]: ...

class PrefixMap:
    def __init__(
        self,
        ranges: Iterable[tuple[int, int]],
        domain_bits: int,
        key: _Bytes,
        *,
        prefix_bits: int = 0,
        seed: _Bytes | None = None,
        ids: Sequence[int] | None = None,
        kept: Mapping[int, int] | None = None,
    ) -> None: ...
    @property
    def domain_bits(self) -> int: ...
    @property
    def prefix_bits(self) -> int: ...
    @property
    def sets(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    def set_prefixes(self) -> dict[int, int]: ...
    def encrypted_rules(self) -> list[NDArray[np.uint32]]: ...
    # Domains of up to 64 bits; wider ones.
    @overload
    def encrypt_values(
        self,
        values: NDArray[np.uint64],
        flow_seeds: _Rows,
        out: NDArray[np.uint64] | None = None,
    ) -> NDArray[np.uint64]: ...
    @overload
    def encrypt_values(
        self, values: _Rows, flow_seeds: _Rows, out: _Rows | None = None
    ) -> _Rows: ...
    def encrypt_ipv4(
        self, values: NDArray[np.uint32], flow_seeds: _Rows, out: _Rows | None = None
    ) -> _Rows: ...

def write_prefix_maps(
    path: str | bytes | os.PathLike[str],
    src: PrefixMap,
    dst: PrefixMap,
    sport: PrefixMap,
    dport: PrefixMap,
) -> None: ...

class SiteKeys:
    def __init__(self, path: str | bytes | os.PathLike[str]) -> None: ...
    def names_of(self, texts: Iterable[bytes]) -> list[int]: ...
    def encrypt_pool(
        self, src: PrefixMap, dst: PrefixMap, addresses: Iterable[tuple[bytes, bool]]
    ) -> list[bytes]: ...

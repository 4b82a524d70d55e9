# SPDX-License-Identifier: BSD-3-Clause
# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# distutils: language = c++
"""AES and PrefixMatch of ext/crypto over whole arrays.

Wherever many packets or values are taken, row i of each array belongs to the same one. Keys can't be
read back, and are wiped from memory with the object that holds them.
"""

from errno import EINVAL as _EINVAL
from os import fsencode as _fsencode

import numpy as _np

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.memory cimport unique_ptr
from libcpp.string cimport string
from libcpp.vector cimport vector


include "crypto.pxi"


class CryptoError(ValueError):
    """Keys, ranges or values that can't be taken."""


class KeyLengthError(CryptoError):
    """A key, seed or nonce of another length than it must have."""


class DuplicateRangeError(CryptoError):
    """A range is given twice."""


class TooManySetsError(CryptoError):
    """There are more sets of ranges than prefixes."""


class OutOfDomainError(CryptoError):
    """A range or value that the domain doesn't hold."""


cdef Py_ssize_t _BLOCK = 16
cdef Py_ssize_t _NONCE = 12

_ERRORS = {17: DuplicateRangeError, 28: TooManySetsError, 34: OutOfDomainError}  # errno values


cdef Status _isa_status = check_isa()
if not _isa_status.ok():
    raise ImportError(_isa_status.message.decode())


def isa() -> str:
    """The instruction set in use."""
    return isa_name(c_isa()).decode()


def best_level() -> str:
    """The best one that this CPU has."""
    return isa_name(best_isa()).decode()


cdef int check_length(str what, Py_ssize_t got, Py_ssize_t wanted) except -1:
    if got != wanted:
        raise KeyLengthError(f"{what} has {got} bytes; must be {wanted}")
    return 0


cdef int check_key(Py_ssize_t got) except -1:
    if got not in (_BLOCK, 2 * _BLOCK):
        raise KeyLengthError(f"the key has {got} bytes; must be {_BLOCK} or {2 * _BLOCK}")
    return 0


cdef int check_rows(str what, Py_ssize_t got, Py_ssize_t wanted) except -1:
    if got != wanted:
        raise CryptoError(f"{got} {what} for {wanted} rows")
    return 0


cdef int check_out(const uint8_t[:, ::1] rows, uint8_t[:, ::1] out) except -1:
    if out.shape[0] != rows.shape[0] or out.shape[1] != rows.shape[1]:
        raise CryptoError(
            f"out has shape ({out.shape[0]}, {out.shape[1]}); "
            f"must be ({rows.shape[0]}, {rows.shape[1]})"
        )
    return 0


# The address of the first byte, which an array without bytes doesn't have.
cdef const uint8_t* start(const uint8_t[:, ::1] rows) noexcept nogil:
    return &rows[0, 0] if rows.shape[0] > 0 and rows.shape[1] > 0 else NULL


cdef class AesKey:
    """AES-128 or AES-256, as the key is long: blocks and counter mode."""

    cdef unique_ptr[CAesKey] key

    def __cinit__(self, const uint8_t[::1] key):
        check_key(key.shape[0])
        self.key.reset(new CAesKey(&key[0], key.shape[0]))

    def blocks(self, const uint8_t[:, ::1] blocks, uint8_t[:, ::1] out=None):
        """AES of each row of 16 bytes."""
        check_length("a block", blocks.shape[1], _BLOCK)
        if out is None:
            out = _np.empty((blocks.shape[0], _BLOCK), _np.uint8)
        check_out(blocks, out)
        cdef size_t n = blocks.shape[0]
        if n > 0:
            with nogil:
                aes_blocks(self.key.get()[0], &blocks[0, 0], &out[0, 0], n)
        return out.base

    def ctr(self, const uint8_t[:, ::1] nonces, const uint8_t[:, ::1] packets,
            uint32_t counter=1, uint8_t[:, ::1] out=None):
        """Each row XORed with the key stream of its nonce of 12 bytes."""
        check_length("a nonce", nonces.shape[1], _NONCE)
        check_rows("nonces", nonces.shape[0], packets.shape[0])
        cdef size_t size = packets.shape[1]
        if counter + (size + _BLOCK - 1) // _BLOCK > <uint64_t>1 << 32:
            raise CryptoError(f"counters from {counter} on are too few for {size} bytes")
        if out is None:
            out = _np.empty((packets.shape[0], size), _np.uint8)
        check_out(packets, out)
        cdef Py_ssize_t i
        if size > 0:
            with nogil:
                for i in range(packets.shape[0]):
                    aes_ctr(self.key.get()[0], &nonces[i, 0], counter, &packets[i, 0],
                            &out[i, 0], size)
        return out.base


cdef class GcmKey:
    """AES in Galois/counter mode. A nonce may serve once under a key."""

    cdef unique_ptr[CGcmKey] key

    def __cinit__(self, const uint8_t[::1] key):
        check_key(key.shape[0])
        self.key.reset(new CGcmKey(&key[0], key.shape[0]))

    def seal(self, const uint8_t[:, ::1] nonces, const uint8_t[:, ::1] packets,
             const uint8_t[::1] aad=b"", uint8_t[:, ::1] out=None):
        """Rows encrypted, and a tag of 16 bytes for each."""
        check_length("a nonce", nonces.shape[1], _NONCE)
        check_rows("nonces", nonces.shape[0], packets.shape[0])
        if out is None:
            out = _np.empty((packets.shape[0], packets.shape[1]), _np.uint8)
        check_out(packets, out)
        made = _np.empty((packets.shape[0], _BLOCK), _np.uint8)
        cdef uint8_t[:, ::1] tags = made
        cdef const uint8_t* aad_bytes = &aad[0] if aad.shape[0] > 0 else NULL
        cdef const uint8_t* text = start(packets)
        cdef uint8_t* sealed = <uint8_t*>start(out)
        cdef size_t size = packets.shape[1]
        cdef Py_ssize_t i
        with nogil:
            for i in range(packets.shape[0]):
                gcm_seal(self.key.get()[0], &nonces[i, 0], aad_bytes, aad.shape[0],
                         text, sealed, size, &tags[i, 0])
                if size > 0:
                    text += size
                    sealed += size
        return out.base, made

    def open(self, const uint8_t[:, ::1] nonces, const uint8_t[:, ::1] packets,
             const uint8_t[:, ::1] tags, const uint8_t[::1] aad=b"",
             uint8_t[:, ::1] out=None):
        """Rows decrypted, and whether the tag was right; a row whose wasn't stays as `out` was."""
        check_length("a nonce", nonces.shape[1], _NONCE)
        check_length("a tag", tags.shape[1], _BLOCK)
        check_rows("nonces", nonces.shape[0], packets.shape[0])
        check_rows("tags", tags.shape[0], packets.shape[0])
        if out is None:
            out = _np.zeros((packets.shape[0], packets.shape[1]), _np.uint8)
        check_out(packets, out)
        right = _np.zeros(packets.shape[0], _np.bool_)
        cdef uint8_t[::1] good = right.view(_np.uint8)
        cdef const uint8_t* aad_bytes = &aad[0] if aad.shape[0] > 0 else NULL
        cdef const uint8_t* text = start(packets)
        cdef uint8_t* opened = <uint8_t*>start(out)
        cdef size_t size = packets.shape[1]
        cdef Py_ssize_t i
        with nogil:
            for i in range(packets.shape[0]):
                good[i] = gcm_open(self.key.get()[0], &nonces[i, 0], aad_bytes, aad.shape[0],
                                   text, opened, size, &tags[i, 0])
                if size > 0:
                    text += size
                    opened += size
        return out.base, right


cdef vector[ValueRange] as_ranges(object ranges) except *:
    cdef vector[ValueRange] made
    mask = (1 << 64) - 1
    for i, (first, last) in enumerate(ranges):
        if first < 0 or last < 0 or first >> 128 or last >> 128:
            raise OutOfDomainError(f"range {i} ({first:#x} to {last:#x}) leaves 128 bits")
        made.push_back(value_range(first >> 64, first & mask, last >> 64, last & mask))
    return made


cdef class PrefixMap:
    """Ranges, encrypted, and the interval map with which values are."""

    cdef unique_ptr[EncryptedPrefixes] prefixes
    cdef unique_ptr[CPrefixMap] map
    cdef size_t rule_count

    def __cinit__(self, ranges, int domain_bits, const uint8_t[::1] key, *, int prefix_bits=0,
                  const uint8_t[::1] seed=None):
        check_length("the key", key.shape[0], _BLOCK)
        cdef const uint8_t* seed_bytes = NULL
        if seed is not None:
            check_length("the seed", seed.shape[0], _BLOCK)
            seed_bytes = &seed[0]
        if domain_bits < 0 or prefix_bits < 0:
            raise CryptoError(f"a domain of {domain_bits} bits, prefixes of {prefix_bits}")
        cdef vector[ValueRange] made = as_ranges(ranges)
        cdef unique_ptr[SecretRandom] random
        random.reset(new SecretRandom(seed_bytes))
        self.prefixes.reset(new EncryptedPrefixes())
        cdef EncryptedPrefixes* prefixes = self.prefixes.get()
        with nogil:
            prefixes[0] = encrypt_prefixes(made, domain_bits, prefix_bits, random.get()[0])
        if not prefixes.status.ok():
            kind = _ERRORS.get(prefixes.status.code, CryptoError)
            raise kind(prefixes.status.message.decode())
        with nogil:
            self.map.reset(new CPrefixMap(prefixes[0], &key[0]))
        self.rule_count = made.size()

    @property
    def domain_bits(self):
        return self.map.get().domain_bits()

    @property
    def prefix_bits(self):
        return self.map.get().prefix_bits()

    @property
    def sets(self):
        """How many sets of ranges there are, the empty one included."""
        return self.prefixes.get().sets

    @property
    def nbytes(self):
        """What a lookup may read: the map without `encrypted_rules`."""
        return self.map.get().bytes()

    def encrypted_rules(self):
        """The prefixes of each range, ascending, as numbers of `prefix_bits` bits."""
        cdef vector[uint32_t] prefixes
        cdef size_t i
        rules = []
        for i in range(self.rule_count):
            prefixes = self.prefixes.get().rule(i)
            rules.append(_np.array(prefixes, _np.uint32))
        return rules

    def encrypt_values(self, values, flow_seeds, out=None):
        """Values encrypted, each for the flow whose seed of 16 bytes stands beside it.

        Up to 64 bits they are uint64; in wider domains rows of 16 bytes, big-endian.
        """
        if self.domain_bits <= 64:
            return self.encrypt_short(values, flow_seeds, out)
        return self.encrypt_wide(values, flow_seeds, out)

    cdef encrypt_short(self, const uint64_t[::1] values, const uint8_t[:, ::1] seeds,
                       uint64_t[::1] out):
        cdef size_t n = values.shape[0]
        check_length("a seed", seeds.shape[1], _BLOCK)
        check_rows("seeds", seeds.shape[0], n)
        if out is None:
            out = _np.empty(n, _np.uint64)
        if <size_t>out.shape[0] != n:
            raise CryptoError(f"out has {out.shape[0]} rows; must be {n}")
        cdef size_t outside
        if n > 0:
            with nogil:
                outside = self.map.get().first_outside(&values[0], n)
                if outside == n:
                    self.map.get().encrypt(&values[0], &seeds[0, 0], &out[0], n)
            self.check_inside(outside, n)
        return out.base

    cdef encrypt_wide(self, const uint8_t[:, ::1] values, const uint8_t[:, ::1] seeds,
                      uint8_t[:, ::1] out):
        cdef size_t n = values.shape[0]
        check_length("a value", values.shape[1], _BLOCK)
        check_length("a seed", seeds.shape[1], _BLOCK)
        check_rows("seeds", seeds.shape[0], n)
        if out is None:
            out = _np.empty((n, _BLOCK), _np.uint8)
        check_out(values, out)
        cdef size_t outside
        if n > 0:
            with nogil:
                outside = self.map.get().first_outside_wide(&values[0, 0], n)
                if outside == n:
                    self.map.get().encrypt_wide(&values[0, 0], &seeds[0, 0], &out[0, 0], n)
            self.check_inside(outside, n)
        return out.base

    cdef int check_inside(self, size_t outside, size_t n) except -1:
        if outside < n:
            raise OutOfDomainError(f"value {outside} has more than {self.domain_bits} bits")
        return 0

    def encrypt_ipv4(self, const uint32_t[::1] values, const uint8_t[:, ::1] flow_seeds,
                     uint8_t[:, ::1] out=None):
        """The same as `encrypt_values` of the IPv4-mapped addresses; for domains of 128 bits."""
        cdef size_t n = values.shape[0]
        if self.domain_bits != 128:
            raise OutOfDomainError(
                f"IPv4-mapped addresses have 128 bits, the domain {self.domain_bits}"
            )
        check_length("a seed", flow_seeds.shape[1], _BLOCK)
        check_rows("seeds", flow_seeds.shape[0], n)
        if out is None:
            out = _np.empty((n, _BLOCK), _np.uint8)
        check_out(flow_seeds, out)
        if n > 0:
            with nogil:
                self.map.get().encrypt_ipv4(&values[0], &flow_seeds[0, 0], &out[0, 0], n)
        return out.base


def write_prefix_maps(path, PrefixMap src not None, PrefixMap dst not None,
                      PrefixMap sport not None, PrefixMap dport not None):
    """Writes the file that PrefixMatchEncrypt loads: the maps of addresses and ports.

    Their keys aren't in it, but which prefix stands for which values: only its owner may read it.
    """
    cdef vector[const EncryptedPrefixes*] maps
    maps.push_back(src.prefixes.get())
    maps.push_back(dst.prefixes.get())
    maps.push_back(sport.prefixes.get())
    maps.push_back(dport.prefixes.get())
    cdef Status status = c_write_prefix_maps(_fsencode(path), maps)
    if status.code == _EINVAL:
        raise CryptoError(status.message.decode())
    if not status.ok():
        raise OSError(status.code, status.message.decode())

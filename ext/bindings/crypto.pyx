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
from libcpp.memory cimport shared_ptr, unique_ptr
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


include "crypto_prefixes.pxi"

# SPDX-License-Identifier: BSD-3-Clause
# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# distutils: language = c++
"""The engine's header parser and flow hash over whole arrays of packets.

Packets lie in one buffer; packet i is packets[offsets[i] : offsets[i] + lengths[i]].
"""

import numpy as _np

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy
from libcpp cimport bool as cbool


cdef extern from "host/headers.h" namespace "e2" nogil:
    cdef struct Headers:
        uint16_t ether_type
        uint16_t vlan_tci
        uint8_t ip_version
        uint8_t ip_proto
        uint16_t l4_off
        uint16_t payload_off
        uint16_t payload_len
        uint16_t sport
        uint16_t dport

    Headers parse_headers(const uint8_t* data, uint32_t len)


cdef extern from "host/flow_hash.h" namespace "e2" nogil:
    cdef struct FiveTuple:
        uint8_t src[16]
        uint8_t dst[16]

    cbool flow_key(const uint8_t* packet, const Headers& headers, FiveTuple& key)
    uint64_t flow_hash(const FiveTuple& key)


cdef Py_ssize_t count_of(const uint8_t[::1] packets, const uint32_t[::1] offsets,
                         const uint32_t[::1] lengths) except -1:
    """How many packets there are; ValueError unless every one lies inside the buffer."""
    cdef Py_ssize_t n = offsets.shape[0]
    cdef uint64_t size = <uint64_t>packets.shape[0]
    cdef Py_ssize_t i
    cdef Py_ssize_t bad = -1
    if lengths.shape[0] != n:
        raise ValueError(f"{n} offsets but {lengths.shape[0]} lengths")
    with nogil:
        for i in range(n):
            if <uint64_t>offsets[i] + lengths[i] > size:
                bad = i
                break
    if bad >= 0:
        raise ValueError(
            f"packet {bad} ends at {<uint64_t>offsets[bad] + lengths[bad]}, "
            f"the buffer at {size}"
        )
    return n


def parse(const uint8_t[::1] packets, const uint32_t[::1] offsets, const uint32_t[::1] lengths):
    """Columns of header fields, one row per packet; what a packet does not have is zero."""
    cdef Py_ssize_t n = count_of(packets, offsets, lengths)
    columns = {
        "ether_type": _np.zeros(n, _np.uint16),
        "vlan_tci": _np.zeros(n, _np.uint16),
        "ip_version": _np.zeros(n, _np.uint8),
        "ip_proto": _np.zeros(n, _np.uint8),
        "src": _np.zeros((n, 16), _np.uint8),
        "dst": _np.zeros((n, 16), _np.uint8),
        "sport": _np.zeros(n, _np.uint16),
        "dport": _np.zeros(n, _np.uint16),
        "l4_off": _np.zeros(n, _np.uint16),
        "payload_off": _np.zeros(n, _np.uint16),
        "payload_len": _np.zeros(n, _np.uint16),
    }
    cdef uint16_t[::1] ether_type = columns["ether_type"]
    cdef uint16_t[::1] vlan_tci = columns["vlan_tci"]
    cdef uint8_t[::1] ip_version = columns["ip_version"]
    cdef uint8_t[::1] ip_proto = columns["ip_proto"]
    cdef uint8_t[:, ::1] src = columns["src"]
    cdef uint8_t[:, ::1] dst = columns["dst"]
    cdef uint16_t[::1] sport = columns["sport"]
    cdef uint16_t[::1] dport = columns["dport"]
    cdef uint16_t[::1] l4_off = columns["l4_off"]
    cdef uint16_t[::1] payload_off = columns["payload_off"]
    cdef uint16_t[::1] payload_len = columns["payload_len"]
    cdef Headers headers
    cdef FiveTuple key
    cdef const uint8_t* base = &packets[0] if packets.shape[0] > 0 else NULL
    cdef Py_ssize_t i
    with nogil:
        for i in range(n):
            if lengths[i] == 0:
                continue
            headers = parse_headers(base + offsets[i], lengths[i])
            ether_type[i] = headers.ether_type
            vlan_tci[i] = headers.vlan_tci
            ip_version[i] = headers.ip_version
            ip_proto[i] = headers.ip_proto
            sport[i] = headers.sport
            dport[i] = headers.dport
            l4_off[i] = headers.l4_off
            payload_off[i] = headers.payload_off
            payload_len[i] = headers.payload_len
            if flow_key(base + offsets[i], headers, key):
                memcpy(&src[i, 0], key.src, 16)
                memcpy(&dst[i, 0], key.dst, 16)
    return columns


def flow_hashes(
    const uint8_t[::1] packets, const uint32_t[::1] offsets, const uint32_t[::1] lengths
):
    """The engine's hash of each packet's flow; 0 where the packet is not IP."""
    cdef Py_ssize_t n = count_of(packets, offsets, lengths)
    result = _np.zeros(n, _np.uint64)
    cdef uint64_t[::1] hashes = result
    cdef Headers headers
    cdef FiveTuple key
    cdef const uint8_t* base = &packets[0] if packets.shape[0] > 0 else NULL
    cdef Py_ssize_t i
    with nogil:
        for i in range(n):
            if lengths[i] == 0:
                continue
            headers = parse_headers(base + offsets[i], lengths[i])
            if flow_key(base + offsets[i], headers, key):
                hashes[i] = flow_hash(key)
    return result

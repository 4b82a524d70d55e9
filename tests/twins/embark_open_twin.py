# SPDX-License-Identifier: BSD-3-Clause
"""The receiving half of embark_twin.py: PrefixMatchDecrypt and PayloadOpen."""

from __future__ import annotations

from collections.abc import Mapping

from Crypto.Cipher import AES

from twins.embark_twin import (
    BOUND,
    BOUND_TAG,
    CHECKSUM_AT,
    DESTINATION_OPTIONS,
    HEAD_BYTES,
    ICMP,
    IN_FRAGMENT,
    IPV4_CHECKSUM,
    IPV4_FRAGMENT,
    IPV4_OPTIONS,
    IPV6_EXTENSIONS,
    SEAL_BYTES,
    SEALED,
    SEALED_HERE,
    TEXT_DF,
    TEXT_EXTRAS,
    TEXT_IPV6,
    VLAN_TAGS,
    Pool,
    RefusedError,
    SiteKeys,
    checksum,
    classify,
    open_seal,
    parse,
    u16,
    words,
)

Ring = Mapping[int, SiteKeys]


def decrypt(frame: bytes, ring: Ring, macs: bytes, pool: Pool | None = None) -> tuple[bytes, bytes]:
    """The frame and PayloadSeal's seal, if any. Replays pass: nothing is remembered."""
    ip = frame[14:]
    if (
        u16(frame, 12) != 0x86DD
        or ip[6] != DESTINATION_OPTIONS
        or ip[42] != 0x1E
        or ip[44] >> 4 != 1
    ):
        raise RefusedError("not encrypted")
    flags, epoch = ip[44] & 15, ip[45]
    option = (ip[41] + 1) * 8
    rest = ip[40 : 40 + u16(ip, 4)]
    if epoch not in ring:
        raise RefusedError("unknown epoch")
    keys = ring[epoch]
    sealed, fragment = flags & (SEALED | SEALED_HERE), flags & IN_FRAGMENT
    if flags & BOUND and not sealed:
        raise RefusedError("cut")
    seal = rest[option - SEAL_BYTES : option] if sealed else b""
    text = rest[HEAD_BYTES : option - len(seal)]
    piece = rest[option : option + 8] if fragment else b""
    body = rest[option + len(piece) :]
    protocol = piece[0] if piece else rest[0]
    ccm = AES.new(keys.header, AES.MODE_CCM, nonce=rest[6:18], mac_len=8)
    ccm.update(rest[4:6] + bytes([protocol]) + (seal[BOUND_TAG] if flags & BOUND else b""))
    try:
        text = ccm.decrypt_and_verify(text, rest[18:HEAD_BYTES])
    except ValueError:
        raise RefusedError("bad tag") from None

    bits = text[0] >> 4
    ipv6 = bool(bits & TEXT_IPV6)
    size = 16 if ipv6 else 4
    trailer, at = (text[3], 4) if ipv6 else (text[1], 4)
    addresses = [text[at : at + size], text[at + size : at + 2 * size]]
    originals = b"".join(addresses)
    at += 2 * size
    ports = [u16(text, at), u16(text, at + 2)]
    old_checksum, checks = u16(text, at + 4), [u16(text, at + 6), u16(text, at + 8)]
    extras = read_extras(text[at + 10 :]) if bits & TEXT_EXTRAS else {}

    kind = "opaque"
    if not sealed or u16(seal, 2):
        first = not piece or u16(piece, 2) & 0xFFF8 == 0
        kind, _ = classify(body, protocol, ipv6, bool(fragment), first)
    has_ports = kind in ("tcp", "udp")
    seen = [0, 0]
    if has_ports:
        seen = [u16(body, 0), u16(body, 2)]
    if kind == "query":
        seen = [u16(body, 4), 0]
    change = 0
    for way in (0, 1):
        outer = ip[8 + 16 * way : 24 + 16 * way]
        entry = (pool or Pool()).find(keys, outer)
        if entry is None:
            if checks[way] != u16(outer, 14) + seen[way] & 0xFFFF:
                raise RefusedError("outside pool")
            continue
        if len(entry[0]) != size:
            raise RefusedError("outside pool")
        if protocol != ICMP:
            change += words(entry[0]) - words(addresses[way])
        addresses[way] = entry[0]
        if entry[1] and (has_ports or kind == "query"):
            slot = way if has_ports else 0
            change += seen[slot] - ports[slot]
            ports[slot] = seen[slot]
    if sealed == SEALED_HERE:
        opened = open_seal(ring, seal, body)
        if opened is None:
            raise RefusedError("bad payload tag")
        body, seal = opened, b""
    if kind in CHECKSUM_AT:
        where = CHECKSUM_AT[kind]
        if change and not (kind == "udp" and old_checksum == 0):
            # Never a sum of 0, and none of 0xffff by an update.
            old_checksum = checksum(0xFFFF - old_checksum + change % 0xFFFF)
            if old_checksum == 0 and kind == "udp":
                old_checksum = 0xFFFF
        body = body[:where] + old_checksum.to_bytes(2, "big") + body[where + 2 :]
    if has_ports:
        body = ports[0].to_bytes(2, "big") + ports[1].to_bytes(2, "big") + body[4:]
    if kind == "query":
        body = body[:4] + ports[0].to_bytes(2, "big") + body[6:]

    traffic_class, hop_limit = u16(ip, 0) >> 4 & 0xFF, ip[7]
    tags = extras.get(VLAN_TAGS, b"")
    if ipv6:
        extensions = extras.get(IPV6_EXTENSIONS, bytes([protocol]))
        start = 6 << 28 | traffic_class << 20 | int.from_bytes(text[:3], "big") & 0xFFFFF
        header = start.to_bytes(4, "big") + (len(extensions) - 1 + len(body)).to_bytes(2, "big")
        header += bytes([extensions[0], hop_limit]) + b"".join(addresses) + extensions[1:]
    else:
        options = extras.get(IPV4_OPTIONS, b"")
        where_bytes = extras.get(IPV4_FRAGMENT, b"\x40\0" if bits & TEXT_DF else bytes(2))
        header = bytes([0x45 + len(options) // 4, traffic_class])
        header += (20 + len(options) + len(body)).to_bytes(2, "big") + text[2:4] + where_bytes
        header += bytes([hop_limit, protocol])
        after = b"".join(addresses) + options
        off_by = int.from_bytes(extras.get(IPV4_CHECKSUM, b""), "big")
        found = checksum(words(header + originals + options)) + off_by & 0xFFFF
        if moved := words(after) - words(originals + options):
            found = checksum(0xFFFF - found + moved % 0xFFFF)
        header += found.to_bytes(2, "big") + after
    ether = b"\x86\xdd" if ipv6 else b"\x08\x00"
    return macs + tags + ether + header + body + bytes(trailer), seal


def read_extras(text: bytes) -> dict[int, bytes]:
    found = {}
    while text and text[0]:
        found[text[0]], text = text[2 : 2 + text[1]], text[2 + text[1] :]
    return found


def open_payload(frame: bytes, seal: bytes, ring: Ring) -> bytes:
    """PayloadOpen, on what `decrypt` gave."""
    if not seal:
        return frame
    parts = parse(frame)
    start, end = len(frame) - parts.trailer - len(parts.body), len(frame) - parts.trailer
    body = open_seal(ring, seal, parts.body)
    if body is None:
        raise RefusedError("bad tag")
    return frame[:start] + body + frame[end:]

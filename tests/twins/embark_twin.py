# SPDX-License-Identifier: BSD-3-Clause
"""Embark's packet format (ext/modules/embark_wire.h) once more, in plain Python over another AES.

`seal` is PayloadSeal, `encrypt` PrefixMatchEncrypt; what opens is in embark_open_twin.py. Nonces
are arguments; a refused packet is a RefusedError with the reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_address

from Crypto.Cipher import AES
from Crypto.Hash import SHA256
from Crypto.Protocol.KDF import HKDF

from twins.embark_parts_twin import (
    DESTINATION_OPTIONS,
    FRAGMENT,
    ICMP,
    TCP,
    UDP,
    Parts,
    RefusedError,
    checksum,
    classify,
    parse,
    u16,
    words,
)
from twins.prefix_match_twin import PrefixMap

__all__ = [
    "BOUND",
    "BOUND_TAG",
    "CHECKSUM_AT",
    "DESTINATION_OPTIONS",
    "HEAD_BYTES",
    "ICMP",
    "IN_FRAGMENT",
    "IPV4_CHECKSUM",
    "IPV4_FRAGMENT",
    "IPV4_OPTIONS",
    "IPV6_EXTENSIONS",
    "MAX_TEXT",
    "SEALED",
    "SEALED_HERE",
    "SEAL_BYTES",
    "TCP",
    "TEXT_DF",
    "TEXT_EXTRAS",
    "TEXT_IPV6",
    "UDP",
    "VLAN_TAGS",
    "Gateway",
    "Parts",
    "Pool",
    "RefusedError",
    "SiteKeys",
    "checksum",
    "classify",
    "encrypt",
    "extras_of",
    "make_maps",
    "make_seal",
    "maps_file",
    "open_seal",
    "parse",
    "seal",
    "u16",
    "words",
]

SEALED, SEALED_HERE, IN_FRAGMENT, BOUND = 1, 2, 4, 8
BOUND_TAG = slice(16, 27)  # what of a seal is authenticated with a bound header
TEXT_IPV6, TEXT_EXTRAS, TEXT_DF = 8, 4, 2
VLAN_TAGS, IPV4_OPTIONS, IPV6_EXTENSIONS, IPV4_CHECKSUM, IPV4_FRAGMENT = 1, 2, 3, 4, 5
HEAD_BYTES, SEAL_BYTES, MAX_TEXT = 26, 32, 198
CHECKSUM_AT = {"tcp": 16, "udp": 6, "query": 2, "error": 2}
MAPPED = 0xFFFF << 32


class SiteKeys:
    def __init__(self, site_key: bytes) -> None:
        def derive(name: bytes) -> bytes:
            key = HKDF(site_key, 16, b"bess-e2 embark 1", SHA256, context=name)
            assert isinstance(key, bytes)
            return key

        self.fields = [
            derive(name + what)
            for what in (b" address", b" port")
            for name in (b"source", b"destination")
        ]
        self.flow4, self.flow6 = derive(b"flow IPv4"), derive(b"flow IPv6")
        self.header, self.payload, self.pool = (
            derive(b"header"),
            derive(b"payload"),
            derive(b"pool"),
        )


def ecb(key: bytes, block: bytes) -> bytes:
    return bytes(AES.new(key, AES.MODE_ECB).encrypt(block))


def xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def number_of(address: str | bytes) -> int:
    """In the domain of 128 bits."""
    parsed = ip_address(address)
    return MAPPED + int(parsed) if isinstance(parsed, IPv4Address) else int(parsed)


@dataclass(frozen=True)
class Pool:
    """Addresses that the provider may write: each with whether it is a NAT's."""

    addresses: Sequence[tuple[str, bool]] = ()

    def encrypted(self, keys: SiteKeys, maps: Sequence[PrefixMap]) -> list[bytes]:
        block = ecb(keys.pool, bytes(16))
        mask = int.from_bytes(block[8:12], "big")
        return [
            (maps[0 if nat else 1].encrypt(number_of(address), bytes(16)) >> 96).to_bytes(4, "big")
            + block[:8]
            + (i ^ mask).to_bytes(4, "big")
            for i, (address, nat) in enumerate(self.addresses)
        ]

    def find(self, keys: SiteKeys, outer: bytes) -> tuple[bytes, bool] | None:
        """The clear address that an encrypted one stands for, whatever its prefix."""
        block = ecb(keys.pool, bytes(16))
        number = int.from_bytes(xor(outer[12:], block[8:12]), "big")
        if outer[4:12] != block[:8] or number >= len(self.addresses):
            return None
        address, nat = self.addresses[number]
        return ip_address(address).packed, nat


def make_maps(
    keys: SiteKeys, ranges: Sequence[Sequence[tuple[int, int]]], seed: bytes
) -> list[PrefixMap]:
    return [
        PrefixMap(chosen, bits, key, seed)
        for chosen, bits, key in zip(ranges, (128, 128, 16, 16), keys.fields, strict=True)
    ]


def maps_file(maps: Sequence[PrefixMap]) -> bytes:
    """What write_prefix_maps writes."""
    data = b"E2PM\x01"
    for made in maps:
        data += bytes([made.domain_bits, made.prefix_bits]) + len(made.ends).to_bytes(4, "big")
        for end, members in zip(made.ends, made.sets, strict=True):
            data += end.to_bytes(16, "big") + made.prefix_of[members].to_bytes(4, "big")
    return data + hashlib.sha256(data).digest()


@dataclass
class Gateway:
    """What both sides know."""

    keys: SiteKeys
    maps: Sequence[PrefixMap]
    epoch: int = 0
    macs: bytes = bytes(12)  # destination first
    mtu: int = 65535
    pool: Pool = field(default_factory=Pool)
    bound: bool = False


def make_seal(
    keys: SiteKeys, epoch: int, clear: int, nonce: bytes, text: bytes
) -> tuple[bytes, bytes]:
    """The 32 bytes of a seal, and the payload."""
    head = bytes([1, epoch]) + clear.to_bytes(2, "big")
    gcm = AES.new(keys.payload, AES.MODE_GCM, nonce=nonce)
    gcm.update(head)
    sealed, tag = gcm.encrypt_and_digest(text)
    return head + nonce + tag, sealed


def open_seal(ring: Mapping[int, SiteKeys], seal: bytes, body: bytes) -> bytes | None:
    """The body in clear, or None."""
    clear = u16(seal, 2)
    if seal[0] != 1 or clear > len(body):
        return None
    gcm = AES.new(ring[seal[1]].payload, AES.MODE_GCM, nonce=seal[4:16])
    gcm.update(seal[:4])
    try:
        return body[:clear] + gcm.decrypt_and_verify(body[clear:], seal[16:])
    except ValueError:
        return None


def seal(frame: bytes, keys: SiteKeys, epoch: int, nonce: bytes) -> tuple[bytes, bytes]:
    """PayloadSeal: the frame and its seal, which is empty where there is nothing to seal."""
    try:
        parts = parse(frame)
    except RefusedError:
        return frame, b""
    start = len(frame) - parts.trailer - len(parts.body) + parts.clear
    end = len(frame) - parts.trailer
    if parts.kind == "link" or start == end:
        return frame, b""
    made, sealed = make_seal(keys, epoch, parts.clear, nonce, frame[start:end])
    return frame[:start] + sealed + frame[end:], made


def extras_of(parts: Parts) -> bytes:
    found = [(VLAN_TAGS, parts.tags)] if parts.tags else []
    if parts.ipv6:
        if parts.extensions:
            found.append((IPV6_EXTENSIONS, parts.ip[6:7] + parts.extensions))
    else:
        ip = parts.ip
        if ip[20:]:
            found.append((IPV4_OPTIONS, ip[20:]))
        right = checksum(words(ip[:10] + ip[12:]))
        if u16(ip, 10) != right:
            found.append((IPV4_CHECKSUM, (u16(ip, 10) - right & 0xFFFF).to_bytes(2, "big")))
        if u16(ip, 6) & ~0x4000:
            found.append((IPV4_FRAGMENT, ip[6:8]))
    text = b""
    room = MAX_TEXT - (46 if parts.ipv6 else 22)
    for number, value in found:
        if len(text) + 2 + len(value) > room:
            raise RefusedError("too many headers")
        text += bytes([number, len(value)]) + value
    return text


def flow_seed(keys: SiteKeys, parts: Parts, ports: bytes) -> bytes:
    src, dst = parts.addresses
    last = (bytes(4) if parts.fragment else ports) + bytes([parts.protocol, parts.ip[0] >> 4])
    if not parts.ipv6:
        return ecb(keys.flow4, (src + dst + last).ljust(16, b"\0"))
    state = ecb(keys.flow6, src)
    state = ecb(keys.flow6, xor(state, dst))
    return ecb(keys.flow6, xor(state, last.ljust(16, b"\0")))


def encrypt(
    frame: bytes, gateway: Gateway, nonce: bytes, seal: bytes = b"", seal_nonce: bytes = b""
) -> bytes:
    """`seal` is PayloadSeal's, `seal_nonce` for what has to be sealed here."""
    parts, keys = parse(frame), gateway.keys
    if seal and u16(seal, 2) == 0 and parts.kind != "piece":
        parts.kind, parts.clear = "opaque", 0
    if parts.kind == "link":
        raise RefusedError("of the link")
    kind, body, flags = parts.kind, parts.body, SEALED if seal else 0
    extras = extras_of(parts)
    extras += bytes(-len(extras) % 8)
    seal_here = kind in ("opaque", "error") and not seal and len(body) > parts.clear
    option = HEAD_BYTES + (46 if parts.ipv6 else 22) + len(extras)
    option += SEAL_BYTES if seal or seal_here else 0
    payload = option + (8 if parts.fragment else 0) + len(body)
    if 40 + payload > gateway.mtu:
        raise RefusedError("over MTU")
    if seal_here:
        text = body[parts.clear :]
        seal, text = make_seal(keys, gateway.epoch, parts.clear, seal_nonce, text)
        body, flags = body[: parts.clear] + text, SEALED_HERE
    if parts.fragment:
        flags |= IN_FRAGMENT
    if seal and gateway.bound:
        flags |= BOUND

    has_ports = kind in ("tcp", "udp")
    ports = body[:4] if has_ports else body[4:6] + bytes(2) if kind == "query" else bytes(4)
    seed = flow_seed(keys, parts, ports)
    clear = [number_of(address) for address in parts.addresses]
    wide = [m.encrypt(value, seed).to_bytes(16, "big")
            for m, value in zip(gateway.maps, clear, strict=False)]  # fmt: skip
    new_ports = [gateway.maps[2 + i].encrypt(u16(ports, 2 * i), seed) for i in (0, 1)]
    entries = gateway.pool.encrypted(keys, gateway.maps)
    for (address, nat), encrypted in zip(gateway.pool.addresses, entries, strict=True):
        for way in (0, 1):
            if clear[way] == number_of(address):
                wide[way] = encrypted
                if nat and kind == "query":
                    new_ports[0] = u16(ports, 0)
                elif nat:
                    new_ports[way] = u16(ports, 2 * way)
    counted = [
        new_ports[0] if has_ports or kind == "query" else 0,
        new_ports[1] if has_ports else 0,
    ]
    checks = [u16(wide[way], 14) + counted[way] & 0xFFFF for way in (0, 1)]
    at = CHECKSUM_AT.get(kind)
    old_checksum = body[at : at + 2] if at is not None else bytes(2)
    if has_ports:
        body = b"".join(port.to_bytes(2, "big") for port in new_ports) + body[4:]
    if kind == "query":
        body = body[:4] + new_ports[0].to_bytes(2, "big") + body[6:]
    body = with_checksum(parts, body, wide, ports, at)

    head = (TEXT_EXTRAS if extras else 0) | (TEXT_IPV6 if parts.ipv6 else 0)
    if parts.ipv6:
        label = int.from_bytes(parts.ip[1:4], "big") & 0xFFFFF
        start = (head << 20 | label).to_bytes(3, "big") + bytes([parts.trailer])
    else:
        head |= TEXT_DF if parts.ip[6] & 0x40 else 0
        start = bytes([head << 4, parts.trailer]) + parts.ip[4:6]
    plain = start + b"".join(parts.addresses) + ports + old_checksum
    plain += b"".join(check.to_bytes(2, "big") for check in checks) + extras
    first = bytes([0x10 | flags, gateway.epoch])
    ccm = AES.new(keys.header, AES.MODE_CCM, nonce=nonce, mac_len=8)
    ccm.update(first + bytes([parts.protocol]) + (seal[BOUND_TAG] if flags & BOUND else b""))
    text, tag = ccm.encrypt_and_digest(plain)

    next_header = FRAGMENT if parts.fragment else parts.protocol
    options = bytes([next_header, option // 8 - 1, 0x1E, option - 4]) + first + nonce + tag + text
    options += seal
    if parts.fragment:
        block = xor(seed[:4], parts.fragment[1].to_bytes(4, "big")) + seed[4:]
        options += bytes([parts.protocol, 0]) + parts.fragment[0].to_bytes(2, "big")
        options += ecb(keys.flow4, block)[:4]
    label = int.from_bytes(xor(wide[0][12:], wide[1][12:]), "big") & 0xFFFFF
    traffic_class = u16(parts.ip, 0) >> 4 & 0xFF if parts.ipv6 else parts.ip[1]
    hop_limit = parts.ip[7] if parts.ipv6 else parts.ip[8]
    outer = (6 << 28 | traffic_class << 20 | label).to_bytes(4, "big")
    outer += payload.to_bytes(2, "big") + bytes([DESTINATION_OPTIONS, hop_limit])
    return gateway.macs + b"\x86\xdd" + outer + b"".join(wide) + options + body


def with_checksum(
    parts: Parts, body: bytes, wide: Sequence[bytes], ports: bytes, at: int | None
) -> bytes:
    """The body with a checksum for its new addresses and ports."""
    if at is None:
        return body
    old = u16(body, at)
    rest = body[:at] + bytes(2) + body[at + 2 :]
    if parts.fragment:
        # Only what changes is known.
        if old == 0 and parts.kind == "udp":
            return body
        total = 0xFFFF - old + words(b"".join(wide)) + words(body[:4])
        total += sum(0xFFFF - u16(data, i) for data in (*parts.addresses, ports)
                     for i in range(0, len(data), 2))  # fmt: skip
    else:
        total = words(rest)
        if parts.protocol != ICMP:
            total += words(b"".join(wide)) + parts.protocol + len(body)
    new = checksum(total)
    if new == 0 and parts.kind == "udp":
        new = 0xFFFF
    return body[:at] + new.to_bytes(2, "big") + body[at + 2 :]

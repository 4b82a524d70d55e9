# SPDX-License-Identifier: BSD-3-Clause
"""Sets of numbers as ranges: ascending, both ends included, neither overlapping nor adjacent.

A rule's addresses, ports and protocols are such sets, so that what an operator says about them
(lists, prefixes, "all but") is held exactly.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

__all__ = [
    "IPV4",
    "IPV6",
    "Ranges",
    "address_text",
    "contains",
    "ends",
    "intersect",
    "join",
    "mapped",
    "of_network",
    "prefixes",
    "read_network",
    "subtract",
    "text",
]

Ranges = tuple[tuple[int, int], ...]

_MAPPED = 0xFFFF << 32  # ::ffff:0:0/96 (RFC 4291, section 2.5.5.2)
_LAST = 2**128 - 1
IPV4: Ranges = ((_MAPPED, _MAPPED + 2**32 - 1),)
IPV6: Ranges = ((0, _MAPPED - 1), (_MAPPED + 2**32, _LAST))


def join(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """The set of all numbers that are in one of the ranges."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return tuple(joined)


def intersect(one: Ranges, other: Ranges) -> Ranges:
    """What both have."""
    found = []
    i = j = 0
    while i < len(one) and j < len(other):
        first, last = max(one[i][0], other[j][0]), min(one[i][1], other[j][1])
        if first <= last:
            found.append((first, last))
        if one[i][1] < other[j][1]:
            i += 1
        else:
            j += 1
    return tuple(found)


def subtract(one: Ranges, other: Ranges) -> Ranges:
    """What `one` has and `other` has not."""
    if not one:
        return ()
    gaps, start = [], one[0][0]
    for first, last in other:
        if first > start:
            gaps.append((start, first - 1))
        start = max(start, last + 1)
    if start <= one[-1][1]:
        gaps.append((start, one[-1][1]))
    return intersect(one, tuple(gaps))


def contains(ranges: Ranges, value: int) -> bool:
    """Whether a number is in the set."""
    at = bisect_right(ranges, value, key=lambda pair: pair[0]) - 1
    return at >= 0 and value <= ranges[at][1]


def mapped(address: int) -> int:
    """An IPv4 address as a number of 128 bits: IPv4-mapped."""
    return _MAPPED + address


def of_network(network: IPv4Network | IPv6Network) -> tuple[int, int]:
    """First and last address; IPv4-mapped for IPv4."""
    first, last = int(network.network_address), int(network.broadcast_address)
    return (mapped(first), mapped(last)) if network.version == 4 else (first, last)


def read_network(text: str, strict: bool = False) -> IPv4Network | IPv6Network:
    """An address, a prefix, or an address with a contiguous mask.

    With `strict` there must be no bits behind the prefix; else they are left aside.
    """
    try:
        return ip_network(text, strict)
    except ValueError:
        raise ValueError(f"'{text}' is no address or prefix such as 192.0.2.0/24") from None


def address_text(number: int) -> str:
    """A number of 128 bits as an address, an IPv4-mapped one as the IPv4 address."""
    in_ipv4 = contains(IPV4, number)
    return str(IPv4Address(number - _MAPPED) if in_ipv4 else IPv6Address(number))


def text(ranges: Ranges) -> str:
    """The numbers themselves, in hexadecimal digits: always the same for the same set."""
    return ",".join(f"{first:x}-{last:x}" for first, last in ranges)


def ends(text: str, most: int) -> tuple[int, int]:
    """Numbers as text, one or FIRST:LAST or FIRST-LAST, to `most`; an end may be left out."""
    mark = ":" if ":" in text else "-"
    first, ranged, last = text.partition(mark)
    low = first or ("0" if ranged else "")
    high = (last or str(most)) if ranged else first
    if not (low.isdecimal() and high.isdecimal() and low.isascii() and high.isascii()):
        raise ValueError(f"'{text}' is no number or range up to {most}")
    if len(low) > 5 or len(high) > 5 or not int(low) <= int(high) <= most:
        raise ValueError(f"'{text}' is no range within 0 to {most}")
    return int(low), int(high)


def prefixes(first: int, last: int, bits: int) -> list[tuple[int, int]]:
    """The fewest prefixes that make up a range, as value and length in a domain of `bits`."""
    found = []
    while first <= last:
        free = (first & -first).bit_length() - 1 if first else bits
        size = min(free, (last - first + 1).bit_length() - 1)
        found.append((first, bits - size))
        first += 1 << size
    return found

# SPDX-License-Identifier: BSD-3-Clause
"""Generated packets for Embark's modules: of every kind, then spoiled."""

from __future__ import annotations

from embark_support import FRAMES, change
from hypothesis import strategies as st

from twins import embark_twin as twin


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    """One of the frames, with some bytes changed, mostly in its headers, or bytes behind it."""
    packet = draw(st.sampled_from(sorted(FRAMES.values())))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(12, min(len(packet) - 1, 80)))
        packet = change(packet, at, draw(st.binary(min_size=1, max_size=2)))[: len(packet)]
    return packet + draw(st.binary(max_size=9))


@st.composite
def fresh(draw: st.DrawFn) -> bytes:
    """IP headers of any contents, around a body of any contents."""
    protocol = draw(st.sampled_from([6, 17, 1, 58, 47, 59]))
    body = draw(st.binary(max_size=90))
    if protocol == twin.UDP and len(body) >= 8 and draw(st.booleans()):
        body = change(body, 4, len(body).to_bytes(2, "big"))
    if protocol == twin.TCP and len(body) >= 20 and draw(st.booleans()):
        body = change(body, 12, b"\x50")
    if draw(st.booleans()):
        addresses = draw(st.binary(min_size=32, max_size=32))
        start = 6 << 28 | draw(st.integers(0, 2**28 - 1))
        header = start.to_bytes(4, "big") + len(body).to_bytes(2, "big")
        header += bytes([protocol, draw(st.integers(0, 255))]) + addresses
        kind = b"\x86\xdd"
    else:
        options = draw(st.sampled_from([b"", b"\1\1\1\0", bytes(40)]))
        fragment = draw(st.sampled_from([0, 0, 0x4000, 0x2000, 0x2005, 0x0007, 0x8000]))
        header = bytes([0x45 + len(options) // 4, draw(st.integers(0, 255))])
        header += (20 + len(options) + len(body)).to_bytes(2, "big")
        header += draw(st.binary(min_size=2, max_size=2)) + fragment.to_bytes(2, "big")
        header += bytes([draw(st.integers(0, 255)), protocol]) + bytes(2)
        header += draw(st.binary(min_size=8, max_size=8)) + options
        if draw(st.booleans()):
            right = twin.checksum(twin.words(header))
            header = change(header, 10, right.to_bytes(2, "big"))
        kind = b"\x08\x00"
    tag = draw(
        st.sampled_from([b"", b"", b"\x81\x00\x00\x05", b"\x88\xa8\x0f\xff\x81\x00\x00\x07"])
    )
    return bytes(12) + tag + kind + header + body


def frames(most: int = 40) -> st.SearchStrategy[list[bytes]]:
    return st.lists(st.one_of(spoiled(), fresh()), min_size=1, max_size=most)

# SPDX-License-Identifier: BSD-3-Clause
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

# Anything with a contiguous buffer of unsigned bytes.
_Packets = bytes | bytearray | memoryview | NDArray[np.uint8]

class _Columns(TypedDict):
    ether_type: NDArray[np.uint16]
    vlan_tci: NDArray[np.uint16]
    ip_version: NDArray[np.uint8]
    ip_proto: NDArray[np.uint8]
    src: NDArray[np.uint8]
    dst: NDArray[np.uint8]
    sport: NDArray[np.uint16]
    dport: NDArray[np.uint16]
    l4_off: NDArray[np.uint16]
    payload_off: NDArray[np.uint16]
    payload_len: NDArray[np.uint16]

def parse(
    packets: _Packets, offsets: NDArray[np.uint32], lengths: NDArray[np.uint32]
) -> _Columns: ...
def flow_hashes(
    packets: _Packets, offsets: NDArray[np.uint32], lengths: NDArray[np.uint32]
) -> NDArray[np.uint64]: ...

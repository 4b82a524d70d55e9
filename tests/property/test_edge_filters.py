# SPDX-License-Identifier: BSD-3-Clause
"""A filter for captures takes the packets that the same words take in a policy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether

from e2ctl.edges import pcap_filter
from e2ctl.filters import Const, FilterError, bind, evaluate
from e2ctl.policy import parse_filter
from harness import run

ADDRESSES = {"cdn": ("10.0.0.0/9", "2001:db8::/32")}
WORDS = (
    "any",
    "tcp",
    "udp",
    "icmp",
    "ip6",
    "arp",
    "ip proto 6",
    "ether type 0x806",
    "vlan",
    "vlan 7",
    "src net 10.0.0.0/9",
    "dst host 10.128.0.2",
    "host 2001:db8::1",
    "src net cdn",
    "net 0.0.0.0/0",
    "port 53",
    "tcp dst port 80",
    "src portrange 1000-1999",
    "dst portrange 60-90",
)
_NET6 = 0x20010DB8 << 96


def _packets() -> list[tuple[bytes, dict[str, int]]]:
    """Frames, and what filters see in each."""
    macs = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
    made: list[tuple[bytes, dict[str, int]]] = [
        (
            bytes(Ether(**macs) / ARP(psrc="10.0.0.1", pdst="10.0.0.2")),
            {"eth.type": 0x0806},
        )
    ]
    for vlan in (None, 7, 8):
        for proto, sport, dport in ((6, 1000, 80), (6, 53, 443), (17, 1999, 53), (1, 0, 0)):
            for version in (4, 6):
                if (proto, version) == (1, 6):
                    continue
                frame = Ether(**macs)
                fields = {"ip.version": version, "ip.proto": proto}
                if vlan is not None:
                    frame /= Dot1Q(vlan=vlan)
                    fields["vlan.id"] = vlan
                if version == 4:
                    frame /= IP(src="10.1.0.1", dst="10.128.0.2")
                    fields |= {"eth.type": 0x0800, "ip.src": 0x0A010001, "ip.dst": 0x0A800002}
                else:
                    frame /= IPv6(src="2001:db8::1", dst="2001:db9::2")
                    fields |= {
                        "eth.type": 0x86DD,
                        "ip6.src": _NET6 + 1,
                        "ip6.dst": (0x20010DB9 << 96) + 2,
                    }
                if proto == 1:
                    frame /= ICMP()
                else:
                    frame /= (TCP if proto == 6 else UDP)(sport=sport, dport=dport)
                    fields |= {"l4.sport": sport, "l4.dport": dport}
                made.append((bytes(frame / b"payload"), fields))
    return made


PACKETS = _packets()

texts = st.recursive(
    st.sampled_from(WORDS),
    lambda inner: st.one_of(
        inner.map("not ({})".format),
        st.tuples(inner, inner).map(lambda two: "({}) and ({})".format(*two)),
        st.tuples(inner, inner).map(lambda two: "({}) or ({})".format(*two)),
    ),
    max_leaves=5,
)


@given(texts)
def test_the_dataplane_takes_what_the_policy_would(text: str) -> None:
    expr = parse_filter(text, ADDRESSES)
    wanted = [evaluate(expr, fields) for _, fields in PACKETS]
    if isinstance(folded := bind(expr, lambda attr: attr), Const) and not folded.value:
        with pytest.raises(FilterError, match="no packet passes"):
            pcap_filter(expr)
        return
    words = pcap_filter(expr)
    frames = [frame for frame, _ in PACKETS]
    filters = [{"priority": 1, "filter": words, "gate": 1}]
    taken = run("BPF", {"filters": filters}, frames).out.get(1, [])
    assert taken == [frame for frame, hit in zip(frames, wanted, strict=True) if hit]


def test_what_is_not_in_packets_is_refused() -> None:
    with pytest.raises(FilterError, match=r"'ids\.safe' is not in packets"):
        pcap_filter(parse_filter("tcp and ids.safe"))

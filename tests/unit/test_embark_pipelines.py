# SPDX-License-Identifier: BSD-3-Clause
"""What a gateway's description makes of its tunnel."""

from __future__ import annotations

import pytest
from embark_support import MACS, V4, V6
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NS, ICMPv6Unknown, IPv6
from scapy.layers.l2 import ARP, Ether

from embark_gw.pipelines import _link_rules, draw
from embark_gw.site import loads
from harness import new_engine

DESCRIPTION = """\
inside: {{device: a, mac: "02:00:00:00:01:01", peer: "02:00:00:00:01:02", networks: [10.0.0.0/8]}}
provider:
  device: b
  mac: "02:00:00:00:03:01"
  peer: "02:00:00:00:03:02"
  tunnel: {{local: "{local}", remote: "{remote}"}}
key: {{file: site.key}}
maps: site.maps
"""


@pytest.mark.parametrize(
    ("local", "remote", "without"),
    [("192.0.2.1", "192.0.2.2", True), ("2001:db8::1", "2001:db8::2", False)],
)
def test_only_a_tunnel_over_ipv4_goes_without_checksum(
    local: str, remote: str, without: bool
) -> None:
    graph = draw(loads(DESCRIPTION.format(local=local, remote=remote)))
    (tunnel,) = (module for module in graph.modules if module.name == "tunnel_out")
    assert tunnel.args["zero_checksum"] is without
    receivers = [module for module in graph.modules if module.name == "tunnel_in"]
    assert [module.args.get("zero_checksum", False) for module in receivers] == [False]


def test_what_belongs_to_the_link_is_not_for_the_provider() -> None:
    """Gate 1 leads to the other side, gate 0 to encryption."""
    engine = new_engine()
    engine.create_module("pass", "MetadataMatch", _link_rules())
    ether, ipv6 = Ether(src=MACS["src"], dst=MACS["dst"]), IPv6(**V6)
    for packet, gate in (
        (ARP(), 1),
        (ipv6 / ICMPv6ND_NS(), 1),
        (ipv6 / ICMPv6EchoRequest(), 0),
        (ipv6 / TCP(), 0),
        (IP(**V4) / TCP(), 0),
    ):
        assert list(engine.run_packets("pass", [bytes(ether / packet)])) == [gate]
    # RFC 2710, RFC 4861 and RFC 3810; on either side are echoes, renumbering, and others.
    for number in range(256):
        packet = bytes(ether / IPv6(**V6, nh=58) / ICMPv6Unknown(type=number, msgbody=bytes(4)))
        link = 130 <= number <= 137 or number == 143
        assert list(engine.run_packets("pass", [packet])) == [int(link)]

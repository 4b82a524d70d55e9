# SPDX-License-Identifier: BSD-3-Clause
"""What `embark-gw inspect` shows is what a provider has, and none of what is hidden."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from embark_support import MACS, SECRET, V4, V6, Site
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.utils import wrpcap
from typer.testing import CliRunner

from embark_gw.cli import app
from embark_gw.inspecting import Seen, inspect, summarize

ETHER = Ether(src=MACS["src"], dst=MACS["dst"])
PACKETS = [
    bytes(ETHER / IP(**V4, ttl=63, tos=0x20) / TCP(sport=4321, dport=80, flags="SA") / SECRET),
    bytes(ETHER / IPv6(**V6) / UDP(sport=999, dport=53) / SECRET),
]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


def test_sealed_packets_give_away_what_the_page_says(site: Site) -> None:
    tcp, udp = inspect(site.encrypt(PACKETS, sealed=True))
    assert isinstance(tcp, Seen) and isinstance(udp, Seen)
    assert (tcp.protocol, tcp.kind, tcp.tcp_flags) == ("tcp", "IPv4", ("syn", "ack"))
    assert (tcp.hop_limit, tcp.traffic_class, tcp.epoch) == (63, 0x20, 3)
    assert (udp.protocol, udp.kind, udp.ports is not None) == ("udp", "IPv6", True)
    for one in (tcp, udp):
        assert one.sealed and one.clear == b""
        assert one.payload_bytes == len(SECRET)
        assert "IN CLEAR" not in str(one)
        assert not {one.src, one.dst} & {V4["src"], V4["dst"], V6["src"], V6["dst"]}


def test_payloads_in_clear_are_said_to_be(site: Site) -> None:
    seen = list(inspect(site.encrypt(PACKETS)))
    for one in seen:
        assert isinstance(one, Seen)
        assert one.clear == SECRET and "IN CLEAR" in str(one)
    assert summarize(seen).in_clear == len(PACKETS)


def test_what_no_gateway_encrypted_is_counted() -> None:
    frames = [*PACKETS, bytes(ETHER / ARP()), b"", PACKETS[0][:13]]
    found = summarize(inspect(frames))
    assert found.packets == 0
    assert found.other == {"not IPv6": 2, "not encrypted: no option": 1, "cut short": 2}


@given(st.binary(max_size=200), st.integers(0, 120))
def test_any_bytes_can_be_looked_at(noise: bytes, keep: int) -> None:
    frames = [noise, PACKETS[1][:54] + noise, PACKETS[1][:keep]]
    assert len(list(inspect(frames))) == len(frames)


def test_command(site: Site, tmp_path: Path) -> None:
    capture = tmp_path / "provider.pcap"
    wrpcap(str(capture), [Ether(frame) for frame in site.encrypt(PACKETS * 3, sealed=True)])
    shown = CliRunner().invoke(app, ["inspect", str(capture), "--packets", "1"])
    assert shown.exit_code == 0, shown.output
    assert "6 encrypted packets" in shown.output
    assert "3 tcp, 3 udp" in shown.output
    as_json = json.loads(CliRunner().invoke(app, ["inspect", str(capture), "--json"]).output)
    assert as_json["summary"]["protocols"] == {"tcp": 3, "udp": 3}
    wrpcap(str(capture), [Ether(frame) for frame in site.encrypt(PACKETS)])
    shown = CliRunner().invoke(app, ["inspect", str(capture)])
    assert shown.exit_code == 3
    assert "2 packets have payload IN CLEAR" in shown.output
    missing = CliRunner().invoke(app, ["inspect", str(tmp_path / "none.pcap")])
    assert missing.exit_code == 1

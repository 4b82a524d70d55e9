# SPDX-License-Identifier: BSD-3-Clause
"""Descriptions of gateways: what is wrong with one and where, and how long packets may be."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from chain_support import Chain, run_counted
from embark_support import FRAMES, Site, build
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6

from embark_gw.pipelines import draw
from embark_gw.site import Gateway, SiteError, load, loads, placed
from harness import new_engine
from twins import embark_twin as twin

TEXT = """\
inside:
  device: eth0
  mac: "02:00:00:00:01:01"
  peer: "02:00:00:00:01:02"
  networks: [10.0.0.0/8, "2001:db8::/48"]
provider:
  device: eth2
  mac: "02:00:00:00:03:01"
  peer: "02:00:00:00:03:02"
  mtu: 1700
key: {file: site.key, epoch: 1}
maps: site.maps
"""
TUNNELS = {
    0: "",
    4: "  tunnel: {local: 192.0.2.1, remote: 192.0.2.2, vni: 7}\n",
    6: '  tunnel: {local: "2001:db8::1", remote: "2001:db8::2"}\n',
}


def described(**changes: str) -> str:
    """With one thing said in another way; the name is where it starts."""
    lines = TEXT.splitlines()
    for name, text in changes.items():
        (at,) = [n for n, line in enumerate(lines) if line.strip().startswith(f"{name}:")][:1]
        indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
        lines[at] = indent + text
    return "\n".join(lines) + "\n"


def with_tunnel(version: int, **changes: str) -> str:
    return described(**changes).replace("key:", TUNNELS[version] + "key:")


def test_paths_are_from_the_files_folder(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(TEXT + "accept:\n  - {file: /keys/old.key}\n", encoding="utf-8")
    gateway = load(path)
    assert (gateway.key.file, gateway.maps) == (tmp_path / "site.key", tmp_path / "site.maps")
    assert [(key.file, key.epoch) for key in gateway.accept] == [(Path("/keys/old.key"), 0)]
    assert gateway.inside.networks == ("10.0.0.0/8", "2001:db8::/48")


def test_a_key_is_the_same_one_however_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sites" / "gateway.yaml"
    path.parent.mkdir()
    path.write_text(TEXT + "accept:\n  - {file: ../sites/../new.key}\n", encoding="utf-8")
    (tmp_path / "again").symlink_to("sites")
    monkeypatch.chdir(tmp_path / "again")
    (tmp_path / "new.key").symlink_to("new.key.2")
    (key,) = load(path).accept
    assert key.file == placed(Path("../new.key")) == tmp_path / "new.key"


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("", (1, 1), "expected a mapping with inside and provider"),
        ("inside: [", (1, 10), "expected"),
        (described(mac="mac: 2"), (3, 3), "2 is not a MAC address; expected one like 02:00"),
        (described(mac='mac: "02:00:00:00:01"'), (3, 3), "is not a MAC address"),
        (described(networks="networks: [10.0.0.1/8]"), (5, 14), "has host bits set"),
        (described(networks="networks: []"), (5, 3), "at least 1 item"),
        (described(device="device: a-name-that-is-too-long"), (2, 3), "device"),
        (described(device="device: a\n  devise: b"), (3, 3), "devise"),
        (described(mtu="mtu: 1279"), (10, 3), "1280"),
        (described(key="key: {file: k, epoch: 256}"), (11, 16), "255"),
        (described(maps="pool: []"), (1, 1), "maps"),
        (TEXT + "workers: 33\n", (13, 1), "32"),
        (TEXT + "clients: true\n", (1, 1), "in the pool with nat; list them, or leave clients"),
        (
            TEXT + "clients: true\npool: [{prefix: 192.0.2.1}]\n",
            (1, 1),
            "in the pool with nat; list them, or leave clients",
        ),
        (TEXT + "accept: [{file: a, epoch: 1}]\n", (1, 1), "an epoch of its own; here they"),
        (TEXT.replace("eth2", "eth0"), (1, 1), "device of its own; here they are ['eth0', 'eth0']"),
        (
            TEXT.replace("key:", "  tunnel: {local: 192.0.2.1, remote: '::1'}\nkey:"),
            (11, 3),
            "from 192.0.2.1 to ::1 mixes IPv4 and IPv6",
        ),
        (described(mtu="mtu: 1700\n  backup: {vni: 8}"), (6, 1), "needs a tunnel"),
        (described(mtu="mtu: 1700\n  backup: {flows: 9}"), (6, 1), "another one than 02:00:00:00"),
        (
            with_tunnel(4, mtu="mtu: 1700\n  backup: {vni: 7}"),
            (6, 1),
            "backup.vni must be there, and another one than 7",
        ),
        (
            with_tunnel(4, mtu="mtu: 1449"),
            (1, 1),
            "packets of 1279 bytes, and IPv6 needs 1280; raise provider.mtu to 1450",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_and_where(text: str, where: tuple[int, int], message: str) -> None:
    with pytest.raises(SiteError) as error:
        loads(text, "gateway.yaml")
    said = str(error.value)
    assert said.startswith(f"gateway.yaml:{where[0]}:{where[1]}:"), said
    assert message in said
    assert "\n" not in said


@given(st.text(alphabet=": {}[]-\n\t'\"&*!|>%@,ab1é\0", max_size=60))
def test_any_text_makes_a_gateway_or_an_error_of_one_line(text: str) -> None:
    for whole in (text, TEXT + text):
        said = ""
        try:
            loads(whole, "gateway.yaml")
        except SiteError as error:
            said = str(error)
        assert "\n" not in said


@pytest.mark.parametrize("version", TUNNELS)
def test_the_least_mtu_that_is_taken(version: int) -> None:
    """Is one that the modules take as well."""
    least = 1280 + 120 + {0: 0, 4: 50, 6: 70}[version]
    gateway = loads(with_tunnel(version, mtu=f"mtu: {least}"))
    assert gateway.mtu == 1280
    for graph_module in draw(gateway).modules:
        if graph_module.mclass in ("PathMtu", "TunnelEncap"):
            new_engine().create_module("m", graph_module.mclass, dict(graph_module.args))
    with pytest.raises(SiteError):
        loads(with_tunnel(version, mtu=f"mtu: {least - 1}"))


def way_out(gateway: Gateway, site: Site) -> Chain:
    """The modules from a host to the provider, one behind the other."""
    made = {module.name: module for module in draw(gateway).modules}
    own = {
        "encrypt": {"key": site.key, "maps_file": str(site.maps_file)},
        "seal": {"key": site.key},
    }
    return [
        (made[name].mclass, {**made[name].args, **own.get(name, {})})
        for name in ("mtu_inside", "seal", "encrypt", "tunnel_out")
        if name in made
    ]


def longer(packet: bytes, missing: int) -> bytes:
    """With so many more bytes of payload, whatever checksums say."""
    ipv6 = twin.parse(packet).ipv6
    at = 12
    while packet[at : at + 2] in (b"\x81\0", b"\x88\xa8"):
        at += 4
    where = at + 2 + (4 if ipv6 else 2)
    length = twin.u16(packet, where) + missing
    return packet[:where] + length.to_bytes(2, "big") + packet[where + 2 :] + bytes(missing)


KINDS = [name for name, packet in FRAMES.items() if twin.parse(packet).trailer == 0]


@pytest.mark.parametrize(("version", "sealed"), [*product(TUNNELS, (True, False))])
def test_the_longest_packets_of_hosts_fit(tmp_path: Path, version: int, sealed: bool) -> None:
    """Of each kind, through the modules themselves: none is over the provider's MTU."""
    site = Site(tmp_path / "site")
    text = with_tunnel(version, mtu="mtu: 1500") + f"sealed: {str(sealed).lower()}\n"
    gateway = loads(text, folder=tmp_path)
    packets = []
    for name in KINDS:
        packet = FRAMES[name]
        parts = twin.parse(packet)
        length = len(packet) - 14 - len(parts.tags)
        packets.append(longer(packet, gateway.mtu - length))
    out, drops = run_counted(tmp_path, way_out(gateway, site), packets)
    assert (len(out), drops) == (len(packets), {})
    most = max(len(packet) for packet in out) - 14
    assert gateway.provider.mtu - 4 <= most <= gateway.provider.mtu  # not much is left unused


@pytest.mark.parametrize("flags", ["", "MF"])
def test_pieces_that_the_gateway_makes_fit(tmp_path: Path, flags: str) -> None:
    """IPv4 packets that are too long and may be cut: not one of their pieces is lost."""
    gateway = loads(with_tunnel(4, mtu="mtu: 1450"), folder=tmp_path)
    ip = IP(src="10.0.0.2", dst="192.0.2.66", flags=flags)
    packet = build(ip, UDP(sport=1, dport=2), bytes(1800))
    out, drops = run_counted(tmp_path, way_out(gateway, Site(tmp_path / "site")), [packet])
    assert (len(out), drops) == (2, {})


def test_a_byte_more_is_told_to_the_sender(tmp_path: Path) -> None:
    gateway = loads(TEXT, folder=tmp_path)
    (guard, *_) = way_out(gateway, Site(tmp_path / "site"))
    engine = new_engine()
    engine.create_module("guard", *guard)
    ipv4, ipv6 = (
        IP(src="10.0.0.2", dst="192.0.2.66", flags="DF"),
        IPv6(src="2001:db8::1", dst="2001:db8:1::5"),
    )
    for more, gate in ((0, 0), (1, 1)):
        for ip, header in ((ipv4, 28), (ipv6, 48)):
            packet = build(ip, UDP(), bytes(gateway.mtu - header + more))
            assert [*engine.run_packets("guard", [packet])] == [gate]

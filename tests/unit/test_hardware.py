# SPDX-License-Identifier: BSD-3-Clause
"""Hardware descriptions and their errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2ctl.hardware import HardwareError, load, loads

EXAMPLES = Path(__file__).parents[2] / "examples"
SERVER = "{cores: 4, ghz: 2, nic: 1Gbps, agent: a, port: 9, ip: 10.0.0.1, mac: '02:00:00:00:00:01'}"


def description(servers: str = f"s: {SERVER}", switch: str = "{ports: {a: 1}}") -> str:
    return f"servers:\n  {servers}\nswitch: {switch}\n"


def test_example() -> None:
    rack = load(EXAMPLES / "rack.yaml")
    assert list(rack.servers) == ["s1", "s2", "s3"]
    assert rack.servers["s1"].nf_cores == 3
    assert rack.servers["s1"].nic == 10e9
    assert rack.switch.ports == {"subscribers": (1,), "internet": (2,)}
    assert rack.slowest_ghz == 2.6


def test_port_ranges() -> None:
    found = loads(description(switch="{ports: {a: [1, 3-5], b: 7-8}}"))
    assert found.switch.ports == {"a": (1, 3, 4, 5), "b": (7, 8)}


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("{}", "1:1", "expected a mapping with servers and switch"),
        (description(switch="{ports: {a: 0}}"), "3:18", "switch port 0 is not among 1 to 65279"),
        (description(switch="{ports: {a: [1, 1]}}"), "3:18", "names a switch port twice"),
        (description(switch="{ports: {a: 5-3}}"), "3:18", "a number or a range like 4-8"),
        (description(switch="{ports: {a: 9}}"), "1:1", "server s and port a share switch port 9"),
        (
            description(switch="{ports: {}, prts: 1}"),
            "3:21",
            "'prts' is not known here; expected driver, bridge, ",
        ),
        (description(switch="{driver: p4, ports: {}}"), "3:10", "driver: "),
        (description("s: {cores: 1}"), "2:7", "cores: "),
        (
            description(f"s: {SERVER}".replace("02:00", "02-00")),
            "2:70",
            "is not a MAC address; expected one like",
        ),
        (description(f"s: {SERVER}".replace("10.0.0.1", "10.0.0")), "2:56", "is not an IP address"),
        (
            description(f"s: {SERVER}\n  t: " + SERVER.replace("port: 9", "port: 8")),
            "1:1",
            "servers s and t share the ip 10.0.0.1",
        ),
        (
            description(
                f"s: {SERVER}\n  t: "
                + SERVER.replace("port: 9", "port: 8")
                .replace("10.0.0.1", "fd00::1")
                .replace("00:01", "00:02")
                .replace("agent: a", "agent: b")
            ),
            "1:1",
            "tunnels lead from IPv4 to IPv4",
        ),
    ],
)
def test_errors_say_where(text: str, place: str, message: str) -> None:
    with pytest.raises(HardwareError) as caught:
        loads(text, "hw.yaml")
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"hw.yaml:{place}: ")

# SPDX-License-Identifier: BSD-3-Clause
"""Alpine's profile, run and watch on a daemon with a real engine inside this process."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import live_support
from alpine.errors import AlpineError
from alpine.plan import Plan
from alpine.profiling import Load, take_profile
from alpine.program import Program
from alpine.sample import knows_cycles
from bess_plugins.client import BessError, Client
from bess_plugins.daemon.server import Server
from live_support import fork, make_program

ARGS: dict[str, dict[str, Any]] = {
    "split": {"gates": [0, 1]},
    "a": {"cycles_per_packet": 200},
    "b": {"cycles_per_packet": 400},
}


class PlainClient(Client):
    """Of a daemon that has no commands of ours, such as bessd."""

    def run_module_command(
        self, name: str, cmd: str, arg_type: str = "EmptyArg", arg: Any = None
    ) -> dict[str, Any]:
        if cmd.startswith("e2_"):
            raise BessError(errno.ENOTSUP, "no such command")
        return super().run_module_command(name, cmd, arg_type, arg)


@pytest.fixture(params=[Client, PlainClient], ids=["e2d", "plain"])
def either(server: Server, request: pytest.FixtureRequest) -> Iterator[Client]:
    with request.param(server.address) as connected:
        yield connected
        connected.reset_all()


def loader(client: Client, program: Program, args: Mapping[str, Mapping[str, Any]] = ARGS) -> Load:
    def load(plan: Plan) -> None:
        live_support.load(client, program, plan, args)

    return load


def test_a_profile_has_the_cost_of_every_module(either: Client) -> None:
    program = fork()
    steps: list[tuple[str, float]] = []
    profile = take_profile(
        program,
        either,
        loader(either, program),
        0.3,
        progress=lambda what, done: steps.append((what, done)),
    )
    assert set(profile.modules) == set(program.graph.modules)
    # What costs next to nothing may drown in the noise where it takes a difference to tell.
    assert all(cost >= 0 for cost in profile.modules.values())
    # Burning 200 and 400 cycles stands out, whatever else the machine does.
    assert 180 < profile.modules["a"] < profile.modules["b"]
    assert profile.queue.enqueue >= 0 and profile.queue.dequeue >= 0
    assert profile.hz > 1e8
    a, b = profile.rates(program)
    assert 0.8 < a / b < 1.25
    assert steps[0][1] == 0 and steps[-1] == ("done", 1.0)
    assert [done for _, done in steps] == sorted(done for _, done in steps)


def test_a_capture_takes_the_place_of_inputs(client: Client, tmp_path: Path) -> None:
    scapy = pytest.importorskip("scapy.all")
    program = fork()
    if not knows_cycles_of(client):
        pytest.skip("this daemon does not account cycles to tasks")
    capture = tmp_path / "some.pcap"
    scapy.wrpcap(str(capture), [scapy.Ether() / scapy.IP() / scapy.UDP()])
    profile = take_profile(program, client, loader(client, program), 0.2, pcap=capture)
    assert profile.taken == "capture some.pcap"
    assert profile.modules["in"] > 0
    assert sum(profile.rates(program)) > 100


def knows_cycles_of(client: Client) -> bool:
    client.create_module("Sink", "probe")
    return knows_cycles(client, "probe")


def test_an_input_without_packets(client: Client) -> None:
    program = make_program(
        {"in": "Queue", "out": "Sink"}, [("in", 0, "out")], fork(shares=[1]).objective
    )
    with pytest.raises(AlpineError, match=r"input 'in' \(Queue\) brought no packets in 0.01 s"):
        take_profile(program, client, loader(client, program), 0.01)

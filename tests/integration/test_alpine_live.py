# SPDX-License-Identifier: BSD-3-Clause
"""Alpine's profile, run and watch on a daemon with a real engine inside this process."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest

import live_support
from alpine.calibration import calibrate
from alpine.errors import AlpineError
from alpine.graph import Place
from alpine.live import Options, Running, run, start
from alpine.measure import Meter, Reading
from alpine.objectives import Kind
from alpine.plan import Plan
from alpine.profile import profile_path
from alpine.profiling import Load, take_profile
from alpine.program import Program
from alpine.sample import knows_cycles
from alpine.watch import watch
from bess_plugins.client import BessError, Client
from bess_plugins.daemon.server import Server, make_engine
from daemon_support import CORE
from harness import wait_until
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


def test_queues_between_workers(either: Client) -> None:
    either.create_module("Sink", "probe")
    cycles = knows_cycles(either, "probe")
    found = calibrate(either, CORE, CORE, cycles=cycles)  # as if it were another one
    assert found.hz > 1e8
    assert found.queue.crossing >= 0
    assert either.list_modules() == []


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


def running(client: Client, program: Program, folder: Path) -> Running:
    placed = replace(program, path=str(folder / "test.alpine"))
    return start(placed, client, loader(client, placed), Options(profile_s=0.3))


def test_more_workers_than_cores(client: Client, tmp_path: Path) -> None:
    client.create_module("Sink", "kept")
    program = replace(fork(), workers=4097, workers_place=Place("test.alpine", 7, 1))
    with pytest.raises(AlpineError, match=r"^test.alpine:7:1: 4097 workers need as many cores"):
        running(client, program, tmp_path)
    assert [module["name"] for module in client.list_modules()] == ["kept"]


@pytest.mark.parametrize("kind", [Kind.CPU_TIME, Kind.THROUGHPUT])
def test_run_meets_the_objective(either: Client, tmp_path: Path, kind: Kind) -> None:
    started = running(either, fork(kind), tmp_path)
    assert profile_path(tmp_path / "test.alpine").exists()
    assert [queue.edge.source for queue in started.plan.queues]
    # Who shares the core with the worker takes time from whichever task is running, and a queue
    # holds too little to make up for it: only while nobody does is the ratio the schedule's.
    # Without a queue c1 would have two thirds of the time and half of the packets.
    wait_until(lambda: run(started, seconds=0.5).worst_error < 0.05, timeout_s=30)
    seen: list[Reading] = []
    reading = run(started, seconds=0.5, interval=0.2, observe=seen.append)
    assert len(seen) >= 2
    assert [policy.kind for policy in reading.policies] == [kind]
    assert all(found.pps > 0 for found in reading.classes)
    assert 0 < max(found.latency_bound_s for found in reading.classes) < 1
    # Predictions are for this machine; the bounds only tell them from nonsense.
    for found in reading.classes:
        assert 0.3 < found.pps / found.predicted_pps < 3


def test_run_ends_when_told(client: Client, tmp_path: Path) -> None:
    started = running(client, fork(), tmp_path)
    stop = Event()
    stop.set()
    assert run(started, stop=stop).policies


def test_the_second_start_uses_the_profile(client: Client, tmp_path: Path) -> None:
    running(client, fork(), tmp_path)
    steps: list[str] = []
    program = replace(fork(), path=str(tmp_path / "test.alpine"))
    start(program, client, loader(client, program), progress=lambda what, _: steps.append(what))
    assert steps == []


def set_gates(client: Client, *gates: int) -> None:
    client.run_module_command(
        "split", "set_gates", "RandomSplitCommandSetGatesArg", {"gates": [*gates]}
    )


def test_watch_follows_the_traffic(either: Client, tmp_path: Path) -> None:
    # Half of the packets are c1's. Once three quarters are, the input's task needs more time.
    started = running(either, fork(shares=[1, 1]), tmp_path)
    set_gates(either, 0, 1, 1, 1)
    lines: list[str] = []
    swaps = watch(started, seconds=1.0, interval=0.4, threshold=0.08, log=lines.append)
    assert swaps
    assert lines[0] == str(swaps[0])
    assert "of the packets: in 5" in lines[0]
    assert started.meter.schedule is not started.schedule
    shares = {tc["leaf_module_name"]: tc["share"] for tc in either.list_tcs() if "share" in tc}
    assert shares == {move.name: move.share for move in swaps[-1].moves}
    into = next(move for move in swaps[0].moves if move.name == "in")
    assert into.part > into.part_before


def test_watch_says_when_shares_are_not_enough(client: Client, tmp_path: Path) -> None:
    # c1 gets too few packets for half of the time; its task had to poll, and never was to.
    started = running(client, fork(shares=[1, 1]), tmp_path)
    set_gates(client, 0, 0, 0, 0, 1)
    lines: list[str] = []
    assert watch(started, seconds=1.0, interval=0.3, log=lines.append) == []
    assert len(lines) == 1  # once, though each interval finds it again
    assert "can't meet the objectives any more" in lines[0]
    assert "poll a queue that is empty" in lines[0]
    assert "`alpine run`" in lines[0]


def test_watch_leaves_steady_traffic_alone(client: Client, tmp_path: Path) -> None:
    started = running(client, fork(), tmp_path)
    assert watch(started, seconds=0.5, interval=0.3, threshold=0.5) == []


def test_a_pipeline_that_was_replaced(client: Client, tmp_path: Path) -> None:
    started = running(client, fork(), tmp_path)
    client.reset_all()
    with pytest.raises(AlpineError, match=r"was replaced: .*run again with `alpine run`"):
        run(started, seconds=0.1)
    load = loader(client, started.program)
    (queue,) = started.plan.queues
    other = next(e for e in started.program.graph.edges if e.key == ("split", 0))
    load(Plan((replace(queue, edge=other),), (), polling=False))
    with pytest.raises(AlpineError, match="split:0 leads to q0, not to a; start this one"):
        Meter(client, [*started.program.graph.modules], started.schedule, started.plan)


def test_a_daemon_that_went_away(tmp_path: Path) -> None:
    with Server(make_engine(4096), port=0) as server, Client(server.address) as client:
        started = running(client, fork(), tmp_path)
        server.stop()
        with pytest.raises(AlpineError, match=r"went away; start it with `e2d start`"):
            run(started, seconds=0.1)
        with pytest.raises(AlpineError, match="went away"):
            watch(started, seconds=0.1)

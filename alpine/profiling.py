# SPDX-License-Identifier: BSD-3-Clause
"""Takes the profile of a script on the daemon that is to run it.

The pipeline first runs without any queue of ours, so that every packet goes all the way: the
counters at gates tell how packets divide, and those of tasks what all modules cost together. Where
the daemon accounts cycles to modules, it runs as long with that, and the costs of modules are
adjusted to their sum without. Where it doesn't, the pipeline runs once more with a queue before
every module, and each task's cycles are its module's, but for those of the queues.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

from alpine.calibration import calibrate
from alpine.errors import AlpineError
from alpine.flows import delivered_costs
from alpine.graph import QUEUEING_CLASSES, build_forest
from alpine.plan import NewQueue, Plan, TcNode, TcTask
from alpine.profile import Profile, QueueCosts
from alpine.program import Program
from alpine.sample import (
    Growth,
    Progress,
    accounting,
    between,
    daemon_errors,
    knows_cycles,
    read_sample,
)
from bess_plugins.client import Client

__all__ = ["Load", "adjusted", "take_profile"]

Load = Callable[[Plan], None]  # replaces what the daemon runs with the script and this plan

_WARM_UP = 0.1  # of the time that counts
_IDLE = 0.01  # of the time: with more, what packets cost can't be told from the use of tasks
_ROOT = "alpine_profile"


def take_profile(
    program: Program,
    client: Client,
    load: Load,
    seconds: float = 2.0,
    *,
    pcap: Path | None = None,
    progress: Progress | None = None,
) -> Profile:
    """Run the pipeline for a while, replacing what the daemon runs, and tell what it costs.

    ``pcap``: a capture that takes the place of what every input brings, over and over again.
    """
    say = progress or (lambda _what, _done: None)
    graph = program.graph
    with daemon_errors(client):
        say("loading the pipeline", 0.0)
        load(_uncut(program))
        known = knows_cycles(client, next(iter(graph.modules)))
        if pcap is not None:
            if not known:
                raise AlpineError(f"the daemon at {client.address} can't replay captures; use e2d")
            _replay(program, client, pcap)
        say(f"running it for {seconds:g} s", 0.05)
        grown = _observe(client, [*graph.modules], seconds, cycles=False)
        _check_inputs(program, grown, seconds)
        if known:
            say(f"accounting its modules for {seconds:g} s", 0.3)
            costs = adjusted(_observe(client, [*graph.modules], seconds, cycles=True), grown)
        say("measuring what queues cost", 0.6)
        cores = _cores(client)
        other = cores[1] if program.workers > 1 and len(cores) > 1 else None
        found = calibrate(client, cores[0], other, cycles=known)
        if not known:
            say(f"running it with a queue before every module for {seconds:g} s", 0.7)
            costs = _by_cutting(program, client, load, seconds, found.queue)
        profile = Profile(
            digest=program.digest,
            daemon=client.version(),
            taken="generated" if pcap is None else f"capture {pcap.name}",
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=seconds,
            hz=found.hz,
            queue=found.queue,
            modules={},
            packets=_by_gate(program, grown),
        )
    profile.rates(program)  # a class without packets is an error
    forest = build_forest(graph, program.paths)
    modules = delivered_costs(forest, costs, profile.flow(forest))
    say("done", 1.0)
    return profile.model_copy(update={"modules": modules})


def _uncut(program: Program) -> Plan:
    """The script's own tasks take turns, below a class like that of a schedule."""
    own = [name for name, module in program.graph.modules.items() if module.tasks]
    leaves = tuple((1, TcTask(name, "")) for name in own)
    return Plan((), (TcNode(_ROOT, "weighted_fair", "count", leaves),), polling=False)


def _observe(client: Client, modules: list[str], seconds: float, *, cycles: bool) -> Growth:
    with accounting(client, modules[0]) if cycles else nullcontext():
        time.sleep(_WARM_UP * seconds)
        before = read_sample(client, modules, cycles=cycles)
        time.sleep(seconds)
        return between(before, read_sample(client, modules, cycles=cycles))


def adjusted(profiled: Growth, plain: Growth) -> dict[str, float]:
    """Cycles per packet of each module, so that together they cost what they do unprofiled.

    The daemon takes the overhead of each look at the clock out of its figures, but knows only an
    average of it. What is left over or missing in all is divided in the proportion of that.
    """
    uses = profiled.modules
    spent = sum(use.cycles + use.task_cycles for use in uses.values())
    overhead = sum(use.overhead_cycles for use in uses.values())
    idle = sum(use.idle_cycles for use in uses.values())
    scale = 0.0
    if overhead > 0 and idle < _IDLE * spent:
        should = sum(
            use.task_packets * task.cycles / task.packets
            for name, use in uses.items()
            if (task := plain.tasks.get(name)) is not None and task.packets
        )
        scale = (should - spent) / overhead
    return {
        name: max(0.0, (use.cost or 0.0) + scale * use.overhead_cycles / use.packets)
        if use.packets
        else use.cost or 0.0
        for name, use in uses.items()
    }


def _cores(client: Client) -> list[int]:
    """The core that the script's first worker is bound to, if any, then others of this machine."""
    bound = [int(worker["core"]) for worker in client.list_workers()[:1]]
    allowed = sorted(os.sched_getaffinity(0))
    return list(dict.fromkeys([*(core for core in bound if core >= 0), *allowed]))


def _check_inputs(program: Program, grown: Growth, seconds: float) -> None:
    for name in program.graph.inputs():
        gates = program.graph.out_edges(name)
        if gates and not any(grown.packets.get(edge.key) for edge in gates):
            module = program.graph.modules[name]
            raise AlpineError(
                f"{module.place or program.path}: input '{name}' ({module.mclass}) brought no "
                f"packets in {seconds:g} s; send it some, give --pcap, or assume costs (--even)"
            )


def _by_gate(program: Program, grown: Growth) -> dict[str, dict[int, int]]:
    counts: dict[str, dict[int, int]] = {}
    for edge in program.graph.edges:
        counts.setdefault(edge.source, {})[edge.ogate] = grown.packets.get(edge.key, 0)
    return counts


def _replay(program: Program, client: Client, pcap: Path) -> None:
    """Put a port that repeats the capture in the place of every input, under its name."""
    client.pause()
    for name in program.graph.inputs():
        edges = program.graph.out_edges(name)
        if [edge.ogate for edge in edges] != [0]:
            raise AlpineError(
                f"{program.path}: a capture can't take the place of input '{name}', which uses "
                "other output gates than 0; let the script's own input make the traffic"
            )
        client.destroy_module(name)
        port = f"alpine_{name}"
        client.create_port("PCAPPort", port, dev=str(pcap.resolve()), loop=True)
        client.create_module("PortInc", name, port=port)
        client.connect(name, edges[0].target, 0, edges[0].igate)
    client.resume()


def _by_cutting(
    program: Program, client: Client, load: Load, seconds: float, queue: QueueCosts
) -> dict[str, float]:
    """Cycles per packet of each module, from tasks that run one module each."""
    graph = program.graph
    cut = [
        edge for edge in graph.edges if graph.modules[edge.target].mclass not in QUEUEING_CLASSES
    ]
    queues = tuple(NewQueue(f"alpine_q{i}", edge) for i, edge in enumerate(cut))
    own = [name for name, module in graph.modules.items() if module.tasks]
    leaves = [TcTask(name, "") for name in (*own, *(queue.name for queue in queues))]
    root = TcNode(_ROOT, "round_robin", "", tuple((None, leaf) for leaf in leaves))
    load(Plan(queues, (root,), polling=False))
    grown = _observe(client, [*graph.modules], seconds, cycles=False)
    tasks_of: dict[str, list[str]] = {name: [] for name in graph.modules}
    for new in queues:
        tasks_of[new.edge.target].append(new.name)
    costs = {}
    for name, module in graph.modules.items():
        if module.mclass in QUEUEING_CLASSES:
            costs[name] = queue.enqueue
            continue
        sent = sum(grown.edges.get(edge.key, 0.0) for edge in graph.out_edges(name))
        uses = [grown.tasks[task] for task in tasks_of[name] or [name] if task in grown.tasks]
        packets = sum(use.packets for use in uses)
        dequeue = queue.dequeue if tasks_of[name] else 0.0
        spent = sum(use.cycles for use in uses) - packets * dequeue - sent * queue.enqueue
        costs[name] = max(0.0, spent / packets) if packets else 0.0
    return costs

# SPDX-License-Identifier: BSD-3-Clause
"""Programs made by hand, and what puts them on a daemon, for tests of what Alpine measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alpine.graph import Edge, ModuleGraph, ModuleNode, Path
from alpine.objectives import Kind, Member, Policy
from alpine.plan import Plan, TcNode, TcTask
from alpine.program import Program
from alpine.sample import Sample, TaskUse
from bess_plugins.client import BessError, Client
from bess_plugins.script.recording import record_script
from daemon_support import CORE

__all__ = ["fork", "load", "make_program", "merge", "sample_of"]

_TASKS = {"Source": 1, "Queue": 1}


def make_program(
    modules: Mapping[str, str],
    edges: Sequence[tuple[str, int, str]],
    objective: Policy | None,
    *,
    workers: int = 1,
) -> Program:
    """A program whose classes are all paths, named after their exit (and input gate, at merges)."""
    nodes = {name: ModuleNode(name, kind, _TASKS.get(kind, 0)) for name, kind in modules.items()}
    links = tuple(Edge(source, gate, target, 0) for source, gate, target in edges)
    graph = ModuleGraph(nodes, links)
    paths: list[Path] = []

    def walk(start: str, way: tuple[Edge, ...]) -> None:
        further = graph.out_edges(way[-1].target if way else start)
        for edge in further:
            walk(start, (*way, edge))
        if not further:
            paths.append(Path(f"c{len(paths)}", start, way))

    for start in graph.inputs():
        walk(start, ())
    source = "".join(f"{kind}(name={name!r})\n" for name, kind in modules.items())
    source += "".join(
        f"bess.connect_modules({start!r}, {end!r}, {gate}, 0)\n" for start, gate, end in edges
    )
    recording = record_script("test.alpine", source)
    return Program("test.alpine", source, graph, tuple(paths), objective, workers, "d1", recording)


def fork(kind: Kind = Kind.CPU_TIME, *, shares: Sequence[float] = (3, 1)) -> Program:
    """in -> split, and from there a -> a_out and b -> b_out, with a share for each."""
    members = tuple(Member(share, path) for path, share in enumerate(shares))
    return make_program(
        {
            "in": "Source",
            "split": "RandomSplit",
            "a": "Bypass",
            "b": "Bypass",
            "a_out": "Sink",
            "b_out": "Sink",
        },
        [
            ("in", 0, "split"),
            ("split", 0, "a"),
            ("split", 1, "b"),
            ("a", 0, "a_out"),
            ("b", 0, "b_out"),
        ],
        Policy("p", kind, members),
    )


def merge() -> Program:
    """Two ways from in to m, and two from there."""
    return make_program(
        {"in": "Source", "s": "RandomSplit", "m": "RandomSplit", "x": "Sink", "y": "Sink"},
        [("in", 0, "s"), ("s", 0, "m"), ("s", 1, "m"), ("m", 0, "x"), ("m", 1, "y")],
        None,
    )


def sample_of(
    seconds: float,
    edges: Mapping[tuple[str, int], int],
    tasks: Mapping[str, TaskUse],
    targets: Mapping[tuple[str, int], str],
) -> Sample:
    """What is read at that time."""
    return Sample({key: (count, seconds) for key, count in edges.items()}, targets, tasks)


def load(
    client: Client, program: Program, plan: Plan, args: Mapping[str, Mapping[str, Any]]
) -> None:
    """Replace what the daemon runs with this program and plan.

    Tasks that the plan schedules are on worker 0; without any, the daemon makes a worker.
    """
    client.reset_all()
    if plan.roots:
        try:
            client.add_worker(0, CORE, "polling" if plan.polling else "")
        except BessError:  # a daemon without that scheduler
            client.add_worker(0, CORE)
    client.pause()
    for module in program.graph.modules.values():
        client.create_module(module.mclass, module.name, **args.get(module.name, {}))
    queues = {queue.edge.key: queue.name for queue in plan.queues}
    for queue in plan.queues:
        client.create_module("Queue", queue.name)
    for edge in program.graph.edges:
        if edge.key in queues:
            client.connect(edge.source, queues[edge.key], edge.ogate, 0)
            client.connect(queues[edge.key], edge.target, 0, edge.igate)
        else:
            client.connect(edge.source, edge.target, edge.ogate, edge.igate)
    for root in plan.roots:
        _attach(client, root, wid=0)
    client.resume()


def _attach(client: Client, tc: TcNode | TcTask, **place: Any) -> None:
    if isinstance(tc, TcTask):
        client.attach_task(tc.module, **place)
        return
    client.add_tc(tc.name, tc.policy, resource=tc.resource, **place)
    for value, child in tc.children:
        how = "priority" if tc.policy == "priority" else "share"
        _attach(client, child, parent=tc.name, **({} if value is None else {how: value}))

# SPDX-License-Identifier: BSD-3-Clause
"""Pictures of schedules: the pipeline with its queues, a colour for each task."""

from __future__ import annotations

import colorsys

from alpine.measure import Wiring
from alpine.plan import Plan
from alpine.program import Program
from alpine.schedule import Schedule
from bess_plugins.script.graph import Edge, Graph, to_svg

__all__ = ["draw_schedule"]

_GOLDEN = 0.618034  # turns between hues: neighbours in the list never look alike
_SHARED = "#ffffff"  # of a module that several tasks run


def _colour(number: int) -> str:
    red, green, blue = colorsys.hls_to_rgb((number * _GOLDEN) % 1.0, 0.86, 0.65)
    return f"#{int(red * 255):02x}{int(green * 255):02x}{int(blue * 255):02x}"


def draw_schedule(program: Program, schedule: Schedule, plan: Plan) -> str:
    """An SVG document. Queues are labelled with their task's part of its worker's time."""
    forest = schedule.problem.forest
    wiring = Wiring.of(schedule, plan)
    modules = {name: (node.mclass, "") for name, node in program.graph.modules.items()}
    fills: dict[str, str] = {}
    for number, task in enumerate(schedule.tasks):
        for module in {forest.nodes[n].module for n in task.nodes}:
            fills[module] = _SHARED if module in fills else _colour(number)
    for number, task in enumerate(schedule.tasks):
        name = wiring.modules[task.head]
        kind = modules[name][0] if name in modules else "Queue"
        modules[name] = (kind, f"{task.weight:.1%}")
        fills[name] = _colour(number)
    edges = []
    for edge in program.graph.edges:
        queue = wiring.queues.get(edge.key)
        if queue is None:
            edges.append(Edge(edge.source, edge.ogate, edge.target, edge.igate, 0, 0, 0.0))
        else:
            edges.append(Edge(edge.source, edge.ogate, queue, 0, 0, 0, 0.0))
            edges.append(Edge(queue, 0, edge.target, edge.igate, 0, 0, 0.0))
    return to_svg(Graph(modules, edges), fills)

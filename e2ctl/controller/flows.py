# SPDX-License-Identifier: BSD-3-Clause
"""Flows of instances: what keeps them where they are when a plan changes, and which are left.

New ranges alone would move active flows. So a commit begins by telling an instance that is to pass
new flows on to `split`, which makes exceptions of active ones, and stages upstream get new ranges
together with the exceptions that go with them. Both can be repeated: a controller may be killed in
between.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from bess_plugins.pb import e2_agent_pb2 as pb
from e2ctl.controller.agents import Agents, module_command
from e2ctl.igraph import Span
from e2ctl.plan import Detour, FlowException, Plan
from e2ctl.transitions import TransitionError
from e2ctl.wiring import ModuleSpec

__all__ = ["FEW", "active", "ended", "hold_of", "keep_flows", "left", "status_of", "staying"]

# Flows that may stay with an instance when upstream is told of its split.
FEW = 64
_MOST_FLOWS = 1 << 21
_Flow = tuple[tuple[str, int | str], ...]


async def keep_flows(
    old: Plan | None, new: Plan, agents: Agents
) -> dict[str, list[pb.AgentCommand]]:
    """What servers' commits are to begin with, so that flows stay when one plan follows another.

    Asks agents, and changes nothing.
    """
    commands: defaultdict[str, list[pb.AgentCommand]] = defaultdict(list)
    if old is None:
        return commands
    for instance, detour in new.detours.items():
        server, hold = new.layout.servers[instance], hold_of(new, instance)
        assert hold is not None
        # One that is made for this change begins with its ranges.
        if old.detours.get(instance) != detour and _runs(old, server, hold):
            commands[server] += await _begin(new, agents, instance, detour)
    for server, plan in new.servers.items():
        for module in plan.modules:
            if module.mclass != "FlowSteer" or module.node not in new.igraph.steering:
                continue
            runs = _runs(old, server, module)
            added = [
                {"flow": dict(e.flow), "gate": new.instance(e.instance).index}
                for e in new.exceptions
                if e.instance.rpartition(".")[0] == module.node
                and (e not in old.exceptions or not runs)
            ]
            if added:
                arg = {"ranges": module.args["ranges"], "add_exceptions": added}
                commands[server].append(
                    module_command(module.name, "update", "FlowSteerCommandUpdateArg", arg)
                )
    return commands


async def _begin(
    plan: Plan, agents: Agents, instance: str, detour: Detour
) -> list[pb.AgentCommand]:
    """Have an instance pass on new flows, and keep active ones."""
    here, there = plan.instance(instance).index, plan.instance(detour.target).index
    gate, new_gate = (there, here) if detour.kind == "resume" else (here, there)
    status = await status_of(plan, agents, instance)
    ids = detour.ids
    if any(r["gate"] == new_gate and r["start"] <= ids.start < r["end"] for r in status["ranges"]):
        return []  # it was told already
    arg = {
        "gate": gate,
        "new_gate": new_gate,
        "cut": ids.start,
        "end": ids.end,
        "threshold": FEW,
    }
    module = hold_of(plan, instance)
    assert module is not None
    return [module_command(module.name, "split", "FlowSteerCommandSplitArg", arg)]


def _runs(plan: Plan, server: str, module: ModuleSpec) -> bool:
    before = plan.servers.get(server)
    return before is not None and any(one.name == module.name for one in before.modules)


def hold_of(plan: Plan, instance: str) -> ModuleSpec | None:
    """An instance's own FlowSteer; None: its type does not scale."""
    target = plan.servers[plan.layout.servers[plan.instance(instance).name]]
    for module in target.modules:
        if module.mclass == "FlowSteer" and module.node == instance:
            return module
    return None


async def status_of(plan: Plan, agents: Agents, instance: str) -> dict[str, Any]:
    """What an instance's own FlowSteer says of its gates, ranges and splits."""
    arg_type = "FlowSteerCommandGetStatusArg"
    return await _steer(plan, agents, instance, "get_status", arg_type)


def left(plan: Plan, instance: str, status: dict[str, Any]) -> int:
    """Flows that the change of an instance still keeps from where new ones go.

    Of one that is being drained, all that are there.
    """
    detour = _detour(plan, instance)
    here, there = plan.instance(instance).index, plan.instance(detour.target).index
    if detour.kind == "drain":
        return sum(int(gate["flows"]) for gate in status["gates"] if gate["gate"] == here)
    ways = (there, here) if detour.kind == "resume" else (here, there)
    return sum(
        int(split["exceptions"])
        for split in status["splits"]
        if (split["gate"], split["new_gate"]) == ways and split["cut"] == detour.ids.start
    )


async def staying(plan: Plan, agents: Agents, instance: str) -> list[FlowException]:
    """The flows that stay, though new ones like them go elsewhere, as exceptions for upstream."""
    detour = _detour(plan, instance)
    stays = detour.target if detour.kind == "resume" else instance
    found = await _flows(plan, agents, instance, plan.instance(stays).index, detour.ids)
    return [FlowException(stays, flow) for flow in found]


async def active(plan: Plan, agents: Agents, instance: str, ids: Span | None = None) -> list[int]:
    """Ids of the active flows that an instance has, those of a span only if one is given."""
    arg = _part(plan.instance(instance).index, ids)
    found = await _steer(plan, agents, instance, *_GET_FLOWS, arg)
    return [entry["id"] for entry in found["flows"] if "id" in entry]


async def ended(
    plan: Plan, agents: Agents, exceptions: Iterable[FlowException]
) -> list[FlowException]:
    """Those of a plan's exceptions whose flows have ended."""
    gone = []
    wanted = list(exceptions)
    for instance in dict.fromkeys(exception.instance for exception in wanted):
        alive = await _flows(plan, agents, instance, plan.instance(instance).index, None)
        gone += [e for e in wanted if e.instance == instance and e.flow not in alive]
    return gone


_GET_FLOWS = ("get_flows", "FlowSteerCommandGetFlowsArg")


def _part(gate: int, ids: Span | None) -> dict[str, int]:
    arg = {"gate": gate, "limit": _MOST_FLOWS}
    return arg if ids is None else {**arg, "start": ids.start, "end": ids.end}


async def _flows(
    plan: Plan, agents: Agents, instance: str, gate: int, ids: Span | None
) -> dict[_Flow, None]:
    """Flows that an instance's own FlowSteer sends to a gate, in its order."""
    found = await _steer(plan, agents, instance, *_GET_FLOWS, _part(gate, ids))
    return {
        tuple(sorted((k, v) for k, v in entry["flow"].items() if v)): None
        for entry in found["flows"]
    }


def _detour(plan: Plan, instance: str) -> Detour:
    detour = plan.detours.get(instance)
    if detour is None:
        raise TransitionError(f"{instance} is not part of a change that goes out from it")
    return detour


async def _steer(
    plan: Plan,
    agents: Agents,
    instance: str,
    command: str,
    arg_type: str,
    arg: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Run a command of an instance's own FlowSteer."""
    module = hold_of(plan, instance)
    assert module is not None
    server = plan.layout.servers[instance]
    return await agents[server].command(module.name, command, arg_type, arg)

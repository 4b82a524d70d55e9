# SPDX-License-Identifier: BSD-3-Clause
"""What keeps flows with their instances when a plan changes, between prepare and commit.

New ranges alone would move active flows. So an instance that begins to pass new flows on is told
to `split`, which makes exceptions of active ones, and stages upstream get new ranges together with
the exceptions that go with them. Both can be repeated: a controller may be killed in between.
"""

from __future__ import annotations

from typing import Any

from e2ctl.controller.agents import Agents
from e2ctl.plan import Detour, Plan
from e2ctl.wiring import ModuleSpec

__all__ = ["FEW", "hold_of", "keep_flows", "steer"]

# Flows that may stay with an instance when upstream is told of its split.
FEW = 64


async def keep_flows(old: Plan | None, new: Plan, agents: Agents) -> None:
    """Prepare the dataplanes for the change from one plan to another."""
    if old is None:
        return
    for instance, detour in new.detours.items():
        if old.detours.get(instance) != detour:
            await _split(new, agents, instance, detour)
    fresh = [exception for exception in new.exceptions if exception not in old.exceptions]
    for nf in dict.fromkeys(exception.instance.rpartition(".")[0] for exception in fresh):
        added = [
            {"flow": dict(e.flow), "gate": new.instance(e.instance).index}
            for e in fresh
            if e.instance.rpartition(".")[0] == nf
        ]
        for server, plan in new.servers.items():
            for module in plan.modules:
                if module.mclass == "FlowSteer" and module.node == nf:
                    arg = {"ranges": module.args["ranges"], "add_exceptions": added}
                    await agents[server].command(
                        module.name, "update", "FlowSteerCommandUpdateArg", arg
                    )


async def _split(plan: Plan, agents: Agents, instance: str, detour: Detour) -> None:
    status = await steer(plan, agents, instance, "get_status", "FlowSteerCommandGetStatusArg")
    target = plan.instance(detour.target).index
    if any(part["gate"] == target for part in status["ranges"]):
        return  # it was told already
    arg = {
        "gate": plan.instance(instance).index,
        "new_gate": target,
        "cut": detour.cut,
        "threshold": FEW,
    }
    await steer(plan, agents, instance, "split", "FlowSteerCommandSplitArg", arg)


def hold_of(plan: Plan, instance: str) -> ModuleSpec | None:
    """An instance's own FlowSteer; None: its type does not scale."""
    target = plan.servers[plan.layout.servers[plan.instance(instance).name]]
    for module in target.modules:
        if module.mclass == "FlowSteer" and module.node == instance:
            return module
    return None


async def steer(
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

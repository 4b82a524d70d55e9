# SPDX-License-Identifier: BSD-3-Clause
"""Carrying out a plan: all of it or nothing, and without a packet lost.

1. Every agent *prepares*: modules, workers, programs, entries. Nothing leads there yet.
2. Every agent *commits*: flows that are active are told to stay (`e2ctl.controller.flows`), and
   packets are led to the new parts, whose entries all servers have by now.
3. The switch gets its new entries in one step.
4. Every agent *finishes*: what nothing leads to any more goes away.

Servers that have their part of the plan already are asked, and left alone.

Failing in the first step leaves what ran untouched; failing in the second or third leads all back
to the plan before; failing in the last leaves old parts that nothing leads to. The store knows
which step was reached.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar, cast

from e2ctl.controller.agents import Agent, AgentError, Agents, runs
from e2ctl.controller.flows import keep_flows
from e2ctl.controller.store import Inputs, State, Store, StoreError
from e2ctl.controller.switches import SwitchDriver, SwitchError
from e2ctl.plan import Plan
from e2ctl.server_plan import ServerPlan, empty_plan
from e2ctl.switch_rules import SwitchRule

__all__ = ["ApplyError", "apply", "bring_in_step", "recover"]

# Packets that left a server before the change have arrived after this.
_IN_FLIGHT_S = 0.05

Progress = Callable[[str], None]
T = TypeVar("T")
U = TypeVar("U")
V = TypeVar("V")


class ApplyError(Exception):
    """A plan could not be carried out; what ran before runs on. The message says why."""


@dataclass(frozen=True)
class _Goal:
    """What servers and switch are to have."""

    servers: Mapping[str, ServerPlan]
    rules: tuple[SwitchRule, ...]

    def only(self, servers: Collection[str]) -> dict[str, ServerPlan]:
        """What some servers are to have."""
        return {server: self.servers[server] for server in servers}


def _goal(plan: Plan | None, agents: Agents, lost: Collection[str] = ()) -> _Goal:
    servers = [agent.server for agent in agents if agent.server not in lost]
    if plan is None:
        return _Goal({name: empty_plan(name) for name in servers}, ())
    return _Goal(
        {name: plan.servers.get(name) or empty_plan(name) for name in servers}, plan.switch
    )


async def apply(
    inputs: Inputs,
    store: Store,
    agents: Agents,
    switch: SwitchDriver,
    progress: Progress = lambda step: None,
) -> Plan:
    """Make a cluster do what the inputs say; an `ApplyError` leaves it as it was."""
    before = store.read()
    if before.stage != "done":
        raise ApplyError("an earlier change is not finished; recover first")
    new = inputs.plan()
    old = before.current.plan() if before.current else None
    await _change(inputs, store, agents, switch, old, new, progress)
    return new


async def _change(
    inputs: Inputs,
    store: Store,
    agents: Agents,
    switch: SwitchDriver,
    before: Plan | None,
    after: Plan,
    progress: Progress,
    *,
    again: bool = False,
) -> None:
    """``again``: nobody knows how far a try before has come."""
    old, new = (_goal(plan, agents, inputs.lost) for plan in (before, after))
    current = store.read().current
    changed = [s for s in new.servers if again or new.servers[s] != old.servers[s]]
    servers = changed
    store.write(State(current, inputs, "preparing"))
    try:
        progress("prepare")
        _, commands, astray = await _all(
            agents.step("Prepare", new.only(changed)),
            keep_flows(before, after, agents),
            _astray(agents, {s: plan for s, plan in old.servers.items() if s not in changed}),
        )
        servers = [*changed, *astray]
        await agents.step("Prepare", new.only(astray))
    except (AgentError, StoreError) as error:
        await _back(agents, switch, old, servers, undo_commit=False)
        store.write(State(current))
        raise ApplyError(f"nothing changed: {error}") from None
    store.write(State(current, inputs, "committing"))
    servers += [server for server in commands if server not in servers]
    try:
        progress("commit")
        await agents.step("Commit", new.only(servers), commands)
        progress("switch")
        await switch.replace(new.rules)
    except (AgentError, SwitchError) as error:
        await _back(agents, switch, old, servers, undo_commit=True)
        store.write(State(current))
        raise ApplyError(f"what ran before runs on: {error}") from None
    progress("finish")
    await asyncio.sleep(_IN_FLIGHT_S)
    # Packets are led by the new plan: a server that keeps old parts is for `recover` to bring in
    # step, and no reason to go back or to stop in the middle.
    try:
        await agents.step("Finish", new.only(servers))
    except AgentError as error:
        progress(f"not all is finished: {error}")
    store.write(State(inputs))


async def _all(first: Awaitable[T], second: Awaitable[U], third: Awaitable[V]) -> tuple[T, U, V]:
    """Wait for all, and only then for what went wrong."""
    found = await asyncio.gather(first, second, third, return_exceptions=True)
    for one in found:
        if isinstance(one, BaseException):
            raise one
    return cast(tuple[T, U, V], tuple(found))


async def _astray(agents: Agents, plans: Mapping[str, ServerPlan]) -> list[str]:
    """Servers that don't run what they should."""
    states = await agents.states([agent.server for agent in agents if agent.server not in plans])
    failed = [state for state in states.values() if isinstance(state, AgentError)]
    if failed:
        raise AgentError.together(failed)
    return [
        server
        for server, state in states.items()
        if not isinstance(state, AgentError) and not runs(state, plans[server])
    ]


async def _back(
    agents: Agents, switch: SwitchDriver, old: _Goal, servers: Collection[str], *, undo_commit: bool
) -> None:
    """Lead all back to what was, on those of the servers that can be reached."""
    if undo_commit:
        with suppress(SwitchError):  # it still has the old entries, or none
            await switch.replace(old.rules)
    for server, plan in old.only(servers).items():
        with suppress(AgentError):  # when it is back, it is brought in step
            if undo_commit:
                await bring_in_step(agents[server], plan)
            else:
                await agents[server].step("Finish", plan)


async def bring_in_step(agent: Agent, plan: ServerPlan) -> None:
    """Have one server do what a plan says, whatever it does now."""
    for step in ("Prepare", "Commit", "Finish"):
        await agent.step(step, plan)


async def recover(
    store: Store, agents: Agents, switch: SwitchDriver, progress: Progress = lambda step: None
) -> Plan | None:
    """Finish or take back what a killed controller left half done; returns the plan that runs.

    Also brings servers and switch in step that lost theirs. Does nothing where all is well.
    """
    state = store.read()
    old = state.current.plan() if state.current else None
    if state.next is not None and state.stage == "preparing":
        progress("take back")
        goal = _goal(old, agents, state.next.lost)
        await _back(agents, switch, goal, goal.servers, undo_commit=False)
        store.write(State(state.current))
    elif state.next is not None:
        new = state.next.plan()
        await _change(state.next, store, agents, switch, old, new, progress, again=True)
        return new
    if old is not None and state.current is not None:
        goal = _goal(old, agents, state.current.lost)
        for step in ("Prepare", "Commit"):
            await agents.step(step, goal.servers)
        await switch.replace(goal.rules)
        await agents.step("Finish", goal.servers)
    return old

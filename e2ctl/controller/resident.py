# SPDX-License-Identifier: BSD-3-Clause
"""The controller that stays: it scales instances, and puts right what breaks.

What is wrong is found by asking, a few times per second: agents how they do, the switch how many
entries it has, the store whether a change was left half done. Each kind of trouble has one repair:

* a change that was left half done is finished or taken back;
* a server that has something else than the plan says gets the plan once more;
* a server that nothing is heard of for long is *lost*: its instances begin anew elsewhere, under
  the names, spans and entries that they had;
* a lost server that is back is emptied, and may have instances again;
* a switch without its entries gets them.

Repairs are tried again for as long as it takes; a failure is told when it is a new one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

from bess_plugins.pb import e2_agent_pb2 as pb
from e2ctl.controller.agents import Agent, AgentError, Agents, runs
from e2ctl.controller.apply import ApplyError, apply, bring_in_step, recover
from e2ctl.controller.autoscale import Autoscaler
from e2ctl.controller.notices import Notice, Notices, listen
from e2ctl.controller.scale import Scaler
from e2ctl.controller.store import Inputs, Store, StoreError, pause
from e2ctl.controller.switches import SwitchDriver, SwitchError
from e2ctl.placement import PlacementError
from e2ctl.plan import Plan
from e2ctl.routing import PlanError
from e2ctl.server_plan import empty_plan
from e2ctl.transitions import TransitionError

__all__ = ["Controller"]

_LOOK_S = 0.2
_SWITCH_S = 0.5
_SCALE_S = 1.0
_FORGET_S = 5.0
_OUSTED_S = 5.0  # of no word from the store that this is the one controller
# Failures of a cluster, which may have passed when it is tried again.
_TROUBLE = (
    AgentError,
    ApplyError,
    OSError,
    PlacementError,
    PlanError,
    StoreError,
    SwitchError,
    TransitionError,
)


class Controller:
    """Looks after a cluster for as long as it is the one controller."""

    def __init__(
        self,
        store: Store,
        agents: Agents,
        switch: SwitchDriver,
        *,
        scaling: bool = True,
        lost_after_s: float = 2.0,
    ) -> None:
        self.notices = Notices()
        self.scaler = Scaler(store, agents, switch, self._step)
        self.leads = False
        self.down_since: dict[str, float] = {}  # servers of which nothing is heard
        self.shown: tuple[Inputs, Plan] | None = None  # what ran when last looked, for metrics
        self._store = store
        self._agents = agents
        self._switch = switch
        self._autoscaler = Autoscaler(self.scaler, agents, self.notices) if scaling else None
        self._lost_after_s = lost_after_s
        self._troubles: dict[str, str] = {}  # by what failed; told already
        self._states: dict[str, pb.AgentState] = {}  # what agents said last

    async def run(self, stop: asyncio.Event) -> None:
        """Be the one controller whenever that can be, and stand by otherwise, until ``stop``."""
        began = False
        while not stop.is_set():
            try:
                async with self._store.lead(stop):
                    if self._store.leads:
                        began = True
                        await self._lead(stop)
            except StoreError:
                if not began:
                    raise
                await pause(_SCALE_S, stop)

    async def _lead(self, stop: asyncio.Event) -> None:
        """Work until ``stop``, or until another may be the one controller."""
        self.leads = True
        self.notices.tell(Notice("leads"))
        works = [
            *(listen(agent, self._told) for agent in self._agents),
            *(self._look_at(agent) for agent in self._agents),
            self._again(_LOOK_S, self._repair, stop),
            self._again(_SWITCH_S, self._refill, stop),
            self._again(_FORGET_S, self._forget, stop),
            self._again(_SCALE_S, self._scale, stop),
        ]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
            missed_s = 0.0  # the store may be away for a moment, as etcd may
            while missed_s < _OUSTED_S and await pause(_LOOK_S, stop):
                missed_s = 0.0 if self._store.leads else missed_s + _LOOK_S
            for task in tasks:
                task.cancel()
        self.leads = False
        if not stop.is_set():
            self.notices.tell(Notice("leads no more"))

    def _told(self, notice: Notice) -> None:
        self.notices.tell(notice)
        if self._autoscaler is not None:
            self._autoscaler.told(notice)

    def _step(self, step: str) -> None:
        self.notices.tell(Notice(step))

    async def _again(
        self, period_s: float, work: Callable[[], Awaitable[None]], stop: asyncio.Event
    ) -> None:
        """Work every so often. What it meets is told, and tried again."""
        name = work.__name__
        while await pause(period_s, stop):
            if not self._store.leads:
                continue
            try:
                await work()
                self._troubles.pop(name, None)
            except _TROUBLE as error:
                if str(error) not in self._troubles.values():
                    self.notices.tell(Notice("trouble", text=str(error)))
                self._troubles[name] = str(error)

    def current(self) -> tuple[Inputs, Plan] | None:
        """What runs, unless a change is under way or was left half done."""
        state = self._store.read()
        if state.current is None or state.stage != "done":
            return None
        self.shown = state.current, state.current.plan()
        return self.shown

    async def _look_at(self, agent: Agent) -> None:
        """Ask an agent how it does, for ever."""
        server = agent.server
        while True:
            try:
                self._states[server] = await agent.state()
                down = not self._states[server].daemon_runs
            except AgentError:
                down = True
            if not down and self.down_since.pop(server, None) is not None:
                self.notices.tell(Notice("server up", server))
            elif down and server not in self.down_since:
                self.down_since[server] = time.monotonic()
                self.notices.tell(Notice("server down", server))
            await asyncio.sleep(_LOOK_S)

    async def _repair(self) -> None:
        async with self.scaler.changing:
            if self._store.read().stage != "done":
                self.notices.tell(Notice("recover"))
                await recover(self._store, self._agents, self._switch, self._step)
            if (current := self.current()) is None:
                return
            inputs, plan = current
            long_ago = time.monotonic() - self._lost_after_s
            lost = tuple(s for s, since in self.down_since.items() if since < long_ago)
            gone = [server for server in lost if server in plan.servers]
            back = [server for server in inputs.lost if server not in self.down_since]
            if gone or back:
                await self._move(inputs, plan, gone, back)
                return
            for server in await self._out_of_step(plan):
                self.notices.tell(Notice("brought in step", server))
                await bring_in_step(self._agents[server], plan.servers[server])
        if self._autoscaler is not None:
            await self._autoscaler.finish_pushed(plan)

    async def _move(self, inputs: Inputs, plan: Plan, gone: list[str], back: list[str]) -> None:
        """Go on without some servers, and with others again."""
        for server in back:
            await bring_in_step(self._agents[server], empty_plan(server))
        lost = tuple(server for server in (*inputs.lost, *gone) if server not in back)
        servers = {n: server for n, server in plan.layout.servers.items() if server not in gone}
        running = replace(plan.running, servers=servers)
        after = replace(inputs, lost=lost, running=running)
        moved = [name for name in plan.layout.servers if name not in servers]
        await apply(after, self._store, self._agents, self._switch, self._step)
        for server in gone:
            self.notices.tell(Notice("server lost", server, text=f"moved: {', '.join(moved)}"))
        for server in back:
            self.notices.tell(Notice("server back", server))

    async def _out_of_step(self, plan: Plan) -> list[str]:
        """Servers that answer, and don't have the plan.

        What they said last may be from before a change: those that seem to lack it are asked.
        """
        found = []
        for server, wanted in plan.servers.items():
            said = self._states.get(server)
            if said is not None and runs(said, wanted):
                continue
            with suppress(AgentError):  # `_look_at` sees to that
                if not await self._agents[server].has(wanted):
                    found.append(server)
        return found

    async def _refill(self) -> None:
        """A switch that was restarted has no entries."""
        async with self.scaler.changing:
            current = self.current()
            if current is None or await self._switch.entries() == len(current[1].switch):
                return
            await self._switch.replace(current[1].switch)
            self.notices.tell(Notice("switch refilled", values={"entries": len(current[1].switch)}))

    async def _forget(self) -> None:
        current = self.current()
        if current is not None and current[1].exceptions:
            await self.scaler.forget()

    async def _scale(self) -> None:
        current = self.current()
        if self._autoscaler is None or current is None:
            return
        if self.down_since.keys() <= {*current[0].lost}:  # others may be about to be moved
            await self._autoscaler.step(*current)

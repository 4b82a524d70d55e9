# SPDX-License-Identifier: BSD-3-Clause
"""What can be asked of a controller, whether it stays or is there for one command only."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from bess_plugins.pb import e2_agent_pb2 as agent_pb
from bess_plugins.pb import e2_controller_pb2 as pb
from bess_plugins.version import version
from e2ctl.controller.agents import AgentError, Agents
from e2ctl.controller.apply import apply
from e2ctl.controller.scale import Scaler
from e2ctl.controller.store import Inputs, Store, StoreError
from e2ctl.controller.switches import SwitchDriver
from e2ctl.hardware import Hardware
from e2ctl.plan import Plan, Running, diff

__all__ = ["LocalOperations", "Operations"]

Progress = Callable[[str], None]
_SIMULATED = "the switch is simulated; nothing brings packets to the servers"


class Operations(Protocol):
    """The operations of ``e2_controller.proto``."""

    async def status(self) -> pb.ClusterStatus: ...

    async def make_plan(self, request: pb.PolicyRequest) -> pb.PlanReply: ...

    async def apply(self, request: pb.PolicyRequest, progress: Progress) -> pb.Applied: ...

    async def split(self, request: pb.ChangeRequest) -> pb.ChangeReply: ...

    async def drain(self, request: pb.ChangeRequest) -> pb.ChangeReply: ...

    async def settle(self, request: pb.ChangeRequest) -> pb.ChangeReply: ...


class LocalOperations:
    """Carried out by this process. ``hardware`` is the text of the description, and its file."""

    def __init__(
        self,
        store: Store,
        agents: Agents,
        switch: SwitchDriver,
        cluster: Hardware,
        hardware: tuple[str, str],
        scaler: Scaler,
    ) -> None:
        self._store = store
        self._agents = agents
        self._switch = switch
        self._cluster = cluster
        self._hardware = hardware
        self._scaler = scaler

    async def status(self) -> pb.ClusterStatus:
        """How the cluster does."""
        current = self._store.read().current
        plan = current.plan() if current else None
        states = await self._agents.states()
        lost = current.lost if current else ()
        status = pb.ClusterStatus(
            version=version(),
            leads=self._store.leads,
            policy=current.policy_file if current else "",
            servers=[_server(name, state, plan, lost) for name, state in states.items()],
            switch_table=self._cluster.switch.table,
        )
        if plan is not None:
            for one in plan.igraph.instances:
                server = plan.layout.servers[one.name]
                status.instances.add(
                    name=one.name, server=server, start=one.span.start, end=one.span.end
                )
            for name, detour in plan.detours.items():
                status.changes.add(
                    instance=name, kind=detour.kind, target=detour.target, host=detour.host
                )
            status.exceptions = len(plan.exceptions)
            status.switch_entries = len(plan.switch)
        return status

    async def make_plan(self, request: pb.PolicyRequest) -> pb.PlanReply:
        """What `apply` would do."""
        inputs, before = self._inputs(request)
        plan = inputs.plan()
        return pb.PlanReply(
            plan=json.dumps(plan.to_dict()),
            changes=diff(before, plan)
            if before
            else [f"+ {line}" for line in str(plan).splitlines()],
            notes=plan.notes,
        )

    async def apply(self, request: pb.PolicyRequest, progress: Progress) -> pb.Applied:
        """Make the cluster do what a policy says."""
        self._check_leads()
        async with self._scaler.changing:
            inputs, before = self._inputs(request)
            plan = await apply(inputs, self._store, self._agents, self._switch, progress)
        return pb.Applied(
            changed=before is None or str(before) != str(plan),
            instances=len(plan.igraph.instances),
            servers_used=len({*plan.layout.servers.values()}),
            servers=len(plan.servers),
            switch_entries=len(plan.switch),
            notes=[
                *plan.notes,
                *([_SIMULATED] if self._cluster.switch.driver == "simulated" else []),
            ],
            plan=json.dumps(plan.to_dict()),
        )

    async def split(self, request: pb.ChangeRequest) -> pb.ChangeReply:
        """Divide an instance."""
        self._check_leads()
        target = await self._scaler.split(request.instance, server=request.server or None)
        return await self._changed(request, target)

    async def drain(self, request: pb.ChangeRequest) -> pb.ChangeReply:
        """Take an instance out of service."""
        self._check_leads()
        return await self._changed(request, await self._scaler.drain(request.instance))

    async def settle(self, request: pb.ChangeRequest) -> pb.ChangeReply:
        """Wait for the end of a change."""
        self._check_leads()
        await self._scaler.finish_change(request.instance)
        return pb.ChangeReply()

    def _check_leads(self) -> None:
        if not self._store.leads:
            raise StoreError("this controller stands by, and another one is at work; ask that one")

    async def _changed(self, request: pb.ChangeRequest, target: str) -> pb.ChangeReply:
        if request.wait:
            await self._scaler.finish_change(request.instance)
        return pb.ChangeReply(target=target)

    def _inputs(self, request: pb.PolicyRequest) -> tuple[Inputs, Plan | None]:
        """What a plan is to be made from, and the plan before it."""
        current = self._store.read().current
        before = current.plan() if current else None
        inputs = Inputs(
            policy=request.policy.text,
            policy_file=request.policy.name,
            nfs=request.nfs.text,
            nfs_file=request.nfs.name,
            hardware=self._hardware[0],
            hardware_file=self._hardware[1],
            running=before.running if before else Running(),
            counts={},
        )
        return replace(inputs, lost=current.lost) if current else inputs, before


def _server(
    name: str,
    state: agent_pb.AgentState | AgentError,
    plan: Plan | None,
    lost: tuple[str, ...],
) -> pb.ServerStatus:
    if isinstance(state, AgentError):
        return pb.ServerStatus(name=name, state=str(state), lost=name in lost)
    said = "well"
    if not state.daemon_runs:
        said = "its daemon does not answer"
    elif name in lost:
        said = "is back; its instances run elsewhere"
    elif plan is not None and not state.in_step:
        said = "does not have what the plan says"
    return pb.ServerStatus(name=name, state=said, restarts=state.restarts, lost=name in lost)

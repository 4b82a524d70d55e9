# SPDX-License-Identifier: BSD-3-Clause
"""Calls about workers and the traffic classes they schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bess_plugins import _proto
from bess_plugins.client._base import Connection, without_error
from bess_plugins.pb import bess_msg_pb2 as pb


@dataclass(frozen=True)
class TcStats:
    """Usage of a traffic class since it was created."""

    timestamp: float
    count: int
    cycles: int
    packets: int
    bits: int


class WorkerCalls(Connection):
    """Workers."""

    def pause(self, wid: int | None = None) -> None:
        """Pause one worker, or all of them."""
        if wid is None:
            self.call("PauseAll")
        else:
            self.call("PauseWorker", pb.PauseWorkerRequest(wid=wid))

    def resume(self, wid: int | None = None) -> None:
        """Resume one worker, or all of them."""
        if wid is None:
            self.call("ResumeAll")
        else:
            self.call("ResumeWorker", pb.ResumeWorkerRequest(wid=wid))

    def add_worker(self, wid: int, core: int, scheduler: str = "") -> None:
        """Start a worker on a CPU."""
        self.call("AddWorker", pb.AddWorkerRequest(wid=wid, core=core, scheduler=scheduler))

    def destroy_worker(self, wid: int) -> None:
        """Stop a worker."""
        self.call("DestroyWorker", pb.DestroyWorkerRequest(wid=wid))

    def reset_workers(self) -> None:
        """Stop all workers."""
        self.call("ResetWorkers")

    def list_workers(self) -> list[dict[str, Any]]:
        """State of each worker."""
        return [_proto.to_dict(item) for item in self.call("ListWorkers").workers_status]


class TrafficClassCalls(Connection):
    """Traffic classes."""

    def add_tc(
        self,
        name: str,
        policy: str,
        *,
        parent: str = "",
        wid: int = -1,
        resource: str = "",
        priority: int | None = None,
        share: int | None = None,
        limit: Mapping[str, int] | None = None,
        max_burst: Mapping[str, int] | None = None,
    ) -> None:
        """Create an inner node of the scheduler tree."""
        self._tc_call(
            "AddTc",
            name=name,
            policy=policy,
            parent=parent,
            wid=wid,
            resource=resource,
            priority=priority,
            share=share,
            limit=limit,
            max_burst=max_burst,
        )

    def update_tc_params(
        self,
        name: str,
        *,
        resource: str = "",
        limit: Mapping[str, int] | None = None,
        max_burst: Mapping[str, int] | None = None,
    ) -> None:
        """Change the limits or the resource of a node."""
        self._tc_call(
            "UpdateTcParams", name=name, resource=resource, limit=limit, max_burst=max_burst
        )

    def update_tc_parent(
        self,
        name: str,
        *,
        parent: str = "",
        wid: int = -1,
        priority: int | None = None,
        share: int | None = None,
    ) -> None:
        """Move a node to another parent, or to the root of a worker."""
        self._tc_call(
            "UpdateTcParent", name=name, parent=parent, wid=wid, priority=priority, share=share
        )

    def attach_task(
        self,
        module: str,
        parent: str = "",
        wid: int = -1,
        task_id: int = 0,
        *,
        priority: int | None = None,
        share: int | None = None,
    ) -> None:
        """Put a task of a module below a node, or directly on a worker."""
        self._tc_call(
            "UpdateTcParent",
            leaf_module_name=module,
            leaf_module_taskid=task_id,
            parent=parent,
            wid=wid,
            priority=priority,
            share=share,
        )

    def reset_tcs(self) -> None:
        """Remove all traffic classes."""
        self.call("ResetTcs")

    def list_tcs(self, wid: int = -1) -> list[dict[str, Any]]:
        """Nodes of one worker, or of all; ``parent`` is part of each."""
        response = self.call("ListTcs", pb.ListTcsRequest(wid=wid))
        return [
            {**_proto.to_dict(getattr(status, "class")), "parent": status.parent}
            for status in response.classes_status
        ]

    def tc_stats(self, name: str) -> TcStats:
        """Usage of a node."""
        stats = self.call("GetTcStats", pb.GetTcStatsRequest(name=name))
        return TcStats(stats.timestamp, stats.count, stats.cycles, stats.packets, stats.bits)

    def check_scheduling_constraints(self) -> dict[str, Any]:
        """Placements that break a constraint."""
        return without_error(self.call("CheckSchedulingConstraints"))

    def _tc_call(self, method: str, **fields: Any) -> None:
        request = _proto.message_type(f"{method}Request")()
        getattr(request, "class").CopyFrom(self._message(method, "TrafficClass", fields))
        self.call(method, request)

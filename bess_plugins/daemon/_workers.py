# SPDX-License-Identifier: BSD-3-Clause
# ruff: noqa: N802  (methods are named after the calls they serve)
"""Calls about workers and the traffic classes they schedule."""

from __future__ import annotations

import errno
import logging
import time
from typing import Any

from bess_plugins import _proto
from bess_plugins.daemon._base import MAX_WORKERS, RpcError, ServiceBase, require
from bess_plugins.pb import bess_msg_pb2 as pb

log = logging.getLogger(__name__)

_TC_SCALARS = ("name", "blocked", "policy", "resource", "wid")
_TC_OPTIONAL = ("priority", "share")


def _worker_id(wid: int) -> int:
    if not 0 <= wid < MAX_WORKERS:
        raise RpcError(errno.EINVAL, f"Invalid worker id {wid}")
    return wid


def _fill_class(target: pb.TrafficClass, tc: dict[str, Any]) -> None:
    target.parent = tc.get("parent") or ""
    for key in _TC_SCALARS:
        if tc.get(key) is not None:
            setattr(target, key, tc[key])
    for key in _TC_OPTIONAL:
        if tc.get(key) is not None:
            setattr(target, key, tc[key])
            break
    target.limit.update(tc.get("limit") or {})
    target.max_burst.update(tc.get("max_burst") or {})
    if tc.get("leaf_module_name"):
        target.leaf_module_name = tc["leaf_module_name"]
        target.leaf_module_taskid = tc.get("leaf_module_taskid") or 0


class WorkerCalls(ServiceBase):
    """Workers."""

    def PauseAll(self, request: pb.EmptyRequest, response: pb.EmptyResponse) -> None:
        self.engine.pause_all()
        log.info("all workers paused")

    def ResumeAll(self, request: pb.EmptyRequest, response: pb.EmptyResponse) -> None:
        self.engine.resume_all()
        log.info("all workers resumed")

    def PauseWorker(self, request: pb.PauseWorkerRequest, response: pb.EmptyResponse) -> None:
        self.engine.pause_worker(_worker_id(request.wid))

    def ResumeWorker(self, request: pb.ResumeWorkerRequest, response: pb.EmptyResponse) -> None:
        self.engine.resume_worker(_worker_id(request.wid))

    def ResetWorkers(self, request: pb.EmptyRequest, response: pb.EmptyResponse) -> None:
        self.engine.reset_workers()

    def ListWorkers(self, request: pb.EmptyRequest, response: pb.ListWorkersResponse) -> None:
        for worker in sorted(self.engine.workers(), key=lambda entry: int(entry["wid"])):
            response.workers_status.add(
                wid=worker["wid"],
                core=worker["core"],
                running=worker["running"],
                num_tcs=worker["num_tcs"],
                silent_drops=worker["silent_drops"],
            )

    def AddWorker(self, request: pb.AddWorkerRequest, response: pb.EmptyResponse) -> None:
        wid = _worker_id(request.wid)
        if request.core < 0:
            raise RpcError(errno.EINVAL, f"Invalid core {request.core}")
        self.engine.add_worker(wid, request.core, request.scheduler)

    def DestroyWorker(self, request: pb.DestroyWorkerRequest, response: pb.EmptyResponse) -> None:
        self.engine.destroy_worker(_worker_id(request.wid))


class TrafficClassCalls(ServiceBase):
    """Traffic classes."""

    def ResetTcs(self, request: pb.EmptyRequest, response: pb.EmptyResponse) -> None:
        self.engine.reset_tcs()

    def ListTcs(self, request: pb.ListTcsRequest, response: pb.ListTcsResponse) -> None:
        if request.wid >= MAX_WORKERS:
            raise RpcError(errno.EINVAL, f"'wid' must be between 0 and {MAX_WORKERS - 1}")
        for tc in self.engine.tcs():
            if request.wid < 0 or tc.get("wid", -1) == request.wid:
                status = response.classes_status.add(parent=tc.get("parent") or "")
                _fill_class(getattr(status, "class"), tc)

    def CheckSchedulingConstraints(
        self, request: pb.EmptyRequest, response: pb.CheckSchedulingConstraintsResponse
    ) -> None:
        # No class can be on a wrong socket: packet memory has none.
        for violation in self.engine.scheduling_violations():
            log.warning("scheduling constraints: %s", violation["message"])
            response.fatal |= violation["fatal"]
            if all(module.name != violation["name"] for module in response.modules):
                response.modules.add(name=violation["name"])

    def AddTc(self, request: pb.AddTcRequest, response: pb.EmptyResponse) -> None:
        tc = _proto.to_dict(getattr(request, "class"))
        name = require(tc["name"], "Missing 'name' field")
        if name.startswith("!"):
            raise RpcError(errno.EINVAL, "TC names starting with '!' are reserved")
        if tc["policy"] == "leaf":
            raise RpcError(errno.EINVAL, "Leaf TCs exist with their task; use UpdateTcParent")
        self.engine.add_tc(tc)

    def UpdateTcParams(self, request: pb.UpdateTcParamsRequest, response: pb.EmptyResponse) -> None:
        self.engine.update_tc_params(self._existing(getattr(request, "class")))

    def UpdateTcParent(self, request: pb.UpdateTcParentRequest, response: pb.EmptyResponse) -> None:
        self.engine.update_tc_parent(self._existing(getattr(request, "class")))

    def GetTcStats(self, request: pb.GetTcStatsRequest, response: pb.GetTcStatsResponse) -> None:
        stats = self.engine.tc_stats(require(request.name, "Missing 'name' field"))
        response.timestamp = time.time()
        response.count = stats["count"]
        response.cycles = stats["cycles"]
        response.packets = stats["packets"]
        response.bits = stats["bits"]

    @staticmethod
    def _existing(tc: pb.TrafficClass) -> dict[str, Any]:
        if not tc.name and not tc.leaf_module_name:
            raise RpcError(errno.EINVAL, "One of 'name' or 'leaf_module_name' must be specified")
        return _proto.to_dict(tc)

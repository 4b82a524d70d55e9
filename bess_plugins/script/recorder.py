# SPDX-License-Identifier: BSD-3-Clause
# ruff: noqa: N802  (methods are named after the calls they serve)
"""A daemon's service over an engine that only takes notes."""

from __future__ import annotations

import errno
import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, cast

from bess_plugins._engine import Engine
from bess_plugins.daemon._base import MAX_WORKERS
from bess_plugins.daemon.service import ControlService, EngineApi, RpcError
from bess_plugins.pb import bess_msg_pb2 as pb
from bess_plugins.script.records import (
    EdgeRecord,
    ModuleRecord,
    PortRecord,
    TaskRecord,
    TcRecord,
    WorkerRecord,
)

__all__ = ["RecordingEngine", "RecordingService"]

_MAC = "02:00:00:00:00:00"  # of ports that have none until they exist
# Classes with a task that sends packets. PortInc has one for each queue of its port; tasks of
# monitors run no other module.
_ONE_TASK = frozenset({"DRR", "Delay", "FlowGen", "Queue", "QueueInc", "Source"})
_POLICIES = frozenset({"priority", "weighted_fair", "round_robin", "rate_limit"})
_SCHEDULERS = frozenset({"", "experimental", "polling"})


class _Registry(NamedTuple):
    modules: dict[str, dict[str, Any]]
    drivers: dict[str, dict[str, Any]]
    hooks: dict[str, dict[str, Any]]


def _driver(name: str, template: str) -> dict[str, Any]:
    return {"name": name, "help": "", "arg_type": f"{name}Arg", "name_template": template}


@functools.cache
def _registry() -> _Registry:
    """Classes of this package, and the drivers that only bessd has."""
    engine = Engine(pool_packets=64)
    theirs = {"PMDPort": _driver("PMDPort", "pmd_port"), "VPort": _driver("VPort", "vport")}
    return _Registry(
        engine.module_classes(), {**theirs, **engine.port_drivers()}, engine.hook_classes()
    )


class RecordingService(ControlService):
    """Answers what follows from the script alone."""

    ANSWERED = frozenset(
        {
            *("ListMclass", "GetMclassInfo", "ListModules", "CreateModule", "DestroyModule"),
            *("ResetModules", "ConnectModules", "DisconnectModules", "ModuleCommand"),
            *("ListDrivers", "GetDriverInfo", "ListPorts", "CreatePort", "DestroyPort"),
            *("ResetPorts", "SetPortConf", "AddTc", "UpdateTcParams", "UpdateTcParent"),
            *("ResetTcs", "PauseAll", "ResumeAll", "PauseWorker", "ResumeWorker", "AddWorker"),
            *("DestroyWorker", "ResetWorkers", "ConfigureGateHook", "ListGateHookClass"),
            *("GetGateHookClassInfo", "ConfigureResumeHook", "GetVersion", "ResetAll"),
            "ListPlugins",
        }
    )

    def __init__(self, engine: RecordingEngine) -> None:
        # It lacks what only calls outside of ANSWERED would need.
        super().__init__(cast(EngineApi, engine))
        self._recorder = engine

    def ModuleCommand(self, request: pb.CommandRequest, response: pb.CommandResponse) -> None:
        self._recorder.class_of(request.name)

    def SetPortConf(self, request: pb.SetPortConfRequest, response: pb.CommandResponse) -> None:
        self._recorder.existing_port(request.name)

    def AddWorker(self, request: pb.AddWorkerRequest, response: pb.EmptyResponse) -> None:
        self._recorder.record_worker(request.wid, request.core, request.scheduler)


class RecordingEngine:
    """Notes what it is told, and where in the script that was."""

    def __init__(self, place: Callable[[], tuple[int, int]]) -> None:
        self._place = place
        self.made_modules: dict[str, ModuleRecord] = {}
        self.made_ports: dict[str, PortRecord] = {}
        self.made_tcs: dict[str, TcRecord] = {}
        self.attached: dict[tuple[str, int], TaskRecord] = {}
        self.made_workers: dict[int, WorkerRecord] = {}
        self._edges: dict[tuple[str, int], EdgeRecord] = {}
        self._made: Counter[tuple[int, int]] = Counter()

    def module_classes(self) -> dict[str, dict[str, Any]]:
        return _registry().modules

    def port_drivers(self) -> dict[str, dict[str, Any]]:
        return _registry().drivers

    def hook_classes(self) -> dict[str, dict[str, Any]]:
        return _registry().hooks

    def plugins(self) -> list[str]:
        return []

    # Modules.

    def modules(self) -> list[dict[str, Any]]:
        return [
            {"name": record.name, "mclass": record.mclass, "desc": ""}
            for record in self.made_modules.values()
        ]

    def class_of(self, name: str) -> str:
        return self._existing(name).mclass

    def create_module(self, name: str, mclass: str, args: dict[str, Any]) -> None:
        if name in self.made_modules:
            raise RpcError(errno.EEXIST, f"Module '{name}' already exists")
        tasks = 1 if mclass in _ONE_TASK else 0
        if mclass in ("PortInc", "PortOut", "QueueInc", "QueueOut"):
            port = self.existing_port(args.get("port", ""))
            if mclass == "PortInc":
                tasks = port.num_inc_q
        one_worker = self.module_classes()[mclass]["max_workers"] == 1
        self.made_modules[name] = ModuleRecord(
            name, mclass, args, tasks, one_worker, *self._place()
        )

    def destroy_module(self, name: str) -> None:
        self._existing(name)
        del self.made_modules[name]
        self._edges = {
            key: edge for key, edge in self._edges.items() if name not in (edge.source, edge.target)
        }
        self.attached = {key: task for key, task in self.attached.items() if key[0] != name}

    def reset_modules(self) -> None:
        self.made_modules.clear()
        self._edges.clear()
        self.attached.clear()

    def connect(
        self, m1: str, ogate: int, m2: str, igate: int, skip_default_hooks: bool = False
    ) -> None:
        for name, gate, what in ((m1, ogate, "ogates"), (m2, igate, "igates")):
            limit = self.module_classes()[self._existing(name).mclass][what]
            if gate >= limit:
                side = "output" if what == "ogates" else "input"
                raise RpcError(
                    errno.EINVAL, f"'{name}' has {limit} {side} gates, so there is no gate {gate}"
                )
        taken = self._edges.get((m1, ogate))
        if taken is not None:
            raise RpcError(
                errno.EBUSY, f"Output gate {ogate} of '{m1}' leads to '{taken.target}' already"
            )
        place = self._place()
        self._made[place] += 1
        self._edges[m1, ogate] = EdgeRecord(m1, ogate, m2, igate, *place, made=0)

    def disconnect(self, name: str, ogate: int) -> None:
        self._existing(name)
        if self._edges.pop((name, ogate), None) is None:
            raise RpcError(errno.ENOENT, f"Output gate {ogate} of '{name}' leads nowhere")

    def connections(self) -> tuple[EdgeRecord, ...]:
        """Connections as they are now."""
        return tuple(
            replace(edge, made=self._made[edge.line, edge.column]) for edge in self._edges.values()
        )

    def _existing(self, name: str) -> ModuleRecord:
        if name not in self.made_modules:
            raise RpcError(errno.ENOENT, f"No module '{name}' found")
        return self.made_modules[name]

    # Ports.

    def ports(self) -> list[dict[str, Any]]:
        return [
            {
                "name": port.name,
                "driver": port.driver,
                "mac_addr": _MAC,
                "num_inc_q": port.num_inc_q,
                "num_out_q": port.num_out_q,
                "size_inc_q": 0,
                "size_out_q": 0,
            }
            for port in self.made_ports.values()
        ]

    def create_port(
        self,
        name: str,
        driver: str,
        num_inc_q: int,
        num_out_q: int,
        size_inc_q: int,
        size_out_q: int,
        args: dict[str, Any],
    ) -> dict[str, Any]:
        self.made_ports[name] = PortRecord(name, driver, args, num_inc_q, num_out_q, *self._place())
        return {"mac_addr": _MAC}

    def existing_port(self, name: str) -> PortRecord:
        """The port of that name."""
        if name not in self.made_ports:
            raise RpcError(errno.ENODEV, f"Port '{name}' not found")
        return self.made_ports[name]

    def destroy_port(self, name: str) -> None:
        self.existing_port(name)
        del self.made_ports[name]

    def reset_ports(self) -> None:
        self.made_ports.clear()

    # Workers.

    def record_worker(self, wid: int, core: int, scheduler: str) -> None:
        """Note a worker."""
        if not 0 <= wid < MAX_WORKERS:
            raise RpcError(errno.EINVAL, f"Invalid worker id {wid}")
        if core < 0:
            raise RpcError(errno.EINVAL, f"Invalid core {core}")
        if wid in self.made_workers:
            raise RpcError(errno.EEXIST, f"worker:{wid} exists already")
        if scheduler not in _SCHEDULERS:
            raise RpcError(errno.EINVAL, f"Invalid scheduler {scheduler}")
        self.made_workers[wid] = WorkerRecord(wid, core, scheduler, *self._place())

    def destroy_worker(self, wid: int) -> None:
        if self.made_workers.pop(wid, None) is None:
            raise RpcError(errno.ENOENT, f"worker:{wid} does not exist")

    def reset_workers(self) -> None:
        self.made_workers.clear()

    def pause_all(self) -> None:
        """Nothing runs."""

    def resume_all(self) -> None:
        """Nothing runs."""

    def pause_worker(self, wid: int) -> None:
        """Nothing runs."""

    def resume_worker(self, wid: int) -> None:
        """Nothing runs."""

    # Traffic classes.

    def add_tc(self, tc: dict[str, Any]) -> None:
        name = tc["name"]
        if name in self.made_tcs:
            raise RpcError(errno.EEXIST, f"TC '{name}' already exists")
        if tc["policy"] not in _POLICIES:
            known = ", ".join(sorted(_POLICIES))
            raise RpcError(errno.EINVAL, f"No policy '{tc['policy']}'; there are: {known}")
        self._check_parent(tc)
        self.made_tcs[name] = TcRecord(
            name,
            tc["policy"],
            tc["parent"],
            tc["wid"],
            tc["resource"],
            tc.get("priority"),
            tc.get("share"),
            tc["limit"],
            tc["max_burst"],
            *self._place(),
        )

    def update_tc_params(self, tc: dict[str, Any]) -> None:
        record = self._existing_tc(tc["name"])
        self.made_tcs[record.name] = replace(
            record,
            resource=tc["resource"] or record.resource,
            limit=tc["limit"],
            max_burst=tc["max_burst"],
        )

    def update_tc_parent(self, tc: dict[str, Any]) -> None:
        where = {
            "parent": tc["parent"],
            "wid": tc["wid"],
            "priority": tc.get("priority"),
            "share": tc.get("share"),
        }
        module, task_id = tc["leaf_module_name"], tc["leaf_module_taskid"]
        if not module:
            record = self._existing_tc(tc["name"])
            self._check_parent(tc)
            self.made_tcs[record.name] = replace(record, **where)
            return
        if task_id >= self._existing(module).tasks:
            raise RpcError(errno.ENOENT, f"'{module}' has no task {task_id}")
        self.attached.pop((module, task_id), None)
        self._check_parent(tc)
        line, column = self._place()
        self.attached[module, task_id] = TaskRecord(
            module=module, task_id=task_id, line=line, column=column, **where
        )

    def reset_tcs(self) -> None:
        self.made_tcs.clear()
        self.attached.clear()

    def _existing_tc(self, name: str) -> TcRecord:
        if name not in self.made_tcs:
            raise RpcError(errno.ENOENT, f"TC '{name}' not found")
        return self.made_tcs[name]

    def _check_parent(self, tc: dict[str, Any]) -> None:
        parent = tc["parent"]
        if not parent:
            return
        if parent not in self.made_tcs:
            raise RpcError(errno.ENOENT, f"Parent TC '{parent}' not found")
        wanted = {"priority": "priority", "weighted_fair": "share"}.get(
            self.made_tcs[parent].policy, ""
        )
        if wanted and tc.get(wanted) is None:
            raise RpcError(errno.EINVAL, f"Child of '{parent}' needs a '{wanted}'")
        if wanted != "priority":
            return
        others: list[TcRecord | TaskRecord] = [*self.made_tcs.values(), *self.attached.values()]
        same = [o for o in others if o.parent == parent and o.priority == tc["priority"]]
        if any(not (isinstance(o, TcRecord) and o.name == tc["name"]) for o in same):
            raise RpcError(errno.EINVAL, f"Priority {tc['priority']} is taken under '{parent}'")

    # Hooks.

    def configure_hook(self, hook: dict[str, Any], enable: bool) -> str:
        if hook["module_name"]:
            self._existing(hook["module_name"])
        return str(hook["hook_name"] or hook["class_name"].lower())

    def configure_resume_hook(self, name: str, enable: bool) -> None:
        """Nothing resumes."""

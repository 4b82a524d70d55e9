# SPDX-License-Identifier: BSD-3-Clause
"""Synchronous client of the control service."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message

from bess_plugins import _proto
from bess_plugins.pb import bess_msg_pb2 as pb

__all__ = [
    "DEFAULT_ADDRESS",
    "BessError",
    "Client",
    "CreatedPort",
    "DaemonUnavailableError",
    "PortCounters",
    "PortStats",
    "TcStats",
]

DEFAULT_ADDRESS = "127.0.0.1:10514"
DEFAULT_TIMEOUT = 30.0

Values = Mapping[str, Any]
Direction = Literal["igate", "ogate"]

# Classes that take more than the message named after them holds.
_ARG_TYPES = {"PCAPPort": "PCAPFilePortArg", "TcpDump": "TcpdumpArg", "PcapNg": "PcapngArg"}


class BessError(Exception):
    """A call failed. ``code`` is an errno, ``errmsg`` the daemon's reason."""

    def __init__(self, code: int, errmsg: str, call: str = "", arg: Any = None) -> None:
        super().__init__(code, errmsg, call, arg)
        self.code = code
        self.errmsg = errmsg
        self.call = call
        self.arg = arg

    def __str__(self) -> str:
        name = errno.errorcode.get(self.code, str(self.code))
        where = f"{self.call}: " if self.call else ""
        return f"{where}{self.errmsg} ({name})"


class DaemonUnavailableError(BessError):
    """Nothing serves the address."""

    def __init__(self, address: str, call: str = "") -> None:
        message = f"no daemon at {address}; start one with `e2d start`"
        super().__init__(errno.ECONNREFUSED, message, call)
        self.address = address

    def __str__(self) -> str:
        return self.errmsg


@dataclass(frozen=True)
class CreatedPort:
    """Final name and hardware address of a new port."""

    name: str
    mac_addr: str


@dataclass(frozen=True)
class PortCounters:
    """Totals of one direction."""

    packets: int
    dropped: int
    bytes: int


@dataclass(frozen=True)
class PortStats:
    """Totals of a port; ``inc`` enters the dataplane and ``out`` leaves it."""

    inc: PortCounters
    out: PortCounters
    timestamp: float


@dataclass(frozen=True)
class TcStats:
    """Usage of a traffic class since it was created."""

    timestamp: float
    count: int
    cycles: int
    packets: int
    bits: int


class Client:
    """A connection to a daemon at ``host:port`` or ``unix:/path``.

    Arguments of modules, ports, hooks and commands are given as plain values
    and converted to their message.
    """

    def __init__(self, address: str = DEFAULT_ADDRESS, *, timeout: float = DEFAULT_TIMEOUT) -> None:
        self.address = address
        self._timeout = timeout
        self._channel = grpc.insecure_channel(
            address,
            options=(
                ("grpc.enable_http_proxy", 0),
                ("grpc.max_receive_message_length", 64 << 20),
                ("grpc.max_send_message_length", 64 << 20),
            ),
        )

    def close(self) -> None:
        """Drop the connection."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def call(self, method: str, request: Message | None = None) -> Any:
        """Run any call of the service and return its response message."""
        descriptor = _proto.SERVICE.methods_by_name[method]
        stub = self._channel.unary_unary(
            f"/{_proto.SERVICE.full_name}/{method}",
            request_serializer=_proto.message_type(descriptor.input_type.name).SerializeToString,
            response_deserializer=_proto.message_type(descriptor.output_type.name).FromString,
        )
        if request is None:
            request = pb.EmptyRequest()
        try:
            response: Any = stub(request, timeout=self._timeout)
        except grpc.RpcError as error:
            status, details = error.code(), error.details() or ""
            if status == grpc.StatusCode.UNAVAILABLE:
                raise DaemonUnavailableError(self.address, method) from None
            code = errno.ETIMEDOUT if status == grpc.StatusCode.DEADLINE_EXCEEDED else errno.ECOMM
            raise BessError(code, f"{status.name}: {details}", method, request) from None
        if response.error.code:
            raise BessError(response.error.code, response.error.errmsg, method, request)
        return response

    # Daemon.

    def version(self) -> str:
        """Version of the daemon."""
        return str(self.call("GetVersion").version)

    def reset_all(self) -> None:
        """Remove every module, port, traffic class and worker."""
        self.call("ResetAll")

    def kill(self) -> None:
        """Make the daemon stop."""
        self.call("KillBess")

    def dump_mempool(self, socket: int = -1) -> list[dict[str, Any]]:
        """Fill levels of the packet pools."""
        response = self.call("DumpMempool", pb.DumpMempoolRequest(socket=socket))
        return [_proto.to_dict(dump) for dump in response.dumps]

    # Plugins.

    def import_plugin(self, path: str) -> None:
        """Load a shared object."""
        self.call("ImportPlugin", pb.ImportPluginRequest(path=path))

    def unload_plugin(self, path: str) -> None:
        """Drop a shared object."""
        self.call("UnloadPlugin", pb.UnloadPluginRequest(path=path))

    def list_plugins(self) -> list[str]:
        """Paths of the loaded shared objects."""
        return list(self.call("ListPlugins").paths)

    # Workers.

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

    # Traffic classes.

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
        return _without_error(self.call("CheckSchedulingConstraints"))

    def _tc_call(self, method: str, **fields: Any) -> None:
        request = _proto.message_type(f"{method}Request")()
        getattr(request, "class").CopyFrom(self._message(method, "TrafficClass", fields))
        self.call(method, request)

    # Ports.

    def list_drivers(self) -> list[str]:
        """Names of the port drivers."""
        return list(self.call("ListDrivers").driver_names)

    def driver_info(self, name: str) -> dict[str, Any]:
        """Description of a port driver."""
        request = pb.GetDriverInfoRequest(driver_name=name)
        return _without_error(self.call("GetDriverInfo", request))

    def create_port(
        self,
        driver: str,
        name: str = "",
        *,
        num_inc_q: int = 1,
        num_out_q: int = 1,
        size_inc_q: int = 0,
        size_out_q: int = 0,
        **arg: Any,
    ) -> CreatedPort:
        """Create a port; remaining keywords go to its driver."""
        request = pb.CreatePortRequest(
            name=name,
            driver=driver,
            num_inc_q=num_inc_q,
            num_out_q=num_out_q,
            size_inc_q=size_inc_q,
            size_out_q=size_out_q,
            arg=self._class_arg("CreatePort", driver, arg),
        )
        response = self.call("CreatePort", request)
        return CreatedPort(response.name, response.mac_addr)

    def destroy_port(self, name: str) -> None:
        """Remove a port."""
        self.call("DestroyPort", pb.DestroyPortRequest(name=name))

    def reset_ports(self) -> None:
        """Remove all ports."""
        self.call("ResetPorts")

    def list_ports(self) -> list[dict[str, Any]]:
        """All ports; ``driver_arg`` holds the plain values."""
        return [
            {**_proto.to_dict(port), "driver_arg": _proto.unpack_any(port.driver_arg)}
            for port in self.call("ListPorts").ports
        ]

    def port_stats(self, name: str) -> PortStats:
        """Totals of a port."""
        stats = self.call("GetPortStats", pb.GetPortStatsRequest(name=name))
        inc, out = (
            PortCounters(side.packets, side.dropped, side.bytes) for side in (stats.inc, stats.out)
        )
        return PortStats(inc, out, stats.timestamp)

    def port_conf(self, name: str) -> dict[str, Any]:
        """Settings of a port."""
        return _proto.to_dict(self.call("GetPortConf", pb.GetPortConfRequest(name=name)).conf)

    def set_port_conf(
        self, name: str, *, mac_addr: str = "", mtu: int = 0, admin_up: bool = True
    ) -> None:
        """Change settings of a port; an empty address or MTU keeps the present one."""
        conf = pb.PortConf(mac_addr=mac_addr or "00:00:00:00:00:00", mtu=mtu, admin_up=admin_up)
        self.call("SetPortConf", pb.SetPortConfRequest(name=name, conf=conf))

    def link_status(self, name: str) -> dict[str, Any]:
        """Link state of a port."""
        return _without_error(self.call("GetLinkStatus", pb.GetLinkStatusRequest(name=name)))

    # Modules.

    def list_mclasses(self) -> list[str]:
        """Names of the module classes."""
        return list(self.call("ListMclass").names)

    def mclass_info(self, name: str) -> dict[str, Any]:
        """Description of a module class."""
        return _without_error(self.call("GetMclassInfo", pb.GetMclassInfoRequest(name=name)))

    def create_module(self, mclass: str, name: str = "", **arg: Any) -> str:
        """Create a module and return its name; remaining keywords configure it."""
        packed = self._class_arg("CreateModule", mclass, arg)
        request = pb.CreateModuleRequest(name=name, mclass=mclass, arg=packed)
        return str(self.call("CreateModule", request).name)

    def destroy_module(self, name: str) -> None:
        """Remove a module."""
        self.call("DestroyModule", pb.DestroyModuleRequest(name=name))

    def reset_modules(self) -> None:
        """Remove all modules."""
        self.call("ResetModules")

    def list_modules(self) -> list[dict[str, Any]]:
        """Name, class and state of each module."""
        return [_proto.to_dict(module) for module in self.call("ListModules").modules]

    def module_info(self, name: str) -> dict[str, Any]:
        """Gates, hooks, metadata and drops of a module."""
        return _without_error(self.call("GetModuleInfo", pb.GetModuleInfoRequest(name=name)))

    def connect(
        self,
        m1: str,
        m2: str,
        ogate: int = 0,
        igate: int = 0,
        *,
        skip_default_hooks: bool = False,
    ) -> None:
        """Join an output gate of m1 to an input gate of m2."""
        request = pb.ConnectModulesRequest(
            m1=m1, m2=m2, ogate=ogate, igate=igate, skip_default_hooks=skip_default_hooks
        )
        self.call("ConnectModules", request)

    def disconnect(self, name: str, ogate: int = 0) -> None:
        """Cut an output gate."""
        self.call("DisconnectModules", pb.DisconnectModulesRequest(name=name, ogate=ogate))

    def run_module_command(
        self,
        name: str,
        cmd: str,
        arg_type: str = "EmptyArg",
        arg: Values | Message | None = None,
    ) -> dict[str, Any]:
        """Run a command of a module and return what it gave back."""
        packed = self._arg("ModuleCommand", arg_type, arg)
        response = self.call("ModuleCommand", pb.CommandRequest(name=name, cmd=cmd, arg=packed))
        return _proto.unpack_any(response.data)

    # Gate hooks.

    def list_hook_classes(self) -> list[str]:
        """Names of the gate hook classes."""
        return list(self.call("ListGateHookClass").names)

    def hook_class_info(self, name: str) -> dict[str, Any]:
        """Description of a gate hook class."""
        request = pb.GetGateHookClassInfoRequest(name=name)
        return _without_error(self.call("GetGateHookClassInfo", request))

    def list_hooks(self) -> list[dict[str, Any]]:
        """Hooks installed now; ``arg`` holds the plain values."""
        return [
            {**_proto.to_dict(hook), "arg": _proto.unpack_any(hook.arg)}
            for hook in self.call("ListGateHooks").hooks
        ]

    def configure_gate_hook(
        self,
        class_name: str,
        module_name: str = "",
        *,
        direction: Direction = "ogate",
        gate: int = -1,
        hook_name: str = "",
        enable: bool = True,
        **arg: Any,
    ) -> str:
        """Install or remove a hook and return its name.

        Gate -1 means all gates, an empty module name all modules.
        """
        packed = self._class_arg("ConfigureGateHook", class_name, arg)
        hook = self._hook(class_name, module_name, direction, gate, hook_name, packed)
        request = pb.ConfigureGateHookRequest(hook=hook, enable=enable)
        return str(self.call("ConfigureGateHook", request).name)

    def run_gate_hook_command(
        self,
        hook_name: str,
        cmd: str,
        module_name: str,
        *,
        direction: Direction = "ogate",
        gate: int = 0,
        arg_type: str = "EmptyArg",
        arg: Values | Message | None = None,
    ) -> dict[str, Any]:
        """Run a command of an installed hook."""
        packed = self._arg("GateHookCommand", arg_type, arg)
        hook = self._hook("", module_name, direction, gate, hook_name, packed)
        response = self.call("GateHookCommand", pb.GateHookCommandRequest(hook=hook, cmd=cmd))
        return _proto.unpack_any(response.data)

    def configure_resume_hook(
        self, hook_name: str, enable: bool = True, arg: Values | Message | None = None
    ) -> None:
        """Install or remove a hook that runs before workers resume."""
        packed = self._arg("ConfigureResumeHook", "EmptyArg", arg)
        request = pb.ConfigureResumeHookRequest(hook_name=hook_name, enable=enable, arg=packed)
        self.call("ConfigureResumeHook", request)

    # Conversion.

    @staticmethod
    def _hook(
        class_name: str,
        module_name: str,
        direction: Direction,
        gate: int,
        hook_name: str,
        packed: AnyMessage,
    ) -> pb.GateHookInfo:
        if direction not in ("igate", "ogate"):
            raise BessError(errno.EINVAL, "direction must be 'igate' or 'ogate'")
        hook = pb.GateHookInfo(
            class_name=class_name, hook_name=hook_name, module_name=module_name, arg=packed
        )
        setattr(hook, direction, gate)
        return hook

    def _class_arg(self, call: str, class_name: str, values: Values) -> AnyMessage:
        """Pack the argument of a class, whose type is named after it."""
        kind = _ARG_TYPES.get(class_name, f"{class_name}Arg")
        return self._arg(call, kind if _proto.is_message(kind) else "EmptyArg", values)

    def _arg(self, call: str, kind: str, values: Values | Message | None) -> AnyMessage:
        if isinstance(values, Message):
            return _proto.pack(values)
        return _proto.pack(self._message(call, kind, values or {}))

    @staticmethod
    def _message(call: str, kind: str, values: Values) -> Message:
        try:
            return _proto.from_dict(kind, values)
        except KeyError as error:
            raise BessError(errno.EINVAL, str(error.args[0]), call, dict(values)) from None
        except (TypeError, ValueError, OverflowError) as error:
            raise BessError(errno.EINVAL, str(error), call, dict(values)) from None


def _without_error(message: Message) -> dict[str, Any]:
    values = _proto.to_dict(message)
    values.pop("error", None)
    return values

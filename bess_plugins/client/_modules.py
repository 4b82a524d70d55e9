# SPDX-License-Identifier: BSD-3-Clause
"""Calls about modules, the gates between them and hooks at gates."""

from __future__ import annotations

import errno
from typing import Any, Literal

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message

from bess_plugins import _proto
from bess_plugins.client._base import BessError, Connection, Values, without_error
from bess_plugins.pb import bess_msg_pb2 as pb

Direction = Literal["igate", "ogate"]


class ModuleCalls(Connection):
    """Modules."""

    def list_mclasses(self) -> list[str]:
        """Names of the module classes."""
        return list(self.call("ListMclass").names)

    def mclass_info(self, name: str) -> dict[str, Any]:
        """Description of a module class."""
        return without_error(self.call("GetMclassInfo", pb.GetMclassInfoRequest(name=name)))

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
        return without_error(self.call("GetModuleInfo", pb.GetModuleInfoRequest(name=name)))

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
        return self._values(response.data)


class HookCalls(Connection):
    """Gate hooks and resume hooks."""

    def list_hook_classes(self) -> list[str]:
        """Names of the gate hook classes."""
        return list(self.call("ListGateHookClass").names)

    def hook_class_info(self, name: str) -> dict[str, Any]:
        """Description of a gate hook class."""
        request = pb.GetGateHookClassInfoRequest(name=name)
        return without_error(self.call("GetGateHookClassInfo", request))

    def list_hooks(self) -> list[dict[str, Any]]:
        """Hooks installed now; ``arg`` holds the plain values."""
        return [
            {**_proto.to_dict(hook), "arg": self._values(hook.arg)}
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
        return self._values(response.data)

    def configure_resume_hook(
        self, hook_name: str, enable: bool = True, arg: Values | Message | None = None
    ) -> None:
        """Install or remove a hook that runs before workers resume."""
        packed = self._arg("ConfigureResumeHook", "EmptyArg", arg)
        request = pb.ConfigureResumeHookRequest(hook_name=hook_name, enable=enable, arg=packed)
        self.call("ConfigureResumeHook", request)

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

# SPDX-License-Identifier: BSD-3-Clause
# ruff: noqa: N802  (methods are named after the calls they serve)
"""Calls about modules, the gates between them and hooks at gates."""

from __future__ import annotations

import errno
import time
from typing import Any

from bess_plugins import _proto
from bess_plugins.daemon._base import (
    RpcError,
    ServiceBase,
    default_name,
    lookup,
    require,
    unpack_arg,
)
from bess_plugins.pb import bess_msg_pb2 as pb

_NO_NAME = "Missing module name"
_TRACK = "Track"
_INITIAL_ARG = "get_initial_arg"


def _fill_gate(
    target: pb.GetModuleInfoResponse.IGate | pb.GetModuleInfoResponse.OGate,
    gate: dict[str, Any],
    now: float,
) -> None:
    for class_name, hook_name in gate["hooks"]:
        target.gatehooks.add(class_name=class_name, hook_name=hook_name)
    if any(class_name == _TRACK for class_name, _ in gate["hooks"]):
        target.cnt = gate["cnt"]
        target.pkts = gate["pkts"]
        target.bytes = gate["bytes"]
        target.timestamp = now


class ModuleCalls(ServiceBase):
    """Modules."""

    def ListMclass(self, request: pb.EmptyRequest, response: pb.ListMclassResponse) -> None:
        response.names.extend(sorted(self.module_classes()))

    def GetMclassInfo(
        self, request: pb.GetMclassInfoRequest, response: pb.GetMclassInfoResponse
    ) -> None:
        name = require(request.name, "Missing module class name")
        info = lookup(self.module_classes(), name, f"No module class '{name}' found")
        response.name = info["name"]
        response.help = info["help"]
        for command in info["commands"]:
            response.cmds.append(command["name"])
            response.cmd_args.append(command["arg_type"] or "EmptyArg")
        if _INITIAL_ARG not in response.cmds:  # this daemon answers for those that don't
            response.cmds.append(_INITIAL_ARG)
            response.cmd_args.append("EmptyArg")

    def ResetModules(self, request: pb.EmptyRequest, response: pb.EmptyResponse) -> None:
        try:
            self.engine.reset_modules()
        finally:
            left = {module["name"] for module in self.engine.modules()}
            self.module_args = {k: v for k, v in self.module_args.items() if k in left}

    def ListModules(self, request: pb.EmptyRequest, response: pb.ListModulesResponse) -> None:
        for module in self.engine.modules():
            response.modules.add(name=module["name"], mclass=module["mclass"], desc=module["desc"])

    def CreateModule(
        self, request: pb.CreateModuleRequest, response: pb.CreateModuleResponse
    ) -> None:
        mclass = require(request.mclass, "Missing 'mclass' field")
        info = lookup(self.module_classes(), mclass, f"No mclass '{mclass}' found")
        name = request.name
        if not name:
            taken = {module["name"] for module in self.engine.modules()}
            name = default_name(mclass, info.get("name_template") or "", taken)
        args = unpack_arg(request.arg, info["arg_type"], mclass)
        self.engine.create_module(name, mclass, args)
        self.module_args[name] = request.arg
        response.name = name

    def DestroyModule(self, request: pb.DestroyModuleRequest, response: pb.EmptyResponse) -> None:
        self.engine.destroy_module(require(request.name, _NO_NAME))
        self.module_args.pop(request.name, None)

    def GetModuleInfo(
        self, request: pb.GetModuleInfoRequest, response: pb.GetModuleInfoResponse
    ) -> None:
        info = self.engine.module_info(require(request.name, _NO_NAME))
        now = time.time()
        response.name = info["name"]
        response.mclass = info["mclass"]
        response.desc = info["desc"]
        for gate in info["igates"]:
            igate = response.igates.add(igate=gate["igate"])
            for upstream in gate["ogates"]:
                igate.ogates.add(ogate=upstream["ogate"], name=upstream["name"])
            _fill_gate(igate, gate, now)
        for gate in info["ogates"]:
            ogate = response.ogates.add(ogate=gate["ogate"], name=gate["name"], igate=gate["igate"])
            _fill_gate(ogate, gate, now)
        for attr in info["metadata"]:
            response.metadata.add(
                name=attr["name"], size=attr["size"], mode=attr["mode"], offset=attr["offset"]
            )
        response.deadends = info["deadends"]

    def ConnectModules(self, request: pb.ConnectModulesRequest, response: pb.EmptyResponse) -> None:
        if not request.m1 or not request.m2:
            raise RpcError(errno.EINVAL, "Missing 'm1' or 'm2' field")
        self.engine.connect(
            request.m1, request.ogate, request.m2, request.igate, request.skip_default_hooks
        )

    def DisconnectModules(
        self, request: pb.DisconnectModulesRequest, response: pb.EmptyResponse
    ) -> None:
        self.engine.disconnect(require(request.name, "Missing 'name' field"), request.ogate)

    def ModuleCommand(self, request: pb.CommandRequest, response: pb.CommandResponse) -> None:
        name = require(request.name, "Missing module name field 'name'")
        mclass = self.engine.class_of(name)
        commands = {
            command["name"]: command for command in self.module_classes()[mclass]["commands"]
        }
        command = commands.get(request.cmd)
        if command is None:
            if request.cmd == _INITIAL_ARG:
                if name in self.module_args:
                    response.data.CopyFrom(self.module_args[name])
                return
            raise RpcError(errno.ENOTSUP, f"'{mclass}' does not support command '{request.cmd}'")
        args = unpack_arg(request.arg, command["arg_type"])
        result = self.engine.module_command(name, request.cmd, args)
        kind = command["response_type"]
        if kind and kind != "EmptyArg":
            response.data.Pack(_proto.from_dict(kind, result or {}))


def _hook_gate(info: pb.GateHookInfo) -> tuple[str, int]:
    """Direction and number of the gate; an unset one means output gate 0."""
    if info.WhichOneof("gate") == "igate":
        return "igate", max(info.igate, -1)
    return "ogate", max(info.ogate, -1)


class HookCalls(ServiceBase):
    """Gate hooks and resume hooks."""

    def ListGateHookClass(
        self, request: pb.EmptyRequest, response: pb.ListGateHookClassResponse
    ) -> None:
        response.names.extend(sorted(self.engine.hook_classes()))

    def GetGateHookClassInfo(
        self, request: pb.GetGateHookClassInfoRequest, response: pb.GetGateHookClassInfoResponse
    ) -> None:
        name = require(request.name, "Missing gate hook class name")
        info = lookup(self.engine.hook_classes(), name, f"No gatehook class '{name}' found")
        response.name = info["name"]
        response.help = info["help"]
        for command in info["commands"]:
            response.cmds.append(command["name"])
            response.cmd_args.append(command["arg_type"])

    def ConfigureGateHook(
        self, request: pb.ConfigureGateHookRequest, response: pb.ConfigureGateHookResponse
    ) -> None:
        hook = request.hook
        info = lookup(
            self.engine.hook_classes(), hook.class_name, f"No such gate hook: {hook.class_name}"
        )
        direction, gate = _hook_gate(hook)
        name = self.engine.configure_hook(
            {
                "class_name": hook.class_name,
                "hook_name": hook.hook_name,
                "module_name": hook.module_name,
                "direction": direction,
                "gate": gate,
                # Removing needs no argument, so whatever came along is moot.
                "args": unpack_arg(hook.arg, info["arg_type"]) if request.enable else {},
            },
            request.enable,
        )
        if request.enable:
            response.name = name or ""

    def ListGateHooks(self, request: pb.EmptyRequest, response: pb.ListGateHooksResponse) -> None:
        classes = self.engine.hook_classes()
        for hook in self.engine.hooks():
            entry = response.hooks.add(
                class_name=hook["class_name"],
                hook_name=hook["hook_name"],
                module_name=hook["module_name"],
            )
            setattr(entry, hook["direction"], hook["gate"])
            kind = classes.get(hook["class_name"], {}).get("arg_type")
            if kind and hook.get("args") is not None:
                entry.arg.Pack(_proto.from_dict(kind, hook["args"]))

    def GateHookCommand(
        self, request: pb.GateHookCommandRequest, response: pb.CommandResponse
    ) -> None:
        wanted = request.hook
        direction, gate = _hook_gate(wanted)
        require(wanted.module_name, _NO_NAME)
        where = {
            "module_name": wanted.module_name,
            "direction": direction,
            "gate": gate,
            "hook_name": wanted.hook_name,
        }
        installed = (
            hook["class_name"]
            for hook in self.engine.hooks()
            if all(hook[key] == value for key, value in where.items())
        )
        info = self.engine.hook_classes().get(next(installed, ""), {"commands": []})
        command = next((c for c in info["commands"] if c["name"] == request.cmd), None)
        # What is not there, or not known there, is for the engine to say.
        args = unpack_arg(wanted.arg, command["arg_type"]) if command else {}
        result = self.engine.hook_command(where, request.cmd, args)
        if command and command["response_type"] != "EmptyArg":
            response.data.Pack(_proto.from_dict(command["response_type"], result))

    def ConfigureResumeHook(
        self, request: pb.ConfigureResumeHookRequest, response: pb.CommandResponse
    ) -> None:
        unpack_arg(request.arg, "EmptyArg")
        self.engine.configure_resume_hook(request.hook_name, request.enable)

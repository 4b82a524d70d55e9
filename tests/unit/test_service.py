# SPDX-License-Identifier: BSD-3-Clause
"""What the control service asks its engine for."""

from __future__ import annotations

import errno
from typing import Any, cast

from bess_plugins.daemon.service import ControlService, EngineApi
from bess_plugins.pb import bess_msg_pb2 as pb
from harness import Engine, new_engine


class ListsNothing:
    """An engine that refuses to list all modules or all hooks."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        assert name not in ("modules", "hooks"), f"{name}() takes as long as there are modules"
        return getattr(self._engine, name)


def test_calls_about_one_module_look_at_no_other() -> None:
    service = ControlService(cast(EngineApi, ListsNothing(new_engine())))

    def call(method: str, request: Any) -> Any:
        response = service.call(method, request)
        assert not response.error.code, response.error.errmsg
        return response

    for name, mclass in (("q", "Queue"), ("out", "Sink")):
        call("CreateModule", pb.CreateModuleRequest(name=name, mclass=mclass))
    call("ConnectModules", pb.ConnectModulesRequest(m1="q", m2="out"))
    (gate,) = call("GetModuleInfo", pb.GetModuleInfoRequest(name="q")).ogates
    assert [hook.class_name for hook in gate.gatehooks] == ["Track"]
    assert gate.timestamp > 0
    assert call("ModuleCommand", pb.CommandRequest(name="q", cmd="get_status")).data.value
    again = service.call("CreateModule", pb.CreateModuleRequest(name="q", mclass="Sink"))
    assert (again.error.code, again.error.errmsg) == (errno.EEXIST, "Module 'q' already exists")
    nobody = service.call("ModuleCommand", pb.CommandRequest(name="x", cmd="get_status"))
    assert (nobody.error.code, nobody.error.errmsg) == (errno.ENOENT, "No module 'x' found")

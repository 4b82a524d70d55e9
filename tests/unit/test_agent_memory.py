# SPDX-License-Identifier: BSD-3-Clause
"""What an agent leaves for the one after it."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

import pytest

from e2ctl.agent.dataplane import DataplaneError
from e2ctl.agent.memory import Memory, Remembered
from e2ctl.agent.programs import ProgramRecord
from e2ctl.server_plan import ServerPlan
from e2ctl.wiring import Link, ModuleSpec

PLAN = ServerPlan(
    "s1",
    (),
    (
        ModuleSpec("a", "Source", "nf", "x.0", {"key": b"\0key"}),
        ModuleSpec("b", "Sink", "nf", "x.0"),
    ),
    (Link("a", 0, "b", 0),),
    {"a": "dataplane"},
)
KNOWN = Remembered(PLAN, {"nat.0": ProgramRecord(("left", "right"), 17, 4711)})


def test_the_next_agent_knows_what_a_killed_one_knew(tmp_path: Path) -> None:
    path = tmp_path / "d.sock"
    killed = Memory(path)
    assert killed.open() == Remembered()
    killed.keep(KNOWN)
    assert stat.S_IMODE((tmp_path / "d.sock.plan").stat().st_mode) == 0o600
    with pytest.raises(DataplaneError, match="another agent looks after the daemon at"):
        Memory(path).open()
    killed.close(forget=False)  # as the kernel does
    following = Memory(path)
    assert following.open() == KNOWN
    following.close(forget=True)
    assert list(tmp_path.iterdir()) == []
    third = Memory(path)
    assert third.open() == Remembered()
    third.close(forget=True)


@pytest.mark.parametrize("text", ["", "{}", '{"plan": "{", "programs": {}}', "[]", '{"plan": 3}'])
def test_a_file_that_is_of_no_use_is_told_and_left_out(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "d.sock.plan").write_text(text)
    memory = Memory(tmp_path / "d.sock")
    with caplog.at_level(logging.WARNING):
        assert memory.open() == Remembered()
    assert "d.sock.plan is of no use" in caplog.text
    memory.close(forget=True)


def test_a_daemon_without_a_unix_socket_has_none() -> None:
    memory = Memory(None)
    assert memory.open() == Remembered()
    memory.keep(KNOWN)
    memory.close(forget=True)

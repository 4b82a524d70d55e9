# SPDX-License-Identifier: BSD-3-Clause
"""Run packets through one compiled module and look at what comes out of its gates."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bess_plugins._engine import Engine, EngineError

__all__ = ["Engine", "EngineError", "Result", "new_engine", "run", "wait_until"]


@dataclass(frozen=True)
class Result:
    """Packets by output gate, drops by reason, and what each command answered."""

    out: dict[int, list[bytes]]
    drops: dict[str, int]
    command_results: list[dict[str, Any]]

    @property
    def forwarded(self) -> int:
        return sum(len(packets) for packets in self.out.values())

    @property
    def dropped(self) -> int:
        return sum(self.drops.values())


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Poll until `condition` holds; fail the test when it never does."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "condition not met in time"
        time.sleep(0.001)


def new_engine() -> Engine:
    """An engine small enough to make hundreds of."""
    return Engine(pool_packets=1024, buffer_bytes=2048)


def run(
    mclass: str,
    args: Mapping[str, Any],
    packets: Sequence[bytes],
    commands: Sequence[tuple[str, Mapping[str, Any]]] = (),
    in_gate: int = 0,
    after: Sequence[tuple[str, Mapping[str, Any]]] = (),
) -> Result:
    """Make a module, run `commands`, push `packets` through it, run the commands in `after`.

    Gates that lead nowhere are collected; metadata starts as zeros.
    """
    engine = new_engine()
    engine.create_module("m", mclass, dict(args))
    results = [engine.module_command("m", name, dict(arg)) for name, arg in commands]
    out = engine.run_packets("m", list(packets), in_gate)
    results += [engine.module_command("m", name, dict(arg)) for name, arg in after]
    drops = {k: v for k, v in engine.module_info("m")["drops"].items() if v}
    return Result(out, drops, results)

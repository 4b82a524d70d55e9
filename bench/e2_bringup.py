# SPDX-License-Identifier: BSD-3-Clause
"""The time to bring up a replica, on a real cluster of this machine's processes.

A simulated lab (`e2ctl lab up --simulated`): agents and daemons of three servers, each a process of
its own, and a switch in Python. Nothing is modelled, and nobody sends. An instance is split, from
the call of `Scaler.split` until its detour is in use: all servers have committed, and a split
leaves the switch's entries as they are. Then that is taken back, so that each split starts alike.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from e2ctl import lab as labs
from e2ctl._lab_blueprint import load
from e2ctl.controller.agents import Agents
from e2ctl.controller.apply import apply
from e2ctl.controller.scale import Scaler
from e2ctl.controller.store import Inputs, SqliteStore
from e2ctl.plan import Running

__all__ = ["IN_USE", "PARTS", "bring_up"]

EXAMPLES = Path(__file__).parents[1] / "examples"
INSTANCES = ("ids.0", "cache.0")
NAME = "e2bench"
# Each ends where the controller says a step; the detour is in use before "switch".
PARTS = {"plan": "prepare", "prepare": "commit", "commit": "switch", "switch": "finish"}
IN_USE = ("plan", "prepare", "commit")


def bring_up(rounds: int, tick: Callable[[str], None]) -> dict[str, Any]:
    """Split instances, each so often; medians in seconds, by part."""
    tick("a lab")
    blueprint = replace(load(EXAMPLES / "lab.yaml"), name=NAME, simulated=True)
    lab = labs.build(blueprint)
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder)
            times = asyncio.run(_splits(lab, path, rounds, tick))
    finally:
        lab.down()
    whole = [sum(one[part] for part in IN_USE) for one in times]
    return {
        "servers": len(blueprint.hardware.servers),
        "splits": len(times),
        "median_s": median(whole),
        "p90_s": quantiles(whole, n=10)[-1],
        "least_s": min(whole),
        "parts_s": {part: median(one[part] for one in times) for part in PARTS},
    }


async def _splits(
    lab: labs.Lab, folder: Path, rounds: int, tick: Callable[[str], None]
) -> list[dict[str, float]]:
    hardware = lab.folder / "hardware.yaml"
    store = SqliteStore(folder / "controller.db")
    said: dict[str, float] = {}
    times = []
    async with Agents(lab.blueprint.hardware) as agents:
        scaler = Scaler(
            store, agents, lab.switch, lambda step: said.update({step: time.perf_counter()})
        )
        with store.only_one():
            files = EXAMPLES / "central_office.e2", EXAMPLES / "nfs.yaml", hardware
            await apply(Inputs.read(*files, Running()), store, agents, lab.switch)
            for number in range(rounds + 1):  # the first one warms up
                for instance in INSTANCES:
                    tick(f"split {number} of {instance}")
                    said.clear()
                    start = time.perf_counter()
                    made = await scaler.split(instance)
                    ends = [start, *(said[step] for step in PARTS.values())]
                    if number > 0:
                        spent = (b - a for a, b in pairwise(ends))
                        times.append(dict(zip(PARTS, spent, strict=True)))
                    await scaler.push(instance)
                    await scaler.drain(made)
                    await scaler.push(made)
    store.close()
    return times

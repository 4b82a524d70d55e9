# SPDX-License-Identifier: BSD-3-Clause
"""The switch driver for the process of a simulated lab."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from e2ctl.openflow import FlowCount, LiveRules, SwitchError
from e2ctl.switch_rules import SwitchRule

__all__ = ["SoftwareSwitch", "control_socket"]

_TIMEOUT_S = 30
_LONGEST_LINE = 1 << 26
_RULE = TypeAdapter(SwitchRule)


def control_socket(folder: Path) -> Path:
    """Where the process takes rules."""
    return folder / "switch.sock"


class SoftwareSwitch:
    """The switch whose process has its socket in a folder."""

    def __init__(self, folder: Path) -> None:
        self._path = control_socket(folder)

    async def replace(self, rules: Sequence[SwitchRule]) -> None:
        """Have exactly these rules, from one frame to the next."""
        await self._ask({"replace": [asdict(rule) for rule in rules]})

    async def compare(self, rules: Sequence[SwitchRule]) -> LiveRules:
        """Which of these rules it has, and what else."""
        counters = (await self._ask({"counters": True}))["counters"]
        there = {
            _RULE.validate_python(rule): FlowCount("", packets, size)
            for rule, packets, size in counters
        }
        found = {rule: there[rule] for rule in rules if rule in there}
        return LiveRules(found, tuple(str(rule) for rule in there if rule not in found))

    async def entries(self) -> int:
        """How many it has."""
        return int((await self._ask({"entries": True}))["entries"])

    async def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                reader, writer = await asyncio.open_unix_connection(
                    str(self._path), limit=_LONGEST_LINE
                )
                try:
                    writer.write(json.dumps(question).encode() + b"\n")
                    await writer.drain()
                    line = await reader.readline()
                finally:
                    writer.close()
        except TimeoutError:
            raise SwitchError(f"{self._path}: no answer within {_TIMEOUT_S} s") from None
        except OSError as error:
            raise SwitchError(
                f"{self._path}: {error.strerror}; `e2ctl lab status` says what runs"
            ) from None
        answer: dict[str, Any] = json.loads(line or b'{"error": "it ended"}')
        if "error" in answer:
            raise SwitchError(str(answer["error"]))
        return answer

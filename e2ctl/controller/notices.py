# SPDX-License-Identifier: BSD-3-Clause
"""What happens on a cluster, for whoever wants to know."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from e2ctl.controller.agents import Agent, AgentError

__all__ = ["Notice", "Notices", "listen"]

log = logging.getLogger(__name__)

_AGAIN_S = 0.2
_MOST = 4096


@dataclass(frozen=True)
class Notice:
    """Something that happened on a server, or that the controller did (``server`` is empty).

    ``subject`` is the instance or module that it is about, ``values`` are numbers that belong to
    it, ``text`` says it in words. ``time_s`` is since the Unix epoch.
    """

    kind: str
    server: str = ""
    subject: str = ""
    values: Mapping[str, int] = field(default_factory=dict)
    text: str = ""
    time_s: float = field(default_factory=time.time)

    def __str__(self) -> str:
        where = " ".join(part for part in (self.server or "controller", self.subject) if part)
        numbers = "".join(f" {name}={value}" for name, value in self.values.items())
        said = f" ({self.text})" if self.text else ""
        return f"{where}: {self.kind}{numbers}{said}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "time": self.time_s,
            "server": self.server,
            "subject": self.subject,
            "kind": self.kind,
            "values": dict(self.values),
            "text": self.text,
        }


class Notices:
    """Hands each notice to all that listen. Who is too slow misses some."""

    def __init__(self) -> None:
        self.told = Counter[str]()  # by kind
        self._listeners: list[asyncio.Queue[Notice]] = []

    def tell(self, notice: Notice) -> None:
        """Pass on a notice, and log it."""
        log.info("%s", notice)
        self.told[notice.kind] += 1
        for listener in self._listeners:
            with suppress(asyncio.QueueFull):
                listener.put_nowait(notice)

    @contextmanager
    def heard(self) -> Iterator[asyncio.Queue[Notice]]:
        """A queue of all that is told from now on."""
        queue = asyncio.Queue[Notice](_MOST)
        self._listeners.append(queue)
        try:
            yield queue
        finally:
            self._listeners.remove(queue)


async def listen(agent: Agent, tell: Callable[[Notice], None]) -> None:
    """Pass on an agent's notices for ever. That it goes away and comes back are some, too."""
    missed = False
    while True:
        try:
            await agent.state()
            if missed:
                tell(Notice("agent up", agent.server))
            missed = False
            async for notice in agent.watch():
                values = dict(notice.values)
                tell(Notice(notice.kind, agent.server, notice.subject, values))
        except AgentError:
            if not missed:
                tell(Notice("agent down", agent.server))
            missed = True
        await asyncio.sleep(_AGAIN_S)

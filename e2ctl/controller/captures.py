# SPDX-License-Identifier: BSD-3-Clause
"""Packets of an edge from all servers that see them, in the order of their times, as pcap.

Each agent sends what crosses its gates as it comes. A packet is held back for as long as another
that came earlier may still be under way, and what is held at the end is put in order at once.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import BinaryIO

from bess_plugins.pb import e2_agent_pb2 as pb
from e2ctl.controller.agents import AgentError, Agents
from e2ctl.server_plan import EdgeTap

__all__ = ["Capture", "PcapWriter", "TimeOrder"]

WINDOW_S = 1.0
_TICK_S = 0.2
_MOST_WAITING = 256
_MAGIC_NS, _MAJOR, _MINOR, _ETHERNET = 0xA1B23C4D, 2, 4, 1
_SNAPLEN = 1 << 18
_FILE_HEADER = struct.Struct("=IHHiIII")
_RECORD = struct.Struct("=4I")


class PcapWriter:
    """Writes packets, with nanoseconds; what is flushed is a whole file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.packets = 0
        file.write(_FILE_HEADER.pack(_MAGIC_NS, _MAJOR, _MINOR, 0, 0, _SNAPLEN, _ETHERNET))
        file.flush()

    def write(self, packet: pb.CapturedPacket) -> None:
        """Add a packet."""
        seconds, nanoseconds = divmod(packet.time_ns, 10**9)
        self._file.write(
            _RECORD.pack(seconds, nanoseconds, len(packet.data), packet.wire_bytes) + packet.data
        )
        self.packets += 1

    def flush(self) -> None:
        """Give all to the file."""
        self._file.flush()


class TimeOrder:
    """Puts packets in order that come out of it, by less than a window."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._numbers = itertools.count()
        self._held: list[tuple[int, int, float, pb.CapturedPacket]] = []

    def __len__(self) -> int:
        return len(self._held)

    def add(self, packet: pb.CapturedPacket, now_s: float) -> None:
        """Take a packet in."""
        heapq.heappush(self._held, (packet.time_ns, next(self._numbers), now_s, packet))

    def due(self, now_s: float) -> Iterator[pb.CapturedPacket]:
        """Give away what was held for as long as the window."""
        while self._held and self._held[0][2] + self._window_s <= now_s:
            yield heapq.heappop(self._held)[3]

    def rest(self) -> Iterator[pb.CapturedPacket]:
        """Give away all."""
        while self._held:
            yield heapq.heappop(self._held)[3]


class Capture:
    """A capture of an edge. ``lost`` packets crossed it and could not be recorded."""

    def __init__(
        self,
        agents: Agents,
        taps: Mapping[str, Sequence[EdgeTap]],
        words: str,
        warn: Callable[[str], None],
    ) -> None:
        self._requests = {
            server: pb.CaptureRequest(
                points=[pb.CapturePoint(module=t.module, ogate=t.ogate) for t in here],
                filter=words,
            )
            for server, here in taps.items()
        }
        self._agents = agents
        self._warn = warn
        self._lost: dict[str, int] = {}
        self._arrived = asyncio.Queue[pb.CaptureRecords](_MOST_WAITING)
        points = sum(map(len, taps.values()))
        self._order = TimeOrder(WINDOW_S if points > 1 else 0.0)

    @property
    def lost(self) -> int:
        """As far as agents have told, which they do each second."""
        return sum(self._lost.values())

    async def run(
        self, make: Callable[[], PcapWriter], count: int | None, seconds: float | None
    ) -> None:
        """Write packets, until so many came or it took so long, or for ever.

        The writer is made once all gates are watched: an `AgentError` before that says which is
        not. Later, an agent that goes away is a warning, and an error where it was the last.
        """
        streams = {server: self._agents[server].capture(r) for server, r in self._requests.items()}
        for stream in streams.values():
            await anext(stream)
        writer = make()
        end = None if seconds is None else time.monotonic() + seconds
        pumps = [asyncio.create_task(self._pump(*each)) for each in streams.items()]
        try:
            while (count is None or writer.packets + len(self._order) < count) and (
                end is None or time.monotonic() < end
            ):
                if self._arrived.empty() and all(pump.done() for pump in pumps):
                    raise pumps[-1].result()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_TICK_S):
                        self._take(await self._arrived.get())
                for packet in self._order.due(time.monotonic()):
                    writer.write(packet)
                writer.flush()
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            while not self._arrived.empty():
                self._take(self._arrived.get_nowait())
            most = len(self._order) if count is None else count - writer.packets
            for packet in itertools.islice(self._order.rest(), most):
                writer.write(packet)
            writer.flush()

    def _take(self, records: pb.CaptureRecords) -> None:
        now_s = time.monotonic()
        for packet in records.packets:
            self._order.add(packet, now_s)

    async def _pump(self, server: str, stream: AsyncIterator[pb.CaptureRecords]) -> AgentError:
        """Pass on what comes from a server, until it ends; returns why it did."""
        why = AgentError(server, "it has been stopped", unreachable=True)
        try:
            async for records in stream:
                self._lost[server] = records.lost
                await self._arrived.put(records)
        except AgentError as error:
            why = error
        self._warn(str(why))
        return why

# SPDX-License-Identifier: BSD-3-Clause
"""Packets that cross gates of the daemon, for whoever asks, until that one goes away.

The daemon's `Capture` hook writes to a named pipe and never waits for who reads it; what finds the
pipe full is counted as lost. Hooks are removed when the caller is gone, however it went.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import selectors
import shutil
import struct
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from bess_plugins.client import BessError, Client
from bess_plugins.pb import e2_agent_pb2 as pb
from e2ctl.agent.dataplane import Dataplane

__all__ = ["CaptureError", "Captures", "PcapReader"]

MAX_CAPTURES = 4
_HOOK = "e2-capture"
_POLL_S = 0.1
_STATS_S = 1.0
_PIPE_BYTES = 1 << 20
_READ_BYTES = 1 << 18
_FILE_HEADER_BYTES = 24
_RECORD = struct.Struct("=4I")  # seconds, nanoseconds, bytes that follow, bytes on the wire


class CaptureError(Exception):
    """A capture can't begin or go on; the message says why."""


class PcapReader:
    """The packets in a stream of pcap with nanoseconds, given piece by piece."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._began = False

    def feed(self, data: bytes) -> Iterator[pb.CapturedPacket]:
        """Yield the packets that are whole by now."""
        held = self._held
        held += data
        at = 0
        if not self._began:
            if len(held) < _FILE_HEADER_BYTES:
                return
            self._began, at = True, _FILE_HEADER_BYTES
        while len(held) - at >= _RECORD.size:
            seconds, nanoseconds, kept, wire = _RECORD.unpack_from(held, at)
            start, end = at + _RECORD.size, at + _RECORD.size + kept
            if end > len(held):
                break
            yield pb.CapturedPacket(
                time_ns=seconds * 10**9 + nanoseconds, wire_bytes=wire, data=bytes(held[start:end])
            )
            at = end
        del held[:at]


@dataclass
class _Point:
    """A gate that is watched."""

    module: str
    ogate: int
    hook: str
    pipe: int
    reader: PcapReader = field(default_factory=PcapReader)
    lost: int = 0

    def __str__(self) -> str:
        return f"gate {self.ogate} of {self.module}"


class Captures:
    """Those of one agent."""

    def __init__(self, dataplane: Dataplane) -> None:
        self._dataplane = dataplane
        self._places = threading.Semaphore(MAX_CAPTURES)
        self._numbers = itertools.count(1)
        self._stopped = threading.Event()

    def sweep(self) -> None:
        """Take away what an agent has left that was killed; its daemon may have outlived it."""
        client = self._dataplane.client
        for hook in client.list_hooks():
            if hook["class_name"] == "Capture" and hook["hook_name"].startswith(_HOOK):
                _unhook(client, hook["module_name"], hook["ogate"], hook["hook_name"])
                shutil.rmtree(Path(hook["arg"]["fifo"]).parent, ignore_errors=True)

    def stop(self) -> None:
        """End all."""
        self._stopped.set()

    def capture(
        self, request: pb.CaptureRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.CaptureRecords]:
        """Yield what crosses the points of a request; refusals are a `CaptureError`."""
        if not self._places.acquire(blocking=False):
            raise CaptureError(f"{MAX_CAPTURES} captures are under way; end one of them")
        try:
            with ExitStack() as stack:
                client = self._dataplane.client
                points = self._watch(client, request, stack)
                yield pb.CaptureRecords()
                yield from self._records(client, points, context)
        finally:
            self._places.release()

    def _watch(
        self, client: Client, request: pb.CaptureRequest, stack: ExitStack
    ) -> Sequence[_Point]:
        """Hook each point; at the end of the stack nothing of that is left."""
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"{_HOOK}-")))
        points = []
        for asked in request.points:
            name = f"{_HOOK}-{os.getpid()}-{next(self._numbers)}"
            path = folder / name
            os.mkfifo(path, 0o600)
            pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            stack.callback(os.close, pipe)
            with suppress(OSError):  # a small pipe only loses more
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            client.configure_gate_hook(
                "Capture",
                asked.module,
                gate=asked.ogate,
                hook_name=name,
                fifo=str(path),
                filter=request.filter,
            )
            stack.callback(_unhook, client, asked.module, asked.ogate, name)
            points.append(_Point(asked.module, asked.ogate, name, pipe))
        return points

    def _records(
        self, client: Client, points: Sequence[_Point], context: grpc.ServicerContext
    ) -> Iterator[pb.CaptureRecords]:
        told, next_stats = 0, time.monotonic() + _STATS_S
        with selectors.DefaultSelector() as selector:
            for point in points:
                selector.register(point.pipe, selectors.EVENT_READ, point)
            while context.is_active() and not self._stopped.is_set():
                for key, _ in selector.select(_POLL_S):
                    data = os.read(key.fd, _READ_BYTES)
                    if not data:
                        raise CaptureError(
                            f"{key.data} is gone: the plan changed, or the daemon ended"
                        )
                    packets = list(key.data.reader.feed(data))
                    if packets:
                        yield pb.CaptureRecords(packets=packets, lost=told)
                if time.monotonic() >= next_stats:
                    next_stats = time.monotonic() + _STATS_S
                    lost = sum(_lost(client, point) for point in points)
                    if lost != told:
                        told = lost
                        yield pb.CaptureRecords(lost=told)


def _lost(client: Client, point: _Point) -> int:
    with suppress(BessError):  # one that is gone is noticed by its pipe
        found = client.run_gate_hook_command(
            point.hook, "get_stats", point.module, gate=point.ogate
        )
        point.lost = int(found["lost_packets"])
    return point.lost


def _unhook(client: Client, module: str, ogate: int, name: str) -> None:
    with suppress(BessError, ValueError):  # it went with its module, or with the daemon
        client.configure_gate_hook("Capture", module, gate=ogate, hook_name=name, enable=False)

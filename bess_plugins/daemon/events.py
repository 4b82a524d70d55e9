# SPDX-License-Identifier: BSD-3-Clause
"""The event service: what modules tell, streamed to whoever subscribes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, Protocol

import grpc

from bess_plugins.pb import e2_events_pb2 as pb

__all__ = ["MAX_SUBSCRIBERS", "EventService"]

MAX_SUBSCRIBERS = 8
_POLL_SECONDS = 0.02
_SERVICE = pb.DESCRIPTOR.services_by_name["Events"]
_NOTHING = (1 << 64) - 1


class EventSource(Protocol):
    """What has events: an engine."""

    def events(self, after: int = 0) -> dict[str, Any]: ...


class EventService:
    """Serves ``e2.pb.Events``.

    The engine is asked for news at intervals, by each subscriber for itself:
    modules that post from the packet path have no means to wake anybody.
    """

    def __init__(self, source: EventSource) -> None:
        self._source = source
        self._stopped = threading.Event()
        self._places = threading.Semaphore(MAX_SUBSCRIBERS)

    def subscribe(
        self, request: pb.SubscribeRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.Event]:
        """Yield events until the caller leaves or the service stops."""
        if not self._places.acquire(blocking=False):
            context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"there are {MAX_SUBSCRIBERS} subscribers already; let one of them leave first",
            )
        try:
            last = request.after if request.HasField("after") else self._latest()
            context.send_initial_metadata(())
            while context.is_active() and not self._stopped.is_set():
                found = self._source.events(last)
                # A number that is still to come would hold back what happens until then.
                last = found["last"]
                for event in found["events"]:
                    if request.modules and event["module"] not in request.modules:
                        continue
                    if request.kinds and event["kind"] not in request.kinds:
                        continue
                    yield pb.Event(**event)
                self._stopped.wait(_POLL_SECONDS)
        finally:
            self._places.release()

    def _latest(self) -> int:
        return int(self._source.events(_NOTHING)["last"])

    def stop(self) -> None:
        """End all streams."""
        self._stopped.set()

    def handler(self) -> Any:
        """Return what a gRPC server needs to serve this."""
        subscribe = grpc.unary_stream_rpc_method_handler(
            self.subscribe,
            request_deserializer=pb.SubscribeRequest.FromString,
            response_serializer=pb.Event.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(_SERVICE.full_name, {"Subscribe": subscribe})

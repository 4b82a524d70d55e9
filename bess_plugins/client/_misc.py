# SPDX-License-Identifier: BSD-3-Clause
"""Calls about the daemon as a whole, its plugins and its memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc

from bess_plugins import _proto
from bess_plugins.client._base import Connection
from bess_plugins.pb import bess_msg_pb2 as pb
from bess_plugins.pb import e2_counters_pb2 as counters_pb
from bess_plugins.pb import e2_events_pb2 as events_pb

_COUNTING = counters_pb.DESCRIPTOR.services_by_name["Counting"].full_name
_EVENTS = events_pb.DESCRIPTOR.services_by_name["Events"].full_name


class MiscCalls(Connection):
    """Daemon, plugins and packet memory."""

    def version(self) -> str:
        """Version of the daemon."""
        return str(self.call("GetVersion").version)

    def reset_all(self) -> None:
        """Remove every module, port, traffic class and worker."""
        self.call("ResetAll")

    def kill(self) -> None:
        """Make the daemon stop."""
        self.call("KillBess")

    def counters(self) -> counters_pb.Counters:
        """All that the daemon counts, read at one moment, while workers run on."""
        stub = self._channel.unary_unary(
            f"/{_COUNTING}/GetCounters",
            request_serializer=counters_pb.CountersRequest.SerializeToString,
            response_deserializer=counters_pb.Counters.FromString,
        )
        request = counters_pb.CountersRequest()
        try:
            found: counters_pb.Counters = stub(request, timeout=self._timeout)
        except grpc.RpcError as error:
            raise self._failed(error, "GetCounters", request) from None
        return found

    @contextmanager
    def events(
        self,
        modules: Sequence[str] = (),
        kinds: Sequence[str] = (),
        after: int | None = None,
    ) -> Iterator[Iterator[dict[str, Any]]]:
        """Subscribe to what modules tell; within the context, iterating waits for the next event.

        What happens once the context is entered is not missed. ``after`` asks
        first for what the daemon remembers past that number.
        """
        stub = self._channel.unary_stream(
            f"/{_EVENTS}/Subscribe",
            request_serializer=events_pb.SubscribeRequest.SerializeToString,
            response_deserializer=events_pb.Event.FromString,
        )
        request = events_pb.SubscribeRequest(modules=modules, kinds=kinds, after=after)
        stream: Any = stub(request)

        def events() -> Iterator[dict[str, Any]]:
            try:
                yield from map(_proto.to_dict, stream)
            except grpc.RpcError as error:
                raise self._failed(error, "Subscribe", request) from None

        try:
            stream.initial_metadata()
            yield events()
        finally:
            stream.cancel()

    def dump_mempool(self, socket: int = -1) -> list[dict[str, Any]]:
        """Fill levels of the packet pools."""
        response = self.call("DumpMempool", pb.DumpMempoolRequest(socket=socket))
        return [_proto.to_dict(dump) for dump in response.dumps]

    def import_plugin(self, path: str) -> None:
        """Load a shared object; the daemon has to find it under this path."""
        self.call("ImportPlugin", pb.ImportPluginRequest(path=path))

    def unload_plugin(self, path: str) -> None:
        """Drop a shared object."""
        self.call("UnloadPlugin", pb.UnloadPluginRequest(path=path))

    def list_plugins(self) -> list[str]:
        """Paths of the loaded shared objects."""
        return list(self.call("ListPlugins").paths)

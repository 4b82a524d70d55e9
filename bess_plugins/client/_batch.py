# SPDX-License-Identifier: BSD-3-Clause
"""Many calls in one, and whether the daemon is still as it was."""

from __future__ import annotations

import errno
from typing import Any

import grpc
from google.protobuf.message import Message

from bess_plugins import _proto
from bess_plugins.client._base import BessError, Connection
from bess_plugins.client._modules import HookCalls, ModuleCalls
from bess_plugins.client._ports import PortCalls
from bess_plugins.client._workers import TrafficClassCalls, WorkerCalls
from bess_plugins.pb import e2_batch_pb2 as batch_pb

_SERVICE = batch_pb.DESCRIPTOR.services_by_name["Batching"].full_name


class BatchError(BessError):
    """A call of a batch failed: number ``index``. Those before it were carried out."""

    def __init__(self, code: int, errmsg: str, call: str, arg: Message, index: int) -> None:
        super().__init__(code, errmsg, call, arg)
        self.index = index


class Batch(WorkerCalls, TrafficClassCalls, PortCalls, ModuleCalls, HookCalls):
    """Calls to be carried out together: methods of a `Client`, which only note what to do.

    What they return says nothing.
    """

    def __init__(self, client: Connection) -> None:
        self._client = client
        self.calls: list[tuple[str, Message]] = []

    def call(self, method: str, request: Message | None = None) -> Any:
        """Note a call."""
        descriptor = _proto.SERVICE.methods_by_name[method]
        if request is None:
            request = _proto.message_type(descriptor.input_type.name)()
        self.calls.append((method, request))
        return _proto.message_type(descriptor.output_type.name)()

    def _knows(self, kind: str) -> bool:
        return self._client._knows(kind)


class BatchCalls(Connection):
    """What a daemon does in one go, and what it has then."""

    def batch(self) -> Batch:
        """Begin to note calls for `run`."""
        return Batch(self)

    def run(self, batch: Batch | None = None, generation: int | None = None) -> batch_pb.BatchDone:
        """Carry out calls in order, with nobody else's in between; ``BatchError`` where one fails.

        With ``generation``, nothing is done where the daemon is not as it was when it told that
        number: then ``stale`` is set. Without a batch, ask what there is. Calls may take as long
        together as they may one by one.
        """
        calls = [] if batch is None else batch.calls
        request = batch_pb.Batch(generation=generation)
        for method, message in calls:
            request.calls.add(method=method, request=message.SerializeToString())
        stub = self._channel.unary_unary(
            f"/{_SERVICE}/Run",
            request_serializer=batch_pb.Batch.SerializeToString,
            response_deserializer=batch_pb.BatchDone.FromString,
        )
        try:
            done: batch_pb.BatchDone = stub(request, timeout=self._timeout * max(1, len(calls)))
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                why = f"the daemon at {self.address} takes no batches; an e2d of this version does"
                raise BessError(errno.ENOSYS, why, "Run", request) from None
            raise self._failed(error, "Run", request) from None
        if done.responses:
            index = len(done.responses) - 1
            method, message = calls[index]
            kind = _proto.SERVICE.methods_by_name[method].output_type.name
            last: Any = _proto.message_type(kind).FromString(done.responses[index])
            if last.error.code:
                raise BatchError(last.error.code, last.error.errmsg, method, message, index)
        return done

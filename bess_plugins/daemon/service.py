# SPDX-License-Identifier: BSD-3-Clause
"""The control service: every call of BESSControl over one engine."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from bess_plugins import _proto
from bess_plugins.daemon._base import EngineApi, RpcError
from bess_plugins.daemon._misc import MiscCalls
from bess_plugins.daemon._modules import HookCalls, ModuleCalls
from bess_plugins.daemon._ports import PortCalls
from bess_plugins.daemon._workers import TrafficClassCalls, WorkerCalls
from bess_plugins.pb import bess_msg_pb2 as pb

__all__ = ["ControlService", "EngineApi", "RpcError"]

log = logging.getLogger(__name__)

Observer = Callable[[str, int, float], None]

# Calls after which there are the same modules, links, hooks, ports, workers and tasks as before.
_READING = ("Check", "Dump", "GateHookCommand", "Get", "List", "ModuleCommand", "Pause")


class ControlService(WorkerCalls, TrafficClassCalls, PortCalls, ModuleCalls, HookCalls, MiscCalls):
    """Runs calls one at a time and turns failures into error fields.

    ``observer``, if given, is told the name, error code and duration of each
    finished call. ``lock`` keeps other callers out, and ``generation`` grows with
    each call that may change what there is; no two services have the same.
    """

    def __init__(
        self,
        engine: EngineApi,
        shutdown: Callable[[], None] | None = None,
        observer: Observer | None = None,
    ) -> None:
        super().__init__(engine, shutdown)
        self._observer = observer
        self.lock = threading.RLock()
        self.generation = time.time_ns()

    def call(self, method: str, request: Message) -> Any:
        """Run one call and return its response; application errors are in it."""
        descriptor = _proto.SERVICE.methods_by_name[method]
        kind = _proto.message_type(descriptor.output_type.name)
        response: Any = kind()
        start = time.monotonic()
        failure: tuple[int, str] | None = None
        with self.lock:
            if not method.startswith(_READING):
                self.generation += 1
            try:
                getattr(self, method)(request, response)
            except Exception as error:
                failure = _describe(method, error)
        if failure is not None:
            response = kind()
            response.error.code, response.error.errmsg = failure
            log.info("%s failed: errno %d, %s", method, *failure)
        if self._observer is not None:
            self._observer(method, failure[0] if failure else 0, time.monotonic() - start)
        return response

    def call_packed(self, method: str, request: bytes) -> Any:
        """`call` with what a client has sent; what is no call is an error in the response."""
        descriptor = _proto.SERVICE.methods_by_name.get(method)
        if descriptor is None:
            return _refusal(f"there is no call '{method}'")
        try:
            parsed = _proto.message_type(descriptor.input_type.name).FromString(request)
        except DecodeError:
            return _refusal(f"malformed request of {method}; expected {descriptor.input_type.name}")
        return self.call(method, parsed)

    def handler(self) -> Any:
        """Return what a gRPC server needs to serve these calls."""

        def bind(method: str) -> Callable[[Message, grpc.ServicerContext], Any]:
            return lambda request, context: self.call(method, request)

        methods = {
            name: grpc.unary_unary_rpc_method_handler(
                bind(name),
                request_deserializer=_proto.message_type(descriptor.input_type.name).FromString,
                response_serializer=_proto.message_type(
                    descriptor.output_type.name
                ).SerializeToString,
            )
            for name, descriptor in _proto.SERVICE.methods_by_name.items()
        }
        return grpc.method_handlers_generic_handler(_proto.SERVICE.full_name, methods)


def _refusal(message: str) -> pb.EmptyResponse:
    response = pb.EmptyResponse()
    response.error.code, response.error.errmsg = errno.EINVAL, message
    return response


def _describe(method: str, error: Exception) -> tuple[int, str]:
    """Return the errno and the text that tell a caller about a failure."""
    code = getattr(error, "code", None)
    message = getattr(error, "message", None)
    if isinstance(code, int) and isinstance(message, str):
        # Zero would read as success.
        code = code or errno.EIO
        return code, message or os.strerror(abs(code))
    if isinstance(error, (TypeError, ValueError, OverflowError)):
        log.debug("%s got a bad argument", method, exc_info=error)
        return errno.EINVAL, str(error) or "Invalid argument"
    if isinstance(error, MemoryError):
        return errno.ENOMEM, "Out of memory"
    if isinstance(error, OSError) and error.errno:
        return error.errno, str(error)
    log.error("%s failed unexpectedly", method, exc_info=error)
    return errno.EIO, f"{type(error).__name__}: {error}"

# SPDX-License-Identifier: BSD-3-Clause
"""Connection, errors and conversions behind every group of calls."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message

from bess_plugins import _proto
from bess_plugins._plugin_types import PluginTypeError, learn
from bess_plugins.pb import bess_msg_pb2 as pb

DEFAULT_ADDRESS = "127.0.0.1:10514"
DEFAULT_TIMEOUT = 30.0

Values = Mapping[str, Any]

# Classes that take more than the message named after them holds.
_ARG_TYPES = {"PCAPPort": "PCAPFilePortArg", "TcpDump": "TcpdumpArg", "PcapNg": "PcapngArg"}


class BessError(Exception):
    """A call failed. ``code`` is an errno, ``errmsg`` the daemon's reason."""

    def __init__(self, code: int, errmsg: str, call: str = "", arg: Any = None) -> None:
        super().__init__(code, errmsg, call, arg)
        self.code = code
        self.errmsg = errmsg
        self.call = call
        self.arg = arg

    def __str__(self) -> str:
        name = errno.errorcode.get(self.code, str(self.code))
        where = f"{self.call}: " if self.call else ""
        return f"{where}{self.errmsg} ({name})"


class DaemonUnavailableError(BessError):
    """Nothing serves the address."""

    def __init__(self, address: str, call: str = "") -> None:
        message = f"no daemon at {address}; start one with `e2d start`"
        super().__init__(errno.ECONNREFUSED, message, call)
        self.address = address

    def __str__(self) -> str:
        return self.errmsg


class Connection:
    """Calls of the service at ``host:port`` or ``unix:/path``."""

    def __init__(self, address: str = DEFAULT_ADDRESS, *, timeout: float = DEFAULT_TIMEOUT) -> None:
        self.address = address
        self._timeout = timeout
        self._channel = grpc.insecure_channel(
            address,
            options=(
                ("grpc.enable_http_proxy", 0),
                ("grpc.max_receive_message_length", 64 << 20),
                ("grpc.max_send_message_length", 64 << 20),
            ),
        )

    def close(self) -> None:
        """Drop the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def call(self, method: str, request: Message | None = None) -> Any:
        """Run any call of the service and return its response message."""
        request = pb.EmptyRequest() if request is None else request
        response = self._send(method, request)
        if response.error.code:
            raise BessError(response.error.code, response.error.errmsg, method, request)
        return response

    def _send(self, method: str, request: Message) -> Any:
        descriptor = _proto.SERVICE.methods_by_name[method]
        stub = self._channel.unary_unary(
            f"/{_proto.SERVICE.full_name}/{method}",
            request_serializer=_proto.message_type(descriptor.input_type.name).SerializeToString,
            response_deserializer=_proto.message_type(descriptor.output_type.name).FromString,
        )
        try:
            return stub(request, timeout=self._timeout)
        except grpc.RpcError as error:
            raise self._failed(error, method, request) from None

    def _failed(self, error: grpc.RpcError, method: str, request: Message) -> BessError:
        """What a call raises that got no response."""
        status, details = error.code(), error.details() or ""
        if status == grpc.StatusCode.UNAVAILABLE:
            return DaemonUnavailableError(self.address, method)
        code = errno.ETIMEDOUT if status == grpc.StatusCode.DEADLINE_EXCEEDED else errno.ECOMM
        return BessError(code, f"{status.name}: {details}", method, request)

    def _class_arg(self, call: str, class_name: str, values: Values) -> AnyMessage:
        """Pack the argument of a class, whose type is named after it."""
        kind = _ARG_TYPES.get(class_name, f"{class_name}Arg")
        return self._arg(call, kind if self._knows(kind) else "EmptyArg", values)

    def _knows(self, kind: str) -> bool:
        """Whether there is a message of this name, in a plugin of the daemon if nowhere else.

        What describes a plugin's messages is looked for where the daemon has it.
        """
        if not _proto.is_message(kind):
            with contextlib.suppress(DaemonUnavailableError):  # whatever comes next will say so
                for path in self.call("ListPlugins").paths:
                    self._learn(path)
        return _proto.is_message(kind)

    @staticmethod
    def _learn(plugin: str) -> None:
        try:
            learn(plugin)
        except PluginTypeError as error:
            raise BessError(errno.EINVAL, str(error), "ListPlugins") from None

    def _values(self, packed: AnyMessage) -> dict[str, Any]:
        """What is in a wrapped message."""
        if packed.type_url:
            self._knows(packed.TypeName())
        return _proto.unpack_any(packed)

    def _arg(self, call: str, kind: str, values: Values | Message | None) -> AnyMessage:
        if isinstance(values, Message):
            return _proto.pack(values)
        self._knows(kind)
        return _proto.pack(self._message(call, kind, values or {}))

    @staticmethod
    def _message(call: str, kind: str, values: Values) -> Message:
        try:
            return _proto.from_dict(kind, values)
        except KeyError as error:
            raise BessError(errno.EINVAL, str(error.args[0]), call, dict(values)) from None
        except (TypeError, ValueError, OverflowError) as error:
            raise BessError(errno.EINVAL, str(error), call, dict(values)) from None


def without_error(message: Message) -> dict[str, Any]:
    values = _proto.to_dict(message)
    values.pop("error", None)
    return values

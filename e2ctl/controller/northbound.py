# SPDX-License-Identifier: BSD-3-Clause
"""The operations of a controller over gRPC: what it serves, and how a command asks for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc

from bess_plugins.pb import e2_controller_pb2 as pb
from bess_plugins.sources import SourceError
from e2ctl.controller.agents import AgentError
from e2ctl.controller.apply import ApplyError
from e2ctl.controller.notices import Notice, Notices
from e2ctl.controller.operations import Operations, Progress
from e2ctl.controller.store import StoreError
from e2ctl.controller.switches import SwitchError
from e2ctl.pki import CONTROLLER, OPERATOR
from e2ctl.placement import PlacementError
from e2ctl.routing import PlanError
from e2ctl.tls import Identity, channel_credentials, is_local, server_credentials, somebody_listens
from e2ctl.transitions import TransitionError

__all__ = ["ControllerError", "RemoteOperations", "remote", "serve", "to_notice"]

_SERVICE = pb.DESCRIPTOR.services_by_name["Controller"].full_name
_GRACE_S = 1.0
_STATUS_S = 5.0
_STEP_S = 0.05
_REFUSALS = (
    AgentError,
    ApplyError,
    PlacementError,
    PlanError,
    SourceError,
    StoreError,
    SwitchError,
    TransitionError,
)


class ControllerError(Exception):
    """The controller can't be reached, refused something, or can't serve; the message says why."""


@asynccontextmanager
async def serve(
    address: str,
    operations: Operations,
    notices: Notices,
    identity: Identity | None = None,
) -> AsyncIterator[None]:
    """Answer at an address until the end; beyond this machine, only to operators with keys."""
    if identity is None and not is_local(address):
        raise ControllerError(
            f"{address} is not on this machine, where keys and certificates are needed; "
            "make them with `e2ctl pki`, or listen on 127.0.0.1 or unix:PATH"
        )
    # gRPC would take a socket away from who listens there.
    if address.startswith("unix:") and somebody_listens(address):
        raise ControllerError(f"another controller listens on {address}; give this one --listen")
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    server.add_generic_rpc_handlers((_handlers(operations, notices),))
    try:
        if identity is None:
            bound = server.add_insecure_port(address)
        else:
            bound = server.add_secure_port(address, server_credentials(identity))
    except RuntimeError:
        bound = 0
    if bound == 0:
        raise ControllerError(f"cannot listen on {address}; another controller may be there")
    await server.start()
    try:
        yield
    finally:
        await server.stop(_GRACE_S)


async def _check_peer(context: grpc.aio.ServicerContext[Any, Any]) -> None:
    """Agents have keys of the same authority, but nothing to say here."""
    for name in context.auth_context().get("x509_common_name", ()):
        if name.decode() not in (CONTROLLER, OPERATOR):
            await context.abort(
                grpc.StatusCode.PERMISSION_DENIED,
                f"{name.decode()} may not ask this; expected a certificate of {OPERATOR}",
            )


def _handlers(operations: Operations, notices: Notices) -> grpc.GenericRpcHandler:
    def unary(work: Callable[[Any], Awaitable[Any]], request_type: Any) -> Any:
        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            await _check_peer(context)
            try:
                return await work(request)
            except _REFUSALS as error:
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))

        return grpc.unary_unary_rpc_method_handler(
            call, request_type.FromString, lambda reply: reply.SerializeToString()
        )

    async def apply(
        request: pb.PolicyRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.ApplyProgress]:
        await _check_peer(context)
        steps = asyncio.Queue[str]()
        # It goes on to its end, whether or not the caller waits for that.
        work = asyncio.create_task(operations.apply(request, steps.put_nowait))
        while not work.done() or not steps.empty():
            with suppress(TimeoutError):
                yield pb.ApplyProgress(step=await asyncio.wait_for(steps.get(), _STEP_S))
        try:
            yield pb.ApplyProgress(done=work.result())
        except _REFUSALS as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))

    async def watch(
        request: pb.ClusterWatchRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.ClusterNotice]:
        await _check_peer(context)
        with notices.heard() as heard:
            await context.send_initial_metadata(())
            while True:
                notice = await heard.get()
                yield pb.ClusterNotice(
                    time_s=notice.time_s,
                    server=notice.server,
                    subject=notice.subject,
                    kind=notice.kind,
                    values=notice.values,
                    text=notice.text,
                )

    def stream(work: Any, request_type: Any) -> Any:
        return grpc.unary_stream_rpc_method_handler(
            work, request_type.FromString, lambda reply: reply.SerializeToString()
        )

    return grpc.method_handlers_generic_handler(
        _SERVICE,
        {
            "GetStatus": unary(lambda _: operations.status(), pb.StatusRequest),
            "MakePlan": unary(operations.make_plan, pb.PolicyRequest),
            "Apply": stream(apply, pb.PolicyRequest),
            "Split": unary(operations.split, pb.ChangeRequest),
            "Drain": unary(operations.drain, pb.ChangeRequest),
            "Settle": unary(operations.settle, pb.ChangeRequest),
            "Watch": stream(watch, pb.ClusterWatchRequest),
        },
    )


class RemoteOperations:
    """Carried out by a controller at an address."""

    def __init__(self, address: str, channel: grpc.aio.Channel) -> None:
        self._address = address
        self._channel = channel

    async def status(self) -> pb.ClusterStatus:
        """How the cluster does."""
        status: pb.ClusterStatus = await self._call(
            "GetStatus", pb.StatusRequest(), pb.ClusterStatus, _STATUS_S
        )
        return status

    async def make_plan(self, request: pb.PolicyRequest) -> pb.PlanReply:
        """What `apply` would do."""
        reply: pb.PlanReply = await self._call("MakePlan", request, pb.PlanReply)
        return reply

    async def apply(self, request: pb.PolicyRequest, progress: Progress) -> pb.Applied:
        """Make the cluster do what a policy says."""
        async for update in self._stream("Apply", request, pb.ApplyProgress):
            if update.HasField("done"):
                done: pb.Applied = update.done
                return done
            progress(update.step)
        raise ControllerError(f"the controller at {self._address} went away in the middle")

    async def split(self, request: pb.ChangeRequest) -> pb.ChangeReply:
        """Divide an instance."""
        return await self._change("Split", request)

    async def drain(self, request: pb.ChangeRequest) -> pb.ChangeReply:
        """Take an instance out of service."""
        return await self._change("Drain", request)

    async def settle(self, request: pb.ChangeRequest) -> pb.ChangeReply:
        """Wait for the end of a change."""
        return await self._change("Settle", request)

    async def watch(self) -> AsyncIterator[Notice]:
        """All that happens, until the controller goes away."""
        async for notice in self._stream("Watch", pb.ClusterWatchRequest(), pb.ClusterNotice):
            yield to_notice(notice)

    async def _change(self, name: str, request: pb.ChangeRequest) -> pb.ChangeReply:
        reply: pb.ChangeReply = await self._call(name, request, pb.ChangeReply)
        return reply

    async def _call(
        self, name: str, request: Any, reply: Any, timeout_s: float | None = None
    ) -> Any:
        method: Any = self._channel.unary_unary(
            f"/{_SERVICE}/{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=reply.FromString,
        )
        return await self._understood(method(request, timeout=timeout_s))

    async def _stream(self, name: str, request: Any, reply: Any) -> AsyncIterator[Any]:
        method: Any = self._channel.unary_stream(
            f"/{_SERVICE}/{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=reply.FromString,
        )
        try:
            async for message in method(request):
                yield message
        except grpc.aio.AioRpcError as error:
            raise self._failed(error) from None

    async def _understood(self, call: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise self._failed(error) from None

    def _failed(self, error: grpc.aio.AioRpcError) -> ControllerError:
        if error.code() in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.PERMISSION_DENIED):
            return ControllerError(error.details() or "refused")
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            return ControllerError(
                f"there is no controller at {self._address}; start one with `e2ctl controller`"
            )
        return ControllerError(f"controller: {error.code().name}: {error.details()}")


def to_notice(notice: pb.ClusterNotice) -> Notice:
    """A notice as it was told."""
    return Notice(
        notice.kind,
        notice.server,
        notice.subject,
        dict(notice.values),
        notice.text,
        notice.time_s,
    )


@asynccontextmanager
async def remote(address: str, identity: Identity | None = None) -> AsyncIterator[RemoteOperations]:
    """A connection to a controller."""
    options = (("grpc.enable_http_proxy", 0),)
    if identity is not None:
        channel = grpc.aio.secure_channel(address, channel_credentials(identity), options=options)
    elif is_local(address):
        channel = grpc.aio.insecure_channel(address, options=options)
    else:
        raise ControllerError(f"{address} is on another machine; give --pki DIR with keys")
    async with channel:
        yield RemoteOperations(address, channel)

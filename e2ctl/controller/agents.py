# SPDX-License-Identifier: BSD-3-Clause
"""The agents as the controller sees them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from typing import Any, Self, TypeVar

import grpc

from bess_plugins.pb import e2_agent_pb2 as pb
from bess_plugins.version import version
from e2ctl.hardware import Hardware
from e2ctl.server_plan import ServerPlan, digest, dump_plan
from e2ctl.tls import Identity, channel_credentials, is_local

__all__ = ["Agent", "AgentError", "Agents", "module_command", "runs"]


_SERVICE = pb.DESCRIPTOR.services_by_name["Agent"].full_name
_CALL_S = 30.0
_STATE_S = 1.0
_ALIVE_MS = 1000
T = TypeVar("T")


class AgentError(Exception):
    """An agent can't be reached, or refused something; the message names it and says why."""

    def __init__(self, server: str, message: str, *, unreachable: bool = False) -> None:
        super().__init__(f"agent of {server}: {message}")
        self.server = server
        self.unreachable = unreachable

    @classmethod
    def together(cls, errors: Sequence[AgentError]) -> AgentError:
        """Several as one."""
        if len(errors) == 1:
            return errors[0]
        error = cls(errors[0].server, "", unreachable=all(one.unreachable for one in errors))
        error.args = ("; ".join(map(str, errors)),)
        return error


def runs(state: pb.AgentState, plan: ServerPlan) -> bool:
    """Whether an agent says that its daemon runs a plan."""
    return state.in_step and state.plan == digest(plan)


def module_command(
    module: str, command: str, arg_type: str, arg: Mapping[str, Any] | None = None
) -> pb.AgentCommand:
    """A command of a module, for `Agent.step`; `Agent.command` runs one at once."""
    return pb.AgentCommand(
        module=module, command=command, arg_type=arg_type, arg=json.dumps(arg or {})
    )


class Agent:
    """One agent."""

    def __init__(self, server: str, address: str, identity: Identity | None) -> None:
        self.server = server
        self.address = address
        options = (
            ("grpc.enable_http_proxy", 0),
            ("grpc.max_reconnect_backoff_ms", 200),
            ("grpc.min_reconnect_backoff_ms", 200),
            # A host that is gone says nothing; its calls end after this.
            ("grpc.keepalive_time_ms", _ALIVE_MS),
            ("grpc.keepalive_timeout_ms", _ALIVE_MS),
            ("grpc.keepalive_permit_without_calls", 1),
        )
        if is_local(address) and identity is None:
            self._channel = grpc.aio.insecure_channel(address, options=options)
        elif identity is None:
            raise AgentError(server, f"{address} is on another machine; give --pki DIR with keys")
        else:
            credentials = channel_credentials(identity)
            self._channel = grpc.aio.secure_channel(address, credentials, options=options)

    async def close(self) -> None:
        """Drop the connection."""
        await self._channel.close()

    async def state(self) -> pb.AgentState:
        """How it does; an `AgentError` where it doesn't say within a second."""
        state: pb.AgentState = await self._call(
            "GetState", pb.AgentStateRequest(), pb.AgentState, _STATE_S
        )
        return state

    async def has(self, plan: ServerPlan) -> bool:
        """Whether its daemon runs what a plan says."""
        return runs(await self.state(), plan)

    async def step(
        self, name: str, plan: ServerPlan, commands: Sequence[pb.AgentCommand] = ()
    ) -> float:
        """``Prepare``, ``Commit`` or ``Finish`` a plan; seconds that it took.

        Commands are run where a commit begins.
        """
        request = pb.ServerPlanRequest(version=version(), plan=dump_plan(plan), commands=commands)
        done = await self._call(name, request, pb.AgentDone, _CALL_S)
        return float(done.seconds)

    async def command(
        self, module: str, command: str, arg_type: str, arg: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run a command of a module of the daemon."""
        request = module_command(module, command, arg_type, arg)
        result = await self._call("Command", request, pb.AgentCommandResult, _CALL_S)
        values: dict[str, Any] = json.loads(result.values)
        return values

    async def counters(self) -> pb.AgentCounters:
        """All that its daemon counts; an `AgentError` where it doesn't say within a second."""
        counters: pb.AgentCounters = await self._call(
            "GetCounters", pb.AgentCountersRequest(), pb.AgentCounters, _STATE_S
        )
        return counters

    async def watch(self) -> AsyncIterator[pb.AgentNotice]:
        """What happens there, until the agent goes away."""
        async for notice in self._stream("Watch", pb.AgentWatchRequest(), pb.AgentNotice):
            yield notice

    async def capture(self, request: pb.CaptureRequest) -> AsyncIterator[pb.CaptureRecords]:
        """Packets that cross gates of its daemon; the first answer says that it has begun."""
        async for records in self._stream("Capture", request, pb.CaptureRecords):
            yield records

    async def _stream(self, name: str, request: Any, reply: Any) -> AsyncIterator[Any]:
        method: Any = self._channel.unary_stream(
            f"/{_SERVICE}/{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=reply.FromString,
        )
        call = method(request)
        try:
            async for message in call:
                yield message
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from None
        finally:
            call.cancel()

    async def _call(self, name: str, request: Any, reply: Any, timeout_s: float) -> Any:
        method: Any = self._channel.unary_unary(
            f"/{_SERVICE}/{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=reply.FromString,
        )
        try:
            return await method(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from None

    def _error(self, error: grpc.aio.AioRpcError) -> AgentError:
        if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
            return AgentError(self.server, error.details() or "refused")
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            why = "does not answer" if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED else ""
            message = f"{why or 'is not there'} at {self.address}; start it with `e2ctl agent`"
            return AgentError(self.server, message, unreachable=True)
        return AgentError(self.server, f"{error.code().name}: {error.details()}")


class Agents:
    """All agents of a cluster, as a context."""

    def __init__(self, hardware: Hardware, identity: Identity | None = None) -> None:
        self._by_server = {
            name: Agent(name, server.agent, identity) for name, server in hardware.servers.items()
        }

    def __getitem__(self, server: str) -> Agent:
        return self._by_server[server]

    def __iter__(self) -> Iterator[Agent]:
        return iter(self._by_server.values())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(agent.close() for agent in self._by_server.values()))

    async def states(self, but: Collection[str] = ()) -> dict[str, pb.AgentState | AgentError]:
        """How each does, or why it doesn't say; nobody asks those ``but``."""
        return await self._each(Agent.state, but)

    async def counters(self, but: Collection[str] = ()) -> dict[str, pb.AgentCounters | AgentError]:
        """What each daemon counts, or why its agent doesn't say."""
        return await self._each(Agent.counters, but)

    async def _each(
        self, ask: Callable[[Agent], Coroutine[Any, Any, T]], but: Collection[str]
    ) -> dict[str, T | AgentError]:
        """What each answers, or why it doesn't."""
        asked = [agent for agent in self if agent.server not in but]
        found = await asyncio.gather(*map(ask, asked), return_exceptions=True)
        answers: dict[str, T | AgentError] = {}
        for agent, answer in zip(asked, found, strict=True):
            if isinstance(answer, BaseException) and not isinstance(answer, AgentError):
                raise answer
            answers[agent.server] = answer
        return answers

    async def step(
        self,
        name: str,
        plans: Mapping[str, ServerPlan],
        commands: Mapping[str, Sequence[pb.AgentCommand]] | None = None,
    ) -> dict[str, float]:
        """One step on all servers at once; waits for all, then raises what failed."""
        servers = list(plans)
        told = commands or {}
        done = await asyncio.gather(
            *(self[server].step(name, plans[server], told.get(server, ())) for server in servers),
            return_exceptions=True,
        )
        failed = [result for result in done if isinstance(result, BaseException)]
        for result in failed:
            if not isinstance(result, AgentError):
                raise result
        if failed:
            raise AgentError.together([one for one in failed if isinstance(one, AgentError)])
        return {
            server: seconds
            for server, seconds in zip(servers, done, strict=True)
            if isinstance(seconds, float)
        }

# SPDX-License-Identifier: BSD-3-Clause
"""The agent's service: does what the controller says, and puts right what breaks on its server."""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from typing import Any

import grpc

from bess_plugins.client import BessError
from bess_plugins.pb import e2_agent_pb2 as pb
from bess_plugins.version import version
from e2ctl import sync
from e2ctl.agent.captures import CaptureError, Captures
from e2ctl.agent.dataplane import Dataplane, DataplaneError
from e2ctl.agent.memory import Memory, Remembered
from e2ctl.agent.programs import ProgramError, Programs
from e2ctl.found import Found, is_done, read
from e2ctl.server_plan import ServerPlan, digest, load_plan
from e2ctl.sync import Command, SyncError
from e2ctl.tls import Identity, is_local, server_credentials

__all__ = ["AgentServer", "AgentServerError"]

log = logging.getLogger(__name__)


_SERVICE = pb.DESCRIPTOR.services_by_name["Agent"].full_name
_WATCH_S = 0.1
_GRACE_S = 1.0
_THREADS = 16
_MOST_NOTICES = 4096
_FAILURES = (CaptureError, SyncError, ProgramError, DataplaneError, BessError, ValueError)


class AgentServerError(Exception):
    """The agent can't serve; the message says why."""


class AgentServer:
    """Serves the controller of a cluster until it is stopped."""

    def __init__(
        self, server: str, dataplane: Dataplane, listen: str, identity: Identity | None = None
    ) -> None:
        self.server = server
        self.address = listen
        self._dataplane = dataplane
        self._programs = Programs(server)
        self._captures = Captures(dataplane)
        self._memory = Memory(dataplane.path)
        self._identity = identity
        self._plan: ServerPlan | None = None
        self._found: Found | None = None  # of the daemon, when a step last ended well
        self._lock = threading.Lock()
        self._watchers: list[queue.Queue[pb.AgentNotice | None]] = []
        self._stopped = threading.Event()
        self._ours = False  # daemon and programs; until it serves, only what it has started
        self._grpc: grpc.Server | None = None
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the daemon, or take over that of an agent that was killed, and begin to serve."""
        if self._identity is None and not is_local(self.address):
            raise AgentServerError(
                f"{self.address} is not on this machine, where keys and certificates are needed; "
                "make them with `e2ctl pki`, or listen on 127.0.0.1 or unix:PATH"
            )
        before = self._memory.open()
        self._plan = before.plan
        self._programs.adopt(before.programs)
        if self._dataplane.start():
            self._ours = True
            self._programs.close()  # their devices went with the daemon
        with self._lock:
            try:
                self._captures.sweep()
                self._take_over()
            except _FAILURES as error:
                log.error("the plan from before can't be had again: %s", error)
        self._grpc = self._serve()
        self._ours = True
        for work in (self._mind, self._listen):
            thread = threading.Thread(target=work, name=work.__name__, daemon=True)
            thread.start()
            self._threads.append(thread)
        log.info("agent of %s listens on %s", self.server, self.address)

    def _serve(self) -> grpc.Server:
        pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="agent-rpc")
        options = (
            ("grpc.so_reuseport", 0),
            # Controllers ask often whether this host is still there.
            ("grpc.http2.min_ping_interval_without_data_ms", 500),
            ("grpc.http2.max_ping_strikes", 0),
            ("grpc.keepalive_permit_without_calls", 1),
        )
        server = grpc.server(pool, options=options)
        server.add_generic_rpc_handlers((self._handlers(),))
        try:
            if self._identity is None:
                bound = server.add_insecure_port(self.address)
            else:
                bound = server.add_secure_port(self.address, server_credentials(self._identity))
        except RuntimeError:
            bound = 0
        if bound == 0:
            raise AgentServerError(f"cannot listen on {self.address}; another agent may be there")
        server.start()
        return server

    def _take_over(self) -> None:
        """Have what an agent had that was killed, maybe in the middle of a step.

        The step has failed for the controller, which leads all back, too.
        """
        if self._plan is None:
            return
        self._prepare(self._plan)
        self._commit(self._plan)  # ranges and entries may be those of the step
        self._dataplane.client.resume()
        self._remember()

    def stop(self) -> None:
        """End everything; a start that fails leaves what an agent before has left."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        self._captures.stop()
        for watcher in list(self._watchers):
            watcher.put(None)
        if self._grpc is not None:
            self._grpc.stop(_GRACE_S).wait()
        with self._lock:
            if self._ours:
                self._programs.close()
                self._dataplane.close()
            self._memory.close(forget=self._ours)

    @property
    def watchers(self) -> int:
        """How many are told what happens."""
        return len(self._watchers)

    @property
    def plan(self) -> ServerPlan | None:
        """The committed plan."""
        return self._plan

    @property
    def restarts(self) -> int:
        """How often the daemon was started again."""
        return self._dataplane.restarts

    # What the controller asks.

    def get_state(self, request: pb.AgentStateRequest) -> pb.AgentState:
        # Without the lock: the answer must not wait for a change that is under way.
        state = pb.AgentState(version=version(), restarts=self._dataplane.restarts)
        plan = self._plan
        with suppress(BessError):
            found = read(self._dataplane.client, self._found)
            state.daemon = self._dataplane.version
            state.daemon_runs = True
            if plan is not None:
                state.plan = digest(plan)
                state.in_step = is_done(found, plan) and not self._programs.missing(plan)
        return state

    def get_counters(self, request: pb.AgentCountersRequest) -> pb.AgentCounters:
        plan = self._plan
        return pb.AgentCounters(
            daemon=self._dataplane.client.counters(),
            plan="" if plan is None else digest(plan),
            restarts=self.restarts,
        )

    def prepare(self, request: pb.ServerPlanRequest) -> pb.AgentDone:
        plan = self._read(request)
        return self._timed(lambda: self._prepare(plan))

    def _prepare(self, plan: ServerPlan) -> None:
        if not self._has(plan):
            self._found = sync.prepare(self._dataplane.client, plan, self._found)
        else:
            for instance in self._programs.missing(plan):
                self._renew_devices(instance, plan)
        self._programs.start(plan)

    def _has(self, plan: ServerPlan) -> bool:
        """Whether there is nothing to do."""
        if self._plan != plan:
            return False
        self._found = read(self._dataplane.client, self._found)
        return is_done(self._found, plan)

    def commit(self, request: pb.ServerPlanRequest) -> pb.AgentDone:
        plan = self._read(request)
        commands = [
            Command(one.module, one.command, one.arg_type, json.loads(one.arg or "{}"))
            for one in request.commands
        ]

        def work() -> None:
            if commands or not self._has(plan):
                self._commit(plan, commands)
            self._plan = plan

        return self._timed(work)

    def _commit(self, plan: ServerPlan, commands: Sequence[Command] = ()) -> None:
        # Where it fails, nobody knows which ranges and entries the daemon has.
        known, self._found = self._found, None
        self._found = sync.commit(self._dataplane.client, plan, known, commands)

    def finish(self, request: pb.ServerPlanRequest) -> pb.AgentDone:
        plan = self._read(request)

        def work() -> None:
            self._programs.keep(plan)
            self._found = sync.finish(self._dataplane.client, plan, self._found)

        return self._timed(work)

    def command(self, request: pb.AgentCommand) -> pb.AgentCommandResult:
        arg = json.loads(request.arg or "{}")
        reads = request.command.startswith("get_")
        # Who only asks need not wait for a change that is under way.
        with nullcontext() if reads else self._lock:
            if self._found is not None and not reads:
                self._found = self._found.without(request.module)
            values = self._dataplane.client.run_module_command(
                request.module, request.command, request.arg_type, arg
            )
        return pb.AgentCommandResult(values=json.dumps(values))

    def watch(
        self, request: pb.AgentWatchRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.AgentNotice]:
        notices: queue.Queue[pb.AgentNotice | None] = queue.Queue(_MOST_NOTICES)
        self._watchers.append(notices)
        try:
            context.send_initial_metadata(())
            while context.is_active() and not self._stopped.is_set():
                with suppress(queue.Empty):
                    notice = notices.get(timeout=_WATCH_S)
                    if notice is not None:
                        yield notice
        finally:
            self._watchers.remove(notices)

    def _read(self, request: pb.ServerPlanRequest) -> ServerPlan:
        if request.version != version():
            raise ValueError(
                f"the controller is of version {request.version}, this agent of {version()}; "
                "install one version everywhere"
            )
        plan = load_plan(request.plan)
        if plan.server != self.server:
            raise ValueError(f"the plan is for {plan.server}, and this is {self.server}")
        return plan

    def _timed(self, work: Callable[[], None]) -> pb.AgentDone:
        start = time.monotonic()
        with self._lock:
            try:
                work()
            finally:
                self._remember()
        return pb.AgentDone(seconds=time.monotonic() - start)

    def _remember(self) -> None:
        self._memory.keep(Remembered(self._plan, self._programs.records()))

    # What goes on by itself.

    def _mind(self) -> None:
        """Notice within `_WATCH_S` what has died, and have it again."""
        while not self._stopped.wait(_WATCH_S):
            with self._lock:
                if self._stopped.is_set():
                    return
                if not self._dataplane.answers():
                    self._tell("", "daemon down")
                    try:
                        self._restore()
                        self._tell("", "daemon up")
                    except _FAILURES as error:
                        log.error("no daemon yet: %s", error)
                self._mind_programs()
                self._remember()

    def _restore(self) -> None:
        self._programs.close()  # their devices went with the daemon
        self._dataplane.restart()
        if self._plan is not None:
            self._prepare(self._plan)

    def _mind_programs(self) -> None:
        for instance in self._programs.ended():
            self._tell(instance, "nf down")
            log.error("the program of %s has ended; starting it again", instance)
            self._programs.forget(instance)
            if self._plan is not None:
                try:
                    self._renew_devices(instance, self._plan)
                    self._programs.start(self._plan)
                except _FAILURES as error:
                    log.error("%s does not start: %s", instance, error)

    def _renew_devices(self, instance: str, plan: ServerPlan) -> None:
        """Devices went with the namespace: make them and what uses them again."""
        client = self._dataplane.client
        ports = {d.name for d in plan.devices if d.name.startswith(f"{instance}:")}
        client.pause()
        try:
            for module in plan.modules:
                if module.args.get("port") in ports:
                    client.destroy_module(module.name)
            for port in ports:
                client.destroy_port(port)
        finally:
            client.resume()
        self._found = sync.prepare(client, plan, self._found)

    def _listen(self) -> None:
        """Pass on what modules tell, from each daemon in turn."""
        while not self._stopped.is_set():
            with suppress(BessError), self._dataplane.client.events() as events:
                for event in events:
                    # Of `load:ids.0` or, where an NF reports itself, of `ids.0~1f00ba12`.
                    subject = event["module"].partition("~")[0].split(":")[-1]
                    values = {name: int(value) for name, value in event["values"].items()}
                    self._tell(subject, event["kind"], values)
            self._stopped.wait(_WATCH_S)

    def _tell(self, subject: str, kind: str, values: dict[str, int] | None = None) -> None:
        log.info("%s: %s %s", subject or self.server, kind, values or "")
        notice = pb.AgentNotice(subject=subject, kind=kind, values=values or {})
        for watcher in list(self._watchers):
            with suppress(queue.Full):
                watcher.put_nowait(notice)

    def _handlers(self) -> grpc.GenericRpcHandler:
        def unary(method: Callable[[Any], Any], request: Any) -> Any:
            def call(message: Any, context: grpc.ServicerContext) -> Any:
                try:
                    return method(message)
                except _FAILURES as error:
                    context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))

            return grpc.unary_unary_rpc_method_handler(
                call, request.FromString, lambda reply: reply.SerializeToString()
            )

        def capture(message: pb.CaptureRequest, context: grpc.ServicerContext) -> Iterator[Any]:
            try:
                yield from self._captures.capture(message, context)
            except _FAILURES as error:
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))

        watch = grpc.unary_stream_rpc_method_handler(
            self.watch, pb.AgentWatchRequest.FromString, pb.AgentNotice.SerializeToString
        )
        return grpc.method_handlers_generic_handler(
            _SERVICE,
            {
                "GetState": unary(self.get_state, pb.AgentStateRequest),
                "Prepare": unary(self.prepare, pb.ServerPlanRequest),
                "Commit": unary(self.commit, pb.ServerPlanRequest),
                "Finish": unary(self.finish, pb.ServerPlanRequest),
                "Command": unary(self.command, pb.AgentCommand),
                "Watch": watch,
                "GetCounters": unary(self.get_counters, pb.AgentCountersRequest),
                "Capture": grpc.unary_stream_rpc_method_handler(
                    capture, pb.CaptureRequest.FromString, pb.CaptureRecords.SerializeToString
                ),
            },
        )

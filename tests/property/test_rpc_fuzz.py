# SPDX-License-Identifier: BSD-3-Clause
"""Nonsense over gRPC gets an error that says something, and the daemon lives on.

Requests are arbitrary messages of each call's type. Sequences mix them with calls that build a
graph, so that nonsense meets modules that exist, run and hold packets. `make sanitize` runs this
file against an engine under AddressSanitizer and UndefinedBehaviorSanitizer.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bess_plugins import _proto
from bess_plugins.daemon.server import Server, make_engine
from bess_plugins.pb import bess_msg_pb2 as pb
from harness import new_engine
from message_strategies import Shape, messages, packed

CORE = min(os.sched_getaffinity(0))
SECONDS = 20.0  # for one call; a daemon that needs more hangs
# KillBess does what it should: tests/integration/test_daemon.py.
METHODS = sorted(set(_proto.SERVICE.methods_by_name) - {"KillBess"})
SETTINGS = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)

Classes = dict[str, dict[str, Any]]
Call = tuple[str, Message]
Send = Callable[[str, Message | bytes], Any]


def classes_of_engine() -> tuple[Classes, Classes, Classes]:
    engine = new_engine()
    return engine.module_classes(), engine.port_drivers(), engine.hook_classes()


MODULES, DRIVERS, HOOKS = classes_of_engine()


def argument(name: str | None) -> Descriptor:
    return _proto.message_type(name or "EmptyArg").DESCRIPTOR


def arguments() -> tuple[Descriptor, ...]:
    """What wrappers may hold: arguments of every class and command, and a few other messages."""
    tables = (MODULES, DRIVERS, HOOKS)
    names = {info["arg_type"] for table in tables for info in table.values()}
    names |= {command["arg_type"] for info in MODULES.values() for command in info["commands"]}
    names |= {"TrafficClass", "VersionResponse"}
    return tuple(argument(name) for name in sorted(name or "" for name in names))


NAMES = st.sampled_from(["a", "b", "c", "d"])
TCS = st.sampled_from(["t", "u", "v", "!leaf_a:0", "!leaf_b:0"])
ATTRIBUTES = st.sampled_from(["x", "y", "ids.safe", "ether_dst"])
WORDS = {
    "name": st.one_of(NAMES, TCS, ATTRIBUTES),
    "m1": NAMES, "m2": NAMES, "module_name": NAMES, "leaf_module_name": NAMES, "port": NAMES,
    "parent": TCS, "attr_name": ATTRIBUTES, "attribute": ATTRIBUTES,
    "wid": st.sampled_from([-1, 0, 1]), "qid": st.sampled_from([0, 1]),
    "mclass": st.sampled_from(sorted(MODULES)), "driver": st.sampled_from(sorted(DRIVERS)),
    "driver_name": st.sampled_from(sorted(DRIVERS)), "class_name": st.sampled_from(sorted(HOOKS)),
    "cmd": st.sampled_from(sorted({c["name"] for m in MODULES.values() for c in m["commands"]})),
    "policy": st.sampled_from(["priority", "weighted_fair", "round_robin", "rate_limit", "leaf"]),
    "resource": st.sampled_from(["count", "cycle", "packet", "bit"]),
    "key": st.sampled_from(["count", "cycle", "packet", "bit", "x"]),
    "mode": st.sampled_from(["l2", "l3", "l4", "packet", "batch"]),
    "dev": st.sampled_from(["in.pcap", "./pipe"]),
    "write_path": st.sampled_from(["out.pcap", "./pipe"]),
    "path": st.sampled_from(["path", "./pipe", "./in.pcap"]),
    "prefix": st.sampled_from(["10.0.0.0", "0.0.0.0"]),
    "field": st.sampled_from(["ip.src", "ip.dst", "l4.dport", "eth.type", "meta.x", "vlan.id"]),
    "offset": st.integers(0, 60), "num_bytes": st.integers(1, 8), "size": st.integers(1, 8),
    "gate": st.integers(0, 4), "queue": NAMES,
}  # fmt: skip
SHAPE = Shape(
    known=WORDS,
    only={
        # Other cores and interfaces belong to other processes.
        "core": st.sampled_from([CORE, -1, 1 << 20, -(1 << 63), (1 << 63) - 1]),
        "ifname": st.sampled_from(["", "nosuch0", "e2fuzz0", "a" * 16, "a/b", "%d\0"]),
    },
    wrapped=arguments(),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A daemon whose relative paths lead into a folder of its own."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("fuzz"))
    os.mkfifo("pipe")  # whoever opens it waits for another who does
    Path("in.pcap").write_bytes(
        bytes.fromhex("d4c3b2a1020004000000000000000000ffff000001000000")
        + bytes.fromhex("0000000000000000400000004000000000")
        + bytes(63)
    )
    try:
        with Server(make_engine(4096), port=0) as running:
            yield running
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def send(server: Server) -> Iterator[Send]:
    """Sends a call and checks that its outcome is fit for a caller."""
    unexpected: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            unexpected.append(self.format(record))

    collect = Collect(logging.ERROR)
    log = logging.getLogger("bess_plugins.daemon")
    log.addHandler(collect)
    with grpc.insecure_channel(server.address, [("grpc.enable_http_proxy", 0)]) as channel:
        prefix = f"/{_proto.SERVICE.full_name}"

        def call(method: str, request: Message | bytes) -> Any:
            output = _proto.SERVICE.methods_by_name[method].output_type.name
            stub = channel.unary_unary(
                f"{prefix}/{method}", response_deserializer=_proto.message_type(output).FromString
            )
            body = request if isinstance(request, bytes) else request.SerializeToString()
            response, failure = None, None
            try:
                response = stub(body, timeout=SECONDS)
            except grpc.RpcError as error:
                failure = error
            # Only what is no message of the call's type fails on gRPC's own level.
            if failure is not None:
                assert isinstance(request, bytes), f"{method} {request}: {failure}"
                assert failure.code() == grpc.StatusCode.INTERNAL, failure
            assert not unexpected, f"{method} {request!r}: {unexpected.pop()}"
            assert response is None or bool(response.error.code) == bool(response.error.errmsg)
            return response

        yield call
    log.removeHandler(collect)


def reset(send: Send) -> None:
    """Take everything down, and find no packet lost."""
    assert send("ResetAll", pb.EmptyRequest()).error.code == 0
    assert not send("ListModules", pb.EmptyRequest()).modules
    assert send("DumpMempool", pb.DumpMempoolRequest()).dumps[0].mp_in_use_count == 0


def check_alive(send: Send) -> None:
    assert send("GetVersion", pb.EmptyRequest()).version


def requests(method: str) -> st.SearchStrategy[Message]:
    return messages(_proto.SERVICE.methods_by_name[method].input_type, SHAPE)


def any_call(methods: Sequence[str]) -> st.SearchStrategy[Call]:
    return st.sampled_from(methods).flatmap(lambda name: st.tuples(st.just(name), requests(name)))


def wrapper(name: str | None) -> st.SearchStrategy[AnyMessage]:
    """Mostly a message of that type."""
    return packed(SHAPE.wrapping(argument(name)))


@st.composite
def new_module(draw: st.DrawFn, cast: Mapping[str, str], name: str) -> Call:
    """A module with an argument of its class; the default one often, since it mostly works."""
    request = pb.CreateModuleRequest(name=name, mclass=cast[name])
    if draw(st.booleans()):
        request.arg.CopyFrom(draw(wrapper(MODULES[cast[name]]["arg_type"])))
    return "CreateModule", request


@st.composite
def commands(draw: st.DrawFn, cast: Mapping[str, str]) -> Call:
    """A command of a module's class with an argument of its type."""
    name = draw(NAMES)
    command = draw(st.sampled_from(MODULES[cast[name]]["commands"]))
    arg = draw(wrapper(command["arg_type"]))
    return "ModuleCommand", pb.CommandRequest(name=name, cmd=command["name"], arg=arg)


@st.composite
def new_ports(draw: st.DrawFn) -> Call:
    driver = draw(st.sampled_from(sorted(DRIVERS)))
    queues = draw(st.sampled_from([0, 1, 2, 128, 129]))
    arg = draw(wrapper(DRIVERS[driver]["arg_type"]))
    return "CreatePort", pb.CreatePortRequest(
        name=draw(NAMES), driver=driver, num_inc_q=queues, num_out_q=queues, arg=arg
    )


@st.composite
def hooks(draw: st.DrawFn) -> Call:
    name = draw(st.sampled_from(sorted(HOOKS)))
    arg = draw(wrapper(HOOKS[name]["arg_type"]))
    hook = pb.GateHookInfo(class_name=name, module_name=draw(NAMES), arg=arg)
    setattr(hook, draw(st.sampled_from(["igate", "ogate"])), draw(st.integers(-1, 1)))
    return "ConfigureGateHook", pb.ConfigureGateHookRequest(hook=hook, enable=draw(st.booleans()))


CONNECTIONS = st.builds(
    lambda m1, m2, ogate, igate: (
        "ConnectModules", pb.ConnectModulesRequest(m1=m1, m2=m2, ogate=ogate, igate=igate)
    ),
    NAMES, NAMES, st.integers(0, 2), st.sampled_from([0, 0, 0, 1]),
)  # fmt: skip
WORKERS = st.integers(0, 1).map(lambda wid: ("AddWorker", pb.AddWorkerRequest(wid=wid, core=CORE)))
PAUSES = st.sampled_from(["PauseAll", "ResumeAll", "ResumeAll"]).map(
    lambda method: (method, pb.EmptyRequest())
)
SCHEDULING = ("AddTc", "UpdateTcParent", "UpdateTcParams", "GetTcStats")


@st.composite
def sequences(draw: st.DrawFn) -> list[Call]:
    """A chain of modules that runs, if its parts came to be; then calls of every kind."""
    cast = {name: draw(st.sampled_from(sorted(MODULES))) for name in "bcd"}
    cast["a"] = draw(st.sampled_from(["Source", "Source", "FlowGen", "PortInc", "Queue"]))
    calls = [draw(st.one_of(new_ports(), hooks(), any_call(SCHEDULING), WORKERS))]
    calls += [draw(new_module(cast, name)) for name in cast]
    calls += [("ConnectModules", pb.ConnectModulesRequest(m1=a, m2=b)) for a, b in pairwise("abcd")]
    calls.append(("ResumeAll", pb.EmptyRequest()))
    step = st.one_of(
        commands(cast), commands(cast), commands(cast), CONNECTIONS, hooks(), PAUSES,
        NAMES.flatmap(lambda name: new_module(cast, name)), new_ports(), WORKERS,
        any_call(SCHEDULING), any_call(METHODS),
    )  # fmt: skip
    return calls + [draw(step) for _ in range(draw(st.integers(4, 16)))]


@pytest.mark.parametrize("method", METHODS)
def test_any_request(method: str, send: Send) -> None:
    @settings(SETTINGS, max_examples=15)
    @given(requests(method))
    def check(request: Message) -> None:
        send(method, request)
        check_alive(send)

    check()
    reset(send)


@settings(SETTINGS, max_examples=60)
@given(method=st.sampled_from(METHODS), body=st.binary(max_size=60))
def test_bytes_that_are_no_message(send: Send, method: str, body: bytes) -> None:
    send(method, body)
    check_alive(send)


@settings(SETTINGS, max_examples=100)
@given(calls=sequences())
def test_sequences(send: Send, calls: list[Call]) -> None:
    send("ResetAll", pb.EmptyRequest())  # a failed example leaves things behind
    for method, request in calls:
        send(method, request)  # each shows that the daemon outlived the one before
    check_alive(send)
    reset(send)

# SPDX-License-Identifier: BSD-3-Clause
"""Many calls in one: in order, to the first that fails, and only on the daemon that is known."""

from __future__ import annotations

import errno
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from bess_plugins.client import BatchError, BessError, Client
from bess_plugins.daemon.server import make_engine
from bess_plugins.daemon.service import ControlService
from bess_plugins.pb import bess_msg_pb2
from daemon_support import CORE


def names(client: Client) -> set[str]:
    return {module["name"] for module in client.list_modules()}


def test_calls_are_carried_out_in_order_and_what_there_is_then_is_told(client: Client) -> None:
    batch = client.batch()
    batch.add_worker(0, CORE)
    batch.create_module("Queue", "queue", size=64)
    batch.create_module("Sink", "sink")
    batch.connect("queue", "sink")
    batch.configure_gate_hook("Track", "queue", gate=0, bits=True)
    batch.run_module_command("queue", "set_size", "QueueCommandSetSizeArg", {"size": 128})
    batch.attach_task("queue", wid=0)
    batch.resume()
    before = client.run().generation
    done = client.run(batch)
    assert len(done.responses) == len(batch.calls) and done.generation > before
    (queue, _) = sorted(done.counters.modules, key=lambda module: module.name)
    (gate,) = queue.ogates
    assert (gate.target, gate.counts_bytes, queue.most_waiting) == ("sink", True, 128)
    assert [(worker.wid, worker.running) for worker in done.counters.workers] == [(0, True)]
    client.configure_gate_hook("Track", "queue", gate=0, bits=False)
    assert not client.counters().modules[0].ogates[0].counts_bytes


def test_the_first_that_fails_is_the_last(client: Client) -> None:
    batch = client.batch()
    batch.create_module("Bypass", "first")
    batch.create_module("Nothing", "second")
    batch.create_module("Bypass", "third")
    with pytest.raises(BatchError, match="CreateModule: No mclass 'Nothing' found") as caught:
        client.run(batch)
    assert (caught.value.index, caught.value.code) == (1, errno.ENOENT)
    assert names(client) == {"first"}


def test_nothing_is_done_on_a_daemon_that_has_changed(client: Client) -> None:
    known = client.run().generation
    client.list_modules()
    client.pause()
    same = client.run(generation=known)
    assert not same.stale and not same.HasField("counters") and same.generation == known
    client.create_module("Bypass", "somebodys")
    batch = client.batch()
    batch.create_module("Bypass", "ours")
    refused = client.run(batch, known)
    assert refused.stale and not refused.responses
    assert [module.name for module in refused.counters.modules] == ["somebodys"]
    assert not client.run(batch, refused.generation).stale
    assert names(client) == {"somebodys", "ours"}


def test_nobody_elses_calls_come_in_between(client: Client) -> None:
    batch = client.batch()
    for number in range(100):
        batch.create_module("Bypass", f"part{number}")
    seen, ended = set[int](), threading.Event()

    def look() -> None:
        with Client(client.address) as other:
            while not ended.is_set():
                seen.add(len(names(other)))

    looker = threading.Thread(target=look)
    looker.start()
    try:
        for _ in range(5):
            client.run(batch)
            client.reset_modules()
    finally:
        ended.set()
        looker.join()
    assert seen <= {0, 100}


@pytest.mark.parametrize(
    ("method", "request_bytes", "message"),
    [
        ("MakeCoffee", b"", "there is no call 'MakeCoffee'"),
        ("CreateModule", b"\xff", "malformed request of CreateModule; expected CreateModuleReq"),
    ],
)
def test_what_is_no_call_is_refused(
    client: Client, method: str, request_bytes: bytes, message: str
) -> None:
    response = ControlService(make_engine(1024)).call_packed(method, request_bytes)
    assert response.error.code == errno.EINVAL and message in response.error.errmsg


def test_no_two_daemons_have_the_same_generation() -> None:
    one, other = (ControlService(make_engine(1024)) for _ in range(2))
    assert one.generation != other.generation
    before = one.generation
    one.call("PauseAll", bess_msg_pb2.EmptyRequest())
    assert one.generation == before
    one.call("ResetAll", bess_msg_pb2.EmptyRequest())
    assert one.generation > before


def test_a_daemon_without_batches_is_named() -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((ControlService(make_engine(1024)).handler(),))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        with Client(address) as client, pytest.raises(BessError, match="takes no batches") as found:
            client.run()
        assert found.value.code == errno.ENOSYS and address in str(found.value)
    finally:
        server.stop(None)

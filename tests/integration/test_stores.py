# SPDX-License-Identifier: BSD-3-Clause
"""One controller at a time, whatever dies, with its memory in a file or in a real etcd."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from e2ctl import hardware as hardwares
from e2ctl.controller.store import State, Store, StoreError, open_store
from e2ctl.pki import make_pki
from etcd_support import Etcd, etcds, needs_etcd
from harness import wait_until

# What a real controller does, told by a pipe; it says how it went.
CONTROLLER = """
import asyncio, sys
from e2ctl.controller.store import State, StoreError, open_store

async def main():
    store = open_store(sys.argv[1])
    async with store.lead(None):
        print("leads", flush=True)
        for line in sys.stdin:
            try:
                store.write(State(stage=line.strip()))
                print("written", flush=True)
            except StoreError as error:
                print(error, flush=True)

asyncio.run(main())
"""


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    with etcds(tmp_path) as (one,):
        yield one


@pytest.fixture(params=["file", pytest.param("etcd", marks=needs_etcd)])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "file":
        yield str(tmp_path / "state" / "controller.db")
    else:
        yield address(request.getfixturevalue("etcd"))


def address(*servers: Etcd) -> str:
    return f"etcd://{','.join(one.address for one in servers)}/e2/lab"


@contextmanager
def opened(where: str, count: int = 1) -> Iterator[list[Store]]:
    with ExitStack() as stack:
        made = [open_store(where) for _ in range(count)]
        for one in made:
            stack.callback(one.close)
        yield made


@contextmanager
def controller(where: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-P", "-c", CONTROLLER, where],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str], stage: str) -> str:
    assert process.stdin is not None
    process.stdin.write(f"{stage}\n")
    process.stdin.flush()
    return said(process)


def test_what_is_written_is_read_by_others(where: str) -> None:
    with opened(where, 2) as (one, other):
        assert other.read() == State()
        with one.only_one():
            one.write(State(stage="preparing"))
            assert other.read() == State(stage="preparing")
            one.write(State(stage="committing"))
        assert one.read() == other.read() == State(stage="committing")


def test_the_second_at_once_is_told_who_is_first(where: str) -> None:
    with controller(where) as first, opened(where) as (second,):
        assert said(first) == "leads"
        message = rf"another controller is at work with {where}: \S+, pid {first.pid}$"
        with pytest.raises(StoreError, match=message), second.only_one():
            pass
        assert not second.leads
        assert first.stdin is not None
        first.stdin.close()  # it ends properly
        first.wait(10)
        with second.only_one():
            assert second.leads
        assert not second.leads


def test_a_standby_takes_over_from_a_killed_leader(where: str) -> None:
    async def standby(store: Store, leader: subprocess.Popen[str]) -> float:
        asyncio.get_running_loop().call_later(0.5, leader.kill)
        async with store.lead():
            assert store.leads
            assert store.read() == State(stage="committing")
            store.write(State())
            return time.monotonic()

    with controller(where) as leader, opened(where) as (store,):
        assert said(leader) == "leads"
        assert tell(leader, "committing") == "written"
        start = time.monotonic()
        # Promised are 3 s after the kill; a busy machine gets more.
        assert asyncio.run(standby(store, leader)) - start < 10


def test_a_standby_takes_over_from_a_leader_that_goes(where: str) -> None:
    async def change(first: Store, second: Store) -> None:
        entered, leave = asyncio.Event(), asyncio.Event()

        async def lead() -> None:
            async with first.lead():
                entered.set()
                await leave.wait()

        leader = asyncio.create_task(lead())
        await entered.wait()
        asyncio.get_running_loop().call_later(0.3, leave.set)
        async with second.lead():
            assert second.leads
            assert leave.is_set()
            assert not first.leads
        await leader

    with opened(where, 2) as (first, second):
        asyncio.run(change(first, second))


def test_a_standby_that_is_stopped_does_not_lead(where: str) -> None:
    async def wait(store: Store) -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(0.3, stop.set)
        async with store.lead(stop):
            assert not store.leads

    async def cancelled(store: Store) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3), store.lead():
                pass
        assert not store.leads

    with opened(where, 2) as (first, second), first.only_one():
        asyncio.run(wait(second))
        asyncio.run(cancelled(second))


@needs_etcd
def test_a_leader_that_was_stopped_for_long_cannot_write(etcd: Etcd) -> None:
    where = address(etcd)

    async def follow(store: Store, leader: subprocess.Popen[str]) -> None:
        async with store.lead():
            store.write(State(stage="preparing"))
            leader.send_signal(signal.SIGCONT)
            message = tell(leader, "done")
            assert f"pid {leader.pid} is no longer the controller; that is " in message
            assert f"pid {os.getpid()}" in message
            assert store.read() == State(stage="preparing")
            assert store.leads

    with controller(where) as leader, opened(where) as (store,):
        assert said(leader) == "leads"
        leader.send_signal(signal.SIGSTOP)
        asyncio.run(follow(store, leader))


@needs_etcd
def test_nobody_writes_who_does_not_lead(etcd: Etcd) -> None:
    with (
        opened(address(etcd)) as (store,),
        pytest.raises(StoreError, match="not the one controller"),
    ):
        store.write(State())


@needs_etcd
def test_a_leader_outlives_a_killed_etcd(etcd: Etcd) -> None:
    with opened(address(etcd), 2) as (store, other), store.only_one():
        store.write(State(stage="preparing"))
        etcd.end()
        start = time.monotonic()
        with pytest.raises(StoreError, match=r"127\.0\.0\.1:\d+ can't be reached: Connection ref"):
            store.write(State(stage="committing"))
        assert time.monotonic() - start < 5
        wait_until(lambda: not store.leads)  # for all it knows
        etcd.start()
        wait_until(etcd.serves, 30)
        assert other.read() == State(stage="preparing")
        wait_until(lambda: store.leads)
        store.write(State(stage="committing"))
        assert other.read() == State(stage="committing")


@needs_etcd
def test_one_of_three_may_die_and_two_may_not(tmp_path: Path) -> None:
    with etcds(tmp_path, 3) as servers, opened(address(*servers)) as (store,), store.only_one():
        store.write(State(stage="preparing"))
        servers[0].end()

        def written() -> bool:
            try:
                store.write(State(stage="committing"))
            except StoreError:  # the others elect a leader first
                return False
            return True

        wait_until(written, 20)
        assert store.read() == State(stage="committing")
        servers[1].end()
        with pytest.raises(StoreError, match="does not answer; it may be down, or without most"):
            store.write(State())


@needs_etcd
@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_etcd_behind_tls(tmp_path: Path) -> None:
    hardware = hardwares.loads(
        "servers:\n  s1: {cores: 2, ghz: 1, nic: 1Gbps, agent: '127.0.0.1:1', port: 9, "
        "ip: 10.0.0.1, mac: '02:00:00:00:00:01'}\nswitch: {ports: {a: 1}}\n"
    )
    keys = tmp_path / "keys"
    assert "etcd-127.0.0.1" in make_pki(keys, hardware, ["127.0.0.1"])
    tls = [
        f"--cert-file={keys}/etcd-127.0.0.1.crt",
        f"--key-file={keys}/etcd-127.0.0.1.key",
        f"--trusted-ca-file={keys}/ca.crt",
        "--client-cert-auth",
    ]
    with etcds(tmp_path, tls=tls) as (one,):
        where = f"etcds://{one.address}/e2"
        held = open_store(where, keys)
        with held.only_one():
            held.write(State(stage="preparing"))
        assert held.read() == State(stage="preparing")
        held.close()
        make_pki(tmp_path / "others", hardware)
        with pytest.raises(StoreError, match="certificate verify failed"):
            open_store(where, tmp_path / "others").read()


@needs_etcd
@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("etcd://127.0.0.1/e2", "'etcd://127.0.0.1/e2': expected etcd://HOST:PORT"),
        ("etcd:127.0.0.1:1/e2", "'etcd:127.0.0.1:1/e2': expected etcd://HOST:PORT"),
        ("etcd://127.0.0.1:1", "expected etcd://HOST:PORT[,HOST:PORT...]/PREFIX"),
        ("etcds://127.0.0.1:1/e2", "etcds://127.0.0.1:1/e2 needs keys; give --pki DIR"),
        ("etcd://127.0.0.1:1/e2", "127.0.0.1:1 can't be reached: Connection refused"),
    ],
)
def test_addresses_that_are_none(where: str, message: str) -> None:
    with pytest.raises(StoreError, match=re.escape(message)):
        open_store(where).read()

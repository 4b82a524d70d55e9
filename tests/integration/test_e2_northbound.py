# SPDX-License-Identifier: BSD-3-Clause
"""A controller as a process: what it serves, how commands find it, and who follows it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bess_plugins.pb import e2_controller_pb2 as pb
from cluster_support import EXAMPLES, Cluster, cluster, needs_root
from e2ctl import hardware as hardwares
from e2ctl.controller.northbound import ControllerError, RemoteOperations, remote, serve
from e2ctl.controller.notices import Notices
from e2ctl.pki import make_pki
from e2ctl.tls import load_identity
from etcd_support import etcds
from harness import free_port, wait_until

pytestmark = needs_root

CHAIN = """
nf fw : StatefulFirewall
nf monitor : NetworkMonitor
port subscribers, internet
pipeline p { subscribers -> fw @ 1Gbps; fw -> monitor -> internet; }
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("northbound")) as made:
        (made.folder / "chain.e2").write_text(CHAIN, encoding="utf-8")
        yield made


def command(made: Cluster, *words: str) -> list[str]:
    where = ["--hardware", str(made.path)]
    if "--store" not in words:
        where += ["--store", str(made.folder / "controller.db")]
    return [sys.executable, "-P", "-m", "e2ctl.cli", *words, *where]


@contextmanager
def controller(made: Cluster, name: str, *options: str) -> Iterator[tuple[str, int]]:
    """One that stays: its address and pid."""
    address = f"unix:{made.folder}/{name}.sock"
    words = command(made, "controller", "--listen", address, "--no-scaling", *options)
    with (made.folder / f"{name}.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(words, stderr=log)
    try:
        wait_until(lambda: "serves at" in (made.folder / f"{name}.log").read_text(), 30)
        yield address, process.pid
    finally:
        process.terminate()
        assert process.wait(10) in (0, -signal.SIGKILL)


def asked(made: Cluster, address: str, *words: str, status: int = 0) -> str:
    """What a command prints that asks the controller."""
    if words[0] == "apply":
        words = (*words, str(made.folder / "chain.e2"), "--nfs", str(EXAMPLES / "nfs.yaml"))
    done = subprocess.run(
        [*command(made, *words), "--controller", address],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


async def until(
    condition: Callable[[pb.ClusterStatus], bool], operations: RemoteOperations
) -> None:
    async with asyncio.timeout(15):
        while not condition(await operations.status()):
            await asyncio.sleep(0.05)


def leads(address: str) -> bool:
    async def main() -> bool:
        async with remote(address) as operations:
            return (await operations.status()).leads

    try:
        return asyncio.run(main())
    except ControllerError:
        return False


def test_commands_ask_the_controller_that_stays(running: Cluster) -> None:
    with controller(running, "one") as (address, _):
        wait_until(lambda: leads(address), 10)
        assert "applied; 2 instances" in asked(running, address, "apply")
        assert "nothing changed" in asked(running, address, "apply")
        said = asked(running, address, "split", "fw.0")
        assert said.startswith("fw.0: new flows of the upper half of its flow ids go to fw.1")
        status = json.loads(asked(running, address, "status", "--json"))
        assert [row["state"] for row in status["servers"]] == ["well", "well"]
        assert "fw.1" in "".join(row["instances"] for row in status["servers"])
        said = asked(running, address, "drain", "fw.1")
        assert said == "fw.1: its flow ids are those of fw.0 now\n"
        said = asked(running, address, "split", "fw.7", status=1)
        assert said == ("e2ctl: there is no instance 'fw.7'; there are fw.0, monitor.0\n")
        # Beside it nobody else may change anything.
        done = subprocess.run(
            command(running, "drain", "fw.0"), capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert "another controller is at work" in done.stderr


def test_operations_and_notices_for_a_controller_of_wider_networks(running: Cluster) -> None:
    nfs = (EXAMPLES / "nfs.yaml").read_text(encoding="utf-8")
    request = pb.PolicyRequest(
        policy=pb.SourceText(name="chain.e2", text=CHAIN),
        nfs=pb.SourceText(name="nfs.yaml", text=nfs),
    )

    async def main(address: str) -> None:
        steps: list[str] = []
        kinds: list[str] = []
        async with remote(address) as operations:
            await until(lambda status: status.leads, operations)

            async def hear() -> None:
                async for notice in operations.watch():
                    kinds.append(f"{notice.server} {notice.kind}".strip())

            hearing = asyncio.create_task(hear())
            await operations.apply(request, steps.append)
            assert steps == ["prepare", "commit", "switch", "finish"]
            reply = await operations.make_plan(request)
            assert not reply.changes
            assert json.loads(reply.plan)["instances"].keys() == {"fw.0", "monitor.0"}
            bad = pb.PolicyRequest(
                policy=pb.SourceText(name="x.e2", text="nf a b"), nfs=request.nfs
            )
            with pytest.raises(ControllerError, match=r"x\.e2:1:6: "):
                await operations.apply(bad, steps.append)
            for agent in running.agents.values():
                agent._dataplane.client.kill()
            async with asyncio.timeout(10):
                while not {"s1 daemon down", "s1 daemon up", "s2 daemon up"} <= {*kinds}:
                    await asyncio.sleep(0.05)
            await until(lambda s: all(one.state == "well" for one in s.servers), operations)
            hearing.cancel()

    with controller(running, "wide") as (address, _):
        asyncio.run(main(address))


def test_a_standby_follows_a_controller_that_is_killed(running: Cluster) -> None:
    with controller(running, "first") as (first, pid):
        wait_until(lambda: leads(first), 10)
        with controller(running, "second") as (second, _):
            asked(running, first, "apply")
            assert "this controller stands by" in asked(running, second, "apply", status=1)
            assert "fw.0" in asked(running, second, "status")
            begun = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: leads(second), 10)
            assert time.monotonic() - begun < 10
            assert "nothing changed" in asked(running, second, "apply")


@pytest.mark.skipif(shutil.which("etcd") is None, reason="needs Debian's etcd-server")
def test_a_controller_outlives_its_etcd(running: Cluster, tmp_path: Path) -> None:
    """What it remembers is in an etcd that ends and comes back; a standby does not take over."""
    with etcds(tmp_path) as (etcd,):
        store = ("--store", f"etcd://{etcd.address}/e2/north")
        with controller(running, "durable", *store) as (address, _):
            wait_until(lambda: leads(address), 10)
            assert "2 instances" in asked(running, address, "apply")
            with controller(running, "patient", *store) as (other, _):
                assert "stands by" in asked(running, other, "apply", status=1)
                etcd.end()
                time.sleep(2.5)
                etcd.start()
                wait_until(etcd.serves, 30)
                wait_until(lambda: leads(address) or leads(other), 30)
                now = address if leads(address) else other
                assert "nothing changed" in asked(running, now, "apply")
                assert leads(address) != leads(other)


def test_one_socket_is_one_controllers(running: Cluster) -> None:
    with controller(running, "mine") as (address, _):
        done = subprocess.run(
            command(running, "controller", "--listen", address),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert f"another controller listens on {address}" in done.stderr


def test_it_listens_beyond_this_machine_only_with_keys(running: Cluster) -> None:
    words = command(running, "controller", "--listen", "0.0.0.0:0")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "make them with `e2ctl pki`" in done.stderr


def test_agents_have_nothing_to_say(running: Cluster, tmp_path: Path) -> None:
    """An agent's certificate is of the same authority, and is refused all the same."""
    # Agents of this cluster listen on sockets and need none: one is made for the test.
    text = running.path.read_text(encoding="utf-8")
    text = text.replace(f"unix:{running.folder}/a1.sock", "127.0.0.1:1")
    make_pki(tmp_path, hardwares.loads(text))
    port = free_port()

    class Nothing:
        async def status(self) -> pb.ClusterStatus:
            return pb.ClusterStatus(leads=True)

        make_plan = apply = split = drain = settle = status

    async def main() -> None:
        address = f"127.0.0.1:{port}"
        identity = load_identity(tmp_path, "controller")
        async with serve(address, Nothing(), Notices(), identity):  # type: ignore[arg-type]
            async with remote(address, load_identity(tmp_path, "operator")) as operations:
                assert (await operations.status()).leads
            async with remote(address, load_identity(tmp_path, "s1")) as operations:
                with pytest.raises(ControllerError, match="s1 may not ask this; expected"):
                    await operations.status()

    asyncio.run(main())


def test_metrics(running: Cluster) -> None:
    port = free_port()
    with controller(running, "metered", "--metrics", str(port)) as (address, _):
        wait_until(lambda: leads(address), 10)
        asked(running, address, "apply")

        def values() -> dict[str, float]:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                text = answer.read().decode()
            return {
                " ".join([sample.name, *sample.labels.values()]): sample.value
                for family in text_string_to_metric_families(text)
                for sample in family.samples
            }

        wait_until(lambda: values().get("e2_nf_instances fw") == 1, 10)
        found = values()
        assert found["e2_controller_leads"] == 1
        assert found["e2_server_state s1 up"] == 1
        assert found["e2_server_state s1 lost"] == 0
        assert found["e2_switch_table_size"] == 2048
        assert found["e2_switch_entries"] > 0
        assert found["e2_controller_notices_total leads"] == 1

# SPDX-License-Identifier: BSD-3-Clause
"""squid as a legacy NF: a client has a page from a server through a policy, and then from squid."""

from __future__ import annotations

import asyncio
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from e2ctl.controller.agents import Agents
from e2ctl.controller.apply import apply
from e2ctl.controller.store import Inputs, SqliteStore
from e2ctl.lab import Lab, lab, namespaces
from e2ctl.plan import Running
from harness import run_program, wait_until
from lab_support import EXAMPLES, GET, PAGE, host, ip, lab_file, needs_lab, web_server

pytestmark = [
    needs_lab,
    pytest.mark.skipif(
        None in map(shutil.which, ("squid", "nft")), reason="needs Debian's squid and nftables"
    ),
]

SERVER, CACHE = "198.51.100.7", "203.0.113.10"
WITHOUT = """
nf monitor : NetworkMonitor
port subscribers, internet
pipeline p { subscribers -> monitor -> internet; }
"""


async def use(policy: str, made: Lab, store: SqliteStore, agents: Agents, folder: Path) -> str:
    """The server of the policy's first NF."""
    path = folder / "policy.e2"
    path.write_text(policy, encoding="utf-8")
    current = store.read().current
    running = current.plan().running if current else Running()
    hardware = made.folder / "hardware.yaml"
    inputs = Inputs.read(path, EXAMPLES / "nfs.yaml", hardware, running)
    plan = await apply(inputs, store, agents, made.switch)
    return next(iter(plan.layout.servers.values()))


def test_a_page_comes_from_the_server_once_and_then_from_squid(tmp_path: Path) -> None:
    folder = tmp_path / "www"
    folder.mkdir()
    policy = (EXAMPLES / "web-cache.e2").read_text(encoding="utf-8")

    async def main(made: Lab) -> None:
        store = SqliteStore(made.folder / "controller.db")
        async with Agents(made.blueprint.hardware) as agents:
            server = await use(policy, made, store, agents, tmp_path)
            run = Path(f"/run/e2-nf/e2-{server}-squid.0")
            await asyncio.to_thread(browse, made, folder, run)
            await use(WITHOUT, made, store, agents, tmp_path)
            assert not run.exists()
            assert not namespaces(f"e2-{server}-squid")
        store.close()

    with lab(lab_file(tmp_path, "q", agents=True)) as made:
        asyncio.run(main(made))


def browse(made: Lab, folder: Path, run: Path) -> None:
    with ExitStack() as stack:
        client = stack.enter_context(host(made, "cl", "subscribers", "10.0.0.2/8", "default"))
        # No gateway to ask: squid takes up connections whatever MAC address they are sent to.
        ip(*f"-n {client[3]} neigh add {SERVER} lladdr 02:00:00:00:00:99 dev subscribers".split())
        server = stack.enter_context(host(made, "srv", "internet", f"{SERVER}/24", f"{CACHE}/32"))
        stack.enter_context(web_server(server, folder))
        url = f"http://{SERVER}/page.html"
        seen = [run_program([*client, sys.executable, "-c", GET, url]) for _ in range(2)]
        assert seen == [f"MISS from squid {PAGE!r}\n", f"HIT from squid {PAGE!r}\n"]
        log = (folder / "log").read_text(encoding="utf-8").splitlines()
        [asked] = [line for line in log if "GET /page.html" in line]
        assert asked.startswith(CACHE)
        logged = run / "log" / "access.log"
        wait_until(lambda: logged.read_text().count("/200") == 2)
        words = [line.split()[3] for line in logged.read_text().splitlines()]
        assert words == ["TCP_MISS/200", "TCP_MEM_HIT/200"]

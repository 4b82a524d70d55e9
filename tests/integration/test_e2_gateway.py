# SPDX-License-Identifier: BSD-3-Clause
"""A NAT of the dataplane both ways: a client inside has a page from a server outside."""

from __future__ import annotations

import asyncio
import sys
from contextlib import ExitStack
from pathlib import Path

from e2ctl.controller.agents import Agents
from e2ctl.controller.apply import apply
from e2ctl.controller.store import Inputs, SqliteStore
from e2ctl.lab import Lab, lab
from e2ctl.plan import Running
from harness import run_program
from lab_support import EXAMPLES, GET, PAGE, host, ip, lab_file, needs_lab, web_server

pytestmark = needs_lab

CLIENT, SERVER, OUTSIDE = "10.0.0.2", "198.51.100.7", "203.0.113.1"
MACS = {"subscribers": "02:00:00:00:00:0a", "internet": "02:00:00:00:00:0b"}


def test_a_connection_and_its_answers(tmp_path: Path) -> None:
    async def main(made: Lab) -> None:
        store = SqliteStore(made.folder / "controller.db")
        nfs, hardware = EXAMPLES / "nfs.yaml", made.folder / "hardware.yaml"
        inputs = Inputs.read(EXAMPLES / "gateway.e2", nfs, hardware, Running())
        async with Agents(made.blueprint.hardware) as agents:
            await apply(inputs, store, agents, made.switch)
            await asyncio.to_thread(browse, made, tmp_path)
        store.close()

    with lab(lab_file(tmp_path, "n", agents=True)) as made:
        asyncio.run(main(made))


def browse(made: Lab, folder: Path) -> None:
    with ExitStack() as stack:
        client = stack.enter_context(host(made, "cl", "subscribers", f"{CLIENT}/8", f"{SERVER}/32"))
        server = stack.enter_context(host(made, "srv", "internet", f"{SERVER}/24", f"{OUTSIDE}/32"))
        # The NAT passes frames on as they are addressed, and answers no ARP.
        ends = [
            (client, "subscribers", SERVER, "internet"),
            (server, "internet", OUTSIDE, "subscribers"),
        ]
        for inside, device, _, _ in ends:
            ip("-n", inside[3], "link", "set", device, "address", MACS[device])
        for inside, device, address, other in ends:
            ip("-n", inside[3], "neigh", "replace", address, "lladdr", MACS[other], "dev", device)
        stack.enter_context(web_server(server, folder))
        for _ in range(3):
            page = run_program([*client, sys.executable, "-c", GET, f"http://{SERVER}/page.html"])
            assert page == f"None {PAGE!r}\n"
        log = (folder / "log").read_text(encoding="utf-8").splitlines()
        asked = [line.split()[0] for line in log if "GET /page.html" in line]
        assert asked == [OUTSIDE] * 3

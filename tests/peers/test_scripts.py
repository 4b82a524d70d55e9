# SPDX-License-Identifier: BSD-3-Clause
"""BESS's scripts, twice each, in our runner and in BESS's own bessctl."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from bess_plugins.client import Client
from expected import ENDLESS, IMPOSSIBLE, MODES, TWO_CORES, judge
from harness import wait_until
from peer_support import BESS_HOME, CONF, ROOT_FOLDER, TESTS, launch, needs_bess, scripts

pytestmark = needs_bess

SLEEPS_S = 0.1  # what the scripts' own sleeps are cut to
PATIENCE_S = {name: 5.0 for name in ENDLESS} | {"conf/testing/run_module_tests.bess": 240.0}
# It measures times, and its tests need their sleeps.
UNHURRIED = {"conf/testing/run_module_tests.bess"}
SCRIPTS = scripts(CONF, "*.bess") + scripts(TESTS, "*.bess")


def tasks_run(client: Client) -> None:
    """Where there are tasks, some worker runs them."""
    tasks = [tc["name"] for tc in client.list_tcs() if tc["policy"] == "leaf"]
    if tasks:
        wait_until(lambda: any(client.tc_stats(name).count for name in tasks), timeout_s=60)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", SCRIPTS)
def test_script(name: str, mode: str, tree: Path, daemon: str, client: Client) -> None:
    if name in TWO_CORES and not {0, 1} <= os.sched_getaffinity(0):
        pytest.skip("it names cores 0 and 1, which this process may not use")
    path = str(tree / ROOT_FOLDER / name)
    command = path if mode == "bessrun" else f"run file {path}"
    quick_s = 0 if name in UNHURRIED else SLEEPS_S
    for _ in range(2):
        result = launch(
            mode, tree, daemon, command, quick_s=quick_s, patience_s=PATIENCE_S.get(name, 120)
        )
        passed = result.returncode == (-signal.SIGINT if name in ENDLESS else 0)
        judge(name, mode, passed, result.stdout)
        tasks_run(client)
        client.reset_all()
        assert all(pool["mp_in_use_count"] == 0 for pool in client.dump_mempool())


def test_the_lists_name_scripts_that_exist() -> None:
    listed = {name for name in {*IMPOSSIBLE, *TWO_CORES, *ENDLESS} if name.endswith(".bess")}
    assert listed <= set(SCRIPTS)
    assert len(SCRIPTS) > 70 and Path(BESS_HOME).is_dir()

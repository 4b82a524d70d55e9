# SPDX-License-Identifier: BSD-3-Clause
"""Runs what BESS ships against a daemon of ours: the shim, and all of it.

    launch.py bessctl TREE ADDRESS COMMAND...   BESS's own bessctl, on that daemon
    launch.py bessrun TREE ADDRESS SCRIPT       our runner

It names the daemon's address, which bessctl has no option for; it puts ports in memory in place of
those that need hardware or a kernel module, and runs none of the commands that scripts would use on
those; and where QUICK is set, no sleep is longer than that many seconds.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import time
import types
from pathlib import Path
from typing import Any

HARDWARE = ("PMDPort", "VPort")


def replacement(driver: str, arg: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The driver, and its argument, that stands in for one that needs hardware."""
    if driver not in HARDWARE:
        return driver, arg
    vdev = dict(part.partition("=")[::2] for part in str(arg.get("vdev", "")).split(","))
    if "rx_pcap" in vdev:
        return "PCAPPort", {"dev": os.path.abspath(vdev["rx_pcap"])}
    # What is sent to a port in memory comes back on the same queue.
    queues = max(arg.get("num_inc_q", 1), arg.get("num_out_q", 1))
    return "MemoryPort", {"num_inc_q": queues, "num_out_q": queues}


def shorten_sleeps() -> None:
    longest = float(os.environ.get("QUICK", "inf"))
    sleep = time.sleep
    time.sleep = lambda seconds: sleep(min(seconds, longest))


def bessctl(tree: Path, address: str, command: list[str]) -> None:
    sys.path[:0] = [str(tree / "bessctl"), str(tree)]
    from pybess.bess import BESS

    BESS.connect.__defaults__ = (address,)
    create, drivers = BESS.create_port, BESS.list_drivers

    def create_port(self: Any, driver: str, name: str | None = None, arg: Any = None) -> Any:
        driver, arg = replacement(driver, dict(arg or {}))
        return create(self, driver, name, arg)

    def list_drivers(self: Any) -> Any:
        answer = drivers(self)
        answer.driver_names.extend(HARDWARE)
        return answer

    BESS.create_port, BESS.list_drivers = create_port, list_drivers
    program = tree / "bessctl" / "bessctl"
    sys.argv = [str(program), *command]
    runpy.run_path(str(program), run_name="__main__")


def bessrun(tree: Path, address: str, script: str) -> None:
    # Some scripts import the helpers of its tests, which import its client: its messages have
    # the names of ours, and would not do beside them.
    sys.path.append(str(tree / "bessctl"))
    for name in ("pybess", "pybess.bess"):
        sys.modules[name] = types.ModuleType(name)
    sys.argv = [str(tree / "bessctl" / "bessctl")]  # from where a script looks for others
    sys.modules["pybess"].__path__ = [str(tree / "pybess")]  # the rest of it will do
    from bess_plugins.client import Client
    from bess_plugins.script.runner import ScriptError, run_script

    class WithPorts(Client):
        def list_drivers(self) -> list[str]:
            return [*super().list_drivers(), *HARDWARE]

        def create_port(self, driver: str, name: str = "", **arg: Any) -> Any:
            driver, arg = replacement(driver, arg)
            return super().create_port(driver, name, **arg)

    with WithPorts(address) as client:
        try:
            run_script(script, client)
        except ScriptError as error:
            sys.exit(str(error))


if __name__ == "__main__":
    mode, tree, address, *rest = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background has none
    shorten_sleeps()
    os.system = lambda command: 0
    if mode == "bessctl":
        bessctl(Path(tree), address, rest)
    else:
        bessrun(Path(tree), address, *rest)

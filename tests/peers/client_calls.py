# SPDX-License-Identifier: BSD-3-Clause
"""Calls every method of BESS's client, and prints as JSON what went wrong with which.

client_calls.py TREE ADDRESS FOLDER; FOLDER is an empty one to write to.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Nothing that they ask a daemon.
LOCAL = {"is_connected", "is_connection_broken", "set_debug", "disconnect", "connect"}


def expect(what: bool) -> None:
    if not what:
        raise AssertionError


def refused(call: Callable[[], Any], error: type[Exception]) -> int:
    try:
        call()
    except error as caught:
        return int(getattr(caught, "code", 0))
    raise AssertionError("must fail")


def calls(bess: Any, module_msg: Any, folder: Path) -> dict[str, Callable[[], None]]:
    """In the order in which they run."""
    steps: dict[str, Callable[[], None]] = {}

    def step(function: Callable[[], None]) -> None:
        steps[function.__name__] = function

    def names(entries: Any) -> set[str]:
        return {entry.name for entry in entries}

    @step
    def get_version() -> None:
        expect(bess.get_version().version != "")

    @step
    def list_drivers() -> None:
        expect({"PCAPPort", "UnixSocketPort"} <= set(bess.list_drivers().driver_names))

    @step
    def get_driver_info() -> None:
        info = bess.get_driver_info("UnixSocketPort")
        expect((info.name, info.help != "") == ("UnixSocketPort", True))

    @step
    def create_port() -> None:
        made = bess.create_port("UnixSocketPort", "p", {"path": f"@{folder}", "num_inc_q": 1})
        expect(made.name == "p" and len(made.mac_addr) == 17)
        expect(refused(lambda: bess.create_port("None"), bess.Error) != 0)

    @step
    def list_ports() -> None:
        expect(
            [(port.name, port.driver) for port in bess.list_ports().ports]
            == [("p", "UnixSocketPort")]
        )

    @step
    def set_port_config() -> None:
        bess.set_port_config("p", {"admin_up": False})

    @step
    def get_port_config() -> None:
        conf = bess.get_port_config("p").conf
        expect((len(conf.mac_addr), conf.mtu, conf.admin_up) == (17, 1500, False))

    @step
    def get_port_stats() -> None:
        stats = bess.get_port_stats("p")
        expect(stats.inc.packets == 0 and stats.timestamp > 0)

    @step
    def get_link_status() -> None:
        bess.get_link_status("p")

    @step
    def destroy_port() -> None:
        bess.destroy_port("p")
        expect(len(bess.list_ports().ports) == 0)

    @step
    def list_mclasses() -> None:
        expect({"Source", "Queue", "WildcardMatch"} <= set(bess.list_mclasses().names))

    @step
    def get_mclass_info() -> None:
        info = bess.get_mclass_info("Queue")
        expect(
            dict(zip(info.cmds, info.cmd_args, strict=True))["set_size"] == "QueueCommandSetSizeArg"
        )

    @step
    def create_module() -> None:
        expect(bess.create_module("Source", "src", {"pkt_size": 90}).name == "src")
        expect(bess.create_module("Queue").name == "queue0")
        bess.create_module("Sink", "sink")

    @step
    def list_modules() -> None:
        expect(names(bess.list_modules().modules) == {"src", "queue0", "sink"})

    @step
    def connect_modules() -> None:
        bess.connect_modules("src", "queue0")
        bess.connect_modules("queue0", "sink", 0, 0)

    @step
    def get_module_info() -> None:
        info = bess.get_module_info("queue0")
        expect(info.mclass == "Queue" and info.ogates[0].name == "sink")

    @step
    def run_module_command() -> None:
        status = bess.run_module_command("queue0", "get_status", "QueueCommandGetStatusArg", {})
        expect(status.size == 1024)
        initial = bess.run_module_command("src", "get_initial_arg", "EmptyArg", {})
        expect(initial.pkt_size == 90)
        wrong = {"size": 3}
        resize = ("queue0", "set_size", "QueueCommandSetSizeArg", wrong)
        expect(refused(lambda: bess.run_module_command(*resize), bess.Error) != 0)

    @step
    def disconnect_modules() -> None:
        bess.disconnect_modules("queue0", 0)
        expect(len(bess.get_module_info("queue0").ogates) == 0)
        bess.connect_modules("queue0", "sink")

    @step
    def add_worker() -> None:
        bess.add_worker(0, min(os.sched_getaffinity(0)))

    @step
    def list_workers() -> None:
        expect([worker.wid for worker in bess.list_workers().workers_status] == [0])

    @step
    def add_tc() -> None:
        bess.add_tc("root", "weighted_fair", wid=0, resource="packet")
        limit = {"packet": 1000}
        bess.add_tc(
            "slow",
            "rate_limit",
            parent="root",
            resource="packet",
            share=1,
            limit=limit,
            max_burst=limit,
        )

    @step
    def update_tc_params() -> None:
        bess.update_tc_params("slow", resource="packet", limit={"packet": 2000})

    @step
    def attach_task() -> None:
        bess.attach_task("src", parent="slow")

    @step
    def attach_module() -> None:
        bess.attach_module("queue0", parent="root", share=3)

    @step
    def list_tcs() -> None:
        expect(
            {"root", "slow"} <= {getattr(tc, "class").name for tc in bess.list_tcs().classes_status}
        )
        expect(len(bess.list_tcs(0).classes_status) == 4)

    @step
    def track_gate() -> None:
        made = bess.track_gate(True, "", "src", bits=True, direction="out", gate=0)
        expect(made.name == "track")

    @step
    def tcpdump_gate() -> None:
        fifo = folder / "fifo"
        os.mkfifo(fifo)
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        bess.tcpdump_gate(True, "dump", "src", fifo=str(fifo))
        bess.tcpdump_gate(False, "dump", "src")
        os.close(reader)

    @step
    def pcapng_gate() -> None:
        reader = os.open(folder / "fifo", os.O_RDONLY | os.O_NONBLOCK)
        bess.pcapng_gate(True, "dump", "src", fifo=str(folder / "fifo"))
        bess.pcapng_gate(False, "dump", "src")
        os.close(reader)

    @step
    def list_gatehook_classes() -> None:
        expect({"Track", "TcpDump", "PcapNg"} <= set(bess.list_gatehook_classes().names))

    @step
    def get_gatehook_class_info() -> None:
        expect("reset" in bess.get_gatehook_class_info("Track").cmds)

    @step
    def list_gatehooks() -> None:
        expect("track" in {hook.hook_name for hook in bess.list_gatehooks().hooks})

    @step
    def run_gatehook_command() -> None:
        bess.run_gatehook_command("track", "src", "out", 0, "reset", "EmptyArg", {})

    @step
    def configure_resume_hook() -> None:
        empty = module_msg.EmptyArg()
        bess.configure_resume_hook("setup_metadata", empty, False)
        bess.configure_resume_hook("setup_metadata", empty, True)

    @step
    def check_scheduling_constraints() -> None:
        expect(not bess.check_scheduling_constraints().fatal)

    @step
    def check_constraints() -> None:
        expect(not bess.check_constraints())

    @step
    def resume_all() -> None:
        bess.resume_all()
        expect(bess.list_workers().workers_status[0].running == 1)

    @step
    def get_tc_stats() -> None:
        while bess.get_tc_stats("slow").packets == 0:  # the test that runs this gives up some time
            pass

    @step
    def pause_worker() -> None:
        bess.pause_worker(0)
        expect(bess.list_workers().workers_status[0].running == 0)

    @step
    def resume_worker() -> None:
        bess.resume_worker(0)

    @step
    def pause_all() -> None:
        bess.pause_all()

    @step
    def check_resume_all() -> None:
        expect(not bess.check_resume_all())

    @step
    def uncheck_resume_all() -> None:
        bess.uncheck_resume_all()
        bess.pause_all()

    @step
    def dump_mempool() -> None:
        expect(bess.dump_mempool().dumps[0].mp_size > 0)

    @step
    def import_plugin() -> None:
        expect(refused(lambda: bess.import_plugin(f"{folder}/none.so"), bess.Error) != 0)

    @step
    def unload_plugin() -> None:
        expect(refused(lambda: bess.unload_plugin(f"{folder}/none.so"), bess.Error) != 0)

    @step
    def list_plugins() -> None:
        expect(len(bess.list_plugins().paths) == 0)

    @step
    def destroy_module() -> None:
        bess.destroy_module("sink")
        expect(names(bess.list_modules().modules) == {"src", "queue0"})

    @step
    def reset_modules() -> None:
        bess.reset_modules()
        expect(len(bess.list_modules().modules) == 0)

    @step
    def reset_ports() -> None:
        bess.create_port("UnixSocketPort", "p", {"path": f"@{folder}"})
        bess.reset_ports()
        expect(len(bess.list_ports().ports) == 0)

    @step
    def destroy_worker() -> None:
        bess.reset_all()
        bess.add_worker(0, min(os.sched_getaffinity(0)))
        bess.destroy_worker(0)
        expect(len(bess.list_workers().workers_status) == 0)

    @step
    def reset_all() -> None:
        bess.create_module("Source")
        bess.reset_all()
        expect(len(bess.list_modules().modules) == 0)

    @step
    def kill() -> None:
        bess.kill()

    return steps


def main(tree: str, address: str, folder: str) -> None:
    sys.path.insert(0, tree)
    from pybess import bess as pybess

    bess = pybess.BESS()
    bess.connect(address)
    failures = {}
    steps = calls(bess, pybess.module_msg, Path(folder))
    for name, call in steps.items():
        try:
            call()
        except Exception:
            failures[name] = traceback.format_exc()
    public = {name for name in vars(pybess.BESS) if not name.startswith("_")}
    methods = {name for name in public if callable(getattr(pybess.BESS, name))}
    errors = {"Error", "RPCError", "APIError", "ConstraintError"}
    missed = sorted(methods - errors - LOCAL - set(steps))
    print(json.dumps({"called": len(steps), "failures": failures, "missed": missed}))


if __name__ == "__main__":
    main(*sys.argv[1:])

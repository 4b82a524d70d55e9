# SPDX-License-Identifier: BSD-3-Clause
"""Runs a plan over captures: each input port replays one, each output port records one.

The end is exact. Packets of all captures are counted beforehand; when the input ports have
delivered (or refused) that many, the workers are paused, which they do only between batches, and
the graph runs every batch to completion. Results are written beside the wanted folder and renamed
when they are whole.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bess_plugins.captures import count_packets
from bess_plugins.client import BessError, Client, DaemonUnavailableError
from bess_plugins.daemon.server import Server, make_engine
from e2ctl.report import ModuleCounters, PortTotals, Report, make_report
from e2ctl.wiring import LocalPlan

__all__ = ["RunError", "run"]

_POLL_S = 0.001
_STALL_S = 30.0
_STATS = "e2_stats"
_PROFILE = "e2_profile"

Progress = Callable[[int, int], None]


class RunError(Exception):
    """A run failed; the message says why."""


def run(
    plan: LocalPlan,
    captures: Mapping[str, Path],
    out: Path,
    *,
    daemon: str | None = None,
    progress: Progress | None = None,
) -> Report:
    """Run a plan in a private daemon, or the one at ``daemon``, and write results to ``out``.

    ``progress`` is told the packets delivered so far and in all.
    """
    _check_captures(plan, captures)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} exists and is not an empty folder; choose another --out")
    expected = {port: count_packets(path) for port, path in captures.items()}
    with _partial(out) as folder, _connect(daemon) as client:
        report = _execute(client, plan, captures, expected, folder, progress)
        text = json.dumps(report.to_dict(), indent=2) + "\n"
        (folder / "report.json").write_text(text, encoding="utf-8")
    return report


def _check_captures(plan: LocalPlan, captures: Mapping[str, Path]) -> None:
    inputs = [port.name for port in plan.ports if port.incoming]
    for name in captures:
        if name not in inputs:
            raise RunError(f"'{name}' is not an input port; expected {', '.join(inputs)}")
    missing = [name for name in inputs if name not in captures]
    if missing:
        raise RunError(f"no capture for port {missing[0]}; give --in {missing[0]}=CAPTURE")


@contextmanager
def _partial(out: Path) -> Iterator[Path]:
    """A folder that becomes ``out`` if all goes well and vanishes if not."""
    out = Path(os.path.abspath(out))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        made = tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent)
    except OSError as error:
        raise RunError(f"cannot write {out}: {error.strerror or error}") from None
    folder = Path(made)
    try:
        yield folder
        folder.chmod(0o755)
        try:
            folder.rename(out)
        except OSError as error:
            raise RunError(f"cannot write {out}: {error.strerror or error}") from None
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def _connect(daemon: str | None) -> Iterator[Client]:
    """A client of the daemon named, or of a private one."""
    if daemon is None:
        with Server(make_engine(), port=0) as server, Client(server.address) as client:
            yield client
        return
    with Client(daemon) as client:
        if client.list_modules() or client.list_ports():
            raise RunError(f"the daemon at {daemon} is in use; reset it, or leave out --daemon")
        try:
            yield client
        except DaemonUnavailableError:
            raise RunError(
                f"the daemon at {daemon} ended during the run, so there are no results; "
                "start it with `e2d start` and run again"
            ) from None


def _execute(
    client: Client,
    plan: LocalPlan,
    captures: Mapping[str, Path],
    expected: Mapping[str, int],
    folder: Path,
    progress: Progress | None,
) -> Report:
    try:
        _create(client, plan, captures, folder)
        with suppress(BessError):  # a daemon need not know this command
            client.run_module_command(
                plan.modules[0].name, _PROFILE, "ModuleProfileArg", {"enable": True}
            )
        start = time.monotonic()
        client.resume()
        end = _wait(client, expected, progress)
        client.pause()
        ports = {port.name: _port_totals(client, port.name) for port in plan.ports}
        counters = {module.name: _counters(client, module.name) for module in plan.modules}
        # Closing the ports is what completes their files, and reports what went wrong with them.
        client.reset_modules()
        for port in plan.ports:
            client.destroy_port(port.name)
    finally:
        with suppress(BessError):
            client.reset_all()
    return make_report(plan, ports, counters, end - start)


def _create(client: Client, plan: LocalPlan, captures: Mapping[str, Path], folder: Path) -> None:
    if not client.list_workers():
        client.add_worker(0, min(os.sched_getaffinity(0)))
    for port in plan.ports:
        paths: dict[str, Any] = {}
        if port.incoming:
            paths["dev"] = str(captures[port.name].resolve())
        if port.outgoing:
            paths["write_path"] = str(folder / f"{port.name}.pcap")
        client.create_port("PCAPPort", port.name, **paths)
    for module in plan.modules:
        client.create_module(module.mclass, module.name, **module.args)
    for link in plan.links:
        client.connect(link.source, link.target, link.ogate, link.igate)
    client.configure_gate_hook("Track", bits=True)


def _wait(client: Client, expected: Mapping[str, int], progress: Progress | None) -> float:
    """Wait until all packets are delivered; return when that was."""
    total = sum(expected.values())
    last, moved = -1, time.monotonic()
    while True:
        done = 0
        for port in expected:
            counts = client.port_stats(port).inc
            done += min(counts.packets + counts.dropped, expected[port])
        now = time.monotonic()
        if progress is not None:
            progress(done, total)
        if done >= total:
            return now
        if done != last:
            last, moved = done, now
        elif now - moved > _STALL_S:
            raise RunError(f"no packet moved for {_STALL_S:.0f} s; {done} of {total} were read")
        time.sleep(_POLL_S)


def _port_totals(client: Client, name: str) -> PortTotals:
    found = client.port_stats(name)
    inc, out = found.inc, found.out
    return PortTotals(inc.packets, inc.bytes, inc.dropped, out.packets, out.bytes, out.dropped)


def _counters(client: Client, name: str) -> ModuleCounters:
    info = client.module_info(name)
    sent = {gate["ogate"]: (gate["pkts"], gate["bytes"]) for gate in info["ogates"]}
    drops: dict[str, int] = {}
    cycles: int | None = None
    with suppress(BessError):  # a daemon need not know this command
        more = client.run_module_command(name, _STATS, "ModuleStatsArg")
        drops = {str(reason): int(count) for reason, count in more.get("drops", {}).items()}
        cycles = int(more.get("cycles", 0)) or None
    return ModuleCounters(
        sent,
        int(info["deadends"]),
        drops,
        cycles,
    )

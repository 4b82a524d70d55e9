# SPDX-License-Identifier: BSD-3-Clause
"""Commands change a module a thousand times while a worker runs packets through it.

Two commands in turn put the module into two states. The worker sends the same batch over and over,
which leaves by certain gates in one state and by others in the other, as a run without workers
tells. A batch that met anything but one whole state would spoil the sums.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness import Engine, new_engine, run, wait_until
from match_support import udp

CHANGES = 1000
BATCH = 32
GATES = 8
FLOWS = tuple(udp(dst=f"10.0.{i}.1", sport=5000 + i, dport=1000 + i % 4) for i in range(BATCH))
DPORT = {"offset": 36, "num_bytes": 2}
EXACT: dict[str, Any] = {"fields": [DPORT]}

Command = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Case:
    """A module in its first state, what changes it to the second, and what changes it back."""

    mclass: str
    args: Mapping[str, Any]
    start: tuple[Command, ...]
    change: Command
    back: Command
    seen_at: int | None = None  # where in the packet a module with one gate leaves its mark
    packets: Sequence[bytes] = FLOWS
    varied: Mapping[str, Any] | None = None  # by which RandomUpdate, from batch to batch


def exact(gate: int, port: int) -> dict[str, Any]:
    return {"gate": gate, "fields": [{"value_bin": port.to_bytes(2, "big")}]}


def marks(offset: int) -> dict[str, Any]:
    """Arguments of an ExactMatch that looks at the 2 bytes where the mark is."""
    return {"fields": [{"offset": offset, "num_bytes": 2}]}


MARKS = tuple(("add", exact(gate, 1000 + gate)) for gate in range(4))


def leaving(case: Case, *changes: Command) -> Counter[str]:
    """Where the packets of one batch leave, without any worker."""
    result = run(case.mclass, case.args, case.packets, (*case.start, *changes))
    if case.seen_at is not None:
        result = run("ExactMatch", marks(case.seen_at), result.out[0], MARKS)
    counts = Counter({str(gate): len(packets) for gate, packets in result.out.items()})
    return +(counts + Counter(result.drops))


def whole_batches(
    seen: Mapping[str, int], one: Mapping[str, int], other: Mapping[str, int], batches: int
) -> tuple[int, int]:
    """How many batches left as `one` and how many as `other`; fails if that doesn't add up."""
    places = sorted({*seen, *one, *other})
    place = next(place for place in places if one.get(place, 0) != other.get(place, 0))
    difference = one.get(place, 0) - other.get(place, 0)
    first, rest = divmod(seen.get(place, 0) - batches * other.get(place, 0), difference)
    assert rest == 0
    for place in places:
        expected = first * one.get(place, 0) + (batches - first) * other.get(place, 0)
        assert seen.get(place, 0) == expected, place
    return first, batches - first


def build(engine: Engine, case: Case) -> str:
    """The graph with the case's module `m`; returns the module that packets leave by."""
    engine.create_module("source", "Source", {})
    engine.create_module("templates", "Rewrite", {"templates": case.packets})
    engine.create_module("m", case.mclass, case.args)
    engine.connect("source", 0, "templates", 0)
    if case.varied is None:
        engine.connect("templates", 0, "m", 0)
    else:
        engine.create_module("varied", "RandomUpdate", case.varied)
        engine.connect("templates", 0, "varied", 0)
        engine.connect("varied", 0, "m", 0)
    for command, args in case.start:
        engine.module_command("m", command, args)
    last = "m"
    if case.seen_at is not None:
        last = "marks"
        engine.create_module(last, "ExactMatch", marks(case.seen_at))
        engine.connect("m", 0, last, 0)
        for command, args in MARKS:
            engine.module_command(last, command, args)
    last_class = case.mclass if last == "m" else "ExactMatch"
    for gate in range(min(GATES, engine.module_classes()[last_class]["ogates"])):
        engine.create_module(f"sink{gate}", "Sink", {})
        engine.connect(last, gate, f"sink{gate}", 0)
    return last


def check_whole_states(case: Case) -> None:
    """Change the module a thousand times, and fail where a batch met anything else."""
    one, other = leaving(case), leaving(case, case.change)
    assert one != other
    engine = new_engine()
    last = build(engine, case)

    def sent() -> dict[str, int]:
        gate: dict[str, int] = engine.module_info("templates")["ogates"][0]
        return gate

    engine.add_worker(0, -1)
    engine.resume_all()
    for change in range(CHANGES):
        command, args = case.back if change % 2 else case.change
        engine.module_command("m", command, args)
        if change % 41 < 2:  # both states get their share however threads are scheduled
            enough = sent()["cnt"] + 2
            wait_until(lambda enough=enough: sent()["cnt"] >= enough)  # type: ignore[misc]
    engine.pause_all()

    info = engine.module_info(last)
    seen = Counter({str(gate["ogate"]): gate["pkts"] for gate in info["ogates"]})
    seen.update(info["drops"])
    batches = sent()["cnt"]
    assert sent()["pkts"] == batches * BATCH
    first, second = whole_batches(+seen, one, other, batches)
    assert first > 0
    assert second > 0

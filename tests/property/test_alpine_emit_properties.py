# SPDX-License-Identifier: BSD-3-Clause
"""Random graphs, written in random styles: emitting them with random cuts gives the same graph with
exactly those queues, and nothing else of the text changes that has nothing to do with it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from alpine.emit import emit
from alpine.frontend import load
from alpine.plan import NewQueue, Plan, TcNode, TcTask
from bess_plugins.script.recording import Recording, record_script

SETTINGS = settings(max_examples=150, deadline=None)
Wires = list[tuple[str, int, int, str]]


@dataclass
class Writer:
    """Writes connections as scripts do, one way or another."""

    draw: st.DrawFn
    lines: list[str]

    def pick(self, count: int) -> int:
        return self.draw(st.integers(0, count - 1))

    def write(self, wires: Wires) -> None:
        left = list(wires)
        while left:
            some = left[: self.pick(4) + 1]
            del left[: len(some)]
            styles = (self.arrows, self.loop, self.function, self.calls, self.semicolons)
            styles[self.pick(len(styles))](some)
            if self.pick(3) == 0:
                self.lines.append(("", "# A remark: a -> b", "x = 'a -> b'")[self.pick(3)])

    def arrow(self, wire: tuple[str, int, int, str]) -> str:
        source, ogate, igate, target = wire
        sign = ("->", " -> ", "  ->")[self.pick(3)]
        left = f"{source}:{ogate}" if ogate or self.pick(2) else source
        right = f"{igate}:{target}" if igate or self.pick(2) else target
        return f"{left}{sign}{right}"

    def arrows(self, wires: Wires) -> None:
        """A chain where one is possible."""
        text = ""
        last = ""
        for wire in wires:
            if last == wire[0] and wire[1] == 0:
                text += f" -> {wire[3]}" if wire[2] == 0 else f" -> {wire[2]}:{wire[3]}"
            else:
                if text:
                    self.lines.append(text)
                text = self.arrow(wire)
            last = wire[3]
        self.lines.append(text)

    def semicolons(self, wires: Wires) -> None:
        self.lines.append("; ".join(map(self.arrow, wires)))

    def loop(self, wires: Wires) -> None:
        table = ", ".join(f"({s}, {o}, {i}, {t})" for s, o, i, t in wires)
        self.lines += [f"for s, o, i, t in ({table},):", "    s:o -> i:t"]

    def function(self, wires: Wires) -> None:
        name = f"wire{len(self.lines)}"
        self.lines += [f"def {name}(é='é'):", "    '''a -> b'''"]
        self.lines += [f"    {self.arrow(wire)}" for wire in wires]
        self.lines += [f"    # Done -> with {name}.", f"{name}()"]

    def calls(self, wires: Wires) -> None:
        for source, ogate, igate, target in wires:
            self.lines.append(f"bess.connect_modules('{source}', {target}, {ogate}, {igate})")


@st.composite
def scripts(draw: st.DrawFn) -> tuple[str, list[int]]:
    """A script with objectives, and numbers of connections to cut."""
    count = draw(st.integers(1, 8))
    writer = Writer(draw, ["# A pipeline."])
    names = [f"m{i}" for i in range(count)]
    gates: dict[str, int] = {}
    wires: Wires = []
    for number in range(count):
        parents = ["src", *names[:number]]
        for _ in range(draw(st.integers(1, 2))):
            parent = draw(st.sampled_from(parents))
            if parent == "src" and gates.get("src"):
                parent = names[0]
                if number == 0:
                    continue
            ogate = gates.get(parent, 0)
            gates[parent] = ogate + 1
            wires.append((parent, ogate, 0, names[number]))
    for name in names:
        mclass = "Split(size=1, offset=0)" if name in gates else "Sink()"
        writer.lines.append(f"{name}::{mclass}")
    writer.lines.append("src::Source()")
    writer.write(wires)
    said = [
        "alpine.add_policy('p', 'weighted_fair')",
        "for n, path in enumerate(alpine.all_paths()):",
        "    alpine.add_tc(f'c{n}', path)",
        "    alpine.attach_tc(f'c{n}', 'p', share=n + 1)",
    ]
    text = "\n".join([*writer.lines, *said]) + "\n"
    cuts = draw(st.lists(st.integers(0, len(wires) - 1), unique=True, max_size=len(wires)))
    return text, cuts


def wiring(recording: Recording) -> set[tuple[str, int, int, str]]:
    return {(e.source, e.ogate, e.igate, e.target) for e in recording.edges}


@SETTINGS
@given(scripts())
def test_the_graph_is_the_old_one_with_the_new_queues(case: tuple[str, list[int]]) -> None:
    text, numbers = case
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "test.alpine"
        path.write_text(text, encoding="utf-8")
        read = load(path)
    cut = [read.graph.edges[number] for number in numbers]
    queues = tuple(NewQueue(f"q{index}", edge) for index, edge in enumerate(cut))
    leaves = ["src", *(queue.name for queue in queues)]
    root = TcNode("s0", "priority", "", tuple((i, TcTask(m, "")) for i, m in enumerate(leaves)))
    result = emit(read, Plan(queues, (root,), polling=False))
    after = record_script(path, result)
    old, new = wiring(read.recording), wiring(after)
    for queue in queues:
        edge = queue.edge
        old.remove((edge.source, edge.ogate, edge.igate, edge.target))
        old |= {(edge.source, edge.ogate, 0, queue.name), (queue.name, 0, edge.igate, edge.target)}
    assert new == old
    assert {m.name: m.arg for m in read.recording.modules} == {
        m.name: m.arg for m in after.modules if m.mclass != "Queue"
    }
    assert [(task.module, task.priority) for task in after.tasks] == [
        (name, index) for index, name in enumerate(leaves)
    ]
    assert "alpine" not in result
    # What has no arrow is as it was.
    kept = [line for line in text.split("\n") if line and "->" not in line and "alpine" not in line]
    assert [line for line in result.split("\n") if line in kept][: len(kept)] == kept

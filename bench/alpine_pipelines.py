# SPDX-License-Identifier: BSD-3-Clause
"""Pipelines of section 5.5, as Alpine sees them, and the same behind a classifier.

The manual strategy needs a classifier that tells classes apart before the pipeline does. It is put
between the traffic and the pipeline's first module, with one gate for each class; its rules are
written here, by somebody who knows what the pipeline does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path as FilePath

from alpine.emit import emit
from alpine.frontend import load
from alpine.graph import Edge, Path
from alpine.plan import Plan
from alpine.program import Program
from alpine.wiring import Wiring
from bess_plugins.script.recording import record_script

__all__ = ["CLASSIFIER", "PIPELINES", "Pipeline", "example", "fork", "tree", "without_schedule"]

EXAMPLES = FilePath(__file__).parents[1] / "examples" / "alpine"
CLASSIFIER = "by_class"
NOTHING = Plan((), (), polling=False)
HEAD = "# SPDX-License-Identifier: BSD-3-Clause\narrive::Source(pkt_size=60)\n"


@dataclass(frozen=True)
class Pipeline:
    """``manual`` is the same with the classifier, of which class j leaves by gate j."""

    name: str
    program: Program
    manual: Program


def without_schedule(program: Program) -> str:
    """The script without what it says to Alpine."""
    return emit(program, NOTHING)


def behind_classifier(program: Program, entry: str, classifier: str) -> Program:
    """With the classifier before module ``entry``, which one edge leads to."""
    (old,) = [edge for edge in program.graph.edges if edge.target == entry]
    text = without_schedule(program) + classifier
    text += f"bess.disconnect_modules({old.source!r}, {old.ogate})\n"
    text += f"bess.connect_modules({old.source!r}, {CLASSIFIER!r}, {old.ogate})\n"
    text += f"for gate in range({len(program.paths)}):\n"
    text += f"    bess.connect_modules({CLASSIFIER!r}, {entry!r}, gate, {old.igate})\n"
    path = FilePath(program.path)
    path = path.with_name(f"{path.stem}-manual.bess")
    recording = record_script(str(path), text, program.recording.variables)
    graph = Wiring(recording.modules, recording.edges, str(path)).graph
    edges = {(edge.source, edge.ogate): edge for edge in graph.edges}
    paths = []
    for gate, way in enumerate(program.paths):
        at = way.edges.index(old)
        new: tuple[Edge, ...] = (edges[old.source, old.ogate], edges[CLASSIFIER, gate])
        paths.append(Path(way.name, way.input, (*way.edges[:at], *new, *way.edges[at + 1 :])))
    return replace(
        program,
        path=str(path),
        source=text,
        graph=graph,
        paths=tuple(paths),
        digest=f"{program.digest}-manual",
        recording=recording,
    )


def wildcard(
    fields: Sequence[tuple[int, int]], rules: Sequence[tuple[Sequence[tuple[int, int]], int]]
) -> str:
    """A WildcardMatch: fields are offsets and sizes, rules are values with masks, and a gate."""
    lines = [
        f"{CLASSIFIER}::WildcardMatch(fields="
        f"{[{'offset': offset, 'num_bytes': size} for offset, size in fields]})"
    ]
    for number, (pairs, gate) in enumerate(rules):
        lines.append(
            f"{CLASSIFIER}.add(values={[{'value_int': value} for value, _ in pairs]}, "
            f"masks={[{'value_int': mask} for _, mask in pairs]}, "
            f"priority={len(rules) - number}, gate={gate})"
        )
    return "\n".join([*lines, ""])


ETHERTYPE, PROTOCOL, SOURCE, TARGET, PORT = (12, 2), (23, 1), (26, 4), (30, 4), (36, 2)
ANY, IP, ARP = (0, 0), (0x0800, 0xFFFF), (0x0806, 0xFFFF)
TCP, UDP = (6, 0xFF), (17, 0xFF)


def port(number: int) -> tuple[int, int]:
    return (number, 0xFFFF)


def filter_rules() -> str:
    """Of the classes other, web, mail, names and denied."""
    inside = (0x0A000000, 0xFFFF0000)
    spoofed = (
        (0x0A000000, 0xFFFF0000),
        (0x7F000000, 0xFF000000),
        (0xE0000000, 0xF0000000),
        (0xC0A80000, 0xFFFF0000),
        (0xAC100000, 0xFFF00000),
    )
    rules: list[tuple[Sequence[tuple[int, int]], int]] = []
    rules += [((IP, ANY, source, ANY, ANY), 4) for source in spoofed]
    allowed = [(1, TCP, number) for number in (80, 443, 8080)]
    allowed += [(2, TCP, number) for number in (25, 143, 465, 587, 993)]
    allowed += [(3, UDP, 53), (3, UDP, 5353), (3, TCP, 53)]
    rules += [((IP, protocol, ANY, inside, port(p)), gate) for gate, protocol, p in allowed]
    rules += [((IP, ANY, ANY, ANY, ANY), 4), ((ANY, ANY, ANY, ANY, ANY), 0)]
    return wildcard([ETHERTYPE, PROTOCOL, SOURCE, TARGET, PORT], rules)


NETWORKS = ((0x0A010000, 0xFFFF0000), (0x0A020000, 0xFFFF0000))
HERE = (0x0A000001, 0xFFFFFFFF)


def router_rules() -> str:
    """Of the classes arp, other, host, net1 and net2."""
    rules: list[tuple[Sequence[tuple[int, int]], int]] = [
        ((ARP, ANY), 0),
        ((IP, HERE), 2),
        ((IP, NETWORKS[0]), 3),
        ((IP, NETWORKS[1]), 4),
        ((ANY, ANY), 1),
    ]
    return wildcard([ETHERTYPE, TARGET], rules)


def proxy_rules() -> str:
    """Of the classes other, proxied, host, net1 and net2."""
    rules: list[tuple[Sequence[tuple[int, int]], int]] = [
        ((IP, TCP, ANY, port(80)), 1),
        ((IP, ANY, HERE, ANY), 2),
        ((IP, ANY, NETWORKS[0], ANY), 3),
        ((IP, ANY, NETWORKS[1], ANY), 4),
        ((ANY, ANY, ANY, ANY), 0),
    ]
    return wildcard([ETHERTYPE, PROTOCOL, TARGET, PORT], rules)


PIPELINES = {"router": router_rules, "filter": filter_rules, "proxy": proxy_rules}


def example(name: str, folder: FilePath) -> Pipeline:
    """One of the three pipelines; its profile is kept in the folder."""
    path = folder / f"{name}.alpine"
    path.write_text((EXAMPLES / f"{name}.alpine").read_text(encoding="utf-8"), encoding="utf-8")
    program = load(path)
    return Pipeline(name, program, behind_classifier(program, "kinds", PIPELINES[name]()))


def objectives(names: Sequence[str]) -> str:
    """Every class has the same share, until there is another."""
    return (
        "alpine.add_policy('time', 'weighted_fair')\n"
        f"for name in {list(names)!r}:\n    alpine.attach_tc(name, parent='time', share=1)\n"
    )


def fork(cycles: int, folder: FilePath) -> Pipeline:
    """Figure 5.3a: A, which tells two classes apart, then B or C; all burn cycles for a packet."""
    path = folder / f"fork-{cycles}.alpine"
    path.write_text(
        HEAD
        + "traffic::Rewrite(templates=[bytes(42) + bytes([way]) + bytes(17) for way in range(2)])\n"
        f"a::Bypass(cycles_per_packet={cycles})\n"
        f"b::Bypass(cycles_per_packet={cycles})\n"
        f"c::Bypass(cycles_per_packet={cycles})\n"
        "way::Split(size=1, offset=42)\n"
        "arrive -> traffic -> a -> way\n"
        "way:0 -> b -> b_out::Sink()\n"
        "way:1 -> c -> c_out::Sink()\n"
        "alpine.add_tc('b', [arrive, traffic, a, way, b, b_out])\n"
        "alpine.add_tc('c', [arrive, traffic, a, way, c, c_out])\n" + objectives("bc"),
        encoding="utf-8",
    )
    program = load(path)
    rules = [([(way, 0xFF)], way) for way in range(2)]
    return Pipeline(path.stem, program, behind_classifier(program, "a", wildcard([(42, 1)], rules)))


def tree(depth: int, cycles: int, folder: FilePath) -> Pipeline:
    """A binary tree of that many levels: each node burns cycles, then goes by a bit of the packet.

    The bits are bytes of the packet that have random values.
    """
    path = folder / f"tree-{depth}.alpine"
    leaves = 2 ** (depth - 1)
    lines = [HEAD + "traffic::Rewrite(templates=[bytes(60)])"]
    last = "traffic"
    if depth > 1:
        lines.append(
            "flows::RandomUpdate(fields=[{'offset': 42 + level, 'size': 1, 'min': 0, 'max': 1} "
            f"for level in range({depth - 1})])"
        )
        lines.append("traffic -> flows")
        last = "flows"
    lines += [
        "arrive -> traffic",
        f"for n in range(1, {2 * leaves}):",
        f"    Bypass(name=f'n{{n}}', cycles_per_packet={cycles})",
        f"    if n < {leaves}:",
        "        Split(name=f's{n}', size=1, offset=41 + n.bit_length())",
        "        bess.connect_modules(f'n{n}', f's{n}')",
        "    else:",
        "        Sink(name=f'o{n}')",
        "        bess.connect_modules(f'n{n}', f'o{n}')",
        f"for n in range(2, {2 * leaves}):",
        "    bess.connect_modules(f's{n // 2}', f'n{n}', n % 2)",
        f"bess.connect_modules('{last}', 'n1')",
        "for number, path in enumerate(alpine.all_paths()):",
        "    alpine.add_tc(f'c{number}', path)",
        "alpine.add_policy('time', 'weighted_fair')",
        f"for number in range({leaves}):",
        "    alpine.attach_tc(f'c{number}', parent='time', share=1)",
    ]
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    program = load(path)
    return Pipeline(path.stem, program, behind_classifier(program, "n1", leaf_rules(depth)))


def leaf_rules(depth: int) -> str:
    """One rule for each leaf of a tree: its bits, from the root on."""
    sizes = [min(8, depth - 1 - first) for first in range(0, depth - 1, 8)] or [1]
    lines = [
        f"{CLASSIFIER}::ExactMatch(fields="
        f"{[{'offset': 42 + 8 * i, 'num_bytes': size} for i, size in enumerate(sizes)]})",
        f"for leaf in range({2 ** (depth - 1)}):",
        f"    bits = bytes(leaf >> shift & 1 for shift in reversed(range({depth - 1})))",
        "    bits = bits or bytes(1)",
        f"    {CLASSIFIER}.add(fields=[{{'value_bin': bits[first:first + 8]}} "
        f"for first in range(0, {max(1, depth - 1)}, 8)], gate=leaf)",
    ]
    return "\n".join([*lines, ""])

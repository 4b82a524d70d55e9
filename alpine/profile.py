# SPDX-License-Identifier: BSD-3-Clause
"""The profile of a script: what its modules cost, and how its packets divide.

It is a small YAML file next to the script, for people to read and to correct.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from alpine.errors import AlpineError
from alpine.flows import Flow, node_flows
from alpine.graph import Forest, Place, build_forest
from alpine.program import Program
from alpine.schedule import Costs

__all__ = ["Profile", "QueueCosts", "even_profile", "profile_path", "read_profile", "write_profile"]

_EVEN_CYCLES = 100.0
_EVEN_QUEUE = 20.0
_HEAD = """\
What the modules of {script} cost and how its packets divide, for `alpine compile`.
modules: cycles per packet that leaves by an exit behind them; queue: cycles per packet that
passes one; packets: counted at each output gate of a module.
"""
_NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class QueueCosts(BaseModel):
    """What a queue costs the task before it, the one behind it, and more between two workers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enqueue: _NotNegative
    dequeue: _NotNegative
    crossing: _NotNegative = 0.0


class Profile(BaseModel):
    """Costs in cycles of a clock of ``hz``, and packets by module and output gate.

    ``taken`` tells from what: ``generated`` (by the script's own inputs), ``capture FILE``, or
    ``assumed``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    digest: str
    daemon: str
    taken: str
    date: str
    seconds: _NotNegative
    hz: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    queue: QueueCosts
    modules: dict[str, _NotNegative]
    packets: dict[str, dict[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]]

    def costs(self) -> Costs:
        """For a problem."""
        queue = self.queue
        return Costs(dict(self.modules), queue.enqueue, queue.dequeue, queue.crossing, self.hz)

    def flow(self, forest: Forest) -> Flow:
        """Packets at each node, as if no queue had lost any."""
        counts = {
            (module, gate): float(count)
            for module, gates in self.packets.items()
            for gate, count in gates.items()
        }
        return node_flows(forest, counts, lossless=True)

    def rates(self, program: Program) -> tuple[float, ...]:
        """Packets of each path that reach its exit."""
        forest = build_forest(program.graph, program.paths)
        rates = self.flow(forest).rates(forest)
        for path, rate in zip(program.paths, rates, strict=True):
            if not rate > 0:
                raise AlpineError(
                    f"{path.place or program.path}: class '{path.name}' ({path}) got no packets "
                    "while the profile was taken; take it with traffic that covers it (`alpine "
                    "profile --pcap`), or assume that all classes are alike (--even)"
                )
        return rates


def profile_path(script: Path | str) -> Path:
    """Where the profile of a script is."""
    return Path(f"{script}.profile.yaml")


def even_profile(program: Program) -> Profile:
    """Assumed: every module costs the same, and all classes have the same rate.

    Packets of a merge can't be told apart by their way, so there classes are as alike as that
    allows.
    """
    counts: dict[str, dict[int, int]] = {}
    for path in program.paths:
        for edge in path.edges:
            gates = counts.setdefault(edge.source, {})
            gates[edge.ogate] = gates.get(edge.ogate, 0) + 1000
    return Profile(
        digest=program.digest,
        daemon="none",
        taken="assumed",
        date="",
        seconds=0.0,
        hz=1e9,
        queue=QueueCosts(enqueue=_EVEN_QUEUE, dequeue=_EVEN_QUEUE, crossing=_EVEN_QUEUE),
        modules=dict.fromkeys(program.graph.modules, _EVEN_CYCLES),
        packets=counts,
    )


def write_profile(path: Path, profile: Profile, script: Path | str) -> None:
    """Write it for people; floats are rounded to what was measured."""
    values: dict[str, Any] = profile.model_dump()
    values["modules"] = {name: round(cost, 2) for name, cost in profile.modules.items()}
    values["queue"] = {name: round(cost, 2) for name, cost in values["queue"].items()}
    yaml = YAML()
    text = StringIO()
    yaml.dump(values, text)
    head = "".join(f"# {line}\n" for line in _HEAD.format(script=Path(script).name).splitlines())
    try:
        path.write_text(head + text.getvalue(), encoding="utf-8")
    except OSError as error:
        raise AlpineError(f"{path}: {error.strerror or error}") from None


def read_profile(path: Path, program: Program) -> Profile:
    """The profile of this program; every error says where and what would be right."""
    document = _parse(path)
    try:
        profile = Profile.model_validate(_plain(document))
    except ValidationError as failed:
        first = failed.errors()[0]
        loc = first["loc"]
        name = ".".join(str(part) for part in loc if part != "[key]")
        given = "" if first["type"] == "missing" else f", not {first['input']!r}"
        message = f"{name}: {first['msg'][:1].lower()}{first['msg'][1:]}{given}"
        raise _wrong(path, document, loc, message) from None
    if profile.digest != program.digest:
        raise _wrong(
            path,
            document,
            ("digest",),
            f"this is the profile of another pipeline than {program.path} builds now; "
            "take it again with `alpine profile`",
        )
    missing = [name for name in program.graph.modules if name not in profile.modules]
    if missing:
        message = f"no cost for module '{missing[0]}'; add it, or run `alpine profile` again"
        raise _wrong(path, document, ("modules",), message)
    known = {edge.key for edge in program.graph.edges}
    for module, gates in profile.packets.items():
        for gate in gates:
            if (module, gate) not in known:
                message = f"'{module}' has no connected output gate {gate}; remove the line"
                raise _wrong(path, document, ("packets", module, gate), message)
    return profile


def _parse(path: Path) -> Any:
    try:
        document = YAML(typ="rt").load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AlpineError(
            f"{path}: {error.strerror or error}; run `alpine profile`, or assume costs (--even)"
        ) from None
    except UnicodeDecodeError as error:
        raise AlpineError(f"{path}: not UTF-8 text at byte {error.start}") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = Place(str(path), mark.line + 1, mark.column + 1) if mark else Place(str(path), 1, 1)
        problem = (error.problem or error.context or "not YAML").splitlines()[0]
        raise AlpineError(f"{where}: {problem}") from None
    except YAMLError as error:
        raise AlpineError(f"{path}:1:1: {str(error).splitlines()[0]}") from None
    if not isinstance(document, Mapping):
        raise AlpineError(f"{path}:1:1: expected a mapping, as `alpine profile` writes it")
    return document


def _plain(node: Any) -> Any:
    """Without the loader's own types, which tell places."""
    if isinstance(node, Mapping):
        return {_plain(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def _wrong(path: Path, document: Any, loc: tuple[Any, ...], message: str) -> AlpineError:
    """An error at the innermost key of ``loc`` that the document has."""
    line, column, node = 0, 0, document
    for key in loc:
        if not isinstance(node, Mapping) or key not in node:
            break
        line, column = node.lc.key(key)  # type: ignore[attr-defined]  # of ruamel.yaml's mappings
        node = node[key]
    return AlpineError(f"{Place(str(path), line + 1, column + 1)}: {message}")

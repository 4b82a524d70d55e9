# SPDX-License-Identifier: BSD-3-Clause
"""From a script to a program: its graph, its classes of traffic and its objectives."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path as FilePath

from alpine.errors import AlpineError
from alpine.graph import Path, Place
from alpine.language import Alpine, Attachment
from alpine.objectives import Kind, Member, Policy
from alpine.program import Program
from alpine.wiring import Wiring
from bess_plugins.script.recording import Recorder, Recording

__all__ = ["load"]


def load(path: FilePath | str, variables: Mapping[str, str] | None = None) -> Program:
    """Read a script. Raises ``ScriptError`` where it can't be run, ``AlpineError`` where it runs
    but what it says about classes and objectives makes no sense. What it prints goes to stderr, for
    standard output may be where the new script goes."""
    recorder = Recorder(path, variables=variables)
    alpine = Alpine(recorder)
    with redirect_stdout(sys.stderr):
        recording = recorder.run({"alpine": alpine})
    wiring = Wiring(recording.modules, recording.edges, recorder.path)
    has_objectives = alpine.first is not None
    if has_objectives:
        _check_own_scheduling(recording, recorder.path)
        _check_reachable(wiring)
    classes = _classes(alpine, wiring)
    return Program(
        path=recorder.path,
        source=recorder.source,
        graph=wiring.graph,
        paths=(*classes, *_implicit(classes, wiring)),
        objective=_Objectives(alpine).tree() if has_objectives else None,
        workers=_workers(alpine, recording),
        digest=_digest(recording),
        recording=recording,
        workers_place=alpine.workers_place,
    )


def _check_own_scheduling(recording: Recording, path: str) -> None:
    own = [(tc.line, tc.column) for tc in recording.tcs]
    own += [(task.line, task.column) for task in recording.tasks]
    if own:
        raise AlpineError(
            f"{Place(path, *min(own))}: the script schedules here, and Alpine writes the scheduler "
            "tree; remove this or the objectives"
        )


def _check_reachable(wiring: Wiring) -> None:
    wired = {name for edge in wiring.graph.edges for name in (edge.source, edge.target)}
    unreached = wired - wiring.reachable()
    lost = [name for name in wiring.graph.modules if name in unreached]
    if lost:
        raise AlpineError(
            f"{wiring.graph.modules[lost[0]].place}: no input leads to {lost[0]}, so nothing will "
            "ever run it; connect it, or take it out"
        )


def _classes(alpine: Alpine, wiring: Wiring) -> tuple[Path, ...]:
    paths: list[Path] = []
    ways: dict[tuple[str, tuple[tuple[str, int], ...]], str] = {}
    for statement in alpine.classes.values():
        try:
            edges = wiring.follow(statement.path)
        except AlpineError as error:
            raise AlpineError(
                f"{statement.place}: the path of class {statement.name!r} is none: {error}"
            ) from None
        path = Path(statement.name, statement.path[0].module, edges, place=statement.place)
        other = ways.setdefault(_way(path), path.name)
        if other != path.name:
            raise AlpineError(
                f"{statement.place}: class {path.name!r} takes the same path as {other!r} "
                f"({path}); a path can be one class"
            )
        paths.append(path)
    return tuple(paths)


def _way(path: Path) -> tuple[str, tuple[tuple[str, int], ...]]:
    return (path.input, tuple(edge.key for edge in path.edges))


def _implicit(classes: tuple[Path, ...], wiring: Wiring) -> list[Path]:
    """The paths that no class is."""
    taken = {_way(path) for path in classes}
    names = {path.name for path in classes}
    found: list[Path] = []
    for start, edges in wiring.all_paths():
        path = Path("", start, edges, implicit=True)
        if _way(path) in taken:
            continue
        name = " -> ".join(str(hop) for hop in wiring.hops(start, edges))
        while name in names:
            name += " (unnamed)"
        names.add(name)
        found.append(Path(name, start, edges, implicit=True))
    return found


def _workers(alpine: Alpine, recording: Recording) -> int:
    made, said = len(recording.workers), alpine.worker_count
    if made and said is not None and made != said:
        last = recording.workers[-1]
        raise AlpineError(
            f"{Place(recording.path, last.line, last.column)}: the script adds {made} workers and "
            f"says alpine.workers({said}); remove one of the two"
        )
    return said or made or 1


def _digest(recording: Recording) -> str:
    content = (
        sorted((m.name, m.mclass, sorted(m.arg.items()), m.tasks) for m in recording.modules),
        sorted((e.source, e.ogate, e.target, e.igate) for e in recording.edges),
    )
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]


class _Objectives:
    """The tree that attachments form."""

    def __init__(self, alpine: Alpine) -> None:
        self._policies = alpine.policies
        self._classes = {name: index for index, name in enumerate(alpine.classes)}
        self._places = {name: statement.place for name, statement in alpine.classes.items()}
        self._places |= {name: statement.place for name, statement in self._policies.items()}
        self._parents: dict[str, Attachment] = {}
        self._members: dict[str, list[Attachment]] = {name: [] for name in self._policies}
        for attachment in alpine.attachments:
            self._attach(attachment)

    def tree(self) -> Policy:
        """The root policy."""
        for name in self._classes:
            if name not in self._parents:
                raise AlpineError(
                    f"{self._places[name]}: class {name!r} is attached to no policy; say "
                    f"alpine.attach_tc({name!r}, parent=...), or remove it: packets of paths that "
                    "are no class have no objective"
                )
        for name, members in self._members.items():
            if not members:
                raise AlpineError(
                    f"{self._places[name]}: policy {name!r} has no members; attach classes to it, "
                    "or remove it"
                )
        self._check_cycles()
        roots = [name for name in self._policies if name not in self._parents]
        if len(roots) > 1:
            raise AlpineError(
                f"{self._places[roots[1]]}: the policies {' and '.join(map(repr, roots[:2]))} have "
                "no parent both, and only one can be the root; put one below the other, or both "
                "below a third"
            )
        return self._policy(roots[0])

    def _attach(self, new: Attachment) -> None:
        if new.child not in self._places:
            raise AlpineError(
                f"{new.place}: there is no class {new.child!r}{_known(self._classes)}"
            )
        if new.parent not in self._policies:
            what = "is a class, not a policy" if new.parent in self._classes else "is not there"
            raise AlpineError(
                f"{new.place}: the parent {new.parent!r} of {new.child!r} {what}"
                f"{_known(self._policies)}"
            )
        before = self._parents.get(new.child)
        if before is not None:
            raise AlpineError(
                f"{new.place}: class {new.child!r} is attached to {before.parent!r} already (line "
                f"{before.place.line}); a class can have one place"
            )
        kind = self._policies[new.parent].kind
        wanted, given = ("priority", new.priority), ("share", new.share)
        if kind is not Kind.PRIORITY:
            wanted, given = given, wanted
        if wanted[1] is None:
            wrong = f", not {given[0]}=" if given[1] is not None else ""
            raise AlpineError(
                f"{new.place}: {new.child!r} needs {wanted[0]}={wrong} under the {kind} policy "
                f"{new.parent!r}"
            )
        if kind is Kind.PRIORITY:
            for other in self._members[new.parent]:
                if other.priority == new.priority:
                    raise AlpineError(
                        f"{new.place}: {other.child!r} and {new.child!r} both have priority "
                        f"{new.priority}; put them under a weighted_fair policy, or give them "
                        "different priorities"
                    )
        self._parents[new.child] = new
        self._members[new.parent].append(new)

    def _check_cycles(self) -> None:
        for name in self._policies:
            way = [name]
            while way[-1] in self._parents:
                way.append(self._parents[way[-1]].parent)
                if way[-1] == name:
                    raise AlpineError(
                        f"{self._parents[name].place}: the policy {name!r} is below itself: "
                        f"{' below '.join(way)}; one of them needs another parent, or none"
                    )
                if len(way) > len(self._policies):
                    break  # a cycle that this one only leads to

    def _policy(self, name: str) -> Policy:
        statement = self._policies[name]
        members = []
        for attachment in self._members[name]:
            value = attachment.priority if attachment.share is None else attachment.share
            child = attachment.child
            members.append(
                Member(
                    float(value or 0),
                    self._classes[child] if child in self._classes else self._policy(child),
                )
            )
        return Policy(name, statement.kind, tuple(members), statement.useful, statement.place)


def _known(names: Mapping[str, object]) -> str:
    return f" (there are: {', '.join(names)})" if names else " (there is none)"

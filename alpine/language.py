# SPDX-License-Identifier: BSD-3-Clause
"""What scripts say to Alpine: the ``alpine`` object, and the statements that it notes.

A statement is checked as far as it can be alone, so that the script's line fails; what depends on
the whole script (is this a path in the end?) is for the front end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from alpine.errors import AlpineError
from alpine.graph import Place
from alpine.objectives import Kind
from alpine.wiring import Hop, Wiring
from bess_plugins.script.api import ConfError, Module
from bess_plugins.script.recording import Recorder

__all__ = ["Alpine", "Attachment", "ClassStatement", "PolicyStatement"]

_KINDS = {
    "priority": Kind.PRIORITY,
    "weighted_fair": Kind.CPU_TIME,
    "cpu_time": Kind.CPU_TIME,
    "throughput": Kind.THROUGHPUT,
}
_MAX_WORKERS = 64  # of a BESS daemon


@dataclass(frozen=True)
class ClassStatement:
    """A class of traffic, as named by the script."""

    name: str
    path: tuple[Hop, ...]
    place: Place


@dataclass(frozen=True)
class Attachment:
    """Puts a class or policy below a policy."""

    child: str
    parent: str
    priority: float | None
    share: float | None
    place: Place


@dataclass(frozen=True)
class PolicyStatement:
    """A policy; where it is put is an attachment."""

    name: str
    kind: Kind
    useful: bool
    place: Place


class Alpine:
    """The ``alpine`` of scripts."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.classes: dict[str, ClassStatement] = {}
        self.policies: dict[str, PolicyStatement] = {}
        self.attachments: list[Attachment] = []
        self.worker_count: int | None = None
        self.workers_place: Place | None = None
        self.first: Place | None = None  # of the first statement of objectives

    def add_tc(self, name: str, path: Iterable[Module | str]) -> None:
        """Name a class of traffic: the packets that take this path."""
        place = self._new_name(name)
        if isinstance(path, (str, Module)) or not isinstance(path, Iterable):
            raise ConfError(
                f"the path of class {name!r} is {path!r}; give a list of modules, such as "
                "[inc, wm, out]"
            )
        self.classes[name] = ClassStatement(name, tuple(_hop(name, m) for m in path), place)

    def add_policy(
        self,
        name: str,
        kind: str,
        parent: str | None = None,
        priority: float | None = None,
        share: float | None = None,
        useful: bool = False,
    ) -> None:
        """Create a policy, below another one if ``parent`` is given."""
        place = self._new_name(name)
        if not isinstance(kind, str) or kind not in _KINDS:
            raise ConfError(f"no policy {kind!r}; there are: {', '.join(_KINDS)}")
        if useful and _KINDS[kind] is not Kind.CPU_TIME:
            raise ConfError(
                f"useful= counts CPU time, which policy {name!r} ({kind}) doesn't share out; only "
                "weighted_fair does"
            )
        self.policies[name] = PolicyStatement(name, _KINDS[kind], bool(useful), place)
        if parent is not None:
            self.attachments.append(_attachment(name, parent, priority, share, place))
        elif priority is not None or share is not None:
            raise ConfError(
                f"policy {name!r} has a priority or share, but no parent= to have it in"
            )

    def attach_tc(
        self,
        name: str,
        parent: str,
        priority: float | None = None,
        share: float | None = None,
    ) -> None:
        """Put a class below a policy."""
        place = self._here()
        if not isinstance(name, str):
            raise ConfError(f"attach_tc takes the name of a class, not {name!r}")
        if name in self.policies:
            raise ConfError(
                f"{name!r} is a policy: give add_policy its parent=, attach_tc is for classes"
            )
        self.attachments.append(_attachment(name, parent, priority, share, place))

    def all_paths(self) -> list[list[Module]]:
        """Every path from an input to an exit of what is connected so far."""
        wiring = Wiring(self._recorder.modules(), self._recorder.edges(), self._recorder.path)
        try:
            paths = wiring.all_paths()
        except AlpineError as error:
            raise ConfError(str(error)) from None
        return [[self._bound(hop) for hop in wiring.hops(start, edges)] for start, edges in paths]

    def workers(self, count: int) -> None:
        """Spread the tasks over this many workers."""
        if isinstance(count, bool) or not isinstance(count, int):
            raise ConfError(f"workers({count!r}): must be an integer")
        if not 1 <= count <= _MAX_WORKERS:
            raise ConfError(f"workers({count}): must be 1 to {_MAX_WORKERS}")
        if self.worker_count is not None:
            raise ConfError(f"workers({self.worker_count}) was said before; say it once")
        self.worker_count = count
        self.workers_place = Place(self._recorder.path, *self._recorder.place())

    def _bound(self, hop: Hop) -> Module:
        module = self._recorder.module(hop.module)
        return module if hop.ogate is None else module * hop.ogate

    def _here(self) -> Place:
        place = Place(self._recorder.path, *self._recorder.place())
        self.first = self.first or place
        return place

    def _new_name(self, name: str) -> Place:
        if not isinstance(name, str) or not name:
            raise ConfError(f"a name must be a string that is not empty, not {name!r}")
        taken = self.classes.get(name) or self.policies.get(name)
        if taken is not None:
            what = "class" if name in self.classes else "policy"
            raise ConfError(
                f"the name {name!r} is taken by the {what} of line {taken.place.line}; "
                "choose another one"
            )
        return self._here()


def _hop(name: str, module: Module | str) -> Hop:
    if isinstance(module, Module):
        return Hop(module.name, module.ogate)
    if isinstance(module, str):
        return Hop(module)
    raise ConfError(f"the path of class {name!r} contains {module!r}, which is no module")


def _attachment(
    child: str, parent: str, priority: float | None, share: float | None, place: Place
) -> Attachment:
    if not isinstance(parent, str):
        raise ConfError(f"the parent of {child!r} is the name of a policy, not {parent!r}")
    if parent == child:
        raise ConfError(f"{child!r} can't be below itself")
    if priority is not None and share is not None:
        raise ConfError(
            f"{child!r} has both priority= and share=; under a priority policy give the first, "
            "under others the second"
        )
    for what, value in (("priority", priority), ("share", share)):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ConfError(f"{what} of {child!r} must be a number, not {value!r}")
        if not _is_finite(value) or (what == "share" and value <= 0):
            right = "a positive number" if what == "share" else "a finite number"
            raise ConfError(f"{what} of {child!r} is {value}; must be {right}")
    return Attachment(child, parent, priority, share, place)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        return False

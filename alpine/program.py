# SPDX-License-Identifier: BSD-3-Clause
"""A script as Alpine understood it."""

from __future__ import annotations

from dataclasses import dataclass, field

from alpine.graph import ModuleGraph, Path, Place
from alpine.objectives import Policy
from bess_plugins.script.recording import Recording

__all__ = ["Program"]


@dataclass(frozen=True)
class Program:
    """``paths`` are the classes that the script names, and one for each path that it leaves out.

    ``objective`` is None where the script says nothing to Alpine. ``digest`` tells this pipeline
    from another: it covers modules, their arguments and connections, not comments or objectives.
    ``recording`` is what the script did: what is where in its text. ``workers_place`` is where it
    says how many ``workers`` there are; None where it doesn't.
    """

    path: str
    source: str
    graph: ModuleGraph
    paths: tuple[Path, ...]
    objective: Policy | None
    workers: int
    digest: str
    recording: Recording = field(default_factory=Recording)
    workers_place: Place | None = None

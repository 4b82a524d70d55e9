# SPDX-License-Identifier: BSD-3-Clause
"""From a plan to a script: the user's own, with queues and a scheduler tree and without Alpine."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

from alpine.errors import AlpineError
from alpine.graph import Place
from alpine.plan import NewQueue, Plan
from alpine.program import Program
from alpine.removal import bodies, find_removable, first_line
from alpine.section import queues_section, schedule_section, tasks_of
from alpine.text import Text
from bess_plugins.script import ScriptError
from bess_plugins.script.recording import Recording, record_script
from bess_plugins.script.source_map import Translation
from bess_plugins.script.sugar import translate

__all__ = ["emit", "names_in_use"]

_ARROW = "->"


def names_in_use(program: Program) -> set[str]:
    """What a new queue or traffic class may not be called."""
    return {*program.graph.modules, *re.findall(r"\w+", program.source)}


def emit(program: Program, plan: Plan) -> str:
    """The script that does what the plan says on any BESS daemon.

    Raises ``AlpineError`` where statements for Alpine can't be told from the rest.
    """
    _check_names(program, plan)
    translation = translate(program.source)
    tree = translation.compile(program.path)
    text = Text(program.source)
    removable = find_removable(tree, _effects(program, translation), program.path)
    if not removable and plan == Plan((), (), plan.polling):
        return program.source
    text.remove(tree, removable)
    rewired = _put_on_arrows(program, plan.queues, tree, text)
    body = text.render().rstrip()
    sections = [
        queues_section(program, rewired),
        schedule_section(program, plan),
    ]
    parts = [part for part in (body, *sections) if part]
    result = "\n\n".join(parts) + "\n" if parts else ""
    _check_result(program, plan, result)
    return result


def _check_names(program: Program, plan: Plan) -> None:
    used = names_in_use(program)
    edges = set(program.graph.edges)
    for queue in plan.queues:
        if not queue.name.isidentifier() or queue.name in used:
            raise AlpineError(
                f"{program.path}: a queue can't be called {queue.name!r}: the script has that name"
            )
        if queue.edge not in edges:
            raise AlpineError(
                f"{program.path}: no {queue.edge} without a queue of the plan's is there to put "
                f"{queue.name} on"
            )
        edges.remove(queue.edge)
        used.add(queue.name)


def _effects(program: Program, translation: Translation) -> set[tuple[int, int]]:
    """Where the script builds something, in bytes from 1, whether that ran or not."""
    lines = program.source.split("\n")
    recording = program.recording
    places = {(a, translation.origin(a, b) + 1) for a, b in translation.arrows}
    places |= {(module.line, module.column) for module in recording.modules}
    places |= {(port.line, port.column) for port in recording.ports}
    places |= {(edge.line, edge.column) for edge in recording.edges}
    places |= {(worker.line, worker.column) for worker in recording.workers}
    return {
        (line, len(lines[line - 1][: column - 1].encode()) + 1)
        for line, column in places
        if 0 < line <= len(lines) and column
    }


def _put_on_arrows(
    program: Program, queues: Sequence[NewQueue], tree: ast.Module, text: Text
) -> list[NewQueue]:
    """Put queues on arrows that ran once; return those that have to go elsewhere."""
    made = {(e.source, e.ogate): e.made for e in program.recording.edges}
    declared: dict[ast.stmt, list[str]] = {}
    rest: list[NewQueue] = []
    for queue in queues:
        place = queue.edge.place or Place(program.path)
        if made.get(queue.edge.key) != 1 or not place.line or not place.column:
            rest.append(queue)
            continue
        column = len(text.line(place.line)[: place.column - 1].encode())
        follows = text.after(place.line, column)
        if not follows.startswith(_ARROW):
            rest.append(queue)
            continue
        statement = _statement_at(tree, place.line, column)
        name = queue.name
        starts_line = not text.before(first_line(statement), statement.col_offset).strip()
        if not starts_line or text.after(statement.lineno, statement.col_offset).startswith("elif"):
            name = f"{name}::Queue()"  # there is no line before it for a declaration
        else:
            declared.setdefault(statement, []).append(name)
        gap = " " if follows[len(_ARROW) :][:1] in (" ", "\\", "") else ""
        text.insert(text.offset(place.line, column) + len(_ARROW), f"{gap}{name}{gap}{_ARROW}")
    for statement, names in declared.items():
        line = first_line(statement)
        indent = text.before(line, statement.col_offset)
        text.insert_line(line, f"{indent}{', '.join(names)}::Queue()")
    return rest


def _statement_at(tree: ast.Module, line: int, column: int) -> ast.stmt:
    """The innermost statement around a place."""
    found: ast.AST = tree
    while True:
        inner = [
            statement
            for body in bodies(found)
            for statement in body
            if (statement.lineno, statement.col_offset) <= (line, column)
            and (line, column) < (statement.end_lineno or 0, statement.end_col_offset or 0)
        ]
        if not inner:
            assert isinstance(found, ast.stmt)
            return found
        found = inner[0]


def _check_result(program: Program, plan: Plan, result: str) -> None:
    """Run the new script as well: its graph has to be the old one with the new queues."""
    try:
        after = record_script(program.path, result, program.recording.variables)
    except ScriptError as error:
        line = result.split("\n")[error.line - 1].strip() if error.line else ""
        raise AlpineError(
            f"{program.path}: without its statements for Alpine the script fails at {line!r}: "
            f"{error.message}; keep what the pipeline needs apart from what Alpine needs"
        ) from None
    wanted, found = _expected(program, plan), _wiring(after)
    modules = _names(after) - _names(program.recording)
    attached = {task.module for task in after.tasks} - {t.module for t in program.recording.tasks}
    if attached != {task.module for root in plan.roots for task in tasks_of(root)}:
        raise AlpineError(
            f"{program.path}: the script ends before the schedule at its end; let it run to its end"
        )
    if wanted != found or sorted(modules) != sorted(queue.name for queue in plan.queues):
        wrong = sorted(wanted ^ found)
        what = " -> ".join(str(part) for part in wrong[0]) if wrong else ", ".join(modules)
        raise AlpineError(
            f"{program.path}: without its statements for Alpine the script builds another pipeline "
            f"({what}); keep what the pipeline needs apart from what Alpine needs"
        )


def _names(recording: Recording) -> set[str]:
    return {module.name for module in recording.modules}


def _wiring(recording: Recording) -> set[tuple[str, int, int, str]]:
    return {(e.source, e.ogate, e.igate, e.target) for e in recording.edges}


def _expected(program: Program, plan: Plan) -> set[tuple[str, int, int, str]]:
    edges = _wiring(program.recording)
    for queue in plan.queues:
        edge = queue.edge
        edges -= {(edge.source, edge.ogate, edge.igate, edge.target)}
        edges |= {
            (edge.source, edge.ogate, 0, queue.name),
            (queue.name, 0, edge.igate, edge.target),
        }
    return edges

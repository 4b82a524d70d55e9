# SPDX-License-Identifier: BSD-3-Clause
"""What Alpine adds at the end of a script: queues that no arrow could take, and the scheduler."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from alpine.errors import AlpineError
from alpine.graph import Place
from alpine.plan import NewQueue, Plan, TcNode, TcTask
from alpine.program import Program
from bess_plugins.script.records import WorkerRecord

__all__ = ["queues_section", "schedule_section", "tasks_of"]

_POLLING = (
    "# The shares count empty polls too. Workers of e2d pass an idle task by unless told to poll;\n"
    "# those of bessd always poll.\n"
    "polling = 'polling' if 'e2d ' in str(bess.get_version()) else ''"
)


def queues_section(program: Program, queues: Sequence[NewQueue]) -> str:
    """Statements that put queues on connections as they are in the end."""
    if not queues:
        return ""
    lines = [
        "# Queues on connections that no line of their own makes.",
        f"{', '.join(queue.name for queue in queues)}::Queue()",
    ]
    bound = program.recording.bound
    for queue in queues:
        edge = queue.edge
        lines.append(f"bess.disconnect_modules({edge.source!r}, {edge.ogate})")
        if edge.source in bound and edge.target in bound:
            source = f"{edge.source}:{edge.ogate}" if edge.ogate else edge.source
            target = f"{edge.igate}:{edge.target}" if edge.igate else edge.target
            lines.append(f"{source} -> {queue.name} -> {target}")
        else:
            for ends, ogate, igate in (
                ((edge.source, queue.name), edge.ogate, 0),
                ((queue.name, edge.target), 0, edge.igate),
            ):
                gates = f", {ogate}, {igate}" if ogate or igate else ""
                lines.append(f"bess.connect_modules({', '.join(map(repr, ends))}{gates})")
    return "\n".join(lines)


def schedule_section(program: Program, plan: Plan) -> str:
    """Statements that make workers and the scheduler tree."""
    if not plan.roots:
        return ""
    return "\n".join(_Schedule(program, plan).lines())


class _Schedule:
    def __init__(self, program: Program, plan: Plan) -> None:
        self._program, self._plan = program, plan
        self._bound = program.recording.bound | {queue.name for queue in plan.queues}
        self._tasks = {module.name: module.tasks for module in program.recording.modules}

    def lines(self) -> Iterator[str]:
        plan = self._plan
        kinds = {node.policy for root in plan.roots for node in _nodes(root)}
        about = [
            text
            for policy, text in (
                ("priority", "the lower priority goes first"),
                ("weighted_fair", "shares are ratios"),
            )
            if policy in kinds
        ]
        yield f"# The schedule, by Alpine{': ' if about else ''}{', '.join(about)}."
        wids: list[int | None] = list(self._own_workers())
        own = bool(wids)
        if not own:
            several = plan.polling or len(plan.roots) > 1
            wids = list(range(len(plan.roots))) if several else [None]
            if plan.polling:
                yield from _POLLING.split("\n")
        for wid, root in zip(wids, plan.roots, strict=True):
            if not own and wid is not None:
                yield from self._new_worker(wid)
            yield from self._subtree(root, "" if wid is None else f"wid={wid}")

    def _own_workers(self) -> list[int]:
        """The script's workers, if it adds any."""
        workers = self._program.recording.workers
        if not workers:
            return []
        if len(workers) < len(self._plan.roots):
            raise AlpineError(
                f"{self._place(workers[-1])}: the script adds {len(workers)} workers, and the "
                f"schedule needs {len(self._plan.roots)}; add them here, or none at all"
            )
        for worker in workers:
            if self._plan.polling and worker.scheduler != "polling":
                raise AlpineError(
                    f"{self._place(worker)}: this schedule needs workers that poll; remove this "
                    "line, and Alpine adds them, or give scheduler='polling'"
                )
        return sorted(worker.wid for worker in workers)[: len(self._plan.roots)]

    def _place(self, worker: WorkerRecord) -> Place:
        return Place(self._program.path, worker.line, worker.column)

    def _new_worker(self, wid: int) -> Iterator[str]:
        """Worker 0 starts by itself: with its first class, and in bessd as soon as a connection is
        taken apart, after which it can't be added."""
        if wid:
            scheduler = ", scheduler=polling" if self._plan.polling else ""
            yield f"bess.add_worker({wid}, {wid}{scheduler})"
        elif self._plan.polling:
            yield "if polling:"
            yield "    bess.add_worker(0, 0, scheduler=polling)"

    def _subtree(self, child: TcNode | TcTask, where: str) -> Iterator[str]:
        if isinstance(child, TcTask):
            yield from self._task(child, where or "wid=0")
            return
        resource = f", resource={child.resource!r}" if child.resource else ""
        comma = ", " if where else ""
        yield f"bess.add_tc({child.name!r}, {child.policy!r}{comma}{where}{resource})"
        value_name = {"priority": "priority", "weighted_fair": "share"}.get(child.policy)
        for value, inner in child.children:
            value_given = f", {value_name}={value}" if value_name and value is not None else ""
            yield from self._subtree(inner, f"parent={child.name!r}{value_given}")

    def _task(self, task: TcTask, where: str) -> Iterator[str]:
        comment = f"  # {task.comment}" if task.comment else ""
        count = self._tasks.get(task.module, 1)
        if count <= 1:
            yield f"{self._attach(task.module, where)}{comment}"
            return
        group = f"{task.module}_tasks"
        yield f"bess.add_tc({group!r}, 'round_robin', {where}){comment}"
        yield f"for task in range({count}):"
        yield f"    {self._attach(task.module, f'parent={group!r}, module_taskid=task')}"

    def _attach(self, module: str, where: str) -> str:
        if module in self._bound:
            return f"{module}.attach_task({where})"
        return f"bess.attach_task({module!r}, {where})"


def tasks_of(child: TcNode | TcTask) -> Iterator[TcTask]:
    """Tasks below a node."""
    if isinstance(child, TcTask):
        yield child
        return
    for _, inner in child.children:
        yield from tasks_of(inner)


def _nodes(child: TcNode | TcTask) -> Iterator[TcNode]:
    if isinstance(child, TcNode):
        yield child
        for _, inner in child.children:
            yield from _nodes(inner)

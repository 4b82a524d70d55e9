# SPDX-License-Identifier: BSD-3-Clause
"""What a running schedule achieves, beside what was promised and predicted.

Everything but ``Meter`` is a function of two samples. A class's CPU time is that of the tasks on
its way, each divided among the classes that pass it in the proportion of what their packets cost
there; a task's polls in vain are divided alike (section 5.3.2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alpine.errors import AlpineError
from alpine.flows import Flow, node_flows
from alpine.graph import Forest, Node
from alpine.objectives import Kind, Policy
from alpine.plan import QUEUE_PACKETS, Plan
from alpine.sample import Growth, ModuleUse, Sample, TaskUse, between, daemon_errors, read_sample
from alpine.schedule import Problem, Schedule, Task
from bess_plugins.client import Client

__all__ = [
    "ClassReading",
    "MemberReading",
    "Meter",
    "PolicyReading",
    "Reading",
    "TaskReading",
    "Wiring",
    "read_off",
    "slo_error",
]

Key = tuple[str, int]


@dataclass(frozen=True)
class ClassReading:
    """A class of traffic. ``cores`` is its CPU time, ``latency_bound_s`` that of full queues."""

    name: str
    pps: float
    predicted_pps: float
    cores: float
    latency_bound_s: float


@dataclass(frozen=True)
class MemberReading:
    """What a policy promises a class or policy, and what it got, as parts of the policy's whole."""

    name: str
    wanted: float
    measured: float


@dataclass(frozen=True)
class PolicyReading:
    """A policy with shares. ``error`` is the sum of the members' differences (section 5.5.2)."""

    name: str
    kind: Kind
    members: tuple[MemberReading, ...]
    error: float


@dataclass(frozen=True)
class TaskReading:
    """A task. Parts are of its worker's time in its level; costs are cycles per packet it brings.

    ``cost`` is without polls in vain; it is None where too few packets came to tell.
    """

    module: str
    part: float
    predicted_part: float
    pps: float
    idle: float
    cost: float | None
    predicted_cost: float


@dataclass(frozen=True)
class Reading:
    """A schedule, measured over some seconds."""

    seconds: float
    classes: tuple[ClassReading, ...]
    policies: tuple[PolicyReading, ...]
    tasks: tuple[TaskReading, ...]

    @property
    def worst_error(self) -> float:
        """Of all policies."""
        return max((policy.error for policy in self.policies), default=0.0)


@dataclass(frozen=True)
class Wiring:
    """Where a plan has put things: the queue on an edge, the module whose task has which head."""

    queues: Mapping[Key, str]
    modules: Mapping[int, str]

    @staticmethod
    def of(schedule: Schedule, plan: Plan) -> Wiring:
        """Of a schedule and the plan that was made from it."""
        queues = {queue.edge.key: queue.name for queue in plan.queues}
        modules = {}
        for task in schedule.tasks:
            node = schedule.problem.forest.nodes[task.head]
            queue = None if node.edge is None else queues.get(node.edge.key)
            modules[task.head] = queue or node.module
        return Wiring(queues, modules)

    def arrived(self, edges: Mapping[Key, float]) -> dict[Key, float]:
        """Packets at the far ends of edges: where there is a queue, what came out of it."""
        return {
            key: edges.get((self.queues[key], 0), 0.0) if key in self.queues else count
            for key, count in edges.items()
        }


def slo_error(wanted: Sequence[float], measured: Sequence[float]) -> float:
    """The error of section 5.5.2: differences of normalised shares, summed up."""
    whole, got = sum(wanted), sum(measured)
    return sum(
        abs((m / got if got else 0.0) - w / whole) for w, m in zip(wanted, measured, strict=True)
    )


_Spending = tuple[dict[int, float], ...]  # for each task, cycles per second of each class


def _spending(
    problem: Problem, tasks: Sequence[Task], flow: Flow, mix: Sequence[float]
) -> _Spending:
    """What packets are predicted to cost, divided among classes by the rates ``mix``."""
    costs, nodes = problem.costs, problem.forest.nodes
    task_of = {n: number for number, task in enumerate(tasks) for n in task.nodes}
    spent: _Spending = tuple({} for _ in tasks)

    def spend(number: int, node: Node, rate: float, cycles: float) -> None:
        whole = sum(mix[path] for path in node.classes)
        for path in node.classes:
            part = mix[path] / whole if whole else 1 / len(node.classes)
            spent[number][path] = spent[number].get(path, 0.0) + rate * cycles * part

    for node in nodes:
        number = task_of[node.index]
        cycles = 0.0 if node.own_task else costs.module[node.module]
        before = task_of[node.parent] if node.parent >= 0 else number
        if before != number:  # by way of a queue
            enqueue = costs.module[node.module] if node.own_task else costs.enqueue
            spend(before, node, flow.sent[node.index], enqueue)
            cycles += costs.dequeue
            if tasks[before].worker != tasks[number].worker:
                cycles += costs.crossing
        spend(number, node, flow.arrived[node.index], cycles)
    return spent


def read_off(
    schedule: Schedule,
    wiring: Wiring,
    grown: Growth,
    queue_packets: Mapping[str, int] | None = None,
) -> Reading:
    """What was achieved between two samples. ``queue_packets`` are sizes of queues."""
    problem = schedule.problem
    forest, hz = problem.forest, problem.costs.hz
    arrived = wiring.arrived(grown.edges)
    flow = node_flows(forest, grown.edges, arrived)
    mix = node_flows(forest, grown.edges, arrived, lossless=True).rates(forest)
    uses = [grown.tasks.get(wiring.modules[task.head], TaskUse()) for task in schedule.tasks]
    spending = _spending(problem, schedule.tasks, flow, mix)
    offered = _offered(problem)
    expected = _spending(problem, schedule.tasks, offered, problem.rates)
    time = dict.fromkeys(range(len(forest.paths)), 0.0)
    useful = dict(time)
    for use, spent, would in zip(uses, spending, expected, strict=True):
        shares = spent if sum(spent.values()) > 0 else would
        whole = sum(shares.values())
        for path, amount in shares.items():
            time[path] += use.cycles * amount / whole if whole else 0.0
        for path, amount in spent.items():
            useful[path] += amount
    rates = dict(enumerate(flow.rates(forest)))
    bounds = _latency_bounds(schedule, wiring, uses, queue_packets or {})
    classes = tuple(
        ClassReading(
            path.name, rates[number], schedule.throughput_pps[number], time[number] / hz, bound
        )
        for number, (path, bound) in enumerate(zip(forest.paths, bounds, strict=True))
    )
    busy: dict[tuple[int, int], float] = {}
    for task, use in zip(schedule.tasks, uses, strict=True):
        level = (task.worker, task.level)
        busy[level] = busy.get(level, 0.0) + use.cycles
    tasks = []
    for task, use, would in zip(schedule.tasks, uses, expected, strict=True):
        module = wiring.modules[task.head]
        peers = busy[task.worker, task.level]
        predicted = sum(would.values()) / (offered.arrived[task.head] or 1.0)
        idle, cost = _idle(task, use, grown.modules.get(module), predicted)
        part = use.cycles / peers if peers else 0.0
        tasks.append(TaskReading(module, part, task.weight, use.packets, idle, cost, predicted))
    return Reading(
        max((use.seconds for use in uses), default=0.0),
        classes,
        tuple(_policies(problem.objective, forest, time, useful, rates)),
        tuple(tasks),
    )


def _offered(problem: Problem) -> Flow:
    """A unit of offered traffic, none of which is lost."""
    through = tuple(sum(problem.rates[c] for c in node.classes) for node in problem.forest.nodes)
    return Flow(through, through)


def _idle(
    task: Task, use: TaskUse, known: ModuleUse | None, predicted: float
) -> tuple[float, float | None]:
    """The part of a task's time that it polled in vain, and what a packet cost it otherwise.

    Where the daemon does not account for it, a task that is to poll is taken to do so for as long
    as its packets are not predicted to need.
    """
    if not use.cycles or not use.packets:
        return (1.0 if use.cycles else 0.0), None
    if known is not None and known.task_packets:
        idle = min(1.0, known.idle_cycles / use.seconds / use.cycles)
    elif task.polls:
        return max(0.0, 1 - use.packets * predicted / use.cycles), None
    else:
        idle = 0.0
    return idle, use.cycles * (1 - idle) / use.packets


def _latency_bounds(
    schedule: Schedule,
    wiring: Wiring,
    uses: Sequence[TaskUse],
    queue_packets: Mapping[str, int],
) -> list[float]:
    """For each path, how long it takes to empty the queues on it at the rates measured."""
    forest = schedule.problem.forest
    # By edge: a task below a merge has further heads, behind the same queue.
    waits: dict[Key, float] = {}
    for task, use in zip(schedule.tasks, uses, strict=True):
        edge = forest.nodes[task.head].edge
        if edge is None:
            continue
        size = queue_packets.get(wiring.modules[task.head], QUEUE_PACKETS)
        wait = size / use.packets if use.packets else float("inf")
        waits[edge.key] = waits.get(edge.key, 0.0) + wait
    return [sum(waits.get(edge.key, 0.0) for edge in path.edges) for path in forest.paths]


def _policies(
    policy: Policy,
    forest: Forest,
    time: Mapping[int, float],
    useful: Mapping[int, float],
    rates: Mapping[int, float],
) -> list[PolicyReading]:
    found: list[PolicyReading] = []
    if policy.kind is not Kind.PRIORITY:
        of = rates if policy.kind is Kind.THROUGHPUT else useful if policy.useful else time
        wanted = [member.value for member in policy.members]
        got = [
            sum(of[c] for c in m.child.classes()) if isinstance(m.child, Policy) else of[m.child]
            for m in policy.members
        ]
        whole = sum(got)
        members = tuple(
            MemberReading(
                m.child.name if isinstance(m.child, Policy) else forest.paths[m.child].name,
                want / sum(wanted),
                have / whole if whole else 0.0,
            )
            for m, want, have in zip(policy.members, wanted, got, strict=True)
        )
        found.append(PolicyReading(policy.name, policy.kind, members, slo_error(wanted, got)))
    for member in policy.members:
        if isinstance(member.child, Policy):
            found += _policies(member.child, forest, time, useful, rates)
    return found


class Meter:
    """Reads the counters of one schedule that runs on a daemon."""

    def __init__(
        self, client: Client, modules: Sequence[str], schedule: Schedule, plan: Plan
    ) -> None:
        """``modules``: those of the script, without the plan's queues."""
        self.client = client
        self.schedule = schedule
        self.wiring = Wiring.of(schedule, plan)
        self._modules = [*modules, *self.wiring.queues.values()]
        self._check()
        self.queue_packets = self._sizes()

    def sample(self, *, cycles: bool = False) -> Sample:
        """All counters now."""
        return read_sample(self.client, self._modules, cycles=cycles)

    def reading(self, before: Sample, after: Sample) -> Reading:
        """What was achieved from one sample to the next."""
        return read_off(self.schedule, self.wiring, between(before, after), self.queue_packets)

    def _check(self) -> None:
        """That what runs is what is to be measured."""
        targets = self.sample().targets
        for node in self.schedule.problem.forest.nodes:
            if node.edge is None:
                continue
            queue = self.wiring.queues.get(node.edge.key)
            expected = {node.edge.key: queue or node.module}
            if queue is not None:
                expected[(queue, 0)] = node.module
            for key, target in expected.items():
                if targets.get(key) != target:
                    raise AlpineError(
                        f"the daemon at {self.client.address} runs another pipeline: "
                        f"{key[0]}:{key[1]} leads to {targets.get(key) or 'nowhere'}, not to "
                        f"{target}; start this one with `alpine run`"
                    )

    def _sizes(self) -> dict[str, int]:
        sizes = {}
        for queue in self.wiring.queues.values():
            with daemon_errors(self.client):
                found = self.client.run_module_command(
                    queue, "get_status", "QueueCommandGetStatusArg"
                )
            sizes[queue] = int(found["size"])
        return sizes

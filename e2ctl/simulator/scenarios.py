# SPDX-License-Identifier: BSD-3-Clause
"""What section 3.6 of the dissertation measured, and ten racks, as simulations."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from e2ctl.changes import Settings, group_of
from e2ctl.igraph import Span, even_spans
from e2ctl.placement import Problem, Room, place
from e2ctl.scaling import POLICIES
from e2ctl.simulator.cluster import Cluster
from e2ctl.simulator.flows import Workload, generate
from e2ctl.simulator.model import Model, Nf, Pipeline
from e2ctl.simulator.switch import VirtualSwitch

__all__ = ["CARRIER", "DYNAMIC_BPS", "dynamic_load", "racks", "split_once"]

SIMULATED = "simulated: e2ctl.simulator, no measurement"
SPLIT_S = 2.0
# Figure 3.12. What a core of 2.6 GHz carries is assumed, so that 12.3 Gbps need about as many cores
# as the dissertation's cluster had.
CARRIER = (
    Nf("nat", 2.6e9),
    Nf("firewall", 1.5e9),
    Nf("ids", 0.65e9),
    Nf("vpn", 0.85e9),
)
NIC_BPS = 10e9
# Figure 3.11: parts of the time, and the load then.
DYNAMIC_BPS = ((0.0, 7.2e9), (0.1, 7.2e9), (0.5, 12.3e9), (0.6, 12.3e9), (1.0, 7.2e9))
# Of what instances carry, as a run begins: with room to even out what they have, and for failures.
FILL, RACKS_FILL = 0.88, 0.8


def split_once(
    strategy: str,
    *,
    seconds: float = 30.0,
    seed: int = 1,
    duration_sigma: float = 1.0,
    hop_s: float = 0.0,
    exceptions: int = Settings.exceptions,
) -> dict[str, Any]:
    """Figures 3.9 and 3.10: an NF with 1 Gbps in 10,000 flows is split at 2 s.

    ``hop_s`` is what a packet's way through another server adds to its latency.
    """
    flows = generate(Workload(2000, 5.0, 1e5, duration_sigma), seconds, seed)
    settings = Settings(exceptions=exceptions, joined=0.0, packed=0.0)
    model = Model(sample_s=0.1)
    switch = VirtualSwitch(seed=seed)
    pipeline = Pipeline(
        "one", (Nf("nf", 1e9, 2),), flows, [group_of("nf", {0: even_spans(1)[0]})], switch
    )
    cluster = Cluster(
        [pipeline],
        [Room(1, NIC_BPS), Room(1, NIC_BPS)],
        {(0, 0, 0): 0},
        policy=POLICIES[strategy](settings),
        settings=settings,
        model=model,
        # The dissertation splits at this time, and once.
        hot=lambda _, now_s: now_s >= SPLIT_S and 1 not in pipeline.groups[0].instances,
    )
    cluster.run(seconds)
    times = np.array([one["t"] for one in cluster.samples])
    loads = np.array([(*one["loads_nf"], 0.0)[:2] for one in cluster.samples])
    total = np.array([one["load_bps"] for one in cluster.samples])
    imbalance = np.abs(loads[:, 0] - loads[:, 1]) / total
    detour = np.array([one["detour_bps"] for one in cluster.samples])
    pushes = [t for t, text in cluster.events if "pushed" in text]
    group = pipeline.groups[0]
    over = next(
        (
            t
            for t, one in zip(times, cluster.samples, strict=True)
            if t > SPLIT_S + 0.2 and one["changes"] == 0
        ),
        None,
    )
    return {
        "origin": SIMULATED,
        "strategy": strategy,
        "duration_sigma": duration_sigma,
        "new_per_s": 2000,
        "active": float(np.mean([total.mean() / 1e5])),
        "t": times.tolist(),
        "loads_bps": loads.tolist(),
        "imbalance": imbalance.tolist(),
        "final_imbalance": float(imbalance[-20:].mean()),
        "balanced_10_s": _since(times, imbalance, 0.10),
        "balanced_5_s": _since(times, imbalance, 0.05),
        "detour_bps": detour.tolist(),
        "most_detour_bps": float(detour.max()),
        "latency_s": (hop_s * detour / total).tolist(),
        "most_latency_s": float((hop_s * detour / total).max()),
        "entries": [one["entries"] for one in cluster.samples],
        "most_entries": switch.most_used,
        "table": switch.table,
        "updates": switch.updates,
        "push_s": pushes[0] - SPLIT_S if pushes else None,
        "over_s": None if over is None else float(over) - SPLIT_S,
        "moved": cluster.flows_moved,
        "broken": cluster.broken,
        "new_share": group.spans[1].share if 1 in group.spans else 0.0,
        "events": cluster.events[:20],
    }


def _since(times: Any, imbalance: Any, most: float) -> float | None:
    """How long after the split it is below, and stays there on average over a second."""
    smooth = np.convolve(imbalance, np.ones(10) / 10, mode="valid")
    for i in range(len(smooth)):
        if times[i] >= SPLIT_S and smooth[i] < most:
            return float(times[i]) - SPLIT_S
    return None


def dynamic_load(
    *,
    seconds: float = 300.0,
    seed: int = 1,
    flow_bps: float = 1e6,
    mean_s: float = 5.0,
    settings: Settings | None = None,
) -> dict[str, Any]:
    """Figure 3.11: 7.2 to 12.3 Gbps and back, over the carrier's pipeline, on 68 cores."""
    low = DYNAMIC_BPS[0][1]
    profile = [(part * seconds, load / low) for part, load in DYNAMIC_BPS]
    workload = Workload(low / flow_bps / mean_s, mean_s, flow_bps)
    flows = generate(workload, seconds, seed, profile)
    chosen = settings or Settings()
    model = Model(sample_s=0.5)
    counts = [int(np.ceil(low / nf.capacity_bps / FILL)) for nf in CARRIER]
    servers = [Room(16, NIC_BPS)] * 4
    # Each server is left room to grow.
    begin = [Room(-(-sum(counts) // 4) + 1, NIC_BPS)] * 4
    places = _placed([(CARRIER, counts, low)], begin, seed)
    pipeline = _pipeline("carrier", counts, flows, VirtualSwitch(seed=seed))
    cluster = Cluster([pipeline], servers, places, settings=chosen, model=model)
    started = time.process_time()
    cluster.run(seconds)
    simulation_s = time.process_time() - started
    samples = cluster.samples
    cores = np.array([one["cores"] + len(servers) for one in samples])
    best = np.array([one["optimal"] for one in samples])
    switch = np.array([one["switch_bps"] for one in samples])
    load = np.array([one["load_bps"] for one in samples])
    dropped = np.array([one["dropped_bps"] for one in samples])
    return {
        "origin": SIMULATED,
        "servers": len(servers),
        "t": [one["t"] for one in samples],
        "load_bps": load.tolist(),
        "switch_bps": switch.tolist(),
        "cores": cores.tolist(),
        "optimal_cores": best.tolist(),
        "cores_gap": float((cores / best - 1).mean()),
        "instances_gap": float(((cores - len(servers)) / best - 1).mean()),
        "cores_gap_rising": float((cores / best - 1)[: 5 * len(cores) // 10].mean()),
        "cores_gap_top": float(
            (cores / best - 1)[5 * len(cores) // 10 : 6 * len(cores) // 10].mean()
        ),
        "switch_gap": float((switch / load - 1).mean()),
        "most_cores": int(cores.max()),
        "most_instances": max(one["instances"] for one in samples),
        "dropped": float(dropped.sum() / load.sum()),
        "broken": cluster.broken,
        "decisions": cluster.decisions,
        "controller_s": cluster.controller_s,
        "simulation_s": simulation_s,
        "most_entries": pipeline.switch.most_used,
    }


def racks(
    *,
    count: int = 10,
    seconds: float = 120.0,
    seed: int = 1,
    failures: int = 6,
    per_rack: int = 24,
) -> dict[str, Any]:
    """Racks of servers of 16 cores under a load that doubles, while servers fail."""
    servers = [Room(15, NIC_BPS)] * (count * per_rack)
    start, flow_bps = 30e9 / 2 * per_rack / 24, 10e6
    profile = [(0.0, 1.0), (0.1 * seconds, 1.0), (0.6 * seconds, 2.0), (seconds, 2.0)]
    chosen = Settings()
    model = Model(control_s=0.2, sample_s=1.0)
    counts = [int(np.ceil(start / nf.capacity_bps / RACKS_FILL)) for nf in CARRIER]
    number = 2 * count
    began = time.process_time()
    begin = [Room(-(-sum(counts) * number // len(servers)) + 1, NIC_BPS)] * len(servers)
    places = _placed([(CARRIER, counts, start)] * number, begin, seed)
    placement_s = time.process_time() - began
    pipelines = []
    switches = [VirtualSwitch(seed=seed + rack) for rack in range(count)]
    for index in range(number):
        workload = Workload(start / flow_bps / 5.0, 5.0, flow_bps)
        flows = generate(workload, seconds, seed * 1000 + index, profile)
        pipelines.append(_pipeline(f"tenant{index}", counts, flows, switches[index % count]))
    cluster = Cluster(pipelines, servers, places, settings=chosen, model=model)
    random = np.random.default_rng(seed)
    when = np.linspace(0.2, 0.8, failures) * seconds
    failing = random.choice(len(servers), failures, replace=False)
    for at, server in zip(when.tolist(), failing.tolist(), strict=True):
        cluster.at(at, lambda server=server: cluster.fail(server))  # type: ignore[misc]
    started = time.process_time()
    cluster.run(seconds)
    simulation_s = time.process_time() - started
    samples = cluster.samples
    again = [t for t, text in cluster.events if text == "all instances run again"]
    recovered = [min((t for t in again if t > at), default=None) for at in when.tolist()]
    load = np.array([one["load_bps"] for one in samples])
    dropped = np.array([one["dropped_bps"] for one in samples])
    last = samples[-10:]
    return {
        "origin": SIMULATED,
        "racks": count,
        "servers": len(servers),
        "pipelines": number,
        "failures": failures,
        "seconds": seconds,
        "t": [one["t"] for one in samples],
        "load_bps": load.tolist(),
        "instances": [one["instances"] for one in samples],
        "optimal": [one["optimal"] for one in samples],
        "dropped_bps": dropped.tolist(),
        "dropped": float(dropped.sum() / load.sum()),
        "dropped_at_the_end": float(sum(one["dropped_bps"] for one in last))
        / float(sum(one["load_bps"] for one in last)),
        "instances_gap": float(np.mean([one["instances"] / one["optimal"] - 1 for one in last])),
        "recovery_s": [
            None if t is None else t - at for t, at in zip(recovered, when.tolist(), strict=True)
        ],
        "flows_lost": cluster.flows_lost,
        "broken": cluster.broken,
        "decisions": cluster.decisions,
        "controller_s": cluster.controller_s,
        "placement_s": placement_s,
        "simulation_s": simulation_s,
        "most_entries": max(switch.most_used for switch in switches),
    }


def _pipeline(name: str, counts: Sequence[int], flows: Any, switch: VirtualSwitch) -> Pipeline:
    groups = [
        group_of(f"{name}/{nf.name}", dict(enumerate(even_spans(number))))
        for nf, number in zip(CARRIER, counts, strict=True)
    ]
    return Pipeline(name, CARRIER, flows, groups, switch)


def _placed(
    pipelines: Sequence[tuple[Sequence[Nf], Sequence[int], float]],
    servers: Sequence[Room],
    seed: int,
) -> dict[tuple[int, int, int], int]:
    """Servers of the instances that a run begins with."""
    keys: list[tuple[int, int, int]] = []
    spans: list[Span] = []
    edges: list[tuple[int, int, float]] = []
    outside: list[tuple[float, float]] = []
    for p, (nfs, counts, load) in enumerate(pipelines):
        before: list[int] = []
        for n, number in enumerate(counts):
            now = list(range(len(keys), len(keys) + number))
            for index, span in enumerate(even_spans(number)):
                keys.append((p, n, index))
                spans.append(span)
                share = load * span.share
                outside.append((share * (n == 0), share * (n == len(nfs) - 1)))
            for a in before:
                for b in now:
                    both = spans[a].meets(spans[b])
                    if both is not None:
                        edges.append((a, b, load * both.share))
            before = now
    problem = Problem(
        names=tuple(map(str, keys)),
        cores=(1,) * len(keys),
        edges=tuple(edges),
        outside=tuple(outside),
        servers=tuple(servers),
        server_names=tuple(f"s{i}" for i in range(len(servers))),
    )
    return dict(zip(keys, place(problem, seed=seed).servers, strict=True))

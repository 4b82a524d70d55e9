# SPDX-License-Identifier: BSD-3-Clause
"""Placement of small graphs where one can see what is right, and what it says otherwise."""

from __future__ import annotations

import copy
import importlib
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import e2ctl.placement
from alpine.errors import SolverError
from e2_throughput import SERVICES, Service, problem_for, rack
from e2ctl import _placement_milp
from e2ctl.placement import STRATEGIES, PlacementError, Problem, Room, place, place_one
from igraphs import chains
from twins import placement_twin as twin

G = 1e9
WIDE = 100 * G


def problem(
    cores: str | tuple[int, ...] = (),
    edges: tuple[tuple[int, int, float], ...] = (),
    servers: tuple[Room, ...] = (),
    outside: dict[int, tuple[float, float]] | None = None,
    fixed: dict[int, int] | None = None,
) -> Problem:
    units = range(len(cores))
    return Problem(
        names=tuple("abcdefghijklmnopqrstuvwxyz"[n] for n in units),
        cores=tuple(int(size) for size in cores),
        edges=edges,
        outside=tuple((outside or {}).get(n, (0.0, 0.0)) for n in units),
        servers=servers,
        server_names=tuple(f"s{n + 1}" for n in range(len(servers))),
        fixed=fixed or {},
    )


def message(problem: Problem, strategy: str = "e2") -> str:
    with pytest.raises(PlacementError) as caught:
        place(problem, strategy=strategy)
    return str(caught.value)


# Two pairs that belong together, interleaved, so that a walk along the graph parts them.
CROSSED = problem(
    "1111", ((0, 1, 1 * G), (1, 2, 1 * G), (0, 2, 9 * G), (1, 3, 9 * G)), (Room(2, WIDE),) * 2
)


# Along the graph, a and c on the first server, b and d on the second leave e over.
TIGHT = problem("33222", ((0, 2, G), (2, 1, G), (1, 3, G), (3, 4, G)), (Room(6, WIDE),) * 2)


def test_strategies_have_names() -> None:
    assert STRATEGIES == ("e2", "random", "packing", "metis", "exact")
    with pytest.raises(ValueError, match=r"no strategy 'best'; expected one of e2, random, pack"):
        place(CROSSED, strategy="best")


def test_swaps_bring_together_what_packing_parts() -> None:
    assert place(CROSSED, strategy="packing").servers == (0, 0, 1, 1)
    assert place(CROSSED, strategy="packing").cross_bps == 19 * G
    for strategy in ("e2", "exact"):
        result = place(CROSSED, strategy=strategy)
        assert result.servers[0] == result.servers[2] != result.servers[1] == result.servers[3]
        assert result.cross_bps == 2 * G
        assert result.saturation == 0.01  # 1 of 100 Gbps each way


def test_packing_follows_the_traffic_and_fills_gaps() -> None:
    graph = problem("11311", ((0, 2, G), (2, 3, G), (0, 1, G)), (Room(4, WIDE),) * 2)
    # Depth first: a, c, d (on the second server, as a and c fill the first), b, and e beside them.
    assert place(graph, strategy="packing").servers == (0, 1, 0, 1, 1)
    # It begins where traffic comes from outside only: b, a, c.
    graph = problem("111", ((1, 0, G), (0, 2, G)), (Room(2, WIDE),) * 2)
    assert place(graph, strategy="packing").servers == (0, 0, 1)


def test_random_depends_on_the_seed_alone() -> None:
    graph = chains(60, 1)
    first = place(graph, strategy="random", seed=1)
    assert first == place(graph, strategy="random", seed=1)
    assert first != place(graph, strategy="random", seed=2)
    assert first.cross_bps > place(graph, strategy="packing").cross_bps


def test_all_on_one_server_where_they_have_room() -> None:
    graph = chains(12, 3)
    for strategy in ("e2", "packing", "metis"):
        assert place(graph, strategy=strategy).cross_bps == 0


def test_nothing_to_place() -> None:
    assert place(problem()) == e2ctl.placement.Placement((), 0.0, 0.0)


def test_what_runs_stays() -> None:
    """Though it would be better beside its neighbour."""
    fixed = replace(CROSSED, fixed={0: 0, 2: 1})
    for strategy in STRATEGIES:
        servers = place(fixed, strategy=strategy).servers
        assert servers[0] == 0 and servers[2] == 1
    assert place(fixed).cross_bps == place(fixed, strategy="exact").cross_bps == 19 * G


def test_nics_force_a_spread() -> None:
    """Both fit on one server, whose NIC carries what one of them takes from outside."""
    nics = (Room(4, 10 * G),) * 2
    graph = problem("11", ((0, 1, G),), nics, {0: (8 * G, 0.0), 1: (8 * G, 0.0)})
    packed = place(graph, strategy="packing")
    assert packed.servers == (0, 0) and packed.saturation == 1.6
    for strategy in ("e2", "exact", "metis"):
        spread = place(graph, strategy=strategy)
        assert sorted(spread.servers) == [0, 1]
        assert spread.cross_bps == G and spread.saturation == 0.9  # 8 from outside, 1 from a


def test_directions_of_a_nic_are_apart() -> None:
    """10 Gbps in and 10 Gbps out fit a NIC of 10 Gbps; 11 Gbps either way don't."""
    one = (Room(4, 10 * G),)
    assert place(problem("11", (), one, {0: (10 * G, 0.0), 1: (0.0, 10 * G)})).saturation == 1
    for ways in ((11 * G, 0.0), (0.0, 11 * G)):
        with pytest.raises(PlacementError):
            place(problem("1", (), one, {0: ways}))


def test_least_excess_where_nics_cannot_do() -> None:
    """b and c must part, as cores have it, and 12 Gbps must cross: rather those of one edge."""
    rooms = (Room(2, 10 * G), Room(1, 10 * G))
    graph = problem("111", ((0, 1, 12 * G), (1, 2, 13 * G)), rooms)
    for strategy in ("e2", "exact"):
        result = place(graph, strategy=strategy)
        assert result.servers == (1, 0, 0)
        assert result.saturation == 1.2


def test_shares_of_a_rate_fill_a_nic() -> None:
    """Three thirds are not more than a whole, whatever floating point makes of them."""
    rate = 10 * G / 3 * (1 + 1e-15)
    graph = problem("111", (), (Room(3, 10 * G),) * 2, dict.fromkeys(range(3), (rate, rate)))
    result = place(graph)
    assert result.servers == (0, 0, 0) and result.saturation == 1


def test_sizes_that_only_fit_one_way() -> None:
    """Neither along the graph nor at random, but 3 + 3 and 2 + 2 + 2 do."""
    for strategy in STRATEGIES:
        servers = place(TIGHT, strategy=strategy).servers
        assert servers[0] == servers[1] != servers[2] == servers[3] == servers[4]


def test_different_servers() -> None:
    """The pair with most traffic needs the big one."""
    rooms = (Room(1, WIDE), Room(2, WIDE), Room(1, WIDE))
    graph = problem("1111", ((0, 1, G), (1, 2, 5 * G), (2, 3, 2 * G)), rooms)
    for strategy in ("e2", "exact"):
        result = place(graph, strategy=strategy)
        assert result.servers[1] == result.servers[2] == 1 and result.cross_bps == 3 * G


def test_parallel_edges_add_up_and_loops_never_cross() -> None:
    edges = ((0, 1, G), (1, 0, G), (0, 1, G), (0, 2, 2 * G), (2, 2, 50 * G))
    graph = problem("111", edges, (Room(2, 10 * G),) * 2)
    for strategy in ("e2", "exact"):
        result = place(graph, strategy=strategy)
        assert result.servers[0] == result.servers[1] != result.servers[2]
        assert result.cross_bps == 2 * G and result.saturation == 0.2


def test_cores_are_missing() -> None:
    rooms = (Room(2, WIDE),) * 2
    assert message(problem("11111", (), rooms)) == (
        "1 core is missing on all servers: the units take 5, there are 4; add servers, or place "
        "fewer instances"
    )
    assert message(problem("1", (), ())) == "there is no server for 1 units; add one"


def test_group_is_bigger_than_any_server() -> None:
    rooms = (Room(2, WIDE), Room(3, WIDE), Room(2, WIDE))
    assert message(problem("15", (), rooms)) == (
        "2 cores are missing for 'b': it takes 5 of one server, the most that one has for it are "
        "3, 's2'; divide it, or add a server with 5 cores"
    )


def test_what_runs_takes_too_much() -> None:
    assert message(problem("22", (), (Room(3, WIDE),) * 2, fixed={0: 1, 1: 1})) == (
        "1 core is missing on server 's2': the units that run there take 4, it has 3; leave only "
        "units there that it holds"
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_sizes_fit_no_way(strategy: str) -> None:
    said = message(problem("333", (), (Room(5, WIDE), Room(4, WIDE))), strategy)
    assert said == (
        "1 core is missing: the units take 9 of 9, but no way to divide them among servers fits; "
        "with 1 on 's1' more one would"
    )


def test_bandwidth_is_missing() -> None:
    rooms = (Room(4, 10 * G), Room(4, 5 * G))
    assert message(problem("1", (), rooms, {0: (12 * G, 0.0)})) == (
        "2Gbps of NIC bandwidth are missing on any server for 'a': 12Gbps come from ports outside, "
        "10Gbps are there"
    )
    assert message(problem("11", (), rooms, dict.fromkeys((0, 1), (0.0, 9 * G)))) == (
        "3Gbps of NIC bandwidth are missing on all servers: 18Gbps come to ports outside, 15Gbps "
        "are there"
    )
    assert message(problem("1", (), rooms, {0: (6 * G, 0.0)}, {0: 1})) == (
        "1Gbps of NIC bandwidth are missing on server 's2': 6Gbps come from ports outside, 5Gbps "
        "are there"
    )


def test_exact_is_for_small_graphs() -> None:
    assert message(chains(15, 1), "exact") == (
        "'exact' places up to 14 units, not 15; take another strategy"
    )
    assert place(replace(chains(15, 1), fixed={0: 0}), strategy="exact").saturation < 1


@pytest.mark.parametrize(
    ("strategy", "graph"),
    [("exact", CROSSED), ("e2", TIGHT), ("packing", TIGHT)],
)
def test_solver_gives_up(strategy: str, graph: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    def give_up(*_: object, **__: object) -> None:
        raise SolverError("no schedule")

    monkeypatch.setattr(_placement_milp, "solve_model", give_up)
    assert message(graph, strategy).startswith("HiGHS knows no placement after 60 s; ")


def test_metis_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def without(name: str, *args: Any) -> Any:
        if name == "pymetis":
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(importlib, "import_module", without)
    assert message(CROSSED, "metis") == "pymetis is not installed; `pip install pymetis`"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"names": ("a",)}, "expected as many cores and rates"),
        ({"cores": (1, 1, 1)}, "expected as many cores and rates"),
        ({"server_names": ("s1",)}, "expected as many names of servers"),
        ({"edges": ((0, 4, 1.0),)}, "an edge ends at a unit that is none of the 4"),
        ({"edges": ((-1, 0, 1.0),)}, "an edge ends at a unit that is none of the 4"),
        ({"edges": ((0, 1, -1.0),)}, "traffic is a finite number"),
        ({"edges": ((0, 1, float("inf")),)}, "traffic is a finite number"),
        ({"outside": ((0.0, float("nan")),) * 4}, "traffic is a finite number"),
        ({"outside": ((-1.0, 2.0),) * 4}, "traffic is a finite number"),
        ({"cores": (1, 1, 1, -1)}, "cores and NICs are not negative"),
        ({"servers": (Room(-2, WIDE), Room(9, WIDE))}, "cores and NICs are not negative"),
        ({"servers": (Room(2, float("nan")), Room(2, WIDE))}, "cores and NICs are not negative"),
        ({"fixed": {4: 0}}, "unit 4 is fixed to server 0; one of them is none"),
        ({"fixed": {0: 2}}, "unit 0 is fixed to server 2; one of them is none"),
        ({"fixed": {0: -1}}, "unit 0 is fixed to server -1; one of them is none"),
    ],
)
def test_numbers_make_no_sense(changes: dict[str, Any], said: str) -> None:
    wrong = replace(CROSSED, **changes)
    with pytest.raises(ValueError, match=said):
        place(wrong)
    with pytest.raises(ValueError, match=said):
        place_one(wrong, 0, [-1] * len(wrong.names))


def test_infinite_nics() -> None:
    rooms = (Room(2, float("inf")),) * 2
    assert place(replace(CROSSED, servers=rooms)).saturation == 0


def test_problem_can_be_sent_elsewhere_once_it_was_used() -> None:
    result = place(CROSSED)
    assert place(pickle.loads(pickle.dumps(CROSSED))) == place(copy.deepcopy(CROSSED)) == result


def test_one_more_joins_its_neighbours() -> None:
    graph = problem("1111", ((0, 1, G), (1, 2, 3 * G), (1, 3, G)), (Room(2, WIDE),) * 3)
    assert place_one(graph, 1, [0, -1, 1, 0]) == 1
    # Full: the next best. Nothing known of its neighbours: the first.
    assert place_one(replace(graph, cores=(1, 1, 2, 1)), 1, [0, -1, 1, 2]) == 0
    assert place_one(graph, 1, [-1, -1, -1, -1]) == 0
    # Where it was doesn't matter.
    assert place_one(graph, 1, [0, 0, 1, 0]) == 1


def test_one_more_leaves_out_those_not_placed() -> None:
    """The NIC would not carry what c is to get, wherever c will be."""
    graph = problem("111", ((0, 1, G), (1, 2, 30 * G)), (Room(3, 10 * G),) * 2)
    assert place_one(graph, 1, [1, -1, -1]) == 1
    with pytest.raises(PlacementError, match="20Gbps of NIC bandwidth are missing for 'b' on 's1'"):
        place_one(replace(graph, cores=(1, 2, 2)), 1, [1, -1, 1])


def test_one_more_goes_where_the_nic_carries_it() -> None:
    rooms = (Room(4, 10 * G),) * 2
    graph = problem("11", ((0, 1, G),), rooms, {0: (8 * G, 0.0), 1: (8 * G, 0.0)})
    assert place_one(graph, 1, [0, -1]) == 1


def test_no_room_for_one_more() -> None:
    graph = problem("123", ((0, 1, G),), (Room(2, WIDE), Room(3, WIDE)))
    with pytest.raises(PlacementError) as caught:
        place_one(graph, 2, [1, 0, -1])
    assert str(caught.value) == (
        "1 core is missing for 'c': it takes 3, the most that are free are 2, on 's2'; add a server"
    )


@pytest.mark.parametrize("placed", [[0, 0, 0], [0, 0, 0, 2], [0, 0, 0, -2]])
def test_places_make_no_sense(placed: list[int]) -> None:
    with pytest.raises(ValueError, match="expected a server for each unit, or -1"):
        place_one(CROSSED, 0, placed)
    with pytest.raises(ValueError, match="no unit 4; there are 4"):
        place_one(CROSSED, 4, [0, 0, 0, 0])


def test_one_by_one_is_the_best_of_each_step() -> None:
    graph = chains(40, 7)
    placed = [-1] * 40
    for unit in range(40):
        choices = []
        for server in range(len(graph.servers)):
            tried = [*placed[:unit], server, *placed[unit + 1 :]]
            if twin.fits(graph, tried):
                choices.append((round(twin.cross(graph, tried)), server))
        placed[unit] = place_one(graph, unit, placed)
        assert placed[unit] == min(choices)[1]


def test_metis_is_relieved_where_nics_carry_too_much() -> None:
    """The best cut leaves both that get 6 Gbps from outside on one server."""
    outside = {0: (6 * G, 0.0), 1: (6 * G, 0.0)}
    graph = problem("1111", ((0, 1, G), (2, 3, G)), (Room(2, 10 * G),) * 2, outside)
    result = place(graph, strategy="metis")
    assert result.servers[0] != result.servers[1] and result.saturation <= 1


def test_fitting_a_unit_forgets_the_traffic_of_the_one_before() -> None:
    graph = problem("111", ((0, 1, G),), (Room(3, WIDE),) * 2, fixed={0: 1})
    search = graph._arrays.search(0)
    assert search.fit(np.array([1, 2], np.int32))
    assert search.where().tolist() == [1, 1, 0]


def test_empty_servers_of_every_kind_are_looked_at() -> None:
    """The first empty one is too small, which says nothing about the other."""
    rooms = (Room(1, 10 * G), Room(4, 10 * G), Room(3, 10 * G))
    graph = problem("22", (), rooms, {0: (8 * G, 0.0), 1: (8 * G, 0.0)})
    search = graph._arrays.search(0)
    assert search.pack() and search.where().tolist() == [1, 1]
    search.relieve(1000)
    assert sorted(search.where().tolist()) == [1, 2]


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_busiest_nic_is_never_busier_than_metis_makes_it(service: Service) -> None:
    """Where the load is more than NICs carry, and little below, where they just do."""
    pytest.importorskip("pymetis")
    hardware = rack()
    for load in (20 * G, 60 * G, 100 * G, 140 * G):
        graph = problem_for(service, load, hardware)
        assert graph is not None
        ours, metis = place(graph), place(graph, strategy="metis")
        assert max(1.0, ours.saturation) <= max(1.0, metis.saturation)


def test_traffic_is_given_for_a_nic_that_carries_its_part() -> None:
    """On one server nothing crosses, and 12 Gbps come from outside; on two 2 Gbps cross."""
    outside = {0: (6 * G, 0.0), 2: (6 * G, 0.0)}
    edges = ((0, 1, 2 * G), (2, 3, 2 * G), (1, 3, 20 * G))
    result = place(problem("1111", edges, (Room(4, 10 * G),) * 3, outside))
    assert result.saturation <= 1 and result.cross_bps == 2 * G

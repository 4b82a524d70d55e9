# SPDX-License-Identifier: BSD-3-Clause
"""Which server each NF instance runs on (dissertation, section 3.4.1, step 4).

What is sought is the least traffic between servers, which is what costs cycles, delay and links of
the switch. Cores are a hard limit. No NIC is to carry more than it can; where that can't be had, a
cluster carries no larger a part of its traffic than its busiest NIC does (section 3.6.2): that one
is to be the least busy, and the least traffic comes second.

"e2" begins as the dissertation does, with servers filled along a depth-first walk, and steps from
there: every unit makes the swap, or the move into free cores, that gains most, until none gains.
Where the dissertation stops, two things go on. Annealing makes random steps, ever fewer of those
that cost more, which brings the whole into shape. Then two or three servers near each other are
emptied and filled anew, from random units towards what is bound to them the most, and what ends
worse is undone, which reaches what no single step gains. Effort grows with the square of the number
of units, up to a limit. Where NICs still carry too much it goes on for longer.

The others are there to compare: "packing" and "random" are the strawmen of section 3.6.2, "metis"
is a general partitioner, "exact" the optimum of small graphs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from alpine.errors import SolverError
from e2ctl._placement import Search
from e2ctl._placement_arrays import Arrays, to_arrays
from e2ctl._placement_metis import partition
from e2ctl._placement_milp import Numbers, best_servers, fit_sizes
from e2ctl.pgraph import format_rate

__all__ = [
    "STRATEGIES",
    "Placement",
    "PlacementError",
    "Problem",
    "Room",
    "place",
    "place_one",
]

STRATEGIES = ("e2", "random", "packing", "metis", "exact")
_EXACT_UNITS = 14  # that the mixed-integer program takes some seconds for
_WORK_PER_PAIR = 20  # links to look at, for each pair of units: 70 ms for 1,000 units
_LEAST_WORK = 450_000  # 1.5 ms
_MOST_WORK = 2_000_000_000  # 8 s
# Where NICs carry too much.
_LONGER = 5  # times
_GRACE = 0.8  # of what the busiest has too much
_WEIGHT, _HEAVIER = 16.0, 8.0
_FAILURES = 3  # in a row end it
_SLACK = 1e-9  # of a NIC: as much more is rounding


class PlacementError(Exception):
    """No placement; the message says what is missing, where, how much, and what would be right."""


@dataclass(frozen=True)
class Room:
    """What a server has for the units of a problem, those included that run already.

    ``nic_bps`` is what its NIC carries each way, in bit/s.
    """

    cores: int
    nic_bps: float


@dataclass(frozen=True)
class Problem:
    """Units to place, what they exchange, and servers. Units and servers go by their index.

    A unit is an NF instance, or all instances of an NF that must share a server; ``cores`` is what
    it takes. ``edges`` are from a unit to a unit with bit/s, and parallel ones add up. ``outside``
    is what reaches a unit from the switch's external ports, and what it sends there, in bit/s.
    ``fixed`` maps units that run already to their servers.
    """

    names: tuple[str, ...]
    cores: tuple[int, ...]
    edges: tuple[tuple[int, int, float], ...]
    outside: tuple[tuple[float, float], ...]
    servers: tuple[Room, ...]
    server_names: tuple[str, ...]
    fixed: Mapping[int, int] = field(default_factory=dict)

    @cached_property
    def _arrays(self) -> Arrays:
        return to_arrays(self)


@dataclass(frozen=True)
class Placement:
    """Each unit's server, and what that means.

    ``cross_bps`` is the traffic between servers in bit/s. ``saturation`` is the highest share of
    a NIC in use, either way, to nine digits: above 1 the cluster carries its traffic divided by it.
    """

    servers: tuple[int, ...]
    cross_bps: float
    saturation: float


def place(problem: Problem, *, strategy: str = "e2", seed: int = 0) -> Placement:
    """Find a server for every unit that has none.

    The same seed gives the same placement. Raises PlacementError where cores can't hold the units,
    or NICs can't carry what comes from outside wherever it goes.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"no strategy '{strategy}'; expected one of {', '.join(STRATEGIES)}")
    arrays = problem._arrays
    if not problem.names:
        return Placement((), 0.0, 0.0)
    _check_cores(problem, arrays)
    _check_nics(problem, arrays)
    if strategy == "exact":
        servers = _exact(problem, arrays)
    elif strategy == "metis":
        servers = _metis(problem, arrays, seed)
    else:
        search = arrays.search(seed)
        if not (search.scatter() if strategy == "random" else search.pack()):
            search = _fitted(problem, arrays, seed)
        if strategy == "e2":
            _improve(search, len(problem.names))
        servers = search.where()
    return _placement(arrays, servers)


def _improve(search: Search, units: int) -> None:
    """As long as the number of units is worth, and longer while NICs carry too much.

    Then squares of what is too much count ever more beside traffic, until that helps no more; and
    last only traffic between servers, with the busiest NIC as busy as it is.
    """
    work = min(max(_WORK_PER_PAIR * units**2, _LEAST_WORK), _MOST_WORK)
    search.improve(work)
    left = _MOST_WORK - work
    work *= _LONGER
    weight, failed = _WEIGHT, 0
    while search.costs()[0] and left >= 2 * work:
        if failed == _FAILURES:
            search.improve(work, grace=1.0)
            return
        before = search.costs()
        search.improve(work, _GRACE, weight)
        failed = failed + 1 if search.costs() == before else 0
        weight *= _HEAVIER
        left -= work


def place_one(problem: Problem, unit: int, placed: Sequence[int]) -> int:
    """The server for one unit more: all that are placed stay, and -1 is not placed.

    It has the cores, and its NIC carries what it then has to. Of such servers it is the one with
    which other NICs' excess grows least, then traffic between servers, then the first. What a unit
    exchanges with those not placed is left out.
    """
    arrays = problem._arrays
    if not 0 <= unit < len(problem.names):
        raise ValueError(f"no unit {unit}; there are {len(problem.names)}")
    at = np.array(placed, np.int32)
    if at.shape != arrays.cores.shape or at.min() < -1 or at.max() >= len(problem.servers):
        raise ValueError("expected a server for each unit, or -1")
    at[unit] = 0
    known = (at >= 0)[arrays.ends].all(axis=0)
    at[unit] = -1
    rates = arrays.quanta * known
    server = arrays.layout(rates, at).best_server(unit)
    if server < 0:
        raise _no_room(problem, arrays, unit, at)
    return server


def _placement(arrays: Arrays, servers: NDArray[np.int32]) -> Placement:
    tails, heads = servers[arrays.ends]
    load = arrays.loads(servers).max(axis=0)
    with np.errstate(divide="ignore"):
        shares = np.divide(load, arrays.nics, out=np.zeros_like(load), where=load > 0)
    cross = float(arrays.rates[tails != heads].sum())
    return Placement(tuple(servers.tolist()), cross, round(float(shares.max(initial=0.0)), 9))


def _check_cores(problem: Problem, arrays: Arrays) -> None:
    """Say what no placement can help; whether sizes fit into servers is only seen by trying."""
    if not problem.servers:
        raise PlacementError(f"there is no server for {len(problem.names)} units; add one")
    held = arrays.fixed >= 0
    free = arrays.free(arrays.fixed)
    if free.min() < 0:
        server = int(free.argmin())
        have = problem.servers[server].cores
        raise PlacementError(
            f"{_cores(-int(free[server]))} missing on server '{problem.server_names[server]}': "
            f"the units that run there take {have - int(free[server])}, it has {have}; leave only "
            "units there that it holds"
        )
    sizes = np.where(held, 0, arrays.cores)
    unit, server = int(sizes.argmax()), int(free.argmax())
    if sizes[unit] > free[server]:
        raise PlacementError(
            f"{_cores(int(sizes[unit] - free[server]))} missing for '{problem.names[unit]}': it "
            f"takes {sizes[unit]} of one server, the most that one has for it are {free[server]}, "
            f"'{problem.server_names[server]}'; divide it, or add a server with {sizes[unit]} cores"
        )
    missing = int(sizes.sum(dtype=np.int64) - free.sum())
    if missing > 0:
        raise PlacementError(
            f"{_cores(missing)} missing on all servers: the units take "
            f"{arrays.cores.sum(dtype=np.int64)}, there are {arrays.rooms.sum(dtype=np.int64)}; "
            "add servers, or place fewer instances"
        )


def _check_nics(problem: Problem, arrays: Arrays) -> None:
    """Say where what comes from outside, or goes there, is more than NICs carry wherever it is."""
    held = arrays.fixed >= 0
    for way, outside in zip(("from", "to"), arrays.outside, strict=True):
        bound = np.bincount(arrays.fixed[held], outside[held], len(arrays.nics))
        server = int((bound - arrays.nics).argmax())
        unit = int(np.where(held, 0, outside).argmax())
        for where, rates, nics in (
            (f"server '{problem.server_names[server]}'", bound[server], arrays.nics[server]),
            (f"any server for '{problem.names[unit]}'", outside[unit], arrays.nics.max()),
            ("all servers", outside.sum(), arrays.nics.sum()),
        ):
            if rates > nics * (1 + _SLACK):
                raise PlacementError(
                    f"{format_rate(rates - nics)} of NIC bandwidth are missing on {where}: "
                    f"{format_rate(rates)} come {way} ports outside, {format_rate(nics)} are there"
                )


def _cores(count: int) -> str:
    return "1 core is" if count == 1 else f"{count} cores are"


def _fitted(problem: Problem, arrays: Arrays, seed: int) -> Search:
    """Units on servers by their cores alone, for when going along the graph left some over."""
    search = arrays.search(seed)
    moving = np.flatnonzero(arrays.fixed < 0).astype(np.int32)
    try:
        servers, lacks = fit_sizes(
            arrays.cores[moving].tolist(), arrays.free(arrays.fixed).tolist()
        )
    except SolverError as error:
        raise PlacementError(f"{error}; give servers some more cores") from error
    if any(lacks):
        where = ", ".join(
            f"{lack} on '{name}'"
            for lack, name in zip(lacks, problem.server_names, strict=True)
            if lack
        )
        raise PlacementError(
            f"{_cores(sum(lacks))} missing: the units take {arrays.cores.sum(dtype=np.int64)} of "
            f"{arrays.rooms.sum(dtype=np.int64)}, but no way to divide them among servers fits; "
            f"with {where} more one would"
        )
    search.settle(moving, np.array(servers, np.int32))
    return search


def _exact(problem: Problem, arrays: Arrays) -> NDArray[np.int32]:
    moving = len(problem.names) - len(problem.fixed)
    if moving > _EXACT_UNITS:
        raise PlacementError(
            f"'exact' places up to {_EXACT_UNITS} units, not {moving}; take another strategy"
        )
    rooms = [(room.cores, room.nic_bps) for room in problem.servers]
    numbers = Numbers(problem.cores, problem.edges, problem.outside, problem.fixed, rooms)
    try:
        servers = best_servers(numbers)
    except SolverError as error:
        raise PlacementError(f"{error}; take another strategy") from error
    if servers is None:
        return _fitted(problem, arrays, 0).where()  # says why there is none
    return np.array(servers, np.int32)


def _metis(problem: Problem, arrays: Arrays, seed: int) -> NDArray[np.int32]:
    try:
        servers = partition(arrays, seed)
    except ImportError:
        raise PlacementError("pymetis is not installed; `pip install pymetis`") from None
    return _fitted(problem, arrays, seed).where() if servers is None else servers


def _no_room(problem: Problem, arrays: Arrays, unit: int, at: NDArray[np.int32]) -> PlacementError:
    """Why no server has room for one unit more."""
    size = int(arrays.cores[unit])
    free = arrays.free(at)
    server = int(free.argmax())
    name = problem.names[unit]
    if free[server] < size:
        return PlacementError(
            f"{_cores(size - int(free[server]))} missing for '{name}': it takes {size}, the most "
            f"that are free are {free[server]}, on '{problem.server_names[server]}'; add a server"
        )
    lacks: dict[int, float] = {}
    for server in np.flatnonzero(free >= size).tolist():
        at[unit] = server
        load = arrays.loads(at)[:, server].max()
        lacks[server] = float(load - arrays.nics[server])
    server = min(lacks, key=lambda s: lacks[s])
    return PlacementError(
        f"{format_rate(lacks[server])} of NIC bandwidth are missing for '{name}' on "
        f"'{problem.server_names[server]}', the server with cores for it where it is the least; "
        "add a server, or faster NICs"
    )

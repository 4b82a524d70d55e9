# SPDX-License-Identifier: BSD-3-Clause
# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: cdivision=True
# distutils: language = c++
"""The search for a server for each unit of a graph, for e2ctl.placement, which checks its input.

Traffic is counted in whole quanta: however often a sum changes it stays exact, and with it what is
better than what. What crosses between servers has no direction: a unit that joins a server adds
all its traffic to the load of the NIC, less what it exchanges with units there, and takes as much
from theirs, which counts once for either way.
"""

import numpy as _np

cimport cython
from libc.math cimport exp, log
from libc.stdint cimport INT64_MAX, INT64_MIN, int32_t, int64_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.vector cimport vector


include "placement.pxi"
include "placement_steps.pxi"


# How hot annealing is, in what a unit exchanges on average.
cdef double HOT = 10.0  # to begin anew, where NICs carry too much
cdef double WARM = 0.5  # to mend what is good
cdef double COLD = 0.025


@cython.final
cdef class Search(_Steps):
    """Ways out of layouts that no single step makes better."""

    cdef vector[int64_t] wide  # of a server: what its NIC carries; `nic` may be more for a while
    cdef vector[int32_t] movable, chosen, lifted
    cdef vector[int64_t] pull
    # The best that there was.
    cdef vector[int32_t] best
    cdef double best_share
    cdef int64_t best_cross

    def __init__(self, *args):
        cdef int u
        super().__init__(*args)
        self.wide = self.nic
        self.pull.assign(self.units, 0)
        for u in range(self.units):
            if not self.fixed[u]:
                self.movable.push_back(u)

    def improve(self, int64_t budget, double grace=0.0, double weight=16.0):
        """Steps until none gains; then anneal, and regrow servers, with half of the budget each.

        All units have a server. A budget is in links and units looked at. What is found stays only
        if it is better than what was there. `grace`: this part of what the busiest NIC carries too
        much counts as none for any, so that effort goes into NICs that are nearly as busy.
        `weight` is what annealing takes a NIC's worth of excess for, in NICs' worth of traffic
        between servers.
        """
        self.threshold = 0
        self.budget = self.work + budget
        with nogil:
            self.keep()
            self.widen(1.0 + grace * (self.share() - 1.0))
            self.descend_all()
            self.keep()
            if not self.movable.empty() and self.servers > 1 and self.gainful():
                self.anneal(self.work + budget // 2, weight)
                self.descend_all()
                self.regrow_all()
                self.keep()
            self.widen(1.0)
            self.restore()

    cdef cbool gainful(self) noexcept nogil:
        return self.cost.excess > 0 or self.cost.cross > 0

    cdef void widen(self, double factor) noexcept nogil:
        """NICs count as so many times as wide."""
        cdef int s
        self.cost.excess = 0
        for s in range(self.servers):
            self.nic[s] = self.wide[s]
            if factor > 1.0:
                self.nic[s] = <int64_t>min(self.wide[s] * factor, 4.0 * ALL)
            self.cost.excess += self.excess(s)

    cdef double share(self) noexcept nogil:
        """Of the busiest NIC; 1 where none carries too much."""
        cdef int s
        cdef int64_t load
        cdef double most = 1.0
        for s in range(self.servers):
            load = self.load_out[s]
            if self.load_in[s] > load:
                load = self.load_in[s]
            if over(load, self.wide[s]) > 0 and load > most * self.wide[s]:
                most = load / <double>self.wide[s]
        return most

    cdef void keep(self) noexcept nogil:
        """Remember where units are if no NIC is as busy as the busiest was, or less crosses."""
        cdef double share = self.share()
        if (
            self.best.empty()
            or share < self.best_share
            or (share == self.best_share and self.cost.cross < self.best_cross)
        ):
            self.best = self.at
            self.best_share = share
            self.best_cross = self.cost.cross

    cdef void restore(self) noexcept nogil:
        """The best that there was."""
        cdef size_t i
        for i in range(self.movable.size()):
            self.take(self.movable[i])
        for i in range(self.movable.size()):
            self.put(self.movable[i], self.best[self.movable[i]])

    # Simulated annealing.

    cdef void anneal(self, int64_t until, double weight) noexcept nogil:
        """Random moves and swaps: some that cost more as well, ever fewer as it gets colder."""
        cdef int64_t began = self.work
        cdef int u, b
        cdef int turn = 0
        cdef double hot = HOT if self.cost.excess > 0 else WARM
        cdef double mean = 0.0
        cdef double nic = 1.0
        cdef double heat = 0.0
        cdef double rise
        cdef Step step
        for u in range(self.units):
            mean += self.total[u] / <double>self.units
        for b in range(self.servers):
            nic = max(nic, <double>self.nic[b])
        while self.work < until:
            if turn % 256 == 0:
                rise = (self.work - began) / <double>(until - began)
                heat = mean * hot * exp(log(COLD / hot) * rise)
                self.moved.clear()  # none of that is rolled back
                self.came_from.clear()
            turn += 1
            u = self.movable[self.below(<int>self.movable.size())]
            self.work += 12  # all over memory
            if not self.any_step(u, &step):
                continue
            rise = step.gain.cross + weight * ALL / nic * step.gain.excess
            if rise <= 0 or exp(-rise / heat) * (1 << 30) > self.below(1 << 30):
                self.carry_out(u, step)

    cdef cbool any_step(self, int u, Step* step) noexcept nogil:
        """A move of a unit, mostly to one it has a link to, or a swap where cores lack; if any."""
        cdef int a = self.at[u]
        cdef int b = self.below(self.servers)
        cdef int links = self.first[u + 1] - self.first[u]
        cdef int k, v
        if links and self.below(4):
            b = self.at[self.other[self.first[u] + self.below(links)]]
        if a == b:
            return False
        self.conn[b] = 0
        for k in range(self.first[u], self.first[u + 1]):
            if self.at[self.other[k]] == b:
                self.conn[b] += self.rate[k]
        self.work += links
        step.server = -1
        step.gain.excess = INT64_MAX
        step.gain.cross = 0
        if self.size[u] <= self.free[b]:
            self.try_move(u, b, step)
        else:
            v = self.resident(b)
            if v >= 0 and self.may_swap(u, v):
                self.try_swap(u, v, False, step)
        return step.server >= 0

    cdef int resident(self, int s) noexcept nogil:
        """One of the units on a server by chance; -1: it has none."""
        cdef int v = self.head[s]
        cdef int turns = self.below(16)
        while v >= 0 and turns > 0:
            turns -= 1
            v = self.next[v] if self.next[v] >= 0 else self.head[s]
        return v

    # Servers that are filled anew.

    cdef void regrow_all(self) noexcept nogil:
        """Regrow servers, step on, and undo what is worse than before."""
        cdef Cost before
        while self.work < self.budget and self.gainful():
            self.moved.clear()
            self.came_from.clear()
            before = self.cost
            self.work += 8  # ends where nothing can be regrown
            if self.regrow():
                self.descend()
            if not self.lifted.empty() or less(before, self.cost):
                self.forget_queue()
                self.roll_back()

    cdef void choose(self, int s) noexcept nogil:
        cdef int v = self.head[s]
        if self.mark[s] == self.stamp:
            return
        self.mark[s] = self.stamp
        self.chosen.push_back(s)
        while v >= 0:
            if not self.fixed[v]:
                self.lifted.push_back(v)
            v = self.next[v]

    cdef int neighbour(self) noexcept nogil:
        """The server of a unit that has a link to a lifted one; any server where that has none."""
        cdef int u, links
        if not self.lifted.empty():
            u = self.lifted[self.below(<int>self.lifted.size())]
            links = self.first[u + 1] - self.first[u]
            if links:
                return self.at[self.other[self.first[u] + self.below(links)]]
        return self.below(self.servers)

    cdef cbool regrow(self) noexcept nogil:
        """Empty two or three servers, near each other as a rule, and fill them from random units.

        Whether all units fit again; they are queued.
        """
        cdef int parts = 2 + self.below(2)
        cdef int tries
        cdef size_t i
        self.stamp += 1
        self.chosen.clear()
        self.lifted.clear()
        self.choose(self.at[self.below(self.units)])
        for tries in range(8 * parts):
            if <int>self.chosen.size() == parts:
                break
            self.choose(self.below(self.servers) if tries % 4 == 3 else self.neighbour())
        for i in range(self.lifted.size()):
            self.lift(self.lifted[i])
            self.push_around(self.lifted[i])
        for i in range(self.chosen.size()):
            self.grow(self.chosen[i])
        return self.lifted.empty()

    cdef void grow(self, int s) noexcept nogil:
        """Fill a server with lifted units: a random one, then what is bound to it the most."""
        cdef int u, v
        cdef size_t i
        cdef int best
        for i in range(self.lifted.size()):
            self.pull[self.lifted[i]] = 0
        v = self.head[s]
        while v >= 0:
            self.attract(v)
            v = self.next[v]
        best = self.below(<int>self.lifted.size()) if not self.lifted.empty() else -1
        if best >= 0 and self.size[self.lifted[best]] > self.free[s]:
            best = self.attracted(s)
        while best >= 0:
            u = self.lifted[best]
            self.lifted[best] = self.lifted.back()
            self.lifted.pop_back()
            self.put(u, s)
            self.attract(u)
            best = self.attracted(s)

    cdef void attract(self, int u) noexcept nogil:
        cdef int k
        for k in range(self.first[u], self.first[u + 1]):
            self.pull[self.other[k]] += self.rate[k]

    cdef int attracted(self, int s) noexcept nogil:
        """The lifted unit to which s, where it fits, matters most; -1 if none fits.

        One in eight is left out by chance. Always the best would often end as it began, and with
        never a core left over, which best placements may have.
        """
        cdef int best = -1
        cdef int u
        cdef size_t i
        cdef int64_t gain, most = INT64_MIN
        for i in range(self.lifted.size()):
            u = self.lifted[i]
            gain = 2 * self.pull[u] - self.total[u]
            if self.size[u] <= self.free[s] and gain > most and self.below(8):
                most = gain
                best = <int>i
        self.work += <int64_t>self.lifted.size()
        return best

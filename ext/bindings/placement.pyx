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
from libc.stdint cimport INT64_MAX, INT64_MIN, int32_t, int64_t, uint64_t
from libc.math cimport exp, log
from libcpp cimport bool as cbool
from libcpp.vector cimport vector


include "placement.pxi"


# Of simulated annealing, in mean traffic of a unit.
cdef double HOT = 10.0  # to begin anew, where a walk along the graph overloads NICs
cdef double WARM = 0.5  # to mend what is good
cdef double COLD = 0.025
cdef double ALL = <double>(<int64_t>1 << 52)  # traffic in quanta
cdef double WEIGHT = 16.0  # of a NIC's worth of excess, beside as much traffic between servers


cdef struct Step:
    Cost gain  # by how much the cost grows: it is negative
    int server
    int partner  # that comes back from there, or -1


@cython.final
cdef class Search(Layout):
    """A layout that gets better."""

    cdef int64_t budget
    cdef int64_t threshold  # what a step has to be below where no excess changes
    cdef vector[int32_t] queue, moved, came_from, chosen, lifted, empty_kind
    cdef vector[char] queued
    cdef vector[int64_t] pull
    cdef vector[int32_t] moving, best
    cdef double best_share
    cdef int64_t best_cross

    def __init__(self, *args):
        super().__init__(*args)
        self.empty_kind.assign(self.servers, 0)
        self.queued.assign(self.units, 0)
        self.pull.assign(self.units, 0)
        cdef int u
        for u in range(self.units):
            if not self.fixed[u]:
                self.moving.push_back(u)

    cdef void lift(self, int u) noexcept nogil:
        """As take, to be undone by roll_back."""
        self.moved.push_back(u)
        self.came_from.push_back(self.at[u])
        self.take(u)

    cdef void roll_back(self) noexcept nogil:
        """Undo all since moved was empty, newest first."""
        cdef int i = <int>self.moved.size()
        while i > 0:
            i -= 1
            if self.at[self.moved[i]] >= 0:
                self.take(self.moved[i])
            self.put(self.moved[i], self.came_from[i])

    cdef void push(self, int u) noexcept nogil:
        if not self.queued[u] and not self.fixed[u]:
            self.queued[u] = 1
            self.queue.push_back(u)

    cdef void push_around(self, int u) noexcept nogil:
        cdef int k
        self.push(u)
        for k in range(self.first[u], self.first[u + 1]):
            self.push(self.other[k])

    cdef void push_server(self, int s) noexcept nogil:
        cdef int v = self.head[s]
        while v >= 0:
            self.push(v)
            v = self.next[v]

    cdef void look_far(self) noexcept nogil:
        """Add all other servers to near, of empty ones that are alike the first."""
        cdef int s
        for s in range(self.servers):
            if self.mark[s] == self.stamp:
                continue
            if self.head[s] < 0:
                if self.empty_kind[self.kind[s]] == self.stamp:
                    continue
                self.empty_kind[self.kind[s]] = self.stamp
            self.mark[s] = self.stamp
            self.conn[s] = 0
            self.near.push_back(s)
        self.work += self.servers

    cdef void try_move(self, int u, int b, Step* best) noexcept nogil:
        cdef int a = self.at[u]
        cdef int64_t here = self.inside[u]
        cdef int64_t there = self.conn[b]
        cdef Cost gain
        gain.cross = here - there
        gain.excess = self.growth(
            a, here - self.own_out[u], here - self.own_in[u]
        ) + self.growth(b, self.own_out[u] - there, self.own_in[u] - there)
        if less(gain, best.gain):
            best.gain = gain
            best.server = b
            best.partner = -1

    cdef void try_swap(self, int u, int v, cbool calm, Step* best) noexcept nogil:
        """`calm`: neither server has an excess, so that a swap is worth nothing but its traffic."""
        cdef int a = self.at[u]
        cdef int b = self.at[v]
        cdef int64_t base = self.inside[u] - self.conn[b] + self.inside[v]
        cdef int64_t to_a = 0
        cdef int64_t to_u = 0
        cdef int64_t out, into
        cdef Cost gain
        cdef int k
        self.work += 1
        # All that v has elsewhere may be in a, and no more.
        if calm and base - (self.total[v] - self.inside[v]) >= best.gain.cross:
            return
        for k in range(self.first[v], self.first[v + 1]):
            if self.at[self.other[k]] == a:
                to_a += self.rate[k]
                if self.other[k] == u:
                    to_u = self.rate[k]
        self.work += self.first[v + 1] - self.first[v]
        gain.cross = base - to_a + 2 * to_u
        out = self.own_out[v] - self.own_out[u]
        into = self.own_in[v] - self.own_in[u]
        gain.excess = self.growth(
            a,
            out + self.inside[u] - to_a + to_u,
            into + self.inside[u] - to_a + to_u,
        ) + self.growth(
            b,
            self.inside[v] - self.conn[b] + to_u - out,
            self.inside[v] - self.conn[b] + to_u - into,
        )
        if less(gain, best.gain):
            best.gain = gain
            best.server = b
            best.partner = v

    cdef cbool step(self, int u) noexcept nogil:
        """Make the move or swap of a unit that gains most, if one gains."""
        cdef int a = self.at[u]
        cdef cbool calm_here = self.excess(a) == 0
        cdef cbool calm
        cdef int b, v
        cdef size_t i
        cdef Step best
        best.gain.excess = 0
        best.gain.cross = self.threshold
        best.server = -1
        self.look_around(u)
        if not calm_here:  # else only where u has links there is anything to gain
            self.look_far()
        for i in range(self.near.size()):
            b = self.near[i]
            if b == a:
                continue
            if self.size[u] <= self.free[b]:
                self.try_move(u, b, &best)
            calm = calm_here and self.excess(b) == 0
            v = self.head[b]
            while v >= 0:
                if (
                    not self.fixed[v]
                    and self.size[u] <= self.free[b] + self.size[v]
                    and self.size[v] <= self.free[a] + self.size[u]
                ):
                    self.try_swap(u, v, calm, &best)
                v = self.next[v]
        if best.server < 0:
            return False
        self.lift(u)
        if best.partner >= 0:
            self.lift(best.partner)
            self.put(best.partner, a)
            self.push_around(best.partner)
        self.put(u, best.server)
        self.push_around(u)
        self.push_server(a)
        self.push_server(best.server)
        return True

    cdef void descend(self) noexcept nogil:
        """Steps of queued units and of those around what moves, until none gains."""
        cdef size_t i
        cdef int s
        cdef cbool stepped = True
        while stepped and self.work < self.budget:
            stepped = False
            i = 0
            while i < self.queue.size():
                self.queued[self.queue[i]] = 0
                while self.work < self.budget and self.step(self.queue[i]):
                    stepped = True
                i += 1
            self.queue.clear()
            if stepped and self.cost.excess > 0:  # what moved may have left room, however far away
                self.work += self.servers
                for s in range(self.servers):
                    if self.excess(s) > 0:
                        self.push_server(s)
        self.forget_queue()

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

    cdef void descend_all(self) noexcept nogil:
        cdef int u
        for u in range(self.units):
            self.push(u)
        self.descend()

    def relieve(self, int64_t budget):
        """Only such steps as take excess from NICs."""
        self.threshold = INT64_MIN
        self.budget = self.work + budget
        with nogil:
            self.descend_all()

    def improve(self, int64_t budget):
        """Steps until none gains; then anneal, and regrow servers, with half of the budget each.

        All units have a server. A budget is in links and units looked at. What is found stays only
        if it is better than what was there.
        """
        self.threshold = 0
        self.budget = self.work + budget
        with nogil:
            self.keep()
            self.descend_all()
            self.keep()
            if self.moving.size() and self.servers > 1 and self.gainful():
                self.anneal(self.work + budget // 2)
                self.descend_all()
                self.regrow_all()
                self.keep()
            self.restore()

    cdef cbool gainful(self) noexcept nogil:
        return self.cost.excess > 0 or self.cost.cross > 0

    cdef void anneal(self, int64_t until) noexcept nogil:
        """Random moves and swaps: what costs more is made as well, ever less as it gets colder."""
        cdef int64_t began = self.work
        cdef int u, v, a, b, k, links
        cdef double rise, nic = 1.0, mean = 0.0, heat = 0.0
        cdef double hot = HOT if self.cost.excess > 0 else WARM
        cdef uint64_t steps = 0
        cdef Step step
        for u in range(self.units):
            mean += self.total[u] / <double>self.units
        for b in range(self.servers):
            nic = max(nic, min(<double>self.nic[b], <double>ALL))
        while self.work < until:
            if steps % 256 == 0:
                heat = mean * hot * exp(
                    log(COLD / hot) * (self.work - began) / <double>(until - began)
                )
            steps += 1
            self.work += 4
            u = self.moving[self.below(<int>self.moving.size())]
            a = self.at[u]
            b = self.below(self.servers)
            links = self.first[u + 1] - self.first[u]
            if links and self.below(4):
                b = self.at[self.other[self.first[u] + self.below(links)]]
            if a == b:
                continue
            self.conn[b] = 0
            for k in range(self.first[u], self.first[u + 1]):
                if self.at[self.other[k]] == b:
                    self.conn[b] += self.rate[k]
            self.work += links
            step.server = -1
            step.gain.excess = INT64_MAX
            step.gain.cross = 0
            if self.size[u] <= self.free[b]:
                self.try_move(u, b, &step)
            else:
                v = self.resident(b)
                if (
                    v >= 0
                    and not self.fixed[v]
                    and self.size[u] <= self.free[b] + self.size[v]
                    and self.size[v] <= self.free[a] + self.size[u]
                ):
                    self.try_swap(u, v, False, &step)
            if step.server < 0:
                continue
            rise = step.gain.cross + WEIGHT * ALL / nic * step.gain.excess
            if rise <= 0 or exp(-rise / heat) * (1 << 30) > self.below(1 << 30):
                self.carry_out(u, &step)

    cdef int resident(self, int s) noexcept nogil:
        """One of the first units of a server at random; -1: it has none."""
        cdef int v = self.head[s]
        cdef int turns = self.below(16)
        while v >= 0 and turns > 0:
            turns -= 1
            v = self.next[v] if self.next[v] >= 0 else self.head[s]
        return v

    cdef void carry_out(self, int u, Step* step) noexcept nogil:
        cdef int a = self.at[u]
        self.take(u)
        if step.partner >= 0:
            self.take(step.partner)
            self.put(step.partner, a)
        self.put(u, step.server)

    cdef double share(self) noexcept nogil:
        """The highest share of a NIC in use; 1 where none carries too much."""
        cdef int s
        cdef int64_t load
        cdef double most = 1.0
        if self.cost.excess == 0:
            return most
        for s in range(self.servers):
            load = self.load_out[s]
            if self.load_in[s] > load:
                load = self.load_in[s]
            if load > most * self.nic[s]:
                most = load / <double>self.nic[s]
        return most

    cdef void keep(self) noexcept nogil:
        """Remember where units are if that is the best so far: no NIC as busy, or less crosses."""
        cdef double share = self.share()
        if self.best.empty() or share < self.best_share or (
            share == self.best_share and self.cost.cross < self.best_cross
        ):
            self.best = self.at
            self.best_share = share
            self.best_cross = self.cost.cross

    cdef void restore(self) noexcept nogil:
        cdef size_t i
        cdef int u
        for i in range(self.moving.size()):
            self.take(self.moving[i])
        for i in range(self.moving.size()):
            u = self.moving[i]
            self.put(u, self.best[u])

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

    cdef void forget_queue(self) noexcept nogil:
        cdef size_t i
        for i in range(self.queue.size()):
            self.queued[self.queue[i]] = 0
        self.queue.clear()

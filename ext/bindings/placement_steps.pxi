# SPDX-License-Identifier: BSD-3-Clause
# Single moves and swaps of units, for placement.pyx.

cdef struct Step:
    Cost gain  # by how much the cost grows: it is negative
    int server
    int partner  # that comes back from there, or -1


cdef class _Steps(Layout):
    """A layout that gets better step by step."""

    cdef int64_t budget
    cdef int64_t threshold  # what a step has to be below where no excess changes
    cdef vector[int32_t] queue, moved, came_from, empty_kind
    cdef vector[char] queued

    def __init__(self, *args):
        super().__init__(*args)
        self.empty_kind.assign(self.servers, 0)
        self.queued.assign(self.units, 0)

    @cython.final
    cdef void lift(self, int u) noexcept nogil:
        """As take, to be undone by roll_back."""
        self.moved.push_back(u)
        self.came_from.push_back(self.at[u])
        self.take(u)

    @cython.final
    cdef void roll_back(self) noexcept nogil:
        """Undo all since moved was empty, newest first."""
        cdef int i = <int>self.moved.size()
        while i > 0:
            i -= 1
            if self.at[self.moved[i]] >= 0:
                self.take(self.moved[i])
            self.put(self.moved[i], self.came_from[i])

    @cython.final
    cdef void push(self, int u) noexcept nogil:
        if not self.queued[u] and not self.fixed[u]:
            self.queued[u] = 1
            self.queue.push_back(u)

    @cython.final
    cdef void push_around(self, int u) noexcept nogil:
        cdef int k
        self.push(u)
        for k in range(self.first[u], self.first[u + 1]):
            self.push(self.other[k])

    @cython.final
    cdef void push_server(self, int s) noexcept nogil:
        cdef int v = self.head[s]
        while v >= 0:
            self.push(v)
            v = self.next[v]

    @cython.final
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

    @cython.final
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

    @cython.final
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

    @cython.final
    cdef inline cbool may_swap(self, int u, int v) noexcept nogil:
        """Whether a unit may go to another's server, and that one come back, as cores have it."""
        return (
            not self.fixed[v]
            and self.size[u] <= self.free[self.at[v]] + self.size[v]
            and self.size[v] <= self.free[self.at[u]] + self.size[u]
        )

    @cython.final
    cdef void carry_out(self, int u, Step step) noexcept nogil:
        cdef int a = self.at[u]
        self.lift(u)
        if step.partner >= 0:
            self.lift(step.partner)
            self.put(step.partner, a)
        self.put(u, step.server)

    @cython.final
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
                if self.may_swap(u, v):
                    self.try_swap(u, v, calm, &best)
                v = self.next[v]
        if best.server < 0:
            return False
        self.carry_out(u, best)
        if best.partner >= 0:
            self.push_around(best.partner)
        self.push_around(u)
        self.push_server(a)
        self.push_server(best.server)
        return True

    @cython.final
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

    @cython.final
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

    @cython.final
    cdef void forget_queue(self) noexcept nogil:
        cdef size_t i
        for i in range(self.queue.size()):
            self.queued[self.queue[i]] = 0
        self.queue.clear()

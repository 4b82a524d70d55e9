# SPDX-License-Identifier: BSD-3-Clause
# What placement.pyx searches in.

cdef double ALL = <double>(<int64_t>1 << 52)  # traffic in quanta


cdef struct Cost:
    int64_t excess  # sum of squares, of all NICs, both ways
    int64_t cross  # between servers


cdef inline cbool less(Cost a, Cost b) noexcept nogil:
    return a.excess < b.excess or (a.excess == b.excess and a.cross < b.cross)


cdef inline int64_t over(int64_t load, int64_t limit) noexcept nogil:
    """The square of what is too much, in units of 2^26 quanta, so that all traffic's still fits.

    Shares of one rate may add up to a bit more than it: a part in 10^9 is none too much.
    """
    cdef int64_t units
    if load <= limit + (limit >> 30):
        return 0
    units = (load - limit + (1 << 26) - 1) >> 26
    return units * units


cdef class Layout:
    """Units, of which fixed ones are on their servers and all others nowhere at first."""

    # The graph: unit u has links first[u] to first[u + 1]; parallel edges are one link.
    cdef int units, servers
    cdef vector[int32_t] first, other, size
    cdef vector[int64_t] rate, sent  # of a link: both ways, and from the unit that it belongs to
    cdef vector[int64_t] total  # of a unit: over all its links
    cdef vector[int64_t] own_out, own_in  # of a unit: over links and from and to the outside
    cdef vector[int64_t] nic
    cdef vector[int32_t] kind  # of a server: equal ones are of one kind
    cdef vector[char] fixed
    # The state: units of a server are a list, from head over next.
    cdef vector[int32_t] at, head, next, prev, free
    cdef vector[int64_t] load_out, load_in
    cdef vector[int64_t] inside  # of a unit: what it exchanges with units of its server
    cdef Cost cost
    # What was seen: conn is a unit's traffic with a marked server.
    cdef vector[int64_t] conn
    cdef vector[int32_t] mark, near
    cdef int stamp
    cdef uint64_t random
    cdef int64_t work  # links and units looked at

    def __init__(
        self,
        const int32_t[::1] sizes,
        const int32_t[::1] tails,
        const int32_t[::1] heads,
        const int64_t[::1] rates,
        const int64_t[::1] outside_in,
        const int64_t[::1] outside_out,
        const int32_t[::1] fixed,
        const int32_t[::1] rooms,
        const int64_t[::1] nics,
        const int32_t[::1] kinds,
        uint64_t seed,
    ):
        cdef int i
        self.units = <int>sizes.shape[0]
        self.servers = <int>rooms.shape[0]
        for i in range(self.units):
            self.size.push_back(sizes[i])
            self.fixed.push_back(fixed[i] >= 0)
            self.own_in.push_back(outside_in[i])
            self.own_out.push_back(outside_out[i])
        for i in range(self.servers):
            self.free.push_back(rooms[i])
            self.nic.push_back(nics[i])
            self.kind.push_back(kinds[i])
        self.add_links(tails, heads, rates)
        self.at.assign(self.units, -1)
        self.next.assign(self.units, -1)
        self.prev.assign(self.units, -1)
        self.inside.assign(self.units, 0)
        self.head.assign(self.servers, -1)
        self.load_out.assign(self.servers, 0)
        self.load_in.assign(self.servers, 0)
        self.conn.assign(self.servers, 0)
        self.mark.assign(self.servers, 0)
        self.stamp = 0
        self.random = seed
        self.work = 0
        self.cost.excess = 0
        self.cost.cross = 0
        for i in range(self.units):
            self.cost.cross += self.total[i]
        self.cost.cross //= 2
        for i in range(self.units):
            if fixed[i] >= 0:
                self.put(i, fixed[i])

    cdef void add_links(
        self, const int32_t[::1] tails, const int32_t[::1] heads, const int64_t[::1] rates
    ) noexcept:
        """Sort edges by unit; a pair of units gets one link at each of them, whatever is between."""
        cdef int edges = <int>tails.shape[0]
        cdef vector[int32_t] begin, edge, link
        cdef int i, k, u, v
        begin.assign(self.units + 2, 0)
        for i in range(edges):
            begin[tails[i] + 2] += 1
            begin[heads[i] + 2] += 1
        for u in range(self.units):
            begin[u + 2] += begin[u + 1]
        edge.resize(2 * edges)
        for i in range(edges):
            edge[begin[tails[i] + 1]] = i
            begin[tails[i] + 1] += 1
            edge[begin[heads[i] + 1]] = i
            begin[heads[i] + 1] += 1
        link.assign(self.units, -1)
        self.total.assign(self.units, 0)
        self.first.push_back(0)
        for u in range(self.units):
            for k in range(begin[u], begin[u + 1]):
                i = edge[k]
                v = heads[i] if tails[i] == u else tails[i]
                if v == u:
                    continue
                if link[v] < self.first[u]:
                    link[v] = <int32_t>self.other.size()
                    self.other.push_back(v)
                    self.rate.push_back(0)
                    self.sent.push_back(0)
                self.rate[link[v]] += rates[i]
                self.total[u] += rates[i]
                if tails[i] == u:
                    self.sent[link[v]] += rates[i]
                    self.own_out[u] += rates[i]
                else:
                    self.own_in[u] += rates[i]
            self.first.push_back(<int32_t>self.other.size())

    # The state.

    cdef inline int64_t excess(self, int s) noexcept nogil:
        return over(self.load_out[s], self.nic[s]) + over(self.load_in[s], self.nic[s])

    cdef inline int64_t growth(self, int s, int64_t out, int64_t into) noexcept nogil:
        """By how much a server's excess grows where its load does by so much each way."""
        return (
            over(self.load_out[s] + out, self.nic[s])
            + over(self.load_in[s] + into, self.nic[s])
            - self.excess(s)
        )

    cdef inline void shift(self, int s, int64_t out, int64_t into) noexcept nogil:
        self.cost.excess += self.growth(s, out, into)
        self.load_out[s] += out
        self.load_in[s] += into

    @cython.final
    cdef void put(self, int u, int s) noexcept nogil:
        """A unit that is nowhere joins a server. Until then its traffic crosses."""
        cdef int64_t joined = 0
        cdef int k, v
        for k in range(self.first[u], self.first[u + 1]):
            v = self.other[k]
            if self.at[v] == s:
                joined += self.rate[k]
                self.inside[v] += self.rate[k]
        self.work += self.first[u + 1] - self.first[u] + 4
        self.inside[u] = joined
        self.cost.cross -= joined
        self.shift(s, self.own_out[u] - joined, self.own_in[u] - joined)
        self.free[s] -= self.size[u]
        self.at[u] = s
        self.prev[u] = -1
        self.next[u] = self.head[s]
        if self.head[s] >= 0:
            self.prev[self.head[s]] = u
        self.head[s] = u

    @cython.final
    cdef void take(self, int u) noexcept nogil:
        """A unit leaves its server for nowhere."""
        cdef int s = self.at[u]
        cdef int k, v
        for k in range(self.first[u], self.first[u + 1]):
            v = self.other[k]
            if self.at[v] == s:
                self.inside[v] -= self.rate[k]
        self.work += self.first[u + 1] - self.first[u] + 4
        self.cost.cross += self.inside[u]
        self.shift(s, self.inside[u] - self.own_out[u], self.inside[u] - self.own_in[u])
        self.free[s] += self.size[u]
        self.at[u] = -1
        if self.prev[u] >= 0:
            self.next[self.prev[u]] = self.next[u]
        else:
            self.head[s] = self.next[u]
        if self.next[u] >= 0:
            self.prev[self.next[u]] = self.prev[u]

    def where(self):
        """Each unit's server, -1 for nowhere."""
        result = _np.empty(self.units, _np.int32)
        cdef int32_t[::1] servers = result
        cdef int u
        for u in range(self.units):
            servers[u] = self.at[u]
        return result

    cdef inline int below(self, int limit) noexcept nogil:
        """A random number from 0 to limit - 1 (splitmix64)."""
        self.random += <uint64_t>0x9E3779B97F4A7C15ULL
        cdef uint64_t x = self.random
        x = (x ^ (x >> 30)) * <uint64_t>0xBF58476D1CE4E5B9ULL
        x = (x ^ (x >> 27)) * <uint64_t>0x94D049BB133111EBULL
        return <int>(((x ^ (x >> 31)) >> 33) * <uint64_t>limit >> 31)

    @cython.final
    cdef void look_around(self, int u) noexcept nogil:
        """Servers with units that u has links to are marked, and in near: conn is their traffic."""
        cdef int k, s
        self.stamp += 1
        self.near.clear()
        for k in range(self.first[u], self.first[u + 1]):
            s = self.at[self.other[k]]
            if s < 0:
                continue
            if self.mark[s] != self.stamp:
                self.mark[s] = self.stamp
                self.conn[s] = 0
                self.near.push_back(s)
            self.conn[s] += self.rate[k]
        self.work += self.first[u + 1] - self.first[u] + 4

    def costs(self):
        """The excess of NICs and the traffic between servers, in quanta."""
        return self.cost.excess, self.cost.cross

    # Ways to begin.

    cdef int roomy(self, int u) noexcept nogil:
        """The first server with cores for a unit, or -1."""
        cdef int s
        for s in range(self.servers):
            if self.size[u] <= self.free[s]:
                return s
        return -1

    def settle(self, const int32_t[::1] units, const int32_t[::1] servers):
        """Units that are nowhere join their servers, in this order, as long as there are cores."""
        cdef int i, u, s
        for i in range(<int>units.shape[0]):
            u = units[i]
            s = servers[i]
            if self.at[u] < 0 and self.size[u] <= self.free[s]:
                self.put(u, s)

    def pack(self):
        """Fill one server after another along the traffic, depth first; whether all units fit."""
        cdef vector[int32_t] stack
        cdef vector[char] seen
        cdef int s = 0
        cdef int turn, root, u, k
        seen.assign(self.units, 0)
        for turn in range(2):  # where traffic comes from outside only; then what is left
            for root in range(self.units):
                if turn == 0 and self.receives(root):
                    continue
                stack.push_back(root)
                while not stack.empty():
                    u = stack.back()
                    stack.pop_back()
                    if seen[u]:
                        continue
                    seen[u] = 1
                    if self.at[u] < 0:
                        if self.size[u] > self.free[s]:
                            s = self.roomy(u)
                        if s < 0:
                            return False
                        self.put(u, s)
                    for k in range(self.first[u + 1] - 1, self.first[u] - 1, -1):
                        if self.sent[k] > 0 and not seen[self.other[k]]:
                            stack.push_back(self.other[k])
        return True

    cdef cbool receives(self, int u) noexcept nogil:
        cdef int k
        for k in range(self.first[u], self.first[u + 1]):
            if self.rate[k] > self.sent[k]:
                return True
        return False

    def scatter(self):
        """Every unit joins any server with cores for it; whether all units fit."""
        cdef vector[int32_t] order, fitting
        cdef int i, s, u
        for u in range(self.units):
            if self.at[u] < 0:
                order.push_back(u)
        for i in range(<int>order.size() - 1, -1, -1):
            s = self.below(i + 1)
            u = order[s]
            order[s] = order[i]
            fitting.clear()
            for s in range(self.servers):
                if self.size[u] <= self.free[s]:
                    fitting.push_back(s)
            if fitting.empty():
                return False
            self.put(u, fitting[self.below(<int>fitting.size())])
        return True

    cdef int cheapest(self, int u, cbool carried) noexcept nogil:
        """Where a unit costs least of servers with cores for it, or -1.

        `carried`: only servers whose NICs carry all that they then have to.
        """
        cdef int best = -1
        cdef int s
        cdef int64_t out, into
        cdef Cost cost, least
        self.look_around(u)
        for s in range(self.servers):
            if self.mark[s] != self.stamp:
                self.conn[s] = 0
            out = self.own_out[u] - self.conn[s]
            into = self.own_in[u] - self.conn[s]
            cost.cross = -self.conn[s]
            cost.excess = self.growth(s, out, into)
            if (
                self.size[u] <= self.free[s]
                and not (carried and self.excess(s) + cost.excess > 0)
                and (best < 0 or less(cost, least))
            ):
                best = s
                least = cost
        return best

    def fit(self, const int32_t[::1] units):
        """Those that are nowhere join, in this order, where they cost least; whether all fit."""
        cdef int i, s
        for i in range(<int>units.shape[0]):
            if self.at[units[i]] < 0:
                s = self.cheapest(units[i], False)
                if s < 0:
                    return False
                self.put(units[i], s)
        return True

    def best_server(self, int unit):
        """Where a unit that is nowhere adds the least excess, then crossing traffic; -1 if nowhere."""
        return self.cheapest(unit, True)

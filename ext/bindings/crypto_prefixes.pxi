# SPDX-License-Identifier: BSD-3-Clause
# Of crypto.pyx: PrefixMatch, the file of its maps, and what only a site's keys tell.

cdef vector[ValueRange] as_ranges(object ranges) except *:
    cdef vector[ValueRange] made
    mask = (1 << 64) - 1
    for i, (first, last) in enumerate(ranges):
        if first < 0 or last < 0 or first >> 128 or last >> 128:
            raise OutOfDomainError(f"range {i} ({first:#x} to {last:#x}) leaves 128 bits")
        made.push_back(value_range(first >> 64, first & mask, last >> 64, last & mask))
    return made


cdef RangeNames as_names(object ids, object kept) except *:
    cdef RangeNames names
    mask = (1 << 64) - 1
    for name in [*ids, *kept]:
        if name < 0 or name >> 128:
            raise CryptoError(f"the id {name:#x} has more than 128 bits")
    for name in ids:
        add_id(names, name >> 64, name & mask)
    for name, prefix in kept.items():
        if prefix < 0 or prefix >> 32:
            raise CryptoError(f"the prefix {prefix:#x} of set {name:#x} has more than 32 bits")
        add_kept(names, name >> 64, name & mask, prefix)
    return names


cdef raise_for(Status status):
    """Raises what a status means for whoever gave keys, ranges or values."""
    if not status.ok():
        raise _ERRORS.get(status.code, CryptoError)(status.message.decode())


cdef class PrefixMap:
    """Ranges, encrypted, and the interval map with which values are.

    With `ids`, ranges of the same one are parts of one set of values; a set of ranges that `kept`
    has by the XOR of their ids gets the prefix from there.
    """

    cdef unique_ptr[EncryptedPrefixes] prefixes
    cdef unique_ptr[CPrefixMap] map
    cdef size_t rule_count

    def __cinit__(self, ranges, int domain_bits, const uint8_t[::1] key, *, int prefix_bits=0,
                  const uint8_t[::1] seed=None, ids=None, kept=None):
        check_length("the key", key.shape[0], _BLOCK)
        cdef const uint8_t* seed_bytes = NULL
        if seed is not None:
            check_length("the seed", seed.shape[0], _BLOCK)
            seed_bytes = &seed[0]
        if domain_bits < 0 or prefix_bits < 0:
            raise CryptoError(f"a domain of {domain_bits} bits, prefixes of {prefix_bits}")
        cdef vector[ValueRange] made = as_ranges(ranges)
        cdef unique_ptr[SecretRandom] random
        random.reset(new SecretRandom(seed_bytes))
        self.prefixes.reset(new EncryptedPrefixes())
        cdef EncryptedPrefixes* prefixes = self.prefixes.get()
        cdef RangeNames names
        if kept is not None and ids is None:
            raise CryptoError("prefixes are kept by ids, and ranges have none")
        if ids is None:
            with nogil:
                prefixes[0] = encrypt_prefixes(made, domain_bits, prefix_bits, random.get()[0])
        else:
            names = as_names(ids, {} if kept is None else kept)
            with nogil:
                prefixes[0] = encrypt_named_prefixes(made, names, domain_bits, prefix_bits,
                                                     random.get()[0])
        raise_for(prefixes.status)
        with nogil:
            self.map.reset(new CPrefixMap(prefixes[0], &key[0]))
        self.rule_count = made.size()

    @property
    def domain_bits(self):
        return self.map.get().domain_bits()

    @property
    def prefix_bits(self):
        return self.map.get().prefix_bits()

    @property
    def sets(self):
        """How many sets of ranges there are, the empty one included."""
        return self.prefixes.get().sets

    @property
    def nbytes(self):
        """What a lookup may read: the map without `encrypted_rules`."""
        return self.map.get().bytes()

    def set_prefixes(self):
        """The prefix of each set of ranges by the XOR of their ids: what a later map may keep."""
        cdef const SetPrefixes* sets = &self.prefixes.get().set_prefixes
        cdef size_t i
        return {
            (<object>id_high(sets[0], i)) << 64 | id_low(sets[0], i): prefix_at(sets[0], i)
            for i in range(sets.size())
        }

    def encrypted_rules(self):
        """The prefixes of each range, ascending, as numbers of `prefix_bits` bits."""
        cdef vector[uint32_t] prefixes
        cdef size_t i
        rules = []
        for i in range(self.rule_count):
            prefixes = self.prefixes.get().rule(i)
            rules.append(_np.array(prefixes, _np.uint32))
        return rules

    def encrypt_values(self, values, flow_seeds, out=None):
        """Values encrypted, each for the flow whose seed of 16 bytes stands beside it.

        Up to 64 bits they are uint64; in wider domains rows of 16 bytes, big-endian.
        """
        if self.domain_bits <= 64:
            return self.encrypt_short(values, flow_seeds, out)
        return self.encrypt_wide(values, flow_seeds, out)

    cdef encrypt_short(self, const uint64_t[::1] values, const uint8_t[:, ::1] seeds,
                       uint64_t[::1] out):
        cdef size_t n = values.shape[0]
        check_length("a seed", seeds.shape[1], _BLOCK)
        check_rows("seeds", seeds.shape[0], n)
        if out is None:
            out = _np.empty(n, _np.uint64)
        if <size_t>out.shape[0] != n:
            raise CryptoError(f"out has {out.shape[0]} rows; must be {n}")
        cdef size_t outside
        if n > 0:
            with nogil:
                outside = self.map.get().first_outside(&values[0], n)
                if outside == n:
                    self.map.get().encrypt(&values[0], &seeds[0, 0], &out[0], n)
            self.check_inside(outside, n)
        return out.base

    cdef encrypt_wide(self, const uint8_t[:, ::1] values, const uint8_t[:, ::1] seeds,
                      uint8_t[:, ::1] out):
        cdef size_t n = values.shape[0]
        check_length("a value", values.shape[1], _BLOCK)
        check_length("a seed", seeds.shape[1], _BLOCK)
        check_rows("seeds", seeds.shape[0], n)
        if out is None:
            out = _np.empty((n, _BLOCK), _np.uint8)
        check_out(values, out)
        cdef size_t outside
        if n > 0:
            with nogil:
                outside = self.map.get().first_outside_wide(&values[0, 0], n)
                if outside == n:
                    self.map.get().encrypt_wide(&values[0, 0], &seeds[0, 0], &out[0, 0], n)
            self.check_inside(outside, n)
        return out.base

    cdef int check_inside(self, size_t outside, size_t n) except -1:
        if outside < n:
            raise OutOfDomainError(f"value {outside} has more than {self.domain_bits} bits")
        return 0

    def encrypt_ipv4(self, const uint32_t[::1] values, const uint8_t[:, ::1] flow_seeds,
                     uint8_t[:, ::1] out=None):
        """The same as `encrypt_values` of the IPv4-mapped addresses; for domains of 128 bits."""
        cdef size_t n = values.shape[0]
        if self.domain_bits != 128:
            raise OutOfDomainError(
                f"IPv4-mapped addresses have 128 bits, the domain {self.domain_bits}"
            )
        check_length("a seed", flow_seeds.shape[1], _BLOCK)
        check_rows("seeds", flow_seeds.shape[0], n)
        if out is None:
            out = _np.empty((n, _BLOCK), _np.uint8)
        check_out(flow_seeds, out)
        if n > 0:
            with nogil:
                self.map.get().encrypt_ipv4(&values[0], &flow_seeds[0, 0], &out[0, 0], n)
        return out.base


def write_prefix_maps(path, PrefixMap src not None, PrefixMap dst not None,
                      PrefixMap sport not None, PrefixMap dport not None):
    """Writes the file that PrefixMatchEncrypt loads: the maps of addresses and ports.

    Their keys aren't in it, but which prefix stands for which values: only its owner may read it.
    """
    cdef vector[const EncryptedPrefixes*] maps
    maps.push_back(src.prefixes.get())
    maps.push_back(dst.prefixes.get())
    maps.push_back(sport.prefixes.get())
    maps.push_back(dport.prefixes.get())
    cdef Status status = c_write_prefix_maps(_fsencode(path), maps)
    if status.code == _EINVAL:
        raise CryptoError(status.message.decode())
    if not status.ok():
        raise OSError(status.code, status.message.decode())


cdef class SiteKeys:
    """The keys of a site's key file, which must be private to its owner."""

    cdef shared_ptr[const CSiteKeys] keys

    def __cinit__(self, path):
        cdef Status status = read_site_keys(_fsencode(path), self.keys)
        if status.code == _EINVAL:
            raise CryptoError(status.message.decode())
        if not status.ok():
            raise OSError(status.code, status.message.decode())

    def names_of(self, texts):
        """A number of 128 bits for each text (bytes), random to whoever hasn't the key."""
        return [int.from_bytes(name_of(self.keys.get()[0], text), "big") for text in texts]

    def encrypt_pool(self, PrefixMap src not None, PrefixMap dst not None, addresses):
        """What PrefixMatchEncrypt's `get_pool` tells: 16 bytes for each pair (16 bytes, nat)."""
        cdef vector[PoolEntry] entries
        cdef const uint8_t[::1] clear
        for address, nat in addresses:
            clear = address
            check_length("an address", clear.shape[0], _BLOCK)
            add_entry(entries, &clear[0], nat)
        raise_for(c_encrypt_pool(self.keys.get()[0], src.prefixes.get()[0], dst.prefixes.get()[0],
                                 entries))
        cdef size_t i
        return [encrypted_at(entries, i) for i in range(entries.size())]

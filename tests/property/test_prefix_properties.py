# SPDX-License-Identifier: BSD-3-Clause
"""The properties of PrefixMatch that middleboxes rely on (dissertation, sections 4.7 and 4.8)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from bess_plugins._crypto import AesKey, PrefixMap
from crypto_support import KEY, MAPPED, SEED, encrypt, rows
from twins import prefix_match_twin as twin

DOMAINS = (4, 6, 16, 32, 128)
BASES = (0, MAPPED, 0x2001_0DB8 << 96, 2**128 - 2**66)


def values(domain_bits: int) -> st.SearchStrategy[int]:
    """Of wide domains mostly values that lie close together."""
    last = 2**domain_bits - 1
    anywhere = st.integers(0, last)
    if domain_bits <= 16:
        return anywhere
    near = st.builds(
        lambda base, by: min(base + by, last), st.sampled_from(BASES), st.integers(0, 99)
    )
    return st.one_of(anywhere, near.map(lambda value: value % (last + 1)))


def ranges(domain_bits: int, most: int = 8) -> st.SearchStrategy[list[twin.Range]]:
    pair = st.tuples(values(domain_bits), values(domain_bits))
    ordered = pair.map(lambda ends: (min(ends), max(ends)))
    return st.lists(ordered, max_size=most, unique=True)


@st.composite
def maps(draw: st.DrawFn) -> tuple[int, list[twin.Range], bytes, list[int]]:
    domain_bits = draw(st.sampled_from(DOMAINS))
    chosen = draw(ranges(domain_bits))
    seed = draw(st.binary(min_size=16, max_size=16))
    if domain_bits <= 6:
        return domain_bits, chosen, seed, list(range(2**domain_bits))
    ends = [min(max(end + by, 0), 2**domain_bits - 1)
            for pair in chosen for end in pair for by in (-1, 0, 1)]  # fmt: skip
    return domain_bits, chosen, seed, [*ends, *draw(st.lists(values(domain_bits), min_size=1))]


@given(maps(), st.binary(min_size=16, max_size=16))
def test_like_the_twin(
    drawn: tuple[int, list[twin.Range], bytes, list[int]], flow_seed: bytes
) -> None:
    domain_bits, chosen, seed, probed = drawn
    made = PrefixMap(chosen, domain_bits, KEY, seed=seed)
    oracle = twin.PrefixMap(chosen, domain_bits, KEY, seed)
    assert [rule.tolist() for rule in made.encrypted_rules()] == oracle.rules
    wanted = [oracle.encrypt(value, flow_seed) for value in probed]
    assert encrypt(made, probed, [flow_seed] * len(probed)) == wanted


@given(maps(), st.binary(min_size=16, max_size=16))
def test_a_value_matches_encrypted_as_it_does_in_clear(
    drawn: tuple[int, list[twin.Range], bytes, list[int]], flow_seed: bytes
) -> None:
    """v in P if and only if Enc(v) in Enc(P); sets of ranges and prefixes match one to one."""
    domain_bits, chosen, _, probed = drawn
    made = PrefixMap(chosen, domain_bits, KEY)
    rules = [set(rule.tolist()) for rule in made.encrypted_rules()]
    prefix_of: dict[frozenset[int], int] = {}
    encrypted = encrypt(made, probed, [flow_seed] * len(probed))
    for value, result in zip(probed, encrypted, strict=True):
        prefix = result >> (domain_bits - made.prefix_bits)
        inside = [first <= value <= last for first, last in chosen]
        assert [prefix in rule for rule in rules] == inside
        members = frozenset(i for i, is_inside in enumerate(inside) if is_inside)
        assert prefix_of.setdefault(members, prefix) == prefix
    assert len(set(prefix_of.values())) == len(prefix_of) <= made.sets


@dataclass(frozen=True)
class Flow:
    """A 5-tuple, in clear or encrypted."""

    sip: int
    sp: int
    dip: int
    dp: int
    proto: int


FIELDS = ("sip", "sp", "dip", "dp")
BITS = {"sip": 128, "sp": 16, "dip": 128, "dp": 16}
SEED_KEY = AesKey(bytes(16))
PORTS = (0, 53, 80, 443, 65535)
ADDRESSES = st.one_of(values(128), st.integers(MAPPED, MAPPED + 3))
FLOWS = st.builds(
    Flow,
    ADDRESSES,
    st.one_of(st.sampled_from(PORTS), st.integers(0, 65535)),
    ADDRESSES,
    st.one_of(st.sampled_from(PORTS), st.integers(0, 65535)),
    st.sampled_from([6, 17]),
)
Rule = dict[str, twin.Range]


def flow_seed(flow: Flow) -> bytes:
    """A pseudorandom function of the 5-tuple: CBC-MAC over three blocks."""
    tail = flow.sp << 24 | flow.dp << 8 | flow.proto
    state = bytes(16)
    for number in (flow.sip, flow.dip, tail):
        mixed = int.from_bytes(state, "big") ^ number
        state = bytes(SEED_KEY.blocks(rows([mixed.to_bytes(16, "big")]))[0])
    return state


class Gateway:
    """A map per field, of what all rules say about it, and a key per field."""

    def __init__(self, rules: list[Rule]) -> None:
        self.maps: dict[str, PrefixMap] = {}
        self.prefixes: dict[tuple[str, twin.Range], set[int]] = {}
        for i, field in enumerate(FIELDS):
            different = list(dict.fromkeys(rule[field] for rule in rules))
            made = PrefixMap(different, BITS[field], bytes([i]) * 16, seed=SEED)
            self.maps[field] = made
            for chosen, prefixes in zip(different, made.encrypted_rules(), strict=True):
                self.prefixes[field, chosen] = set(prefixes.tolist())

    def encrypt(self, flow: Flow) -> Flow:
        """The protocol number stays as it is: a packet could not be parsed without."""
        seed = flow_seed(flow)
        fields = {f: encrypt(self.maps[f], [getattr(flow, f)], [seed])[0] for f in FIELDS}
        return Flow(**fields, proto=flow.proto)

    def matches(self, flow: Flow, rule: Rule) -> bool:
        """What a firewall does with an encrypted packet and an encrypted rule."""
        return all(
            getattr(flow, field) >> (BITS[field] - self.maps[field].prefix_bits)
            in self.prefixes[field, rule[field]]
            for field in FIELDS
        )


def fields(field: str) -> st.SearchStrategy[twin.Range]:
    last = 2 ** BITS[field] - 1
    pair = st.tuples(values(BITS[field]), values(BITS[field]))
    return st.one_of(st.just((0, last)), pair.map(lambda ends: (min(ends), max(ends))))


RULES = st.lists(st.fixed_dictionaries({field: fields(field) for field in FIELDS}), max_size=4)


@given(RULES, st.lists(FLOWS, min_size=1, max_size=8))
def test_firewall(rules: list[Rule], flows: list[Flow]) -> None:
    """(4.3): a packet matches a rule if and only if their encryptions match."""
    gateway = Gateway(rules)
    for flow in flows:
        encrypted = gateway.encrypt(flow)
        for rule in rules:
            in_clear = all(
                rule[field][0] <= getattr(flow, field) <= rule[field][1] for field in FIELDS
            )
            assert gateway.matches(encrypted, rule) == in_clear


@given(RULES, st.lists(FLOWS, min_size=2, max_size=8))
def test_flows(rules: list[Rule], flows: list[Flow]) -> None:
    """(4.10): equal flows are encrypted alike, by each gateway that has keys, rules and seed.

    (4.11) to (4.15): what is encrypted alike was equal. The probability that this fails for two
    addresses is 2^-(128 - prefix_len), (4.2).
    """
    one, other = Gateway(rules), Gateway(rules)
    encrypted = [one.encrypt(flow) for flow in flows]
    assert encrypted == [other.encrypt(flow) for flow in flows]
    for (a, enc_a), (b, enc_b) in combinations(zip(flows, encrypted, strict=True), 2):
        assert (a == b) == (enc_a == enc_b)
        assert enc_a.sip != enc_b.sip or a.sip == b.sip  # (4.11)
        assert enc_a.dip != enc_b.dip or a.dip == b.dip  # (4.12)
        assert (enc_a.sip, enc_a.sp) != (enc_b.sip, enc_b.sp) or (a.sip, a.sp) == (b.sip, b.sp)
        assert (enc_a.dip, enc_a.dp) != (enc_b.dip, enc_b.dp) or (a.dip, a.dp) == (b.dip, b.dp)
        assert enc_a.proto != enc_b.proto or a.proto == b.proto  # (4.15)
        if a != b:  # even for one address, nobody sees that two flows share it
            assert enc_a.sip != enc_b.sip and enc_a.dip != enc_b.dip


@given(values(128), st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16))
def test_two_fields_of_a_packet_have_nothing_in_common(
    value: int, first_key: bytes, second_key: bytes
) -> None:
    """Source and destination of the same value, same flow: keys of their own tell them apart."""
    seed = flow_seed(Flow(value, 1, value, 1, 6))
    made = [PrefixMap([], 128, key, seed=SEED) for key in (first_key, second_key)]
    results = [encrypt(one, [value], [seed])[0] for one in made]
    assert (results[0] == results[1]) == (first_key == second_key)

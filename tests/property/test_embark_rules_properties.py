# SPDX-License-Identifier: BSD-3-Clause
"""Rules, encrypted, decide over encrypted packets as they do in clear; importers never crash."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from embark_support import write_key
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bess_plugins._crypto import SiteKeys
from crypto_support import encrypt as encrypt_values
from embark_gw.rules import ranges
from embark_gw.rules.document import FIELDS, EncryptedRules, check_model
from embark_gw.rules.encrypt import encrypt as encrypt_rules
from embark_gw.rules.formats import Format, parse_rules
from embark_gw.rules.model import RulesError, RuleSet
from rules_support import decide_encrypted, random_packet, rules_for

SEED = bytes(range(16))


@pytest.fixture(scope="module")
def site_keys(tmp_path_factory: pytest.TempPathFactory) -> SiteKeys:
    return SiteKeys(write_key(tmp_path_factory.mktemp("key") / "site.key", bytes(range(32))))


WORDS = {
    Format.IPTABLES: [
        *("*filter", ":FORWARD DROP", ":user - [0:0]", "COMMIT", "-A FORWARD", "-A user", "\n"),
        *(
            "\n",
            "!",
            "-s",
            "-d",
            "10.0.0.0/8",
            "1.2.3.4",
            "-p",
            "tcp",
            "-m",
            "multiport",
            "--ports",
        ),
        *("1:5,7", "-j", "DROP", "user", "RETURN", '"', "--dport", "99", "iprange"),
        *(
            "--src-range",
            "1.1.1.1-2.2.2.2",
            "-m tcp",
            "[0:0]",
            "#",
            "9.9.9.9/255.0.255.0",
            "-g",
            "::1",
        ),
    ],
    Format.CLASSBENCH: [*"@./: \n", "0x06/0xFF", "10.0.0.0/8", "0 : 65535", "80 : 80", "0x1/0x"],
    Format.LIST: [*"./:-#; \n", "10.0.0.1", "2001:db8::", "/33", "255"],
    Format.SNORT: [
        *("alert", "ip", "any", "->", "<>", "[", "]", "!", ",", "$HOME_NET", "10.0.0.0/8", "80:"),
        *("(", ")", "sid:1;", 'msg:"', '";', "\n", " ", "content:", "any any -> any any (sid:1;)"),
    ],
}
LEAVES = st.sampled_from(
    [None, 5, -1, 70000, "10.0.0.1", "::1", "tcp", "@s", "accept", "==", "!=", "<", True, 1.5, "x"]
)
KEYS = st.sampled_from(
    [
        *("match", "op", "left", "right", "payload", "meta", "protocol", "field", "key", "set"),
        *("range", "prefix", "addr", "len", "elem", "val", "accept", "drop", "jump", "target"),
    ]
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=12,
)
MATCHES = st.fixed_dictionaries(
    {
        "match": st.fixed_dictionaries(
            {
                "op": st.sampled_from(["==", "!=", "<", "in"]),
                "left": st.sampled_from(
                    [
                        {"payload": {"protocol": "ip", "field": "saddr"}},
                        {"payload": {"protocol": "ip6", "field": "daddr"}},
                        {"payload": {"protocol": "tcp", "field": "dport"}},
                        {"meta": {"key": "l4proto"}},
                        {"meta": {"key": "nfproto"}},
                    ]
                ),
                "right": TREES,
            }
        )
    }
)


def error_of(call: Callable[[], object]) -> RulesError | None:
    """What a call raises of the errors that it may."""
    try:
        call()
    except RulesError as error:
        return error
    return None


@st.composite
def rule_texts(draw: st.DrawFn) -> tuple[Format, str]:
    kind = draw(st.sampled_from(sorted(WORDS)))
    words = st.one_of(st.sampled_from(WORDS[kind]), st.text(max_size=3))
    return kind, " ".join(draw(st.lists(words, max_size=25)))


@given(rule_texts())
@example((Format.IPTABLES, "*filter\n:FORWARD DROP\n[0:0]\nCOMMIT"))
@settings(max_examples=400)
def test_importers_have_an_error_of_their_own(kind_text: tuple[Format, str]) -> None:
    kind, text = kind_text
    error = error_of(lambda: parse_rules(text, "f", kind))
    assert error is None or error.where.file == "f"


@given(st.lists(st.lists(st.one_of(MATCHES, TREES), max_size=3), max_size=3), TREES)
@settings(max_examples=400)
def test_nftables_has_an_error_of_its_own(rules: list[object], elements: object) -> None:
    table = {"family": "inet", "table": "t"}
    base = {"name": "c", "type": "filter", "hook": "forward", "policy": "drop"}
    items: list[object] = [{"chain": table | base}]
    items.append({"set": table | {"name": "s", "type": "ipv4_addr", "elem": elements}})
    for rule in rules:
        items.append({"rule": table | {"chain": "c", "expr": [*rule, {"accept": None}]}})
    text = json.dumps({"nftables": items})
    error = error_of(lambda: parse_rules(text, "f", Format.NFTABLES))
    assert error is None or (error.where.line == 1 and error.where.column <= len(text))


@given(st.text(max_size=60))
def test_a_document_of_anything_has_an_error_of_its_own(text: str) -> None:
    error = error_of(lambda: check_model(EncryptedRules, text, "f"))
    assert error is not None and error.where.file == "f"


@given(st.integers(0, 2**32), st.integers(1, 25), st.booleans())
@settings(max_examples=60)
def test_decisions_are_the_same(site_keys: SiteKeys, seed: int, count: int, shared: bool) -> None:
    """(4.3): a packet matches a rule if and only if the encrypted one matches the encrypted one.

    With shared maps that is so wherever a NAT puts what was encrypted.
    """
    draw = random.Random(seed)
    packets = [random_packet(draw, draw.choice([4, 6])) for _ in range(60)]
    packets += [packet._replace(sport=None, dport=None) for packet in packets[:10]]
    rules = rules_for(packets, count, seed)
    low = replace(rules.rules[0], src=((0, 65535),)) if rules.rules else None  # no set of ports
    rules = replace(rules, rules=(*rules.rules, *([low] if low else [])))
    made = encrypt_rules(rules, site_keys, seed=SEED, shared=shared)
    document = check_model(EncryptedRules, made.document.text(), "f")
    for packet in packets:
        flow = draw.randbytes(16)
        encrypted: dict[str, int | None] = {"protocol": packet.protocol}
        for name in FIELDS:
            value: int | None = getattr(packet, name)
            encrypted[name] = (
                None if value is None else encrypt_values(made.maps[name], [value], [flow])[0]
            )
        assert decide_encrypted(document, encrypted) is rules.decide(packet)
        if shared:
            turned = packet._replace(
                src=packet.dst, dst=packet.src, sport=packet.dport, dport=packet.sport
            )
            swapped = encrypted | {
                name: encrypted[other]
                for one, two in (("src", "dst"), ("sport", "dport"))
                for name, other in ((one, two), (two, one))
            }
            assert decide_encrypted(document, swapped) is rules.decide(turned)


@given(st.integers(0, 2**32))
@settings(max_examples=30)
def test_only_what_changed_changes(site_keys: SiteKeys, seed: int) -> None:
    """Also where source and destination share maps."""
    draw = random.Random(seed)
    encrypt = partial(encrypt_rules, shared=draw.random() < 0.5)
    packets = [random_packet(draw) for _ in range(40)]
    rules = rules_for(packets, 20, seed)
    first = encrypt(rules, site_keys)
    again = encrypt(rules, site_keys, first.kept)
    assert again.kept == first.kept
    assert sorted(again.document.sets.src) == sorted(first.document.sets.src)
    fewer = encrypt(RuleSet(rules.rules[1:], rules.default), site_keys, first.kept)
    for name in FIELDS:
        old, new = first.kept.fields[name].prefixes, fewer.kept.fields[name].prefixes
        assert {key: new[key] for key in new if key in old} == {
            key: old[key] for key in new if key in old
        }


@given(st.integers(0, 2**32))
@settings(max_examples=40)
def test_order_tells_nothing_of_neighbours(site_keys: SiteKeys, seed: int) -> None:
    draw = random.Random(seed)
    rules = rules_for([random_packet(draw) for _ in range(9)], 12, seed)
    plain = encrypt_rules(rules, site_keys, annotate=True, seed=SEED).document.rules
    shuffled = encrypt_rules(rules, site_keys, seed=SEED).document.rules
    assert [rule.action for rule in plain] == [rule.action for rule in shuffled]
    bare = [rule.model_copy(update={"text": None, "line": None}) for rule in plain]
    assert sorted(map(repr, bare)) == sorted(map(repr, shuffled))
    assert all(rule.text is None and rule.line is None for rule in shuffled)


@given(
    st.lists(st.tuples(st.integers(0, 99), st.integers(0, 20)), max_size=8),
    st.lists(st.tuples(st.integers(0, 99), st.integers(0, 20)), max_size=8),
)
def test_ranges_are_sets(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    sets = [{n for at, more in pairs for n in range(at, at + more + 1)} for pairs in (one, other)]
    joined = [ranges.join((at, at + more) for at, more in pairs) for pairs in (one, other)]
    numbers = range(130)
    for values, as_ranges in zip(sets, joined, strict=True):
        assert values == {n for n in numbers if ranges.contains(as_ranges, n)}
    assert sets[0] & sets[1] == {
        n for n in numbers if ranges.contains(ranges.intersect(*joined), n)
    }
    assert sets[0] - sets[1] == {n for n in numbers if ranges.contains(ranges.subtract(*joined), n)}

# SPDX-License-Identifier: BSD-3-Clause
"""MetadataMatch with thousands of rules, against a plain search."""

from __future__ import annotations

import random

import pytest

import classbench
from match_support import GATES, device


def classbench_set(name: str) -> list[classbench.FiveRule]:
    if name.startswith("made"):
        return classbench.make(10_000, seed=int(name.split()[1]))
    path = classbench.rules_file(name)
    if not path.exists():
        pytest.skip(f"no {path}; set E2_DATA to the folder with rules")
    return classbench.load(path)


@pytest.mark.parametrize("name", ["made 1", "made 2", "acl1_10k", "fw1_10k", "ipc1_10k"])
def test_classbench(name: str) -> None:
    """Ten thousand rules; headers that hit them, some of which an earlier rule takes."""
    rules = classbench_set(name)
    headers = classbench.hitting(rules, 700, seed=10)
    args = [
        {"gate": number % GATES, "priority": -number, "terms": rule.terms()}
        for number, rule in enumerate(rules)
    ]
    engine = device(rules=args, default_gate=GATES)
    found = [classbench.best(rules, header) for header in headers]
    hits = [number for number in found if number is not None]
    assert len(hits) > 650
    assert len(set(hits)) > 300
    expected: dict[int, list[bytes]] = {}
    for number, header in zip(found, headers, strict=True):
        gate = GATES if number is None else number % GATES
        expected.setdefault(gate, []).append(header.frame())
    packets = [header.frame() for header in headers]
    assert engine.run_packets("m", packets) == expected
    # The same one by one, and without those that were hit.
    gone = sorted(set(hits))
    engine.module_command("m", "delete", {"rules": [args[number] for number in gone[::2]]})
    for number in gone[1::2]:
        engine.module_command("m", "delete", {"rules": [args[number]]})
    left = [rule for number, rule in enumerate(rules) if number not in set(gone)]
    origin = [number for number in range(len(rules)) if number not in set(gone)]
    counts: dict[int, int] = {}
    for header in headers[:150]:
        number = classbench.best(left, header)
        gate = GATES if number is None else origin[number] % GATES
        counts[gate] = counts.get(gate, 0) + 1
    out = engine.run_packets("m", packets[:150])
    assert {gate: len(some) for gate, some in out.items() if some} == counts


def test_rules_added_one_by_one() -> None:
    rules = classbench.make(600, seed=3)
    headers = classbench.hitting(rules, 300, seed=4)
    engine = device(default_gate=GATES)
    order = random.Random(5).sample(range(len(rules)), len(rules))
    for number in order:
        rule = {"gate": number % GATES, "priority": -number, "terms": rules[number].terms()}
        engine.module_command("m", "add", {"rules": [rule]})
    expected: dict[int, int] = {}
    for header in headers:
        number = classbench.best(rules, header)
        gate = GATES if number is None else number % GATES
        expected[gate] = expected.get(gate, 0) + 1
    out = engine.run_packets("m", [header.frame() for header in headers])
    assert {gate: len(some) for gate, some in out.items() if some} == expected
    assert "in " in engine.module_info("m")["desc"]

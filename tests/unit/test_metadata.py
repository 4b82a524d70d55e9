# SPDX-License-Identifier: BSD-3-Clause
"""Metadata offsets: values that are alive in one module never share bytes."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import Engine, EngineError, new_engine

SIZES = (1, 2, 4, 8)


@dataclass(frozen=True)
class Stage:
    """One module of a chain: it writes or reads attributes of (name, size)."""

    writes: tuple[tuple[str, int], ...]
    reads: tuple[tuple[str, int], ...]


def live_twin(stages: list[Stage]) -> dict[tuple[str, int], list[tuple[int, int]]]:
    """For each attribute of a chain, its live ranges as (first, last) stage: spelled out."""
    ranges: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for at, stage in enumerate(stages):
        for key in stage.writes:
            last = at
            for later in range(at + 1, len(stages)):
                if key in stages[later].writes:
                    break
                if key in stages[later].reads:
                    last = later
            ranges.setdefault(key, []).append((at, last))
    return ranges


def build(stages: list[Stage]) -> Engine:
    engine = new_engine()
    engine.create_module("source", "Source", {})
    previous = "source"
    for at, stage in enumerate(stages):
        name = f"stage{at}"
        if stage.writes:
            attrs = [{"name": n, "size": s, "value_int": 1} for n, s in stage.writes]
            engine.create_module(name, "SetMetadata", {"attrs": attrs})
        else:
            fields = [{"attr_name": n, "num_bytes": s} for n, s in stage.reads]
            engine.create_module(name, "ExactMatch", {"fields": fields})
        engine.connect(previous, 0, name, 0)
        previous = name
    engine.create_module("sink", "Sink", {})
    engine.connect(previous, 0, "sink", 0)
    return engine


@st.composite
def chains(draw: st.DrawFn) -> list[Stage]:
    """Chains in which every read has a writer upstream."""
    names = [(f"a{i}", draw(st.sampled_from(SIZES))) for i in range(6)]
    stages: list[Stage] = []
    written: set[tuple[str, int]] = set()
    for _ in range(draw(st.integers(2, 10))):
        if written and draw(st.booleans()):
            keys = draw(st.lists(st.sampled_from(sorted(written)), min_size=1, unique=True))
            stages.append(Stage((), tuple(keys)))
        else:
            keys = draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
            stages.append(Stage(tuple(keys), ()))
            written.update(keys)
    return stages


@settings(deadline=None, max_examples=100)
@given(chains())
def test_live_values_are_disjoint_and_stay_in_place(stages: list[Stage]) -> None:
    engine = build(stages)
    engine.resume_all()
    engine.pause_all()
    offsets = [
        {(a["name"], a["size"]): a["offset"] for a in engine.module_info(f"stage{i}")["metadata"]}
        for i in range(len(stages))
    ]
    placed: list[tuple[int, int, int, int]] = []  # first stage, last stage, offset, size
    for key, ranges in live_twin(stages).items():
        for first, last in ranges:
            offset = offsets[first][key]
            assert 0 <= offset <= 128 - key[1]
            for reader in range(first + 1, last + 1):
                assert offsets[reader].get(key, offset) == offset
            placed.append((first, last, offset, key[1]))
    for i, (first, last, offset, size) in enumerate(placed):
        for other_first, other_last, other_offset, other_size in placed[i + 1 :]:
            if first <= other_last and other_first <= last:
                assert offset + size <= other_offset or other_offset + other_size <= offset


def test_dead_values_lend_their_bytes() -> None:
    stages = []
    for i in range(40):
        stages += [Stage(((f"x{i}", 8),), ()), Stage((), ((f"x{i}", 8),))]
    engine = build(stages)  # 320 bytes of attributes, 8 alive at a time
    engine.resume_all()
    engine.pause_all()


def test_a_value_that_is_written_again_is_dead_before() -> None:
    x = ("x", 8)
    wide = [(f"w{i}", 8) for i in range(16)]  # the whole of a packet's metadata
    stages = [Stage((x,), ()), Stage((), (x,))]
    for half in (wide[:8], wide[8:]):
        stages.append(Stage(tuple(half), ()))
    for half in (wide[:8], wide[8:]):
        stages.append(Stage((), tuple(half)))
    stages += [Stage((x,), ()), Stage((), (x,))]
    engine = build(stages)
    engine.resume_all()
    engine.pause_all()


def test_too_much_at_once_is_refused_by_name() -> None:
    keys = [(f"big{i}", 8) for i in range(17)]
    writes = [Stage((key,), ()) for key in keys]
    reads = [Stage((), (key,)) for key in keys]
    with pytest.raises(EngineError, match="no room for attribute 'big"):
        build([*writes, *reads]).resume_all()

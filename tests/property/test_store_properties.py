# SPDX-License-Identifier: BSD-3-Clause
"""What a controller remembers is what it wrote, in either store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e2ctl.affinity import FLOW_IDS
from e2ctl.controller.store import Inputs, State, Store, open_store
from e2ctl.igraph import Span
from e2ctl.plan import Detour, FlowException, Running
from etcd_support import etcds, needs_etcd

TEXTS = st.text(max_size=40)
IDS = st.integers(0, FLOW_IDS)
SPANS = st.builds(Span, IDS, IDS)
WAYS = st.tuples(TEXTS, st.integers(0, 1 << 32) | TEXTS)
DETOURS = st.builds(
    Detour, kind=st.sampled_from(["split", "shift", "drain", "resume"]), target=TEXTS, ids=SPANS
)
RUNNING = st.builds(
    Running,
    servers=st.dictionaries(TEXTS, TEXTS, max_size=3),
    spans=st.dictionaries(TEXTS, st.tuples(SPANS, SPANS), max_size=3),
    entries=st.dictionaries(TEXTS, st.integers(1, 4095), max_size=3),
    detours=st.dictionaries(TEXTS, DETOURS, max_size=3),
    exceptions=st.lists(
        st.builds(FlowException, TEXTS, st.lists(WAYS, max_size=5).map(tuple)), max_size=3
    ).map(tuple),
    types=st.dictionaries(TEXTS, TEXTS, max_size=3),
)
INPUTS = st.builds(
    Inputs,
    policy=TEXTS,
    policy_file=TEXTS,
    nfs=TEXTS,
    nfs_file=TEXTS,
    hardware=TEXTS,
    hardware_file=TEXTS,
    running=RUNNING,
    counts=st.dictionaries(TEXTS, st.integers(1, 1 << 20), max_size=4),
)
STATES = st.builds(
    State,
    current=st.none() | INPUTS,
    next=st.none() | INPUTS,
    stage=st.sampled_from(["preparing", "committing", "done"]),
)


@pytest.fixture(scope="module", params=["file", pytest.param("etcd", marks=needs_etcd)])
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    folder: Path = tmp_path_factory.mktemp("store")
    if request.param == "file":
        held = open_store(str(folder / "controller.db"))
        with held.only_one():
            yield held
        held.close()
        return
    with etcds(folder) as (one,):
        held = open_store(f"etcd://{one.address}/e2")
        with held.only_one():
            yield held
        held.close()


@settings(max_examples=60, deadline=None)
@given(state=STATES)
def test_a_state_is_read_as_it_was_written(store: Store, state: State) -> None:
    store.write(state)
    assert store.read() == state

# SPDX-License-Identifier: BSD-3-Clause
"""Properties (4.3) and (4.10) to (4.15) of the dissertation, over the packets that modules make."""

from __future__ import annotations

from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from embark_support import MAC_ARGS, MAP_SEED, MAPPED, RANGES, SITE, Site
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bess_plugins._crypto import PrefixMap
from embark_flows import Flow, flow_of
from harness import Engine, new_engine
from twins import embark_twin as twin

BITS = (128, 128, 16, 16)
USUAL = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


IPV4 = st.one_of(
    st.integers(MAPPED + (10 << 24), MAPPED + (10 << 24) + 9),
    st.integers(MAPPED, MAPPED + 2**32 - 1),
)
IPV6 = st.one_of(st.integers(SITE, SITE + 9), st.integers(2**125, 2**126), st.integers(0, 9))
NUMBERS = st.one_of(st.sampled_from([0, 79, 80, 1023, 1024, 65535]), st.integers(0, 65535))
FLOWS = st.one_of(
    *(
        st.builds(Flow, kind, kind, NUMBERS, NUMBERS, st.sampled_from([twin.TCP, twin.UDP]))
        for kind in (IPV4, IPV6)
    )
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("embark") / "site")


@pytest.fixture(scope="module")
def engine(site: Site) -> Engine:
    """Two gateways of one site."""
    made = new_engine()
    for name in ("one", "other"):
        made.create_module(name, "PrefixMatchEncrypt", site.plan | MAC_ARGS)
    return made


def encrypt(engine: Engine, flows: list[Flow], name: str = "one") -> list[Flow]:
    out = engine.run_packets(name, [flow.packet() for flow in flows])[0]
    return [flow_of(packet) for packet in out]


@USUAL
@given(flows=st.lists(FLOWS, min_size=1, max_size=40))
def test_rules_hold_for_encrypted_packets_as_in_clear(engine: Engine, flows: list[Flow]) -> None:
    """(4.3), field by field: so any rule over them."""
    encrypted = encrypt(engine, flows)
    for at, (chosen, bits) in enumerate(zip(RANGES, BITS, strict=True)):
        made = PrefixMap(chosen, bits, bytes(16), seed=MAP_SEED)
        rules = [{*rule.tolist()} for rule in made.encrypted_rules()]
        for flow, result in zip(flows, encrypted, strict=True):
            prefix = result.fields[at] >> (bits - made.prefix_bits)
            for (first, last), rule in zip(chosen, rules, strict=True):
                assert (first <= flow.fields[at] <= last) == (prefix in rule)


@USUAL
@given(flows=st.lists(FLOWS, min_size=2, max_size=20))
def test_equal_flows_and_only_those_are_encrypted_alike(engine: Engine, flows: list[Flow]) -> None:
    encrypted = encrypt(engine, flows)
    assert encrypted == encrypt(engine, flows, "other") == encrypt(engine, flows)  # (4.10)
    for (a, enc_a), (b, enc_b) in combinations(zip(flows, encrypted, strict=True), 2):
        assert (a == b) == (enc_a == enc_b)
        assert (enc_a.proto == enc_b.proto) == (a.proto == b.proto)  # (4.15)
        if a != b:  # (4.11) to (4.14), and more: no two flows share the encryption of an address
            assert enc_a.sip != enc_b.sip and enc_a.dip != enc_b.dip


def chi_square(column: np.ndarray) -> float:
    seen = np.bincount(column, minlength=256)
    expected = len(column) / 256
    return float(((seen - expected) ** 2 / expected).sum())


def test_what_the_provider_sees_looks_random(engine: Engine) -> None:
    """Neighbours in one interval: suffixes, texts and tags are even, and their order is chance.

    Bounds are six standard deviations wide. Suffixes are the same in each run; texts are not.
    """
    count = 2**14
    base = MAPPED + (10 << 24) + 2**16
    flows = [Flow(base + i, base, 2000, 3000, twin.TCP) for i in range(count)]
    packets = engine.run_packets("one", [flow.packet() for flow in flows])[0]
    encrypted = [flow_of(packet) for packet in packets]
    assert len({flow.sip >> 112 for flow in encrypted}) == 1  # prefixes of 16 bits
    rows = np.frombuffer(b"".join(packet[:102] for packet in packets), np.uint8).reshape(count, 102)
    # Suffixes of both addresses; tag and text in the option.
    columns = [*range(24, 38), *range(40, 54), *range(72, 102)]
    for at in columns:
        assert 255 - 6 * 510**0.5 < chi_square(rows[:, at]) < 255 + 6 * 510**0.5, at
    ones = np.unpackbits(rows[:, columns], axis=1).sum(axis=0)
    assert (np.abs(ones - count / 2) < 6 * (count / 4) ** 0.5).all()
    ascending = sum(a.sip < b.sip for a, b in pairwise(encrypted))
    assert abs(ascending - count / 2) < 6 * (count / 12) ** 0.5
    ports = [flow.sp for flow in encrypted]
    assert len({port >> 12 for port in ports}) <= 16
    assert len({*ports}) > 1000  # one port in many flows


def test_two_sites_and_two_epochs_have_nothing_in_common(
    engine: Engine, site: Site, tmp_path: Path
) -> None:
    other = Site(tmp_path / "other", site_key=bytes(32), epoch=site.epoch + 1)
    engine.create_module("foreign", "PrefixMatchEncrypt", other.plan | MAC_ARGS)
    flows = [Flow(SITE + i, SITE, 80, 80, twin.UDP) for i in range(100)]
    ours, theirs = encrypt(engine, flows), encrypt(engine, flows, "foreign")
    suffix = (1 << 96) - 1
    assert not {flow.sip & suffix for flow in ours} & {flow.sip & suffix for flow in theirs}

# SPDX-License-Identifier: BSD-3-Clause
"""How rule sets grow when they are encrypted, and what that takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bess_plugins._crypto import SiteKeys
from bess_plugins.private_files import create_private
from embark_gw.rules.encrypt import encrypt
from rules_support import RULE_FILES, rules_of_file


@pytest.mark.parametrize("name", RULE_FILES)
def test_encrypting_rules(
    name: str, tmp_path: Path, benchmark: BenchmarkFixture, report: Callable[..., None]
) -> None:
    """EncryptPrefixes over a whole rule set, to the document."""
    rules = rules_of_file(name)
    key = tmp_path / "site.key"
    create_private(key, "00" * 32)
    keys = SiteKeys(key)
    times = []

    def once() -> None:
        started = time.perf_counter()
        encrypt(rules, keys)
        times.append(time.perf_counter() - started)

    benchmark.pedantic(once, rounds=3)
    grown = encrypt(rules, keys).report
    figures: dict[str, float] = {
        "rules": grown.rules,
        "encrypted": grown.encrypted,
        "one_prefix_each": grown.expanded,
        "prefixes": sum(field.prefixes for field in grown.fields.values()),
        "maps_mb": sum(field.nbytes for field in grown.fields.values()) / 1e6,
        "seconds": min(times),
    }
    report(name, figures, "Embark's rules, encrypted for a provider")

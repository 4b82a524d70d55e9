# SPDX-License-Identifier: BSD-3-Clause
"""Embark's evaluation runs through and reports all of it; parts that fail don't end the others."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import embark_evaluation
from embark_gateway import MODES
from embark_pages import PROGRAMS, RTTS_US
from lines import DATA

SCRIPT = Path(embark_evaluation.__file__)
PAGES = os.geteuid() == 0 and None not in map(shutil.which, PROGRAMS)

needs_data = pytest.mark.skipif(
    not (DATA / "traces").is_dir(), reason=f"no traces in {DATA}; set E2_DATA to their folder"
)


def evaluate(folder: Path, *words: str, **environment: str) -> tuple[int, dict[str, Any], str]:
    """Exit status, embark.json, and what was said."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--quick", "--out", str(folder), *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (folder / "embark.json").is_file(), done.stderr
    found = json.loads((folder / "embark.json").read_text(encoding="utf-8"))
    return done.returncode, found, done.stderr


@needs_data
def test_all_of_it(tmp_path: Path) -> None:
    status, found, said = evaluate(tmp_path)
    expected = [part for part in embark_evaluation.PARTS if part != "pages" or PAGES]
    assert [part for part in embark_evaluation.PARTS if part not in found["failed"]] == expected
    assert set(expected) <= set(found), said
    assert status == (0 if PAGES else 1)
    for part in expected:
        assert f"{part}: done in" in said

    assert found["machine"]["cores"] == len(os.sched_getaffinity(0))
    for line in found["gateway"]["lines"].values():
        assert all(line[mode]["gbps"] > 0 for mode in MODES)
    parts = [one["parts_bytes"] for one in found["bandwidth"].values()]
    assert {one["option: version, epoch, nonce, tag"] for one in parts} == {26.0}
    assert {one["tunnel"] for one in parts} == {50.0}
    m57 = found["bandwidth"]["m57"]["parts_bytes"]
    assert m57["IPv6 header instead of IPv4's"] + m57["option: the original fields"] == 42.0
    assert 0 < m57["seal of the payload"] <= 32
    assert len(found["middleboxes"]["lines"]) == 4
    for name, one in found["expansion"].items():
        assert one["encrypted"] <= one["rules"], name
    text = (tmp_path / "embark.txt").read_text(encoding="utf-8")
    for title in ("4.5", "4.6", "4.7"):
        assert f"Figure {title}" in text
    plots = {path.name for path in tmp_path.glob("*.svg")}
    assert plots >= {"embark-gateway.svg", "embark-cores.svg", "embark-rules.svg"}
    if PAGES:
        assert "embark-pages.svg" in plots
        for place, one in found["pages"]["places"].items():
            # There and back, a round trip goes to the provider twice, and nothing is faster.
            assert one["round_trip_embark_s"] >= 2e-6 * RTTS_US[place]
            assert one["embark_median_s"] >= 4e-6 * RTTS_US[place]


def test_a_part_that_fails_does_not_end_the_others(tmp_path: Path) -> None:
    missing = str(tmp_path / "none")
    only = [word for part in ("bandwidth", "table42") for word in ("--only", part)]
    status, found, said = evaluate(tmp_path, *only, E2_DATA=missing)
    assert status == 1
    assert [*found["failed"]] == ["bandwidth"]
    assert missing in found["failed"]["bandwidth"]
    assert "table42: done" in said and "set E2_DATA" in said
    assert "Traceback" not in said
    assert "PrefixMatch" in found["table42"]["500"]
    assert "failed: bandwidth" in (tmp_path / "embark.txt").read_text(encoding="utf-8")

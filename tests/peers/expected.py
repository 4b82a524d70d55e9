# SPDX-License-Identifier: BSD-3-Clause
"""What of BESS's scripts and tests cannot pass, and why. Everything else has to.

docs/bess.md has the same list for readers; test_documents compares the two.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["ENDLESS", "IMPOSSIBLE", "MODES", "TWO_CORES", "Impossible", "judge"]

MODES = ("bessrun", "bessctl")


@dataclass(frozen=True)
class Impossible:
    """`shows` is in the output when it fails for this reason: one of several texts, parted by |."""

    reason: str
    shows: str
    modes: tuple[str, ...] = MODES


_NO_TRACK = Impossible(
    "calls bess.track_module, which BESS's client no longer has", "'track_module'"
)
_PYTHON_2 = "is Python 2: "

IMPOSSIBLE = {
    "conf/perftest/chain.bess": _NO_TRACK,
    "conf/perftest/complex_merge.bess": _NO_TRACK,
    "conf/perftest/complex_split.bess": _NO_TRACK,
    "conf/perftest/merge.bess": _NO_TRACK,
    "conf/perftest/merge_asym.bess": _NO_TRACK,
    "conf/perftest/split.bess": _NO_TRACK,
    "conf/perftest/flowgen.bess": Impossible(
        _PYTHON_2 + "makes text of a number with bytes(...)",
        "cannot convert 'float' object to bytes",
    ),
    "conf/perftest/pktgen.bess": Impossible(
        _PYTHON_2 + "adds bytes(...) to text", 'can only concatenate str (not "bytes") to str'
    ),
    "conf/perftest/vport_scaling.bess": Impossible(
        _PYTHON_2 + "calls xrange", "name 'xrange' is not defined"
    ),
    "conf/port/unix_port.bess": Impossible(
        _PYTHON_2 + "adds bytes(...) to text", 'can only concatenate str (not "bytes") to str'
    ),
    "conf/port/vxlan.bess": Impossible(
        _PYTHON_2 + "text where BESS's client wants bytes; ours takes it",
        "expected bytes, str found",
        ("bessctl",),
    ),
    "module_tests/exactmatch-val.bess": Impossible(
        _PYTHON_2 + "chr(...) where BESS's client wants bytes; ours takes it",
        "expected bytes, str found",
        ("bessctl",),
    ),
    "conf/testing/run_module_tests.bess": Impossible(
        "uses what bessctl keeps in __bess_creators__, and runs a test that cannot pass",
        "name '__bess_creators__' is not defined|ConstraintError not raised",
    ),
    "module_tests/placement_constraint.py::test_nat_negative": Impossible(
        "expects that two workers may not share a StaticNAT; here any number may",
        "ConstraintError not raised",
        ("bessctl",),
    ),
}

# Its 1 % allows for less than a whole nanosecond where the average is below 100.
TRUNCATED = "module_tests/timestamp.py::test_timestamped_and_measured"

# They name cores 0 and 1.
TWO_CORES = {
    "conf/port/multicore-phy.bess",
    "conf/samples/multicore.bess",
    "conf/samples/qtest.bess",
    "conf/samples/tc/max_burst.bess",
    "conf/samples/worker_split.bess",
    "conf/testing/run_module_tests.bess",
    "module_tests/placement_constraint.py::test_nat_negative",
    "module_tests/worker_split.py::test_worker_split_default",
    "module_tests/worker_split.py::test_worker_split_fancy",
}

# They print numbers until somebody stops them.
ENDLESS = {"conf/port/latency.bess"}


def judge(name: str, mode: str, passed: bool, output: str) -> None:
    """Fail unless the outcome is the expected one."""
    impossible = IMPOSSIBLE.get(name)
    if name == TRUNCATED and not passed:
        average = re.search(r"^avg ns = (\d+)$", output, re.MULTILINE)
        off_percent = re.search(r"AssertionError: ([\d.]+) not less than or equal to 1.0", output)
        assert average is not None, output
        assert off_percent is not None, output
        assert float(off_percent[1]) * int(average[1]) < 100, output
        return
    if impossible is None or mode not in impossible.modes:
        assert passed, output
        return
    assert not passed, f"{name} passes in {mode}: take it off the list in {__file__}"
    assert any(text in output for text in impossible.shows.split("|")), output

# SPDX-License-Identifier: BSD-3-Clause
"""BESS's Python client, method by method, with our daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from harness import new_e2d, wait_until
from peer_support import needs_bess

pytestmark = needs_bess


def test_every_method(tree: Path, tmp_path: Path) -> None:
    e2d = new_e2d(tmp_path)
    assert e2d("start").returncode == 0
    try:
        folder = tmp_path / "own"
        folder.mkdir()
        script = Path(__file__).with_name("client_calls.py")
        # In a process of its own: its messages have the names of ours.
        result = subprocess.run(
            [sys.executable, "-P", script, tree, e2d.address, folder],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        answer = json.loads(result.stdout.splitlines()[-1])
        assert not answer["failures"], "\n".join(answer["failures"].values())
        assert answer["missed"] == []
        assert answer["called"] >= 50
        wait_until(lambda: e2d("status").returncode != 0)  # its last call ends the daemon
    finally:
        e2d("stop")

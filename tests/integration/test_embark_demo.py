# SPDX-License-Identifier: BSD-3-Clause
"""The demo of a gateway: a page through firewall and NAT that can't read it, and new rules live."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab_support import EXAMPLES

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or None in map(shutil.which, ("ip", "ethtool", "curl", "sysctl")),
    reason="needs root, and Debian's iproute2, ethtool, curl and procps",
)


def test_the_demo(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", str(EXAMPLES / "embark_demo.py"), str(tmp_path / "demo")],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    said = done.stdout
    assert done.returncode == 0, said + done.stderr
    before, after = said.split("# The server is forbidden from now on")
    assert "Hello from the server" in before
    assert "Hello" not in after
    assert re.search(r"in use; packets waited for \d+ ms, [1-9]\d* translations", after)
    shown = after.split("embark-gw inspect")[1]
    assert "IN CLEAR" not in shown
    for secret in ("10.0.0.2", "198.51.100.7", "203.0.113."):
        assert secret not in shown
    spaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    assert not re.search(r"^em\d+-", spaces.stdout, re.M)

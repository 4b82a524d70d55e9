# SPDX-License-Identifier: BSD-3-Clause
"""`make sanitize`: the C++ tests under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import subprocess
import sys

from cpp_build import ROOT, SANITIZE, build, missing_tool


def main() -> int:
    if reason := missing_tool():
        print(f"error: {reason}", file=sys.stderr)
        return 1
    program = build(ROOT / "build" / "sanitize", SANITIZE)
    return subprocess.run([str(program)], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

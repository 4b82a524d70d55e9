# SPDX-License-Identifier: BSD-3-Clause
"""What benchmarks say about the machine."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cpu_model", "load"]


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return "unknown"


def load() -> str:
    return " ".join(f"{value:.2f}" for value in os.getloadavg())

# SPDX-License-Identifier: BSD-3-Clause
"""Where CI is set, generated examples are the same in each run."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("ci", derandomize=True, database=None, deadline=None, print_blob=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

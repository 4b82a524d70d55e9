# SPDX-License-Identifier: BSD-3-Clause
"""What tests of the daemon share."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from bess_plugins.client import BessError

__all__ = ["CORE", "failure"]

CORE = min(os.sched_getaffinity(0))


def failure(call: Callable[[], object]) -> int:
    """The errno of a call that must fail, with a reason."""
    with pytest.raises(BessError) as caught:
        call()
    assert caught.value.errmsg
    return caught.value.code

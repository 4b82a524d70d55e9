# SPDX-License-Identifier: BSD-3-Clause
"""Ctrl-C as a flag."""

from __future__ import annotations

import os
import signal
import time

import pytest

from bess_plugins.interrupt import interruptible


def press_and_wait() -> None:
    """Another thread may get the signal; then this one hears of it a little later."""
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):
        time.sleep(0.01)


def test_the_first_sets_the_event_and_the_second_interrupts() -> None:
    before = signal.getsignal(signal.SIGINT)
    with interruptible() as pressed:
        assert not pressed.is_set()
        os.kill(os.getpid(), signal.SIGINT)
        assert pressed.wait(10)
        with pytest.raises(KeyboardInterrupt):
            press_and_wait()
    assert signal.getsignal(signal.SIGINT) is before

# SPDX-License-Identifier: BSD-3-Clause
"""Ctrl-C as something to look at between two steps.

A KeyboardInterrupt that strikes inside of a callback of gRPC or a finalizer is printed and lost;
a flag is not.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from types import FrameType

__all__ = ["interruptible"]


@contextmanager
def interruptible() -> Iterator[Event]:
    """An event that the first Ctrl-C sets; the second interrupts as always. Main thread only."""
    pressed = Event()
    before = signal.getsignal(signal.SIGINT)

    def press(_number: int, _frame: FrameType | None) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, press)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)

# SPDX-License-Identifier: BSD-3-Clause
"""Signals as something to look at or to wait for: Ctrl-C between two steps, and what asks a process
that serves to end.

A KeyboardInterrupt that strikes inside of a callback of gRPC or a finalizer is printed and lost;
a flag is not. A signal that reaches one of gRPC's threads interrupts nothing that the main thread
waits for, and Python's handlers run there: only a descriptor hears of it at once.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from types import FrameType

__all__ = ["Ending", "interruptible"]


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


class Ending:
    """Takes the signals that ask this process to end, from now on and whichever thread gets them.

    Made in the main thread, once in the life of a process.
    """

    def __init__(self, *numbers: signal.Signals) -> None:
        self._numbers = numbers
        self._told, asks = os.pipe()
        os.set_blocking(asks, False)
        signal.set_wakeup_fd(asks)
        for number in numbers:
            signal.signal(number, lambda *_: None)

    def wait(self) -> None:
        """Come back when one has come."""
        number = 0
        while number not in self._numbers:  # others are Python's handlers' alone
            number = os.read(self._told, 1)[0]

    def then(self, stop: Callable[[], None]) -> None:
        """Call it when one has come, in a thread of its own; the process may end without it."""

        def wait_and_stop() -> None:
            self.wait()
            stop()

        Thread(target=wait_and_stop, name="ending", daemon=True).start()

# SPDX-License-Identifier: BSD-3-Clause
"""Ctrl-C as a flag, and signals that end what waits in whichever thread."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from bess_plugins.interrupt import Ending, interruptible


def press_and_wait(until: Callable[[], bool] = lambda: False) -> None:
    """Another thread may get the signal; then this one hears of it when it runs again."""
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):
        if until():
            return
        time.sleep(0.01)


@pytest.fixture
def heard() -> Iterator[None]:
    """Shells have what runs in the background ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
def test_the_first_sets_the_event_and_the_second_interrupts() -> None:
    before = signal.getsignal(signal.SIGINT)
    with interruptible() as pressed:
        assert not pressed.is_set()
        press_and_wait(pressed.is_set)
        assert pressed.is_set()
        with pytest.raises(KeyboardInterrupt):
            press_and_wait()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.fixture
def ending() -> Iterator[Ending]:
    """Of SIGUSR1, while SIGUSR2 has a handler as well."""
    numbers = (signal.SIGUSR1, signal.SIGUSR2)
    before = {number: signal.getsignal(number) for number in numbers}
    wakes = signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGUSR2, lambda *_: None)
    yield Ending(signal.SIGUSR1)
    signal.set_wakeup_fd(wakes)
    for number, handler in before.items():
        signal.signal(number, handler)


def test_another_threads_signal_ends_the_wait_of_this_one(ending: Ending) -> None:
    seen: list[int] = []

    def strike() -> None:
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)  # asks for nothing
        seen.append(1)
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    thread = threading.Thread(target=strike)
    thread.start()
    ending.wait()
    assert seen == [1]
    thread.join()


def test_something_is_called_while_this_thread_waits_for_something_else(ending: Ending) -> None:
    stopped = threading.Event()
    ending.then(stopped.set)
    main = threading.main_thread()

    def strike() -> None:
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    threading.Thread(target=strike).start()
    assert threading.current_thread() is main
    assert stopped.wait(10)

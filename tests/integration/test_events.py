# SPDX-License-Identifier: BSD-3-Clause
"""The event service of a running daemon, whose engine's events are made here."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from bess_plugins.client import BessError, Client, DaemonUnavailableError
from bess_plugins.daemon.events import MAX_SUBSCRIBERS
from bess_plugins.daemon.server import Server, make_engine
from harness import wait_until


class Told:
    """An engine, but for its events."""

    def __init__(self) -> None:
        self.list: list[dict[str, Any]] = []
        self.asked = 0
        self._engine = make_engine(1024)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def tell(self, module: str, kind: str, **values: int) -> None:
        number = len(self.list) + 1
        self.list.append(
            {"number": number, "time_ns": 5, "module": module, "kind": kind, "values": values}
        )

    def events(self, after: int = 0) -> dict[str, Any]:
        self.asked += 1
        return {"last": len(self.list), "events": self.list[after:]}


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def client(told: Told) -> Iterator[Client]:
    with Server(told, port=0) as server, Client(server.address) as client:
        yield client


def test_events_arrive_in_order_from_now_on(told: Told, client: Client) -> None:
    told.tell("a", "before")
    with client.events() as events:
        told.tell("a", "overload", queue=3, depth=1 << 63)
        told.tell("b", "calm")
        assert next(events) == {
            "number": 2, "time_ns": 5, "module": "a", "kind": "overload",
            "values": {"queue": 3, "depth": 1 << 63},
        }  # fmt: skip
        assert next(events)["kind"] == "calm"


def test_what_is_remembered_and_what_is_asked_for(told: Told, client: Client) -> None:
    for number in range(6):
        told.tell("ab"[number % 2], ["x", "y", "z"][number % 3])
    with client.events(after=0) as events:
        assert [next(events)["number"] for _ in range(6)] == [1, 2, 3, 4, 5, 6]
    with client.events(after=2) as events:
        assert next(events)["number"] == 3
    with client.events(modules=["b"], kinds=["x", "z"], after=0) as events:
        assert [next(events)["number"] for _ in range(2)] == [4, 6]
    with client.events(after=99) as events:  # not heard of yet: what comes next is told
        asked = told.asked
        wait_until(lambda: told.asked > asked + 1)
        told.tell("a", "next")
        assert next(events)["number"] == 7


def test_subscribers_leave_room_for_calls_and_for_each_other(told: Told, client: Client) -> None:
    with ExitStack() as stack:
        streams = [stack.enter_context(client.events()) for _ in range(MAX_SUBSCRIBERS)]
        assert client.version()
        told.tell("a", "all")
        assert [next(stream)["kind"] for stream in streams] == ["all"] * MAX_SUBSCRIBERS
        with pytest.raises(BessError, match="8 subscribers already"), client.events() as refused:
            next(refused)

    def room() -> bool:
        try:
            with client.events(after=0) as events:
                return next(events)["kind"] == "all"
        except BessError:
            return False

    wait_until(room)


def test_a_daemon_that_stops_ends_its_streams(told: Told) -> None:
    server = Server(told, port=0)
    server.start()
    with Client(server.address) as client, client.events(after=0) as events:
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        assert list(events) == []
        stopping.join()
    with (
        Client(server.address) as client,
        pytest.raises(DaemonUnavailableError),
        client.events() as events,
    ):
        next(events)

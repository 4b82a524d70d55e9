# SPDX-License-Identifier: BSD-3-Clause
"""A daemon with a real engine inside this process, and a client that finds it empty."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bess_plugins.client import Client
from bess_plugins.daemon.server import Server, make_engine


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(make_engine(4096), port=0) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.address) as connected:
        connected.reset_all()
        yield connected
        connected.reset_all()

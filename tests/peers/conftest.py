# SPDX-License-Identifier: BSD-3-Clause
"""BESS's own Python, ready to run, and a daemon of ours for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bess_plugins.client import Client
from harness import real_daemon
from peer_support import prepare


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("peers") / "bess")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a daemon in a process of its own."""
    with real_daemon(tmp_path_factory.mktemp("e2d")) as running:
        yield running.address


@pytest.fixture
def client(daemon: str) -> Iterator[Client]:
    with Client(daemon) as connected:
        connected.reset_all()
        yield connected
        connected.reset_all()

# SPDX-License-Identifier: BSD-3-Clause
"""Synchronous client of the control service."""

from __future__ import annotations

from bess_plugins.client._base import DEFAULT_ADDRESS, BessError, DaemonUnavailableError
from bess_plugins.client._batch import Batch, BatchCalls, BatchError
from bess_plugins.client._misc import MiscCalls
from bess_plugins.client._modules import HookCalls, ModuleCalls
from bess_plugins.client._ports import CreatedPort, PortCalls, PortCounters, PortStats
from bess_plugins.client._workers import TcStats, TrafficClassCalls, WorkerCalls

__all__ = [
    "DEFAULT_ADDRESS",
    "Batch",
    "BatchError",
    "BessError",
    "Client",
    "CreatedPort",
    "DaemonUnavailableError",
    "PortCounters",
    "PortStats",
    "TcStats",
]


class Client(
    WorkerCalls, TrafficClassCalls, PortCalls, ModuleCalls, HookCalls, MiscCalls, BatchCalls
):
    """A connection to a daemon at ``host:port`` or ``unix:/path``.

    Arguments of modules, ports, hooks and commands are given as plain values
    and converted to their message.
    """

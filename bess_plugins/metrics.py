# SPDX-License-Identifier: BSD-3-Clause
"""Metrics for Prometheus: a registry of one's own, served over HTTP at one address."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.registry import Collector

__all__ = ["MetricsError", "serving"]

_LOOPBACK = "127.0.0.1"
_MAX_PORT = 65_535


class MetricsError(Exception):
    """Metrics can't be served; the message says why."""


def _split(address: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``, ``[IPV6]:PORT`` or ``PORT``."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or int(port) > _MAX_PORT:
        raise MetricsError(f"metrics at '{address}': expected PORT or HOST:PORT")
    return host.strip("[]") or _LOOPBACK, int(port)


@contextmanager
def serving(address: str, *collectors: Collector) -> Iterator[int]:
    """Serve what collectors yield, at ``PORT`` of the loopback address or at ``HOST:PORT``.

    Gives the port, which the system chooses for port 0. A `MetricsError` where it can't be had.
    """
    host, wanted = _split(address)
    registry = CollectorRegistry(auto_describe=False)
    for collector in collectors:
        registry.register(collector)
    try:
        server, thread = start_http_server(wanted, addr=host, registry=registry)
    except OSError as error:
        raise MetricsError(f"metrics at '{address}': {error.strerror or error}") from None
    try:
        yield int(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

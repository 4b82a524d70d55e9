# SPDX-License-Identifier: BSD-3-Clause
"""Which tests also run against a bessd with our plugin, where BESSD_ADDRESS says that one runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from bess_plugins.bessd.trial import BessdEngine

__all__ = ["ADDRESS", "FILES", "cannot", "engine", "on_bessd"]

ADDRESS = os.environ.get("BESSD_ADDRESS", "")
# Unchanged, but for those that can't.
FILES = {
    "test_expr_match",
    "test_flow_affinity",
    "test_flow_steer",
    "test_load_monitor",
    "test_metadata_match",
    "test_nfs_modules",
    "test_tunnel_modules",
}
_CANNOT: dict[str, str] = {
    "test_commands_beside_a_worker": "starts an e2d; test_bessd_plugin.py does the same in bessd",
    "test_packets_without_a_stamp_upstream_are_refused": "bessd takes graphs whose attributes "
    "nobody writes",
}

engine: BessdEngine | None = None  # what new_engine() gives while a test runs against bessd


def cannot(test: str) -> str | None:
    """Why a test has no meaning in bessd."""
    return _CANNOT.get(test)


@contextmanager
def on_bessd() -> Iterator[BessdEngine]:
    """Within it, new_engine() is a bessd."""
    global engine
    engine = BessdEngine(ADDRESS)
    try:
        if not engine.own_classes():
            raise RuntimeError(
                f"{ADDRESS} has no plugin of ours: python -m bess_plugins.bessd build, then load"
            )
        yield engine
    finally:
        engine.close()
        engine = None

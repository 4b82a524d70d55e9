# SPDX-License-Identifier: BSD-3-Clause
"""Which tests also run against a bessd with our plugin, where BESSD_ADDRESS says that one runs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from bess_plugins import _proto
from bess_plugins.bessd.trial import BessdEngine

__all__ = ["ADDRESS", "FILES", "cannot", "engine", "on_bessd"]

ADDRESS = os.environ.get("BESSD_ADDRESS", "")
# Unchanged, but for those that can't.
FILES = {
    "test_embark_decrypt",
    "test_embark_encrypt",
    "test_embark_pool",
    "test_flow_affinity",
    "test_flow_steer",
    "test_flow_steer_ids",
    "test_load_monitor",
    "test_metadata_match",
    "test_metadata_match_classbench",
    "test_metadata_match_refusals",
    "test_metadata_match_sets",
    "test_neighbor_responder",
    "test_nfs_modules",
    "test_path_mtu",
    "test_stateful_firewall",
    "test_tunnel_edges",
    "test_tunnel_modules",
}
_CANNOT: dict[str, str] = {
    "test_attributes_of_every_size": "counts by the hooks of gates, which a trial has none of",
    "test_runtime_config": "compares answers, which hold every field of a message here",
    "test_commands_beside_a_worker": "starts an e2d; test_bessd_plugin.py does the same in bessd",
    "test_workers_need_an_attribute_of_that_name_and_size": "bessd takes graphs whose attributes "
    "nobody writes, and no module with an attribute of another size",
    "test_packets_without_a_stamp_upstream_are_refused": "bessd takes graphs whose attributes "
    "nobody writes",
    "test_no_headroom": "bessd's packets have another headroom",
    "test_defrag_puts_them_together": "bessd's own IPDefrag would",
}


class _Engine(BessdEngine):
    """Skips what the embedded engine takes, or refuses, without a message being made of it."""

    def create_module(self, name: str, mclass: str, args: Mapping[str, Any]) -> None:
        _need_message(f"{mclass}Arg", args)
        super().create_module(name, mclass, args)

    def module_command(self, name: str, cmd: str, args: Mapping[str, Any]) -> dict[str, Any]:
        _need_message(self.command_type(name, cmd), args)
        return super().module_command(name, cmd, args)


def _need_message(kind: str, args: Mapping[str, Any]) -> None:
    if not _proto.is_message(kind):
        kind = "EmptyArg"
    try:
        _proto.from_dict(kind, args)
    except (TypeError, ValueError, OverflowError) as error:
        pytest.skip(f"no message can hold this: {error}")


engine: BessdEngine | None = None  # what new_engine() gives while a test runs against bessd


def cannot(test: str) -> str | None:
    """Why a test has no meaning in bessd."""
    return _CANNOT.get(test)


@contextmanager
def on_bessd() -> Iterator[BessdEngine]:
    """Within it, new_engine() is a bessd."""
    global engine
    engine = _Engine(ADDRESS)
    try:
        if not engine.own_classes():
            raise RuntimeError(
                f"{ADDRESS} has no plugin of ours: python -m bess_plugins.bessd build, then load"
            )
        yield engine
    finally:
        engine.close()
        engine = None

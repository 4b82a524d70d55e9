# SPDX-License-Identifier: BSD-3-Clause
"""MyModule alone, packet by packet, and in a running daemon."""

from __future__ import annotations

from pathlib import Path

import pytest

from bess_plugins.client import BessError, Client
from bess_plugins.daemon.server import Server, make_engine

PLUGIN = str(Path(__file__).resolve().with_name("my_module.so"))


def test_gates() -> None:
    engine = make_engine(1024)
    engine.import_plugin(PLUGIN)
    engine.create_module("m", "MyModule", {"bytes": 64})
    packets = [bytes(length) for length in (63, 64, 65, 1500)]
    out = engine.run_packets("m", packets)
    assert out == {0: packets[:1], 1: packets[1:]}


def test_commands_of_a_module_in_a_daemon() -> None:
    with Server(make_engine(1024), port=0) as server, Client(server.address) as client:
        client.import_plugin(PLUGIN)
        client.create_module("MyModule", "m", bytes=64)
        client.run_module_command("m", "set", "MyModuleArg", {"bytes": 128})
        assert client.run_module_command("m", "get") == {"bytes": 128}
        with pytest.raises(BessError, match=r"set: bytes is 0; must be 1 to 65535"):
            client.run_module_command("m", "set", "MyModuleArg", {})
        client.reset_all()
        client.unload_plugin(PLUGIN)
        assert "MyModule" not in client.list_mclasses()

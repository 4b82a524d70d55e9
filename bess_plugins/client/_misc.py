# SPDX-License-Identifier: BSD-3-Clause
"""Calls about the daemon as a whole, its plugins and its memory."""

from __future__ import annotations

from typing import Any

from bess_plugins import _proto
from bess_plugins.client._base import Connection
from bess_plugins.pb import bess_msg_pb2 as pb


class MiscCalls(Connection):
    """Daemon, plugins and packet memory."""

    def version(self) -> str:
        """Version of the daemon."""
        return str(self.call("GetVersion").version)

    def reset_all(self) -> None:
        """Remove every module, port, traffic class and worker."""
        self.call("ResetAll")

    def kill(self) -> None:
        """Make the daemon stop."""
        self.call("KillBess")

    def dump_mempool(self, socket: int = -1) -> list[dict[str, Any]]:
        """Fill levels of the packet pools."""
        response = self.call("DumpMempool", pb.DumpMempoolRequest(socket=socket))
        return [_proto.to_dict(dump) for dump in response.dumps]

    def import_plugin(self, path: str) -> None:
        """Load a shared object."""
        self.call("ImportPlugin", pb.ImportPluginRequest(path=path))

    def unload_plugin(self, path: str) -> None:
        """Drop a shared object."""
        self.call("UnloadPlugin", pb.UnloadPluginRequest(path=path))

    def list_plugins(self) -> list[str]:
        """Paths of the loaded shared objects."""
        return list(self.call("ListPlugins").paths)

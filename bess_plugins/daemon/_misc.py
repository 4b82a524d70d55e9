# SPDX-License-Identifier: BSD-3-Clause
# ruff: noqa: N802  (methods are named after the calls they serve)
"""Calls about the daemon as a whole, its plugins and its memory."""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable
from typing import Any

from bess_plugins import _proto
from bess_plugins._plugin_types import PluginTypeError, description_of, forget, learn
from bess_plugins.daemon._base import RpcError, ServiceBase, require
from bess_plugins.pb import bess_msg_pb2 as pb
from bess_plugins.version import version

log = logging.getLogger(__name__)


def _check_types(plugin: str, name: str, info: dict[str, Any]) -> None:
    """Every message that a class of a plugin names has to be known."""
    wanted = {info["arg_type"]}
    for command in info.get("commands") or ():
        wanted |= {command["arg_type"], command["response_type"]}
    for kind in sorted(kind for kind in wanted if kind):
        if kind not in _proto.MESSAGE_NAMES and plugin not in _proto.owners_of([kind]):
            raise PluginTypeError(
                f"class '{name}' of plugin '{plugin}' names the message {kind}, which nobody "
                f"describes: {description_of(plugin)} should (protoc --descriptor_set_out)"
            )


class MiscCalls(ServiceBase):
    """Daemon, plugins and packet memory."""

    def GetVersion(self, request: pb.EmptyRequest, response: pb.VersionResponse) -> None:
        # Scripts and controllers tell us from bessd by this.
        response.version = f"e2d {version()}"

    def KillBess(self, request: pb.EmptyRequest, response: pb.EmptyResponse) -> None:
        if self.shutdown is None:
            raise RpcError(errno.ENOTSUP, "This daemon cannot be stopped remotely")
        log.warning("stop requested by a client")
        # Stopping waits for running calls, this one among them.
        threading.Thread(target=self.shutdown, name="e2d-stop", daemon=True).start()

    def ResetAll(self, request: pb.EmptyRequest, response: pb.EmptyResponse) -> None:
        log.info("full reset requested")
        steps: tuple[tuple[str, Callable[[], None]], ...] = (
            ("modules", self.engine.reset_modules),
            ("ports", self.engine.reset_ports),
            ("traffic classes", self.engine.reset_tcs),
            ("workers", self.engine.reset_workers),
        )
        self.engine.pause_all()
        failure: Exception | None = None
        for what, step in steps:
            try:
                step()
            except Exception as error:  # every part is reset, whatever fails before
                log.error("resetting %s failed: %s", what, error)
                failure = failure or error
        self.module_args.clear()
        self.port_args.clear()
        if failure is not None:
            raise failure

    def ImportPlugin(self, request: pb.ImportPluginRequest, response: pb.EmptyResponse) -> None:
        path = require(request.path, "Missing plugin path")
        before = self._class_tables()
        self.engine.import_plugin(path)
        self.plugins_changed()
        try:
            learn(path, beside=self.engine.plugins())
            for name, info in self._class_tables().items():
                if name not in before:
                    _check_types(path, name, info)
        except PluginTypeError as error:
            forget(path)
            self.engine.unload_plugin(path)
            self.plugins_changed()
            raise RpcError(errno.EINVAL, str(error)) from None

    def UnloadPlugin(self, request: pb.UnloadPluginRequest, response: pb.EmptyResponse) -> None:
        path = require(request.path, "Missing plugin path")
        self.engine.unload_plugin(path)
        self.plugins_changed()
        forget(path)

    def _class_tables(self) -> dict[str, dict[str, Any]]:
        return {**self.module_classes(), **self.engine.port_drivers()}

    def ListPlugins(self, request: pb.EmptyRequest, response: pb.ListPluginsResponse) -> None:
        response.paths.extend(self.engine.plugins())

    def DumpMempool(self, request: pb.DumpMempoolRequest, response: pb.DumpMempoolResponse) -> None:
        if request.socket not in (-1, 0):
            return
        pool = self.engine.mempool()
        response.dumps.add(
            socket=0,
            initialized=True,
            mp_size=pool["size"],
            mp_cache_size=pool["cache_size"],
            mp_element_size=pool["element_size"],
            mp_populated_size=pool["size"],
            mp_available_count=pool["available"],
            mp_in_use_count=pool["in_use"],
            # What bessd keeps free packets in is a ring; here it is a store of chunks.
            ring_count=pool["store_available"],
            ring_free_count=pool["store_size"] - pool["store_available"],
            ring_bytes=pool["store_bytes"],
        )

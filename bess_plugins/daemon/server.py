# SPDX-License-Identifier: BSD-3-Clause
"""A gRPC server around one engine."""

from __future__ import annotations

import importlib
import logging
import socket
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import grpc

from bess_plugins.daemon._base import DEFAULT_HOST, DEFAULT_POOL_PACKETS, DEFAULT_PORT
from bess_plugins.daemon.batch import batching_handler
from bess_plugins.daemon.counters import counting_handler
from bess_plugins.daemon.events import MAX_SUBSCRIBERS, EventService
from bess_plugins.daemon.metrics import Metrics
from bess_plugins.daemon.service import ControlService, EngineApi
from bess_plugins.metrics import MetricsError
from bess_plugins.pb import bess_msg_pb2 as pb

__all__ = ["Server", "ServerError", "make_engine"]

log = logging.getLogger(__name__)

_THREADS = 8 + MAX_SUBSCRIBERS  # a subscriber keeps one
_GRACE_SECONDS = 2.0
_OPTIONS = (
    # Without this two daemons could share a port and split its callers.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
)


class ServerError(Exception):
    """The server cannot start; the message says why."""


def make_engine(pool_packets: int = DEFAULT_POOL_PACKETS) -> EngineApi:
    """Create the compiled engine, or raise `ServerError` where it or its memory can't be had."""
    compiled = importlib.import_module("bess_plugins._engine")
    try:
        engine: EngineApi = compiled.Engine(pool_packets=pool_packets)
    except compiled.EngineError as error:
        raise ServerError(str(error)) from None
    except (MemoryError, RuntimeError) as error:
        raise ServerError(
            f"cannot create {pool_packets:,} packet buffers: {error}; choose fewer --pool-packets"
        ) from None
    return engine


def _claim_socket(path: Path) -> None:
    """Remove a left-over socket, unless somebody still listens on it."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ServerError(f"{path} exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise ServerError(f"cannot use {path}: {error}") from None
    raise ServerError(f"another daemon already listens on {path}")


class Server:
    """Serves an engine until stopped. Port 0 picks a free port."""

    def __init__(
        self,
        engine: EngineApi,
        *,
        host: str = DEFAULT_HOST,
        port: int = DEFAULT_PORT,
        unix_socket: Path | None = None,
        metrics: str | None = None,
    ) -> None:
        self.metrics = Metrics(engine)
        self.service = ControlService(engine, self.stop, self.metrics.observe)
        self.events = EventService(engine)
        self.port = port
        self._host = host
        self._unix_socket = unix_socket
        self._metrics_address = metrics
        self._grpc: grpc.Server | None = None
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    @property
    def address(self) -> str:
        """Address for clients, as ``host:port``."""
        return f"{self._host}:{self.port}"

    def start(self) -> None:
        """Bind all addresses and begin to serve."""
        pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="e2d-rpc")
        server = grpc.server(pool, options=_OPTIONS)
        server.add_generic_rpc_handlers(
            (
                self.service.handler(),
                self.events.handler(),
                counting_handler(self.service.engine),
                batching_handler(self.service),
            )
        )
        try:
            bound = server.add_insecure_port(self.address)
        except RuntimeError:
            bound = 0
        if bound == 0:
            raise ServerError(
                f"cannot listen on {self.address}: another e2d or bessd may be running there; "
                "stop it with `e2d stop` or choose another --port"
            )
        self.port = bound
        try:
            if self._unix_socket is not None:
                _claim_socket(self._unix_socket)
                server.add_insecure_port(f"unix:{self._unix_socket.absolute()}")
                self._unix_socket.chmod(0o600)
            if self._metrics_address is not None:
                self.metrics.serve(self._metrics_address)
        except (MetricsError, OSError, RuntimeError) as error:
            server.stop(None)
            raise ServerError(f"cannot start: {error}") from None
        except ServerError:
            server.stop(None)
            raise
        server.start()
        self._grpc = server
        log.info("listening on %s", self.address)

    def stop(self) -> None:
        """Finish running calls, tear the pipeline down and release everything."""
        with self._lock:
            if self._stopped.is_set():
                return
            self.events.stop()
            if self._grpc is not None:
                self._grpc.stop(_GRACE_SECONDS).wait()
                failure = self.service.call("ResetAll", pb.EmptyRequest()).error
                if failure.code:
                    log.error("tearing down failed: %s", failure.errmsg)
                if self._unix_socket is not None:
                    self._unix_socket.unlink(missing_ok=True)
            self.metrics.close()
            self._stopped.set()
            log.info("stopped")

    def wait(self, timeout: float | None = None) -> bool:
        """Block until stopped; tell whether that happened in time."""
        return self._stopped.wait(timeout)

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

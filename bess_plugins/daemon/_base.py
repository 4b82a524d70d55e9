# SPDX-License-Identifier: BSD-3-Clause
"""What the parts of the control service share."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, Protocol

from google.protobuf.any_pb2 import Any as AnyMessage

from bess_plugins import _proto

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 10514
DEFAULT_POOL_PACKETS = 16384
MAX_WORKERS = 64
MAX_QUEUES = 32
MAX_QUEUE_SIZE = 4096


class RpcError(Exception):
    """A failure reported to the caller in the ``error`` field."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class EngineApi(Protocol):
    """The engine as the service sees it."""

    def module_classes(self) -> dict[str, dict[str, Any]]: ...
    def port_drivers(self) -> dict[str, dict[str, Any]]: ...
    def hook_classes(self) -> dict[str, dict[str, Any]]: ...

    def create_module(self, name: str, mclass: str, args: dict[str, Any]) -> Any: ...
    def destroy_module(self, name: str) -> None: ...
    def modules(self) -> list[dict[str, Any]]: ...
    def class_of(self, name: str) -> str: ...
    def module_info(self, name: str) -> dict[str, Any]: ...
    def module_command(self, name: str, cmd: str, args: dict[str, Any]) -> dict[str, Any]: ...
    def connect(
        self, m1: str, ogate: int, m2: str, igate: int, skip_default_hooks: bool = False
    ) -> None: ...
    def disconnect(self, name: str, ogate: int) -> None: ...
    def run_packets(
        self, name: str, packets: Sequence[bytes], in_gate: int = 0, now_ns: int = 0
    ) -> dict[int, list[bytes]]: ...

    def counters(self) -> dict[str, Any]: ...
    def events(self, after: int = 0) -> dict[str, Any]: ...

    def create_port(
        self,
        name: str,
        driver: str,
        num_inc_q: int,
        num_out_q: int,
        size_inc_q: int,
        size_out_q: int,
        args: dict[str, Any],
    ) -> dict[str, Any]: ...
    def destroy_port(self, name: str) -> None: ...
    def ports(self) -> list[dict[str, Any]]: ...
    def port_stats(self, name: str) -> dict[str, Any]: ...
    def port_link(self, name: str) -> dict[str, Any]: ...
    def port_conf(self, name: str) -> dict[str, Any]: ...
    def set_port_conf(self, name: str, conf: dict[str, Any]) -> None: ...

    def add_worker(self, wid: int, core: int, scheduler: str = "") -> None: ...
    def destroy_worker(self, wid: int) -> None: ...
    def workers(self) -> list[dict[str, Any]]: ...
    def pause_all(self) -> None: ...
    def pause_worker(self, wid: int) -> None: ...
    def resume_all(self) -> None: ...
    def resume_worker(self, wid: int) -> None: ...
    def scheduling_violations(self) -> list[dict[str, Any]]: ...

    def add_tc(self, tc: dict[str, Any]) -> None: ...
    def update_tc_params(self, tc: dict[str, Any]) -> None: ...
    def update_tc_parent(self, tc: dict[str, Any]) -> None: ...
    def tcs(self) -> list[dict[str, Any]]: ...
    def tc_stats(self, name: str) -> dict[str, Any]: ...

    def configure_hook(self, hook: dict[str, Any], enable: bool) -> str: ...
    def hooks(self) -> list[dict[str, Any]]: ...
    def hook_command(
        self, hook: dict[str, Any], cmd: str, args: dict[str, Any]
    ) -> dict[str, Any]: ...
    def configure_resume_hook(self, name: str, enable: bool) -> None: ...

    def reset_modules(self) -> None: ...
    def reset_ports(self) -> None: ...
    def reset_workers(self) -> None: ...
    def reset_tcs(self) -> None: ...

    def mempool(self) -> dict[str, Any]: ...
    def import_plugin(self, path: str) -> None: ...
    def unload_plugin(self, path: str) -> None: ...
    def plugins(self) -> list[str]: ...


class ServiceBase:
    """State and helpers behind every group of calls."""

    def __init__(self, engine: EngineApi, shutdown: Callable[[], None] | None = None) -> None:
        self.engine = engine
        self.shutdown = shutdown
        # Arguments as received, kept because callers may read them back.
        self.module_args: dict[str, AnyMessage] = {}
        self.port_args: dict[str, AnyMessage] = {}
        self._module_classes: dict[str, dict[str, Any]] | None = None

    def module_classes(self) -> dict[str, dict[str, Any]]:
        """The engine's, which takes as long to ask for as making a dozen modules."""
        if self._module_classes is None:
            self._module_classes = self.engine.module_classes()
        return self._module_classes

    def plugins_changed(self) -> None:
        """There may be other classes now."""
        self._module_classes = None


def require(value: str, message: str) -> str:
    """Return a non-empty string or fail with EINVAL."""
    if not value:
        raise RpcError(errno.EINVAL, message)
    return value


def lookup(table: Mapping[str, dict[str, Any]], name: str, message: str) -> dict[str, Any]:
    """Return an entry of a class table or fail with ENOENT."""
    try:
        return table[name]
    except KeyError:
        raise RpcError(errno.ENOENT, message) from None


def unpack_arg(packed: AnyMessage, name: str, class_name: str = "") -> dict[str, Any]:
    """Unpack an argument, failing with EINVAL when it does not fit.

    A class whose argument has grown still accepts the smaller message that
    carries the name of the class.
    """
    try:
        return _proto.unpack(packed, name, f"{class_name}Arg")
    except (TypeError, ValueError) as error:
        raise RpcError(errno.EINVAL, str(error)) from None


def default_name(class_name: str, template: str, taken: Container[str]) -> str:
    """Choose a free name such as ``bypass0`` or ``port_inc1``."""
    stem = template
    if not stem:
        previous = ""
        for char in class_name:
            if previous.islower() and char.isupper():
                stem += "_"
            stem += char.lower()
            previous = char
    return next(name for i in itertools.count() if (name := f"{stem}{i}") not in taken)

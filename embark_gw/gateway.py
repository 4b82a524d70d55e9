# SPDX-License-Identifier: BSD-3-Clause
"""A gateway on a daemon: built from its description, looked at, and given new keys and maps.

Nothing is ever in clear on the provider's side: a daemon that was restarted has no pipelines until
all of them are there again, and what can't be encrypted is dropped and counted by the modules.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from bess_plugins.client import BessError, Client
from bess_plugins.pb import e2_counters_pb2 as counters_pb
from embark_gw.pipelines import Graph, decrypt_args, encrypt_args
from embark_gw.site import Gateway, Way

__all__ = [
    "Flows",
    "GatewayError",
    "Status",
    "build",
    "check_files",
    "check_private",
    "flows_of",
    "is_built",
    "refusals",
    "status_of",
    "update_receiving",
    "update_sending",
    "update_way",
]


class GatewayError(Exception):
    """A gateway can't do what it was asked for; the message says why, and shows no key."""


def check_files(gateway: Gateway) -> None:
    """A `GatewayError` where a key or the maps are missing, or others could read them."""
    for path in (*(key.file for key in gateway.keys), gateway.maps):
        check_private(path)


def check_private(path: Path) -> None:
    """A `GatewayError` where a file is missing, or others could read it."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise GatewayError(f"{path}: {error.strerror}") from None
    if mode & 0o077:
        raise GatewayError(f"others can use {path}; expected mode 600: chmod 600 {path}")


@contextmanager
def refusals(what: str) -> Iterator[None]:
    """What a daemon refuses is a `GatewayError` that says what it was about."""
    try:
        yield
    except BessError as error:
        raise GatewayError(f"{what}: {error}") from None


def build(client: Client, graph: Graph, *, held: bool = False) -> None:
    """Give a daemon the pipelines, and nothing else; where one is refused it has none at all.

    With ``held`` the workers that encrypt and decrypt do not run yet, and packets wait.
    """
    with refusals("the daemon"):
        client.reset_all()
    try:
        _make(client, graph, held)
    except GatewayError:
        with suppress(BessError):
            client.reset_all()
        raise


def _make(client: Client, graph: Graph, held: bool) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    for worker in range(graph.workers):
        with refusals(f"worker {worker}"):
            client.add_worker(worker, cpus[worker % len(cpus)])
    for port in graph.ports:
        with refusals(f"port {port.name}"):
            client.create_port(port.driver, port.name, **port.args)
    for module in graph.modules:
        with refusals(module.name):
            client.create_module(module.mclass, module.name, **module.args)
    for link in graph.links:
        with refusals(f"{link.source} to {link.target}"):
            client.connect(link.source, link.target, link.ogate, link.igate)
    for module in graph.modules:
        if module.worker is not None:
            with refusals(f"task of {module.name}"):
                client.attach_task(module.name, wid=module.worker)
    with refusals("workers"):
        client.resume(0 if held else None)


def is_built(found: counters_pb.Counters, graph: Graph) -> bool:
    """Whether a daemon has the pipelines."""
    modules = {module.name: module.mclass for module in found.modules}
    return modules == {module.name: module.mclass for module in graph.modules}


@dataclass(frozen=True)
class Flows:
    """What a gateway's FlowSteer knows: which way new flows go, and how many there are.

    ``left`` of them have the rules before the latest.
    """

    way: int
    flows: int
    left: int
    most: int


@dataclass(frozen=True)
class Status:
    """What a gateway has counted since it was built, in packets.

    ``drops`` is by module and reason, ``waiting`` by queue: how many packets there are, and how
    many there may be. No ``flows`` where the provider has no backup.
    """

    received: dict[str, int]
    sent: dict[str, int]
    encrypted: int
    decrypted: int
    drops: dict[tuple[str, str], int] = field(default_factory=dict)
    waiting: dict[str, tuple[int, int]] = field(default_factory=dict)
    flows: Flows | None = None


def flows_of(client: Client) -> Flows:
    """Of a gateway with a backup."""
    with refusals("steer"):
        told = client.run_module_command("steer", "get_status", "FlowSteerCommandGetStatusArg")
    ways = {int(one.get("gate", 0)) for one in told["ranges"]}
    if len(ways) != 1:
        raise GatewayError(f"steer: flows that begin go {len(ways)} ways; expected one")
    (way,) = ways
    counts = {int(one.get("gate", 0)): int(one.get("flows", 0)) for one in told["gates"]}
    left = counts.get(1 - way, 0)
    return Flows(way, int(told.get("flows", 0)), left, int(told["max_flows"]))


def status_of(client: Client) -> Status:
    """What a gateway's daemon says by now."""
    found = client.counters()
    crossed = {module.name: sum(gate.packets for gate in module.ogates) for module in found.modules}
    return Status(
        received={port.name: port.inc.packets for port in found.ports},
        sent={port.name: port.out.packets for port in found.ports},
        encrypted=crossed.get("encrypt", 0) + crossed.get("encrypt_backup", 0),
        decrypted=crossed.get("open", crossed.get("decrypt", 0)),
        drops={
            (module.name, reason): count
            for module in found.modules
            for reason, count in module.drops.items()
        }
        | {
            (port.name, f"not {way}"): counts.dropped
            for port in found.ports
            for way, counts in (("received", port.inc), ("sent", port.out))
            if counts.dropped
        },
        waiting={
            module.name: (module.waiting, module.most_waiting)
            for module in found.modules
            if module.HasField("waiting")
        },
        flows=flows_of(client) if "steer" in crossed else None,
    )


def update_receiving(client: Client, gateway: Gateway) -> None:
    """Take packets of the description's keys from now on."""
    args = decrypt_args(gateway)
    with refusals("decrypt"):
        client.run_module_command("decrypt", "update", "PrefixMatchDecryptCommandUpdateArg", args)
    if gateway.sealed:
        with refusals("open"):
            client.run_module_command("open", "update", "PayloadOpenArg", {"keys": args["keys"]})


def update_sending(client: Client, gateway: Gateway, maps: Path | None = None) -> None:
    """Encrypt by the description's key and pool from now on, and by its maps or others."""
    for way in gateway.provider.ways:
        update_way(client, gateway, way, maps)


def update_way(client: Client, gateway: Gateway, way: Way, maps: Path | None = None) -> None:
    """Encrypt so what goes to one of the provider's chains."""
    args = {**encrypt_args(gateway), "maps_file": str(maps or gateway.maps)}
    seal, encrypt = "seal" + way.ending, "encrypt" + way.ending
    if gateway.sealed:
        with refusals(seal):
            client.run_module_command(seal, "update", "PayloadSealArg", {"key": args["key"]})
    with refusals(encrypt):
        client.run_module_command(encrypt, "update", "PrefixMatchEncryptCommandUpdateArg", args)

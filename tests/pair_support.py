# SPDX-License-Identifier: BSD-3-Clause
"""Two gateways that share a key, and a provider between them, each on a daemon of its own.

::

    host -- near gateway -- cable -- left  provider  right -- cable -- far gateway -- server

Devices of the gateways are UNIX sockets here, so that nobody needs to be root.
"""

from __future__ import annotations

import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bess_plugins.client import Client
from bess_plugins.private_files import create_private
from daemon_support import CORE
from embark_gw import pipelines, updates
from embark_gw.keeper import Keeper
from embark_gw.site import Gateway, Key, load
from embark_gw.swaps import SwapResult, make_rotation
from embark_gw.updates import rotate
from gateway_support import Cable, Plug, connects, encrypt_rules, over_sockets
from harness import E2d, real_daemon, wait_until
from update_support import HOSTS, Answering

__all__ = ["Draining", "Pair", "follow", "more_answers", "new_pair", "secret"]

NEAR, FAR = "10.0.0.0/16", "198.51.100.0/24"
_SITE = """\
daemon: {daemon}
inside:
  device: inside
  mac: "02:00:00:00:01:01"
  peer: "02:00:00:00:01:02"
  networks: [{network}]
provider:
  device: provider
  mac: "02:00:00:00:03:01"
  peer: "02:00:00:00:03:02"
  mtu: 1700
key: {{file: {folder}/site.key, epoch: 1}}
accept: [{{file: {folder}/new.key, epoch: 2}}]
maps: site.maps
pool:
{pool}"""


@dataclass(frozen=True)
class Pair:
    """`near` and `far` are descriptions; `host` is behind the one, `server` behind the other."""

    near: Path
    far: Path
    theirs: E2d
    host: Plug
    server: Plug
    new_key: Key

    @property
    def gateways(self) -> tuple[Gateway, Gateway]:
        return load(self.near), load(self.far)

    def drops(self) -> dict[str, int]:
        """Packets that any module of the three daemons has dropped, by module and reason."""
        found: dict[str, int] = {}
        addresses = [gateway.daemon for gateway in self.gateways]
        for place, address in zip(("near", "far", "provider"), [*addresses, self.theirs.address],
                                  strict=True):  # fmt: skip
            with Client(address) as client:
                for module in client.counters().modules:
                    for reason, packets in module.drops.items():
                        if packets:
                            found[f"{place} {module.name}: {reason}"] = packets
        return found


def draw(gateway: Gateway) -> pipelines.Graph:
    return over_sockets(gateway, _number(gateway.daemon))


def _number(address: str) -> int:
    return int(address.rpartition(":")[2])


def secret(path: Path) -> None:
    """A new site key in a file of its own."""
    create_private(path, secrets.token_hex(32))


@contextmanager
def new_pair(
    folder: Path,
    patch: pytest.MonkeyPatch,
    provide: Callable[[Client, list[str]], None],
    pool: list[str],
    **more: str,
) -> Iterator[Pair]:
    """Gateways that run, with `provide` to build what is between the provider's two ports.

    It gets the pool as it is encrypted; all of the pool has ports in clear. ``more`` is said of the
    gateways besides.
    """
    patch.setattr("embark_gw.keeper.draw", draw)
    secret(folder / "site.key")
    secret(folder / "new.key")
    words = [word for address in pool for word in ("--pool", f"{address}:nat")]
    rules = encrypt_rules(folder, "site", "ACCEPT\n-s 192.0.2.1 -j DROP", *words, nat=False)
    with ExitStack() as stack:
        daemons = {}
        for name in ("near", "far", "theirs"):
            (folder / name).mkdir(mode=0o700)
            daemons[name] = stack.enter_context(real_daemon(folder / name))
        theirs = daemons["theirs"]
        plugs, sites = [], []
        with Client(theirs.address) as client:
            client.add_worker(0, CORE)
            for side in ("left", "right"):
                path = f"es-{theirs.port}-{side}"
                client.create_port("UnixSocketPort", side, path=f"@{path}")
                client.create_module("PortInc", f"{side}_in", port=side)
                client.create_module("PortOut", f"{side}_out", port=side)
            provide(client, [one.encrypted for one in rules.document.pool])
            client.resume()
        for name, network, side in (("near", NEAR, "left"), ("far", FAR, "right")):
            daemon, site = daemons[name], folder / name / "gateway.yaml"
            entries = "".join(f"  - {{prefix: {one}, nat: true}}\n" for one in pool)
            text = _SITE.format(folder=folder, daemon=daemon.address, network=network, pool=entries)
            site.write_text(
                text + "".join(f"{key}: {value}\n" for key, value in more.items()), encoding="utf-8"
            )
            shutil.copy(rules.maps, site.parent / "site.maps")
            Keeper(partial(load, site), print).start()
            plug = Plug(f"es-{daemon.port}-inside")
            stack.callback(plug.close)
            wait_until(partial(connects, plug))
            ends = (Plug(f"es-{daemon.port}-provider"), Plug(f"es-{theirs.port}-{side}"))
            cable = Cable(*ends)
            cable.start()
            stack.callback(cable.stop)
            plugs.append(plug)
            sites.append(site)
        key = Key(file=folder / "new.key", epoch=2)
        yield Pair(sites[0], sites[1], theirs, plugs[0], plugs[1], key)


class Draining:
    """The near gateway, which takes packets of its old key until it is told that it's enough."""

    def __init__(self, pair: Pair, patch: pytest.MonkeyPatch, **args: Any) -> None:
        self.done: SwapResult | None = None
        self._in_use = threading.Event()
        self._enough = threading.Event()
        clock = SimpleNamespace(monotonic=updates.time.monotonic, sleep=self._sleep)
        patch.setattr(updates, "time", clock)
        self._pair = pair
        self._thread = threading.Thread(target=self._run, kwargs=args)

    def _sleep(self, seconds: float) -> None:
        if seconds > 0:  # not the far gateway's
            assert self._enough.wait(60)

    def _run(self, **args: Any) -> None:
        gateway = self._pair.gateways[0]
        args |= {"drain_s": 60.0, "provider": self._pair.theirs.address, "settle_s": 0.2}
        made = make_rotation(gateway, self._pair.new_key, **args)
        self.done = rotate(gateway, made, lambda _: self._in_use.set())

    def __enter__(self) -> Draining:
        self._thread.start()
        assert self._in_use.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()


def more_answers(answering: Answering) -> None:
    """Packets come back, once more than there were."""
    since = len(answering.back)
    wait_until(lambda: len(answering.back) > since + 2 * HOSTS)


def follow(pair: Pair) -> None:
    """The far gateway has the new key, too."""
    far = pair.gateways[1]
    rotate(far, make_rotation(far, pair.new_key, drain_s=0.0, told=True))

# SPDX-License-Identifier: BSD-3-Clause
"""What looks after a gateway while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable

from bess_plugins.client import BessError, Client
from bess_plugins.sources import SourceError
from embark_gw.gateway import (
    GatewayError,
    Status,
    build,
    check_files,
    is_built,
    refusals,
    status_of,
)
from embark_gw.journal import journal_of, owned
from embark_gw.pipelines import draw
from embark_gw.site import Gateway
from embark_gw.updates import finish_swap, release

__all__ = ["Keeper"]

_POLL_S = 0.5
_SILENT_S = 5.0


class Keeper:
    """Keeps a gateway running on its daemon until it is stopped; ``tell`` gets what happens.

    ``load`` gives its description, and again when a daemon has to be built anew: the key may be
    another one by then.
    """

    def __init__(self, load: Callable[[], Gateway], tell: Callable[[str], None]) -> None:
        self._load = load
        self.gateway = load()
        self.graph = draw(self.gateway)
        self.rebuilt = 0
        self.status: Status | None = None
        self._tell = tell
        self._heard_s = time.monotonic()
        self._silent = False
        self._held = False
        self._lost = False

    def start(self) -> None:
        """Build it; a `GatewayError` says what is wrong."""
        check_files(self.gateway)
        with refusals(f"{self.gateway.daemon}"), Client(self.gateway.daemon) as client:
            self._build(client)

    def run(self, stop: Callable[[float], bool]) -> None:
        """Look after it until ``stop``, which waits for so many seconds, says so."""
        missed = False
        while not stop(_POLL_S):
            try:
                found = self._look()
            except (BessError, GatewayError, SourceError) as error:
                self.status = None
                if not missed:
                    self._tell(str(error))
                missed = True
                continue
            if missed:
                self._tell("the daemon answers again")
            missed = False
            self._listen(found)

    def _look(self) -> Status:
        """See to it that all is as it should be."""
        with Client(self.gateway.daemon) as client:
            if not is_built(client.counters(), self.graph):
                if not self._lost:
                    self._tell("the daemon lost its pipelines; building them again")
                self._lost = True  # until they are there
                self._reload()
                self._build(client)
                self._lost = False
                self.rebuilt += 1
                self.status = None
            if journal_of(self.gateway).exists():
                self.gateway = self._load()  # with the key that is in force by now
            if (done := finish_swap(self.gateway)) is not None:
                self._held = False
                what = "took back" if done.taken_back else "finished"
                self._tell(f"{what} an update of rules or key; packets waited {done.held_s:.1f} s")
                for why in done.unforgotten:
                    self._tell(f"the provider still knows addresses of the old key: {why}")
            if self._held:
                self._held = not release(self.gateway)
            return status_of(client)

    def _reload(self) -> None:
        self.gateway = self._load()
        self.graph = draw(self.gateway)
        check_files(self.gateway)

    def _build(self, client: Client) -> None:
        """Not to send before an update that is under way is done."""
        with owned(self.gateway) as mine:
            self._held = not mine or journal_of(self.gateway).exists()
            build(client, self.graph, held=self._held)

    def _listen(self, now: Status) -> None:
        """Notice when the provider takes packets and gives none back."""
        before, self.status = self.status, now
        if before is None or now.received["provider"] != before.received["provider"]:
            self._heard_s = time.monotonic()
            if self._silent:
                self._tell("the provider sends packets again")
            self._silent = False
        elif now.sent["provider"] == before.sent["provider"]:
            if not self._silent:
                self._heard_s = time.monotonic()
        elif not self._silent and time.monotonic() - self._heard_s > _SILENT_S:
            self._silent = True
            self._tell(f"the provider is silent: packets go there, none came for {_SILENT_S:.0f} s")

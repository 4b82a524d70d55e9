# SPDX-License-Identifier: BSD-3-Clause
"""What looks after a gateway while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable

from bess_plugins.client import BessError, Client
from embark_gw.gateway import (
    GatewayError,
    Status,
    build,
    check_files,
    is_built,
    refusals,
    status_of,
)
from embark_gw.pipelines import draw
from embark_gw.site import Gateway
from embark_gw.updates import finish_swap

__all__ = ["Keeper"]

_POLL_S = 0.5
_SILENT_S = 5.0


class Keeper:
    """Keeps a gateway running on its daemon until it is stopped; ``tell`` gets what happens."""

    def __init__(self, gateway: Gateway, tell: Callable[[str], None]) -> None:
        self.gateway = gateway
        self.graph = draw(gateway)
        self.rebuilt = 0
        self.status: Status | None = None
        self._tell = tell
        self._heard_s = time.monotonic()
        self._silent = False

    def start(self) -> None:
        """Build it; a `GatewayError` says what is wrong."""
        check_files(self.gateway)
        with refusals(f"{self.gateway.daemon}"), Client(self.gateway.daemon) as client:
            build(client, self.graph)

    def run(self, stop: Callable[[float], bool]) -> None:
        """Look after it until ``stop``, which waits for so many seconds, says so."""
        missed = False
        while not stop(_POLL_S):
            try:
                if (done := finish_swap(self.gateway)) is not None:
                    self._tell(
                        f"finished an update of the rules; packets waited {done.held_s:.1f} s"
                    )
                with Client(self.gateway.daemon) as client:
                    found = client.counters()
                    if not is_built(found, self.graph):
                        self._tell("the daemon lost its pipelines; building them again")
                        build(client, self.graph)
                        self.rebuilt += 1
                        continue
                if missed:
                    self._tell("the daemon answers again")
                missed = False
                self._listen(status_of(found))
            except (BessError, GatewayError) as error:
                self.status = None
                if not missed:
                    self._tell(str(error))
                missed = True

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

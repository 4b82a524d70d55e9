# SPDX-License-Identifier: BSD-3-Clause
"""What is to change as one, rules or the key, and how it went (`embark_gw.updates` does it)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from embark_gw.gateway import GatewayError, check_private
from embark_gw.journal import Swap, to_hex
from embark_gw.provider.metadata_match import config_of
from embark_gw.rules.document import EncryptedRules
from embark_gw.site import Gateway, Key
from embark_gw.stateful import Carried

__all__ = ["SwapResult", "make_rotation", "make_swap"]


@dataclass(frozen=True)
class SwapResult:
    """How it went: how long packets waited, and what of the provider's state went over.

    ``moved`` are addresses of the pool that have other encryptions now, the old ones first.
    ``taken_back``: what was before is in force, as an update that was under way had failed.
    ``kept`` flows stay with the old rules until they end, where the provider has a backup.
    ``unforgotten`` says why the provider still knows addresses of the old key.
    """

    held_s: float
    carried: Carried = field(default_factory=Carried)
    moved: dict[str, str] = field(default_factory=dict)
    taken_back: bool = False
    kept: int = 0
    unforgotten: tuple[str, ...] = ()


def make_swap(
    provider: str,
    maps: Path,
    document: EncryptedRules,
    firewalls: Sequence[str],
    nats: Sequence[str] = (),
    settle_s: float = Swap.settle_s,
    way: int | None = None,
    lbs: Sequence[str] = (),
) -> Swap:
    """To encrypted rules and their maps."""
    pool = [one.encrypted for one in document.pool]
    return Swap(
        provider=provider,
        maps=str(maps.absolute()),
        config=to_hex(config_of(document)),
        pool=pool,
        firewalls=[*firewalls],
        nats=[*nats],
        lbs=[*lbs],
        settle_s=settle_s,
        way=way,
    )


def make_rotation(
    gateway: Gateway,
    key: Key,
    *,
    drain_s: float,
    provider: str = "",
    nats: Sequence[str] = (),
    lbs: Sequence[str] = (),
    settle_s: float = Swap.settle_s,
    told: bool = False,
) -> Swap:
    """To another key; `GatewayError` for what can't be.

    Packets of the old key are taken back for ``drain_s`` more. A provider whose NATs and L4LBs
    write addresses of the pool, which have other encryptions then, is told of them and of what
    their mappings and connections are; ``told`` says that somebody has told it. Where two gateways
    share the key, `accept` comes first on both; for ``drain_s`` the provider knows the old
    encryptions as well.
    """
    if key.epoch in {known.epoch for known in gateway.keys if known != key or key == gateway.key}:
        raise GatewayError(f"epoch {key.epoch} is in use; give the new key another number")
    check_private(key.file)
    if provider and told:
        raise GatewayError("whoever is told already needs no --provider; leave one of both out")
    if (nats or lbs) and not provider:
        raise GatewayError("NATs and L4LBs are of a provider; name its daemon by --provider")
    if gateway.pool and not provider and not told:
        raise GatewayError(
            "addresses of the pool have other encryptions under another key, and the provider "
            "writes them; name its daemon by --provider, its NATs by --nat and its L4LBs by --lb"
        )
    return Swap(
        provider=provider,
        nats=[*nats],
        lbs=[*lbs],
        settle_s=settle_s,
        key={"file": str(key.file), "epoch": key.epoch},
        instead=gateway.key.epoch,
        drain_s=drain_s,
    )

# SPDX-License-Identifier: BSD-3-Clause
"""Middleboxes of the provider with state about encrypted addresses, which change with key or maps.

| module | has | gets |
|---|---|---|
| NAT | mappings of internal endpoints; external addresses, of the pool | the new encryptions |
| L4LB | connections of clients; virtual addresses and backends, of the pool | the same |

What is internal, or a client, the gateway tells anew where it remembers the flow
(`embark_gw.pipelines`). With ``keep_old``, what comes back to the old addresses is known as well.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

from bess_plugins.client import Client
from embark_gw.gateway import GatewayError, refusals

__all__ = ["Balancer", "Carried", "Nat", "PoolAddress", "Stateful", "pool_of"]

Config = Mapping[str, Any]


class PoolAddress(NamedTuple):
    """An address that the provider writes."""

    clear: str
    encrypted: str


def pool_of(ours: Client, plan: Config | None = None) -> list[PoolAddress]:
    """A gateway's pool as it encrypts it, or as it would by other keys and maps."""
    arg_type = "PrefixMatchEncryptCommandGetPoolArg"
    with refusals("encrypt"):
        told = ours.run_module_command(
            "encrypt", "get_pool", arg_type, {} if plan is None else {"plan": plan}
        )
    return [PoolAddress(one["address"], one["encrypted"]) for one in told["addresses"]]


class Carried(NamedTuple):
    """What went over: mappings of NATs, and connections of L4LBs.

    ``ended`` mappings were gone by then; ``left`` connections are those whose clients the gateway
    can't tell.
    """

    mappings: int = 0
    ended: int = 0
    connections: int = 0
    left: int = 0

    def plus(self, other: Carried) -> Carried:
        """Both together."""
        return Carried(*map(sum, zip(self, other, strict=True)))


class Stateful(ABC):
    """One of them, of a provider's daemon."""

    mclass: ClassVar[str]
    _commands: ClassVar[tuple[str, str]]  # to get what it has, and to replace it

    def __init__(self, client: Client, ours: Client, provider: str, name: str) -> None:
        self.name = name
        self._client = client
        self._ours = ours
        self._provider = provider

    @abstractmethod
    def check(self, moved: Mapping[str, str]) -> None:
        """A `GatewayError` where it can't be one of the pool's."""

    @abstractmethod
    def carry(self, moved: Mapping[str, str], plan: Config, keep_old: bool) -> Carried:
        """By a plan's key and maps; whatever of it is done already, too."""

    def forget(self, moved: Mapping[str, str]) -> None:
        """Old addresses that are kept."""
        kept = [one["old"] for one in self._get()["kept_addresses"]]
        if gone := [address for address in kept if address in moved]:
            self._replace({"forget_addresses": gone})

    def _get(self) -> dict[str, Any]:
        return self._run(self._commands[0], {})

    def _replace(self, arg: Config) -> dict[str, Any]:
        return self._run(self._commands[1], arg)

    def _run(self, command: str, arg: Config) -> dict[str, Any]:
        words = "".join(word.title() for word in command.split("_"))
        with refusals(f"provider at {self._provider}"):
            arg_type = f"{self.mclass}Command{words}Arg"
            return dict(self._client.run_module_command(self.name, command, arg_type, arg))

    def _reencrypted(self, ends: Iterable[tuple[int, Config]], plan: Config) -> list[Config]:
        """Encrypted sources by a plan's key and maps; those that the gateway knows."""
        sources = [{"protocol": protocol, "source": end} for protocol, end in ends]
        with refusals("reencrypt"):
            found = self._ours.run_module_command(
                "encrypt",
                "reencrypt",
                "PrefixMatchEncryptCommandReencryptArg",
                {"sources": sources, "plan": plan},
            )
        return [dict(one) for one in found["mappings"]]

    @staticmethod
    def _stale(told: Config, moved: Mapping[str, str], keep_old: bool) -> list[str]:
        """Old addresses to forget: of an earlier change whose end the provider wasn't told."""
        kept = [one["old"] for one in told["kept_addresses"]]
        return [address for address in kept if not (keep_old and address in moved)]


class Nat(Stateful):
    """A NAT."""

    mclass = "NAT"
    _commands = ("get_mappings", "replace_mappings")

    def check(self, moved: Mapping[str, str]) -> None:
        for address in self._get()["external_addresses"]:
            if address not in moved:
                raise GatewayError(
                    f"the provider's NAT '{self.name}' writes {address}, which is no address of "
                    "the pool as the gateway encrypts it now; make that NAT with the pool's "
                    "addresses"
                )

    def carry(self, moved: Mapping[str, str], plan: Config, keep_old: bool) -> Carried:
        told = self._get()
        ends = ((one["protocol"], one["internal"]) for one in told["mappings"])
        externals = [
            {"old": address, "new": moved[address], "keep_old": keep_old}
            for address in told["external_addresses"]
            if address in moved
        ]
        arg = {
            "mappings": self._reencrypted(ends, plan),
            "external_addresses": externals,
            "forget_addresses": self._stale(told, moved, keep_old),
        }
        done = self._replace(arg)
        return Carried(mappings=int(done["replaced"]), ended=int(done["ended"]))


class Balancer(Stateful):
    """An L4LB, which may have other services than the pool's."""

    mclass = "L4LB"
    _commands = ("get_connections", "replace_connections")

    def check(self, moved: Mapping[str, str]) -> None:
        if not any(address in moved for address in self._get()["addresses"]):
            raise GatewayError(
                f"the provider's L4LB '{self.name}' has no address of the pool as the gateway "
                "encrypts it now; give it the pool's addresses by 'update'"
            )

    def carry(self, moved: Mapping[str, str], plan: Config, keep_old: bool) -> Carried:
        told = self._get()
        pool = {one.encrypted for one in pool_of(self._ours, plan)}.union(moved, moved.values())
        own = [one for one in told["connections"] if one["service"]["address"] in pool]
        ends = ((one["protocol"], one["client"]) for one in own)
        arg = {
            "connections": self._reencrypted(ends, plan),
            "addresses": [
                {"old": address, "new": moved[address]}
                for address in told["addresses"]
                if address in moved
            ],
            "keep_old": keep_old,
            "forget_addresses": self._stale(told, moved, keep_old),
        }
        replaced = int(self._replace(arg)["replaced"])
        return Carried(connections=replaced, left=len(own) - replaced)

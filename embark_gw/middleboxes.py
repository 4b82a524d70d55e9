# SPDX-License-Identifier: BSD-3-Clause
"""What the provider's middleboxes have that depends on rules and keys: told, and given anew.

| module | has | gets |
|---|---|---|
| MetadataMatch, a firewall | rules | the new ones |
| MetadataMatch, another one | addresses of the pool, such as where those of a NAT lead | them |
| NAT, L4LB | state about encrypted addresses (`embark_gw.stateful`) | it in the new encryption |

While packets of an old key are taken, all of them know the old encryptions of the pool's addresses
as well: another gateway may have the old key for that long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from ipaddress import ip_address
from typing import Any

from bess_plugins.client import Client
from embark_gw.gateway import GatewayError, refusals
from embark_gw.journal import Journal, Swap, from_hex, to_hex
from embark_gw.provider.metadata_match import CLASS
from embark_gw.stateful import Balancer, Carried, Nat, Stateful

__all__ = ["Middleboxes", "readdressed", "without_addresses"]

_CONFIG = "MetadataMatchConfig"
Config = Mapping[str, Any]


class Middleboxes:
    """Those of the provider's daemon that an update is about."""

    def __init__(self, client: Client, ours: Client, swap: Swap) -> None:
        self.client = client
        self._ours = ours
        self._swap = swap
        self._stateful: list[Stateful] = [
            *(Nat(client, ours, swap.provider, name) for name in swap.nats),
            *(Balancer(client, ours, swap.provider, name) for name in swap.lbs),
        ]

    def look(self, moved: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        """What MetadataMatches have that are to change; `GatewayError` for what isn't there."""
        with self._refusals():
            there = {module["name"]: module["mclass"] for module in self.client.list_modules()}
        wanted = dict.fromkeys(self._swap.firewalls, CLASS)
        wanted |= {one.name: one.mclass for one in self._stateful}
        for name, mclass in wanted.items():
            if there.get(name) != mclass:
                known = ", ".join(n for n, kind in there.items() if kind == mclass) or "none"
                raise GatewayError(f"the provider has no {mclass} '{name}'; it has {known}")
        for one in self._stateful if moved else ():
            one.check(moved)
        found = {name: self._config(name) for name in self._swap.firewalls}
        for name, mclass in there.items():
            if moved and mclass == CLASS and name not in found:
                config = self._config(name)
                if readdressed(config, moved) != config:
                    found[name] = config
        return found

    def give_new(self, journal: Journal, plan: Config) -> Carried:
        """Tells what went over."""
        keep_old = self._swap.key is not None
        for name, config in journal.before.items():
            new = name in self._swap.firewalls
            self._configure(
                name, self._swap.config if new else readdressed(config, journal.moved, keep_old)
            )
        done = Carried()
        for one in self._stateful:
            done = done.plus(one.carry(journal.moved, plan, keep_old))
        return done

    def give_old(self, journal: Journal, plan: Config) -> None:
        """What was there before; whatever of it is there already, too."""
        for name, config in journal.before.items():
            self._configure(name, config)
        back = {new: old for old, new in journal.moved.items()}
        for one in self._stateful:
            one.carry(back, plan, keep_old=False)

    def forget(self, journal: Journal) -> tuple[str, ...]:
        """Old encryptions of the pool's addresses; tells what is in the way, and goes on."""
        failed = []
        tasks: list[Callable[[Mapping[str, str]], None]]
        tasks = [partial(self._forget_in_rules, name) for name in journal.before]
        tasks += [one.forget for one in self._stateful]
        for task in tasks if journal.moved else ():
            try:
                task(journal.moved)
            except GatewayError as error:
                failed.append(str(error))
        return tuple(dict.fromkeys(failed))

    def _forget_in_rules(self, name: str, moved: Mapping[str, str]) -> None:
        config = self._config(name)
        if (left := without_addresses(config, moved)) != config:
            self._configure(name, left)

    def configure_firewalls(self) -> None:
        """Give the firewalls their new rules, and nobody else anything."""
        for name in self._swap.firewalls:
            self._configure(name, self._swap.config)

    def _refusals(self) -> AbstractContextManager[None]:
        return refusals(f"provider at {self._swap.provider}")

    def _config(self, name: str) -> dict[str, Any]:
        with self._refusals():
            return to_hex(self.client.run_module_command(name, "get_runtime_config", "EmptyArg"))

    def _configure(self, name: str, config: Config) -> None:
        with self._refusals():
            self.client.run_module_command(name, "set_runtime_config", _CONFIG, from_hex(config))


def readdressed(config: Config, moved: Mapping[str, str], keep_old: bool = False) -> dict[str, Any]:
    """A MetadataMatch's configuration, in hexadecimal, with other addresses of the pool.

    With ``keep_old`` the old ones are beside them: each rule about one is there twice.
    """
    digits = {
        ip_address(old).packed.hex(): ip_address(new).packed.hex() for old, new in moved.items()
    }

    def term_of(term: Config) -> Config:
        value = digits.get(term.get("value_bin", ""))
        return {**term, "value_bin": value} if value else term

    def range_of(one: Config) -> Config:
        value = digits.get(_alone(one))
        return {"min_bin": value, "max_bin": value} if value else one

    def both(old: Config, new: Config) -> list[Config]:
        return [old, new] if keep_old and old != new else [new]

    made = {**config, "rules": []}
    for rule in config["rules"]:
        made["rules"] += both(rule, {**rule, "terms": [*map(term_of, rule["terms"])]})
    if "sets" in config:
        made["sets"] = [
            {**one, "ranges": [each for r in one["ranges"] for each in both(r, range_of(r))]}
            for one in config["sets"]
        ]
    return made


def without_addresses(config: Config, moved: Mapping[str, str]) -> dict[str, Any]:
    """What is left of such a configuration without what tests old addresses."""
    digits = {ip_address(old).packed.hex() for old in moved}

    made = {**config}
    made["rules"] = [
        rule
        for rule in config["rules"]
        if not any(term.get("value_bin") in digits for term in rule["terms"])
    ]
    if "sets" in config:
        made["sets"] = [
            {**one, "ranges": [each for each in one["ranges"] if _alone(each) not in digits]}
            for one in config["sets"]
        ]
    return made


def _alone(one: Config) -> str:
    """The address of a set's range, if it has no other: only such a one is the pool's."""
    first: str = one.get("min_bin", "")
    return first if first == one.get("max_bin", "") else ""

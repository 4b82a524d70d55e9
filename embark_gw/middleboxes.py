# SPDX-License-Identifier: BSD-3-Clause
"""What the provider's middleboxes have that depends on rules and keys: told, and given anew.

| module | has | gets |
|---|---|---|
| MetadataMatch, a firewall | rules | the new ones |
| MetadataMatch, another one | addresses of the pool, such as where those of a NAT lead | them |
| NAT | internal endpoints, encrypted; addresses of the pool | both in the new encryption |

While packets of an old key are taken, NATs and MetadataMatches know the old encryptions of the
pool's addresses as well: another gateway may have the old key for that long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from ipaddress import ip_address
from typing import Any, NamedTuple

from bess_plugins.client import Client
from embark_gw.gateway import GatewayError, refusals
from embark_gw.journal import Journal, Swap, from_hex, to_hex
from embark_gw.provider.metadata_match import CLASS

__all__ = ["Middleboxes", "PoolAddress", "pool_of", "readdressed", "without_addresses"]

_CONFIG = "MetadataMatchConfig"
Config = Mapping[str, Any]


class PoolAddress(NamedTuple):
    """An address that the provider writes."""

    clear: str
    encrypted: str


def pool_of(ours: Client, plan: Mapping[str, Any] | None = None) -> list[PoolAddress]:
    """A gateway's pool as it encrypts it, or as it would by other keys and maps."""
    arg_type = "PrefixMatchEncryptCommandGetPoolArg"
    with refusals("encrypt"):
        told = ours.run_module_command(
            "encrypt", "get_pool", arg_type, {} if plan is None else {"plan": plan}
        )
    return [PoolAddress(one["address"], one["encrypted"]) for one in told["addresses"]]


class Middleboxes:
    """Those of the provider's daemon that an update is about."""

    def __init__(self, client: Client, ours: Client, swap: Swap) -> None:
        self.client = client
        self._ours = ours
        self._swap = swap

    def look(self, moved: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        """What MetadataMatches have that are to change; `GatewayError` for what isn't there."""
        with self._refusals():
            there = {module["name"]: module["mclass"] for module in self.client.list_modules()}
        wanted = dict.fromkeys(self._swap.firewalls, CLASS) | dict.fromkeys(self._swap.nats, "NAT")
        for name, mclass in wanted.items():
            if there.get(name) != mclass:
                known = ", ".join(n for n, kind in there.items() if kind == mclass) or "none"
                raise GatewayError(f"the provider has no {mclass} '{name}'; it has {known}")
        for name in self._swap.nats if moved else ():
            self._check_nat(name, moved)
        found = {name: self._config(name) for name in self._swap.firewalls}
        for name, mclass in there.items():
            if moved and mclass == CLASS and name not in found:
                config = self._config(name)
                if readdressed(config, moved) != config:
                    found[name] = config
        return found

    def give_new(self, journal: Journal, plan: Config) -> tuple[int, int]:
        """How many mappings of NATs went over, and how many had ended."""
        keep_old = self._swap.key is not None
        for name, config in journal.before.items():
            new = name in self._swap.firewalls
            self._configure(
                name, self._swap.config if new else readdressed(config, journal.moved, keep_old)
            )
        return self._translate(journal.moved, plan, keep_old)

    def give_old(self, journal: Journal, plan: Config) -> None:
        """What was there before; whatever of it is there already, too."""
        for name, config in journal.before.items():
            self._configure(name, config)
        self._translate({new: old for old, new in journal.moved.items()}, plan)

    def forget(self, journal: Journal) -> tuple[str, ...]:
        """Old encryptions of the pool's addresses; tells what is in the way, and goes on."""
        failed = []
        tasks = [(name, self._forget_in_rules) for name in journal.before]
        tasks += [(name, self._forget_in_nat) for name in self._swap.nats]
        for name, task in tasks if journal.moved else ():
            try:
                task(name, journal.moved)
            except GatewayError as error:
                failed.append(str(error))
        return tuple(dict.fromkeys(failed))

    def _forget_in_rules(self, name: str, moved: Mapping[str, str]) -> None:
        config = self._config(name)
        if (left := without_addresses(config, moved)) != config:
            self._configure(name, left)

    def _forget_in_nat(self, name: str, moved: Mapping[str, str]) -> None:
        kept = [one["old"] for one in self._mappings(name)["kept_addresses"]]
        if gone := [address for address in kept if address in moved]:
            self._replace(name, {"forget_addresses": gone})

    def configure_firewalls(self) -> None:
        """Give the firewalls their new rules, and nobody else anything."""
        for name in self._swap.firewalls:
            self._configure(name, self._swap.config)

    def _refusals(self) -> AbstractContextManager[None]:
        return refusals(f"provider at {self._swap.provider}")

    def _check_nat(self, name: str, moved: Mapping[str, str]) -> None:
        for address in self._mappings(name)["external_addresses"]:
            if address not in moved:
                raise GatewayError(
                    f"the provider's NAT '{name}' writes {address}, which is no address of the "
                    "pool as the gateway encrypts it now; make that NAT with the pool's addresses"
                )

    def _config(self, name: str) -> dict[str, Any]:
        with self._refusals():
            return to_hex(self.client.run_module_command(name, "get_runtime_config", "EmptyArg"))

    def _configure(self, name: str, config: Config) -> None:
        with self._refusals():
            self.client.run_module_command(name, "set_runtime_config", _CONFIG, from_hex(config))

    def _mappings(self, name: str) -> dict[str, Any]:
        with self._refusals():
            return dict(
                self.client.run_module_command(name, "get_mappings", "NATCommandGetMappingsArg")
            )

    def _replace(self, name: str, arg: Config) -> dict[str, Any]:
        with self._refusals():
            return dict(
                self.client.run_module_command(
                    name, "replace_mappings", "NATCommandReplaceMappingsArg", arg
                )
            )

    def _translate(
        self, moved: Mapping[str, str], plan: Config, keep_old: bool = False
    ) -> tuple[int, int]:
        replaced = ended = 0
        for name in self._swap.nats:
            told = self._mappings(name)
            arg = {
                "mappings": self._reencrypted(told["mappings"], plan),
                "external_addresses": [
                    {"old": address, "new": moved[address], "keep_old": keep_old}
                    for address in told["external_addresses"]
                    if address in moved
                ],
                # And those of an earlier change whose end the provider wasn't told.
                "forget_addresses": [
                    one["old"]
                    for one in told["kept_addresses"]
                    if not (keep_old and one["old"] in moved)
                ],
            }
            done = self._replace(name, arg)
            replaced += int(done["replaced"])
            ended += int(done["ended"])
        return replaced, ended

    def _reencrypted(self, mappings: Sequence[Config], plan: Config) -> list[dict[str, Any]]:
        """Internal endpoints by a plan's key and maps; those that hosts still use."""
        sources = [{"protocol": one["protocol"], "source": one["internal"]} for one in mappings]
        with refusals("reencrypt"):
            found = self._ours.run_module_command(
                "encrypt",
                "reencrypt",
                "PrefixMatchEncryptCommandReencryptArg",
                {"sources": sources, "plan": plan},
            )
        return [dict(one) for one in found["mappings"]]


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
        """Of a set: only an address that is alone is the pool's."""
        first, last = one.get("min_bin", ""), one.get("max_bin", "")
        value = digits.get(first) if first == last else None
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

    def is_old(one: Config) -> bool:
        return one.get("min_bin") == one.get("max_bin") and one.get("min_bin") in digits

    made = {**config}
    made["rules"] = [
        rule
        for rule in config["rules"]
        if not any(term.get("value_bin") in digits for term in rule["terms"])
    ]
    if "sets" in config:
        made["sets"] = [
            {**one, "ranges": [each for each in one["ranges"] if not is_old(each)]}
            for one in config["sets"]
        ]
    return made

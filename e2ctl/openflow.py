# SPDX-License-Identifier: BSD-3-Clause
"""The switch driver for a real Open vSwitch: rules as flows, and ``ovs-ofctl`` to put them there.

A flow id, `ID_BITS` of it, travels from the first table to the second in register 0, and the class
in register 1. The driver has the bridge to itself: flows of others are taken away.

Filters find ports in the first fragment of a datagram and none in the later ones. In Open vSwitch
no fragment has ports, unless it is told ``nx-match``: then the first has its own and the later ones
have 0. So it is told that, and tests of ports that 0 passes say that later fragments don't.
"""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import NamedTuple

from e2ctl.filters import VERSION_OF, Term
from e2ctl.switch_rules import ETHER_TYPES, ID_BITS, STEER, Action, SwitchRule, exact

__all__ = ["FlowCount", "LiveRules", "OpenFlowSwitch", "SwitchError", "render"]

COOKIE = 0xE2
_TIMEOUT_S = 30
_TAGGED = 0x1000  # of a TCI in Open vSwitch: there is a tag
_ID = f"NXM_NX_REG0[0..{ID_BITS - 1}]"
_PORTS = {6: "tcp", 17: "udp", 132: "sctp"}
_ADDRESS_FIELDS = {
    "ip.src": "nw_src",
    "ip.dst": "nw_dst",
    "ip6.src": "ipv6_src",
    "ip6.dst": "ipv6_dst",
}
_COUNTERS = re.compile(
    r"table=(?P<table>\d+), n_packets=(?P<packets>\d+), n_bytes=(?P<bytes>\d+),"
    r"(?: \w+_(?:age|timeout)=\d+,)* (?P<flow>.*)"
)
# As a comparison shows what one side lacks.
_LACKING = re.compile(
    r"^\+(?:table=(?P<table>\d+) )?(?P<match>\S*) cookie=(?P<cookie>0x[0-9a-f]+) (?P<rest>.*)",
    re.MULTILINE,
)
_AGGREGATE = re.compile(r"flow_count=(\d+)")


class SwitchError(Exception):
    """The switch can't do a rule, or didn't do what it was told; the message says what and why."""


class FlowCount(NamedTuple):
    """What an entry, as Open vSwitch writes it, has matched so far."""

    text: str
    packets: int
    bytes: int


class LiveRules(NamedTuple):
    """What the switch has of some rules: counters by rule, and entries that no rule stands for."""

    found: Mapping[SwitchRule, FlowCount]
    foreign: tuple[str, ...]


def render(rules: Iterable[SwitchRule]) -> list[str]:
    """The flow, as ``ovs-ofctl`` reads it, of each rule."""
    return [_flow(rule) for rule in rules]


def _flow(rule: SwitchRule) -> str:
    try:
        parts = [
            f"cookie={COOKIE:#x}",
            f"table={rule.table}",
            f"priority={rule.priority}",
            *_match(rule.terms),
            f"actions={','.join(_actions(rule)) or 'drop'}",
        ]
    except SwitchError as error:
        raise SwitchError(f"Open vSwitch has no entry for '{rule}': {error}") from None
    return ",".join(parts)


# Matches. What others rest on comes first.


def _match(terms: Sequence[Term]) -> Iterator[str]:
    named = {term.field: term for term in terms}
    if len(named) != len(terms):
        raise SwitchError("it tests a field twice")
    if "port" in named:
        yield f"in_port={_whole(named['port'])}"
    if "class" in named:
        yield f"reg1={_number(named['class'])}"
    if "id" in named:
        yield f"reg0={named['id'].value:#x}/{named['id'].mask:#x}"
    if "mac" in named:
        mac = named["mac"]
        yield f"dl_dst={_mac(mac.value)}" + ("" if _is_whole(mac) else f"/{_mac(mac.mask)}")
    yield from _tags(named)
    yield from _network(named)


def _tags(named: Mapping[str, Term]) -> Iterator[str]:
    numbers = [named[field] for field in ("tag", "vlan.id") if field in named]
    if len(numbers) > 1:
        raise SwitchError("'tag' and 'vlan.id' are one field")
    if "tagged" in named:
        tagged = _whole(named["tagged"])
        if numbers and not tagged:
            raise SwitchError("a frame without a tag has no VLAN")
        if not numbers:
            yield f"vlan_tci={tagged * _TAGGED:#06x}/{_TAGGED:#x}"
    for term in numbers:
        if _is_whole(term):
            yield f"dl_vlan={term.value}"
        else:
            yield f"vlan_vid={term.value | _TAGGED:#x}/{term.mask | _TAGGED:#x}"


def _network(named: Mapping[str, Term]) -> Iterator[str]:
    versions = {VERSION_OF[field] for field in named if field in VERSION_OF}
    if "ip.version" in named:
        versions.add(_whole(named["ip.version"]))
    kinds = {ETHER_TYPES.get(version, 0) for version in versions}
    if "eth.type" in named:
        kinds.add(_whole(named["eth.type"]))
    if len(kinds) > 1 or 0 in kinds:
        raise SwitchError("no packet has all of these types of Ethernet and versions of IP")
    if versions:
        yield "ip" if 4 in versions else "ipv6"
    elif "eth.type" in named:
        yield f"dl_type={named['eth.type'].value:#06x}"
    if "ip.proto" in named:
        if not kinds & {*ETHER_TYPES.values()}:
            raise SwitchError("a test of 'ip.proto' needs one of 'ip.version'")
        yield f"nw_proto={_whole(named['ip.proto'])}"
    for field, name in _ADDRESS_FIELDS.items():
        if field in named:
            term = named[field]
            kind = IPv6Address if VERSION_OF[field] == 6 else IPv4Address
            yield f"{name}={kind(term.value)}" + ("" if _is_whole(term) else f"/{kind(term.mask)}")
    ports = {"src": named.get("l4.sport"), "dst": named.get("l4.dport")}
    tests = {end: term for end, term in ports.items() if term is not None}
    if not tests:
        return
    if "ip.proto" not in named or named["ip.proto"].value not in _PORTS:
        raise SwitchError("a test of ports needs one of 'ip.proto' for TCP, UDP or SCTP")
    for end, term in tests.items():
        yield f"{_PORTS[named['ip.proto'].value]}_{end}={_number(term)}"
    if not any(term.value for term in tests.values()):
        yield "ip_frag=not_later"


def _is_whole(term: Term) -> bool:
    return term.mask == exact(term.field, 0).mask


def _whole(term: Term) -> int:
    """The value of a term that has to test all bits."""
    if not _is_whole(term):
        raise SwitchError(f"'{term.field}' can be tested as a whole only, not under {term.mask:#x}")
    return term.value


def _number(term: Term) -> str:
    return str(term.value) if _is_whole(term) else f"{term.value:#x}/{term.mask:#x}"


def _mac(value: int) -> str:
    return value.to_bytes(6, "big").hex(":")


# Actions.


def _actions(rule: SwitchRule) -> Iterator[str]:
    came_from = next((term.value for term in rule.terms if term.field == "port"), None)
    for action in rule.actions:
        # To output a packet where it came in, Open vSwitch wants to be told so.
        back = action.kind == "output" and action.value == came_from
        yield "in_port" if back else _action(action)


def _action(action: Action) -> str:
    match action.kind, action.value:
        case "output", int(port):
            return f"output:{port}"
        case "tag", int(number):
            return f"push_vlan:0x88a8,set_field:{_TAGGED + number}->vlan_vid"
        case "tag_id", _:
            return f"push_vlan:0x8100,move:{_ID}->OXM_OF_VLAN_VID[0..{ID_BITS - 1}]"
        case "untag", _:
            return "pop_vlan"
        case "hash", str(name):
            return f"multipath({name},0,modulo_n,{1 << ID_BITS},0,{_ID})"
        case "class", int(number):
            return f"set_field:{number}->reg1,goto_table:{STEER}"
    raise SwitchError(f"it has no action '{action}'")


class OpenFlowSwitch:
    """A bridge of the Open vSwitch whose sockets are in ``rundir``."""

    def __init__(self, rundir: Path, bridge: str) -> None:
        self.rundir = rundir
        self.bridge = bridge

    async def replace(self, rules: Iterable[SwitchRule]) -> None:
        """Make these the rules, all at once; what stays the same keeps its counters.

        Once it is back, no packet goes by what was before.
        """
        text = "".join(f"{flow}\n" for flow in render(rules))
        await self._ask("set-frags", "nx-match")
        await self._ask("--bundle", "replace-flows", "-", flows=text)
        # What the datapath has cached is looked at again only now and then.
        await self._run("ovs-appctl", f"--target={self._control()}", "revalidator/wait")

    async def counters(self) -> list[FlowCount]:
        """What each entry has matched; Open vSwitch counts within half a second or so."""
        found = (_COUNTERS.search(line) for line in (await self._ask("dump-flows")).splitlines())
        return [
            FlowCount(f"table={m['table']},{m['flow']}", int(m["packets"]), int(m["bytes"]))
            for m in found
            if m is not None
        ]

    async def compare(self, rules: Sequence[SwitchRule]) -> LiveRules:
        """Which of these rules it has, exactly as they are, and what else."""
        counts = {count.text: count for count in await self.counters()}
        texts = await self._spelled(rules)
        found = {
            rule: counts[text] for rule, text in zip(rules, texts, strict=True) if text in counts
        }
        return LiveRules(found, tuple(text for text in counts if text not in texts))

    async def _spelled(self, rules: Sequence[SwitchRule]) -> list[str]:
        """Rules as `counters` writes them: cookies tell which is which."""
        own = f"cookie={COOKIE:#x}"
        flows = [
            flow.replace(own, f"cookie={number:#x}", 1)
            for number, flow in enumerate(render(rules), 1)
        ]
        with tempfile.NamedTemporaryFile("w", prefix="e2-flows-") as file:
            file.write("\n".join(flows))
            file.flush()
            answer = await self._ofctl("diff-flows", os.devnull, file.name, fine=(0, 2))
        texts = {
            int(m["cookie"], 16): f"table={m['table'] or 0},{m['match']} {m['rest']}"
            for m in _LACKING.finditer(answer)
        }
        return [texts.get(number, "") for number in range(1, len(flows) + 1)]

    async def entries(self) -> int:
        """How many entries its tables hold."""
        answer = await self._ask("dump-aggregate")
        found = _AGGREGATE.search(answer)
        if found is None:
            raise SwitchError(f"ovs-ofctl dump-aggregate: expected a flow_count in '{answer}'")
        return int(found[1])

    async def _ask(self, *words: str, flows: str = "") -> str:
        """Run a command of ``ovs-ofctl`` on the bridge."""
        options = [word for word in words if word.startswith("--")]
        verb, *more = [word for word in words if not word.startswith("--")]
        target = f"unix:{self.rundir / self.bridge}.mgmt"
        return await self._ofctl(*options, verb, target, *more, flows=flows)

    def _control(self) -> Path:
        """The socket by which ``ovs-vswitchd`` is asked other things than rules."""
        named = self.rundir / "ovs-vswitchd.ctl"
        process = self.rundir / "ovs-vswitchd.pid"
        if named.exists() or not process.exists():
            return named
        return self.rundir / f"ovs-vswitchd.{process.read_text().strip()}.ctl"

    async def _ofctl(self, *words: str, flows: str = "", fine: Sequence[int] = (0,)) -> str:
        return await self._run(
            "ovs-ofctl", "--protocols=OpenFlow14", "--no-names", *words, flows=flows, fine=fine
        )

    async def _run(
        self, program: str, *words: str, flows: str = "", fine: Sequence[int] = (0,)
    ) -> str:
        """Run a program of Open vSwitch; ``fine`` are exit codes that are no failure."""
        try:
            process = await asyncio.create_subprocess_exec(
                program, f"--timeout={_TIMEOUT_S}", *words,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
        except FileNotFoundError:
            message = f"no program {program}; it comes with Debian's openvswitch-switch"
            raise SwitchError(message) from None
        try:
            out, err = await process.communicate(flows.encode())
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        if process.returncode not in fine:
            said = err.decode(errors="replace").strip() or f"exit code {process.returncode}"
            verb = " ".join([word for word in words if not word.startswith("--")][:2])
            raise SwitchError(f"{program} {verb}: {said}")
        return out.decode()

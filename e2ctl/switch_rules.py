# SPDX-License-Identifier: BSD-3-Clause
"""What the switch is to do, as data.

Two tables. The first takes packets by where they come from:

* from an external port, by the filters of the policy: to the server, or the class in the second
  table, that they belong to; what no filter takes is dropped;
* from a server, tagged with the number of an external port: out there, without the tag;
* from a server, in a tunnel: to the server that its MAC address names.

The second divides a class, the traffic of one NF, among instances by flow id: a hash of the packet
that the switch computes. It writes the id into an inner VLAN tag and the entry of the instance
(see `e2ctl.entries`) into an outer one, so that server and switch agree on ids whatever the hash.
Spans of flow ids become matches of prefixes; exceptions are flows matched field by field above.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from e2ctl.affinity import Affinity
from e2ctl.filters import FIELD_BITS, VERSION_OF, Term, prefixes
from e2ctl.igraph import ALL_IDS, SPAN_STEP, Span

__all__ = [
    "CLASSIFY",
    "ETHER_TYPES",
    "ID_BITS",
    "STEER",
    "WITH_PORTS",
    "Action",
    "SwitchRule",
    "exact",
    "flow_terms",
    "id_terms",
    "spelled_out",
]

CLASSIFY, STEER = 0, 1
# Of the versions of IP.
ETHER_TYPES = {4: 0x0800, 6: 0x86DD}
_OPPOSITE = {"src": "dst", "dst": "src", "sport": "dport", "dport": "sport"}
# TCP, UDP and SCTP.
WITH_PORTS = (6, 17, 132)
# Bits of a flow id that fit a VLAN tag.
ID_BITS = 12


@dataclass(frozen=True)
class Action:
    """A step: ``output``, ``tag`` and ``tag_id`` (push), ``untag``, ``hash``, ``class`` or drop.

    ``value`` is a port, a VLAN number, the name of a hash or the number of a class.
    """

    kind: str
    value: int | str = 0

    def __str__(self) -> str:
        return f"{self.kind} {self.value}" if self.value else self.kind


@dataclass(frozen=True)
class SwitchRule:
    """An entry of a table; of those that match, the highest priority decides.

    Fields of terms are those of filters, and ``port`` (where the packet came in), ``mac`` (its
    destination), ``tag`` (its outer VLAN), ``tagged`` (1: it has one), ``class`` and ``id`` (the
    flow id, `ID_BITS` of it).
    """

    table: int
    priority: int
    terms: tuple[Term, ...]
    actions: tuple[Action, ...]

    def __str__(self) -> str:
        terms = [
            f"{t.field}={t.value:#x}" + ("" if _full(t) else f"/{t.mask:#x}") for t in self.terms
        ]
        actions = ", ".join(map(str, self.actions)) or "drop"
        return f"table {self.table} {self.priority:5} {' '.join(terms) or 'any'} -> {actions}"


_BITS = {"port": 32, "mac": 48, "tag": 12, "tagged": 1, "class": 12, "id": ID_BITS, **FIELD_BITS}


def exact(field: str, value: int) -> Term:
    """A term that tests all bits of a field."""
    return Term(field, value, (1 << _BITS[field]) - 1)


def spelled_out(terms: tuple[Term, ...]) -> Iterable[tuple[Term, ...]]:
    """Terms as a switch needs them: with IP version and protocol wherever others rest on them.

    Filters test a port whatever the protocol, and a protocol whatever the IP version; a switch has
    an entry for each. The union of what this yields is what ``terms`` match.
    """
    named = {term.field: term for term in terms}
    versions = {VERSION_OF[name] for name in named if name in VERSION_OF}
    if "ip.version" in named:
        versions.add(named["ip.version"].value)
    if len(versions) > 1:
        return  # no packet is both
    on_ip = any(name.startswith(("ip.", "ip6.", "l4.")) for name in named)
    needs_ports = any(name.startswith("l4.") for name in named)
    protocols: list[int | None] = [None]
    if needs_ports:
        protocols = list(WITH_PORTS)
        if "ip.proto" in named:
            test = named["ip.proto"]
            protocols = [p for p in protocols if p is not None and p & test.mask == test.value]
    rest = tuple(
        t for t in terms if t.field not in ("ip.version", "ip.proto" if needs_ports else "")
    )
    ether = named.get("eth.type", Term("eth.type", 0, 0))
    for version in versions or ({4, 6} if on_ip else {0}):
        if version and ETHER_TYPES[version] & ether.mask != ether.value:
            continue
        for protocol in protocols:
            first = [exact("ip.version", version)] if version else []
            first += [exact("ip.proto", protocol)] if protocol is not None else []
            yield (*first, *rest)


def _full(term: Term) -> bool:
    return term.mask & (term.mask + 1) == 0


def flow_terms(
    flow: Sequence[tuple[str, int | str]], affinity: Affinity
) -> Iterable[tuple[Term, ...]]:
    """What a switch tests for a flow that a FlowSteer with this affinity describes.

    One entry per IP version, protocol and direction that the flow may have.
    """
    masks = dict(affinity.masks)
    for reverse in (False, True) if affinity.symmetric else (False,):
        terms = []
        for given, value in flow:
            name = _OPPOSITE.get(given, given) if reverse else given
            if name in ("src", "dst"):
                address = ip_address(str(value))
                field, number = f"ip{'' if address.version == 4 else 6}.{name}", int(address)
            else:
                field, number = "ip.proto" if name == "proto" else f"l4.{name}", int(value)
            if masks.get(field):
                terms.append(Term(field, number & masks[field], masks[field]))
        yield from spelled_out(tuple(terms))


def id_terms(span: Span) -> list[tuple[Term, ...]]:
    """Tests that together match the flow ids of a span; at most 2 x `ID_BITS` of them."""
    if span == ALL_IDS:
        return [()]
    first, last = span.start // SPAN_STEP, span.end // SPAN_STEP - 1
    return [(Term("id", value, mask),) for value, mask in prefixes(first, last, ID_BITS)]

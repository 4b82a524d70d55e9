# SPDX-License-Identifier: BSD-3-Clause
"""The policy language: what an operator wants done with which traffic.

::

    nf ids : IDS
    port in0, out0
    address servers = 10.0.0.0/8, 192.168.0.0/16

    pipeline web {
        class: tcp and dst net servers;
        in0 -> ids @ 2Gbps;
        ids [ids.safe] -> out0;
    }

An NF whose description names ports is entered and left by these: ``in0 -> nat.inside;
nat.outside -> out0``. A path may go on: ``a -> b [filter] -> c``. Filters take pcap-filter's
words, ``and or not ( )``, and attributes of the node that the edge leaves: ``ids.safe``,
``dpi.app == "video"``.
``[otherwise]`` takes what no other edge of that node takes in the same pipeline.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedInput, UnexpectedToken

from bess_plugins.sources import Location, SourceError, read_source
from e2ctl import _words
from e2ctl.filters import ANY, And, Attr, Expr, Not, Or, Otherwise, attributes
from e2ctl.rate_text import parse_rate

__all__ = ["Edge", "Pipeline", "Policy", "PolicyError", "load", "parse_filter", "parse_policy"]

_EXPECTED = {
    "NAME": "a name",
    "ADDRESS": "an address",
    "ATTR": "an attribute",
    "NUMBER": "a number",
    "RANGE": "a range such as 1-1023",
    "RATE": "a rate such as 2Gbps",
    "PROTOCOL": "a protocol",
    "DIRECTION": "src or dst",
    "STRING": "a string",
    "BOOLEAN": "true or false",
    "OP": "== or !=",
    "$END": "the end of the file",
}
_FILTER_START = frozenset({"PROTOCOL", "ATTR", "DIRECTION", "LPAR", "NOT"})


class PolicyError(SourceError):
    """A policy is wrong."""


@dataclass(frozen=True)
class Edge:
    """Traffic from one node to another; ``rate`` is an estimate in bit/s.

    ``leaves`` and ``enters`` are the ports of its ends that it names.
    """

    source: str
    target: str
    filter: Expr = ANY
    rate: float | None = None
    where: Location = field(default=Location("", 0, 0), compare=False)
    leaves: str = ""
    enters: str = ""
    arrives: Location = field(default=Location("", 0, 0), compare=False)


@dataclass(frozen=True)
class Pipeline:
    """A traffic class and what happens to it."""

    name: str
    traffic: Expr
    edges: tuple[Edge, ...]
    where: Location = field(default=Location("", 0, 0), compare=False)


@dataclass(frozen=True)
class Policy:
    """All that a file declares. NFs and ports map to where they are declared."""

    file: str
    nfs: Mapping[str, str]
    ports: tuple[str, ...]
    addresses: Mapping[str, tuple[str, ...]]
    pipelines: tuple[Pipeline, ...]
    declared: Mapping[str, Location] = field(default_factory=dict, compare=False)


@cache
def _parser(start: str) -> Lark:
    return Lark.open(
        "grammar.lark",
        rel_to=__file__,
        parser="lalr",
        start=start,
        propagate_positions=True,
        maybe_placeholders=True,
    )


def _expectations(names: Iterable[str]) -> str:
    found = set(names)
    words = []
    if found >= _FILTER_START:
        others = {"NUMBER", "NAME", "RSQB", "SEMICOLON", "RPAR", "AND", "OR"}
        words.append("a filter")
        if "OTHERWISE" in found:
            words.append("otherwise")
        found &= others
    elif "NAME" in found:
        found.discard("ATTR")  # a node may be one, but mostly isn't
    terminals = {terminal.name: terminal for terminal in _parser("start").terminals}
    for name in sorted(found):
        if name in _EXPECTED:
            words.append(_EXPECTED[name])
        elif name in terminals and terminals[name].pattern.type == "str":
            words.append(f"'{terminals[name].pattern.value}'")
    return ", ".join(words[:-1]) + (" or " if len(words) > 1 else "") + (words or ["more"])[-1]


def _syntax_error(error: UnexpectedInput, text: str, file: str) -> PolicyError:
    lines = text.split("\n")
    if isinstance(error, UnexpectedToken) and error.token.type != "$END":
        line, column = error.token.line or 1, error.token.column or 1
        offender = f"unexpected '{error.token}'"
    elif isinstance(error, UnexpectedCharacters):
        line, column = error.line, error.column
        rest = lines[line - 1][column - 1 :].split()
        offender = f"unexpected '{rest[0] if rest else ''}'"
    else:
        line, column = len(lines), len(lines[-1]) + 1
        offender = "unexpected end of the text"
    if isinstance(error, UnexpectedCharacters):
        names: Iterable[str] = error.allowed or ()
    elif isinstance(error, UnexpectedToken):
        names = error.accepts or error.expected
    else:
        names = error.expected if isinstance(error, UnexpectedEOF) else ()
    return PolicyError(Location(file, line, column), f"{offender}; expected {_expectations(names)}")


class _Reader:
    """Turns parse trees into values."""

    def __init__(self, file: str, addresses: Mapping[str, tuple[str, ...]]) -> None:
        self.file = file
        self.addresses = addresses

    def at(self, token: Token) -> Location:
        return Location(self.file, token.line or 1, token.column or 1)

    def expr(self, tree: Tree[Token]) -> Expr:
        if tree.data == "any":
            return ANY
        if tree.data == "otherwise":
            return Otherwise()
        if tree.data == "not_":
            return Not(self.expr(_tree(tree.children[0])))
        if tree.data in ("and_expr", "or_expr"):
            operands = tuple(self.expr(_tree(child)) for child in tree.children)
            return And(operands) if tree.data == "and_expr" else Or(operands)
        if tree.data == "attr":
            return self.attr(tree)
        try:
            return _words.match(tree, self.addresses)
        except _words.WordError as error:
            raise PolicyError(self.at(error.token), error.message) from None

    def attr(self, tree: Tree[Token]) -> Expr:
        name, operator, value = tree.children
        assert isinstance(name, Token)
        node, _, attribute = str(name).partition(".")
        wanted: bool | int | str = True
        if isinstance(value, Token):
            if value.type == "STRING":
                wanted = value[1:-1]
            else:
                wanted = value == "true" if value.type == "BOOLEAN" else int(value, 0)
        where = self.at(name)
        found = Attr(node, attribute, wanted, where.line, where.column)
        return Not(found) if operator == "!=" else found

    def path(self, tree: Tree[Token]) -> Iterable[Edge]:
        source, *rest = tree.children
        hops = [_tree(hop) for hop in rest]
        for hop in hops:
            condition, target, rate = hop.children
            assert isinstance(source, Token) and isinstance(target, Token)
            expr = ANY if condition is None else self.expr(_tree(condition))
            bits = None if rate is None else parse_rate(str(rate))
            # Without a point, a token's part would be the token, which compares slowly.
            left, _, leaves = str(source).partition(".")
            entered, _, enters = str(target).partition(".")
            at, arrives = self.at(source), self.at(target)
            if enters and hop is not hops[-1]:
                raise PolicyError(
                    arrives,
                    f"a path can't go on behind '{target}', as it says how packets come in; begin "
                    f"another one with the port that they leave by",
                )
            yield Edge(left, entered, expr, bits, at, leaves, enters, arrives)
            source = target


def _tree(node: object) -> Tree[Token]:
    assert isinstance(node, Tree)
    return node


def _names(trees: Iterable[Tree[Token]]) -> Iterable[Token]:
    """Tokens that declare the names of NFs, ports and addresses."""
    for tree in trees:
        tokens = [child for child in tree.children if isinstance(child, Token)]
        yield from tokens if tree.data == "port" else tokens[:1]


def _unique(tokens: Iterable[Token], file: str, what: str) -> dict[str, Location]:
    places: dict[str, Location] = {}
    for token in tokens:
        where = Location(file, token.line or 1, token.column or 1)
        if token in places:
            old = places[token]
            message = f"{what} '{token}' is declared twice, first at line {old.line}"
            raise PolicyError(where, message)
        places[str(token)] = where
    return places


def parse_policy(text: str, file: str = "<policy>") -> Policy:
    """Parse a policy and check that its names are declared."""
    try:
        root = _parser("start").parse(text)
    except UnexpectedInput as error:
        raise _syntax_error(error, text, file) from None
    items = [_tree(child) for child in root.children]
    declared = _unique(_names(i for i in items if i.data in ("nf", "port")), file, "node")
    _unique(_names(i for i in items if i.data == "address"), file, "address")
    _unique(_names(i for i in items if i.data == "pipeline"), file, "pipeline")
    nfs: dict[str, str] = {}
    ports: list[str] = []
    addresses: dict[str, tuple[str, ...]] = {}
    for item in items:
        name, *values = map(str, item.children)
        if item.data == "nf":
            nfs[name] = values[0]
        elif item.data == "port":
            ports.extend([name, *values])
        elif item.data == "address":
            addresses[name] = tuple(values)
            for token in item.children[1:]:
                assert isinstance(token, Token)
                try:
                    _words.network(token)
                except _words.WordError as bad:
                    where = Location(file, bad.token.line or 1, bad.token.column or 1)
                    raise PolicyError(where, bad.message) from None
    reader = _Reader(file, addresses)
    pipelines = tuple(_pipeline(i, reader, declared) for i in items if i.data == "pipeline")
    if not pipelines:
        raise PolicyError(Location(file, 1, 1), "the policy has no pipeline")
    return Policy(file, nfs, tuple(ports), addresses, pipelines, declared)


def _pipeline(item: Tree[Token], reader: _Reader, declared: Mapping[str, Location]) -> Pipeline:
    name, traffic, *paths = item.children
    assert isinstance(name, Token)
    edges: list[Edge] = []
    for path in map(_tree, paths):
        nodes = [path.children[0], *(_tree(hop).children[1] for hop in path.children[1:])]
        for token in nodes:
            assert isinstance(token, Token)
            if token.partition(".")[0] not in declared:
                message = f"'{token}' is not declared; expected an NF or a port"
                if declared:
                    message += f" ({', '.join(declared)})"
                raise PolicyError(reader.at(token), message)
        for edge in reader.path(path):
            if any((edge.source, edge.target) == (e.source, e.target) for e in edges):
                message = f"edge {edge.source} -> {edge.target} appears twice in pipeline '{name}'"
                raise PolicyError(edge.where, message + "; join the filters with 'or'")
            edges.append(edge)
    where = reader.at(name)
    if not edges:
        raise PolicyError(where, f"pipeline '{name}' has no edges")
    expr: Expr = ANY if traffic is None else reader.expr(_tree(_tree(traffic).children[0]))
    for attr in attributes(expr):
        message = f"class of '{name}' tests '{attr.node}.{attr.name}'; expected packet fields only"
        raise PolicyError(Location(reader.file, attr.line, attr.column), message)
    return Pipeline(str(name), expr, tuple(edges), where)


def parse_filter(text: str, addresses: Mapping[str, tuple[str, ...]] | None = None) -> Expr:
    """Parse one filter."""
    file = "<filter>"
    try:
        root = _parser("filter_only").parse(text)
    except UnexpectedInput as error:
        raise _syntax_error(error, text, file) from None
    return _Reader(file, addresses or {}).expr(_tree(root.children[0]))


def load(path: Path) -> Policy:
    """Read a policy from a file."""
    return parse_policy(read_source(path, PolicyError), str(path))

# SPDX-License-Identifier: BSD-3-Clause
"""The words of pcap-filter, as ternary terms over header fields."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from lark import Token, Tree

from e2ctl.filters import FIELD_BITS, Match, Term, prefixes

__all__ = ["WordError", "match", "network"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Terms = tuple[Term, ...]
Alternatives = tuple[Terms, ...]

_SCTP = 132
_IP_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": _SCTP, "icmp": 1, "icmp6": 58}
_ETHER_TYPES = {"ip": 0x0800, "ip6": 0x86DD, "arp": 0x0806}
_SIDES = {"src": ("src",), "dst": ("dst",), None: ("src", "dst")}


class WordError(Exception):
    """A word of a filter makes no sense; ``token`` is the offending one."""

    def __init__(self, token: Token, message: str) -> None:
        super().__init__(message)
        self.token = token
        self.message = message


def _exact(name: str, value: int) -> Term:
    return Term(name, value, (1 << FIELD_BITS[name]) - 1)


def _protocol(name: str) -> Terms:
    if name == "ip":
        return (_exact("ip.version", 4),)
    if name == "ip6":
        return (_exact("ip.version", 6),)
    if name == "arp":
        return (_exact("eth.type", _ETHER_TYPES["arp"]),)
    number = _exact("ip.proto", _IP_PROTOCOLS[name])
    if name.startswith("icmp"):
        return (number, _exact("ip.version", 6 if name == "icmp6" else 4))
    return (number,)


def network(token: Token) -> Network:
    """Parse an address or a prefix."""
    try:
        return ipaddress.ip_network(str(token))
    except ValueError as error:
        detail = str(error)
        if "host bits set" in detail:
            base = ipaddress.ip_network(str(token), strict=False)
            detail = f"'{token}' has bits beyond its prefix; expected {base}"
        elif not detail.startswith("'"):
            detail = f"'{token}' is not an address"
        raise WordError(token, detail) from None


def _address_terms(net: Network, side: str) -> Terms:
    if net.prefixlen == 0:
        return (_exact("ip.version", net.version),)
    field = f"{'ip6' if net.version == 6 else 'ip'}.{side}"
    return (Term(field, int(net.network_address), int(net.netmask)),)


def _number(token: Token, limit: int, what: str) -> int:
    value = int(token, 0)
    if value > limit:
        raise WordError(token, f"{what} {token} is out of range; expected 0 to {limit}")
    return value


def _networks(token: Token, addresses: Mapping[str, tuple[str, ...]], host: bool) -> list[Network]:
    if token.type == "NAME":
        if token not in addresses:
            known = ", ".join(addresses) or "none is"
            raise WordError(token, f"address '{token}' is not declared; declared: {known}")
        return [ipaddress.ip_network(text) for text in addresses[token]]
    net = network(token)
    if host and net.num_addresses != 1:
        raise WordError(token, f"'{token}' is a network; expected one address, or the word net")
    return [net]


def _ports(tree: Tree[Token]) -> list[tuple[int, int]]:
    token = tree.children[0]
    assert isinstance(token, Token)
    if tree.data == "portnum":
        number = _number(token, 0xFFFF, "port")
        return [(number, 0xFFFF)]
    low, high = (int(text) for text in token.split("-"))
    if low > high or high > 0xFFFF:
        raise WordError(token, f"'{token}' is not a range of ports; expected LOW-HIGH up to 65535")
    return prefixes(low, high, 16)


def _place(tree: Tree[Token], addresses: Mapping[str, tuple[str, ...]]) -> Alternatives:
    protocol, direction, what = tree.children
    assert isinstance(what, Tree)
    sides = _SIDES[None if direction is None else str(direction)]
    token = what.children[0]
    assert isinstance(token, Token)
    found: list[Terms] = []
    if what.data in ("host", "net"):
        if isinstance(protocol, Token) and protocol == "arp":
            raise WordError(protocol, "addresses inside ARP can't be matched; expected ip or ip6")
        for net in _networks(token, addresses, what.data == "host"):
            found += [_address_terms(net, side) for side in sides]
    else:
        if isinstance(protocol, Token) and protocol in ("icmp", "icmp6", "arp"):
            raise WordError(protocol, f"{protocol} has no ports; expected tcp, udp or sctp")
        for value, mask in _ports(what):
            found += [(Term(f"l4.{side[0]}port", value, mask),) for side in sides]
    if isinstance(protocol, Token):
        return tuple((*_protocol(protocol), *terms) for terms in found)
    return tuple(found)


def match(tree: Tree[Token], addresses: Mapping[str, tuple[str, ...]]) -> Match:
    """Turn one word and its arguments into ternary alternatives."""
    words = [str(token) for token in tree.scan_values(lambda _: True) if token is not None]
    tokens = tree.children
    if tree.data == "place":
        kind = tree.children[2]
        assert isinstance(kind, Tree)
        words.insert(-1, "port" if kind.data == "portnum" else str(kind.data))
        return Match(" ".join(words), _place(tree, addresses))
    if tree.data == "proto_only":
        return Match(words[0], (_protocol(words[0]),))
    if tree.data == "vlan":
        if isinstance(tokens[0], Token):
            number = _number(tokens[0], 0xFFF, "VLAN")
            return Match(f"vlan {words[0]}", ((_exact("vlan.id", number),),))
        halves = prefixes(0, 0xFFF, 12)
        return Match("vlan", tuple((Term("vlan.id", value, mask),) for value, mask in halves))
    last = tokens[-1]
    assert isinstance(last, Token)
    if tree.data == "ether":
        if last in _ETHER_TYPES:
            number = _ETHER_TYPES[last]
        elif last.type == "PROTOCOL":
            raise WordError(last, f"'{last}' has no Ethernet type; expected ip, ip6 or arp")
        else:
            number = _number(last, 0xFFFF, "Ethernet type")
        return Match(f"ether type {last}", ((_exact("eth.type", number),),))
    outer = tokens[0]
    if isinstance(outer, Token) and outer not in ("ip", "ip6"):
        raise WordError(outer, f"unexpected '{outer}' before proto; expected ip or ip6")
    before = _protocol(outer) if isinstance(outer, Token) else ()
    if last in _IP_PROTOCOLS:
        number = _IP_PROTOCOLS[last]
    elif last.type == "PROTOCOL":
        raise WordError(last, f"'{last}' is not carried by IP; expected tcp, udp, sctp or a number")
    else:
        number = _number(last, 0xFF, "protocol")
    prefix = f"{outer} " if isinstance(outer, Token) else ""
    return Match(f"{prefix}proto {last}", ((*before, _exact("ip.proto", number)),))

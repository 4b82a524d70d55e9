# SPDX-License-Identifier: BSD-3-Clause
"""Importers of rules: what is taken, what is refused and why, and where mistakes are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from embark_gw.rules import ranges
from embark_gw.rules.formats import Format, parse_rules, read_rules
from embark_gw.rules.model import Action, Match, Packet, RulesError, RuleSet, combine
from rules_support import number

HEAD = "*filter\n:INPUT ACCEPT\n:FORWARD DROP [0:0]\n:user - [0:0]\n"
ACCEPT, DENY = Action.ACCEPT, Action.DENY


def iptables(*rules: str, head: str = HEAD) -> RuleSet:
    text = head + "".join(f"-A {rule}\n" for rule in rules) + "COMMIT\n"
    return parse_rules(text, "f.save", Format.IPTABLES)


def nft(*expressions: list[dict[str, Any]], family: str = "inet", **more: Any) -> RuleSet:
    base = {"family": family, "table": "t", "name": "fwd", "type": "filter", "hook": "forward"}
    items = [{"metainfo": {}}, {"chain": {**base, "prio": 0, "policy": "drop"}}]
    items += more.get("items", [])
    items += [
        {"rule": {"family": family, "table": "t", "chain": "fwd", "expr": expression}}
        for expression in expressions
    ]
    return parse_rules(json.dumps({"nftables": items}), "f.json", Format.NFTABLES)


def compared(layer: str, name: str, right: Any, op: str = "==") -> dict[str, Any]:
    left = {"payload": {"protocol": layer, "field": name}}
    return {"match": {"op": op, "left": left, "right": right}}


def tcp(src: str, dst: str, dport: int = 80, sport: int = 1000) -> Packet:
    return Packet(number(src), number(dst), 6, sport, dport)


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("FORWARD -m conntrack --ctstate NEW -j ACCEPT", "match conntrack"),
        ("FORWARD -m state --state NEW -j ACCEPT", "match state"),
        ("FORWARD -i eth0 -j ACCEPT", "-i is not about"),
        ("FORWARD ! -o eth0 -j ACCEPT", "-o is not about"),
        ("FORWARD -f -j ACCEPT", "-f is not about"),
        ("FORWARD -p tcp -m tcp --tcp-flags SYN,ACK SYN -j ACCEPT", "--tcp-flags"),
        ("FORWARD -p icmp -m icmp --icmp-type 8 -j ACCEPT", "match icmp"),
        ("FORWARD -m limit --limit 3/sec -j ACCEPT", "match limit"),
        ("FORWARD -m set --match-set bad src -j DROP", "match set"),
        ("FORWARD -m mark --mark 0x1 -j DROP", "match mark"),
        ("FORWARD -j LOG --log-prefix x", "target LOG neither accepts nor denies"),
        ("FORWARD -s 10.0.0.1/255.0.255.0 -j DROP", "a mask that is no prefix"),
        ("FORWARD -p tcp", "there is no -j"),
        ("FORWARD -g user", "-g is not about"),
        ("FORWARD -p ah -j DROP", "protocol 51 is an extension header in IPv6"),
        ("FORWARD -p sctp -m multiport --dports 5 -j DROP", "ports of protocol 132"),
        ("FORWARD -j nowhere", "there is no chain nowhere"),
    ],
)
def test_iptables_refuses(rule: str, reason: str) -> None:
    found = iptables(rule, "FORWARD -s 10.0.0.1/32 -j ACCEPT")
    assert len(found.rules) == 1
    [refused] = found.refused
    assert reason in refused.reason
    assert refused.where.line == 5 and refused.text == f"-A {rule}"
    with pytest.raises(RulesError, match=r"f\.save:5:1: .*--skip-unsupported"):
        found.check_refused()


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("-A FORWARD -j DROP\n", "1:1", "outside of a table"),
        (HEAD + "-A FORWARD -s 10.0.0.300 -j DROP\nCOMMIT\n", "5:15", "no address or prefix"),
        (HEAD + "-A FORWARD -s ::1 -j DROP\nCOMMIT\n", "5:15", "is of IPv6"),
        (HEAD + "-A FORWARD -p tcp -m tcp --dport 99999 -j X\nCOMMIT\n", "5:34", "no range within"),
        (HEAD + "-A FORWARD -p nonsense -j DROP\nCOMMIT\n", "5:15", "no protocol"),
        (HEAD + "-A FORWARD -j\nCOMMIT\n", "5:12", "nothing behind it"),
        (HEAD + "-A FORWARD stray -j DROP\nCOMMIT\n", "5:12", "belongs to no option"),
        (HEAD + '-A FORWARD -m comment --comment "x\nCOMMIT\n', "5:33", "never closed"),
        (HEAD + "-A OTHER -j DROP\nCOMMIT\n", "5:4", "there is no chain OTHER"),
        (HEAD + "-X\nCOMMIT\n", "5:1", "expected *TABLE"),
        ("*filter\n:FORWARD MAYBE\nCOMMIT\n", "2:10", "no policy"),
        (HEAD, "5:1", "ends before COMMIT"),
        ("*filter\n:INPUT DROP\nCOMMIT\n", "1:1", "expected one of INPUT"),
        ("*filter\n:INPUT DROP\n:FORWARD ACCEPT\n-A INPUT -j DROP\nCOMMIT\n", "3:10", "--chain"),
    ],
)
def test_iptables_that_is_malformed(text: str, where: str, message: str) -> None:
    with pytest.raises(RulesError) as caught:
        parse_rules(text, "f.save", Format.IPTABLES)
    assert str(caught.value).startswith(f"f.save:{where}: ")
    assert message in caught.value.message


def test_rules_of_other_tables_are_refused() -> None:
    head = "*nat\n:PREROUTING ACCEPT\n-A PREROUTING -j DNAT --to 10.0.0.1\nCOMMIT\n" + HEAD
    [refused] = iptables(head=head).refused
    assert "table nat" in refused.reason and refused.where.line == 3


def test_returns_that_are_of_ports_are_refused() -> None:
    found = iptables("FORWARD -j user", "user -p tcp -m tcp --dport 80 -j RETURN", "user -j ACCEPT")
    assert ["includes fragments" in item.reason for item in found.refused] == [True]


def test_jumps_that_lead_back_are_refused() -> None:
    found = iptables("FORWARD -j user", "user -j user")
    assert ["leads back" in item.reason for item in found.refused] == [True]


def test_rules_of_one_version_leave_the_other_to_the_default() -> None:
    rules = combine([iptables("FORWARD -p tcp -j ACCEPT")])
    assert rules.decide(tcp("10.0.0.1", "10.0.0.2")) is ACCEPT
    assert rules.decide(tcp("2001:db8::1", "2001:db8::2")) is DENY


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ([{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "new"}}], "ct state"),
        ([{"match": {"op": "==", "left": {"meta": {"key": "iif"}}, "right": "a"}}], "meta iif"),
        ([{"limit": {"rate": 1, "per": "second"}}, {"accept": None}], "'limit'"),
        ([{"log": None}, {"drop": None}], "'log'"),
        ([compared("tcp", "flags", "syn"), {"drop": None}], "tcp flags"),
        ([compared("ip", "ttl", 5), {"drop": None}], "ip ttl"),
        ([compared("ip", "saddr", "@nowhere"), {"drop": None}], "no set nowhere"),
        (
            [compared("ip", "saddr", {"set": ["10.0.0.1"] * 2}, "<"), {"drop": None}],
            "operator '<'",
        ),
        ([compared("ip6", "nexthdr", 6), {"drop": None}], "ip6 nexthdr"),
        ([{"counter": None}], "no verdict"),
        ([{"drop": None}, {"counter": None}], "behind the verdict"),
        ([{"vmap": {}}], "'vmap'"),
    ],
)
def test_nftables_refuses(expression: list[dict[str, Any]], reason: str) -> None:
    found = nft(expression, [{"accept": None}])
    assert len(found.rules) == 1
    [refused] = found.refused
    assert reason in refused.reason
    assert refused.where.line == 1 and refused.where.column > 100


def test_chains_that_are_asked_besides_are_refused() -> None:
    nat = {"family": "ip", "table": "n", "name": "pre", "type": "nat", "hook": "prerouting"}
    dnat = {"family": "ip", "table": "n", "chain": "pre", "expr": [{"dnat": {"addr": "10.0.0.1"}}]}
    found = nft([{"accept": None}], items=[{"chain": nat}, {"rule": dnat}])
    assert "chain pre at prerouting is asked besides" in found.refused[0].reason


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("", "1:1", "nft -j list ruleset"),
        ('{"nftables": [{"rule": ]}', "1:24", "Expecting value"),
        ('{"nftables": [5]}', "1:15", "expected an object"),
        ('{"nftables": [{"metainfo": {}}]', "1:32", "the end of the file"),
        ('{"nftables": []}', "1:1", "no base chain at the hook forward"),
    ],
)
def test_nftables_that_is_malformed(text: str, where: str, message: str) -> None:
    with pytest.raises(RulesError) as caught:
        parse_rules(text, "f.json", Format.NFTABLES)
    assert str(caught.value).startswith(f"f.json:{where}: ")
    assert message in caught.value.message


@pytest.mark.parametrize(
    "right", [{"range": ["10.0.0.9", "10.0.0.1"]}, "10.0.0.x", {"prefix": {"addr": "10.0.0.0"}}]
)
def test_nftables_values_that_make_no_sense(right: Any) -> None:
    with pytest.raises(RulesError, match=r"^f\.json:1:"):
        nft([compared("ip", "saddr", right), {"drop": None}])


def test_classbench() -> None:
    line = "@10.0.0.0/8\t192.0.2.1/32\t0 : 65535\t80 : 90\t0x06/0xFF\t0x0000/0x0000\t\n"
    flags = "@0.0.0.0/0\t0.0.0.0/0\t0 : 65535\t0 : 65535\t0x06/0xFF\t0x1000/0x1000\n"
    found = parse_rules(line + flags, "f", Format.CLASSBENCH)
    [rule] = found.rules
    assert (rule.dport, rule.sport, rule.protocols) == (((80, 90),), None, ((6, 6),))
    assert "TCP flags" in found.refused[0].reason
    assert len(parse_rules(line + flags, "f", Format.CLASSBENCH_5TUPLE).rules) == 2
    with pytest.raises(RulesError, match="f:2:1: this is no rule of ClassBench"):
        parse_rules(line + "@10.0.0.0/8\n", "f", Format.CLASSBENCH)
    with pytest.raises(RulesError, match="f:1:1: '300"):
        parse_rules(line.replace("10.", "300."), "f", Format.CLASSBENCH)


def test_a_list_is_one_rule_per_direction() -> None:
    text = "# bad ones\n192.0.2.1 ; SBL1\n192.0.2.2-192.0.2.9\n\n2001:db8::/32\n"
    found = parse_rules(text, "f", Format.LIST)
    assert [rule.action for rule in found.rules] == [DENY, DENY]
    assert found.rules[0].src == found.rules[1].dst
    assert len(found.rules[0].src) == 2
    assert found.decide(tcp("192.0.2.5", "10.0.0.1")) is DENY
    assert found.decide(tcp("10.0.0.1", "2001:db8::5")) is DENY
    assert found.decide(tcp("10.0.0.1", "192.0.2.10")) is ACCEPT
    with pytest.raises(RulesError, match=r"f:2:3: '192\.0\.2\.x'"):
        parse_rules("10.0.0.1\n  192.0.2.x\n", "f", Format.LIST)


def test_snort() -> None:
    nets = {"HOME_NET": "[10.0.0.0/8,!10.9.0.0/16]"}
    listed = "alert ip [192.0.2.1,198.51.100.0/24] any -> $HOME_NET any"
    text = f'{listed} (msg:"a; \\"b\\""; flowbits:set,x; sid:5; rev:1;)\n'
    found = parse_rules(text, "f", Format.SNORT, nets=nets)
    assert found.rules[0].text.startswith("sid 5: ")
    assert found.decide(tcp("198.51.100.9", "10.1.1.1")) is DENY
    assert found.decide(tcp("198.51.100.9", "10.9.1.1")) is ACCEPT
    [refused] = parse_rules(text, "f", Format.SNORT).refused
    assert "--net HOME_NET=" in refused.reason
    both = parse_rules("alert tcp 10.0.0.1 !80 <> any [1:5,7] (sid:1;)", "f", Format.SNORT)
    assert both.decide(tcp("10.0.0.1", "10.0.0.2", 7)) is DENY
    assert both.decide(tcp("10.0.0.2", "10.0.0.1", sport=3, dport=81)) is DENY
    assert both.decide(tcp("10.0.0.1", "10.0.0.2", 7, sport=80)) is ACCEPT


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ('alert tcp any any -> any 80 (content:"x"; sid:1;)', "option content"),
        ("alert tcp any any -> any 80 (flags:S; sid:1;)", "option flags"),
        ("alert http any any -> any 80 (sid:1;)", "protocol http"),
        ("pass ip 10.0.0.1 any -> any any (sid:1;)", "action pass"),
        ("alert ip any any -> any any (flowbits:isset,x; sid:1;)", "option flowbits"),
    ],
)
def test_snort_refuses(rule: str, reason: str) -> None:
    [refused] = parse_rules(rule, "f", Format.SNORT).refused
    assert reason in refused.reason


def test_what_a_format_has_not() -> None:
    with pytest.raises(RulesError, match="have no chains"):
        parse_rules("", "f", Format.LIST, chain="x")
    with pytest.raises(RulesError, match="have no variables"):
        parse_rules("", "f", Format.LIST, nets={"A": "any"})


def test_two_files_that_are_no_pair(tmp_path: Any) -> None:
    files = [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(RulesError, match="only iptables-save has a second file"):
        read_rules(files, Format.LIST)
    with pytest.raises(RulesError, match="No such file"):
        read_rules(files[:1], Format.LIST)


def test_ranges() -> None:
    one = ranges.join([(5, 9), (0, 2), (3, 3), (20, 30)])
    assert one == ((0, 3), (5, 9), (20, 30))
    assert ranges.subtract(one, ((0, 0), (7, 25))) == ((1, 3), (5, 6), (26, 30))
    assert ranges.intersect(one, ((3, 5), (30, 99))) == ((3, 3), (5, 5), (30, 30))
    assert ranges.prefixes(1, 6, 3) == [(1, 3), (2, 2), (4, 2), (6, 3)]
    assert Match(src=()).empty and not Match().empty

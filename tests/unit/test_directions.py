# SPDX-License-Identifier: BSD-3-Clause
"""Policies that can't keep both directions of a connection together are told so."""

from __future__ import annotations

import pytest

from e2ctl import nfs
from e2ctl.directions import split_connections
from e2ctl.pgraph import build
from e2ctl.policy import parse_policy

CATALOG = nfs.loads(
    """
Firewall:
  module: StatefulFirewall
  affinity: [ip.src, ip.dst, l4.sport, l4.dport, ip.proto]
  symmetric: true
NAT: {mangles: [ip.src, l4.sport, vlan.id]}
Back: {mangles: [ip.dst, l4.dport]}
Marker: {module: NoOp, mangles: [vlan.id]}
"""
)
HEAD = "nf fw : Firewall\nnf nat : NAT\nnf back : Back\nnf mark : Marker\nport inside, outside\n"
FORTH = "inside -> fw -> nat -> outside;"


def told(*lines: str) -> list[str]:
    used = {name for name in ("fw", "nat", "back", "mark") if any(name in line for line in lines)}
    head = "".join(
        f"{line}\n"
        for line in HEAD.splitlines()
        if line.startswith("port") or line.split()[1] in used
    )
    text = f"{head}pipeline p {{ {' '.join(lines)} }}"
    return list(split_connections(build(parse_policy(text), CATALOG), CATALOG))


def test_answers_that_pass_by_the_nat() -> None:
    (note,) = told(FORTH, "outside -> fw;")
    assert note == (
        "fw: its affinity can't be met for connections that leave by outside: nat rewrites ip.src, "
        "l4.sport behind it, and answers from outside don't come by nat; lead them there first"
    )


@pytest.mark.parametrize(
    "lines",
    [
        (FORTH,),  # nothing comes back
        (FORTH, "outside -> back -> fw;"),  # what comes back is made good
        ("inside -> nat -> fw -> outside;", "outside -> fw;"),  # rewritten before, both times
        ("inside -> fw -> mark -> outside;", "outside -> fw;"),  # nothing that counts
        ("inside -> nat -> outside;", "outside -> nat;"),  # nobody wants both directions
    ],
)
def test_nothing_to_tell(lines: tuple[str, ...]) -> None:
    assert told(*lines) == []

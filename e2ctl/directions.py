# SPDX-License-Identifier: BSD-3-Clause
"""Both directions of a connection, where an NF's affinity wants them together.

A flow id is made of what a packet's header says where the NF gets it (`e2ctl.affinity`). If an NF
behind rewrites that and answers come another way, both directions have nothing in common there: no
steering can meet the affinity. Traffic that begins outside may come that way rightly, so that this
is told and not refused.
"""

from __future__ import annotations

from collections.abc import Iterator

import networkx as nx

from e2ctl.nfs import Catalog
from e2ctl.pgraph import PGraph

__all__ = ["split_connections"]


def split_connections(graph: PGraph, catalog: Catalog) -> Iterator[str]:
    """What to tell of NFs whose description is ``symmetric``, once for each port and NF."""
    kinds = {node.name: catalog[node.type] for node in graph.nodes if node.kind == "nf"}
    ports = [node.name for node in graph.nodes if node.kind == "port"]
    for name, kind in kinds.items():
        if not kind.symmetric:
            continue
        fields = kind.grouping.fields
        rewriting = {nf for nf, other in kinds.items() if fields & {*other.mangles}} - {name}
        for port in ports:
            plain = graph.digraph.subgraph({*kinds, port} - rewriting)
            if not nx.has_path(plain, port, name):
                continue
            away = graph.digraph.subgraph({*kinds, port})
            for nf in sorted(rewriting):
                if nx.has_path(away, name, nf) and nx.has_path(away, nf, port):
                    changed = ", ".join(field for field in kinds[nf].mangles if field in fields)
                    yield (
                        f"{name}: its affinity can't be met for connections that leave by {port}: "
                        f"{nf} rewrites {changed} behind it, and answers from {port} don't come by "
                        f"{nf}; lead them there first"
                    )

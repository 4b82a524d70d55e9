# SPDX-License-Identifier: BSD-3-Clause
"""What a gateway's description makes of its tunnel."""

from __future__ import annotations

import pytest

from embark_gw.pipelines import draw
from embark_gw.site import loads

DESCRIPTION = """\
inside: {{device: a, mac: "02:00:00:00:01:01", peer: "02:00:00:00:01:02", networks: [10.0.0.0/8]}}
provider:
  device: b
  mac: "02:00:00:00:03:01"
  peer: "02:00:00:00:03:02"
  tunnel: {{local: "{local}", remote: "{remote}"}}
key: {{file: site.key}}
maps: site.maps
"""


@pytest.mark.parametrize(
    ("local", "remote", "without"),
    [("192.0.2.1", "192.0.2.2", True), ("2001:db8::1", "2001:db8::2", False)],
)
def test_only_a_tunnel_over_ipv4_goes_without_checksum(
    local: str, remote: str, without: bool
) -> None:
    graph = draw(loads(DESCRIPTION.format(local=local, remote=remote)))
    (tunnel,) = (module for module in graph.modules if module.name == "tunnel_out")
    assert tunnel.args["zero_checksum"] is without
    receivers = [module for module in graph.modules if module.name == "tunnel_in"]
    assert [module.args.get("zero_checksum", False) for module in receivers] == [False]

# SPDX-License-Identifier: BSD-3-Clause
"""Builds a pipeline through the client library, reads what it counted, and takes it down again.

python examples/client.py [ADDRESS]
"""

from __future__ import annotations

import sys
import time

from bess_plugins.client import DEFAULT_ADDRESS, BessError, Client


def main(address: str) -> None:
    with Client(address) as client:
        client.reset_all()
        client.create_module("Source", "source", pkt_size=100)
        client.create_module("RoundRobin", "split", gates=[0, 1], mode="packet")
        for gate, name in enumerate(("left", "right")):
            client.create_module("Sink", name)
            client.connect("split", name, ogate=gate)
        client.connect("source", "split")
        client.resume()

        while sum(gate["pkts"] for gate in client.module_info("split")["ogates"]) < 1000:
            time.sleep(0.01)
        client.pause()
        for gate in client.module_info("split")["ogates"]:
            print(f"gate {gate['ogate']} to {gate['name']}: {gate['pkts']} packets")

        # Commands take the message that docs/modules.md names, as keywords or as a dict.
        client.run_module_command("source", "set_burst", "SourceCommandSetBurstArg", {"burst": 8})
        try:
            client.create_module("Source", "other", pkt_size=100_000)
        except BessError as error:
            print(f"refused: {error}")
        client.reset_all()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else DEFAULT_ADDRESS)

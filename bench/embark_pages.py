# SPDX-License-Identifier: BSD-3-Clause
"""Figure 4.8: pages loaded directly, and through a gateway and a provider's firewall and NAT.

Host, gateway, provider and server are those of the demo, in network namespaces, with the programs
that users have. The provider is as far away as a Delay makes it. A second cable from host to server
is the direct way.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from bess_plugins.client import Client

sys.path.append(str(Path(__file__).parents[1] / "examples"))
import embark_demo as demo

__all__ = ["RTTS_US", "MissingError", "measure"]

# Of the dissertation: in a central office, at a CDN, in EC2.
RTTS_US = {"central office": 60, "CDN": 4_000, "EC2": 31_000}
DIRECT = "10.0.1.1"
CABLES = (
    *demo.CABLES,
    (
        ("host", "eth1", "02:00:00:00:04:02", "10.0.1.2/24"),
        ("server", "eth1", "02:00:00:00:04:01", f"{DIRECT}/24"),
    ),
)
WEB = Path(__file__).with_name("embark_web.py")
PROGRAMS = ("ip", "ethtool", "sysctl")
# Objects of a page and their bytes, about as log-normal as those of real pages are.
OBJECTS, OBJECTS_SIGMA = 20, 0.7
OBJECT_BYTES, BYTES_SIGMA = 12_000, 1.2
PAGE_BYTES, MOST_BYTES = 30_000, 1_000_000


class MissingError(Exception):
    """What pages need is not on this machine."""


def pages(count: int, seed: int) -> list[tuple[int, list[int]]]:
    """A page's own bytes and those of its objects."""
    draws = random.Random(seed)

    def near(middle: float, sigma: float) -> int:
        return max(1, min(MOST_BYTES, round(middle * draws.lognormvariate(0, sigma))))

    return [
        (
            near(PAGE_BYTES, BYTES_SIGMA),
            [near(OBJECT_BYTES, BYTES_SIGMA) for _ in range(near(OBJECTS, OBJECTS_SIGMA))],
        )
        for _ in range(count)
    ]


def measure(
    folder: Path, count: int, rounds: int, seed: int, tick: Callable[[str], None]
) -> dict[str, Any]:
    """Page load times by deployment."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if os.geteuid() != 0 or missing:
        needs = "root" if os.geteuid() != 0 else f"{', '.join(missing)} of Debian"
        raise MissingError(f"pages need {needs}: they are loaded in network namespaces")
    demo.PREFIX = f"eb{os.getpid() % 10**5}"  # beside a demo that runs as well
    # Daemons run in folders of their own.
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    folder.mkdir()
    with ExitStack() as stack:
        stack.enter_context(demo.spaces(CABLES))
        for address in (demo.SERVER, DIRECT):
            words = [sys.executable, str(WEB), "serve", address]
            serving = demo.process("server", *words, folder=folder, name=f"server-{address}")
            stack.enter_context(serving)
        demo.daemon(stack, "gw", folder, "gateway")
        cloud = demo.daemon(stack, "cloud", folder, "cloud")
        _join(stack, folder, cloud)
        found: dict[str, Any] = {}
        loaded = pages(count, seed)
        for place, rtt_us in RTTS_US.items():
            tick(f"pages: {place}, {rtt_us / 1e3:g} ms away")
            arg = {"delay_us": rtt_us}
            cloud.run_module_command("delay", "set_delay", "DelayCommandSetDelayArg", arg)
            found[place] = {"rtt_us": rtt_us, **_figures(_load(loaded, rounds))}
        return {
            "pages": count,
            "rounds": rounds,
            "objects": median(len(objects) for _, objects in loaded),
            "bytes": median(page + sum(objects) for page, objects in loaded),
            "places": found,
        }


def _join(stack: ExitStack, folder: Path, cloud: Client) -> None:
    """The gateway, and the provider's firewall, NAT and distance."""
    example = demo.EXAMPLES / "embark"
    shutil.copy(example / "rules.v4", folder)
    text = (example / "gateway.yaml").read_text(encoding="utf-8")
    text = text.replace("unix:gateway.sock", f"unix:{folder}/gateway.sock")
    (folder / "gateway.yaml").write_text(text, encoding="utf-8")
    _embark(folder, "keygen", "site.key")
    _embark(
        folder,
        *("encrypt-rules", "rules.v4", "--format", "iptables", "--key", "site.key"),
        *("--maps", "site.maps", "--out", "rules.json", "--pool", "203.0.113.0/28:nat"),
    )
    target = ("--daemon", f"unix:{folder}/cloud.sock", "--module", "firewall")
    _embark(folder, "provider", "apply", "rules.json", *target)
    demo.provide(cloud, demo.pool_of(folder / "rules.json"))
    cloud.pause()
    cloud.disconnect("turn")
    cloud.create_module("Delay", "delay")
    cloud.connect("turn", "delay")
    cloud.connect("delay", "encap")
    cloud.resume()
    words = [*demo.GATEWAY, "run", "gateway.yaml"]
    stack.enter_context(demo.process("", *words, folder=folder, name="run"))
    log = folder / "run.log"
    demo.wait_for("the gateway runs", lambda: "runs on" in log.read_text("utf-8"))


def _embark(folder: Path, *words: str) -> None:
    done = subprocess.run([*demo.GATEWAY, *words], cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"embark-gw {' '.join(words)}: {done.stderr.strip()}")


def _load(loaded: Sequence[tuple[int, list[int]]], rounds: int) -> dict[str, Any]:
    task = {"hosts": [DIRECT, demo.SERVER], "pages": loaded, "rounds": rounds}
    done = subprocess.run(
        demo.inside("host", sys.executable, str(WEB), "load"),
        input=json.dumps(task),
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError(f"pages did not load: {done.stderr.strip().splitlines()[-1]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _figures(found: dict[str, Any]) -> dict[str, Any]:
    """Added times are of the same page, loaded both ways one after the other."""
    direct, embark = (found["pages"][host] for host in (DIRECT, demo.SERVER))
    connects = [median(found["connects"][host]) for host in (DIRECT, demo.SERVER)]
    return {
        "direct_s": direct,
        "embark_s": embark,
        "direct_median_s": median(direct),
        "embark_median_s": median(embark),
        "added_median_s": median(b - a for a, b in zip(direct, embark, strict=True)),
        "round_trip_direct_s": connects[0],
        "round_trip_embark_s": connects[1],
    }

# SPDX-License-Identifier: BSD-3-Clause
"""A cluster on this machine, from nothing to nothing: `make demo-e2`, as root.

Makes the lab of examples/lab.yaml, has a controller look after it, applies
examples/central_office.e2 and sends a capture through, whose frames have VLAN tags. More comes than
the IDSes are described to take, so that the controller splits them while traffic flows; when it is
over, it drains what is too much. Capacities and rates are a thousandth of what the examples say:
Open vSwitch runs in user space here, on the cores that everything else has to share.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

EXAMPLES = Path(__file__).parent
E2CTL = [sys.executable, "-P", "-m", "e2ctl.cli"]
LAB = "co"


def say(text: str) -> None:
    """Print at once, in order with what commands print."""
    print(text, flush=True)


def e2ctl(*words: str) -> str:
    """Run a command and show it with its output."""
    say(f"$ e2ctl {shlex.join(words)}")
    done = subprocess.run([*E2CTL, *words], stdout=subprocess.PIPE, text=True, check=True)
    say(done.stdout.rstrip())
    return done.stdout


def instances() -> list[str]:
    """Names of all that run, without printing."""
    words = [*E2CTL, "status", "--lab", LAB, "--json"]
    status = json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=False).stdout)
    return sorted(
        name for row in status["servers"] for name in row["instances"].split(", ") if name
    )


def wait_for(what: str, condition: Callable[[], bool], seconds: float) -> None:
    """Look every second."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"not after {seconds:.0f} s: {what}")
        time.sleep(1.0)


def scaled(name: str, folder: Path) -> str:
    """A copy of an example, with Mbps for Gbps."""
    path = folder / name
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    text = re.sub(r"([\d.]+)Gbps", lambda rate: f"{float(rate[1]):g}Mbps", text)
    path.write_text(text, encoding="utf-8")
    return str(path)


def lab_file(folder: Path) -> str:
    """The example's lab, with a switch that takes tagged frames; servers then divide traffic."""
    hardware, path = folder / "rack.yaml", folder / "lab.yaml"
    text = (EXAMPLES / hardware.name).read_text(encoding="utf-8")
    hardware.write_text(text.replace("table: 2048", "table: 2048\n  tagged: true"), "utf-8")
    path.write_text((EXAMPLES / path.name).read_text(encoding="utf-8"), encoding="utf-8")
    return str(path)


def main(capture: Path, folder: Path) -> None:
    """Run all of it; ``folder`` gets what is written."""
    folder.mkdir(parents=True, exist_ok=True)
    e2ctl("lab", "up", lab_file(folder))
    events = folder / "events.txt"
    with events.open("w", encoding="utf-8") as log:
        controller = subprocess.Popen([*E2CTL, "controller", "--lab", LAB], stderr=log)
        try:
            wait_for("a controller leads", lambda: "leads" in events.read_text("utf-8"), 30)
            policy, nfs = scaled("central_office.e2", folder), scaled("nfs.yaml", folder)
            e2ctl("apply", policy, "--nfs", nfs, "--lab", LAB)
            before = instances()
            words = ["lab", "replay", str(capture), "--port", "subscribers", "--times", "10"]
            say(f"$ e2ctl {shlex.join([*words, '--lab', LAB])}")
            sending = subprocess.Popen([*E2CTL, *words, "--lab", LAB])
            most = before
            while sending.poll() is None:
                most = max(most, instances(), key=len)
                time.sleep(1.0)
            say(f"at the beginning: {', '.join(before)}")
            say(f"with all that traffic: {', '.join(most)}")
            if len(most) <= len(before):
                sys.exit("the controller has split nothing; see events.txt")
            wait_for("instances are drained", lambda: len(instances()) < len(before), 120)
            e2ctl("status", "--lab", LAB)
        finally:
            controller.terminate()
            controller.wait()
            subprocess.run([*E2CTL, "lab", "down", LAB], check=False)
    said = [line.partition("notices: ")[2] for line in events.read_text("utf-8").splitlines()]
    say("what the controller decided:")
    say("\n".join(line for line in said if "scaling" in line or "lost" in line))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

# SPDX-License-Identifier: BSD-3-Clause
"""An enterprise, a provider and a server in network namespaces: `make demo-embark`, as root.

A host downloads a page from the server. Its packets go through a gateway, which encrypts them, to
a provider, whose firewall and NAT work on what they can't read, and back. Then the rules are
changed while the gateway runs, and what the provider has seen is looked at.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from bess_plugins.client import BessError, Client

EXAMPLES = Path(__file__).parent
GATEWAY = [sys.executable, "-P", "-m", "embark_gw.cli"]
PREFIX = f"em{os.getpid() % 10**5}"
SERVER = "198.51.100.7"
# An end of a cable: where it is, its name, its MAC and its IPv4 address.
End = tuple[str, str, str | None, str | None]
CABLES: tuple[tuple[End, End], ...] = (
    (("host", "eth0", "02:00:00:00:01:02", "10.0.0.2/24"), ("gw", "inside", None, None)),
    (("server", "eth0", "02:00:00:00:02:02", "10.0.0.1/24"), ("gw", "outside", None, None)),
    (("cloud", "gateway", "02:00:00:00:03:02", None), ("gw", "provider", None, None)),
)


def say(text: str) -> None:
    """Print at once, in order with what commands print."""
    print(text, flush=True)


def run(*words: str, quiet: bool = True) -> str:
    """Run a command; what it said if it fails."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0 and quiet:
        sys.exit(f"{shlex.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout + done.stderr


def inside(space: str, *words: str) -> list[str]:
    """A command in a namespace."""
    return ["ip", "netns", "exec", f"{PREFIX}-{space}", *words]


def embark(*words: str) -> None:
    """Run `embark-gw` and show it with its output."""
    say(f"$ embark-gw {shlex.join(words)}")
    done = subprocess.run([*GATEWAY, *words], capture_output=True, text=True, check=False)
    if said := (done.stdout + done.stderr).rstrip():
        say(said)
    if done.returncode not in (0, 3):
        sys.exit("that failed")


def wait_for(what: str, condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Look often."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"not after {seconds:.0f} s: {what}")
        time.sleep(0.05)


@contextmanager
def spaces(cables: Sequence[tuple[End, End]] = CABLES) -> Iterator[None]:
    """Namespaces and cables; nothing of them is left behind."""
    names = dict.fromkeys(end[0] for cable in cables for end in cable)
    try:
        for name in names:
            run("ip", "netns", "add", f"{PREFIX}-{name}")
            run(*inside(name, "ip", "link", "set", "lo", "up"))
            run(*inside(name, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"))
        for here, there in cables:
            ends = [
                f"netns {PREFIX}-{space} name {device}" for space, device, _, _ in (here, there)
            ]
            run(*f"ip link add {ends[0]} mtu 1700 type veth peer {ends[1]} mtu 1700".split())
            for space, device, mac, address in (here, there):
                if mac is not None:
                    run(*inside(space, "ip", "link", "set", device, "address", mac))
                if address is not None:
                    run(*inside(space, "ip", "address", "add", address, "dev", device))
                # Checksums that nobody fills in don't survive a dataplane.
                run(
                    *inside(space, "ethtool", "-K", device, "tx", "off", "tso", "off", "gro", "off")
                )
                run(*inside(space, "ip", "link", "set", device, "mtu", "1500", "up"))
        for space, device in (("cloud", "gateway"), ("gw", "provider")):
            run(*inside(space, "ip", "link", "set", device, "mtu", "1700"))
        run(*inside("host", "ip", "route", "add", "default", "via", "10.0.0.1"))
        run(*inside("server", "ip", "address", "add", f"{SERVER}/32", "dev", "lo"))
        run(*inside("server", "ip", "route", "add", "203.0.113.0/24", "via", "10.0.0.2"))
        yield
    finally:
        for name in names:
            pids = run("ip", "netns", "pids", f"{PREFIX}-{name}", quiet=False).split()
            for pid in pids:
                with suppress(ProcessLookupError, ValueError):
                    os.kill(int(pid), signal.SIGKILL)
            run("ip", "netns", "del", f"{PREFIX}-{name}", quiet=False)


@contextmanager
def process(space: str, *words: str, folder: Path, name: str) -> Iterator[None]:
    """A program that runs in a namespace meanwhile."""
    runtime = folder / f"{name}-run"
    runtime.mkdir(mode=0o700)
    with (folder / f"{name}.log").open("wb") as log:
        child = subprocess.Popen(
            inside(space, *words) if space else list(words),
            stdout=log,
            stderr=log,
            cwd=folder,
            env={**os.environ, "XDG_RUNTIME_DIR": str(runtime)},
        )
        try:
            yield
        finally:
            child.terminate()
            child.wait()


def daemon(stack: ExitStack, space: str, folder: Path, name: str) -> Client:
    """A dataplane daemon in a namespace."""
    socket = folder / f"{name}.sock"
    words = [sys.executable, "-P", "-m", "bess_plugins.daemon.cli", "--foreground"]
    words += ["--unix-socket", str(socket)]
    stack.enter_context(process(space, *words, folder=folder, name=name))
    client = stack.enter_context(Client(f"unix:{socket}"))

    def answers() -> bool:
        with suppress(BessError):
            return bool(client.version())
        return False

    wait_for(f"the daemon of {name} answers", answers)
    return client


def provide(cloud: Client, pool: list[dict[str, object]]) -> None:
    """The provider's pipeline: firewall and NAT, which see encrypted packets only."""
    cloud.add_worker(0, min(os.sched_getaffinity(0)))
    cloud.create_port("AFPacketPort", "gateway", ifname="gateway", promiscuous=True)
    cloud.create_module("PortInc", "in", port="gateway")
    cloud.create_module("PortOut", "out", port="gateway")
    cloud.create_module("TunnelDecap", "decap", edges={7: 0})
    # What goes to an address of the NAT comes from outside.
    pools = [bytes.fromhex(str(entry["hex"])) for entry in pool]
    rules = [
        {"gate": 1, "priority": 1, "terms": [{"field": "ip6.dst", "value_bin": address}]}
        for address in pools
    ]
    cloud.create_module("MetadataMatch", "way", rules=rules, default_gate=0)
    external = [{"ext_addr": str(entry["encrypted"])} for entry in pool[:1]]
    cloud.create_module("NAT", "nat", ext_addrs=external, encrypted_ports=True)
    cloud.create_module("MACSwap", "turn")
    cloud.create_module(
        "TunnelEncap",
        "encap",
        src_mac="02:00:00:00:03:02",
        dst_mac="02:00:00:00:03:01",
        src_ip="192.0.2.2",
        dst_ip="192.0.2.1",
        vni=7,
    )
    cloud.connect("in", "decap")
    cloud.connect("decap", "way")
    cloud.connect("way", "firewall", 0)
    cloud.connect("firewall", "nat", 0, 0)
    # The NAT lets only answers in.
    cloud.connect("way", "nat", 1, 1)
    cloud.connect("nat", "turn", 0)
    cloud.connect("nat", "turn", 1)
    cloud.connect("turn", "encap")
    cloud.connect("encap", "out")
    cloud.resume()


def record(cloud: Client, capture: Path) -> None:
    """Keep what the provider gets, and what it sends back."""
    cloud.pause()
    cloud.create_port("PCAPPort", "seen", write_path=str(capture), num_inc_q=0)
    cloud.create_module("PortOut", "record", port="seen")
    for name, before, after in (("look", "decap", "way"), ("look_back", "turn", "encap")):
        cloud.create_module("Replicate", name, gates=[0, 1])
        cloud.disconnect(before)
        cloud.connect(before, name)
        cloud.connect(name, after, 0)
        cloud.connect(name, "record", 1)
    cloud.resume()


def download(folder: Path, address: str = SERVER) -> bool:
    """Get the page, as the host does."""
    words = ["curl", "--silent", "--max-time", "4", f"http://{address}/page.html"]
    say(f"host$ {shlex.join(words)}")
    done = subprocess.run(inside("host", *words), capture_output=True, text=True, check=False)
    say(done.stdout.rstrip() or f"nothing came (curl says {done.returncode})")
    return done.returncode == 0 and "Hello" in done.stdout


def main(folder: Path) -> None:
    """Run all of it; ``folder`` gets what is written."""
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.absolute()
    os.chdir(folder)
    shutil.copy(EXAMPLES / "embark" / "rules.v4", folder)
    text = (EXAMPLES / "embark" / "gateway.yaml").read_text(encoding="utf-8")
    text = text.replace("unix:gateway.sock", f"unix:{folder}/gateway.sock")
    (folder / "gateway.yaml").write_text(text, encoding="utf-8")
    site = folder / "www"
    site.mkdir(exist_ok=True)
    (site / "page.html").write_text("<h1>Hello from the server</h1>\n", encoding="utf-8")
    with ExitStack() as stack:
        stack.enter_context(spaces())
        words = [sys.executable, "-m", "http.server", "80", "--bind", SERVER]
        words += ["--directory", str(site)]
        stack.enter_context(process("server", *words, folder=folder, name="server"))
        daemon(stack, "gw", folder, "gateway")
        cloud = daemon(stack, "cloud", folder, "cloud")
        demonstrate(stack, folder, cloud)


def demonstrate(stack: ExitStack, folder: Path, cloud: Client) -> None:
    """What the demo is about."""
    embark("keygen", "site.key")
    encrypt = ["encrypt-rules", "rules.v4", "--format", "iptables", "--key", "site.key"]
    encrypt += ["--maps", "site.maps", "--out", "rules.json", "--pool", "203.0.113.0/28:nat"]
    embark(*encrypt)
    embark(
        "provider",
        "apply",
        "rules.json",
        "--daemon",
        f"unix:{folder}/cloud.sock",
        "--module",
        "firewall",
    )
    provide(cloud, pool_of(folder / "rules.json"))
    record(cloud, folder / "seen.pcap")
    words = [*GATEWAY, "run", "gateway.yaml"]
    stack.enter_context(process("", *words, folder=folder, name="run"))
    log = folder / "run.log"
    wait_for("the gateway runs", lambda: "runs on" in log.read_text("utf-8"))
    if not download(folder):
        sys.exit("the page did not come through")
    embark("status", "gateway.yaml")
    say("# The server is forbidden from now on, while everything runs.")
    rules = (folder / "rules.v4").read_text(encoding="utf-8").replace("198.51.100.66", SERVER)
    (folder / "strict.v4").write_text(rules, encoding="utf-8")
    encrypt = ["encrypt-rules", "strict.v4", "--format", "iptables", "--key", "site.key"]
    encrypt += ["--maps", "strict.maps", "--out", "strict.json", "--previous", "site.maps"]
    embark(*encrypt, "--pool", "203.0.113.0/28:nat")
    update = ["update-rules", "gateway.yaml", "--maps", "strict.maps", "--rules", "strict.json"]
    cloud_address = f"unix:{folder}/cloud.sock"
    embark(*update, "--provider", cloud_address, "--firewall", "firewall", "--nat", "nat")
    if download(folder):
        sys.exit("the page came through, though the rules forbid it")
    say("# What the provider saw of all that:")
    cloud.pause()
    cloud.destroy_module("record")
    cloud.destroy_port("seen")
    embark("inspect", "seen.pcap", "--packets", "4")


def pool_of(document: Path) -> list[dict[str, object]]:
    """Encrypted addresses of the NAT, from the rules that the provider gets."""
    import ipaddress
    import json

    found = json.loads(document.read_text(encoding="utf-8"))["pool"]
    return [
        {**entry, "hex": ipaddress.ip_address(entry["encrypted"]).packed.hex()} for entry in found
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1]))

# SPDX-License-Identifier: BSD-3-Clause
"""A gateway's pipelines on a daemon, who looks after them, what is told of them, and commands."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from typer.testing import CliRunner, Result

from bess_plugins.client import Client
from bess_plugins.daemon.server import Server
from embark_gw import keeper
from embark_gw.cli import app
from embark_gw.gateway import (
    Flows,
    GatewayError,
    Status,
    build,
    check_files,
    flows_of,
    is_built,
    status_of,
)
from embark_gw.journal import journal_of, owned
from embark_gw.keeper import Keeper
from embark_gw.metrics import GatewayCollector
from embark_gw.pipelines import Graph, Module, draw
from embark_gw.site import Gateway, SiteError, load, way_file
from gateway_support import encrypt_rules, over_sockets

TEXT = """\
daemon: {daemon}
inside:
  device: inside
  mac: "02:00:00:00:01:01"
  peer: "02:00:00:00:01:02"
  networks: [10.0.0.0/16, "2001:db8::/48"]
{outside}provider:
  device: provider
  mac: "02:00:00:00:03:01"
  peer: "02:00:00:00:03:02"
  mtu: 1700
{tunnel}key: {{file: site.key, epoch: 1}}
maps: site.maps
{pool}sealed: {sealed}
workers: {workers}
"""
OUTSIDE = 'outside: {device: outside, mac: "02:00:00:00:02:01", peer: "02:00:00:00:02:02"}\n'
TUNNEL = "  tunnel: {local: 192.0.2.1, remote: 192.0.2.2, vni: 7}\n"
POOL = "pool:\n  - {prefix: 203.0.113.1/32, nat: true}\n"


@pytest.fixture
def folder(tmp_path: Path, server: Server) -> Path:
    """With a key, maps and a description."""
    assert CliRunner().invoke(app, ["keygen", str(tmp_path / "site.key")]).exit_code == 0
    encrypt_rules(tmp_path, "site", "DROP\n-s 10.0.0.0/24 -j ACCEPT", nat=True)
    describe(tmp_path, server.address)
    return tmp_path


def describe(
    folder: Path,
    daemon: str,
    *,
    outside: bool = True,
    tunnel: bool = False,
    nat: bool = True,
    sealed: bool = True,
    workers: int = 1,
) -> Gateway:
    path = folder / "gateway.yaml"
    text = TEXT.format(
        daemon=daemon,
        outside=OUTSIDE if outside else "",
        tunnel=TUNNEL if tunnel else "",
        pool=POOL if nat else "",
        sealed=str(sealed).lower(),
        workers=workers,
    )
    path.write_text(text, encoding="utf-8")
    return load(path)


def reached(graph: Graph, source: str, without: str) -> set[str]:
    """Where packets of a module come to if they don't pass another one."""
    found, left = {source}, [source]
    while left:
        here = left.pop()
        for link in graph.links:
            if link.source == here and link.target not in found | {without}:
                found.add(link.target)
                left.append(link.target)
    return found


@pytest.mark.parametrize(
    ("outside", "tunnel", "nat", "sealed", "workers"),
    [*product((True, False), (True, False), (True, False), (True, False), (1, 2))],
)
def test_every_gateway_can_be_built(
    folder: Path,
    server: Server,
    client: Client,
    outside: bool,
    tunnel: bool,
    nat: bool,
    sealed: bool,
    workers: int,
) -> None:
    """And there is no way around encryption, nor into a host's network around decryption."""
    gateway = describe(
        folder,
        server.address,
        outside=outside,
        tunnel=tunnel,
        nat=nat,
        sealed=sealed,
        workers=workers,
    )
    graph = over_sockets(gateway, server.port)
    build(client, graph)
    found = client.counters()
    assert is_built(found, graph)
    assert [worker.running for worker in found.workers] == [True] * (1 + workers)
    assert {task.wid for task in found.tasks} == {*range(1 + workers)}
    sides = ["inside", "outside", "provider"] if outside else ["inside", "provider"]
    assert sorted(port.name for port in found.ports) == sorted(sides)
    for side in sides[:-1]:
        assert "provider_out" in reached(graph, f"{side}_in", "")
        for needed in ("encrypt", *(["seal"] if sealed else [])):
            assert "provider_out" not in reached(graph, f"{side}_in", needed)
        assert f"{side}_out" in reached(graph, "provider_in", "")
        for needed in ("decrypt", *(["open"] if sealed else [])):
            assert f"{side}_out" not in reached(graph, "provider_in", needed)
    inputs = {f"{side}_in" for side in sides}
    everything = {name for start in inputs for name in reached(graph, start, "")}
    assert everything == {module.name for module in graph.modules}


@pytest.mark.parametrize("tunnel", [False, True])
def test_a_gateway_with_a_backup(
    folder: Path, server: Server, client: Client, tunnel: bool
) -> None:
    """Two ways, of which neither leads around encryption; new flows take the one that is noted."""
    describe(folder, server.address, tunnel=tunnel)
    path = folder / "gateway.yaml"
    backup = "{vni: 8}" if tunnel else '{peer: "02:00:00:00:03:03"}'
    text = path.read_text(encoding="utf-8").replace(
        "  mtu: 1700\n", f"  mtu: 1700\n  backup: {backup}\n"
    )
    path.write_text(text, encoding="utf-8")
    gateway = load(path)
    for way in (0, 1):
        way_file(gateway).write_text(f"{way}\n", encoding="ascii")
        graph = over_sockets(gateway, server.port)
        build(client, graph)
        assert is_built(client.counters(), graph) and flows_of(client).way == way
        assert status_of(client).flows == Flows(way, 0, 0, gateway.provider.backup.flows)
    modules = {module.name: module for module in graph.modules}
    ends = [modules[name].args for name in ("encrypt", "encrypt_backup")]
    peers = ["02:00:00:00:03:02", "02:00:00:00:03:02" if tunnel else "02:00:00:00:03:03"]
    assert [args["dst_mac"] for args in ends] == peers
    if tunnel:
        outs = [modules[name].args["vni"] for name in ("tunnel_out", "tunnel_out_backup")]
        assert outs == [7, 8] and modules["tunnel_in"].args["edges"] == {7: 0, 8: 0}
    assert {"encrypt", "encrypt_backup"} <= reached(graph, "inside_in", "")
    for kind in ("seal", "encrypt"):
        both = {kind, f"{kind}_backup"}
        open_links = tuple(link for link in graph.links if link.target not in both)
        without = replace(graph, links=open_links)
        assert "provider_out" not in reached(without, "inside_in", "")


def test_what_is_refused_leaves_nothing(folder: Path, server: Server, client: Client) -> None:
    graph = over_sockets(load(folder / "gateway.yaml"), server.port)
    spoiled = replace(graph, modules=(*graph.modules, Module("wrong", "NoSuchClass")))
    with pytest.raises(GatewayError, match=r"^wrong: .*NoSuchClass"):
        build(client, spoiled)
    found = client.counters()
    assert not found.modules and not found.ports and not found.workers
    assert not is_built(found, graph)


def test_a_gateway_that_waits(folder: Path, server: Server, client: Client) -> None:
    """Its first worker moves packets into queues, where they stay."""
    gateway = describe(folder, server.address, workers=2)
    build(client, over_sockets(gateway, server.port), held=True)
    assert [worker.running for worker in client.counters().workers] == [True, False, False]


@pytest.mark.parametrize("name", ["site.key", "site.maps"])
def test_files_that_are_missing_or_open(folder: Path, name: str) -> None:
    gateway = load(folder / "gateway.yaml")
    check_files(gateway)
    (folder / name).chmod(0o604)
    with pytest.raises(GatewayError, match=rf"others can use .*{name}; expected mode 600: chmod"):
        check_files(gateway)
    (folder / name).unlink()
    with pytest.raises(GatewayError, match=rf"{name}: No such file"):
        check_files(gateway)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_a_provider_that_falls_silent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is told once; who sends nothing gets nothing back, and that is nothing to tell."""
    clock, told = Clock(), list[str]()
    monkeypatch.setattr(keeper, "time", clock)
    kept = Keeper(lambda: load(folder / "gateway.yaml"), told.append)

    def listen(sent: int, received: int, seconds: float) -> list[str]:
        clock.now += seconds
        counts = {"inside": 0, "outside": 0}
        kept._listen(
            Status(counts | {"provider": received}, counts | {"provider": sent}, sent, received)
        )
        fresh, told[:] = told[:], []
        return fresh

    assert listen(0, 0, 1) == listen(0, 0, 100) == []
    assert listen(10, 10, 1) == listen(10, 10, 100) == []
    assert listen(20, 10, 1) == listen(30, 10, 3) == []
    assert listen(40, 10, 3) == ["the provider is silent: packets go there, none came for 5 s"]
    assert listen(50, 10, 100) == []
    assert listen(60, 11, 1) == ["the provider sends packets again"]
    assert listen(70, 11, 4) == []


def test_a_keeper_builds_what_was_lost(
    folder: Path, server: Server, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "draw", lambda gateway: over_sockets(gateway, server.port))
    told: list[str] = []
    kept = Keeper(lambda: load(folder / "gateway.yaml"), told.append)
    kept.start()
    stops = iter([False, False, True])
    kept.run(lambda _: next(stops))
    assert (told, kept.rebuilt) == ([], 0)
    client.reset_all()
    describe(folder, server.address, workers=2)  # what the description has now is built
    stops = iter([False, False, True])
    kept.run(lambda _: next(stops))
    assert (told, kept.rebuilt) == (["the daemon lost its pipelines; building them again"], 1)
    assert len(client.counters().workers) == 3
    client.reset_all()
    (folder / "gateway.yaml").write_text("inside: []\n", encoding="utf-8")
    stops = iter([False, False, True])
    kept.run(lambda _: next(stops))
    lost, wrong = told[1:]
    assert lost == told[0] and "gateway.yaml:1:" in wrong
    assert kept.status is None and not client.counters().modules


def test_a_keeper_waits_for_an_update(
    folder: Path, server: Server, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that was lost meanwhile encrypts nothing until the update has ended."""
    monkeypatch.setattr(keeper, "draw", lambda gateway: over_sockets(gateway, server.port))
    kept = Keeper(lambda: load(folder / "gateway.yaml"), print)
    with owned(kept.gateway):
        kept.start()
        stops = iter([False, True])
        kept.run(lambda _: next(stops))
        assert [worker.running for worker in client.counters().workers] == [True, False]
    stops = iter([False, True])
    kept.run(lambda _: next(stops))
    assert [worker.running for worker in client.counters().workers] == [True, True]
    assert not journal_of(kept.gateway).exists()


def test_a_keeper_without_a_daemon(folder: Path) -> None:
    """Says so once, in one line."""
    describe(folder, "127.0.0.1:1")
    told: list[str] = []
    kept = Keeper(lambda: load(folder / "gateway.yaml"), told.append)
    with pytest.raises(GatewayError, match=r"no daemon at 127\.0\.0\.1:1"):
        kept.start()
    stops = iter([False, False, True])
    kept.run(lambda _: next(stops))
    assert told == ["no daemon at 127.0.0.1:1; start one with `e2d start`"]


def test_what_prometheus_gets(
    folder: Path, server: Server, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "draw", lambda gateway: over_sockets(gateway, server.port))
    kept = Keeper(lambda: load(folder / "gateway.yaml"), print)
    registry = CollectorRegistry()
    registry.register(GatewayCollector(kept))
    assert generate_latest(registry).decode().splitlines()[2] == "embark_up 0.0"
    kept.start()
    kept.status = replace(
        status_of(client),
        drops={("decrypt", "bad tag"): 3},
        received={"inside": 5, "outside": 0, "provider": 2},
    )
    lines = generate_latest(registry).decode().splitlines()
    for line in (
        "embark_up 1.0",
        "embark_rebuilt_total 0.0",
        'embark_side_packets_total{direction="in",side="inside"} 5.0',
        'embark_side_packets_total{direction="out",side="provider"} 0.0',
        "embark_encrypted_packets_total 0.0",
        "embark_decrypted_packets_total 0.0",
        'embark_drops_total{module="decrypt",reason="bad tag"} 3.0',
        'embark_queue_packets{queue="queue:out.1"} 0.0',
    ):
        assert line in lines
    assert not [line for line in lines if "embark_flows" in line]  # it has no backup
    kept.status = replace(kept.status, flows=Flows(way=1, flows=7, left=2, most=10))
    lines = generate_latest(registry).decode().splitlines()
    assert {"embark_flows 7.0", "embark_flows_left 2.0"} <= {*lines}


def invoke(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_status(folder: Path, server: Server, client: Client) -> None:
    build(client, over_sockets(load(folder / "gateway.yaml"), server.port))
    shown = invoke("status", folder / "gateway.yaml")
    assert shown.exit_code == 0 and "0 encrypted, 0 decrypted" in shown.output
    plain = json.loads(invoke("status", folder / "gateway.yaml", "--json").output)
    assert plain["received"] == dict.fromkeys(("inside", "outside", "provider"), 0)
    assert plain["queues"]["queue:in.1"] == {"packets": 0, "size": 4096}
    assert plain["drops"] == [] and "flows" not in plain


UPDATE = "update-rules gateway.yaml --provider 127.0.0.1:1 --maps {} --rules {}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("run none.yaml", "none.yaml"),
        ("status none.yaml", "none.yaml"),
        ("status gateway.yaml", "no daemon at 127.0.0.1:1"),
        ("run gateway.yaml", "no daemon at 127.0.0.1:1"),
        ("rotate gateway.yaml none.key --epoch 2", "none.key: No such file"),
        ("rotate gateway.yaml site.key --epoch 1", "epoch 1 is in use"),
        ("rotate gateway.yaml site.key --epoch 2", "name its daemon by --provider"),
        ("rotate gateway.yaml site.key --epoch 2 --told", "no daemon at 127.0.0.1:1"),
        (UPDATE.format("site.maps", "site.json") + " --backup-firewall b", "no provider.backup"),
        (UPDATE.format("none", "site.json"), "none: No such file"),
        (UPDATE.format("site.maps", "none"), "none"),
        (UPDATE.format("site.maps", "site.json"), "no daemon at 127.0.0.1:1"),
    ],
)
def test_commands_say_what_is_wrong_in_a_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, words: str, message: str
) -> None:
    describe(folder, "127.0.0.1:1")
    monkeypatch.chdir(folder)
    done = invoke(*words.split())
    assert done.exit_code == 1, done.output
    assert done.output.startswith("embark-gw: ") and message in done.output
    assert done.output.count("\n") == 1
    key = (folder / "site.key").read_text(encoding="ascii").strip()
    assert key not in done.output


def test_a_key_is_not_changed_during_an_update(folder: Path, client: Client) -> None:
    gateway = load(folder / "gateway.yaml")
    words = ("rotate", folder / "gateway.yaml", folder / "site.key", "--epoch", 2, "--told")
    with owned(gateway) as mine:
        assert mine
        done = invoke(*words)
    assert done.exit_code == 1 and "another change of the rules or the key" in done.output
    journal_of(gateway).touch()
    done = invoke(*words)
    assert done.exit_code == 1 and ".swap can't be read" in done.output


def test_a_description_that_is_wrong_is_told_with_its_line(folder: Path) -> None:
    path = folder / "gateway.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("workers: 1", "workers: 0"))
    with pytest.raises(SiteError):
        load(path)
    done = invoke("status", path)
    assert done.exit_code == 1
    assert done.output.startswith(f"embark-gw: {path}:") and "workers" in done.output


def test_a_drawing_has_the_names_that_others_rely_on(folder: Path) -> None:
    """`update-rules`, `rotate` and `status` find modules by name."""
    names = {module.name: module.mclass for module in draw(load(folder / "gateway.yaml")).modules}
    assert names.items() >= {
        ("encrypt", "PrefixMatchEncrypt"),
        ("decrypt", "PrefixMatchDecrypt"),
        ("seal", "PayloadSeal"),
        ("open", "PayloadOpen"),
        ("provider_out", "Queue"),
    }

# SPDX-License-Identifier: BSD-3-Clause
"""The daemon over gRPC, with a real engine inside this process."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import resource
import signal
import socket
import urllib.request
from pathlib import Path

import grpc
import pytest

from bess_plugins import _proto
from bess_plugins.client import BessError, Client, DaemonUnavailableError
from bess_plugins.daemon.server import Server, ServerError, make_engine
from bess_plugins.pb import bess_msg_pb2 as pb
from daemon_support import CORE, failure
from harness import new_e2d, real_daemon, wait_until

_SYS_TGKILL = 234  # on x86-64


def test_version(client: Client) -> None:
    assert client.version().startswith("e2d ")


def test_failure_travels_with_status_ok(client: Client, server: Server) -> None:
    with grpc.insecure_channel(server.address) as channel:
        stub = channel.unary_unary(
            "/bess.pb.BESSControl/CreateModule",
            request_serializer=pb.CreateModuleRequest.SerializeToString,
            response_deserializer=pb.CreateModuleResponse.FromString,
        )
        response, call = stub.with_call(pb.CreateModuleRequest(mclass="NoSuchClass"))
    assert call.code() == grpc.StatusCode.OK
    assert response.error.code == errno.ENOENT
    assert "NoSuchClass" in response.error.errmsg


def test_classes_describe_themselves(client: Client) -> None:
    names = client.list_mclasses()
    assert {"Source", "Sink", "Bypass"} <= set(names)
    for name in names:
        info = client.mclass_info(name)
        assert info["name"] == name
        assert info["help"]
        assert len(info["cmds"]) == len(info["cmd_args"])
        assert all(_proto.is_message(kind) for kind in info["cmd_args"])
    assert failure(lambda: client.mclass_info("Nope")) == errno.ENOENT
    assert failure(lambda: client.mclass_info("")) == errno.EINVAL
    for name in client.list_drivers():
        assert client.driver_info(name)["name"] == name
    assert failure(lambda: client.driver_info("Nope")) == errno.ENOENT


def test_argument_types_exist(server: Server) -> None:
    engine = server.service.engine
    kinds = [info["arg_type"] for info in engine.module_classes().values()]
    kinds += [info["arg_type"] for info in engine.port_drivers().values()]
    kinds += [info["arg_type"] for info in engine.hook_classes().values()]
    for info in engine.module_classes().values():
        for command in info["commands"]:
            kinds += [command["arg_type"], command["response_type"]]
    assert [kind for kind in kinds if kind and not _proto.is_message(kind)] == []


def test_module_life(client: Client) -> None:
    assert client.create_module("Bypass") == "bypass0"
    assert client.create_module("Bypass") == "bypass1"
    assert client.create_module("Sink", "end") == "end"
    assert failure(lambda: client.create_module("Sink", "end")) == errno.EEXIST
    assert {(m["name"], m["mclass"]) for m in client.list_modules()} == {
        ("bypass0", "Bypass"),
        ("bypass1", "Bypass"),
        ("end", "Sink"),
    }
    client.destroy_module("bypass0")
    assert client.create_module("Bypass") == "bypass0"
    assert failure(lambda: client.destroy_module("gone")) == errno.ENOENT
    assert failure(lambda: client.destroy_module("")) == errno.EINVAL


def test_wrong_argument_type(client: Client) -> None:
    packed = _proto.pack(_proto.from_dict("ACLArg", {"rules": [{"drop": True}]}))
    request = pb.CreateModuleRequest(mclass="Source", arg=packed)
    assert failure(lambda: client.call("CreateModule", request)) == errno.EINVAL
    assert client.list_modules() == []
    assert client.call("CreateModule", pb.CreateModuleRequest(mclass="Source")).name == "source0"


def test_connections(client: Client) -> None:
    client.create_module("Source", "a")
    client.create_module("Sink", "b")
    client.connect("a", "b")
    info = client.module_info("a")
    assert [(g["ogate"], g["name"], g["igate"]) for g in info["ogates"]] == [(0, "b", 0)]
    upstream = client.module_info("b")["igates"][0]
    assert upstream["ogates"] == [{"ogate": 0, "name": "a"}]
    assert failure(lambda: client.connect("a", "b")) == errno.EBUSY
    assert failure(lambda: client.connect("a", "nope", ogate=1)) == errno.ENOENT
    assert failure(lambda: client.connect("", "b")) == errno.EINVAL
    client.disconnect("a")
    assert client.module_info("a")["ogates"] == []


def test_commands(client: Client) -> None:
    client.create_module("Source", "src", pkt_size=100)
    client.run_module_command("src", "set_burst", "SourceCommandSetBurstArg", {"burst": 4})
    initial = client.run_module_command("src", "get_initial_arg")
    assert initial == {"pkt_size": 100}
    unsupported = failure(lambda: client.run_module_command("src", "no_such"))
    assert unsupported == errno.ENOTSUP
    assert failure(lambda: client.run_module_command("gone", "x")) == errno.ENOENT
    wrong = failure(
        lambda: client.run_module_command("src", "set_burst", "SourceArg", {"pkt_size": 1})
    )
    assert wrong == errno.EINVAL


def test_packets_flow(client: Client) -> None:
    client.add_worker(0, CORE)
    client.create_module("Source", "src")
    client.create_module("Sink", "dst")
    client.connect("src", "dst")
    client.add_tc("root", "round_robin", wid=0)
    client.attach_task("src", parent="root")
    client.resume()
    wait_until(lambda: client.tc_stats("root").packets > 0)
    assert [w["running"] for w in client.list_workers()] == [True]
    client.pause()
    assert [w["running"] for w in client.list_workers()] == [False]
    before = client.tc_stats("root")
    assert client.tc_stats("root").packets == before.packets
    assert before.count > 0
    assert before.bits > 0
    gate = client.module_info("src")["ogates"][0]
    assert gate["pkts"] > 0
    assert ("Track", "src") in {(h["class_name"], h["module_name"]) for h in client.list_hooks()}


def test_worker_errors(client: Client) -> None:
    client.add_worker(0, CORE)
    assert failure(lambda: client.add_worker(0, CORE)) == errno.EEXIST
    assert failure(lambda: client.add_worker(64, CORE)) == errno.EINVAL
    assert failure(lambda: client.add_worker(-1, CORE)) == errno.EINVAL
    assert failure(lambda: client.add_worker(1, 1 << 20)) == errno.EINVAL
    assert failure(lambda: client.add_worker(1, CORE, "none")) == errno.EINVAL
    client.add_worker(1, CORE, "polling")
    client.destroy_worker(1)
    assert failure(lambda: client.destroy_worker(5)) == errno.ENOENT
    client.destroy_worker(0)
    assert client.list_workers() == []


def test_traffic_classes(client: Client) -> None:
    client.add_worker(0, CORE)
    client.add_tc("top", "weighted_fair", wid=0, resource="packet")
    client.add_tc(
        "limited",
        "rate_limit",
        parent="top",
        share=3,
        resource="bit",
        limit={"bit": 10**9},
        max_burst={"bit": 10**6},
    )
    tcs = {tc["name"]: tc for tc in client.list_tcs()}
    assert tcs["limited"]["parent"] == "top"
    assert tcs["limited"]["share"] == 3
    assert tcs["limited"]["limit"] == {"bit": 10**9}
    client.update_tc_params("limited", resource="bit", limit={"bit": 5})
    tcs = {tc["name"]: tc for tc in client.list_tcs(0)}
    assert tcs["limited"]["limit"] == {"bit": 5}
    for name, policy in (("", "priority"), ("!x", "priority"), ("x", "leaf"), ("x", "what")):
        with pytest.raises(BessError) as caught:
            client.add_tc(name, policy, wid=0)
        assert caught.value.code == errno.EINVAL
    assert failure(lambda: client.tc_stats("none")) == errno.ENOENT
    assert failure(lambda: client.update_tc_parent("")) == errno.EINVAL
    assert failure(lambda: client.list_tcs(64)) == errno.EINVAL
    assert client.check_scheduling_constraints()["fatal"] is False


def test_ports(client: Client, tmp_path: Path) -> None:
    path = str(tmp_path / "port.sock")
    created = client.create_port("UnixSocketPort", path=path)
    (port,) = client.list_ports()
    assert (port["name"], port["driver"]) == (created.name, "UnixSocketPort")
    assert port["mac_addr"] == created.mac_addr
    assert port["driver_arg"]["path"] == path
    assert port["num_inc_q"] == port["num_out_q"] == 1
    assert client.port_stats(created.name).inc.packets == 0
    assert client.link_status(created.name).keys() == {
        "speed",
        "full_duplex",
        "autoneg",
        "link_up",
    }
    conf = client.port_conf(created.name)
    client.set_port_conf(created.name, admin_up=conf["admin_up"])
    assert client.port_conf(created.name) == conf
    bad = failure(lambda: client.set_port_conf(created.name, mac_addr="zz"))
    assert bad == errno.EINVAL
    again = failure(lambda: client.create_port("UnixSocketPort", created.name, path=path + "2"))
    assert again == errno.EEXIST
    assert failure(lambda: client.create_port("NoDriver")) == errno.ENOENT
    assert failure(lambda: client.create_port("")) == errno.EINVAL
    assert failure(lambda: client.port_stats("gone")) == errno.ENOENT
    many = failure(lambda: client.create_port("UnixSocketPort", path=path, num_inc_q=4096))
    assert many == errno.EINVAL
    client.destroy_port(created.name)
    assert client.list_ports() == []


def test_memory_and_plugins(client: Client) -> None:
    (pool,) = client.dump_mempool()
    assert pool["mp_size"] == pool["mp_available_count"] + pool["mp_in_use_count"]
    assert pool["ring_count"] == pool["mp_available_count"]  # no worker holds any
    assert pool["ring_free_count"] > 0
    assert pool["ring_bytes"] > 8 * (pool["ring_count"] + pool["ring_free_count"])
    assert client.dump_mempool(3) == []
    assert client.list_plugins() == []
    with pytest.raises(BessError):
        client.import_plugin("/nonexistent.so")


def test_reset_leaves_nothing(client: Client, tmp_path: Path) -> None:
    client.add_worker(0, CORE)
    client.create_port("UnixSocketPort", "p", path=str(tmp_path / "p.sock"))
    client.create_module("PortInc", "in", port="p")
    client.create_module("Sink", "out")
    client.connect("in", "out")
    client.add_tc("root", "priority", wid=0)
    client.resume()
    assert failure(lambda: client.destroy_port("p")) == errno.EBUSY
    client.reset_all()
    assert client.list_modules() == client.list_ports() == []
    assert client.list_workers() == client.list_tcs() == client.list_hooks() == []
    client.reset_all()


def test_port_taken(server: Server) -> None:
    second = Server(server.service.engine, port=server.port)
    with pytest.raises(ServerError, match="another e2d or bessd may be running"):
        second.start()


def test_no_memory_for_packets_is_one_clear_error() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))  # packets are in a memory file
    try:
        with pytest.raises(ServerError, match=r"cannot create 16,384 packet buffers: .*too large"):
            make_engine()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_nothing_waits_for_the_other_end_of_a_pipe(client: Client, tmp_path: Path) -> None:
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    assert failure(lambda: client.create_port("PCAPPort", dev=pipe)) == errno.EINVAL
    assert failure(lambda: client.create_port("PCAPPort", write_path=pipe)) == errno.ENXIO
    assert failure(lambda: client.import_plugin(pipe)) == errno.EINVAL


def test_no_module_keeps_a_worker_from_pausing(client: Client) -> None:
    for arg in ({"cycles_per_batch": 2**32 - 1}, {"cycles_per_byte": 10_000}):
        assert failure(lambda arg=arg: client.create_module("Bypass", **arg)) == errno.EINVAL


def test_unix_socket_metrics_and_kill(tmp_path: Path) -> None:
    path = tmp_path / "e2d.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    running = Server(make_engine(512), port=0, unix_socket=path, metrics="0")
    with running, Client(f"unix:{path}") as client:
        client.create_module("Sink", "end")
        assert failure(lambda: client.destroy_module("gone")) == errno.ENOENT
        url = f"http://127.0.0.1:{running.metrics.port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as reply:
            text = reply.read().decode()
        assert 'e2d_rpc_total{code="0",method="CreateModule"} 1.0' in text
        assert 'e2d_module_deadends_total{module="end"} 0.0' in text
        assert "e2d_packets_size" in text
        client.kill()
        assert running.wait(10.0)
        with pytest.raises(DaemonUnavailableError):
            client.version()
    assert not path.exists()


def test_unknown_instructions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("E2_ISA", "mmx")
    started = new_e2d(tmp_path)("--foreground")
    assert started.returncode == 1
    assert "E2_ISA is 'mmx'; must be portable, aesni, avx2 or avx512" in started.stderr


def signal_to_a_thread(pid: int) -> None:
    """SIGTERM to any thread but the main one that takes it."""
    for tid in map(int, os.listdir(f"/proc/{pid}/task")):
        status = Path(f"/proc/{pid}/task/{tid}/status").read_text()
        (blocked,) = re.findall(r"^SigBlk:\s*([0-9a-f]+)$", status, re.MULTILINE)
        if tid != pid and not int(blocked, 16) >> (signal.SIGTERM - 1) & 1:
            assert ctypes.CDLL(None).syscall(_SYS_TGKILL, pid, tid, signal.SIGTERM) == 0
            return
    raise AssertionError("every other thread blocks SIGTERM")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="system calls have other numbers")
def test_a_signal_to_any_thread_stops_it(tmp_path: Path) -> None:
    """The kernel gives it to whichever thread doesn't block it, and gRPC's don't."""
    with real_daemon(tmp_path, "--pool-packets=512") as e2d:
        signal_to_a_thread(e2d.pid)
        wait_until(lambda: not e2d.pid_file.exists())


def test_command_line(tmp_path: Path) -> None:
    e2d = new_e2d(tmp_path)
    assert e2d("status").returncode == 3
    started = e2d("start", "--pool-packets=512")
    try:
        assert started.returncode == 0, started.stderr
        assert e2d.pid_file.exists()
        shown = e2d("status")
        assert shown.returncode == 0
        assert "0 modules" in shown.stdout
        for again in (e2d("start"), e2d("--foreground")):
            assert again.returncode == 1
            assert "already running" in again.stderr
    finally:
        stopped = e2d("stop")
    assert stopped.returncode == 0, stopped.stderr
    assert e2d("status").returncode == 3
    assert "not running" in e2d("stop").stdout
    assert not e2d.pid_file.exists()

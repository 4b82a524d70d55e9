# SPDX-License-Identifier: BSD-3-Clause
"""Modules out of tree: the skeleton compiles, loads, runs and leaves; what is wrong is said."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bess_plugins._proto import is_message
from bess_plugins.client import BessError, Client
from bess_plugins.new.cli import app, header_folder, snake_case, write_skeleton
from bess_plugins.script import run_script
from daemon_support import CORE
from harness import real_daemon, run_program, wait_until

pytestmark = pytest.mark.skipif(
    not (shutil.which("make") and shutil.which("g++")), reason="make or g++ is not installed"
)


def make(folder: Path, *targets: str, **variables: str) -> None:
    settings = {"PYTHON": sys.executable, "CXXFLAGS": "-O1 -Wall -Wextra -Werror"}
    settings |= variables
    chosen = (f"{key}={value}" for key, value in settings.items())
    run_program(["make", "-C", folder, *targets, *chosen])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a plugin with the class TooLong."""
    folder = tmp_path_factory.mktemp("plugin") / "too_long"
    result = CliRunner().invoke(app, ["TooLong", "--out", str(folder)])
    assert result.exit_code == 0, result.output
    make(folder, "test")
    return folder


@pytest.fixture
def plugin(built: Path, tmp_path: Path, client: Client) -> Iterator[str]:
    """A copy of the plugin, of which nothing is left in the daemon afterwards."""
    for name in ("too_long.so", "too_long.binpb"):
        shutil.copy(built / name, tmp_path / name)
    yield str(tmp_path / "too_long.so")
    client.reset_all()
    for path in client.list_plugins():
        client.unload_plugin(path)


def refused(client: Client, path: str) -> str:
    with pytest.raises(BessError) as caught:
        client.import_plugin(path)
    assert client.list_plugins() == []
    return caught.value.errmsg


def test_a_class_comes_and_goes(client: Client, plugin: str) -> None:
    for _ in range(2):
        client.import_plugin(plugin)
        assert client.mclass_info("TooLong")["cmds"][:2] == ["set", "get"]
        with pytest.raises(BessError, match=r"TooLong.bytes is 0; must be 1 to 65535"):
            client.create_module("TooLong")
        with pytest.raises(BessError, match=r"TooLongArg.size: no such field"):
            client.create_module("TooLong", size=3)
        assert client.create_module("TooLong", bytes=7) == "too_long0"
        with pytest.raises(BessError, match="module 'too_long0' is of plugin"):
            client.unload_plugin(plugin)
        client.destroy_module("too_long0")
        client.unload_plugin(plugin)
        assert "TooLong" not in client.list_mclasses()
        assert not is_message("TooLongArg")


def test_in_a_daemon_of_its_own_and_from_another_client(plugin: str, tmp_path: Path) -> None:
    with real_daemon(tmp_path) as e2d, Client(e2d.address) as client:
        script = tmp_path / "try.bess"
        script.write_text(
            f"bess.add_worker(0, {CORE})\n"
            f"bess.import_plugin({plugin!r})\n"
            "source::Source(pkt_size=100) -> check::TooLong(bytes=101)\n"
            "check:0 -> short::Sink()\n"
            "check:1 -> long::Sink()\n"
            "check.set(bytes=100)\n"
            "assert check.get().bytes == 100\n"
        )
        run_script(script, client)
        gates = lambda: {g["ogate"]: g["pkts"] for g in client.module_info("check")["ogates"]}  # noqa: E731
        wait_until(lambda: gates()[1] > 1000)
        assert gates()[0] == 0
        program = (
            "import sys\n"
            "from bess_plugins.client import Client\n"
            "with Client(sys.argv[1]) as client:\n"
            "    print(client.run_module_command('check', 'get'),\n"
            "          client.run_module_command('check', 'get_initial_arg'),\n"
            "          client.create_module('TooLong', bytes=5))\n"
        )
        other = subprocess.run(
            [sys.executable, "-c", program, e2d.address],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert other.stdout.split("\n")[0] == "{'bytes': 100} {'bytes': 101} too_long0"


def test_a_new_description_is_taken_with_the_new_build(
    client: Client, plugin: str, built: Path, tmp_path: Path
) -> None:
    client.import_plugin(plugin)
    client.unload_plugin(plugin)
    proto = (built / "too_long_msg.proto").read_text()
    (tmp_path / "too_long_msg.proto").write_text(proto.replace("}", "  bool other = 2;\n}"))
    shutil.copy(built / "Makefile", tmp_path)
    make(tmp_path, "too_long.binpb", "-B")
    client.import_plugin(plugin)
    client.create_module("TooLong", bytes=1, other=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "names the message TooLongArg, which nobody describes: .*too_long.binpb should"),
        (b"\xff\xff", "too_long.binpb: not a FileDescriptorSet"),
        (b"", "too_long.binpb: no message of package bess.pb"),
    ],
)
def test_a_plugin_without_its_messages_is_refused(
    client: Client, plugin: str, content: bytes | None, message: str
) -> None:
    path = Path(plugin).with_suffix(".binpb")
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(BessError, match=message):
        client.import_plugin(plugin)
    assert client.list_plugins() == []
    assert "TooLong" not in client.list_mclasses()


def test_messages_of_one_name_in_two_plugins(client: Client, plugin: str, built: Path) -> None:
    client.import_plugin(plugin)
    with pytest.raises(BessError, match="class 'TooLong' exists already; choose another name"):
        client.import_plugin(str(built / "too_long.so"))
    client.create_module("TooLong", bytes=1)


def compile_plugin(folder: Path, text: str, headers: Path | None = None) -> str:
    (folder / "p.cc").write_text(text)
    include = f"-I{headers or header_folder()}"
    flags = ["-std=c++17", "-shared", "-fPIC", "-fno-gnu-unique", include]
    subprocess.run(["g++", *flags, folder / "p.cc", "-o", folder / "p.so"], check=True)
    return str(folder / "p.so")


def source_of(built: Path, name: str) -> str:
    return (built / "too_long.cc").read_text().replace('"TooLong"', f'"{name}"')


def test_a_class_of_ours_is_not_taken_away(client: Client, built: Path, tmp_path: Path) -> None:
    path = compile_plugin(tmp_path, source_of(built, "Bypass"))
    assert "class 'Bypass' exists already" in refused(client, path)
    client.create_module("Bypass")


def test_a_build_with_other_headers_is_refused(client: Client, built: Path, tmp_path: Path) -> None:
    headers = tmp_path / "include"
    shutil.copytree(header_folder() / "host", headers / "host")
    changed = headers / "host" / "module.h"
    text = changed.read_text()
    assert "kHostVersion = 2" in text
    changed.write_text(text.replace("kHostVersion = 2", "kHostVersion = 3"))
    path = compile_plugin(tmp_path, source_of(built, "Other"), headers)
    assert "built with the headers of another version; build it again" in refused(client, path)


def test_a_symbol_that_nobody_has_is_named(client: Client, built: Path, tmp_path: Path) -> None:
    text = source_of(built, "Other").replace(
        "namespace e2 {\n", "void nowhere();\nnamespace e2 {\n", 1
    )
    path = compile_plugin(
        tmp_path, text.replace("empty_ = drop_gate", "nowhere(); empty_ = drop_gate")
    )
    assert "undefined symbol" in refused(client, path)


def test_headers_that_come_with_the_package_are_those_of_its_sources() -> None:
    sources = Path(__file__).resolve().parents[2] / "ext" / "host"
    texts = {path.name: path.read_text() for path in sources.glob("*.h")}
    assert texts == {path.name: path.read_text() for path in header_folder().glob("host/*.h")}


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("my_module", 2, "is no name of a class"),
        ("Bypass", 1, "there is a class Bypass already"),
        ("PCAPPort", 1, "there is a class PCAPPort already"),
    ],
)
def test_names_that_are_refused(name: str, code: int, message: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [name, "--out", str(tmp_path / "new")])
    assert result.exit_code == code
    assert message in result.output
    assert not (tmp_path / "new").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    mine = tmp_path / "my_nat_module.cc"
    mine.write_text("mine")
    result = CliRunner().invoke(app, ["MyNATModule", "--out", str(tmp_path)])
    assert result.exit_code == 1
    assert f"{mine} is there already; nothing was written" in result.output
    assert [path.name for path in tmp_path.iterdir()] == [mine.name]
    assert mine.read_text() == "mine"


def test_every_name_is_changed(tmp_path: Path) -> None:
    assert snake_case("MyNATModule2X") == "my_nat_module2_x"
    for path in write_skeleton("Other", tmp_path):
        assert "other" in path.name or path.name == "Makefile"
        assert "MyModule" not in path.read_text() and "my_module" not in path.read_text()

# SPDX-License-Identifier: BSD-3-Clause
"""Agents and controllers that must know each other, and keys that nobody else reads."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2ctl import hardware as hardwares
from e2ctl.agent.dataplane import Dataplane
from e2ctl.agent.server import AgentServer, AgentServerError
from e2ctl.controller.agents import Agent, AgentError
from e2ctl.pki import CONTROLLER, OPERATOR, make_pki
from e2ctl.tls import IdentityError, is_local, load_identity

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")


def description(address: str) -> hardwares.Hardware:
    return hardwares.loads(
        f"servers:\n  s1: {{cores: 2, ghz: 1, nic: 1Gbps, agent: '{address}', port: 9, "
        "ip: 10.0.0.1, mac: '02:00:00:00:00:01'}\nswitch: {ports: {a: 1}}\n"
    )


@pytest.fixture
def address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def keys(tmp_path: Path, address: str) -> Path:
    made = make_pki(tmp_path / "keys", description(address))
    assert made == ["ca", CONTROLLER, OPERATOR, "s1"]
    return tmp_path / "keys"


@pytest.fixture
def agent(
    tmp_path: Path, address: str, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    server = AgentServer(
        "s1", Dataplane(f"unix:{tmp_path}/d.sock", own=True), address, load_identity(keys, "s1")
    )
    try:
        server.start()
        yield address
    finally:
        server.stop()


async def state_of(address: str, keys: Path | None) -> bool:
    identity = None if keys is None else load_identity(keys, CONTROLLER)
    known = Agent("s1", address, identity)
    try:
        return bool((await known.state()).daemon_runs)
    finally:
        await known.close()


def test_only_who_has_a_certificate_of_the_authority(
    agent: str, keys: Path, tmp_path: Path
) -> None:
    assert asyncio.run(state_of(agent, keys))
    with pytest.raises(AgentError):
        asyncio.run(state_of(agent, None))
    make_pki(tmp_path / "others", description(agent))
    with pytest.raises(AgentError):
        asyncio.run(state_of(agent, tmp_path / "others"))


def test_keys_are_made_once_and_private(keys: Path, address: str) -> None:
    before = (keys / "s1.key").read_bytes()
    assert make_pki(keys, description(address)) == []
    assert (keys / "s1.key").read_bytes() == before
    assert {path.stat().st_mode & 0o777 for path in keys.glob("*.key")} == {0o600}
    (keys / "s1.key").chmod(0o644)
    with pytest.raises(IdentityError, match=r"others can read .*chmod 600"):
        load_identity(keys, "s1")
    with pytest.raises(IdentityError, match="`e2ctl pki` makes it"):
        load_identity(keys, "s2")
    assert "PRIVATE" not in repr(load_identity(keys, CONTROLLER))


def test_keys_after_a_run_that_failed(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leaves no half of a key; what it made is used, and the rest is made."""
    with monkeypatch.context() as without:
        without.setenv("PATH", str(tmp_path))
        with pytest.raises(IdentityError, match="'openssl' is not installed"):
            make_pki(tmp_path / "keys", description(address))
    assert [*(tmp_path / "keys").iterdir()] == []
    make_pki(tmp_path / "keys", description(address))
    before = {path.name: path.read_bytes() for path in (tmp_path / "keys").glob("*.key")}
    for name in ("ca", "s1"):
        (tmp_path / "keys" / f"{name}.crt").unlink()
    assert make_pki(tmp_path / "keys", description(address)) == ["ca", "s1"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "keys").glob("*.key")} == before
    # A new certificate and an old one, by the authority's new one.
    command = ["openssl", "verify", "-CAfile", "ca.crt", "s1.crt", f"{CONTROLLER}.crt"]
    subprocess.run(command, cwd=tmp_path / "keys", check=True)


def test_other_machines_need_keys(tmp_path: Path) -> None:
    dataplane = Dataplane(f"unix:{tmp_path}/d.sock", own=True)
    with pytest.raises(AgentServerError, match=r"0\.0\.0\.0:1 is not on this machine"):
        AgentServer("s1", dataplane, "0.0.0.0:1").start()
    with pytest.raises(AgentError, match="give --pki DIR"):
        Agent("s1", "192.0.2.1:1", None)
    assert is_local("unix:/x") and is_local("[::1]:5") and is_local("localhost:5")
    assert not is_local("[2001:db8::1]:5") and not is_local("host.example:5")

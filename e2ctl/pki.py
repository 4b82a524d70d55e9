# SPDX-License-Identifier: BSD-3-Clause
"""Certificates for a cluster: an authority of its own, one for the controller, one for operators,
one per agent, one per host of an etcd.

OpenSSL's own program makes them: P-256 keys, X.509 with the names and addresses that each is
reached by. Keys never leave the folder and only its owner can read them.
"""

from __future__ import annotations

import ipaddress
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bess_plugins.private_files import create_private
from e2ctl.hardware import Hardware
from e2ctl.tls import IdentityError

__all__ = ["CONTROLLER", "OPERATOR", "make_pki"]

CONTROLLER = "controller"
OPERATOR = "operator"
_DAYS = 3650


def make_pki(
    folder: Path, hardware: Hardware, etcd: Sequence[str] = (), controller: str = "127.0.0.1"
) -> list[str]:
    """Make what is missing below ``folder``; returns the names that got new certificates.

    ``etcd`` are names or addresses of its hosts, ``controller`` is that of the controller's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    made = []
    if not (folder / "ca.crt").exists():
        _key(folder, "ca")
        _openssl(
            folder,
            ["req", "-x509", "-new", "-key", "ca.key", "-out", "ca.crt", "-days", str(_DAYS)],
            ["-subj", "/CN=e2 cluster", "-addext", "basicConstraints=critical,CA:TRUE"],
        )
        made.append("ca")
    hosts = {CONTROLLER: controller, OPERATOR: "127.0.0.1"}
    for name, server in hardware.servers.items():
        if not server.agent.startswith("unix:"):
            hosts[name] = server.agent.rpartition(":")[0].strip("[]")
    hosts |= {f"etcd-{host}": host for host in etcd}
    for name, host in hosts.items():
        if not (folder / f"{name}.crt").exists():
            _key(folder, name)
            _sign(folder, name, host)
            made.append(name)
    return made


def _openssl(folder: Path, *parts: Sequence[str]) -> str:
    """What it prints."""
    command = ["openssl", *(word for part in parts for word in part)]
    try:
        return subprocess.run(
            command, cwd=folder, check=True, capture_output=True, text=True
        ).stdout
    except FileNotFoundError:
        raise IdentityError("'openssl' is not installed") from None
    except subprocess.CalledProcessError as error:
        raise IdentityError(f"openssl: {' '.join(error.stderr.split())}") from None


def _key(folder: Path, name: str) -> None:
    """A key, never readable by others; one without a certificate, of a run that failed, stays."""
    path = folder / f"{name}.key"
    if not path.exists():
        text = _openssl(folder, ["ecparam", "-name", "prime256v1", "-genkey", "-noout"])
        create_private(path, text)


def _sign(folder: Path, name: str, host: str) -> None:
    """A certificate for a key, for the name or address that its owner is reached by."""
    try:
        where = f"IP:{ipaddress.ip_address(host)}"
    except ValueError:
        where = f"DNS:{host}"
    request, extensions = folder / f"{name}.csr", folder / f"{name}.ext"
    extensions.write_text(
        f"subjectAltName={where}\nextendedKeyUsage=serverAuth,clientAuth\n", encoding="ascii"
    )
    try:
        _openssl(
            folder,
            ["req", "-new", "-key", f"{name}.key", "-out", request.name, "-subj", f"/CN={name}"],
        )
        _openssl(
            folder,
            ["x509", "-req", "-in", request.name, "-CA", "ca.crt", "-CAkey", "ca.key"],
            ["-CAcreateserial", "-out", f"{name}.crt", "-days", str(_DAYS)],
            ["-extfile", extensions.name],
        )
    finally:
        request.unlink(missing_ok=True)
        extensions.unlink(missing_ok=True)

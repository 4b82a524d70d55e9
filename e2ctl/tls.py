# SPDX-License-Identifier: BSD-3-Clause
"""Who may talk to whom across hosts: mutual TLS, with certificates from one authority per cluster.

On one machine, over loopback or a Unix socket, there is no encryption and none is needed.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path

import grpc

__all__ = [
    "Identity",
    "IdentityError",
    "channel_credentials",
    "is_local",
    "load_identity",
    "server_credentials",
    "somebody_listens",
]


class IdentityError(Exception):
    """Keys or certificates are missing or unsafe; the message says which and what to do."""


@dataclass(frozen=True, repr=False)
class Identity:
    """A key, its certificate and that of the authority, all PEM."""

    key: bytes
    certificate: bytes
    authority: bytes


def is_local(address: str) -> bool:
    """Whether an address can only be reached from this machine."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def somebody_listens(address: str) -> bool:
    """Whether a Unix socket, ``unix:PATH``, leads to a process."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(address.removeprefix("unix:"))
        except OSError:
            return False
    return True


def load_identity(folder: Path, name: str) -> Identity:
    """Read ``NAME.key``, ``NAME.crt`` and ``ca.crt``; nobody else may read the key."""
    parts = []
    for file in (f"{name}.key", f"{name}.crt", "ca.crt"):
        path = folder / file
        try:
            if file.endswith(".key") and path.stat().st_mode & 0o077:
                raise IdentityError(f"others can read {path}; expected mode 600: chmod 600 {path}")
            parts.append(path.read_bytes())
        except OSError as error:
            reason = error.strerror or error
            raise IdentityError(f"{path}: {reason}; `e2ctl pki` makes it") from None
    return Identity(*parts)


def server_credentials(identity: Identity) -> grpc.ServerCredentials:
    """Of a server that only talks to clients of the same authority."""
    return grpc.ssl_server_credentials(
        [(identity.key, identity.certificate)],
        root_certificates=identity.authority,
        require_client_auth=True,
    )


def channel_credentials(identity: Identity) -> grpc.ChannelCredentials:
    """Of a client that only talks to servers of the same authority."""
    return grpc.ssl_channel_credentials(identity.authority, identity.key, identity.certificate)

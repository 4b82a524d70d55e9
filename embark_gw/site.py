# SPDX-License-Identifier: BSD-3-Clause
"""The description of a gateway: what it is joined to, and by which keys it encrypts.

A YAML file (section 4.1.1 of the dissertation)::

    daemon: unix:/run/e2d.sock    # the dataplane that does the work
    inside:                       # the enterprise
      device: eth0
      mac: "02:00:00:00:01:01"    # of frames that the gateway sends there
      peer: "02:00:00:00:01:02"   # of the next hop there
      networks: [10.0.0.0/8, "2001:db8:1::/48"]
    outside:                      # the Internet (Fig. 4.1a); without it another gateway with the
      device: eth1                # same key is at the provider's far end (Fig. 4.1b)
      mac: "02:00:00:00:02:01"
      peer: "02:00:00:00:02:02"
    provider:
      device: eth2
      mac: "02:00:00:00:03:01"
      peer: "02:00:00:00:03:02"
      mtu: 1600                   # of the link: the longest IP packet
      tunnel:                     # without it, encrypted packets travel as they are
        local: 192.0.2.1          # IPv4 or IPv6
        remote: 192.0.2.2
        vni: 7
      backup:                     # other middleboxes, for flows that begin after a change of rules
        vni: 8                    # which packets are for them; without a tunnel by `peer`
        flows: 262144             # to remember
        idle_s: 120               # after which a flow has ended
    key: {file: site.key, epoch: 1}
    accept: []                    # older keys whose packets may still come back
    maps: site.maps               # of `embark-gw encrypt-rules`
    pool:                         # addresses that the provider writes
      - {prefix: 203.0.113.0/28, nat: true}
    sealed: true                  # whether payloads are encrypted, too
    bound: true                   # each for its own header only, which a cache can't do with
    workers: 1                    # cores that encrypt and decrypt
    flows: 65536                  # that the provider's NAT may have at a time

Relative paths are from the file's folder. A key that `rotate` has put in place of the one that is
written here counts until the description changes. Frames that aren't IP, and neighbour discovery,
pass between inside and outside untouched, as if the gateway were a cable.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from bess_plugins.sources import SourceError, read_document, read_source, validate

__all__ = [
    "Backup",
    "Gateway",
    "InForce",
    "Key",
    "PoolPrefix",
    "Provider",
    "Side",
    "SiteError",
    "Tunnel",
    "Way",
    "beside",
    "in_force_file",
    "load",
    "load_in_force",
    "loads",
    "placed",
    "way_file",
    "way_of_new_flows",
]

_CONFIG = ConfigDict(extra="forbid", frozen=True)
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_LEAST_MTU = 1280  # of IPv6
# The most that a packet grows by, unless it has several things that few packets have: a fragment of
# IPv6, whose place in the datagram is in option and header, with a seal, which also the later ones
# of packets that aren't sealed have (docs/embark.md).
_GROWTH_BYTES = 120
# Ethernet, UDP and Geneve without options, and the outer IP header.
_GENEVE_BYTES = 14 + 8 + 8
_IP_BYTES = {4: 20, 6: 40}


class SiteError(SourceError):
    """The description of a gateway is wrong."""


def _mac(value: object) -> object:
    if not isinstance(value, str) or _MAC.fullmatch(value.lower()) is None:
        raise ValueError(f"{value!r} is not a MAC address; expected one like 02:00:00:00:00:01")
    return value.lower()


def _ip(value: object) -> object:
    try:
        return str(ipaddress.ip_address(str(value)))
    except ValueError:
        raise ValueError(f"{value!r} is not an IP address") from None


def _network(value: object) -> object:
    try:
        return str(ipaddress.ip_network(str(value)))
    except ValueError as error:
        raise ValueError(f"{error}; expected a prefix such as 10.0.0.0/8") from None


Mac = Annotated[str, BeforeValidator(_mac)]
Ip = Annotated[str, BeforeValidator(_ip)]
Network = Annotated[str, BeforeValidator(_network)]
Device = Annotated[str, Field(pattern=r"^[^\s/]{1,15}$")]


class Side(BaseModel):
    """A link to a next hop."""

    model_config = _CONFIG

    device: Device
    mac: Mac
    peer: Mac


class Inside(Side):
    """The enterprise's side, with its prefixes."""

    networks: tuple[Network, ...] = Field(min_length=1)


class Tunnel(BaseModel):
    """Geneve (RFC 8926) between gateway and provider."""

    model_config = _CONFIG

    local: Ip
    remote: Ip
    vni: int = Field(default=1, ge=0, lt=1 << 24)

    @model_validator(mode="after")
    def _one_version(self) -> Tunnel:
        if len({ipaddress.ip_address(end).version for end in (self.local, self.remote)}) > 1:
            raise ValueError(f"a tunnel from {self.local} to {self.remote} mixes IPv4 and IPv6")
        return self

    @property
    def version(self) -> int:
        """Of its own IP packets."""
        return ipaddress.ip_address(self.local).version

    @property
    def overhead(self) -> int:
        """Bytes that it adds to an IP packet."""
        return _GENEVE_BYTES + _IP_BYTES[self.version]


class Way(NamedTuple):
    """How packets get to a chain of middleboxes; modules of it have names with this ending."""

    ending: str
    peer: str
    tunnel: Tunnel | None


class Backup(BaseModel):
    """The provider's second chain of middleboxes, which has other rules while flows end."""

    model_config = _CONFIG

    peer: Mac | None = None
    vni: int | None = Field(default=None, ge=0, lt=1 << 24)
    flows: int = Field(default=1 << 18, ge=1, le=1 << 21)
    idle_s: int = Field(default=120, ge=1, le=86400)


class Provider(Side):
    """The provider's side."""

    mtu: int = Field(default=1500, ge=_LEAST_MTU, le=65535)
    tunnel: Tunnel | None = None
    backup: Backup | None = None

    @model_validator(mode="after")
    def _two_ways(self) -> Provider:
        if self.backup is None:
            return self
        if self.tunnel is not None and self.backup.vni in (None, self.tunnel.vni):
            raise ValueError(f"backup.vni must be there, and another one than {self.tunnel.vni}")
        if self.tunnel is None and self.backup.vni is not None:
            raise ValueError("backup.vni needs a tunnel; without one backup.peer tells the ways")
        if self.tunnel is None and self.backup.peer in (None, self.peer):
            raise ValueError(f"backup.peer must be there, and another one than {self.peer}")
        return self

    @property
    def ways(self) -> tuple[Way, ...]:
        """To the middleboxes, and to the backup where there is one."""
        main = Way("", self.peer, self.tunnel)
        if self.backup is None:
            return (main,)
        tunnel = self.tunnel
        if tunnel is not None:
            tunnel = tunnel.model_copy(update={"vni": self.backup.vni})
        return (main, Way("_backup", self.backup.peer or self.peer, tunnel))


class Key(BaseModel):
    """A key file and the number that packets name it by."""

    model_config = _CONFIG

    file: Path
    epoch: int = Field(default=0, ge=0, le=255)


class InForce(BaseModel):
    """The key that is used ``instead`` of a description's, and older ones whose packets are taken.

    In a file beside the maps, so that a daemon that is restarted does not go back to the old key.
    """

    model_config = _CONFIG

    instead: Key
    key: Key
    accept: tuple[Key, ...] = ()


class PoolPrefix(BaseModel):
    """Addresses that the provider may write; with ``nat``, ports beside them."""

    model_config = _CONFIG

    prefix: Network
    nat: bool = False


class Gateway(BaseModel):
    """A gateway."""

    model_config = _CONFIG

    daemon: str = "unix:/run/e2d.sock"
    inside: Inside
    outside: Side | None = None
    provider: Provider
    key: Key
    accept: tuple[Key, ...] = ()
    maps: Path
    pool: tuple[PoolPrefix, ...] = ()
    sealed: bool = True
    bound: bool = True
    workers: int = Field(default=1, ge=1, le=32)
    flows: int = Field(default=65536, ge=1, le=1 << 22)
    clients: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Gateway:
        epochs = [key.epoch for key in self.keys]
        if len({*epochs}) < len(epochs):
            raise ValueError(f"each key needs an epoch of its own; here they are {epochs}")
        sides = [side for side in (self.inside, self.outside, self.provider) if side is not None]
        if self.clients and not self.has_nat:
            raise ValueError(
                "clients are those of load balancers, whose addresses are in the pool with nat; "
                "list them, or leave clients out"
            )
        devices = [side.device for side in sides]
        if len({*devices}) < len(devices):
            raise ValueError(f"each side needs a device of its own; here they are {devices}")
        if (missing := _LEAST_MTU - self.mtu) > 0:
            raise ValueError(
                f"hosts could send packets of {self.mtu} bytes, and IPv6 needs {_LEAST_MTU}; raise "
                f"provider.mtu to {self.provider.mtu + missing}"
            )
        return self

    @property
    def keys(self) -> tuple[Key, ...]:
        """All keys whose packets are taken back."""
        return (self.key, *self.accept)

    @property
    def has_nat(self) -> bool:
        """Whether the provider writes ports, too, beside some of the pool's addresses."""
        return any(entry.nat for entry in self.pool)

    @property
    def encrypted_mtu(self) -> int:
        """The longest encrypted packet, in bytes of IP."""
        tunnel = self.provider.tunnel
        return self.provider.mtu - (tunnel.overhead if tunnel else 0)

    @property
    def mtu(self) -> int:
        """The longest packet that hosts may send, in bytes of IP."""
        return self.encrypted_mtu - _GROWTH_BYTES


def loads(text: str, file: str = "<gateway>", folder: Path = Path()) -> Gateway:
    """Parse a description; the first error is raised as `SiteError`."""
    document: Any = read_document(text, file, "a mapping with inside and provider", SiteError)
    return _within(validate(Gateway, document, file, SiteError), folder)


def load(path: Path) -> Gateway:
    """Read a description from a file, with the key that is in force."""
    described = loads(read_source(path, SiteError), str(path), path.absolute().parent)
    found = load_in_force(described)
    if found is None or found.instead != described.key:
        return described  # whoever wrote another key there knows of it
    others = tuple(key for key in described.accept if key not in (found.key, *found.accept))
    return described.model_copy(update={"key": found.key, "accept": (*found.accept, *others)})


def load_in_force(gateway: Gateway) -> InForce | None:
    """Which key is used instead of the description's, if there is such a file."""
    path = in_force_file(gateway)
    if not path.exists():
        return None
    document: Any = read_document(read_source(path, SiteError), str(path), "a key", SiteError)
    return validate(InForce, document, str(path), SiteError)


def beside(gateway: Gateway, ending: str) -> Path:
    """A file that belongs to a gateway's maps."""
    return gateway.maps.with_name(gateway.maps.name + ending)


def way_file(gateway: Gateway) -> Path:
    """Where it is which of `Provider.ways` new flows take, by number."""
    return beside(gateway, ".way")


def way_of_new_flows(gateway: Gateway) -> int:
    """Where flows go that begin now; 0 where there is one way, or rules never changed."""
    if gateway.provider.backup is None or not way_file(gateway).exists():
        return 0
    return 1 if read_source(way_file(gateway), SiteError).strip() == "1" else 0


def in_force_file(gateway: Gateway) -> Path:
    """Where a key is that is used instead of the description's."""
    return beside(gateway, ".key")


def placed(path: Path, folder: Path = Path()) -> Path:
    """The one name for a file: however it was given, a key is the same one."""
    whole = folder / path
    return whole.parent.resolve() / whole.name  # a link may lead to another file tomorrow


def _within(gateway: Gateway, folder: Path) -> Gateway:
    """With paths from a folder, as the daemon has another one."""

    def found(key: Key) -> Key:
        return key.model_copy(update={"file": placed(key.file, folder)})

    return gateway.model_copy(
        update={
            "key": found(gateway.key),
            "accept": tuple(map(found, gateway.accept)),
            "maps": folder / gateway.maps,
        }
    )

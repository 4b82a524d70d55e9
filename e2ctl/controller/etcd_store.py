# SPDX-License-Identifier: BSD-3-Clause
"""A store in etcd, which outlives any one machine, for a controller with standbys.

Two keys: ``PREFIX/state``, and ``PREFIX/leader``, which is bound to a lease of 2 s that the one
controller keeps alive. Every write is one transaction that compares the revision at which the
leader's key was made, so that a controller that was held up for longer than its lease can't write
over what its follower did; and the revision of the state, so that a request that was given up on
can't come after a later one.
"""

from __future__ import annotations

import asyncio
import base64
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import requests
import urllib3
from etcd3gw.client import Etcd3Client
from etcd3gw.exceptions import Etcd3Exception
from etcd3gw.lease import Lease
from pydantic import TypeAdapter, ValidationError

from e2ctl.controller.store import State, StoreError, me, pause
from e2ctl.pki import CONTROLLER

__all__ = ["EtcdStore"]

_ADDRESS = re.compile(r"(etcds?)://([^/,]+:\d+(?:,[^/,]+:\d+)*)/(\S+)")
_TTL_S = 2  # the shortest that etcd grants
_KEEP_S = 0.4
_POLL_S = 0.1
_CALL_S = 1.3  # on all endpoints together
_API = "/v3/"  # since etcd 3.4
_STATE = TypeAdapter(State)
T = TypeVar("T")


class _Endpoints:
    """The members of an etcd cluster; the one that answered last is asked first."""

    def __init__(self, where: str, pki: Path | None) -> None:
        found = _ADDRESS.fullmatch(where)
        if found is None:
            raise StoreError(f"'{where}': expected etcd://HOST:PORT[,HOST:PORT...]/PREFIX")
        scheme, addresses, self.prefix = found[1], found[2].split(","), found[3].strip("/")
        if scheme == "etcds" and pki is None:
            raise StoreError(f"{where} needs keys; give --pki DIR")
        self.where = where
        self._lock = threading.Lock()
        self._clients = []
        for address in addresses:
            host, _, port = address.rpartition(":")
            client = Etcd3Client(host.strip("[]"), int(port), api_path=_API)
            client.session.trust_env = False  # no proxy
            if scheme == "etcds" and pki is not None:
                client.protocol = "https"
                client.session.verify = str(pki / "ca.crt")
                client.session.cert = (
                    str(pki / f"{CONTROLLER}.crt"),
                    str(pki / f"{CONTROLLER}.key"),
                )
            self._clients.append(client)

    def call(self, work: Callable[[Etcd3Client], T]) -> T:
        """Do something at the first member that can; a `StoreError` says what each answered."""
        with self._lock:
            deadline, said = time.monotonic() + _CALL_S, []
            for tried, client in enumerate(tuple(self._clients)):
                share = (deadline - time.monotonic()) / (len(self._clients) - tried)
                # A number would be a limit for connecting, and the same again for each read.
                limit: Any = urllib3.Timeout(total=max(share, 0.01))
                client.timeout = limit
                try:
                    done = work(client)
                except (Etcd3Exception, requests.RequestException, OSError, ValueError) as error:
                    said.append(f"{client.host}:{client.port} {_reason(error)}")
                else:
                    self._clients.remove(client)
                    self._clients.insert(0, client)
                    return done
            raise StoreError(f"{self.where}: {'; '.join(said)}")

    def close(self) -> None:
        """Let go of connections."""
        for client in self._clients:
            client.session.close()


def _reason(error: Exception) -> str:
    """What went wrong in a few words; the library quotes its library, which quotes the system."""
    text = str(error)
    if isinstance(error, Etcd3Exception) and error.detail_text:
        text = error.detail_text.strip()
    if "timed out" in text:
        return "does not answer; it may be down, or without most of its peers"
    if found := re.search(r'"error":\s*"([^"]*)"', text):
        return f"refuses: {found[1]}"
    found = re.search(r"\[Errno -?\d+\] ([^'\")]*)", text) or re.search(r"\(SSLError\((.*)\)", text)
    return f"can't be reached: {found[1].strip() if found else text}"


async def _aside(work: Callable[[], T]) -> T:
    """Do what blocks in a thread, and to its end where the caller is cancelled meanwhile."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        with suppress(StoreError):
            await task
        raise


@dataclass(frozen=True)
class _Value:
    """A key's value, the lease that it is bound to, and when it was made and changed."""

    value: bytes
    lease: int
    made: int
    changed: int


class _Leadership:
    """The lease of the one controller, kept alive by a thread with connections of its own."""

    def __init__(self, endpoints: _Endpoints, lease: int, until: float) -> None:
        self.lease = lease
        self.revision = 0
        self.changed = 0
        self._endpoints = endpoints
        self._until = until
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="etcd-lease", daemon=True)

    @property
    def holds(self) -> bool:
        """Whether the lease can't have run out."""
        return time.monotonic() < self._until

    def keep(self) -> None:
        """Begin to keep it alive."""
        self._thread.start()

    def _keep(self) -> None:
        while not self._over.wait(_KEEP_S):
            asked = time.monotonic()
            with suppress(StoreError):
                left = self._endpoints.call(lambda client: Lease(self.lease, client).refresh())
                if left <= 0:
                    self._until = asked
                    return
                self._until = asked + left

    def end(self) -> None:
        """Let another lead at once, or after the lease where etcd can't be told."""
        self._over.set()
        self._thread.join()
        self._until = time.monotonic()
        with suppress(StoreError):
            self._endpoints.call(lambda client: Lease(self.lease, client).revoke())
        self._endpoints.close()


class EtcdStore:
    """Keys below a prefix of an etcd cluster. Calls block for 1.5 s at most."""

    def __init__(self, where: str, pki: Path | None = None) -> None:
        self.where = where
        self._pki = pki
        self._endpoints = _Endpoints(where, pki)
        self._leader_key = f"{self._endpoints.prefix}/leader"
        self._state_key = f"{self._endpoints.prefix}/state"
        self._leadership: _Leadership | None = None

    @property
    def leads(self) -> bool:
        """Whether this is the one controller; false also when etcd was not reached for 2 s."""
        return self._leadership is not None and self._leadership.holds

    @contextmanager
    def only_one(self) -> Iterator[None]:
        """Be the one controller; a `StoreError` names the one that is already."""
        if (holder := self._take()) is not None:
            raise StoreError(f"another controller is at work with {self.where}: {holder}")
        try:
            yield
        finally:
            self._release()

    @asynccontextmanager
    async def lead(self, stop: asyncio.Event | None = None) -> AsyncIterator[None]:
        """Wait to be the one controller, also while etcd can't be reached after the first try."""
        try:
            holder = await _aside(self._take)
            while holder is not None and await pause(_POLL_S, stop):
                with suppress(StoreError):
                    holder = await _aside(self._take)
            yield
        finally:
            await _aside(self._release)

    def _take(self) -> str | None:
        """Become the leader; or who is."""
        if (leader := self._get(self._leader_key)) is not None:
            return leader.value.decode(errors="replace")
        asked = time.monotonic()
        lease = self._endpoints.call(lambda client: client.lease(_TTL_S).id)
        taken = _Leadership(_Endpoints(self.where, self._pki), lease, asked + _TTL_S)
        _, (leader, state) = self._transaction(
            [_compare(self._leader_key, "CREATE", "create_revision", 0)],
            _put(self._leader_key, me().encode(), lease),
            (self._leader_key, self._state_key),
        )
        if leader is None or leader.lease != lease:
            return "it has just begun" if leader is None else leader.value.decode(errors="replace")
        taken.revision, taken.changed = leader.made, state.changed if state else 0
        taken.keep()
        self._leadership = taken
        return None

    def _release(self) -> None:
        if self._leadership is not None:
            self._leadership.end()
            self._leadership = None

    def read(self) -> State:
        """What is known to most members."""
        held = self._get(self._state_key)
        if held is None:
            return State()
        try:
            return _STATE.validate_json(held.value)
        except ValidationError as error:
            raise StoreError(f"{self.where}: {self._state_key} is no state: {error}") from None

    def write(self, state: State) -> None:
        """Remember all of it, or nothing; only as the one controller."""
        held, value = self._leadership, _STATE.dump_json(state)
        if held is None:
            raise StoreError(f"{self.where}: this process is not the one controller")
        # Once more where a request that was given up on has arrived since.
        for _ in range(2):
            compare = [
                _compare(self._leader_key, "CREATE", "create_revision", held.revision),
                _compare(self._state_key, "MOD", "mod_revision", held.changed),
            ]
            put = _put(self._state_key, value)
            done, (leader, there) = self._transaction(
                compare, put, (self._leader_key, self._state_key)
            )
            if leader is None or leader.made != held.revision:
                follower = leader.value.decode(errors="replace") if leader else "nobody, for now"
                raise StoreError(
                    f"{self.where}: {me()} is no longer the controller; that is {follower}"
                )
            held.changed = there.changed if there else 0
            if done or (there is not None and there.value == value):
                return
        raise StoreError(f"{self.where}: {self._state_key} is changed by somebody else, too")

    def close(self) -> None:
        """Let go of connections."""
        self._release()
        self._endpoints.close()

    def _get(self, key: str) -> _Value | None:
        return self._transaction([], None, (key,))[1][0]

    def _transaction(
        self,
        compare: Sequence[Mapping[str, Any]],
        put: Mapping[str, Any] | None,
        keys: Sequence[str],
    ) -> tuple[bool, list[_Value | None]]:
        """Put where all compares hold; whether they did, and what keys hold afterwards."""
        gets = [{"request_range": {"key": _text(key.encode())}} for key in keys]
        puts = [{"request_put": put}] if put else []
        request = {"compare": compare, "success": [*puts, *gets], "failure": gets}
        reply: Any = self._endpoints.call(lambda client: client.transaction(request))
        ranges = [part["response_range"] for part in reply["responses"] if "response_range" in part]
        return bool(reply.get("succeeded")), [_value(found.get("kvs")) for found in ranges]


def _compare(key: str, target: str, field: str, revision: int) -> dict[str, Any]:
    return {
        "key": _text(key.encode()), "result": "EQUAL", "target": target, field: str(revision)
    }  # fmt: skip


def _put(key: str, value: bytes, lease: int = 0) -> dict[str, Any]:
    return {"key": _text(key.encode()), "value": _text(value), "lease": str(lease)}


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _value(found: list[dict[str, Any]] | None) -> _Value | None:
    """The one of a range; zeros are left out of JSON."""
    if not found:
        return None
    (one,) = found
    return _Value(
        base64.b64decode(one.get("value", "")),
        int(one.get("lease", 0)),
        int(one["create_revision"]),
        int(one["mod_revision"]),
    )

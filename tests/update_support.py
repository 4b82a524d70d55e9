# SPDX-License-Identifier: BSD-3-Clause
"""Updates under traffic: two rule sets that show a mix, who answers, and who dies in the middle.

Both rule sets let a good host through and not a bad one; `STRICT` denies what it doesn't know,
`OPEN` accepts it. Each knows only one of the hosts, whose encryption under the other set, or under
the same set encrypted anew, it can't know: a good host's packet is denied, or a bad one's passes,
as soon as one set's encryption meets the other's rules.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bess_plugins.client import BessError, Client
from embark_gw import updates
from embark_gw.journal import to_hex
from gateway_support import Ends, frame, read

__all__ = [
    "BAD",
    "GOOD",
    "HOSTS",
    "OPEN",
    "SERVER",
    "STRICT",
    "Answering",
    "check",
    "killer",
    "packet",
    "refusing",
    "signature",
]

STRICT = "DROP\n-s 10.0.0.0/24 -p udp -m udp --dport 80 -j ACCEPT"
OPEN = "ACCEPT\n-s 10.0.1.0/24 -j DROP"
SERVER = "198.51.100.7"
GOOD, BAD = b"good", b"bad!"
HOSTS = 8


def packet(number: int) -> bytes:
    """Of good hosts and bad ones in turn."""
    kind, which = (GOOD, 0) if number % 2 else (BAD, 1)
    host = number // 2 % HOSTS
    return frame(f"10.0.{which}.{2 + host}", SERVER, payload=b"%s%8d" % (kind, number))


class Answering(threading.Thread):
    """A server that answers whatever it gets, and all that came there and back."""

    def __init__(self, lab: Ends) -> None:
        super().__init__(name="answering")
        self.got: list[tuple[str, int, str, int, bytes]] = []
        self.back: list[tuple[str, int, str, int, bytes]] = []
        self.stopped = threading.Event()
        self._lab = lab

    def run(self) -> None:
        host = threading.Thread(target=self._listen)
        host.start()
        while not self.stopped.is_set():
            if (one := self._lab.server.receive(0.1)) is not None:
                seen = read(one)
                self.got.append(seen)
                src, sport, dst, dport, payload = seen
                answer = frame(dst, src, sport=dport, dport=sport, payload=payload)
                self._lab.server.send(answer)
        host.join()

    def _listen(self) -> None:
        while not self.stopped.is_set():
            if (one := self._lab.host.receive(0.1)) is not None:
                self.back.append(read(one))

    def __enter__(self) -> Answering:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.join()


def check(answering: Answering, sent: int) -> None:
    """Every good packet came there and back once, and no bad one; each host has one translation."""
    good = [number for number in range(sent) if number % 2]
    payloads = [b"%s%8d" % (GOOD, number) for number in good]
    assert Counter(one[4] for one in answering.got) == Counter(payloads)
    assert Counter(one[4] for one in answering.back) == Counter(payloads)
    external: dict[int, set[tuple[str, int]]] = {}
    for src, sport, _, _, payload in answering.got:
        external.setdefault(int(payload[4:]) // 2 % HOSTS, set()).add((src, sport))
    assert [len(found) for found in external.values()] == [1] * HOSTS
    for _, _, dst, dport, payload in answering.back:
        assert (dst, dport) == (f"10.0.0.{2 + int(payload[4:]) // 2 % HOSTS}", 1000)


def signature(config: Any) -> set[str]:
    """Rules, however fields that are not there are told."""
    plain = to_hex(config)
    return {
        json.dumps([rule["gate"], sorted(term.get("value_bin") or "" for term in rule["terms"])])
        for rule in plain["rules"]
    } | {str(int(plain["default_gate"]))}


# Reads a step and a change; makes the change in a child that is killed at that step: before or
# after a function of the modules below, a call of a daemon, or a change of a file.
DYING = """
import json, os, pathlib, signal, sys
from itertools import count
from bess_plugins.client import _base
from embark_gw import journal, middleboxes, site, stateful, swaps, updates
OWN = {updates.__file__, journal.__file__, middleboxes.__file__, stateful.__file__}
LOOKS = {"_workers", "_plan", "_maps", "_with_key", "_refusals", "readdressed", "config"}
LOOKS |= {"both", "without_addresses", "_alone", "plus", "_stale"}
LOOKS |= {"new_key", "to_hex", "from_hex", "_converted", "inside", "term_of", "range_of"}
def counts(code):
    if code.co_filename in OWN:
        return code.co_name not in LOOKS and not code.co_name.startswith("<")
    return (code.co_filename == _base.__file__ and code.co_name == "call") or (
        code.co_filename == pathlib.__file__ and code.co_name in ("rename", "unlink"))
def run(path, step, how, arg):
    numbers = count()
    def look(frame, event, _):
        if event in ("call", "return") and counts(frame.f_code) and next(numbers) == step:
            os.kill(os.getpid(), signal.SIGKILL)
    gateway = site.load(pathlib.Path(path))
    sys.setprofile(look)
    if how == "rotate":
        key = site.Key(**arg.pop("key"))
        updates.rotate(gateway, swaps.make_rotation(gateway, key, **arg))
    else:
        updates.update_rules(gateway, journal.Swap(**arg))
    sys.setprofile(None)
for line in sys.stdin:
    path, step, how, arg = json.loads(line)
    child = os.fork()
    if child == 0:
        run(path, step, how, arg)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@contextmanager
def killer(site: Path) -> Iterator[Callable[[int, str, dict[str, Any]], int]]:
    """What updates rules by a swap, or rotates, is killed at a step, and tells how that ended."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-P", "-c", DYING]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        to, back = process.stdin, process.stdout

        def run(step: int, how: str, arg: dict[str, Any]) -> int:
            to.write(json.dumps([str(site), step, how, arg]) + "\n")
            to.flush()
            return int(back.readline())

        yield run
        to.close()


def refusing(
    patch: pytest.MonkeyPatch, refused: Callable[[str, str], bool], code: int = 22
) -> None:
    """Have daemons refuse commands, by module and command, of whoever updates rules from now on."""

    class Refusing(Client):
        def run_module_command(self, name: str, command: str, *args: Any, **more: Any) -> Any:
            if refused(name, command):
                raise BessError(code, "no, thank you")
            return super().run_module_command(name, command, *args, **more)

    patch.setattr(updates, "Client", Refusing)

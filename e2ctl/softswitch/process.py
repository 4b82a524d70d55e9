# SPDX-License-Identifier: BSD-3-Clause
"""The process: ``python -m e2ctl.softswitch.process CONFIG.json``.

A port of the switch is a client of a host's UnixSocketPort; while nobody listens there, what is to
leave by it is dropped. Rules come over a Unix socket, a line of JSON for each question and answer:

    {"replace": [RULE, ...]}   {"entries": 5}
    {"entries": true}          {"entries": 5}
    {"counters": true}         {"counters": [[RULE, PACKETS, BYTES], ...]}
    anything that is wrong     {"error": "why"}

The configuration has ``control`` (the socket's path), ``table`` (how many rules there may be) and
``ports`` (from numbers to paths).
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from e2ctl.softswitch.forward import RuleTable, forward
from e2ctl.softswitch.frames import parse, with_tags
from e2ctl.switch_rules import SwitchRule

__all__ = ["SoftSwitch"]

_RULES = TypeAdapter(tuple[SwitchRule, ...])
_LONGEST = 1 << 16
_MOST_AT_ONCE = 64
_LONGEST_LINE = 1 << 26
_ANSWER_S = 1.0
_RETRY_S = 0.02


class SoftSwitch:
    """Ports that may have somebody at the other end, and rules between them."""

    def __init__(self, control: Path, table: int, ports: Mapping[int, Path]) -> None:
        self._table = table
        self._paths = dict(ports)
        self._links: dict[int, socket.socket] = {}
        self._rules = RuleTable(())
        self._selector = selectors.DefaultSelector()
        self._control = socket.socket(socket.AF_UNIX)
        with suppress(FileNotFoundError):
            control.unlink()
        self._control.bind(str(control))
        self._control.listen()
        self._selector.register(self._control, selectors.EVENT_READ, self._accept)

    def run(self) -> None:
        """Forward frames until the process is ended."""
        tried = 0.0
        while True:
            missing = [port for port in self._paths if port not in self._links]
            if missing and time.monotonic() - tried >= _RETRY_S:
                tried = time.monotonic()
                for port in missing:
                    self._connect(port)
            for key, _ in self._selector.select(_RETRY_S if missing else None):
                key.data()

    def _connect(self, port: int) -> None:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        link.setblocking(False)
        try:
            link.connect(str(self._paths[port]))
        except OSError:
            link.close()  # the host's daemon has no such port now
            return
        self._links[port] = link
        self._selector.register(link, selectors.EVENT_READ, partial(self._receive, port))

    def _receive(self, port: int) -> None:
        link = self._links[port]
        for _ in range(_MOST_AT_ONCE):
            try:
                data = link.recv(_LONGEST)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._selector.unregister(link)
                del self._links[port]
                link.close()
                return
            self._forward(port, data)

    def _forward(self, port: int, data: bytes) -> None:
        frame = parse(data, port)
        if frame is None:
            return
        sent = forward(self._rules, frame.fields, frame.tags, frame.flow_id, len(data))
        for target, tags in sent:
            link = self._links.get(target)
            if link is not None:
                with suppress(OSError):  # full, or gone: lost, as on a wire
                    link.send(with_tags(frame, tags))

    def _accept(self) -> None:
        asking, _ = self._control.accept()
        asking.settimeout(_ANSWER_S)  # answers are short
        question = partial(self._question, asking, bytearray())
        self._selector.register(asking, selectors.EVENT_READ, question)

    def _question(self, asking: socket.socket, pending: bytearray) -> None:
        """Take what has come of questions, and answer those that are whole."""
        try:
            data = asking.recv(_LONGEST)
            pending += data
            while b"\n" in pending:
                line, _, rest = pending.partition(b"\n")
                pending[:] = rest
                asking.sendall(json.dumps(self._answer(bytes(line))).encode() + b"\n")
        except OSError:
            data = b""
        if not data or len(pending) > _LONGEST_LINE:
            self._selector.unregister(asking)
            asking.close()

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            asked = json.loads(line)
            if "replace" in asked:
                rules = _RULES.validate_python(asked["replace"])
                if len(rules) > self._table:
                    raise ValueError(f"{len(rules):,} entries; the table has {self._table:,}")
                self._rules = RuleTable(rules, self._rules)
            if "counters" in asked:
                counts = self._rules.counts.items()
                return {"counters": [[asdict(rule), *count] for rule, count in counts]}
        except ValidationError as error:
            return {"error": f"rules: {error.errors()[0]['msg']}"}
        except (TypeError, ValueError) as error:
            return {"error": str(error)}
        return {"entries": len(self._rules.rules)}


def main() -> None:
    """Be the switch that a configuration describes."""
    config = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    ports = {int(number): Path(path) for number, path in config["ports"].items()}
    SoftSwitch(Path(config["control"]), config["table"], ports).run()


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: BSD-3-Clause
"""A web server and a browser's way of loading pages, each a program for a namespace of its own.

`serve ADDRESS` answers /N with N bytes (HTTP/1.1, connections stay). `load` reads from standard
input what to load, as JSON, and prints how long each page took and how long a connection takes. A
page is its own bytes, then all of its objects over as many connections as browsers use at a time.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Empty, SimpleQueue
from typing import Any

CONNECTIONS = 6  # to one server, as browsers have since HTTP/1.1
PORT = 80
TIMEOUT_S = 20.0


class Handler(BaseHTTPRequestHandler):
    """Answers with as many bytes as were asked for."""

    protocol_version = "HTTP/1.1"
    # Header and content are one write: Nagle's algorithm would hold the content back.
    wbufsize = 1 << 20

    def do_GET(self) -> None:
        """The path is a number of bytes."""
        count = int(self.path[1:])
        self.send_response(200)
        self.send_header("Content-Length", str(count))
        self.end_headers()
        self.wfile.write(b"x" * count)

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""


def fetch(connection: HTTPConnection, size: int) -> None:
    """One object, whole."""
    connection.request("GET", f"/{size}")
    found = len(connection.getresponse().read())
    if found != size:
        raise RuntimeError(f"{connection.host}: {found} bytes came of {size}")


def load(host: str, page: int, objects: Sequence[int]) -> float:
    """Seconds until all of a page is there."""
    started = time.perf_counter()
    left: SimpleQueue[int] = SimpleQueue()
    for size in objects:
        left.put(size)

    def several(connection: HTTPConnection) -> None:
        try:
            while True:
                fetch(connection, left.get_nowait())
        except Empty:
            connection.close()

    first = HTTPConnection(host, PORT, timeout=TIMEOUT_S)
    fetch(first, page)
    count = min(CONNECTIONS, len(objects))
    others = [HTTPConnection(host, PORT, timeout=TIMEOUT_S) for _ in range(count - 1)]
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for _ in pool.map(several, [first, *others]):
            pass
    return time.perf_counter() - started


def connect(host: str) -> float:
    """Seconds that a connection takes to be there: a round trip."""
    connection = HTTPConnection(host, PORT, timeout=TIMEOUT_S)
    started = time.perf_counter()
    connection.connect()
    spent = time.perf_counter() - started
    connection.close()
    return spent


def load_all(task: dict[str, Any]) -> dict[str, Any]:
    """Each page by each way in turn; seconds by host, in the order of pages and rounds."""
    hosts = task["hosts"]
    pages: dict[str, list[float]] = {host: [] for host in hosts}
    connects: dict[str, list[float]] = {host: [] for host in hosts}
    for _ in range(task["rounds"]):
        for page, objects in task["pages"]:
            for host in hosts:
                connects[host].append(connect(host))
                pages[host].append(load(host, page, objects))
    return {"pages": pages, "connects": connects}


def main() -> None:
    """Entry point."""
    if sys.argv[1] == "serve":
        ThreadingHTTPServer((sys.argv[2], PORT), Handler).serve_forever()
    else:
        print(json.dumps(load_all(json.load(sys.stdin))))


if __name__ == "__main__":
    main()

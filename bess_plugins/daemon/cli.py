# SPDX-License-Identifier: BSD-3-Clause
"""The ``e2d`` command: run, start, stop and inspect the daemon."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from bess_plugins.client import BessError, Client, DaemonUnavailableError
from bess_plugins.command_line import MetricsAddress
from bess_plugins.daemon._base import DEFAULT_HOST, DEFAULT_POOL_PACKETS, DEFAULT_PORT
from bess_plugins.interrupt import Ending

app = typer.Typer(help="Control daemon of the bess-e2 dataplane.")

START_SECONDS = 30.0
STOP_SECONDS = 15.0
_POLL_SECONDS = 0.05

PortOption = Annotated[int, typer.Option("--port", "-p", min=1, max=65535, help="gRPC port.")]
SocketOption = Annotated[
    Path | None, typer.Option("--unix-socket", help="Also listen on this unix socket.")
]
PoolOption = Annotated[
    int, typer.Option("--pool-packets", min=64, help="Number of packet buffers.")
]


def runtime_dir() -> Path:
    """Directory for the pid file and the log, private to the user."""
    configured = os.environ.get("XDG_RUNTIME_DIR")
    if configured and Path(configured).is_dir():
        return Path(configured)
    path = Path(tempfile.gettempdir()) / f"e2d-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    if path.is_symlink() or path.stat().st_uid != os.getuid():
        _fail(f"{path} belongs to somebody else")
    return path


class PidFile:
    """A pid file that its daemon keeps locked for as long as it runs."""

    def __init__(self, port: int) -> None:
        self.path = runtime_dir() / f"e2d-{port}.pid"
        self.log = self.path.with_suffix(".log")
        self._fd: int | None = None

    def acquire(self) -> bool:
        """Become the one owner; false if another process is."""
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd
        return True

    def release(self) -> None:
        """Give up ownership."""
        if self._fd is not None:
            self.path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = None

    def owner(self) -> int | None:
        """Pid of the running daemon, if there is one."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.read(fd, 32).decode(errors="replace").strip()
            return int(text) if text.isdecimal() else None
        else:
            return None
        finally:
            os.close(fd)


def _fail(message: str) -> NoReturn:
    typer.echo(f"e2d: {message}", err=True)
    raise typer.Exit(1)


def _wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _answers(port: int) -> bool:
    try:
        with Client(f"{DEFAULT_HOST}:{port}", timeout=2.0) as client:
            client.version()
    except DaemonUnavailableError:
        return False
    return True


def run(port: int, unix_socket: Path | None, pool_packets: int, metrics: str | None) -> None:
    """Serve in this process until a signal or a client asks to stop."""
    # Only the process that serves needs these, and they are half of the time to start.
    from bess_plugins.daemon.server import Server, ServerError, make_engine

    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    pidfile = PidFile(port)
    if not pidfile.acquire():
        _fail(f"already running on port {port} (pid {pidfile.owner()})")
    try:
        server = Server(
            make_engine(pool_packets),
            port=port,
            unix_socket=unix_socket,
            metrics=metrics,
        )
        Ending(signal.SIGINT, signal.SIGTERM).then(server.stop)
        server.start()
        server.wait()
    except ServerError as error:
        _fail(str(error))
    finally:
        pidfile.release()


@app.callback(invoke_without_command=True)
def entry(
    context: typer.Context,
    foreground: Annotated[
        bool, typer.Option("--foreground", "-f", help="Run here instead of in the background.")
    ] = False,
    port: PortOption = DEFAULT_PORT,
    unix_socket: SocketOption = None,
    pool_packets: PoolOption = DEFAULT_POOL_PACKETS,
    metrics: MetricsAddress = None,
) -> None:
    """Control daemon of the bess-e2 dataplane."""
    if context.invoked_subcommand is not None:
        if foreground:
            _fail("--foreground does not go with a command")
        return
    if not foreground:
        typer.echo(context.get_help())
        raise typer.Exit(2)
    run(port, unix_socket, pool_packets, metrics)


@app.command()
def start(
    port: PortOption = DEFAULT_PORT,
    unix_socket: SocketOption = None,
    pool_packets: PoolOption = DEFAULT_POOL_PACKETS,
    metrics: MetricsAddress = None,
) -> None:
    """Start in the background and wait until the daemon answers."""
    pidfile = PidFile(port)
    owner = pidfile.owner()
    if owner is not None:
        _fail(f"already running on port {port} (pid {owner})")
    command = [
        sys.executable,
        "-P",  # the installed package, wherever the command is typed
        "-m",
        "bess_plugins.daemon.cli",
        "--foreground",
        f"--port={port}",
        f"--pool-packets={pool_packets}",
    ]
    if unix_socket is not None:
        command.append(f"--unix-socket={unix_socket.absolute()}")
    if metrics is not None:
        command.append(f"--metrics={metrics}")
    with pidfile.log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    ready = _wait_for(
        lambda: process.poll() is not None or (pidfile.owner() == process.pid and _answers(port)),
        START_SECONDS,
    )
    if process.poll() is not None:
        tail = pidfile.log.read_text(errors="replace").strip().splitlines()[-5:]
        _fail("\n".join(["the daemon did not start:", *tail]))
    if not ready:
        process.terminate()
        _fail(f"no answer after {START_SECONDS:.0f} s; see {pidfile.log}")
    typer.echo(f"e2d: running on {DEFAULT_HOST}:{port} (pid {process.pid})")


@app.command()
def stop(port: PortOption = DEFAULT_PORT) -> None:
    """Stop the daemon and wait until it is gone."""
    pidfile = PidFile(port)
    owner = pidfile.owner()
    if owner is None:
        typer.echo(f"e2d: not running on port {port}")
        return
    try:
        os.kill(owner, signal.SIGTERM)
    except ProcessLookupError:
        pass  # it ended by itself just now
    except PermissionError:
        _fail(f"not allowed to stop pid {owner}")
    if not _wait_for(lambda: pidfile.owner() is None, STOP_SECONDS):
        _fail(f"pid {owner} is still running after {STOP_SECONDS:.0f} s")
    typer.echo("e2d: stopped")


@app.command()
def status(port: PortOption = DEFAULT_PORT) -> None:
    """Show whether the daemon runs; exit status 3 means it does not."""
    address = f"{DEFAULT_HOST}:{port}"
    try:
        with Client(address, timeout=5.0) as client:
            version, workers = client.version(), client.list_workers()
            modules, ports = client.list_modules(), client.list_ports()
    except DaemonUnavailableError:
        typer.echo(f"e2d: not running on port {port}")
        raise typer.Exit(3) from None
    except BessError as error:
        _fail(str(error))
    running = sum(1 for worker in workers if worker["running"])
    typer.echo(
        f"e2d: version {version} on {address} (pid {PidFile(port).owner() or 'unknown'}): "
        f"{running} of {len(workers)} workers running, {len(modules)} modules, "
        f"{len(ports)} ports"
    )


def main() -> None:
    """Run the command line."""
    app(prog_name="e2d")


if __name__ == "__main__":
    main()

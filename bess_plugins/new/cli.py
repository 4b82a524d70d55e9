# SPDX-License-Identifier: BSD-3-Clause
"""Writes a module that works, for its author to change."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, NoReturn

import typer

_HELP = """Write the source of a new module, with a test and a Makefile.

NAME is the name of its class in scripts, such as MyModule. The folder then has
a module that compiles, loads into e2d, and tells long packets from short ones:
change it into yours.

\b
Examples:
  python -m bess_plugins.new MyModule
  python -m bess_plugins.new MyModule --out src/my_module
  make -C my_module test

Exit codes: 0 success, 1 nothing was written, 2 wrong usage.
"""
_PACKAGE = Path(__file__).resolve().parents[1]
_SKELETON = Path(__file__).resolve().with_name("skeleton")
_CLASS, _FILE = "MyModule", "my_module"

app = typer.Typer(help=_HELP, add_completion=False)


def header_folder() -> Path:
    """Where ``#include "host/module.h"`` is found."""
    # Beside the package in a checkout, in it where it was installed.
    folders = (_PACKAGE / "ext", _PACKAGE.parent / "ext")
    return next(folder for folder in folders if (folder / "host" / "module.h").is_file())


def proto_folder() -> Path:
    """Where ``import "module_msg.proto"`` is found."""
    return _PACKAGE / "proto"


def _print_headers(wanted: bool) -> None:
    if wanted:
        typer.echo(header_folder())
        raise typer.Exit


def _print_protos(wanted: bool) -> None:
    if wanted:
        typer.echo(proto_folder())
        raise typer.Exit


def _fail(message: str) -> NoReturn:
    typer.echo(f"bess_plugins.new: {message}", err=True)
    raise typer.Exit(1)


def snake_case(name: str) -> str:
    """``MyNATModule`` as ``my_nat_module``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _check(name: str) -> None:
    if not re.fullmatch(r"[A-Z][A-Za-z0-9]*", name):
        raise typer.BadParameter(f"{name!r} is no name of a class; one is like 'MyModule'")
    # Not needed, and slow, where make asks for folders.
    from bess_plugins.daemon.server import ServerError, make_engine

    try:
        engine = make_engine(1024)
    except ServerError as error:
        _fail(str(error))
    if name in {**engine.module_classes(), **engine.port_drivers()}:
        _fail(f"there is a class {name} already; choose another name")


def write_skeleton(name: str, folder: Path) -> list[Path]:
    """Write the files of a module of this name; raises ``FileExistsError`` and writes nothing."""
    files = {}
    for source in sorted(path for path in _SKELETON.iterdir() if path.is_file()):
        text = source.read_text(encoding="utf-8")
        target = folder / source.name.replace(_FILE, snake_case(name))
        files[target] = text.replace(_CLASS, name).replace(_FILE, snake_case(name))
    for target in files:
        if target.exists():
            raise FileExistsError(str(target))
    folder.mkdir(parents=True, exist_ok=True)
    for target, text in files.items():
        target.write_text(text, encoding="utf-8")
    return list(files)


@app.command(help=_HELP)
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of the class.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The folder. [default: the name, in small letters]")
    ] = None,
    headers: Annotated[
        bool,
        typer.Option(
            "--headers",
            callback=_print_headers,
            is_eager=True,
            help="Print the folder of the headers and exit.",
        ),
    ] = False,
    protos: Annotated[
        bool,
        typer.Option(
            "--protos",
            callback=_print_protos,
            is_eager=True,
            help="Print the folder of the protocol's .proto files and exit.",
        ),
    ] = False,
) -> None:
    """Write the source of a new module, with a test and a Makefile."""
    _check(name)
    folder = out or Path(snake_case(name))
    try:
        written = write_skeleton(name, folder)
    except FileExistsError as error:
        _fail(f"{error} is there already; nothing was written")
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}")
    for path in written:
        typer.echo(path)


def main() -> None:
    """Entry point."""
    app(prog_name="python -m bess_plugins.new")

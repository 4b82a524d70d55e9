# SPDX-License-Identifier: BSD-3-Clause
"""``python -m bess_plugins.bessd``: build the plugin, load it, check it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from bess_plugins.bessd import building, checking, loading
from bess_plugins.bessd.tree import PluginError, Tree, open_tree
from bess_plugins.client import BessError, Client, DaemonUnavailableError

_HELP = """Our modules in a real bessd, as a plugin.

\b
Examples:
  python -m bess_plugins.bessd build --bess-home ~/bess --out plugins
  python -m bess_plugins.bessd load --bess-home ~/bess --out plugins
  python -m bess_plugins.bessd check --json
  python -m bess_plugins.bessd unload
  python -m bess_plugins.bessd build --source my.cc --proto my_msg.proto --out .

Exit codes: 0 success, 1 failure, 2 wrong usage.
"""

app = typer.Typer(help=_HELP, no_args_is_help=True, add_completion=False)

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--bess-home", envvar="BESS_HOME", help="The BESS source tree that bessd was built in."
    ),
]
OutOption = Annotated[Path, typer.Option("--out", help="The folder of the plugin.")]
AddressOption = Annotated[
    str,
    typer.Option("--address", envvar="BESSD_ADDRESS", help="HOST:PORT or unix:/PATH of bessd."),
]
_ADDRESS = "127.0.0.1:10514"
_OUT = Path("build/bessd")


def _fail(error: Exception) -> NoReturn:
    if isinstance(error, DaemonUnavailableError):
        error = PluginError(f"no bessd at {error.address}; --address says where one runs")
    typer.echo(f"bessd plugin: {error}", err=True)
    raise typer.Exit(1)


def _tree(home: Path | None) -> Tree:
    if home is None:
        raise PluginError("say which tree with --bess-home or BESS_HOME")
    return open_tree(home)


@app.command()
def build(
    bess_home: HomeOption = None,
    out: OutOption = _OUT,
    source: Annotated[
        list[Path] | None,
        typer.Option(help="Source of a module of your own, instead of ours; may be repeated."),
    ] = None,
    proto: Annotated[
        list[Path] | None, typer.Option(help="Messages of your modules; may be repeated.")
    ] = None,
    march: Annotated[str, typer.Option(help="The -march= that bessd was built with.")] = "native",
    jobs: Annotated[int, typer.Option(min=0, help="Compilers at a time; 0: one per CPU.")] = 0,
) -> None:
    """Compile the modules that the tree lacks, and what BESS's Python client needs to use them."""
    try:
        tree = _tree(bess_home)
        made = building.build(
            tree, out, sources=source or [], protos=proto or [], march=march, jobs=jobs
        )
    except (PluginError, OSError) as error:
        _fail(error)
    typer.echo(f"{made}  (bessd {tree.version}, batches of {tree.batch} packets)")
    typer.echo(f"{out / 'plugin_pb'}  (copy its files into {tree.home}/pybess/plugin_pb)")


@app.command()
def load(
    plugin: Annotated[
        Path | None, typer.Argument(help="The plugin; ours for BESS_HOME where left out.")
    ] = None,
    bess_home: HomeOption = None,
    out: OutOption = _OUT,
    address: AddressOption = _ADDRESS,
) -> None:
    """Load a plugin into a running bessd, if it fits."""
    try:
        tree = _tree(bess_home) if plugin is None or bess_home is not None else None
        if plugin is None:
            assert tree is not None
            plugin = building.plugin_path(tree, out)
        with Client(address) as client:
            brought = loading.load(client, plugin, tree)
    except (PluginError, BessError, OSError) as error:
        _fail(error)
    typer.echo(f"loaded {plugin}: {', '.join(brought)}")


@app.command()
def unload(
    plugin: Annotated[
        str | None, typer.Argument(help="Its path as bessd knows it; ours where left out.")
    ] = None,
    address: AddressOption = _ADDRESS,
) -> None:
    """Remove a plugin, unless a module of it exists."""
    try:
        with Client(address) as client:
            path = plugin or loading.loaded_path(client)
            if path is None:
                raise PluginError(f"{address} has no plugin of ours")
            loading.unload(client, path)
    except (PluginError, BessError) as error:
        _fail(error)
    typer.echo(f"unloaded {path}")


@app.command()
def check(
    bess_home: HomeOption = None,
    out: OutOption = _OUT,
    address: AddressOption = _ADDRESS,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare each module in bessd with the same one here; removes all that the daemon runs.

    Loads the plugin of BESS_HOME first where the daemon has none.
    """
    try:
        with Client(address) as client:
            if loading.loaded_path(client) is None:
                tree = _tree(bess_home)
                loading.load(client, building.plugin_path(tree, out), tree)
        outcomes = checking.check_modules(address)
    except (PluginError, BessError, OSError) as error:
        _fail(error)
    if as_json:
        typer.echo(json.dumps([asdict(outcome) for outcome in outcomes], indent=2))
    else:
        table = Table("module", "", "packets", box=None, pad_edge=False)
        for outcome in outcomes:
            table.add_row(outcome.module, "ok" if outcome.ok else "FAILED", outcome.detail)
        Console(soft_wrap=True).print(table)
    if not outcomes or not all(outcome.ok for outcome in outcomes):
        raise typer.Exit(1)


def main() -> None:
    """Entry point."""
    app(prog_name="python -m bess_plugins.bessd")


if __name__ == "__main__":
    main()

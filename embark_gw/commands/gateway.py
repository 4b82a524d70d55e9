# SPDX-License-Identifier: BSD-3-Clause
"""Commands about a gateway that runs."""

from __future__ import annotations

import json
import logging
import signal
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bess_plugins.client import BessError, Client
from bess_plugins.command_line import JsonFlag, MetricsAddress
from bess_plugins.interrupt import Ending
from bess_plugins.metrics import MetricsError, serving
from embark_gw import site
from embark_gw.commands.common import SitePath, one_line_errors
from embark_gw.gateway import GatewayError, Status, status_of
from embark_gw.journal import Swap
from embark_gw.keeper import Keeper
from embark_gw.metrics import GatewayCollector
from embark_gw.rules.document import read_document
from embark_gw.swaps import SwapResult, make_rotation, make_swap
from embark_gw.updates import rotate, update_rules

__all__ = ["app"]

app = typer.Typer()
log = logging.getLogger("embark_gw")
DEFAULT_MODULE = "embark_firewall"
NatOption = Annotated[
    list[str] | None,
    typer.Option("--nat", metavar="MODULE", help="The provider's NATs; may be repeated."),
]
LbOption = Annotated[
    list[str] | None,
    typer.Option("--lb", metavar="MODULE", help="The provider's L4LBs; may be repeated."),
]
SettleOption = Annotated[
    float,
    typer.Option(
        "--settle",
        metavar="SECONDS",
        min=0,
        max=2,
        help="The longest that a packet is on its way between gateway and provider.",
    ),
]


@app.command("run", epilog="Example: embark-gw run gateway.yaml --metrics 9100")
def run_command(path: SitePath, metrics: MetricsAddress = None) -> None:
    """Be a gateway until stopped: encrypt what goes to the provider, decrypt what comes back.

    When the daemon is restarted, it gets its pipelines again. They stay when this command ends.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    stopped = threading.Event()
    Ending(signal.SIGINT, signal.SIGTERM).then(stopped.set)
    with one_line_errors(GatewayError, BessError, MetricsError, OSError):
        keeper = Keeper(lambda: site.load(path), log.warning)
        keeper.start()
        typer.echo(
            f"{path}: runs on {keeper.gateway.daemon}; hosts may send packets of "
            f"{keeper.gateway.mtu} bytes",
            err=True,
        )
        with serving(metrics, GatewayCollector(keeper)) if metrics else nullcontext():
            keeper.run(stopped.wait)


@app.command("status", epilog="Example: embark-gw status gateway.yaml")
def status_command(path: SitePath, as_json: JsonFlag = False) -> None:
    """Show what a gateway has encrypted, decrypted and dropped, and why."""
    with one_line_errors(GatewayError, BessError), Client(site.load(path).daemon) as client:
        status = status_of(client)
    if as_json:
        typer.echo(json.dumps(_plain(status), indent=2))
        return
    console = Console()
    table = Table(title="Sides", title_justify="left", header_style="bold")
    table.add_column("side")
    for name in ("packets in", "packets out"):
        table.add_column(name, justify="right")
    for side, count in status.received.items():
        table.add_row(side, f"{count:,}", f"{status.sent[side]:,}")
    console.print(table)
    console.print(f"{status.encrypted:,} encrypted, {status.decrypted:,} decrypted")
    if (flows := status.flows) is not None:
        console.print(f"{flows.flows:,} flows, {flows.left:,} of them under the rules before")
    if status.drops:
        drops = Table(title="Drops", title_justify="left", header_style="bold")
        drops.add_column("at")
        drops.add_column("reason")
        drops.add_column("packets", justify="right")
        for (module, reason), count in sorted(status.drops.items()):
            drops.add_row(module, reason, f"{count:,}")
        console.print(drops)


def _plain(status: Status) -> dict[str, object]:
    flows = status.flows
    return {
        "received": status.received,
        "sent": status.sent,
        "encrypted": status.encrypted,
        "decrypted": status.decrypted,
        "drops": [
            {"at": module, "reason": reason, "packets": count}
            for (module, reason), count in status.drops.items()
        ],
        "queues": {
            name: {"packets": count, "size": size} for name, (count, size) in status.waiting.items()
        },
        **({} if flows is None else {"flows": {"all": flows.flows, "old_rules": flows.left}}),
    }


@app.command("rotate", epilog="Example: embark-gw rotate gateway.yaml new.key --epoch 2")
def rotate_command(
    path: SitePath,
    key: Annotated[Path, typer.Argument(metavar="KEY", help="File with the new key.")],
    epoch: Annotated[int, typer.Option("--epoch", min=0, max=255, help="Its number.")],
    drain: Annotated[
        float,
        typer.Option(
            "--drain", metavar="SECONDS", min=0, help="Take the old key's packets so long."
        ),
    ] = 5.0,
    provider: Annotated[
        str,
        typer.Option(
            "--provider",
            metavar="ADDRESS",
            help="Of the provider's daemon, where it has a NAT or an L4LB.",
        ),
    ] = "",
    nats: NatOption = None,
    lbs: LbOption = None,
    settle: SettleOption = Swap.settle_s,
    told: Annotated[
        bool,
        typer.Option(
            "--told", help="Whoever writes addresses of the pool is told by other means, or nobody."
        ),
    ] = False,
) -> None:
    """Go over to another key while traffic flows; it is used from now on, also after a restart.

    Packets on their way with the old key are still decrypted. Addresses of the pool, and what NATs
    and L4LBs know of flows, change at the provider at the same time: packets wait in the gateway
    meanwhile. As long as the old key's packets are taken, the provider knows the old addresses as
    well, so another gateway that shares the key may go over to the new one, with --told.
    """

    def in_use(done: SwapResult) -> None:
        """Before packets of the old key are given up."""
        if provider:
            _tell_swap(f"epoch {epoch}: in use", made, done)
        written = f"key: {{file: {key}, epoch: {epoch}}}"
        typer.echo(f"epoch {epoch} is in use; write '{written}' into {path}")

    with one_line_errors(GatewayError, BessError):
        gateway = site.load(path)
        made = make_rotation(
            gateway,
            site.Key(file=site.placed(key), epoch=epoch),
            drain_s=drain,
            provider=provider,
            nats=nats or [],
            lbs=lbs or [],
            settle_s=settle,
            told=told,
        )
        done = rotate(gateway, made, in_use)
    for why in done.unforgotten:
        typer.echo(f"the provider still knows addresses of the old key: {why}", err=True)


def _tell_swap(what: str, made: Swap, done: SwapResult) -> None:
    carried = done.carried
    typer.echo(
        f"{what}; packets waited for {1e3 * done.held_s:.0f} ms, {carried.mappings} translations "
        "of NATs went over" + (f", {carried.ended} had ended" if carried.ended else "")
    )
    if made.lbs:
        left = (
            f", {carried.left} did not: the gateway does not know their clients, and they may get "
            "another backend"
        )
        typer.echo(
            f"{carried.connections} connections of L4LBs went over" + (left if carried.left else "")
        )
    for old, new in done.moved.items():
        typer.echo(f"{old} of the pool is {new} now")


@app.command(
    "update-rules",
    epilog="Example: embark-gw update-rules gateway.yaml --maps new.maps --rules new.json "
    "--provider 10.0.0.9:10514 --nat nat",
)
def update_command(
    path: SitePath,
    maps: Annotated[
        Path, typer.Option("--maps", metavar="NEW.maps", help="Of `embark-gw encrypt-rules`.")
    ],
    rules: Annotated[
        Path, typer.Option("--rules", metavar="NEW.json", help="Of the same; for the provider.")
    ],
    provider: Annotated[
        str, typer.Option("--provider", metavar="ADDRESS", help="Of the provider's daemon.")
    ],
    firewalls: Annotated[
        list[str] | None,
        typer.Option("--firewall", metavar="MODULE", help="Its MetadataMatch; may be repeated."),
    ] = None,
    nats: NatOption = None,
    lbs: LbOption = None,
    settle: SettleOption = Swap.settle_s,
    backup_firewalls: Annotated[
        list[str] | None,
        typer.Option(
            "--backup-firewall",
            metavar="MODULE",
            help="The MetadataMatch of the provider's backup; may be repeated.",
        ),
    ] = None,
    backup_provider: Annotated[
        str,
        typer.Option(
            "--backup-provider", metavar="ADDRESS", help="Of the backup's daemon, if it is another."
        ),
    ] = "",
) -> None:
    """Go over to other rules while traffic flows: rules, NATs, L4LBs and gateway change as one.

    Packets wait in the gateway meanwhile; none is classified by new rules with an old encryption.
    Where the description has a backup, none waits: flows keep the rules that they began under, and
    those that begin get the new ones, by turns in the provider's middleboxes and in its backup.
    The maps then take the place of those that the description names.
    """
    with one_line_errors(GatewayError, BessError, OSError):
        gateway = site.load(path)
        document = read_document(rules)
        if gateway.provider.backup is None:
            if backup_firewalls or backup_provider:
                raise GatewayError(f"{path}: has no provider.backup")
            made = make_swap(
                provider,
                maps,
                document,
                firewalls or [DEFAULT_MODULE],
                nats or [],
                settle,
                lbs=lbs or [],
            )
        else:
            if not backup_firewalls:
                raise GatewayError("the provider has a backup; name its --backup-firewall")
            if nats or lbs:
                raise GatewayError(
                    "with a backup flows keep their encryption; leave --nat and --lb out"
                )
            way = 1 - site.way_of_new_flows(gateway)
            where = (provider, backup_provider or provider)[way]
            names = (firewalls or [DEFAULT_MODULE], backup_firewalls)[way]
            made = make_swap(where, maps, document, names, settle_s=settle, way=way)
        done = update_rules(gateway, made)
    if made.way is None:
        _tell_swap(f"{rules}: in use", made, done)
    else:
        typer.echo(f"{rules}: in use for new flows; {done.kept} keep the rules before them")

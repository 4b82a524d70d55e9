# SPDX-License-Identifier: BSD-3-Clause
"""The site's side: ``keygen``, ``encrypt-rules``, ``schema``."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from bess_plugins._crypto import CryptoError, SiteKeys, write_prefix_maps
from bess_plugins.command_line import JsonFlag
from bess_plugins.private_files import create_private
from embark_gw.commands.common import one_line_errors
from embark_gw.files import replaced
from embark_gw.rules.document import FIELDS, EncryptedRules
from embark_gw.rules.encrypt import Encrypted, encrypt
from embark_gw.rules.formats import Format, read_rules
from embark_gw.rules.kept import kept_file, read_kept
from embark_gw.rules.model import RuleSet
from embark_gw.rules.pool import PoolEntry, read_pool

__all__ = ["app"]

app = typer.Typer()

_ENCRYPT = (
    "Example: embark-gw encrypt-rules firewall.save --format iptables --key site.key "
    "--maps site.maps --out rules.json"
)
_SHOWN = 20  # of the rules that are left out


class Model(StrEnum):
    """Who knows the rules (dissertation, 4.3.2)."""

    CLIENT = "a"
    BOTH = "c"


@app.command("keygen", epilog="Example: embark-gw keygen site.key")
def keygen_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where there is no file yet.")],
) -> None:
    """Make a site's key, in a file that only its owner may use."""
    with one_line_errors(OSError):
        try:
            create_private(file, secrets.token_hex(32) + "\n")
        except FileExistsError:
            raise FileExistsError(f"'{file}' is there already; a key is never replaced") from None


@app.command("encrypt-rules", epilog=_ENCRYPT)
def encrypt_command(
    rules: Annotated[
        list[Path],
        typer.Argument(
            metavar="RULES",
            help="The rules; of iptables a second file may have those of the other IP version.",
        ),
    ],
    kind: Annotated[Format, typer.Option("--format", help="What the rules are written in.")],
    key: Annotated[Path, typer.Option("--key", metavar="FILE", help="The site's key.")],
    maps: Annotated[
        Path,
        typer.Option(
            "--maps",
            metavar="OUT.maps",
            help="Where gateways will find the maps; OUT.maps.sets is for --previous.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="RULES.json", help="What the provider gets.")
    ],
    previous: Annotated[
        Path | None,
        typer.Option(
            "--previous",
            metavar="OLD.maps",
            help="Keep the prefixes of these maps where sets don't change.",
        ),
    ] = None,
    model: Annotated[
        Model, typer.Option("--model", help="c: the provider gets the rules in clear as well.")
    ] = Model.CLIENT,
    pool: Annotated[
        list[str] | None,
        typer.Option(
            "--pool",
            metavar="PREFIX[:nat]",
            help="Addresses that the provider writes, in the order that gateways have them.",
        ),
    ] = None,
    shared: Annotated[
        bool,
        typer.Option(
            "--shared-maps",
            help="Source and destination share prefixes: for a firewall behind the provider's NAT. "
            "Tells more of each address and port.",
        ),
    ] = False,
    chain: Annotated[
        str,
        typer.Option(
            "--chain", metavar="NAME", help="Where packets begin; else the one for forwarded ones."
        ),
    ] = "",
    nets: Annotated[
        list[str] | None,
        typer.Option("--net", metavar="NAME=VALUE", help="What a variable of Snort stands for."),
    ] = None,
    skip: Annotated[
        bool,
        typer.Option(
            "--skip-unsupported",
            help="Leave out rules that can't be encrypted: others decide about their packets.",
        ),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Encrypt a firewall's rules for a provider, and write the maps for the site's gateways."""
    variables = _variables(nets or [])
    addresses = _pool(pool or [])
    outputs = [maps, kept_file(maps), out]
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise typer.BadParameter("the maps and the rules need a file each", param_hint="--out")
    with one_line_errors(CryptoError, OSError):
        keys = SiteKeys(key)
        before = None if previous is None else read_kept(previous)
        rule_set = read_rules(rules, kind, chain, variables)
        if not skip:
            rule_set.check_refused()
        annotate = model is Model.BOTH
        made = encrypt(rule_set, keys, before, annotate=annotate, pool=addresses, shared=shared)
        with replaced(outputs) as (new_maps, new_kept, new_out):
            write_prefix_maps(new_maps, *(made.maps[name] for name in FIELDS))
            new_kept.write_text(made.kept.text(), encoding="utf-8")
            new_out.write_text(made.document.text(), encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(_report(rule_set, made), indent=2))
    else:
        _render(rule_set, made, Console())


def _variables(texts: list[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise typer.BadParameter(f"'{text}' is not NAME=VALUE", param_hint="--net")
        found[name] = value
    return found


def _pool(texts: list[str]) -> list[PoolEntry]:
    try:
        return read_pool(texts)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--pool") from None


def _report(rule_set: RuleSet, made: Encrypted) -> dict[str, Any]:
    refused = [
        {"where": str(item.where), "rule": item.text, "reason": item.reason}
        for item in rule_set.refused
    ]
    return {**asdict(made.report), "left_out": refused}


def _render(rule_set: RuleSet, made: Encrypted, console: Console) -> None:
    report = made.report
    table = Table(title="Fields", title_justify="left", header_style="bold")
    table.add_column("field")
    for name in ("sets in rules", "prefixes", "kept", "bits", "parts of sets", "map"):
        table.add_column(name, justify="right")
    for name, field in report.fields.items():
        numbers = (field.values, field.prefixes, field.kept, field.prefix_bits, field.parts)
        table.add_row(name, *map(str, numbers), f"{field.nbytes / 1e6:.2f} MB")
    console.print(table)
    lines = [
        f"{report.rules} rules became {report.encrypted} with sets, or {report.expanded} with one "
        "prefix per field"
    ]
    for item in rule_set.refused[:_SHOWN]:
        lines.append(f"left out: {item.where}: {item.reason}")
    if len(rule_set.refused) > _SHOWN:
        lines.append(f"left out: {len(rule_set.refused) - _SHOWN} more; --json has them all")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


@app.command("schema", epilog="Example: embark-gw schema > rules.schema.json")
def schema_command() -> None:
    """Print the JSON Schema of encrypted rules."""
    draft = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    typer.echo(json.dumps({**draft, **EncryptedRules.model_json_schema()}, indent=2))

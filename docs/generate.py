# SPDX-License-Identifier: BSD-3-Clause
"""Writes modules.md, ports.md and cli.md from the sources; `make docs` runs it."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer

from alpine.cli import app as alpine
from bess_plugins._engine import Engine
from bess_plugins.bessd.__main__ import app as bessd_plugin
from bess_plugins.daemon.cli import app as e2d
from bess_plugins.script.cli import app as bessrun
from e2ctl.cli import app as e2ctl
from embark_gw.cli import app as embark_gw
from manual import (
    MODULE_HEADINGS,
    PORT_HEADINGS,
    ROOT,
    MessageDoc,
    Page,
    head_comment,
    read_messages,
    read_pages,
)

DOCS = ROOT / "docs"
PROGRAMS = {
    "alpine": alpine,
    "e2ctl": e2ctl,
    "e2d": e2d,
    "bessrun": bessrun,
    "embark-gw": embark_gw,
    "python -m bess_plugins.bessd": bessd_plugin,
}
FAMILIES = {
    "endpoints": "where packets begin and end",
    "distribution": "which way packets go, whatever is in them, and when",
    "matching": "which way packets go by what is in them",
    "headers": "what is in packets, changed",
    "metadata": "what travels beside packets",
    "embark": "what a provider may match and not read",
    "measurement": "how fast, how many, how late",
    "network functions": "samples of whole network functions",
}
# Head comments of headers that modules refer to; each becomes a section of its own.
NOTES = {"bpf_filter.h": "Filter expressions", "field_key.h": "Fields and values"}
# Messages that many classes share; described once.
SHARED = ("Field", "FieldData")
_GENERATED = (
    "<!-- SPDX-License-Identifier: BSD-3-Clause -->\n"
    "<!-- Written by docs/generate.py (`make docs`); change the sources instead. -->\n"
)


def _anchor(title: str) -> str:
    return "#" + title.lower().replace(" ", "-")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    names = list(head)
    lines = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    lines += [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows]
    return [*lines, ""]


def _linked(text: str) -> str:
    for file, title in NOTES.items():
        text = text.replace(file, f"[{title.lower()}]({_anchor(title)})")
    return text


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _source(page: Page) -> list[str]:
    return [f"**Origin:** [{page.path}](../{page.path}); {_linked(page.text('Origin'))}", ""]


def _message(doc: MessageDoc, what: str) -> list[str]:
    if not doc.arguments:
        return [f"**{what}** `{doc.name}`: nothing.", ""]
    rows = (
        (f"`{argument.name}`", argument.type, argument.default, argument.meaning)
        for argument in doc.arguments
    )
    return [f"**{what}** `{doc.name}`:", "", *_table(("field", "type", "default", "meaning"), rows)]


def closure(names: Iterable[str], messages: dict[str, MessageDoc]) -> list[str]:
    """These messages and all that their fields hold, without those that are shared."""
    found: list[str] = []
    for name in names:
        if name in found or name in SHARED:
            continue
        found.append(name)
        inner = [argument.message for argument in messages[name].arguments if argument.message]
        found += [extra for extra in closure(inner, messages) if extra not in found]
    return found


def common_commands(classes: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The commands that every class has."""
    first = next(iter(classes.values()))["commands"]
    return [c for c in first if all(c in entry["commands"] for entry in classes.values())]


def _commands(page: Page, commands: list[dict[str, Any]]) -> list[str]:
    if not commands:
        return ["**Commands:** none.", ""]
    meanings = page.items("Commands")
    rows = (
        (
            f"`{command['name']}`",
            f"`{command['arg_type']}`",
            "" if command["response_type"] == "EmptyArg" else f"`{command['response_type']}`",
            "yes" if command["thread_safe"] else "no",
            meanings[command["name"]],
        )
        for command in commands
    )
    return ["**Commands:**", "", *_table(("command", "takes", "gives", "live", "does"), rows)]


def _module(
    page: Page, entry: dict[str, Any], commands: list[dict[str, Any]], all_: dict[str, MessageDoc]
) -> Iterator[str]:
    yield from (f"### {page.name}", "", _sentence(page.summary))
    yield from (_linked(line) for line in page.about)
    yield from (f"**Gates:** {page.text('Gates')}", "")
    argument = entry["arg_type"] or "EmptyArg"
    yield from _message(all_[argument], "Arguments,")
    yield from _commands(page, commands)
    names = [name for c in commands for name in (c["arg_type"], c["response_type"])]
    for name in closure([argument, *names], all_):
        if name != argument and all_[name].arguments:
            yield from _message(all_[name], "Message")
    yield from (f"**Metadata:** {page.text('Metadata')}", "")
    if reasons := page.items("Drop reasons"):
        yield from ("**Drop reasons:**", "")
        yield from (f"- `{reason}`: {meaning}" for reason, meaning in reasons.items())
        yield ""
    else:
        yield from ("**Drop reasons:** none.", "")
    if "Events" in page.sections:
        yield from ("**Events:**", "")
        yield from (f"- `{kind}`: {meaning}" for kind, meaning in page.items("Events").items())
        yield ""
    for heading in ("Limits", "Method"):
        if heading in page.sections:
            yield from (f"**{heading}:** {page.text(heading)}", "")
    yield from _source(page)


def modules_page(
    classes: dict[str, dict[str, Any]],
    hooks: dict[str, dict[str, Any]],
    messages: dict[str, MessageDoc],
) -> str:
    """The reference of module classes and gate hooks."""
    pages = read_pages(("modules", "nf"), set(classes), MODULE_HEADINGS)
    common = common_commands(classes)
    lines = [
        _GENERATED + "# Modules",
        "",
        "A module takes packets at its input gates and sends each to one of its output gates, or",
        "drops it with a reason. *Live* commands may run while workers do; pause workers for the",
        'others. A default is what an absent field means; where it is 0, "" or [], that value is.',
        "",
    ]
    for family, about in FAMILIES.items():
        lines += [f"**{_sentence(family)}**: {about}", ""]
        rows = (
            (f"[{name}]({_anchor(name)})", page.summary)
            for name, page in sorted(pages.items())
            if page.text("Family") == family
        )
        lines += _table(("class", "what it does"), rows)
    lines += ["## Every module", "", "Commands of all classes, besides their own:", ""]
    lines += _table(
        ("command", "takes", "gives", "does"),
        (
            (
                f"`{command['name']}`",
                f"`{command['arg_type']}`",
                f"`{command['response_type']}`",
                messages[command["arg_type"]].meaning,
            )
            for command in common
        ),
    )
    for name in closure((n for c in common for n in (c["arg_type"], c["response_type"])), messages):
        if messages[name].arguments:
            lines += _message(messages[name], "Message")
    lines += [
        "Drop reasons of all classes, besides their own: `no gate`, the packet was sent to a gate",
        "that leads nowhere; `loop`, the graph is too deep, or has a loop without a queue in it.",
        "",
        "## Classes",
        "",
    ]
    for name, entry in sorted(classes.items()):
        own = [command for command in entry["commands"] if command not in common]
        lines += _module(pages[name], entry, own, messages)
    lines += ["## Gate hooks", "", "What looks at the packets that cross a gate:", ""]
    lines += _table(
        ("hook", "what it does"), ((f"`{n}`", entry["help"]) for n, entry in sorted(hooks.items()))
    )
    for _, entry in sorted(hooks.items()):
        lines += _message(messages[entry["arg_type"]], "Arguments,")
    for file, title in NOTES.items():
        comment = head_comment(ROOT / "ext" / "modules" / file)
        lines += [f"## {title}", "", _sentence(comment[0].partition(": ")[2]), *comment[1:], ""]
    for name in SHARED:
        lines += _message(messages[name], "Message")
    return "\n".join(lines).rstrip() + "\n"


def ports_page(drivers: dict[str, dict[str, Any]], messages: dict[str, MessageDoc]) -> str:
    """The reference of port drivers."""
    pages = read_pages(("ports",), set(drivers), PORT_HEADINGS)
    lines = [
        _GENERATED + "# Port drivers",
        "",
        "A port is where packets enter and leave. `PortInc` and `PortOut`, or `QueueInc` and",
        "`QueueOut` for single queues, join it to a graph ([modules](modules.md)).",
        "",
        *_table(
            ("driver", "what it is"),
            ((f"[{name}]({_anchor(name)})", page.summary) for name, page in sorted(pages.items())),
        ),
    ]
    for name, page in sorted(pages.items()):
        lines += [f"## {name}", "", _sentence(page.summary), *page.about]
        lines += _message(messages[drivers[name]["arg_type"] or "EmptyArg"], "Arguments,")
        for heading in ("Queues", "Needs", "Threads", "Losses"):
            lines += [f"**{heading}:** {page.text(heading)}", ""]
        lines += _source(page)
    return "\n".join(lines).rstrip() + "\n"


def _help(text: str | None) -> list[str]:
    """A command's help; what stands behind \\b is laid out already."""
    plain, marker, laid_out = inspect.cleandoc(text or "").partition("\b\n")
    lines = [plain.strip(), ""]
    if not marker:
        return lines
    block, _, rest = laid_out.partition("\n\n")
    return [*lines, "```", block, "```", "", *([rest.strip(), ""] if rest.strip() else [])]


def commands_of(command: Any, words: str) -> Iterator[tuple[str, Any]]:
    """A program and its subcommands, by what is typed."""
    yield words, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands_of(inner, f"{words} {name}")


def _parameter(parameter: Any) -> tuple[str, str, str]:
    if parameter.param_type_name == "argument":
        names = f"`{parameter.metavar or parameter.name.upper()}`"
    else:
        spelled = [*parameter.opts, *parameter.secondary_opts]
        names = ", ".join(f"`{option}`" for option in spelled)
        if parameter.metavar:
            names += f" `{parameter.metavar}`"
    default = parameter.default
    if parameter.required:
        shown = "required"
    else:
        shown = "" if default in (None, False, ()) or callable(default) else str(default)
    return names, shown, parameter.help or ""


def cli_page() -> str:
    """The reference of commands and options."""
    lines = [
        _GENERATED + "# Commands",
        "",
        "Every command takes `--help`. Exit codes: 0 success, 1 failure, 2 wrong usage.",
        "",
        "`--install-completion` teaches the shell in use (bash, zsh, fish, PowerShell) to complete",
        "a program's commands and options; `--show-completion` prints what it would install. Where",
        "the shell can't be told, name it: `_E2CTL_COMPLETE=source_bash e2ctl`.",
        "",
    ]
    for program, app in PROGRAMS.items():
        for words, command in commands_of(typer.main.get_command(app), program):
            lines += [f"{'##' if words == program else '###'} `{words}`", ""]
            lines += _help(command.help)
            if rows := [_parameter(p) for p in command.params if p.name != "help"]:
                lines += _table(("argument or option", "default", "meaning"), rows)
            if command.epilog:
                example = command.epilog.removeprefix("Example: ")
                lines += ["```console", f"$ {example}", "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def generate() -> dict[Path, str]:
    """Every generated file and its text."""
    engine = Engine(pool_packets=64)
    messages = read_messages()
    return {
        DOCS / "modules.md": modules_page(engine.module_classes(), engine.hook_classes(), messages),
        DOCS / "ports.md": ports_page(engine.port_drivers(), messages),
        DOCS / "cli.md": cli_page(),
    }


def main() -> None:
    """Write the files."""
    for path, text in generate().items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()

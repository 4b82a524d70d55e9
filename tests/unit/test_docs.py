# SPDX-License-Identifier: BSD-3-Clause
"""The reference pages are up to date and leave nothing out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

import generate
import manual
from bess_plugins.client import Client
from harness import new_engine

ENGINE = new_engine()
CLASSES = ENGINE.module_classes()
DRIVERS = ENGINE.port_drivers()
MESSAGES = manual.read_messages()
PAGES = manual.read_pages(("modules", "nf"), set(CLASSES), manual.MODULE_HEADINGS)
PROGRAM_MODULES = {
    "alpine": "alpine.cli",
    "e2ctl": "e2ctl.cli",
    "e2d": "bess_plugins.daemon.cli",
    "bessrun": "bess_plugins.script.cli",
    "embark-gw": "embark_gw.cli",
}


def test_generated_files_are_up_to_date() -> None:
    for path, text in generate.generate().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is old; run `make docs`"


def test_every_class_stands_in_a_family() -> None:
    assert {page.text("Family") for page in PAGES.values()} <= set(generate.FAMILIES)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_pages_agree_with_the_registry(name: str) -> None:
    page, entry = PAGES[name], CLASSES[name]
    gates = f"in {entry['igates']}, out {entry['ogates']}"
    gates_said = re.match(r"in \d+(?= |,)[^,]*, out \d+", page.text("Gates"))
    assert gates_said is not None
    assert re.sub(r" \([^)]*\)", "", gates_said[0]) == gates
    assert page.text("Arguments") == (entry["arg_type"] or "EmptyArg")
    common = generate.common_commands(CLASSES)
    own = [command["name"] for command in entry["commands"] if command not in common]
    assert sorted(page.items("Commands")) == sorted(own)


def test_pages_name_every_drop_reason_of_their_file() -> None:
    for path in {page.path for page in PAGES.values()}:
        source = (manual.ROOT / path).read_text(encoding="utf-8")
        declared = set(re.findall(r'add_drop_reason\("([^"]*)"\)', source))
        pages = [page for page in PAGES.values() if page.path == path]
        assert {reason for page in pages for reason in page.items("Drop reasons")} == declared, path


def test_pages_name_every_event_of_their_file() -> None:
    for path in {page.path for page in PAGES.values()}:
        source = (manual.ROOT / path).read_text(encoding="utf-8")
        declared = set(re.findall(r'add_event\(\s*"([^"]*)"', source))
        pages = [page for page in PAGES.values() if page.path == path and "Events" in page.sections]
        assert {kind for page in pages for kind in page.items("Events")} == declared, path


def test_page_of_the_engine_names_the_classes_that_one_worker_may_run() -> None:
    text = (generate.DOCS / "engine.md").read_text(encoding="utf-8")
    (named,) = re.findall(r"\(`max_workers`; ([^:]*): one;", text)
    one = {name for name, entry in CLASSES.items() if entry["max_workers"] == 1}
    assert set(re.findall(r"`(\w+)`", named)) == one


def test_page_of_the_client_names_all_that_it_can_do() -> None:
    text = (generate.DOCS / "client.md").read_text(encoding="utf-8")
    methods = {name for name in dir(Client) if not name.startswith("_")}
    assert methods - set(re.findall(r"`(\w+)", text)) == {"close"}  # which leaving its block does


def test_page_of_all_modules_names_the_reasons_that_all_have() -> None:
    engine = new_engine()
    engine.create_module("m", "Sink", {})
    text = (generate.DOCS / "modules.md").read_text(encoding="utf-8")
    every_module = text[text.index("## Every module") : text.index("## Classes")]
    assert all(f"`{reason}`" in every_module for reason in engine.module_info("m")["drops"])


def test_port_pages_name_their_arguments() -> None:
    pages = manual.read_pages(("ports",), set(DRIVERS), manual.PORT_HEADINGS)
    for name, entry in DRIVERS.items():
        assert pages[name].text("Arguments") == (entry["arg_type"] or "EmptyArg")


def test_every_field_of_every_argument_has_a_meaning() -> None:
    names = {entry["arg_type"] or "EmptyArg" for entry in (*CLASSES.values(), *DRIVERS.values())}
    names |= {entry["arg_type"] for entry in ENGINE.hook_classes().values()}
    for entry in CLASSES.values():
        for command in entry["commands"]:
            names |= {command["arg_type"], command["response_type"]}
    used = [*generate.closure(sorted(names), MESSAGES), *generate.SHARED]
    missing = [
        f"{name}.{argument.name}"
        for name in used
        for argument in MESSAGES[name].arguments
        if not argument.meaning
    ]
    assert missing == []


def test_a_page_of_another_shape_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "ext" / "modules" / "odd.cc"
    source.parent.mkdir(parents=True)
    monkeypatch.setattr(manual, "ROOT", tmp_path)
    head = "// SPDX-License-Identifier: BSD-3-Clause\n// Odd: is odd.\n//\n"
    source.write_text(f"{head}// Gates: in 1, out 1.\n// Family: headers\n")
    with pytest.raises(manual.ManualError, match="'Family' is not in its place"):
        manual.read_pages(("modules",), {"Odd"}, manual.MODULE_HEADINGS)
    source.write_text(f"{head}// Family: headers\n// Gates: in 1, out 1.\n")
    with pytest.raises(manual.ManualError, match="no section 'Arguments'"):
        manual.read_pages(("modules",), {"Odd"}, manual.MODULE_HEADINGS)
    with pytest.raises(manual.ManualError, match=r"no manual page in ext/ for: Even"):
        manual.read_pages((), {"Even"}, manual.MODULE_HEADINGS)


def _parameters() -> list[Any]:
    return [
        pytest.param(words, parameter, id=f"{words}-{parameter.name}")
        for program, app in generate.PROGRAMS.items()
        for words, command in generate.commands_of(typer.main.get_command(app), program)
        for parameter in command.params
    ]


@pytest.mark.parametrize(("words", "parameter"), _parameters())
def test_every_option_has_help_and_stands_on_the_page(words: str, parameter: Any) -> None:
    assert parameter.help, f"{words}: {parameter.name} has no help text"
    text = (generate.DOCS / "cli.md").read_text(encoding="utf-8")
    section = re.search(rf"^##+ `{words}`\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    assert section is not None
    spelled = parameter.opts if parameter.param_type_name == "option" else [parameter.help]
    assert all(option in section[1] for option in spelled)


def completion_variable(program: str) -> str:
    return f"_{program.upper().replace('-', '_')}_COMPLETE"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize("program", sorted(PROGRAM_MODULES))
def test_completion_scripts(program: str, shell: str) -> None:
    variable = completion_variable(program)
    result = subprocess.run(
        [sys.executable, "-P", "-m", PROGRAM_MODULES[program]],
        env={**os.environ, variable: f"source_{shell}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert variable in result.stdout
    assert result.stdout.rstrip().endswith(program) or f"complete --command {program}" in (
        result.stdout
    )


@pytest.mark.parametrize("program", sorted(PROGRAM_MODULES))
def test_completion_offers_the_commands(program: str) -> None:
    command = typer.main.get_command(generate.PROGRAMS[program])
    result = subprocess.run(
        [sys.executable, "-P", "-m", PROGRAM_MODULES[program]],
        env={
            **os.environ,
            completion_variable(program): "complete_bash",
            "COMP_WORDS": f"{program} ",
            "COMP_CWORD": "1",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(result.stdout.split()) == set(getattr(command, "commands", {}))


def test_tests_that_a_page_names_are_there() -> None:
    folder = Path(__file__).parents[1]
    written = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*/test_*.py"))
    for page in (manual.ROOT / "docs").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r"`(test_\w+|Test\w+)`", text):
            assert re.search(rf"^\s*(def|class) {name}\b", written, re.M), f"{page.name}: {name}"
        for name in re.findall(r"`((?:unit|property|integration)/test_\w+\.py)`", text):
            assert (folder / name).exists(), f"{page.name}: {name}"

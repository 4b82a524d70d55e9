# SPDX-License-Identifier: BSD-3-Clause
"""Scripts for Alpine, and its command as a test calls it."""

from __future__ import annotations

from pathlib import Path

from click.testing import Result
from typer.testing import CliRunner

from alpine.cli import app

EXAMPLES = Path(__file__).parents[1] / "examples"
EXAMPLE = EXAMPLES / "alpine" / "firewall.alpine"
GRAPH = """\
inc::Source()
wm::RandomSplit(gates=[0, 1, 2])
inc -> wm
wm:0 -> out::Sink()
wm:1 -> log::Sink()
"""
CLASSES = f"{GRAPH}alpine.add_tc('a', [inc, wm, out])\nalpine.add_tc('b', [inc, wm, log])\n"
TIME = f"{CLASSES}alpine.add_policy('p', 'weighted_fair')\n"
PRIORITY = f"{CLASSES}alpine.add_policy('p', 'priority')\n"
A3 = "alpine.attach_tc('a', 'p', share=3)\n"
B1 = "alpine.attach_tc('b', 'p', share=1)\n"
GOOD = TIME + A3 + B1
USEFUL = GOOD.replace("fair'", "fair', useful=True")


def script(folder: Path, text: str) -> Path:
    path = folder / "test.alpine"
    path.write_text(text, encoding="utf-8")
    return path


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], prog_name="alpine")


def written(*words: str | Path) -> str:
    result = call(*words)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def refusal(*words: str | Path) -> str:
    """One line on stderr, without the name of the command; nothing on stdout."""
    result = call(*words)
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert result.stderr.startswith("alpine: ") and result.stderr.count("\n") == 1
    return result.stderr.removeprefix("alpine: ").rstrip("\n")

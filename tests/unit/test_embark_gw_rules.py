# SPDX-License-Identifier: BSD-3-Clause
"""`embark-gw keygen`, `encrypt-rules`, `schema` and `provider render`, as users run them."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from embark_gw.provider.expand import ExpansionError, expand
from embark_gw.rules.document import read_document
from embark_gw.rules.pool import read_pool

RULES = """*filter
:FORWARD DROP [0:0]
-A FORWARD -s 10.0.0.0/8 -p tcp -m multiport --dports 80,443 -j ACCEPT
-A FORWARD ! -d 192.0.2.0/24 -p udp -j ACCEPT
-A FORWARD -p gre -j ACCEPT
COMMIT
"""


def embark_gw(*args: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "embark_gw.cli", *map(str, args)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    assert embark_gw("keygen", tmp_path / "site.key").returncode == 0
    (tmp_path / "rules").write_text(RULES)
    return tmp_path


def encrypt(folder: Path, *more: str | Path) -> subprocess.CompletedProcess[str]:
    files = ["--maps", folder / "site.maps", "--out", folder / "rules.json"]
    kind = [] if "--format" in more else ["--format", "iptables"]
    key = [] if "--key" in more else ["--key", folder / "site.key"]
    return embark_gw("encrypt-rules", folder / "rules", *kind, *key, *files, *more)


def failure(result: subprocess.CompletedProcess[str]) -> str:
    """The one line of a command that failed."""
    assert result.returncode == 1, result.stdout + result.stderr
    [line] = result.stderr.splitlines()
    assert line.startswith("embark-gw: ")
    return line


def made(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"site.key", "rules"}


def test_a_key_is_private_and_never_replaced(folder: Path) -> None:
    key = folder / "site.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    text = key.read_text()
    assert len(bytes.fromhex(text.strip())) == 32 and text.endswith("\n")
    assert "never replaced" in failure(embark_gw("keygen", key))
    assert key.read_text() == text
    embark_gw("keygen", folder / "other.key")
    assert (folder / "other.key").read_text() != text
    assert "No such file" in failure(embark_gw("keygen", folder / "nowhere" / "key"))


def test_rules_are_encrypted(folder: Path) -> None:
    result = encrypt(folder, "--pool", "192.0.2.0/30:nat", "--pool", "198.51.100.7")
    assert result.returncode == 0, result.stderr
    assert "became" in result.stdout and "kept" in result.stdout
    assert made(folder) == {"site.maps", "site.maps.sets", "rules.json"}
    for name in made(folder):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    text = (folder / "rules.json").read_text()
    assert "10.0.0" not in text and "192.0.2" not in text and "443" not in text
    document = read_document(folder / "rules.json")
    assert len(document.rules) == 4  # with one for the packets of IPv6
    assert [entry.nat for entry in document.pool] == [True] * 4 + [False]
    assert all(entry.address is None for entry in document.pool)


def test_the_second_time_keeps_what_stays(folder: Path) -> None:
    def prefixes() -> dict[str, Any]:
        fields: dict[str, Any] = json.loads((folder / "site.maps.sets").read_text())["fields"]
        return fields

    report = json.loads(encrypt(folder, "--json").stdout)
    assert {field["kept"] for field in report["fields"].values()} == {0}
    first, maps = prefixes(), (folder / "site.maps").read_bytes()
    again = json.loads(encrypt(folder, "--previous", folder / "site.maps", "--json").stdout)
    assert all(field["kept"] == field["prefixes"] for field in again["fields"].values())
    assert prefixes() == first
    assert (folder / "site.maps").read_bytes() == maps
    (folder / "rules").write_text(RULES.replace("192.0.2.0/24", "192.0.2.0/25"))
    encrypt(folder, "--previous", folder / "site.maps")
    assert prefixes()["src"] == first["src"]
    assert prefixes()["dst"] != first["dst"]
    encrypt(folder)
    assert prefixes()["src"] != first["src"]


def ports(numbers: Iterable[int]) -> str:
    """A rule for each port."""
    rules = [f"-A FORWARD -p tcp -m tcp --dport {number} -j ACCEPT" for number in numbers]
    return "\n".join(["*filter", ":FORWARD DROP [0:0]", *rules, "COMMIT", ""])


def test_more_sets_than_there_was_room_for(folder: Path) -> None:
    """A port's prefixes get longer, and with that all of them are others; addresses' stay."""
    (folder / "rules").write_text(ports(range(3)))
    before = json.loads(encrypt(folder, "--json").stdout)["fields"]
    (folder / "rules").write_text(ports(range(40)))
    after = json.loads(encrypt(folder, "--previous", folder / "site.maps", "--json").stdout)
    dport, src = after["fields"]["dport"], after["fields"]["src"]
    assert before["dport"]["prefix_bits"] < dport["prefix_bits"]
    assert (dport["kept"], dport["prefixes"]) == (0, 41)
    assert src["kept"] == src["prefixes"]


def test_sets_for_thousands_of_ports(folder: Path) -> None:
    """Thousands of ports with a set each, and room for more: no bit is left that hides."""
    (folder / "rules").write_text(ports(range(8192)))
    report = json.loads(encrypt(folder, "--json").stdout)["fields"]["dport"]
    assert (report["prefixes"], report["prefix_bits"]) == (8193, 16)
    (folder / "rules").write_text(ports(range(4096, 8300)))
    again = encrypt(folder, "--previous", folder / "site.maps", "--json")
    report = json.loads(again.stdout)["fields"]["dport"]
    assert (report["prefix_bits"], report["kept"], report["prefixes"]) == (16, 4097, 4205)


def test_shared_maps(folder: Path) -> None:
    """One for source and destination each; whoever goes over to them, or back, changes all."""

    def fields(*more: str | Path) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(encrypt(folder, "--json", *more).stdout)["fields"]
        return found

    def prefixes() -> dict[str, Any]:
        kept: dict[str, Any] = json.loads((folder / "site.maps.sets").read_text())["fields"]
        return kept

    apart, previous = fields(), ("--previous", folder / "site.maps")
    both = fields("--shared-maps", *previous)
    first = prefixes()
    for one, other in (("src", "dst"), ("sport", "dport")):
        assert apart[one]["prefixes"] != apart[other]["prefixes"]
        assert both[one]["prefixes"] == both[other]["prefixes"] >= apart[one]["prefixes"]
        assert both[one]["kept"] <= 1  # of no set at all
        assert first[one] == first[other]
    document = read_document(folder / "rules.json")
    assert (len(document.sets.src), len(document.sets.dst)) == (2, 1)  # of its own rules only
    again = fields("--shared-maps", *previous)
    assert prefixes() == first and again["dst"]["kept"] == again["dst"]["prefixes"]
    assert all(field["kept"] <= 1 for field in fields(*previous).values())


def test_another_key_changes_everything(folder: Path) -> None:
    encrypt(folder)
    embark_gw("keygen", folder / "other.key")
    other = ("--previous", folder / "site.maps", "--key", folder / "other.key", "--json")
    fields = json.loads(encrypt(folder, *other).stdout)["fields"]
    assert sum(field["kept"] for field in fields.values()) <= len(fields)  # of no set at all


def test_model_c_has_the_rules_in_clear(folder: Path) -> None:
    encrypt(folder, "--model", "c", "--pool", "198.51.100.7")
    document = read_document(folder / "rules.json")
    assert [rule.text for rule in document.rules][1:] == RULES.splitlines()[2:5]
    assert [rule.line for rule in document.rules][1:] == [3, 4, 5]
    assert document.pool[0].address == "198.51.100.7"


def test_rules_that_cannot_be_taken(folder: Path) -> None:
    bad = "-A FORWARD -m conntrack --ctstate NEW -j ACCEPT"
    (folder / "rules").write_text(RULES.replace("-A FORWARD !", f"{bad}\n-A FORWARD !"))
    line = failure(encrypt(folder))
    assert "rules:4:1: match conntrack" in line and "--skip-unsupported" in line
    assert made(folder) == set()
    result = encrypt(folder, "--skip-unsupported")
    assert result.returncode == 0 and "left out: " in result.stdout


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("mode", "must be private: chmod 600"),
        ("digits", "64 hexadecimal digits"),
        ("missing", "No such file"),
        ("rules", "rules:3:15: '10.0.0.0/99' is no address or prefix"),
        ("text", "not UTF-8 text"),
        ("out", "No such file"),
        ("previous", "site.maps.sets:1:1: No such file"),
        ("public sets", "chmod 600"),
        ("sets", "fields"),
    ],
)
def test_bad_input_writes_nothing(folder: Path, spoil: str, message: str) -> None:
    key, rules, more = folder / "site.key", folder / "rules", list[str | Path]()
    ours: set[str] = set()
    if spoil == "mode":
        key.chmod(0o644)
    elif spoil == "digits":
        key.write_text("xyz")
    elif spoil == "missing":
        key.unlink()
    elif spoil == "rules":
        rules.write_text(RULES.replace("10.0.0.0/8", "10.0.0.0/99"))
    elif spoil == "text":
        rules.write_bytes(b"\xff\xfe")
    elif spoil == "out":
        more = ["--out", folder / "nowhere" / "rules.json"]
    else:
        more = ["--previous", folder / "site.maps"]
    if "sets" in spoil:
        sets = folder / "site.maps.sets"
        sets.touch(0o600)
        sets.write_text('{"fields": 5}')
        ours = {sets.name}
        if spoil == "public sets":
            sets.chmod(0o604)
    line = failure(encrypt(folder, *more))
    assert message in line
    assert made(folder) == ours


@pytest.mark.parametrize(
    "more",
    [
        ("--format", "pf"),
        ("--pool", "192.0.2.1/24"),
        ("--pool", "192.0.2.1", "--pool", "192.0.2.0/30"),
        ("--net", "HOME_NET"),
        ("--model", "b"),
    ],
)
def test_options_that_make_no_sense(folder: Path, more: tuple[str, ...]) -> None:
    result = encrypt(folder, *more)
    assert result.returncode == 2
    assert more[0] in result.stderr and "Traceback" not in result.stderr
    assert made(folder) == set()


def test_the_schema_is_that_of_documents() -> None:
    schema = json.loads(embark_gw("schema").stdout)
    assert schema["$schema"].endswith("2020-12/schema")
    assert {"format", "version", "default", "sets", "rules", "pool"} == schema["properties"].keys()


def test_rules_for_firewalls(folder: Path) -> None:
    encrypt(folder)
    nft = embark_gw("provider", "render", folder / "rules.json", "--nft").stdout
    assert nft.startswith("table ip6 embark\ndelete table ip6 embark\n")
    assert "policy drop;" in nft and "th dport @dport0" in nft
    saved = embark_gw("provider", "render", folder / "rules.json", "--ip6tables").stdout
    assert ":FORWARD DROP" in saved and "-p 17 -j ACCEPT" in saved
    both = embark_gw("provider", "render", folder / "rules.json", "--ip6tables", "--nft")
    assert both.returncode == 2 and "one of the two" in both.stderr
    most = embark_gw("provider", "render", folder / "rules.json", "--ip6tables", "--max-rules", "2")
    assert "more than 2" in failure(most)
    with pytest.raises(ExpansionError):
        list(expand(read_document(folder / "rules.json"), 2))


def test_a_document_that_was_spoiled(folder: Path) -> None:
    encrypt(folder)
    path = folder / "rules.json"
    whole = path.read_text()
    for old, new, message in (
        ('"version": 1', '"version": 2', "version"),
        ('"src": 0', '"src": 9', "rules["),
        ('"default": "deny"', '"default": "maybe"', "default"),
        ("{", "", "rules.json:"),
    ):
        path.write_text(whole.replace(old, new, 1))
        line = failure(embark_gw("provider", "render", path, "--nft"))
        assert message in line


def test_nobody_listens(folder: Path) -> None:
    encrypt(folder)
    line = failure(embark_gw("provider", "apply", folder / "rules.json", "--daemon", "127.0.0.1:1"))
    assert "no daemon at 127.0.0.1:1" in line


def test_pools() -> None:
    assert [entry.nat for entry in read_pool(["2001:db8::/127:nat", "10.0.0.1"])] == [
        *(True, True),
        False,
    ]
    with pytest.raises(ValueError, match="at most 65536"):
        read_pool(["10.0.0.0/8"])

# SPDX-License-Identifier: BSD-3-Clause
"""What a gateway does about a provider that fails, or is up to something: on two real daemons."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from embark_support import MAC_ARGS, Site, change

from embark_gw.gateway import GatewayError
from embark_gw.inspecting import Seen, inspect
from embark_gw.site import Key
from embark_gw.swaps import make_rotation
from embark_gw.updates import rotate
from gateway_support import EXTERNAL, Lab, Traffic, frame, kept, new_lab, read
from harness import new_engine, wait_until

RULES = "DROP\n-s 10.0.0.0/16 -p udp -m udp --dport 80 -j ACCEPT"
HOST, SERVER = "10.0.0.2", "198.51.100.7"
OPTION, PAYLOAD = 58, b"sixteen bytes or"
_PORTS = count(2000)


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as made:
        yield made


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """A gateway that runs, with a NAT at the provider."""
    with new_lab(tmp_path_factory.mktemp("lab"), RULES) as made, kept(made, patch):
        yield made


def packet(payload: bytes = PAYLOAD) -> bytes:
    """Of a flow that wasn't there before."""
    return frame(HOST, SERVER, sport=next(_PORTS), payload=payload)


def dropped(lab: Lab, variants: list[bytes]) -> dict[str, int]:
    """Why variants of packets from the provider are dropped; none of them may pass."""

    def drops() -> dict[str, int]:
        return {
            f"{name}: {why}": number
            for name in ("decrypt", "open")
            for why, number in lab.drops(name).items()
        }

    before = drops()
    for one in variants:
        lab.cable.send_back(one)

    def more() -> dict[str, int]:
        return {why: n - before.get(why, 0) for why, n in drops().items() if n > before.get(why, 0)}

    wait_until(lambda: sum(more().values()) == len(variants))
    assert lab.server.all(0.05) == [] and lab.host.all(0.05) == []
    return more()


def flipped(packet: bytes, at: int) -> bytes:
    return change(packet, at, bytes([packet[at] ^ 0x10]))


def test_packets_come_through(lab: Lab) -> None:
    """As a check of all below: the same packets do, when nobody has touched them."""
    sent = packet()
    got = lab.pass_through(sent)
    assert got is not None
    source, port, *_ = read(got)
    assert source == EXTERNAL
    lab.server.send(frame(SERVER, source, sport=80, dport=port, payload=b"answer"))
    answer = lab.host.receive()
    assert answer is not None
    assert read(answer) == (SERVER, 80, HOST, read(sent)[1], b"answer")
    lab.cable.send_back(lab.catch(packet()))  # a NAT that does nothing
    assert lab.server.receive() is not None


def test_a_wrong_key_or_epoch(lab: Lab, tmp_path: Path) -> None:
    encrypted = lab.catch(packet())
    assert dropped(lab, [change(encrypted, OPTION + 1, b"\7")]) == {"decrypt: unknown epoch": 1}
    other = Site(tmp_path / "other", epoch=1)
    engine = new_engine()
    engine.create_module("m", "PrefixMatchEncrypt", other.plan | MAC_ARGS)
    (foreign,) = engine.run_packets("m", [packet()])[0]
    assert dropped(lab, [foreign]) == {"decrypt: bad tag": 1}


def test_changed_packets(lab: Lab) -> None:
    """Each byte of the option and of the payload."""
    encrypted = lab.catch(packet())
    end = 54 + 8 * (encrypted[55] + 1)
    nonce, seal = OPTION + 2, end - 32
    found = dropped(lab, [flipped(encrypted, at) for at in range(nonce, seal)])
    assert found == {"decrypt: bad tag": seal - nonce}
    found = dropped(lab, [flipped(lab.catch(packet()), end + 8 + at) for at in range(4)])
    assert found == {"open: bad tag": 4}
    found = dropped(lab, [flipped(lab.catch(packet()), end - at) for at in range(1, 5)])
    assert found == {"open: bad tag": 4}


def test_replayed_packets(lab: Lab) -> None:
    encrypted = lab.catch(packet())
    lab.cable.send_back(encrypted)
    assert lab.server.receive() is not None
    assert dropped(lab, [encrypted] * 3) == {"decrypt: replayed": 3}


def test_truncated_packets(lab: Lab) -> None:
    encrypted = lab.catch(packet())
    short = [encrypted[:length] for length in range(14, len(encrypted))]
    found = dropped(lab, short)
    assert {*found} == {"decrypt: not encrypted", "decrypt: cut"}
    assert sum(found.values()) == len(short)


def test_packets_that_nobody_encrypted(lab: Lab) -> None:
    """A provider can't reach a host with packets of its own."""
    assert dropped(lab, [frame("192.0.2.66", HOST)]) == {"decrypt: not encrypted": 1}


def test_what_a_provider_may_not_write(lab: Lab) -> None:
    end = 54 + 8 * (lab.catch(packet())[55] + 1)
    fields = {"source": 36, "destination": 52, "source port": end, "destination port": end + 2}
    for at in fields.values():
        assert dropped(lab, [flipped(lab.catch(packet()), at)]) == {"decrypt: outside pool": 1}


def test_a_silent_provider_is_told(tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("embark_gw.keeper._SILENT_S", 0.3)
    with new_lab(tmp_path, RULES, nat=False) as lab, kept(lab, patch) as (_, told):
        lab.cable.there = lambda _: []

        def silent() -> bool:
            lab.host.send(packet())
            return "the provider is silent: packets go there, none came for 0 s" in told

        wait_until(silent)
        lab.cable.there = lambda one: [one]

        def again() -> bool:
            lab.host.send(packet())
            return "the provider sends packets again" in told

        wait_until(again)
        assert len(told) == 2


def test_a_nat_without_free_ports_counts(tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    ports = {"begin": 20000, "end": 20002}
    with new_lab(tmp_path, RULES, ports=ports) as lab, kept(lab, patch):
        first = [packet() for _ in range(2)]
        external = [read(got)[1] for one in first if (got := lab.pass_through(one)) is not None]
        assert sorted(external) == [20000, 20001]
        for _ in range(3):
            lab.host.send(packet())
        wait_until(lambda: lab.drops("nat") == {"no free port": 3})
        again = [read(got)[1] for one in first if (got := lab.pass_through(one)) is not None]
        assert again == external  # who has one keeps it


def test_nothing_is_in_clear_when_the_daemon_dies(
    tmp_path: Path, patch: pytest.MonkeyPatch
) -> None:
    """Nor while it is built again, whatever packets come meanwhile."""
    secret = b"nobody may read this"
    with new_lab(tmp_path, RULES, nat=False) as lab, kept(lab, patch) as (keeper, told):
        with Traffic(lab, lambda _: frame(HOST, SERVER, payload=secret)):
            for times in (1, 2):
                lab.kill_ours()
                wait_until(lambda times=times: keeper.rebuilt == times)  # type: ignore[misc]
                lab.plug_in()
                for _ in range(50):  # by a socket of its own: from the new daemon
                    assert lab.server.receive() is not None
        seen = lab.cable.seen
        assert len(seen) >= 200
        for one in inspect(seen):
            assert isinstance(one, Seen) and one.sealed
        assert not any(secret in one for one in seen)
        assert told.count("the daemon lost its pipelines; building them again") == 2


def test_a_key_is_changed_under_traffic(tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    """No packet is lost, and none can't be decrypted."""
    with new_lab(tmp_path, RULES, nat=False) as lab, kept(lab, patch):
        fresh = tmp_path / "fresh.key"
        fresh.touch(0o600)
        fresh.write_text("a5" * 32, encoding="ascii")
        old = lab.catch(packet())
        got: list[bytes] = []
        stopped = threading.Event()

        def receive() -> None:
            while not stopped.is_set() or lab.server.fileno() < 0:
                if (one := lab.server.receive(0.2)) is not None:
                    got.append(one)

        server = threading.Thread(target=receive)
        server.start()
        try:
            with Traffic(
                lab, lambda number: frame(HOST, SERVER, payload=b"%8d" % number)
            ) as sender:
                wait_until(lambda: len(got) > 50)
                key = Key(file=fresh, epoch=2)
                rotate(lab.gateway, make_rotation(lab.gateway, key, drain_s=0.3))
                since = len(got)
                wait_until(lambda: len(got) > since + 50)
            wait_until(lambda: len(got) == sender.sent)
        finally:
            stopped.set()
            server.join()
        assert [int(read(one)[4]) for one in got] == [*range(sender.sent)]
        assert lab.drops("decrypt") == lab.drops("open") == lab.drops("encrypt") == {}
        epochs = [one[OPTION + 1] for one in lab.cable.seen]
        assert {*epochs} == {1, 2} and epochs == sorted(epochs)
        assert (lab.gateway.key, lab.gateway.accept) == (key, ())
        assert dropped(lab, [old]) == {"decrypt: unknown epoch": 1}
        with pytest.raises(GatewayError, match="epoch 2 is in"):
            make_rotation(lab.gateway, Key(file=fresh, epoch=2), drain_s=0)


def test_a_rebuilt_daemon_has_the_key_that_the_description_has_now(
    tmp_path: Path, patch: pytest.MonkeyPatch
) -> None:
    """Else a daemon that dies would bring back a key that was given up."""
    with new_lab(tmp_path, RULES, nat=False) as lab, kept(lab, patch) as (keeper, _):
        text = lab.site.read_text(encoding="utf-8").replace("epoch: 1", "epoch: 9")
        lab.site.write_text(text, encoding="utf-8")
        lab.kill_ours()
        wait_until(lambda: keeper.rebuilt == 1)
        lab.plug_in()
        assert lab.pass_through(packet()) is not None
        assert lab.cable.seen[-1][OPTION + 1] == 9

# SPDX-License-Identifier: BSD-3-Clause
"""However instances are split and drained, a flow stays where its first packet went."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e2ctl.affinity import FLOW_IDS
from e2ctl.igraph import ALL_IDS, SPAN_STEP, Span
from e2ctl.plan import FlowException, Running
from e2ctl.transitions import (
    TransitionError,
    drain,
    forget,
    is_pushed,
    middle,
    push,
    remove,
    resume,
    settle,
    share,
    shift,
    split,
)

START = Running({"nf.0": "s1"}, {"nf.0": (ALL_IDS, ALL_IDS)}, types={"nf.0": "T"})


TWO, _ = split(START, "nf.0", SPAN_STEP, "s2")
DRAINED = drain(settle(push(TWO, "nf.0", ()), "nf.0"), "nf.1")


class Model:
    """FlowSteers of instances, and upstream as it was before or is after the latest change."""

    def __init__(self) -> None:
        self.now = self.before = START
        self.holds: dict[str, dict[int, str]] = {"nf.0": {}}  # gates of active flows
        self.home: dict[int, str] = {}  # where each flow's first packet went

    def change(self, after: Running) -> None:
        """Apply what a transition made; holds follow as `keep_flows` and commit have it."""
        for name in after.servers:
            self.holds.setdefault(name, {})
        for name in self.now.servers.keys() - after.servers.keys():
            assert name not in self.holds.pop(name).values()
        self.before, self.now = self.now, after

    def packet(self, flow: int, *, stale: bool) -> None:
        """A packet, led by the old or the new upstream."""
        at = self.upstream(self.before if stale else self.now, flow)
        for _ in range(4):
            flows = self.holds[at]
            gate = flows.setdefault(flow, self.range_of(at, flow))
            if gate == at:
                break
            at = gate
        else:
            raise AssertionError("packets go in circles")
        assert self.home.setdefault(flow, at) == at

    @staticmethod
    @staticmethod
    def upstream(running: Running, flow: int) -> str:
        for exception in running.exceptions:
            if exception.flow == (("sport", flow),):
                return exception.instance
        (name,) = [n for n, (span, _) in running.spans.items() if span.start <= flow < span.end]
        return name

    def range_of(self, name: str, flow: int) -> str:
        detour = self.now.detours.get(name)
        if detour is None or detour.kind == "resume":
            return name
        return detour.target if detour.ids.start <= flow < detour.ids.end else name

    def end(self, flow: int) -> None:
        self.home.pop(flow, None)
        for flows in self.holds.values():
            flows.pop(flow, None)

    def kept(self, name: str) -> list[int]:
        """Flows that a change of an instance keeps from where new ones go."""
        detour = self.now.detours[name]
        gate = detour.target if detour.kind == "resume" else name
        ids = ALL_IDS if detour.kind == "drain" else detour.ids
        here = self.holds[name].items()
        return [flow for flow, at in here if at == gate and ids.start <= flow < ids.end]

    def step(self, what: str, number: int) -> None:
        """Try a transition of one of the instances; what can't be done now is refused."""
        busy = what in ("go_on", "resume", "share")
        names = sorted(self.now.detours if busy else self.now.servers)
        if not names:
            return
        name = names[number % len(names)]
        span, _ = self.now.spans[name]
        try:
            if what == "split":
                server = "s2" if number % 2 else "s1"
                self.change(split(self.now, name, middle(span), server)[0])
            elif what == "drain":
                self.change(drain(self.now, name))
            elif what == "resume":
                self.change(resume(self.now, name))
            elif what == "share":
                hosts = sorted(self.now.servers)
                self.change(share(self.now, name, hosts[(number + 1) % len(hosts)]))
            elif what == "forget":
                gone = [e for e in self.now.exceptions if dict(e.flow)["sport"] not in self.home]
                self.change(forget(self.now, gone))
                # One that began again with the same ports in this moment would move.
                self.before = self.now
            elif what == "go_on":
                self.go_on(name)
            else:
                cut, target = middle(span), names[(number + 1) % len(names)]
                ids = Span(span.start, cut) if what == "shift_down" else Span(cut, span.end)
                self.change(shift(self.now, name, target, ids))
        except TransitionError:
            return

    def go_on(self, name: str) -> None:
        """A push; a detour may outlive it, where a controller dies in between."""
        detour, kept = self.now.detours[name], self.kept(name)
        if detour.kind == "drain" and kept and not is_pushed(self.now, name):
            return
        old = [e for e in self.now.exceptions if e.instance == name]
        if detour.kind == "drain" and old:
            self.change(forget(self.now, old))
            self.before = self.now
            return
        if not is_pushed(self.now, name):
            stays = detour.target if detour.kind == "resume" else name
            exceptions = [FlowException(stays, (("sport", flow),)) for flow in kept]
            after = push(self.now, name, exceptions)
            assert push(after, name, exceptions) == after
            self.change(after)
            if detour.kind != "resume":
                return
        # Packets that upstream sent before have arrived by now.
        self.before = self.now
        self.change(remove(self.now, name) if detour.kind == "drain" else settle(self.now, name))
        self.before = self.now


flows = st.integers(0, 7).map(lambda n: n * (FLOW_IDS // 8) + 5)
steps = st.one_of(
    st.tuples(st.just("packet"), flows, st.booleans()),
    st.tuples(st.just("end"), flows, st.just(False)),
    st.tuples(
        st.sampled_from(["split", "shift_up", "shift_down", "drain", "resume", "share", "forget"]),
        st.integers(0, 3),
        st.just(False),
    ),
    st.tuples(st.just("go_on"), st.integers(0, 3), st.just(False)),
)


@settings(max_examples=500)
@given(st.lists(steps, min_size=20, max_size=80))
def test_flows_stay(script: list[tuple[str, int, bool]]) -> None:
    model = Model()
    for what, number, stale in script:
        if what == "packet":
            model.packet(number, stale=stale)
        elif what == "end":
            model.end(number)
        else:
            model.step(what, number)
        spans = sorted(span for span, _ in model.now.spans.values() if not span.empty)
        assert (spans[0].start, spans[-1].end) == (0, FLOW_IDS)
        assert all(one.end == other.start for one, other in pairwise(spans))
        for name, detour in model.now.detours.items():
            if detour.host:
                assert detour.kind == "drain"
                assert model.now.servers[detour.host] == model.now.servers[name]
                host = model.now.detours.get(detour.host)
                assert host is None or not host.host
        for flow, home in model.home.items():
            reach = model.now.spans[home][1]
            assert reach.start <= flow < reach.end


def test_messages() -> None:
    for change, message in (
        (lambda: split(START, "x.0", 5, "s"), "there is no instance 'x.0'; running are nf.0"),
        (lambda: split(START, "nf.0", 5, "s"), "expected a multiple of 0x100000 within"),
        (lambda: drain(START, "nf.0"), "nf.0 is the only instance of nf"),
        (lambda: push(START, "nf.0", ()), "nf.0 is not part of a change that goes out from it"),
        (lambda: resume(TWO, "nf.0"), "nf.0 is not being drained, or its flow ids are gone"),
        (lambda: share(TWO, "nf.0", "nf.1"), "nf.0 is not being drained, and needs its core"),
        (lambda: share(DRAINED, "nf.1", "nf.0"), "the core of nf.0, on another server"),
        (lambda: share(DRAINED, "nf.1", "nf.1"), "the core of nf.1, which is being drained"),
        (lambda: shift(TWO, "nf.0", "nf.1", ALL_IDS), "nf.0 can't give 0x00000000-0xffffffff of"),
        (lambda: remove(START, "nf.0"), "nf.0 still has the flow ids"),
        (lambda: middle(Span(0, SPAN_STEP)), "can't be divided any further"),
        (
            lambda: split(split(START, "nf.0", SPAN_STEP, "s")[0], "nf.0", 2 * SPAN_STEP, "s"),
            "nf.0 is part of a change that is under way",
        ),
    ):
        with pytest.raises(TransitionError, match=message):
            change()


def grown() -> Running:
    """Four instances of one NF and two of another, all on a server; nf.0 and nf.3 are drained."""
    at = replace(
        START,
        servers={"nf.0": "s1", "m.0": "s1"},
        spans={"nf.0": (ALL_IDS, ALL_IDS), "m.0": (ALL_IDS, ALL_IDS)},
        types={"nf.0": "T", "m.0": "M"},
    )
    for name in ("nf.0", "nf.1", "nf.2", "m.0"):
        at = split(at, name, middle(at.spans[name][0]), "s1")[0]
        at = settle(push(at, name, ()), name)
    return drain(drain(at, "nf.0", "nf.1"), "nf.3", "nf.2")


def hosts(running: Running) -> dict[str, str]:
    return {name: detour.host for name, detour in running.detours.items()}


def test_guests_of_a_host_that_goes_have_its_core() -> None:
    at = share(share(grown(), "nf.0", "m.1"), "nf.3", "m.1")
    gone = remove(push(drain(at, "m.1"), "m.1", ()), "m.1")
    assert hosts(gone) == {"nf.0": "", "nf.3": "nf.0"}


def test_guests_of_a_guest_move_on_with_it() -> None:
    at = drain(share(grown(), "nf.0", "m.1"), "m.1")
    assert hosts(share(at, "m.1", "nf.1")) == {"nf.0": "nf.1", "nf.3": "", "m.1": "nf.1"}
    assert hosts(resume(share(at, "m.1", "nf.1"), "m.1"))["m.1"] == ""

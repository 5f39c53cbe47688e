"""What befalls a frame, and that one fault leaves every other draw alone."""

from __future__ import annotations

import pytest

from olvm.model.limits import NS_PER_S
from sim.clock import START_NS, Timeline
from sim.digest import Digest
from sim.network import HOP_NS, Direction, Link, Network, Noise, stream
from sim.plan import Knobs

ROUGH = Knobs(loss_per_10k=2_000, duplicate_per_10k=1_000, tail_per_10k=500, jitter_us=3_000)


class Wire:
    """Two nodes and what arrived at each, with the true time."""

    def __init__(self, *, knobs: Knobs | None = None, seed: int = 1) -> None:
        self.timeline = Timeline()
        self.network = Network(self.timeline, seed, Digest())
        self.arrived: list[tuple[int, str, bytes]] = []
        if knobs is not None:
            self.network.tune(knobs)

    def _deliver(self, link: Link, payload: bytes) -> None:
        self.arrived.append((self.timeline.time_ns - START_NS, link.to, payload))

    def send(self, source: str, to: str, *payloads: bytes) -> None:
        for payload in payloads:
            self.network.send(self.network.link(source, to, self._deliver), payload)

    def run(self, seconds: float) -> None:
        self.timeline.run_to(self.timeline.time_ns + int(seconds * NS_PER_S))

    def payloads(self, to: str) -> list[bytes]:
        return [payload for _, arrived_at, payload in self.arrived if arrived_at == to]


def numbered(count: int) -> list[bytes]:
    return [str(number).encode() for number in range(count)]


def test_network_without_knobs_delivers_once_in_order_after_one_hop() -> None:
    wire = Wire()
    wire.send("a", "b", b"1", b"2")
    wire.run(1)
    assert wire.arrived == [(HOP_NS, "b", b"1"), (HOP_NS, "b", b"2")]


@pytest.mark.parametrize(("direction", "heard"), [("both", (0, 0)), ("a_to_b", (0, 1)), ("b_to_a", (1, 0))])
def test_cut_loses_what_goes_in_its_direction_until_it_ends(
    direction: Direction, heard: tuple[int, int]
) -> None:
    wire = Wire()
    wire.network.cut("a", "b", direction, 10)
    wire.send("a", "b", b"x")
    wire.send("b", "a", b"x")
    wire.run(1)
    assert (len(wire.payloads("b")), len(wire.payloads("a"))) == heard
    wire.run(10)
    wire.send("a", "b", b"late")
    wire.send("b", "a", b"late")
    wire.run(1)
    assert wire.payloads("b")[-1] == wire.payloads("a")[-1] == b"late"


def test_cut_loses_what_is_on_the_way_when_it_begins() -> None:
    wire = Wire()
    wire.send("a", "b", b"x")
    wire.network.cut("a", "b")
    wire.run(100)
    assert wire.arrived == []
    wire.network.heal()
    wire.send("a", "b", b"y")
    wire.run(1)
    assert wire.payloads("b") == [b"y"]


def test_shorter_cut_does_not_end_a_longer_one() -> None:
    wire = Wire()
    wire.network.cut("a", "b", "both", 100)
    wire.network.cut("a", "b", "both", 1)
    wire.run(50)
    assert wire.network.is_cut("a", "b")
    assert not wire.network.is_cut("a", "c")


def test_clog_holds_frames_and_releases_them_in_order() -> None:
    wire = Wire(knobs=Knobs(jitter_us=5_000))
    wire.network.clog("a", "b", 10)
    sent = numbered(20)
    wire.send("a", "b", *sent)
    wire.run(9.9)
    assert wire.arrived == []
    wire.run(1)
    assert wire.payloads("b") == sent


def test_jitter_reorders_on_some_links_and_not_on_others() -> None:
    wire = Wire(knobs=Knobs(jitter_us=50_000))
    sent = numbered(50)
    kept = 0
    for number in range(20):
        wire.send("a", f"b{number}", *sent)
    wire.run(10)
    for number in range(20):
        got = wire.payloads(f"b{number}")
        assert sorted(got) == sorted(sent)
        kept += got == sent
    assert 0 < kept < 20


def test_loss_and_repetition_come_in_their_shares() -> None:
    wire = Wire(knobs=Knobs(loss_per_10k=2_000, duplicate_per_10k=1_000))
    wire.send("a", "b", *numbered(5_000))
    wire.run(10)
    got = wire.payloads("b")
    assert 3_800 < len(set(got)) < 4_200
    assert 400 < len(got) - len(set(got)) < 600


def test_late_repetition_comes_up_to_two_minutes_later() -> None:
    wire = Wire(knobs=Knobs(late_duplicate_per_10k=2_000))
    wire.send("a", "b", *numbered(500))
    wire.run(200)
    late = [at_ns for at_ns, _, _ in wire.arrived if at_ns > 5 * NS_PER_S]
    assert len(late) > 50
    assert max(late) <= 121 * NS_PER_S


def test_noise_on_one_link_changes_nothing_on_another_and_ends() -> None:
    def run(noisy: bool) -> tuple[list[tuple[int, str, bytes]], int]:
        wire = Wire(knobs=ROUGH)
        if noisy:
            wire.network.noise("a", "b", Noise(loss_per_10k=10_000), 5)
        for _ in range(100):
            wire.send("a", "b", b"x")
            wire.send("a", "c", *numbered(3))
        wire.run(10)
        lost = 100 - len(set(wire.payloads("b")))
        wire.send("a", "b", *numbered(100))
        wire.run(10)
        assert len(wire.payloads("b")) > 0
        return [one for one in wire.arrived if one[1] == "c"], lost

    calm, noisy = run(noisy=False), run(noisy=True)
    assert calm[0] == noisy[0]
    assert len(calm[0]) > 100


def test_fault_taken_away_leaves_later_draws_of_its_own_link_alone() -> None:
    def arrivals(with_cut: bool) -> list[tuple[int, str, bytes]]:
        wire = Wire(knobs=ROUGH)
        if with_cut:
            wire.network.cut("a", "b", "both", 1)
        wire.send("a", "b", *numbered(10))
        wire.run(60)
        wire.arrived.clear()
        wire.send("a", "b", *numbered(200))
        wire.run(60)
        return wire.arrived

    assert arrivals(with_cut=True) == arrivals(with_cut=False)


def test_rewind_repeats_the_newest_frames_in_order() -> None:
    wire = Wire()
    wire.send("a", "b", *numbered(30))
    wire.run(1)
    wire.arrived.clear()
    wire.network.rewind("a", "b", 3)
    wire.run(1)
    assert wire.payloads("b") == [b"27", b"28", b"29"]


def test_fate_decides_each_copy_of_a_frame() -> None:
    wire = Wire()
    fates = {b"lost": (), b"twice": (0, 1_000), b"late": (5_000,)}
    wire.network.fate = lambda _, payload: fates.get(payload)
    wire.send("a", "b", b"lost", b"twice", b"late", b"normal")
    wire.run(1)
    assert sorted(wire.arrived) == [
        (HOP_NS, "b", b"normal"),
        (HOP_NS, "b", b"twice"),
        (HOP_NS + 1_000, "b", b"twice"),
        (HOP_NS + 5_000, "b", b"late"),
    ]


def test_client_connection_repeats_and_loses_nothing_but_in_a_cut() -> None:
    wire = Wire(knobs=ROUGH)
    wire.send("client", "engine", *numbered(100))
    wire.run(10)
    assert wire.payloads("engine") == numbered(100)
    wire.network.cut("client", "engine")
    wire.send("client", "engine", b"unheard")
    wire.run(1)
    assert wire.payloads("engine") == numbered(100)


def test_streams_of_different_purposes_are_independent_and_the_same_again() -> None:
    assert stream(1, "a", "b").random() == stream(1, "a", "b").random()
    assert stream(1, "a", "b").random() != stream(1, "ab").random()
    assert stream(1, "a").random() != stream(2, "a").random()

"""The scripted workload, struck at a sample of its places; each commit strikes others, and in time all are struck."""

from __future__ import annotations

from collections import defaultdict

import pytest

from sim.explore import process_pool
from sim.reports import sweep_lines
from sim.sweep import OF_BATCHES, OF_EVENTS, OF_FRAMES, Place, every, places, strike
from sim.sweeping import sweep_places
from tests.sim.seeding import WORKERS, number_of_commit

STRIKES = 300  # each costs about 0.14 s of CPU


@pytest.fixture(scope="module")
def found() -> list[Place]:
    return places()


def test_places_cover_every_silo_and_both_directions_of_each_link(found: list[Place]) -> None:
    kinds_by_place: dict[str, set[str]] = defaultdict(set)
    for place in found:
        kinds_by_place[place.where].add(place.perturbation)
    silos = {"engine", "host-1", "host-2", "host-3"}
    links = {f"engine>host-{n}" for n in (1, 2, 3)} | {f"host-{n}>engine" for n in (1, 2, 3)}
    migrations = {"H1>H2", "H2>H1"}
    hosts = {"H1", "H2", "H3"}
    assert set(kinds_by_place) == silos | links | migrations | hosts | {"engine>client"}
    assert all(kinds_by_place[host] == set(OF_EVENTS) for host in hosts)
    assert all(kinds_by_place[silo] == set(OF_BATCHES) for silo in silos)
    assert all(kinds_by_place[link] == set(OF_FRAMES) for link in links | migrations)


def test_samples_of_all_offsets_are_all_places_and_each_has_every_kind(found: list[Place]) -> None:
    samples = [list(every(found, 10, offset)) for offset in range(10)]
    assert sum(map(len, samples)) == len(found)
    assert {place for sample in samples for place in sample} == set(found)
    for sample in samples:
        assert {place.perturbation for place in sample} >= {*OF_BATCHES, *OF_FRAMES}
        assert len({place.where for place in sample}) >= 10


@pytest.mark.parametrize("kind", [*OF_BATCHES, *OF_FRAMES, *OF_EVENTS])
def test_strike_changes_the_run_from_its_place_on(found: list[Place], kind: str) -> None:
    """A perturbation that strikes nothing would leave the digest as it was."""
    whole = strike(Place(kind, "nowhere", 1))
    where = {"drop_event": "H1"}.get(kind, "engine" if kind in OF_BATCHES else "engine>host-1")
    place = Place(kind, where, 2 if kind == "drop_event" else 9)
    assert place in found
    struck = strike(place)
    assert (struck.verdict, struck.digest != whole.digest) == ("ok", True), struck.sentence


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_script_struck_at_the_places_of_this_commit_keeps_every_promise(found: list[Place]) -> None:
    stride = len(found) // STRIKES
    offset = number_of_commit() % stride
    report = sweep_places(stride, offset, WORKERS, process_pool, lambda _: None)
    lines = "\n".join(sweep_lines(report))
    assert not report.failures, f"olvm sim sweep --every {stride} --offset {offset}\n{lines}"
    assert report.runs >= STRIKES

"""The systematic sweep: one perturbation at a time, at every place of a scripted workload.

Random schedules rarely strike the one moment that matters; here each moment is struck. A clean run of the script
counts its places: every batch that a process commits, every frame on every link, every event of a hypervisor. Then
each place is perturbed in a run of its own: the process dies there (before the commit, in the middle of it, after it,
between two frames of the release), the frame is lost, repeated, repeated much later, or held back; a process stands
still there for longer than a lease; the hypervisor's event is dropped. All oracles watch every run.

Source of the method: Sieve (OSDI'22), whose plans are of this form.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Literal

import msgspec

from sim.plan import Plan, Shape, Step
from sim.processes import Process
from sim.runs import Outcome, Run
from sim.silo_disk import CrashPoint

Perturbation = Literal[
    "die_before_commit",
    "die_in_commit",
    "die_after_commit",
    "die_in_release",
    "pause",
    "drop_frame",
    "repeat_frame",
    "repeat_frame_late",
    "hold_frame",
    "drop_event",
]
POINT_BY_DEATH: dict[str, CrashPoint] = {
    "die_before_commit": "before_commit",
    "die_in_commit": "in_commit",
    "die_after_commit": "after_commit",
    "die_in_release": "in_release",
}
OF_BATCHES: tuple[Perturbation, ...] = (*POINT_BY_DEATH, "pause")  # type: ignore[arg-type]
OF_FRAMES: tuple[Perturbation, ...] = ("drop_frame", "repeat_frame", "repeat_frame_late", "hold_frame")
OF_EVENTS: tuple[Perturbation, ...] = ("drop_event",)
DELAYS_NS: dict[str, tuple[int, ...]] = {
    "drop_frame": (),
    "repeat_frame": (0, 50_000_000),
    "repeat_frame_late": (0, 90_000_000_000),
    "hold_frame": (7_000_000_000,),
}
PAUSE_S = 45.0  # longer than a lease


def script() -> Plan:
    """Every verb once, plugs, snapshots, a migration and its cancelling, maintenance, a host that dies."""
    shape = Shape(
        hosts=3,
        vms=4,
        racks=1,
        host_memory_gib=24,
        vm_memory_gib=2,
        running_percent=50,
        ha_percent=100,
        lease_percent=50,
        fence_percent=100,
        kdump_percent=0,
        disks=True,
    )
    steps = (
        Step(1_000, "start", "v3"),
        Step(6_000, "plug_memory", "v1", 0, 1),
        Step(9_000, "take_snapshot", "v1", 0, 1),
        Step(12_000, "set_vcpus", "v1", 0, 2),
        Step(20_000, "migrate", "v1"),
        Step(32_000, "reboot", "v3"),
        Step(38_000, "unplug_memory", "v1", 0, 1),
        Step(45_000, "migrate", "v2"),
        Step(45_600, "cancel_migration", "v2"),
        Step(52_000, "revert_snapshot", "v1", 0, 1),
        Step(55_000, "take_snapshot", "v2", 0, 2),
        Step(60_000, "suspend", "v3"),
        Step(75_000, "commit_snapshot", "v2", 0, 1),
        Step(85_000, "resume", "v3"),
        Step(100_000, "stop", "v3"),
        Step(105_000, "start", "v4"),
        Step(125_000, "maintenance", "H1", 0, 1),
        Step(165_000, "activate", "H1"),
        Step(180_000, "crash_host", "H2", 40_000),
        Step(185_000, "shutdown", "v4"),
    )
    settings = {"fence_quiet_at_start_s": 20.0}
    return Plan(seed=7, profile="calm", hours=0.09, shape=shape, steps=steps, settings=settings)


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where a run is struck: the n-th batch of a silo that commits, or the n-th frame of a link."""

    perturbation: str
    where: str  # a silo, source>to, or a host for events of its hypervisor
    number: int


class SweepFailure(msgspec.Struct, kw_only=True):
    place: Place
    verdict: str
    oracle: str
    sentence: str


class SweepReport(msgspec.Struct, kw_only=True):
    places: int = 0  # all there are
    runs: int = 0  # those that were struck
    wall_s: float = 0.0
    messages: int = 0
    failures: list[SweepFailure] = []

    @property
    def exit_code(self) -> int:
        from sim.explore import SEVERITY
        from sim.runs import EXIT_CODE_BY_VERDICT

        met = {failure.verdict for failure in self.failures} | {"ok"}
        return EXIT_CODE_BY_VERDICT[next(verdict for verdict in SEVERITY if verdict in met)]


class _Striker:
    """Counts places; strikes at one of them, if one is given."""

    def __init__(self, run: Run, place: Place | None = None) -> None:
        self.batches: dict[str, int] = {}
        self.frames: dict[str, int] = {}
        self.events: dict[str, int] = {}
        self._place = place
        self._world = run.world
        run.after_build = self._arm

    def _arm(self) -> None:
        """Places are counted from the end of the building on."""
        self._world.processes.fate = self._batch
        self._world.network.fate = self._frame
        for host in self._world.hosts.by_name.values():
            if host.hypervisor is not None:
                host.hypervisor.event_fate = self._event

    def _event(self, host: str) -> bool:
        number = self.events[host] = self.events.get(host, 0) + 1
        return self._place == Place("drop_event", host, number)

    def _batch(self, process: Process) -> CrashPoint | None:
        number = self.batches[process.name] = self.batches.get(process.name, 0) + 1
        place = self._place
        if place is None or place.where != process.name or place.number != number:
            return None
        if place.perturbation == "pause":
            self._world.processes.pause(process.name, PAUSE_S)
            return None
        return POINT_BY_DEATH.get(place.perturbation)

    def _frame(self, link: object, _: bytes) -> tuple[int, ...] | None:
        where = f"{link.source}>{link.to}"  # type: ignore[attr-defined]
        number = self.frames[where] = self.frames.get(where, 0) + 1
        place = self._place
        if place is None or place.where != where or place.number != number:
            return None
        return DELAYS_NS.get(place.perturbation)


def places() -> list[Place]:
    """Every place of the script, from a clean run of it. Raises AssertionError when that run is not clean."""
    run = Run(script())
    striker = _Striker(run)
    outcome = run.go()
    assert outcome.verdict == "ok", f"the script itself fails: {outcome.oracle} {outcome.sentence}"
    found = [
        Place(perturbation, silo, number)
        for silo, count in sorted(striker.batches.items())
        for number in range(1, count + 1)
        for perturbation in OF_BATCHES
    ]
    found += [
        Place(perturbation, link, number)
        for link, count in sorted(striker.frames.items())
        if not link.startswith("client")
        for number in range(1, count + 1)
        for perturbation in OF_FRAMES
    ]
    found += [
        Place("drop_event", host, number)
        for host, count in sorted(striker.events.items())
        for number in range(1, count + 1)
    ]
    return found


def strike(place: Place) -> Outcome:
    """The script with one perturbation."""
    run = Run(script())
    _Striker(run, place)
    return run.go()


def every(found: list[Place], stride: int, offset: int = 0) -> Iterator[Place]:
    """Each `stride`-th place of a fixed shuffle. The samples of all offsets below `stride` are all places together.

    Without the shuffle a stride of 10 would strike each silo by one kind of death only.
    """
    shuffled = list(found)
    random.Random("places").shuffle(shuffled)
    return iter(shuffled[offset % stride :: stride])


def strike_all(job: bytes) -> bytes:
    """For worker processes: a list of places to a report, in msgpack."""
    began = time.perf_counter()
    report = SweepReport()
    for place in msgspec.msgpack.decode(job, type=list[Place]):
        outcome = strike(place)
        report.runs += 1
        report.messages += outcome.messages
        if outcome.verdict != "ok":
            report.failures.append(
                SweepFailure(
                    place=place, verdict=outcome.verdict, oracle=outcome.oracle, sentence=outcome.sentence
                )
            )
    report.wall_s = time.perf_counter() - began
    return msgspec.msgpack.encode(report)

"""Runs one plan from the first command to the verdict.

build (nothing fails) - the plan's hours of commands and faults, oracles watching every event - heal - settle (time
for every retry and deadline to come round) - judgement of what must hold at rest. D1, the determinism check, is two
of these with one digest.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import Literal

import msgspec

from olvm.model.config import Config
from olvm.model.limits import NS_PER_S
from sim.collector import quiet_collector
from sim.digest import first_difference
from sim.failure_model import check
from sim.oracles.board import Board
from sim.oracles.oracle import Violation
from sim.plan import Plan
from sim.steps import Steps, due_ns
from sim.story import Story
from sim.witness import WorldWitness
from sim.world import World

Verdict = Literal["ok", "safety", "liveness", "determinism", "crash"]
# Exit codes of `olvm sim`: 0 is ok, and 1 to 7 mean what they mean everywhere in the command line.
EXIT_CODE_BY_VERDICT: dict[Verdict, int] = {
    "ok": 0,
    "safety": 20,
    "liveness": 21,
    "determinism": 22,
    "crash": 23,
}
SETTLE_STEP_S = 60.0


class SystemCrash(Exception):
    """A handler of the system raised, or a silo could not recover: a fault of the programmer."""


class Outcome(msgspec.Struct, kw_only=True):
    """What one run was. Times in seconds; `failed_at_s` counts from the plan's beginning."""

    seed: int
    verdict: Verdict
    oracle: str = ""
    sentence: str = ""
    failed_at_s: float | None = None
    while_settling: bool = False
    digest: str = ""
    simulated_s: float = 0.0
    wall_s: float = 0.0
    cpu_s: float = 0.0  # of the process
    messages: int = 0
    frames: int = 0
    commits: int = 0
    checks: int = 0  # times that an oracle was asked
    fault_counts: dict[str, int] = {}
    situations: dict[str, int] = {}
    restart_s: list[float] = []  # outages of highly available machines whose life a fault ended
    story: list[str] = []

    @property
    def exit_code(self) -> int:
        return EXIT_CODE_BY_VERDICT[self.verdict]


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """What it took to build the world, before its plan began."""

    cpu_s: float = 0.0
    simulated_s: float = 0.0
    messages: int = 0


def config_of(plan: Plan) -> Config:
    """The control plane's configuration in this run."""
    knobs = plan.knobs
    settings: dict[str, object] = dict(QUICK) if knobs.quick_timers else {}
    simulated: dict[str, object] = {}
    if knobs.boot_s_max:
        simulated |= {
            "boot_time_s_min": min(1.0, knobs.boot_s_max),
            "boot_time_s_max": float(knobs.boot_s_max),
        }
    if knobs.call_fault_per_10k:
        share = knobs.call_fault_per_10k / 10_000
        simulated |= {
            "start_fails_probability": share,
            "start_hangs_probability": share / 4,
            "start_times_out_probability": share / 2,
            "guest_crashes_probability": share / 4,
        }
    if knobs.dirty_rate_percent:
        rate = plan.settings.get("migration_bandwidth_mib_s", 52.0) * 2**20 * knobs.dirty_rate_percent / 100
        simulated |= {"dirty_bytes_per_s_min": rate / 4, "dirty_bytes_per_s_max": rate}
    return msgspec.convert({**settings, **plan.settings, "simulated": simulated}, Config)


# Every period and deadline short, so that they meet each other. Relations between them are those of the defaults.
QUICK: dict[str, float] = {
    "host_grace_s": 25.0,
    "host_init_timeout_s": 20.0,
    "failed_starts_expire_s": 120.0,
    "launch_timeout_s": 60.0,
    "boot_timeout_s": 90.0,
    "shutdown_timeout_s": 30.0,
    "stop_timeout_s": 30.0,
    "reboot_timeout_s": 60.0,
    "save_timeout_s": 60.0,
    "query_period_s": 5.0,
    "migration_prepare_timeout_s": 15.0,
    "migration_timeout_s": 300.0,
    "migration_monitor_period_s": 2.0,
    "host_recovery_timeout_s": 40.0,
    "auto_recovery_period_s": 30.0,
    "maintenance_timeout_s": 240.0,
    "fence_quiet_at_start_s": 30.0,
    "soft_fence_timeout_s": 10.0,
    "kdump_started_timeout_s": 10.0,
    "fence_poll_period_s": 3.0,
    "fence_retry_s": 10.0,
    "fence_quiet_between_s": 20.0,
    "host_reboot_timeout_s": 120.0,
    "balance_rest_s": 60.0,
    "ha_priority_block_s": 120.0,
    "ha_reservation_period_s": 60.0,
    "cluster_power_timeout_s": 300.0,
    "sample_period_s": 5.0,
    "samples_buffered_rows_max": 300,
}


def run_plan(
    plan: Plan, *, with_oracles: bool = True, keeps_trail: bool = False, keeps_story: bool = False
) -> Outcome:
    """Run and judge. Raises BadInput for a plan beyond the failure model; everything else is in the outcome."""
    return Run(plan, with_oracles=with_oracles, keeps_trail=keeps_trail, keeps_story=keeps_story).go()


def run_twice(plan: Plan) -> Outcome:
    """Run a plan twice and hold each entry of their digests against the other (D1); the outcome is the first run's."""
    check(plan)
    first, second = Run(plan, keeps_trail=True), Run(plan, keeps_trail=True)
    outcome = first.go()
    second.go()
    one, other = first.world.digest.trail or [], second.world.digest.trail or []
    at = first_difference(one, other)
    if at is not None and outcome.verdict == "ok":
        words = [str(trail[at]) if at < len(trail) else "nothing" for trail in (one, other)]
        outcome.verdict, outcome.oracle = "determinism", "D1"
        outcome.sentence = f"entry {at} is {words[0]} in the first run and {words[1]} in the second"
    return outcome


class Run:
    """One run; `world` stays there to be looked at afterwards."""

    def __init__(
        self, plan: Plan, *, with_oracles: bool = True, keeps_trail: bool = False, keeps_story: bool = False
    ) -> None:
        """Raises BadInput for a plan beyond the failure model."""
        check(plan)
        self.plan = plan
        self.world = World(
            plan.shape, plan.knobs, seed=plan.seed, config=config_of(plan), keeps_trail=keeps_trail
        )
        self.witness = WorldWitness(self.world)
        self.story = Story(self.world) if keeps_story else None
        self.board = Board(self.witness) if with_oracles else None
        if self.board is not None:
            self.world.watch(self.board)
        if self.story is not None:
            self.world.watch(self.story)
        self.after_build: Callable[[], None] = lambda: None
        self.built = Built()
        self._begin_ns = 0
        self._settling = False

    def go(self, *, settles: bool = True) -> Outcome:
        """The whole run, or without what comes after the plan's hours (a benchmark of a world at work)."""
        began, began_cpu = time.perf_counter(), time.process_time()
        outcome = Outcome(seed=self.plan.seed, verdict="ok")
        handler = _LastFault()
        logger = logging.getLogger("olvm.silo")
        logger.addHandler(handler)
        try:
            with quiet_collector(), _unsaid("olvm.silo", "olvm.history"):
                self._go(settles=settles)
        except Violation as violation:
            outcome.verdict, outcome.oracle = violation.kind, violation.oracle
            outcome.sentence = violation.sentence
            outcome.failed_at_s = (violation.at_ns - self._begin_ns) / NS_PER_S
        except SystemCrash as crash:
            outcome.verdict, outcome.sentence = "crash", f"{crash} {handler.text}".strip()
            outcome.failed_at_s = (self.world.now_ns - self._begin_ns) / NS_PER_S
        except Exception as error:  # noqa: BLE001 - whatever escapes from the system under test is a finding
            outcome.verdict, outcome.sentence = "crash", f"{type(error).__name__}: {error}"
            outcome.failed_at_s = (self.world.now_ns - self._begin_ns) / NS_PER_S
        finally:
            logger.removeHandler(handler)
        outcome.while_settling = self._settling
        outcome.wall_s = time.perf_counter() - began
        outcome.cpu_s = time.process_time() - began_cpu
        self._measure(outcome)
        return outcome

    def _measure(self, outcome: Outcome) -> None:
        world = self.world
        counts = world.counts()
        outcome.digest = world.digest.hexdigest()
        outcome.simulated_s = counts.simulated_s
        outcome.messages, outcome.frames, outcome.commits = counts.turns, counts.frames, counts.commits
        outcome.fault_counts = dict(sorted(world.faults.counts.items()))
        outcome.situations = dict(sorted(world.all_situations().items()))
        outcome.restart_s = self.witness.restarts.outages_s
        outcome.checks = 0 if self.board is None else world.truth.counts.total() + counts.commits
        outcome.story = [] if self.story is None else self.story.lines

    def _go(self, *, settles: bool) -> None:
        began_cpu = time.process_time()
        self.begin()
        self.built = Built(
            cpu_s=time.process_time() - began_cpu,
            simulated_s=self.world.now_s,
            messages=self.world.counts().turns,
        )
        self.world.run(self.plan.hours * 3_600)
        if settles:
            self.end()
        else:
            self._check_silos()

    def begin(self) -> None:
        """Build the world and put the plan's steps into its time. Raises Violation or SystemCrash, as `end` does."""
        world, plan = self.world, self.plan
        world.build()
        self._check_silos()
        self.after_build()
        self._begin_ns = world.now_ns
        self.steps = Steps(world, plan, world.say)
        for step in plan.steps:
            world.timeline.put(due_ns(step, self._begin_ns), lambda step, _: self.steps.take(step), step)
        world.each_s(60.0, self._minute)

    def end(self) -> None:
        """The faults stop; what must hold at rest is judged when it had its time."""
        world = self.world
        self._check_silos()
        self._settling = True
        world.say("faults stop")
        world.faults.heal()
        if self.board is not None:
            self.board.healed()
        self._settle()

    def _settle(self) -> None:
        """Until all that must hold at rest holds, or the bound is over: then what does not is the finding."""
        world = self.world
        end_ns = world.now_ns + int(settle_s(world.config) * NS_PER_S)
        while True:
            world.run(SETTLE_STEP_S)
            self._check_silos()
            if self.board is None:
                return
            try:
                self.board.settled()
            except Violation:
                if world.now_ns >= end_ns:
                    raise
            else:
                return

    def _minute(self) -> None:
        self._check_silos()
        if self.board is not None:
            self.board.minute()

    def _check_silos(self) -> None:
        for name, process in sorted(self.world.processes.by_name.items()):
            if process.silo.fault_count:
                raise SystemCrash(f"a turn of {name} failed:")


def settle_s(config: Config) -> float:
    """The bound of the liveness promises: the longest chain of retries that may still be ahead, and slack."""
    fence_s = (
        config.fence_quiet_at_start_s
        + config.host_grace_s
        + config.soft_fence_timeout_s
        + config.kdump_started_timeout_s
        + config.fence_poll_period_s * config.fence_poll_count_max
        + 2 * config.host_reboot_timeout_s
    )
    return fence_s + 2 * 1_800.0 + max(config.maintenance_timeout_s, config.cluster_power_timeout_s)


@contextlib.contextmanager
def _unsaid(*loggers: str) -> Iterator[None]:
    """What these say of the faults of a run is for nobody."""
    known = {name: logging.getLogger(name) for name in loggers}
    kept = {name: (logger.propagate, logger.handlers[:]) for name, logger in known.items()}
    for logger in known.values():
        logger.propagate = False
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())  # without any, Python's last resort speaks
    try:
        yield
    finally:
        for name, logger in known.items():
            logger.propagate, logger.handlers[:] = kept[name]


class _LastFault(logging.Handler):
    """Keeps the text of the last failed turn."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        fault = record.exc_info[1] if record.exc_info else None
        self.text = f"{record.getMessage()[:600]}: {fault!r}"

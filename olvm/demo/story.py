"""The demo from its first line to its last: opens the data center, plays the workload, kills, moves, proves, closes.

However it ends, the data center is stopped, and the last lines say at what the story broke off.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from olvm.api.data_center import DataCenter
from olvm.api.hosts import SIMULATED_FENCE_DEVICE
from olvm.demo.copies import prove_copies
from olvm.demo.drills import Drills
from olvm.demo.plan import POLICY_BY_CLUSTER, RACK_SILO, Plan, PlannedHost, RuntimeName, make_plan
from olvm.demo.progress import ProgressLine
from olvm.demo.proof import prove
from olvm.demo.replay import Replay
from olvm.demo.report import Report
from olvm.demo.trials import Trials
from olvm.demo.watch import Watcher
from olvm.model import messages as m
from olvm.model.errors import BadInput, WaitTimeout

HOSTS_UP_WITHIN_S = 90.0
POLL_S = 0.05


def tell_story(
    *,
    runtime: RuntimeName,
    vm_count: int,
    seconds: float,
    directory: Path | None,
    discard: bool,
    with_trials: bool = True,
) -> int:
    """Run the demo; 1 when the journal does not hold what the driver was told, a machine ran twice or a step failed.

    Args:
        with_trials: after the replay migrate a machine, empty a host and lose a rack.
        directory: an empty or new one, which stays; None makes a temporary one.
        discard: remove a temporary one afterwards, unless something went wrong: then it is the evidence.
    """
    began_s = time.monotonic()
    plan = make_plan(vm_count=vm_count, seconds=seconds)
    home = _home(directory)
    report = Report(Console(file=sys.stdout))
    report.opening(plan, home, runtime)
    story = Story(plan, runtime, report, with_trials=with_trials)
    try:
        with DataCenter.open(home, runtime=runtime, **plan.settings()) as dc:
            is_well = story.play(dc)
    except BaseException:
        report.broken_off(story.doing, home)
        raise
    copies = prove_copies(home)
    report.copies(copies)
    is_well = is_well and not copies.twice and not copies.otherwise
    stays = directory is not None or not discard or not is_well
    if not stays:
        shutil.rmtree(home)
    report.closing(home, time.monotonic() - began_s, stays=stays)
    return 0 if is_well else 1


def _home(directory: Path | None) -> Path:
    if directory is None:
        return Path(tempfile.mkdtemp(prefix="olvm-demo-"))
    if (directory / "engine.duckdb").exists():
        raise BadInput(
            f"directory {directory} holds a data center already, and the demo tells a new story; "
            "name an empty directory, or none"
        )
    return directory.absolute()


class Story:
    """`doing` is what it is at, for whoever must say where it broke off."""

    def __init__(self, plan: Plan, runtime: RuntimeName, report: Report, *, with_trials: bool) -> None:
        self._with_trials = with_trials
        self._plan = plan
        self._runtime = runtime
        self._report = report
        self.doing = "opening the data center"

    def play(self, dc: DataCenter) -> bool:
        """Whether all steps ended well and nothing acknowledged was lost."""
        plan, report = self._plan, self._report
        replay = Replay(dc, plan)
        progress = ProgressLine(replay, sys.stderr)
        began_s = time.monotonic()
        self.doing = "building the fleet"
        build_fleet(dc, plan)
        progress.say(f"  {len(plan.hosts)} hosts are up after {time.monotonic() - began_s:.1f} s")
        watcher, drills = Watcher(dc, replay.tell), Drills(dc, plan, self._runtime)
        trials = Trials(dc, plan, self._runtime)
        with progress, watcher:
            self.doing = "replaying the trace"
            with drills:
                replay.run(lambda: progress.show(drills.news), lambda: not drills.is_over)
            if self._with_trials:
                self._put_to_trial(replay, trials, progress)
        self.doing = "proving"
        proof = prove(dc, replay.ledger, replay.tenants)
        report.operations(replay, proof)
        report.clusters(watcher)
        report.crashes(drills, replay, watcher)
        if self._with_trials:
            report.trials(trials, watcher)
        report.verdict(proof)
        report.queries(dc, plan)
        self.doing = "stopping the data center"
        return not proof.lost and not trials.failed

    def _put_to_trial(self, replay: Replay, trials: Trials, progress: ProgressLine) -> None:
        def tick() -> None:
            self.doing = trials.doing or self.doing
            while trials.news:
                progress.say(trials.news.popleft())
            progress.show("")

        progress.say(f"  {replay.now_s:5.1f} s  the trace is played; now its fleet is put to trial")
        with trials:
            replay.go_on(tick, lambda: not trials.is_over)
        tick()
        if trials.failed:
            progress.say(f"  !! {trials.failed}")
        replay.ledger.note(trials.operations)


def build_fleet(dc: DataCenter, plan: Plan) -> None:
    """Two clusters and all hosts, side by side.

    Raises:
        WaitTimeout: not all hosts came up.
    """
    for name, policy in POLICY_BY_CLUSTER.items():
        dc.clusters.create(name, policy=policy)
    with dc.pipelined():
        for host in plan.hosts:
            _add_host(dc, host)
    deadline_s = time.monotonic() + HOSTS_UP_WITHIN_S
    while (up := dc.sql("select count(*) from hosts where status = 'up'").one()) < len(plan.hosts):
        if time.monotonic() > deadline_s:
            raise WaitTimeout(f"only {up} of {len(plan.hosts)} hosts came up within {HOSTS_UP_WITHIN_S:g} s")
        time.sleep(POLL_S)


def _add_host(dc: DataCenter, host: PlannedHost) -> None:
    """The rack shares a silo, so that one kill takes all of it; its hosts alone can be fenced."""
    shape = host.shape
    if host.in_rack:
        command = m.AddHost(
            name=shape.name,
            cluster=host.cluster,
            cpus=shape.cpus,
            memory_bytes=shape.memory_bytes,
            silo=RACK_SILO,
            fence_devices=[SIMULATED_FENCE_DEVICE],
        )
        dc.submit(command, f"add host {shape.name}")
        return
    dc.hosts.add(
        shape.name,
        cluster=host.cluster,
        cpus=shape.cpus,
        memory=shape.memory_bytes,
        dedicated=host.to_be_killed,
        wait=False,
    )

"""The demo from its first line to its last: opens the data center, plays the workload, kills, proves, closes."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from olvm.api.data_center import DataCenter
from olvm.demo.drills import Drills
from olvm.demo.plan import POLICY_BY_CLUSTER, Plan, RuntimeName, make_plan
from olvm.demo.progress import ProgressLine
from olvm.demo.proof import prove
from olvm.demo.replay import Replay
from olvm.demo.report import Report
from olvm.demo.watch import Watcher
from olvm.model.errors import BadInput, WaitTimeout

HOSTS_UP_WITHIN_S = 90.0
POLL_S = 0.05


def tell_story(
    *, runtime: RuntimeName, vm_count: int, seconds: float, directory: Path | None, discard: bool
) -> int:
    """Run the demo; 1 when the journal does not hold what the driver was told, else 0.

    Args:
        directory: an empty or new one, which stays; None makes a temporary one.
        discard: remove a temporary one afterwards, unless something was lost: then it is the evidence.
    """
    began_s = time.monotonic()
    plan = make_plan(vm_count=vm_count, seconds=seconds)
    home = _home(directory)
    report = Report(Console(file=sys.stdout))
    report.opening(plan, home, runtime)
    with DataCenter.open(home, runtime=runtime, **plan.settings()) as dc:
        lost = _play(dc, plan, runtime, report)
    stays = directory is not None or not discard or lost > 0
    if not stays:
        shutil.rmtree(home)
    report.closing(home, time.monotonic() - began_s, stays=stays)
    return 1 if lost else 0


def _home(directory: Path | None) -> Path:
    if directory is None:
        return Path(tempfile.mkdtemp(prefix="olvm-demo-"))
    if (directory / "engine.duckdb").exists():
        raise BadInput(
            f"directory {directory} holds a data center already, and the demo tells a new story; "
            "name an empty directory, or none"
        )
    return directory.absolute()


def _play(dc: DataCenter, plan: Plan, runtime: RuntimeName, report: Report) -> int:
    replay = Replay(dc, plan)
    progress = ProgressLine(replay, sys.stderr)
    began_s = time.monotonic()
    build_fleet(dc, plan)
    progress.say(f"  {len(plan.hosts)} hosts are up after {time.monotonic() - began_s:.1f} s")
    watcher, drills = Watcher(dc, replay.tell), Drills(dc, plan, runtime)
    with progress, watcher, drills:
        replay.run(lambda: progress.show(drills.news), lambda: not drills.is_over)
    proof = prove(dc, replay.ledger, replay.tenants)
    report.operations(replay, proof)
    report.clusters(watcher)
    report.crashes(drills, replay, watcher)
    report.verdict(proof)
    report.queries(dc, plan)
    return proof.lost


def build_fleet(dc: DataCenter, plan: Plan) -> None:
    """Two clusters and all hosts, side by side.

    Raises:
        WaitTimeout: not all hosts came up.
    """
    for name, policy in POLICY_BY_CLUSTER.items():
        dc.clusters.create(name, policy=policy)
    with dc.pipelined():
        for host in plan.hosts:
            shape = host.shape
            dc.hosts.add(
                shape.name,
                cluster=host.cluster,
                cpus=shape.cpus,
                memory=shape.memory_bytes,
                dedicated=host.to_be_killed,
                wait=False,
            )
    deadline_s = time.monotonic() + HOSTS_UP_WITHIN_S
    while (up := dc.sql("select count(*) from hosts where status = 'up'").one()) < len(plan.hosts):
        if time.monotonic() > deadline_s:
            raise WaitTimeout(f"only {up} of {len(plan.hosts)} hosts came up within {HOSTS_UP_WITHIN_S:g} s")
        time.sleep(POLL_S)

"""What a person sees of a run or a campaign: short, in columns, with the command that shows it again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sim.explore import Campaign, Failure
from sim.plan import Plan
from sim.runs import Outcome
from sim.situations import all_situations
from sim.sweep import SweepReport

REPLAY = "olvm sim replay"


def run_lines(plan: Plan, outcome: Outcome) -> Iterator[str]:
    """One run: what it was, how fast, what was done to it, what was checked, and the digest."""
    shape = plan.shape
    yield (
        f"seed {plan.seed}, profile {plan.profile}: {shape.hosts} hosts, {shape.vms} machines, "
        f"{plan.hours:g} h of faults and commands ({len(plan.steps)} steps), then healing"
    )
    rate = outcome.messages / outcome.wall_s if outcome.wall_s else 0.0
    speed = outcome.simulated_s / outcome.wall_s if outcome.wall_s else 0.0
    yield f"simulated     {duration(outcome.simulated_s)} in {outcome.wall_s:.2f} s: {speed:,.0f} x real time"
    yield f"messages      {outcome.messages:,} delivered ({rate:,.0f} a second), {outcome.frames:,} frames"
    yield f"commits       {outcome.commits:,}"
    faults = sum(outcome.fault_counts.values())
    named = ", ".join(f"{name} {count}" for name, count in outcome.fault_counts.items())
    yield f"faults        {faults}" + (f": {named}" if named else "")
    yield f"oracles       {outcome.checks:,} changes of the truth and commits were held against all of them"
    if outcome.restart_s:
        yield f"restarts      {spread(outcome.restart_s)} from a lost life to the next"
    reached = sum(1 for count in outcome.situations.values() if count)
    yield f"situations    {reached} of {len(all_situations())} reached"
    yield f"digest        {outcome.digest}"
    if outcome.verdict == "ok":
        yield "verdict       ok"
    else:
        when = f" at {outcome.failed_at_s:.3f} s" if outcome.failed_at_s is not None else ""
        yield f"verdict       {outcome.verdict.upper()} {outcome.oracle}{when}: {outcome.sentence}"


def campaign_lines(campaign: Campaign) -> Iterator[str]:
    wall_s = campaign.wall_s or 1.0
    yield (
        f"{campaign.seeds:,} seeds and {campaign.twins:,} twins in {campaign.wall_s:.1f} s: "
        f"{duration(campaign.simulated_s)} simulated ({campaign.simulated_s / wall_s:,.0f} x real time), "
        f"{campaign.messages:,} messages ({campaign.messages / wall_s:,.0f} a second), "
        f"slowest seed {campaign.seed_s_max:.1f} s"
    )
    if campaign.restart_s:
        yield f"highly available machines came back after {spread(campaign.restart_s)}"
    yield "faults: " + (
        ", ".join(f"{name} {count:,}" for name, count in campaign.fault_counts.items()) or "none"
    )
    yield from situation_lines(campaign.situations)
    for failure in campaign.failures:
        yield from failure_lines(failure)
    if not campaign.failures:
        yield "no failure"


def situation_lines(situations: dict[str, int]) -> Iterator[str]:
    reached = {name: count for name, count in situations.items() if count}
    yield f"situations reached: {len(reached)} of {len(situations)}"
    width = max((len(name) for name in situations), default=0)
    for name, count in sorted(reached.items(), key=lambda item: (-item[1], item[0])):
        yield f"  {name:<{width}} {count:>10,}"
    never = sorted(name for name, count in situations.items() if not count)
    if never:
        yield "never reached: " + ", ".join(never)


def failure_lines(failure: Failure) -> Iterator[str]:
    when = f" at {failure.failed_at_s:.3f} s" if failure.failed_at_s is not None else ""
    yield f"seed {failure.seed}: {failure.verdict.upper()} {failure.oracle}{when}: {failure.sentence}"
    if failure.shrunk_token:
        yield f"  shrunk from {failure.steps} steps to {failure.shrunk_steps} in {failure.shrink_runs} runs:"
        yield f"  {REPLAY} {failure.shrunk_token}"
    else:
        yield f"  {REPLAY} {failure.token}"


def sweep_lines(report: SweepReport) -> Iterator[str]:
    yield (
        f"{report.runs:,} of {report.places:,} places struck in {report.wall_s:.1f} s, "
        f"{report.messages:,} messages delivered, {len(report.failures)} failures"
    )
    for failure in report.failures:
        place = failure.place
        yield (
            f"{place.perturbation} at {place.where} number {place.number}: {failure.verdict.upper()} "
            f"{failure.oracle}: {failure.sentence}"
        )


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7_200:
        return f"{seconds / 60:.1f} min"
    if seconds < 172_800:
        return f"{seconds / 3_600:.1f} h"
    return f"{seconds / 86_400:.1f} days"


def spread(values: Sequence[float]) -> str:
    """Median, 95th percentile and maximum, in seconds."""
    ordered = sorted(values)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return (
        f"{at(0.5):.0f} s in the median, {at(0.95):.0f} s at the 95th percentile, "
        f"{ordered[-1]:.0f} s at most (n={len(ordered)})"
    )

"""What a worker process does: run a seed or a token, and hand the outcome back as bytes.

This module imports nothing of the system at its top: a bug must be planted (`prepare`) before anything is imported.
"""

from __future__ import annotations

import msgspec

from sim.plan import Plan, Profile


class SeedJob(msgspec.Struct, frozen=True, kw_only=True):
    """One seed of a campaign; what is None is drawn. `token`, when set, is the plan instead."""

    seed: int = 0
    profile: Profile = "rough"
    hours: float | None = None
    hosts: int | None = None
    vms: int | None = None
    favour: tuple[str, ...] = ()
    token: str = ""
    with_oracles: bool = True
    keeps_trail: bool = False


class Trailed(msgspec.Struct, kw_only=True):
    """An outcome, and the trail of its digest when it was asked for."""

    outcome: bytes
    trail: list[tuple[int, str, int, int]] = []


def prepare(mutant: str = "") -> None:
    """The initializer of a worker's process."""
    if mutant:
        from sim.mutants.catalogue import mutant_named
        from sim.mutants.planting import plant

        plant(mutant_named(mutant))


def plan_of(job: SeedJob) -> Plan:
    """The plan that a job's seed is drawn to."""
    from sim.swarm import draw_plan

    return draw_plan(job.seed, job.profile, hours=job.hours, hosts=job.hosts, vms=job.vms, favour=job.favour)


def run_job(job: bytes) -> bytes:
    """SeedJob in msgpack to Trailed in msgpack."""
    from sim.runs import Run
    from sim.token import decode_plan

    asked = msgspec.msgpack.decode(job, type=SeedJob)
    plan = decode_plan(asked.token) if asked.token else plan_of(asked)
    run = Run(plan, with_oracles=asked.with_oracles, keeps_trail=asked.keeps_trail)
    outcome = run.go()
    trail = [tuple(mark) for mark in run.world.digest.trail or []]
    return msgspec.msgpack.encode(Trailed(outcome=msgspec.msgpack.encode(outcome), trail=trail))  # type: ignore[arg-type]


def shrink_job(job: bytes) -> bytes:
    """A token that fails, to the token of the smallest plan found that fails the same way; msgpack both ways."""
    from sim.runs import run_plan
    from sim.shrink import shrink
    from sim.token import decode_plan, encode_plan

    token, runs_max = msgspec.msgpack.decode(job, type=tuple[str, int])
    plan = decode_plan(token)
    first = run_plan(plan)

    def fails_still(candidate: Plan) -> bool:
        outcome = run_plan(candidate)
        return (outcome.verdict, outcome.oracle) == (first.verdict, first.oracle)

    if first.verdict == "ok":
        return msgspec.msgpack.encode((token, 0, len(plan.steps), len(plan.steps)))
    at_ms = None
    if first.failed_at_s is not None and not first.while_settling:
        at_ms = max(0, int(first.failed_at_s * 1_000))
    report = shrink(plan, fails_still, failed_at_ms=at_ms, runs_max=runs_max)
    return msgspec.msgpack.encode(
        (encode_plan(report.plan), report.runs, report.steps_before, len(report.plan.steps))
    )

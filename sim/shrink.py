"""Makes a failing plan small: fewer steps, knobs back to 0, a shorter run, a smaller world.

Delta debugging over values: a candidate is kept if the same oracle still fails. The plan stays a plan, so the result
replays like any other. Every attempt is one run; the caller bounds them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from sim.plan import Knobs, Plan, Step

FailsStill = Callable[[Plan], bool]
# Safety margin after the moment of the violation, in ms of the plan's time.
AFTER_MS = 2_000


class ShrinkReport(msgspec.Struct, frozen=True, kw_only=True):
    plan: Plan
    runs: int
    steps_before: int


def shrink(
    plan: Plan, fails_still: FailsStill, *, failed_at_ms: int | None, runs_max: int = 200
) -> ShrinkReport:
    """A smaller plan that fails in the same way. `failed_at_ms`: when a safety oracle fired; None for liveness."""
    shrinker = _Shrinker(plan, fails_still, runs_max)
    if failed_at_ms is not None:
        shrinker.cut_after(failed_at_ms + AFTER_MS)
    shrinker.drop_steps()
    shrinker.calm_knobs()
    shrinker.smaller_world()
    shrinker.drop_steps()
    shrinker.shorten_steps()
    return ShrinkReport(plan=shrinker.plan, runs=shrinker.runs, steps_before=len(plan.steps))


class _Shrinker:
    def __init__(self, plan: Plan, fails_still: FailsStill, runs_max: int) -> None:
        self.plan = plan
        self.runs = 0
        self._fails_still = fails_still
        self._runs_max = runs_max

    def _try(self, candidate: Plan) -> bool:
        if self.runs >= self._runs_max or candidate == self.plan:
            return False
        self.runs += 1
        if not self._fails_still(candidate):
            return False
        self.plan = candidate
        return True

    def _with_steps(self, steps: tuple[Step, ...]) -> Plan:
        return msgspec.structs.replace(self.plan, steps=steps)

    def cut_after(self, at_ms: int) -> None:
        """What comes after the violation cannot have caused it."""
        if at_ms < self.plan.end_ms:
            steps = tuple(step for step in self.plan.steps if step.at_ms <= at_ms)
            shorter = msgspec.structs.replace(self._with_steps(steps), hours=max(at_ms, 1_000) / 3_600_000)
            self._try(shorter)

    def drop_steps(self) -> None:
        """ddmin: leave out ever smaller runs of steps."""
        size = max(1, len(self.plan.steps) // 2)
        while size >= 1 and self.plan.steps and self.runs < self._runs_max:
            start, dropped = 0, False
            while start < len(self.plan.steps) and self.runs < self._runs_max:
                steps = self.plan.steps
                if self._try(self._with_steps(steps[:start] + steps[start + size :])):
                    dropped = True
                else:
                    start += size
            if size == 1 and not dropped:
                return
            size = max(1, size // 2) if size > 1 else (1 if dropped else 0)

    def calm_knobs(self) -> None:
        calm = Knobs(quick_timers=self.plan.knobs.quick_timers)
        if self._try(msgspec.structs.replace(self.plan, knobs=calm)):
            return
        for name in Knobs.__struct_fields__:
            if getattr(self.plan.knobs, name):
                knobs = msgspec.structs.replace(self.plan.knobs, **{name: 0})
                self._try(msgspec.structs.replace(self.plan, knobs=knobs))

    def smaller_world(self) -> None:
        for candidate in self._smaller():
            self._try(candidate)

    def _smaller(self) -> Iterator[Plan]:
        shape = self.plan.shape
        named = {step.target for step in self.plan.steps} | {step.detail for step in self.plan.steps}
        vms = max((int(name[1:]) for name in named if name[:1] == "v" and name[1:].isdigit()), default=1)
        if vms < shape.vms:
            yield msgspec.structs.replace(self.plan, shape=msgspec.structs.replace(shape, vms=vms))
        if self.plan.shape.vm_silos:
            yield msgspec.structs.replace(
                self.plan, shape=msgspec.structs.replace(self.plan.shape, vm_silos=0)
            )

    def shorten_steps(self) -> None:
        for index, step in enumerate(self.plan.steps):
            if step.for_ms > 1_000:
                shorter = msgspec.structs.replace(step, for_ms=step.for_ms // 4)
                steps = (*self.plan.steps[:index], shorter, *self.plan.steps[index + 1 :])
                self._try(self._with_steps(steps))

"""How a live migration that does not converge is helped: a policy's schedule, step by step.

Pure: from a policy, how many steps were taken and how often the guest's memory has been gone over, the next step.
Step *n* is due once more memory iterations have passed than its limit says; each last resort is due one iteration
after what stands before it. One step at each look, as VDSM does it.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from olvm.model.migration_policies import SUSPEND_WORKLOAD_DOWNTIME_MS, MigrationPolicy


class AllowDowntime(msgspec.Struct, frozen=True):
    downtime_ms: int


Help: TypeAlias = AllowDowntime | Literal["post_copy", "abort"]


def next_help(policy: MigrationPolicy, steps_taken: int, memory_iteration: int) -> Help | None:
    """What to do now; None: nothing is due. Whoever does it counts it as a step.

    The last resort is due again at each look: an order to give up may be lost like any other.
    """
    if steps_taken < len(policy.steps):
        step = policy.steps[steps_taken]
        return AllowDowntime(step.downtime_ms) if memory_iteration > step.stalling_limit else None
    resort = min(steps_taken - len(policy.steps), len(policy.last) - 1)
    limit_before = policy.steps[-1].stalling_limit if policy.steps else 0
    if memory_iteration <= limit_before + 1 + resort:
        return None
    match policy.last[resort]:
        case "suspend_workload":
            return AllowDowntime(SUSPEND_WORKLOAD_DOWNTIME_MS)
        case "post_copy":
            return "post_copy"
        case "abort":
            return "abort"

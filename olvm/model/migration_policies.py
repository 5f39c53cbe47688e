"""Migration policies as data: how a live migration that does not converge is helped, and when it is given up.

A policy is a schedule. Each step says: once the guest's memory has been gone over more than `stalling_limit` times
since the step before, allow this downtime. When the steps are used up, `last` is tried in order.

Source: oVirt `MigrationPolicies` (0000_config.sql) and VDSM `migration.py`; numbers in docs/states.md's companions.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from olvm.model.errors import BadInput

LastResort = Literal["abort", "post_copy", "suspend_workload"]
SUSPEND_WORKLOAD_DOWNTIME_MS = 5_000


class MigrationStep(msgspec.Struct, frozen=True, array_like=True):
    """Allow `downtime_ms` once more than `stalling_limit` iterations brought no progress."""

    stalling_limit: int
    downtime_ms: int


class MigrationPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """`concurrent_max` bounds migrations per host in each direction, below the configured limits."""

    name: str
    concurrent_max: int
    initial_downtime_ms: int
    steps: tuple[MigrationStep, ...]
    last: tuple[LastResort, ...]
    auto_converge: bool = True
    compression: bool = False


def _steps(*pairs: tuple[int, int]) -> tuple[MigrationStep, ...]:
    return tuple(MigrationStep(limit, downtime_ms) for limit, downtime_ms in pairs)


_FIVE_STEPS = _steps((1, 150), (2, 200), (3, 300), (4, 400), (6, 500))

MIGRATION_POLICIES: tuple[MigrationPolicy, ...] = (
    MigrationPolicy(
        name="minimal_downtime",
        concurrent_max=2,
        initial_downtime_ms=100,
        steps=_FIVE_STEPS,
        last=("abort",),
    ),
    MigrationPolicy(
        name="suspend_workload",
        concurrent_max=1,
        initial_downtime_ms=100,
        steps=_FIVE_STEPS,
        last=("suspend_workload", "abort"),
        compression=True,
    ),
    MigrationPolicy(
        name="post_copy",
        concurrent_max=2,
        initial_downtime_ms=100,
        steps=_steps((1, 150), (2, 200)),
        last=("post_copy", "abort"),
    ),
    MigrationPolicy(
        name="legacy",
        concurrent_max=2,
        initial_downtime_ms=100,
        steps=_steps((1, 200), (2, 300), (3, 400), (4, 500)),
        last=("abort",),
        auto_converge=False,
    ),
)
POLICY_BY_NAME: dict[str, MigrationPolicy] = {policy.name: policy for policy in MIGRATION_POLICIES}


def migration_policy_named(name: str) -> MigrationPolicy:
    """The policy, or `BadInput` that lists those that exist."""
    policy = POLICY_BY_NAME.get(name)
    if policy is None:
        raise BadInput(f"migration policy {name} does not exist: choose from {', '.join(POLICY_BY_NAME)}")
    return policy

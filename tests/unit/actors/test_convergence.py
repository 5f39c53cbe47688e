"""The schedule of each policy, as a table."""

from __future__ import annotations

import pytest

from actors.convergence import AllowDowntime, Help, next_help
from olvm.model.migration_policies import MIGRATION_POLICIES, POLICY_BY_NAME, MigrationPolicy


@pytest.mark.parametrize(
    ("policy", "steps_taken", "iteration", "due"),
    [
        ("minimal_downtime", 0, 1, None),
        ("minimal_downtime", 0, 2, AllowDowntime(150)),
        ("minimal_downtime", 0, 50, AllowDowntime(150)),  # one step at a look, however late it comes
        ("minimal_downtime", 1, 2, None),
        ("minimal_downtime", 1, 3, AllowDowntime(200)),
        ("minimal_downtime", 3, 5, AllowDowntime(400)),
        ("minimal_downtime", 4, 6, None),
        ("minimal_downtime", 4, 7, AllowDowntime(500)),
        ("minimal_downtime", 5, 7, None),
        ("minimal_downtime", 5, 8, "abort"),
        ("minimal_downtime", 6, 99, "abort"),
        ("suspend_workload", 5, 8, AllowDowntime(5_000)),
        ("suspend_workload", 6, 8, None),
        ("suspend_workload", 6, 9, "abort"),
        ("post_copy", 1, 3, AllowDowntime(200)),
        ("post_copy", 2, 3, None),
        ("post_copy", 2, 4, "post_copy"),
        ("post_copy", 3, 5, "abort"),
        ("legacy", 3, 5, AllowDowntime(500)),
        ("legacy", 4, 6, "abort"),
    ],
)
def test_schedule_at_an_iteration_gives_the_step_that_is_due(
    policy: str, steps_taken: int, iteration: int, due: Help | None
) -> None:
    assert next_help(POLICY_BY_NAME[policy], steps_taken, iteration) == due


def test_schedule_without_steps_begins_with_its_last_resort() -> None:
    policy = MigrationPolicy(
        name="at_once", concurrent_max=1, initial_downtime_ms=1, steps=(), last=("abort",)
    )
    assert [next_help(policy, 0, iteration) for iteration in (1, 2)] == [None, "abort"]


@pytest.mark.parametrize("policy", MIGRATION_POLICIES, ids=lambda policy: policy.name)
def test_schedule_of_a_migration_that_never_converges_uses_each_step_once_and_then_aborts_until_it_ends(
    policy: MigrationPolicy,
) -> None:
    taken: list[Help] = []
    for iteration in range(100):
        due = next_help(policy, len(taken), iteration)
        if due is not None:
            taken.append(due)
    helps = len(policy.steps) + len(policy.last) - 1
    assert "abort" not in taken[:helps]
    assert set(taken[helps:]) == {"abort"}
    assert len(taken) > helps + 1

"""Two hundred worlds that nobody has seen before: no promise is broken, and hard situations are reached.

The seeds come from the commit, so a red run is red again. 200 seeds cost about 170 s of CPU at the hours that they
draw themselves (a quarter of an hour of faults on average, and the settling): 90 s on two cores.
"""

from __future__ import annotations

import pytest

from sim.explore import Campaign, explore
from sim.plan import Profile
from sim.reports import failure_lines
from tests.sim.seeding import WORKERS, number_of_commit

SEEDS_BY_PROFILE: dict[Profile, int] = {"calm": 40, "rough": 100, "brutal": 60}
# A campaign of this size reaches over a hundred; one that reaches so few does not test what it should.
SITUATIONS_MIN: dict[Profile, int] = {"calm": 25, "rough": 60, "brutal": 60}
MINUTES_MAX = 4.0  # of one profile, on a machine that is busy with other things


def told(campaign: Campaign, profile: Profile, first: int) -> str:
    """Each failure with the command that shows it again; the shrinking is the reader's to start."""
    lines = [
        f"{len(campaign.failures)} of {campaign.seeds} seeds from {first} on failed; to shrink them:",
        f"  olvm sim explore --profile {profile} --first {first} --seeds {SEEDS_BY_PROFILE[profile]}",
    ]
    for failure in campaign.failures:
        lines += failure_lines(failure)
    return "\n".join(lines)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("profile", SEEDS_BY_PROFILE)
def test_fresh_seeds_of_this_commit_break_no_promise(profile: Profile) -> None:
    first, count = number_of_commit(), SEEDS_BY_PROFILE[profile]
    campaign = explore(
        range(first, first + count), profile=profile, workers=WORKERS, minutes=MINUTES_MAX, shrinks=False
    )
    assert not campaign.failures, told(campaign, profile, first)
    assert campaign.seeds >= count // 2, (
        f"only {campaign.seeds} of {count} seeds ran in {MINUTES_MAX:g} minutes"
    )
    assert campaign.twins >= 1, "no seed was run a second time in another process"
    reached = sum(1 for times in campaign.situations.values() if times)
    assert reached >= SITUATIONS_MIN[profile], f"never reached: {', '.join(campaign.unreached())}"

"""Stories of hosts that are powered off and on, told by what befell their power."""

from __future__ import annotations

from sim.plan import Knobs, Plan, Shape, Step
from sim.runs import run_plan

THREE_WITH_DEVICES = Shape(
    hosts=3,
    vms=3,
    running_percent=100,
    ha_percent=100,
    lease_percent=0,
    fence_percent=100,
    kdump_percent=0,
    policy="none",
)


def test_order_to_power_off_that_lay_before_an_agent_that_stood_still_does_not_strike_when_it_goes_on() -> (
    None
):
    """H2 is restarted through H1, as H3 does not answer; H3's orders are of no use when it goes on."""
    plan = Plan(
        seed=1,
        hours=0.1,
        shape=THREE_WITH_DEVICES,
        knobs=Knobs(quick_timers=1),
        steps=(
            Step(30_000, "maintenance", "H2"),
            Step(99_900, "pause_agent", "H3", 20_000),
            Step(100_000, "restart_host", "H2", 0, 1),
        ),
    )
    outcome = run_plan(plan, keeps_story=True)
    assert (outcome.verdict, outcome.sentence) == ("ok", "")
    power = [
        line.split("power is ")[1][:3].strip() for line in outcome.story if "truth on H2    power is" in line
    ]
    assert power == ["on", "off", "on"]
    assert outcome.situations["fence_order_that_came_late_is_not_repeated"] > 0

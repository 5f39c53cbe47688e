"""Who starts agents knows whether one is new, or has lost a life of which the engine knows."""

from __future__ import annotations

import pytest

from actors.host_agent import HostAgent
from actors.roster import AgentRoster
from olvm.model import messages as m
from olvm.model.limits import HOST_EPOCHS_UNHEARD_MAX
from tests.builders import turn


@pytest.mark.parametrize(("heard", "begins_after"), [(0, 0), (3, 3 + HOST_EPOCHS_UNHEARD_MAX)])
def test_agent_without_a_record_goes_on_above_all_that_it_may_have_counted(
    heard: int, begins_after: int
) -> None:
    done = turn(me="agents")
    order = m.StartAgent("H1", "prod", "simulated", {}, 8, 2**34, heard)
    AgentRoster(set()).handle(order, done)
    (agent,) = done.spawned
    assert isinstance(agent, HostAgent)
    assert agent.record.host_epoch == begins_after
    assert [message for _, message, _ in done.sent] == [order]

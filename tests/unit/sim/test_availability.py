"""How long highly available machines were away: from the end of the last copy by a fault to the next life."""

from __future__ import annotations

import pytest

from olvm.journal.port import Batch
from olvm.model.limits import NS_PER_S
from olvm.model.records import VmRecord
from sim.availability import NORMAL_ENDS, Restarts
from tests.unit.sim.test_oracles import Scene


def saved(vm_id: str, *, is_ha: bool = True, lease: bool = False) -> Batch:
    batch = Batch()
    batch.save(
        VmRecord(
            id=vm_id,
            name=vm_id,
            cluster="prod",
            vcpus=1,
            memory_bytes=1,
            high_availability=is_ha,
            lease=lease,
        )
    )
    return batch


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.fixture
def restarts(scene: Scene) -> Restarts:
    made = Restarts(scene)
    made.committed("engine", saved("a"))
    made.vcpus_started("H1", "a", 1)
    return made


def lose(restarts: Restarts, host: str = "H1", epoch: int = 1) -> None:
    """The host loses its power."""
    restarts.vcpus_stopped(host, "a", epoch)
    restarts.domain_removed(host, "a", epoch, 1)


def test_crashed_machine_that_comes_back_counts_the_time_between(scene: Scene, restarts: Restarts) -> None:
    scene.at(100)
    lose(restarts)
    scene.at(142.5)
    restarts.vcpus_started("H2", "a", 2)
    restarts.vcpus_started("H2", "a", 2)  # resumed after a pause: no second outage
    assert restarts.outages_s == [42.5]
    assert restarts.outages_with_lease_s == []


def test_machine_with_a_lease_counts_among_those_too(scene: Scene, restarts: Restarts) -> None:
    restarts.committed("engine", saved("a", lease=True))
    lose(restarts)
    scene.now_ns += 7 * NS_PER_S
    restarts.vcpus_started("H2", "a", 2)
    assert restarts.outages_s == restarts.outages_with_lease_s == [7.0]


@pytest.mark.parametrize("reason", sorted(NORMAL_ENDS))
def test_machine_that_was_ended_on_purpose_was_not_away(
    scene: Scene, restarts: Restarts, reason: int
) -> None:
    restarts.ended("H1", "a", 1, reason)
    lose(restarts)
    scene.at(9_000)
    restarts.vcpus_started("H1", "a", 2)
    assert restarts.outages_s == []


def test_machine_whose_other_copy_runs_on_is_not_away(scene: Scene, restarts: Restarts) -> None:
    restarts.vcpus_started("H2", "a", 2)
    lose(restarts)
    scene.at(50)
    restarts.vcpus_started("H3", "a", 3)
    assert restarts.outages_s == []


@pytest.mark.parametrize("was_ha", [True, False])
def test_machine_that_is_not_highly_available_is_not_counted(
    scene: Scene, restarts: Restarts, was_ha: bool
) -> None:
    restarts.committed("engine", saved("a", is_ha=was_ha))
    lose(restarts)
    restarts.committed("engine", saved("a", is_ha=False))
    scene.at(50)
    restarts.vcpus_started("H2", "a", 2)
    assert restarts.outages_s == []


def test_outage_that_lasts_is_not_counted_before_it_is_over(restarts: Restarts) -> None:
    lose(restarts)
    assert restarts.outages_s == []

"""Silent, lost and dead hosts: who is told, in which order, who starts first, and when a host may be fenced."""

from __future__ import annotations

import pytest

from actors.cluster import Cluster
from olvm.model import messages as m
from olvm.model.config import Config
from olvm.model.host_states import HostStatus
from olvm.model.vm_states import VmStatus
from tests.unit.actors.clusters import (
    agent_of,
    cluster,
    copy_ask,
    give,
    place,
    replies,
    report,
    run,
    state,
    usable,
)


def told(one: Cluster, message: m.AnyMessage) -> list[str]:
    return [to for to, _, _ in give(one, message, "host/H1").sent]


def test_silent_host_is_told_to_its_leased_highly_available_machines_only() -> None:
    one = cluster("H1", "H2", memory_gib=16)
    run(one, "v1", "H1", leased=True, high_availability=True)
    run(one, "v2", "H1", leased=True)
    run(one, "v3", "H1", high_availability=True)
    run(one, "v4", "H2", leased=True, high_availability=True)
    run(one, "v5", "H1", leased=True, high_availability=True, priority=90)
    assert told(one, m.HostSilent("H1", "15 s")) == ["vm/v5", "vm/v1"]


def test_unresponsive_host_is_told_to_machines_and_to_those_whose_copy_is_there() -> None:
    one = cluster("H1", "H2")
    run(one, "v1", "H1")
    run(one, "v2", "H2")
    give(one, copy_ask("v2", current_host="H2"), "vm/v2")
    assert sorted(told(one, m.HostUnresponsive("H1", "silent"))) == ["vm/v1", "vm/v2"]
    done = give(one, m.HostUnresponsive("H1", "still", again=True), "host/H1")
    assert ("vm/v1", m.HostLost("H1", "still", again=True), True) in done.sent


def test_dead_host_is_told_by_descending_priority_copies_included() -> None:
    one = cluster("H1", "H2", memory_gib=16)
    for vm_id, priority in (("v1", 10), ("v2", 90), ("v3", 50)):
        run(one, vm_id, "H1", priority=priority)
    run(one, "v4", "H2", priority=70)
    give(one, copy_ask("v4", current_host="H2", priority=70), "vm/v4")
    done = give(one, m.HostFenced("H1", "boot-H1", "powered off"), "host/H1")
    dead = m.HostConfirmedDead("H1", "boot-H1", "powered off")
    assert [(to, message) for to, message, _ in done.sent] == [
        (f"vm/{vm_id}", dead) for vm_id in ("v2", "v4", "v3", "v1")
    ]


# ---------------------------------------------------------------- priority


def restart(one: Cluster, vm_id: str, epoch: int, priority: int, at_s: float = 100.0) -> m.AnyMessage:
    ask = place(vm_id, epoch, ha_restart=True, high_availability=True, priority=priority)
    (answer,) = replies(give(one, ask, f"vm/{vm_id}", at_s=at_s), f"vm/{vm_id}")
    return answer


def fenced_with(*priorities: int) -> Cluster:
    one = cluster("H1", "H2", memory_gib=64)
    for number, priority in enumerate(priorities, start=1):
        run(one, f"v{number}", "H1", high_availability=True, priority=priority)
    give(one, usable("H1", HostStatus.REBOOT))
    give(one, m.HostFenced("H1", "boot-H1", "off"), "host/H1")
    for number in range(1, len(priorities) + 1):
        give(one, m.ReleaseVm(f"v{number}", "H1", 1), f"vm/v{number}")
    return one


def test_restart_of_low_priority_waits_until_the_higher_one_is_seen_running() -> None:
    one = fenced_with(90, 10)
    deferred = m.VmNotPlaced(2, "v1 has a higher priority and is not running yet", deferred=True)
    assert restart(one, "v2", 2, 10) == deferred  # asked first, although v1 is only expected
    assert isinstance(restart(one, "v1", 2, 90), m.VmPlaced)
    assert restart(one, "v2", 2, 10) == deferred
    give(one, report("H2", state("v1", epoch=2, status=VmStatus.WAIT_FOR_LAUNCH)))
    assert restart(one, "v2", 2, 10) == deferred
    give(one, report("H2", state("v1", epoch=2, status=VmStatus.POWERING_UP)))
    assert isinstance(restart(one, "v2", 2, 10), m.VmPlaced)


def test_restart_of_equal_priority_waits_for_nobody() -> None:
    one = fenced_with(50, 50)
    assert isinstance(restart(one, "v2", 2, 50), m.VmPlaced)


def test_restart_asked_for_by_a_person_waits_for_nobody() -> None:
    one = fenced_with(90, 10)
    (answer,) = replies(give(one, place("v2", 2, priority=10), "vm/v2"), "vm/v2")
    assert isinstance(answer, m.VmPlaced)


def test_expected_machine_that_never_asks_holds_others_up_for_seconds_only() -> None:
    one = fenced_with(90, 10)
    assert isinstance(restart(one, "v2", 2, 10, at_s=100.0 + 9), m.VmNotPlaced)
    assert isinstance(restart(one, "v2", 2, 10, at_s=100.0 + 11), m.VmPlaced)


def test_blocking_ends_after_ha_priority_block_s_counted_from_the_first_try() -> None:
    one, block_s = fenced_with(90, 10), Config().ha_priority_block_s
    restart(one, "v1", 2, 90)
    give(one, m.ReleaseVm("v1", "H2", 2, failed_start=True), "vm/v1")
    restart(one, "v1", 3, 90, at_s=100 + block_s - 1)
    assert isinstance(restart(one, "v2", 2, 10, at_s=100 + block_s - 1), m.VmNotPlaced)
    assert isinstance(restart(one, "v2", 2, 10, at_s=100 + block_s + 1), m.VmPlaced)


def test_machine_behind_one_of_higher_priority_after_another_waits_no_longer_than_behind_one() -> None:
    one, block_s = fenced_with(90, 80, 10), Config().ha_priority_block_s
    assert isinstance(restart(one, "v3", 2, 10), m.VmNotPlaced)
    assert isinstance(restart(one, "v2", 2, 80, at_s=100 + block_s - 50), m.VmPlaced)
    assert isinstance(restart(one, "v3", 2, 10, at_s=100 + block_s - 1), m.VmNotPlaced)
    assert isinstance(restart(one, "v3", 2, 10, at_s=100 + block_s), m.VmPlaced)


def test_blocker_whose_attempt_was_given_up_blocks_nobody() -> None:
    one = fenced_with(90, 10)
    restart(one, "v1", 2, 90)
    give(one, m.ReleaseVm("v1", "H2", 2), "vm/v1")
    assert isinstance(restart(one, "v2", 2, 10), m.VmPlaced)


# ---------------------------------------------------------------- fencing


def advice(one: Cluster, host: str = "H1") -> m.FencingAdvice:
    (answer,) = replies(give(one, m.AskFencing(host, 7), f"host/{host}"), f"host/{host}")
    assert isinstance(answer, m.FencingAdvice)
    assert (answer.host, answer.seq) == (host, 7)
    return answer


def test_fencing_goes_through_up_hosts_beginning_after_the_asked_one() -> None:
    one = cluster("H1", "H2", "H3", "H4")
    give(one, usable("H2", HostStatus.NON_RESPONSIVE))
    give(one, usable("H4", HostStatus.MAINTENANCE))
    assert advice(one, "H2") == m.FencingAdvice(
        "H2", 7, True, "", [agent_of("H3"), agent_of("H1"), agent_of("H4")], check_lease=True
    )


@pytest.mark.parametrize(
    ("silent", "hosts", "allowed"),
    [(1, 2, True), (1, 5, True), (2, 5, True), (2, 4, False), (3, 5, False), (5, 5, False)],
)
def test_fencing_waits_while_as_many_hosts_as_the_threshold_are_silent(
    silent: int, hosts: int, allowed: bool
) -> None:
    one = cluster(*(f"H{n}" for n in range(1, hosts + 1)))
    for number in range(1, silent + 1):
        status = HostStatus.CONNECTING if number % 2 else HostStatus.NON_RESPONSIVE
        give(one, usable(f"H{number}", status))
    assert advice(one).allowed is allowed


def test_fencing_is_judged_anew_at_each_ask() -> None:
    one = cluster("H1", "H2", "H3")
    give(one, usable("H1", HostStatus.NON_RESPONSIVE))
    assert advice(one).allowed
    give(one, usable("H2", HostStatus.CONNECTING))
    assert not advice(one).allowed
    give(one, usable("H2", HostStatus.UP))
    assert advice(one).allowed


def test_fencing_threshold_counts_only_hosts_that_should_be_up() -> None:
    one = cluster("H1", "H2", "H3", "H4", "H5")
    give(one, usable("H1", HostStatus.NON_RESPONSIVE))
    give(one, usable("H2", HostStatus.CONNECTING))
    assert advice(one).allowed
    for name in ("H4", "H5"):
        give(one, usable(name, HostStatus.MAINTENANCE))
    refused = advice(one)
    assert not refused.allowed
    assert "2 of 3 hosts of cluster prod do not answer, 50 % or more" in refused.reason


def test_fencing_as_the_cluster_is_set() -> None:
    off = cluster("H1", "H2", fencing=False)
    assert advice(off).reason == "fencing is switched off in cluster prod"
    assert not advice(off).allowed
    careless = cluster(
        "H1", "H2", fencing_skip_if_connectivity_broken=False, fencing_skip_if_lease_live=False
    )
    for name in ("H1", "H2"):
        give(careless, usable(name, HostStatus.NON_RESPONSIVE))
    answer = advice(careless)
    assert (answer.allowed, answer.check_lease, answer.proxies) == (True, False, [])
    assert answer.reason == "no other host of cluster prod answers, to fence through"

"""Full reports: a machine is told what may be news to it, and within four reports whatever it was told before."""

from __future__ import annotations

import pytest

from actors.cluster import Cluster
from actors.cluster_lines import REPORTS_PER_REPEAT
from olvm.model import messages as m
from olvm.model.host_states import HostStatus
from olvm.model.records import CopyRecord
from olvm.model.vm_states import VmStatus
from tests.unit.actors.clusters import (
    agent_of,
    cluster,
    copy_ask,
    give,
    host_record,
    joined,
    report,
    run,
    state,
    usable,
)


def told(one: Cluster, said: m.HostReported) -> list[str]:
    """The addresses of the machines to which a line of the report was passed."""
    return [to for to, message, _ in give(one, said).sent if isinstance(message, m.DomainReported)]


def with_machines(*vm_ids: str) -> Cluster:
    one = cluster("H1", "H2", memory_gib=16)
    for vm_id in vm_ids:
        run(one, vm_id, "H1")
    return one


def test_line_that_says_the_same_again_is_left_out_and_another_is_passed() -> None:
    one = with_machines("v1", "v2")
    assert told(one, report("H1", state("v1"), state("v2"))) == ["vm/v1", "vm/v2"]
    assert told(one, report("H1", state("v1"), state("v2"))) == []
    assert told(one, report("H1", state("v1"), state("v2", status=VmStatus.PAUSED))) == ["vm/v2"]
    assert told(one, report("H1", state("v1"), state("v2"))) == ["vm/v2"]


def test_line_that_was_lost_is_passed_again_within_four_reports() -> None:
    """Whichever report it is whose lines are lost, each of the machines is told again by the fourth after it."""
    for lost in range(2 * REPORTS_PER_REPEAT):
        one = with_machines("v1")
        for _ in range(lost + 1):
            told(one, report("H1", state("v1")))
        later = [told(one, report("H1", state("v1"))) for _ in range(REPORTS_PER_REPEAT)]
        assert later.count(["vm/v1"]) == 1, f"after report {lost}: {later}"
    assert REPORTS_PER_REPEAT == 4


@pytest.mark.parametrize(
    "message",
    [
        m.HostSilent("H1", "15 s"),
        m.HostUnresponsive("H1", "silent"),
        m.HostFenced("H1", "boot-0", "off"),
        usable("H1", HostStatus.NON_OPERATIONAL),
        usable("H1", HostStatus.UP),
        joined("H1"),
    ],
    ids=lambda message: type(message).__name__,
)
def test_report_after_word_of_its_host_is_passed_whole(message: m.AnyMessage) -> None:
    one = with_machines("v1")
    told(one, report("H1", state("v1")))
    give(one, message, "host/H1")
    assert told(one, report("H1", state("v1"))) == ["vm/v1"]


def test_report_of_another_start_of_the_agent_is_passed_whole() -> None:
    one = with_machines("v1")
    told(one, report("H1", state("v1")))
    again = m.HostReported("H1", agent_of("H1"), 3, 1, 10.0, [state("v1")])
    assert (told(one, again), told(one, again)) == (["vm/v1"], [])


def test_report_after_the_cluster_recovered_is_passed_whole() -> None:
    one = with_machines("v1")
    told(one, report("H1", state("v1")))
    again = Cluster(one.record, [host_record("H1", memory_gib=16)], one.book.reservations)
    assert told(again, report("H1", state("v1"))) == ["vm/v1"]


@pytest.mark.parametrize("status", [VmStatus.POWERING_UP, VmStatus.REBOOT_IN_PROGRESS, VmStatus.DOWN])
def test_machine_that_is_not_at_rest_is_told_every_line(status: VmStatus) -> None:
    one = with_machines("v1")
    said = report("H1", state("v1", status=status))
    assert [told(one, said) for _ in range(3)] == [["vm/v1"]] * 3


def test_machine_with_a_second_copy_is_told_every_line_of_both_hosts() -> None:
    one = with_machines("v1")
    told(one, report("H1", state("v1")))
    give(one, copy_ask("v1"), "vm/v1")
    assert any(isinstance(copy, CopyRecord) for copy in one.book.copies_of("v1"))
    for _ in range(2):
        assert told(one, report("H1", state("v1"))) == ["vm/v1"]
        assert told(one, report("H2", state("v1", epoch=2))) == ["vm/v1"]


def test_copy_that_became_the_machine_is_told_once_more() -> None:
    one = with_machines("v1")
    give(one, copy_ask("v1"), "vm/v1")
    told(one, report("H2", state("v1", epoch=2)))
    give(one, m.PromoteCopy("v1", 2, "H1", 1), "vm/v1")
    give(one, m.ReleaseVm("v1", "H1", 1), "vm/v1")
    assert [told(one, report("H2", state("v1", epoch=2))) for _ in range(2)] == [["vm/v1"], []]


def test_machine_without_a_place_on_its_host_is_told_every_line() -> None:
    one = with_machines("v1")
    ghost = report("H2", state("v1"))
    assert [told(one, ghost) for _ in range(2)] == [["vm/v1"], ["vm/v1"]]


def test_machine_that_was_missing_is_told_when_it_is_there_again() -> None:
    one = with_machines("v1")
    told(one, report("H1", state("v1")))
    missing = give(one, report("H1")).sent
    assert [type(message) for _, message, _ in missing] == [m.DomainMissing]
    assert told(one, report("H1", state("v1"))) == ["vm/v1"]

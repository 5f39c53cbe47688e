"""What is reserved for a machine grows before it is plugged, and follows what its host says."""

from __future__ import annotations

import pytest

from actors.cluster import Cluster
from olvm.model import messages as m
from tests.builders import GIB
from tests.unit.actors.clusters import (
    Disk,
    cluster,
    copy_ask,
    give,
    host_record,
    place,
    replies,
    run,
)


def resize(vcpus: int, memory_gib: int, operation_id: str = "op-1", epoch: int = 1) -> m.ResizeVm:
    return m.ResizeVm("v1", epoch, vcpus, memory_gib * GIB, operation_id)


def free_bytes(one: Cluster, host: str = "H1") -> int:
    return one.book.table.row(host).memory_free_bytes


def test_room_is_reserved_when_it_is_asked_for_and_others_do_not_get_it() -> None:
    one = cluster("H1")
    run(one, "v1", "H1")
    done = give(one, resize(1, 3))
    assert replies(done) == [m.VmResized(1, "op-1")]
    held = one.book.reservations["v1"]
    assert held in done.saved
    assert held.memory_bytes == 3 * GIB
    (answer,) = replies(give(one, place("v2"), "vm/v2"), "vm/v2")
    assert isinstance(answer, m.VmNotPlaced)


def test_room_that_is_given_back_is_there_for_others() -> None:
    one = cluster("H1")
    run(one, "v1", "H1")
    before = free_bytes(one)
    give(one, resize(1, 3))
    done = give(one, resize(1, 1, operation_id=""))
    assert (done.sent, free_bytes(one)) == ([], before)
    (answer,) = replies(give(one, place("v2"), "vm/v2"), "vm/v2")
    assert isinstance(answer, m.VmPlaced)


def test_plug_that_does_not_fit_changes_nothing_and_names_host_need_and_room() -> None:
    one = cluster("H1")
    run(one, "v1", "H1")
    done = give(one, resize(1, 6))
    assert replies(done) == [
        m.VmResized(1, "op-1", "5.1 GiB more are needed, and host H1 has 2.6 GiB free"),
    ]
    assert done.saved == []
    assert one.book.reservations["v1"].memory_bytes == GIB


def test_more_cpus_than_the_host_has_are_refused() -> None:
    one = cluster("H1")
    run(one, "v1", "H1")
    (answer,) = replies(give(one, resize(9, 1)))
    assert isinstance(answer, m.VmResized)
    assert answer.refusal == "host H1 has 8 CPUs, and no machine there gets more; 9 are asked"


def test_sum_of_cpus_is_held_where_the_cluster_limits_it() -> None:
    one = cluster("H1", cpu_overcommit_percent=100)
    run(one, "v1", "H1")
    run(one, "v2", "H1")
    assert replies(give(one, resize(7, 1))) == [m.VmResized(1, "op-1")]
    (answer,) = replies(give(one, resize(8, 1)))
    assert isinstance(answer, m.VmResized)
    assert answer.refusal == "1 more vCPUs are needed, and host H1 can take 0"


def test_size_that_a_machine_is_found_to_have_is_held_though_there_is_no_room() -> None:
    one = cluster("H1")
    run(one, "v1", "H1")
    assert give(one, resize(1, 6, operation_id="")).sent == []
    assert one.book.reservations["v1"].memory_bytes == 6 * GIB
    assert free_bytes(one) < 0


@pytest.mark.parametrize("epoch", [0, 2])
def test_copy_that_holds_nothing_gets_nothing(epoch: int) -> None:
    one = cluster("H1")
    run(one, "v1", "H1")
    (answer,) = replies(give(one, resize(1, 2, epoch=epoch)))
    assert isinstance(answer, m.VmResized)
    assert "holds no host" in answer.refusal
    assert one.book.reservations["v1"].memory_bytes == GIB


def test_migration_target_is_chosen_by_the_size_that_the_machine_has_now() -> None:
    one = cluster("H1", "H2", memory_gib=8)
    run(one, "v1", "H1")
    run(one, "v2", "H2")
    give(one, resize(1, 4))
    give(one, m.ResizeVm("v2", 1, 1, 5 * GIB))
    (answer,) = replies(give(one, copy_ask(memory_bytes=4 * GIB)))
    assert isinstance(answer, m.CopyNotPlaced)
    assert "no host of 2 fits v1" in answer.reason


def test_size_of_a_copy_is_its_own_before_and_after_it_is_the_machine() -> None:
    one = cluster("H1", "H2")
    run(one, "v1", "H1")
    give(one, copy_ask(memory_bytes=2 * GIB))
    give(one, m.PromoteCopy("v1", 2, "H1", 1))
    give(one, resize(1, 1, operation_id="", epoch=2))
    assert one.book.reservations["v1"].memory_bytes == GIB
    assert one.book.copies["v1/1"].memory_bytes == GIB
    assert one.book.table.row("H2").reserved_memory_bytes == one.book.table.row("H1").reserved_memory_bytes


def test_sizes_are_those_of_before_after_a_restart() -> None:
    disk, one = Disk(), Cluster.new("prod")
    disk.keep(give(one, m.StartCluster("op-0", m.CreateCluster("prod"))))
    one = disk.restarted([host_record("H1")])
    for message in (place("v1"), resize(3, 3)):
        disk.keep(give(one, message))
    again = disk.restarted([host_record("H1")])
    assert again.book.table.row("H1") == one.book.table.row("H1")
    assert again.book.table.row("H1").reserved_cpus == 3

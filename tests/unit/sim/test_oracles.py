"""Each oracle fires on the thing it is for, and keeps silent a hair's breadth before it."""

from __future__ import annotations

import pytest

from olvm.model import messages as m
from olvm.model.host_states import HostStatus
from olvm.model.records import (
    ClusterRecord,
    CopyRecord,
    DomainRecord,
    EventRecord,
    HostRecord,
    OperationRecord,
    ReservationRecord,
    VmRecord,
)
from olvm.model.vm_states import VmStatus
from sim.oracles.board import ORACLES, Board
from sim.oracles.oracle import HOOKS, Violation
from tests.unit.sim.oracle_scene import GIB, Scene, fires, saved


def vm(status: VmStatus = VmStatus.UP, **fields: object) -> VmRecord:
    base: dict[str, object] = {"id": "a", "name": "v1", "cluster": "prod", "vcpus": 1, "memory_bytes": GIB}
    return VmRecord(**(base | {"status": status, "epoch": 3} | fields))  # type: ignore[arg-type]


def test_every_oracle_has_an_id_a_promise_and_a_module_of_its_own() -> None:
    assert len({kind.ID for kind in ORACLES}) == len(ORACLES) == len({kind.__module__ for kind in ORACLES})
    assert all(kind.PROMISE for kind in ORACLES)
    assert {f"S{n}" for n in range(1, 17)} | {f"L{n}" for n in range(1, 7)} | {"D2", "LIN"} == {
        kind.ID for kind in ORACLES
    }
    assert all(any(hasattr(kind, hook) for hook in HOOKS) for kind in ORACLES)


def test_s1_second_host_executes_fires(board: Board) -> None:
    board.vcpus_started("H1", "a", 1)
    board.vcpus_stopped("H1", "a", 1)
    board.vcpus_started("H2", "a", 2)
    assert "H1 (epoch 1) and H2 (epoch 2)" in fires("S1", lambda: board.vcpus_started("H1", "a", 1))


def test_s2_start_beside_a_living_copy_fires_even_if_that_is_paused(board: Board) -> None:
    board.domain_added("H1", "a", 1, GIB)
    board.vcpus_started("H1", "a", 1)
    board.called("H2", "PrepareIncoming", "a", 2)  # a migration's target is no start
    board.vcpus_stopped("H1", "a", 1)
    fires("S2", lambda: board.called("H2", "StartDomain", "a", 2))
    asked = OperationRecord(id="o", kind="start_vm", target_kind="vm", target_id="a", target_name="v1")
    board.committed("engine", saved(asked))
    board.domain_removed("H1", "a", 1, GIB)
    board.called("H2", "StartDomain", "a", 3)


def test_s2_source_that_has_handed_over_is_no_life_and_must_not_come_back(board: Board) -> None:
    board.domain_added("H1", "a", 1, GIB)
    board.vcpus_started("H1", "a", 1)
    board.vcpus_stopped("H1", "a", 1)
    board.vcpus_started("H2", "a", 2)  # the target runs; its word to the source is lost
    board.vcpus_stopped("H2", "a", 2)
    board.domain_removed("H2", "a", 2, 0)  # and crashes
    asked = OperationRecord(id="o", kind="start_vm", target_kind="vm", target_id="a", target_name="v1")
    board.committed("engine", saved(asked))
    board.called("H3", "StartDomain", "a", 3)
    fires("S3", lambda: board.vcpus_started("H1", "a", 1))


def test_s3_lower_epoch_takes_effect_fires(board: Board) -> None:
    board.called("H1", "PrepareIncoming", "a", 4)
    board.called("H1", "PrepareIncoming", "a", 4)
    fires("S3", lambda: board.called("H1", "StartDomain", "a", 3))


def test_s3_life_that_a_later_one_has_overtaken_runs_on_fires(board: Board) -> None:
    board.vcpus_started("H1", "a", 4)
    board.vcpus_stopped("H1", "a", 4)
    board.vcpus_started("H2", "a", 5)
    board.vcpus_stopped("H2", "a", 5)
    assert "epoch 4 after epoch 5" in fires("S3", lambda: board.vcpus_started("H1", "a", 4))


def test_s4_acknowledged_operation_missing_after_a_crash_fires(board: Board) -> None:
    board.answered("client/1", m.OperationView("o1", "start_vm", "vm", "a", "v1", "running"))
    row = OperationRecord(id="o1", kind="start_vm", target_kind="vm", target_id="a", target_name="v1")
    board.recovered("engine", {OperationRecord: {"o1": row}}, 1)
    fires("S4", lambda: board.recovered("engine", {OperationRecord: {}}, 1))


def test_s5_repeated_request_with_another_operation_fires(board: Board) -> None:
    for client, request in (("client/1", "r"), ("client/2", "r")):
        board.asked(client, m.VmCommand("v1", "start"), request)
    board.answered("client/1", m.OperationView("o1", "start_vm", "vm", "a", "v1", "running"))
    second = m.OperationView("o2", "start_vm", "vm", "a", "v1", "running")
    fires("S5", lambda: board.answered("client/2", second))


def test_s6_machines_beyond_the_host_fire(board: Board) -> None:
    for number in range(4):
        board.domain_added("H1", f"m{number}", 1, GIB)
    board.domain_removed("H1", "m0", 1, GIB)
    board.domain_added("H1", "m4", 1, GIB)
    fires("S6", lambda: board.domain_added("H1", "m5", 1, 1))


def test_s6_memory_plugged_beyond_the_host_fires(scene: Scene, board: Board) -> None:
    at_rest(scene)
    board.domain_added("H1", "b", 1, 3 * GIB)
    board.domain_added("H1", "a", 3, GIB // 2)
    board.domain_resized("H1", "a", 3, GIB // 2)
    fires("S6", lambda: board.domain_resized("H1", "a", 3, 1))
    board.domain_resized("H1", "a", 3, -GIB)
    board.domain_added("H1", "m2", 1, GIB - 1)


@pytest.mark.parametrize("size_bytes", [GIB, GIB + 1])
def test_s6_memory_plugged_beyond_what_is_reserved_fires(scene: Scene, board: Board, size_bytes: int) -> None:
    at_rest(scene)
    scene.size_by_vm_id_by_host = {"H1": {"a": (1, size_bytes)}}
    board.domain_added("H1", "a", 3, 1)
    if size_bytes == GIB:
        board.domain_resized("H1", "a", 3, 1)
    else:
        fires("S6", lambda: board.domain_resized("H1", "a", 3, 1))


def test_s6_plug_refused_for_lack_of_room_fires(board: Board) -> None:
    fires("S6", lambda: board.called("H1", "Refused:out_of_memory", "m1", 1))


def at_rest(scene: Scene) -> None:
    """One machine up on H1, reserved there; nothing wrong."""
    scene.domains_by_host = {"H1": [("a", 3, "up")]}
    scene.rows = [
        ClusterRecord(name="prod"),
        HostRecord(name="H1", cluster="prod", status=HostStatus.UP, memory_bytes=4 * GIB),
        HostRecord(name="H2", cluster="prod", status=HostStatus.UP, memory_bytes=4 * GIB),
        vm(host="H1", agent="agent/H1@host-1"),
        ReservationRecord(
            vm_id="a",
            vm_name="v1",
            vm_address="vm/a",
            cluster="prod",
            host="H1",
            epoch=3,
            vcpus=1,
            memory_bytes=GIB,
        ),
    ]


def test_world_at_rest_satisfies_all(scene: Scene, board: Board) -> None:
    at_rest(scene)
    board.healed()
    board.minute()
    board.settled()


def test_s7_reservation_without_a_machine_fires(scene: Scene, board: Board) -> None:
    at_rest(scene)
    scene.rows.append(
        CopyRecord(
            key="a/4",
            vm_id="a",
            vm_name="v1",
            vm_address="vm/a",
            cluster="prod",
            host="H2",
            epoch=4,
            vcpus=1,
            memory_bytes=GIB,
        )
    )
    assert "a/4" in fires("S7", board.settled)
    at_rest(scene)
    scene.rows[-1].host = "H2"  # type: ignore[attr-defined]
    fires("S7", board.settled)


@pytest.mark.parametrize("size", [(2, GIB), (1, 2 * GIB)])
def test_s7_reservation_of_another_size_fires(scene: Scene, board: Board, size: tuple[int, int]) -> None:
    at_rest(scene)
    scene.size_by_vm_id_by_host = {"H1": {"a": size}}
    assert "v1" in fires("S7", board.settled)


def test_s8_machine_down_by_its_record_that_runs_fires(board: Board) -> None:
    board.committed("engine", saved(vm(VmStatus.UNKNOWN)))
    board.vcpus_started("H1", "a", 3)
    fires("S8", lambda: board.committed("engine", saved(vm(VmStatus.DOWN))))


def test_s8_mirror_of_another_silo_is_not_judged(board: Board) -> None:
    board.vcpus_started("H1", "a", 3)
    board.committed("engine", saved(vm(VmStatus.DOWN, silo="vms-1")))


def test_s9_destroy_without_an_order_of_that_epoch_fires(board: Board) -> None:
    board.committed("engine", saved(outgoing=m.CommandDomain("a", 3, "destroy")))
    board.called("H1", "DestroyDomain", "a", 3)
    fires("S9", lambda: board.called("H1", "DestroyDomain", "a", 4))
    domain = DomainRecord(
        key="H1/a", host="H1", vm_id="a", vm_address="vm/a", name="v1", epoch=4, status=VmStatus.PAUSED
    )
    domain.resume_behavior, domain.paused_since_ns = "kill", 1
    board.committed("host-1", saved(domain))
    board.called("H1", "DestroyDomain", "a", 4)


def test_s10_domain_without_a_machine_fires(scene: Scene, board: Board) -> None:
    at_rest(scene)
    scene.domains_by_host["H2"] = [("ghost", 1, "up")]
    with pytest.raises(Violation) as caught:
        board.settled()
    assert caught.value.oracle in ("S7", "S10")


def test_s10_machine_up_in_name_only_fires(scene: Scene) -> None:
    at_rest(scene)
    scene.rows = [row for row in scene.rows if not isinstance(row, ReservationRecord)]
    scene.domains_by_host = {}
    fires("S10", Board(scene).settled)


def test_s10_machine_left_on_a_host_in_maintenance_fires(scene: Scene) -> None:
    at_rest(scene)
    for row in scene.rows:
        if isinstance(row, HostRecord):
            row.status = HostStatus.MAINTENANCE
    assert "in maintenance" in fires("S10", Board(scene).settled)


def test_s11_step_that_the_table_lacks_fires(board: Board) -> None:
    board.committed("engine", saved(vm(VmStatus.DOWN)))
    board.committed("engine", saved(vm(VmStatus.WAIT_FOR_LAUNCH)))
    fires("S11", lambda: board.committed("engine", saved(vm(VmStatus.SUSPENDED))))


def test_s11_transient_status_past_its_bound_fires(scene: Scene, board: Board) -> None:
    board.committed("engine", saved(vm(VmStatus.SAVING_STATE)))
    scene.at(1_100)
    board.minute()
    scene.at(10_000)
    fires("S11", board.minute)


def event(seq: int) -> EventRecord:
    return EventRecord(id=f"e{seq}", seq=seq, at_ns=0, code="c", severity="normal", message="")


def test_s12_gap_in_the_events_fires_also_across_a_restart(board: Board) -> None:
    board.committed("engine", saved(event(1), event(2)))
    board.recovered("engine", {}, 3)
    fires("S12", lambda: board.recovered("engine", {}, 2))
    fires("S12", lambda: board.committed("engine", saved(event(4))))


def test_s13_epoch_that_falls_fires(board: Board) -> None:
    board.committed("engine", saved(vm(epoch_issued=5)))
    fires("S13", lambda: board.recovered("engine", {VmRecord: {"a": vm(epoch_issued=4)}}, 1))


def test_s13_older_report_that_is_believed_fires(board: Board) -> None:
    board.committed("engine", saved(vm(seen_host_epoch=2, seen_seq=9)))
    board.committed("engine", saved(vm(seen_host_epoch=3, seen_seq=1)))
    fires("S13", lambda: board.committed("engine", saved(vm(seen_host_epoch=2, seen_seq=10))))


def test_s13_new_attempt_counts_reports_anew(board: Board) -> None:
    board.committed("engine", saved(vm(seen_host_epoch=2, seen_seq=9)))
    board.committed("engine", saved(vm(epoch=4)))


def test_l1_machine_left_paused_by_a_migration_fires(scene: Scene, board: Board) -> None:
    at_rest(scene)
    for row in scene.rows:
        if isinstance(row, VmRecord):
            row.pause_code = "POSTMIGRATE"
    assert "POSTMIGRATE" in fires("L1", board.settled)


def test_l1_host_that_never_returns_fires(scene: Scene, board: Board) -> None:
    at_rest(scene)
    scene.rows[1].status = HostStatus.NON_RESPONSIVE  # type: ignore[attr-defined]
    assert "non_responsive" in fires("L1", board.settled)


def test_l1_status_that_changes_at_the_end_fires(scene: Scene, board: Board) -> None:
    at_rest(scene)
    board.committed("engine", saved(vm(VmStatus.UP)))
    scene.at(1_030)
    fires("L1", board.settled)


def test_l2_highly_available_machine_left_down_beside_room_fires(scene: Scene, board: Board) -> None:
    at_rest(scene)
    scene.domains_by_host = {}
    down = vm(VmStatus.DOWN, high_availability=True, exit_reason=2, exit_message="QEMU is gone")
    scene.rows = [row for row in scene.rows if not isinstance(row, VmRecord | ReservationRecord)] + [down]
    assert "H1 has room" in fires("L2", board.settled)
    down.exit_reason = 6
    board.settled()


def test_l3_operation_without_an_end_or_a_reason_fires(scene: Scene, board: Board) -> None:
    at_rest(scene)
    operation = OperationRecord(id="o", kind="start_vm", target_kind="vm", target_id="z", target_name="v9")
    scene.rows.append(operation)
    fires("L3", board.settled)
    operation.finished_ns, operation.status = 1, "failed"
    fires("L3", board.settled)


def test_l4_talk_at_rest_fires(scene: Scene, board: Board) -> None:
    at_rest(scene)
    board.committed("engine", saved(outgoing=m.QueryDomain("a", "vm/a", 3)))
    scene.at(1_050)
    fires("L4", board.settled)
    scene.at(1_061)
    scene.waiting = 1
    fires("L4", board.settled)


def test_l5_start_that_nobody_asked_for_fires(board: Board) -> None:
    asked = OperationRecord(id="o", kind="start_vm", target_kind="vm", target_id="a", target_name="v1")
    board.committed("engine", saved(asked))
    board.called("H1", "StartDomain", "a", 1)
    board.committed("engine", saved(vm(VmStatus.DOWN, epoch=1, exit_reason=2)))
    board.called("H1", "StartDomain", "a", 2)  # it crashed: a restart needs no command
    board.committed("engine", saved(vm(VmStatus.DOWN, epoch=2, exit_reason=6)))
    fires("L5", lambda: board.called("H1", "StartDomain", "a", 3))


def test_l5_machine_that_wanders_at_rest_fires(board: Board) -> None:
    board.healed()
    for epoch in range(4):
        board.called("H1", "MigrateDomain", "a", epoch)
        board.ended("H1", "a", epoch, 8)  # an attempt that failed
        board.ended("H1", "a", epoch, 4)
    fires("L5", lambda: board.ended("H1", "a", 5, 4))


def test_d2_journal_that_differs_from_its_tables_fires(scene: Scene, board: Board) -> None:
    at_rest(scene)
    scene.differences = ["vms: row a"]
    fires("D2", board.settled)


def operation(number: int, kind: str, code: str = "") -> OperationRecord:
    return OperationRecord(
        id=f"o{number}",
        kind=kind,
        target_kind="vm",
        target_id="a",
        target_name="v1",
        status="failed" if code else "succeeded",
        error_code=code,
        reason=code,
        finished_ns=1,
    )


def clients_see(scene: Scene, board: Board, *ended: OperationRecord) -> None:
    at_rest(scene)
    for number, row in enumerate(ended):
        scene.at(1_000 + 100 * number)
        board.committed("engine", saved(row))
    scene.at(9_000)


def test_lin_answers_that_no_order_explains_fire(scene: Scene, board: Board) -> None:
    clients_see(
        scene,
        board,
        operation(1, "create_vm"),
        operation(2, "start_vm"),
        operation(3, "suspend_vm"),
        operation(4, "reboot_vm"),
    )
    assert "reboot_vm" in fires("LIN", board.settled)


def test_lin_answers_that_the_world_explains_are_taken(scene: Scene, board: Board) -> None:
    """The guest crashed between two commands, and a failed start worked after all."""
    clients_see(scene, board, operation(1, "create_vm"), operation(2, "start_vm", "operation_failed"))
    scene.at(1_150)
    board.ended("H1", "a", 1, 2)
    scene.at(1_300)
    board.committed("engine", saved(operation(3, "start_vm")))
    scene.at(9_000)
    board.settled()

"""What is accepted has an operation that ends; what is refused changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from actors.behaviour import Turn
from actors.engine import Engine
from actors.host import Host
from olvm.model import messages as m
from olvm.model.records import EngineRecord, InventoryRecord, OperationRecord
from tests.builders import GIB, create_vm, encoded, sent_to, turn


def engine() -> Engine:
    """With cluster prod (host H1, machine db) and an empty cluster lab."""
    made = Engine(EngineRecord(), {}, {})
    for name in ("prod", "lab"):
        accept(made, m.CreateCluster(name))
    accept(made, add_host("H1"))
    accept(made, create_vm("db"))
    return made


def add_host(name: str, **fields: Any) -> m.AddHost:
    return m.AddHost(name, "prod", 8, 16 * GIB, silo="host-1", **fields)


def vm_with(**fields: Any) -> m.CreateVm:
    return msgspec.structs.replace(create_vm(), **fields)


def group(**fields: Any) -> m.SetAffinityGroup:
    """One that is accepted unless `fields` spoil it."""
    base: dict[str, Any] = {"name": "apart", "cluster": "prod", "vms": ["db"], "vms_rule": "negative"}
    return m.SetAffinityGroup(**(base | fields))


def give(one: Engine, message: m.AnyMessage) -> Turn:
    done = turn(me="engine", sender="client/1")
    ids = iter(f"id-{one.record.accepted_count}-{number}" for number in range(9))
    done.new_id = lambda: next(ids)
    one.handle(message, done)
    return done


def accept(one: Engine, command: m.Command, request_id: str = "") -> m.OperationView:
    (answer,) = sent_to(give(one, m.Submit(command, request_id)), "client/1")
    assert isinstance(answer, m.OperationView), answer
    return answer


REFUSED: dict[str, tuple[m.Command, str]] = {
    "name taken": (m.CreateCluster("prod"), "duplicate_name"),
    "bad name": (m.CreateCluster("no spaces"), "bad_input"),
    "no such cluster": (m.RemoveCluster("nowhere"), "not_found"),
    "no such machine": (m.VmCommand("ghost", "start"), "not_found"),
    "no such host": (m.HostCommand("H9", "activate"), "not_found"),
    "host of no silo": (m.AddHost("H2", "prod", 8, 16 * GIB), "bad_input"),
    "host without cpus": (m.AddHost("H2", "prod", 0, 16 * GIB, silo="host-1"), "bad_input"),
    "machine without memory": (create_vm(memory_bytes=1), "bad_input"),
    "overcommit": (m.UpdateCluster("prod", memory_overcommit_percent=50), "bad_input"),
    "cluster not empty": (m.RemoveCluster("prod"), "conflict"),
    "migration policy of cluster": (m.CreateCluster("c", migration_policy="fastest"), "bad_input"),
    "migration policy to unknown": (m.UpdateCluster("prod", migration_policy="fastest"), "bad_input"),
    "bandwidth below 0": (m.UpdateCluster("prod", migration_bandwidth_mib_s=-1.0), "bad_input"),
    "bandwidth of nan": (m.CreateCluster("c", migration_bandwidth_mib_s=math.nan), "bad_input"),
    "threshold of 0": (m.UpdateCluster("prod", fencing_connectivity_threshold_percent=0), "bad_input"),
    "threshold above 100": (m.CreateCluster("c", fencing_connectivity_threshold_percent=101), "bad_input"),
    "cluster to shut down": (m.ClusterCommand("nowhere", "shutdown"), "not_found"),
    "shutdown in no time": (m.ClusterCommand("prod", "shutdown", 0.0), "bad_input"),
    "priority of 0": (vm_with(priority=0), "bad_input"),
    "priority above 100": (vm_with(priority=101), "bad_input"),
    "priority changed to 0": (m.UpdateVm("db", priority=0), "bad_input"),
    "lease that resumes": (vm_with(lease=True, resume_behavior="auto_resume"), "bad_input"),
    "lease by availability that stays paused": (
        vm_with(high_availability=True, resume_behavior="leave_paused"),
        "bad_input",
    ),
    "lease changed to one that resumes": (
        m.UpdateVm("db", lease=True, resume_behavior="auto_resume"),
        "bad_input",
    ),
    "migration policy of machine": (vm_with(migration_policy="fastest"), "bad_input"),
    "machine's policy to unknown": (m.UpdateVm("db", migration_policy="fastest"), "bad_input"),
    "pinned to unknown host": (vm_with(pinned_hosts=["H9"]), "not_found"),
    "migrate to unknown host": (m.VmCommand("db", "migrate", to_host="H9"), "not_found"),
    "maintenance of nan": (m.HostCommand("H1", "maintenance", math.nan), "bad_input"),
    "activation with a deadline": (m.HostCommand("H1", "activate", 5.0), "bad_input"),
    "fence device of no type": (add_host("H2", fence_devices=[{"address": "bmc"}]), "bad_input"),
    "fence device of unknown type": (add_host("H2", fence_devices=[{"type": "ipmi"}]), "bad_input"),
    "fence password": (
        m.AddHost(
            "H2",
            "prod",
            0,
            0,
            silo="host-1",
            backend="libvirt",
            fence_devices=[{"type": "ipmilan", "password": "x"}],
        ),
        "bad_input",
    ),
    "many fence devices": (add_host("H2", fence_devices=[{"type": "simulated"}] * 9), "bad_input"),
    "group of no cluster": (group(cluster="nowhere"), "not_found"),
    "group removed from no cluster": (m.RemoveAffinityGroup("apart", "nowhere"), "not_found"),
    "group with a bad name": (group(name="a/b"), "bad_input"),
    "group with unknown vm": (group(vms=["ghost"]), "not_found"),
    "group with unknown host": (group(hosts=["H9"]), "not_found"),
    "group over two clusters": (group(cluster="lab"), "bad_input"),
    "group that names one twice": (group(vms=["db", "db"]), "bad_input"),
    "group without a rule": (group(vms_rule="disabled"), "bad_input"),
    "group with a rule on no hosts": (group(hosts_rule="positive"), "bad_input"),
    "group of no priority": (group(priority=0.0), "bad_input"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_engine_refused_command_changes_nothing(case: str) -> None:
    command, code = REFUSED[case]
    one = engine()
    before = (encoded(one.record), dict(one.inventory.items), dict(one.open))
    done = give(one, m.Submit(command))
    (answer,) = sent_to(done, "client/1")
    assert isinstance(answer, m.Refusal)
    assert (answer.code, bool(answer.reason)) == (code, True)
    assert (encoded(one.record), dict(one.inventory.items), dict(one.open)) == before
    assert (done.saved, done.spawned, len(done.sent)) == ([], [], 1)


def test_engine_accepted_command_saves_all_that_it_changed() -> None:
    """Found by replay: the counters changed without being saved."""
    one = engine()
    done = give(one, m.Submit(create_vm()))
    assert {type(record) for record in done.saved} == {EngineRecord, InventoryRecord, OperationRecord}
    ended = give(one, m.OperationEnded(list(one.open)[-1], False, "no room", "no_capacity"))
    assert {type(record) for record in ended.saved} == {EngineRecord, OperationRecord}
    assert (one.record.accepted_count, one.record.failed_count) == (5, 1)


FORWARDED: dict[str, tuple[m.Command, str, tuple[str, str, str, str], Callable[[str, str], m.AnyMessage]]] = {
    "cluster shutdown": (
        m.ClusterCommand("prod", "shutdown", 60.0),
        "cluster/prod",
        ("shutdown_cluster", "cluster", "prod", "prod"),
        lambda op, _: m.CommandCluster(op, m.ClusterCommand("prod", "shutdown", 60.0)),
    ),
    "affinity group": (
        group(hosts=["H1"]),
        "cluster/prod",
        ("set_affinity_group", "affinity_group", "prod/apart", "apart"),
        lambda op, vm: m.ChangeAffinity(op, group(hosts=["H1"]), [vm]),
    ),
    "affinity group removed": (
        m.RemoveAffinityGroup("apart", "prod"),
        "cluster/prod",
        ("remove_affinity_group", "affinity_group", "prod/apart", "apart"),
        lambda op, _: m.ChangeAffinity(op, m.RemoveAffinityGroup("apart", "prod")),
    ),
    "maintenance": (
        m.HostCommand("H1", "maintenance", 60.0),
        "host/H1",
        ("maintenance_host", "host", "H1", "H1"),
        lambda op, _: m.CommandHost(op, "maintenance", 60.0),
    ),
    "confirmation": (
        m.HostCommand("H1", "confirm_rebooted"),
        "host/H1",
        ("confirm_rebooted_host", "host", "H1", "H1"),
        lambda op, _: m.CommandHost(op, "confirm_rebooted"),
    ),
    "fence devices": (
        add_host("H2", fence_devices=[{"type": "simulated"}], kdump=True),
        "host/H2",
        ("add_host", "host", "H2", "H2"),
        lambda op, _: m.RegisterHost(op, add_host("H2", fence_devices=[{"type": "simulated"}], kdump=True)),
    ),
}


@pytest.mark.parametrize("case", FORWARDED)
def test_engine_accepted_command_goes_whole_to_who_carries_it_out(case: str) -> None:
    command, to, described, expected = FORWARDED[case]
    one = engine()
    vm_id = one.inventory.vm("db").id
    done = give(one, m.Submit(command))
    operation = list(one.open.values())[-1]
    told = (operation.kind, operation.target_kind, operation.target_id, operation.target_name)
    assert told == described
    assert sent_to(done, to) == [expected(operation.id, vm_id)]


def test_engine_migration_names_its_target_to_the_machine() -> None:
    one = engine()
    done = give(one, m.Submit(m.VmCommand("db", "migrate", to_host="H1")))
    item = one.inventory.vm("db")
    assert sent_to(done, item.address) == [m.CommandVm(list(one.open)[-1], "migrate", None, "H1")]


@pytest.mark.parametrize(
    "command",
    [
        vm_with(priority=1, lease=True, resume_behavior="kill", migration_policy="post_copy"),
        vm_with(priority=100, high_availability=True, lease=False, resume_behavior="auto_resume"),
        vm_with(resume_behavior="leave_paused", migratable=False),
        m.UpdateVm("db", lease=False, resume_behavior="auto_resume", migration_policy=""),
    ],
)
def test_engine_machine_at_the_edge_of_its_ranges_is_accepted(command: m.Command) -> None:
    assert accept(engine(), command).status == "running"


def test_engine_request_repeated_gets_the_operation_of_the_first_also_when_it_has_ended() -> None:
    one = engine()
    first = accept(one, create_vm(), "request-1")
    assert accept(one, create_vm(), "request-1") == first
    give(one, m.OperationEnded(first.id, True))
    again = accept(one, create_vm(), "request-1")
    assert (again.id, again.status) == (first.id, "succeeded")


def test_engine_end_told_twice_counts_once() -> None:
    one = engine()
    first = accept(one, create_vm())
    give(one, m.OperationEnded(first.id, True))
    done = give(one, m.OperationEnded(first.id, False, "late", "conflict"))
    assert (done.saved, done.sent, one.record.succeeded_count) == ([], [], 1)


def test_engine_name_is_free_again_after_removal() -> None:
    one = engine()
    accept(one, create_vm())
    done = give(one, m.EntityRemoved("vm", "web"))
    assert len(done.erased) == 1
    assert accept(one, create_vm()).status == "running"


def test_engine_host_that_is_added_again_counts_epochs_above_those_that_it_had() -> None:
    """By them history knows the samples that it has."""
    one = engine()
    done = give(one, m.EntityRemoved("host", "H1", 7))
    assert one.record in done.saved
    assert give(one, m.EntityRemoved("host", "H2", 3)).saved == []
    (again,) = give(one, m.Submit(add_host("H1"))).spawned
    assert isinstance(again, Host)
    assert again.record.host_epoch == 7


def test_engine_recovered_raises_its_epoch() -> None:
    one = engine()
    done = give(one, m.Recovered())
    assert (one.record.epoch, done.saved) == (1, [one.record])


def test_engine_message_of_another_actor_is_a_fault_of_the_programmer() -> None:
    with pytest.raises(AssertionError, match="cannot handle"):
        give(engine(), m.HostLost("H1", ""))

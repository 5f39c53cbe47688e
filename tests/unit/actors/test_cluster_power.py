"""Shutting a cluster down and starting it: in order, durably, and with an end."""

from __future__ import annotations

from actors.behaviour import Turn
from actors.cluster import Cluster
from olvm.model import messages as m
from olvm.model.config import Config
from olvm.model.host_states import HostStatus
from olvm.model.vm_states import VmStatus
from tests.builders import sent_to
from tests.unit.actors.clusters import (
    Disk,
    cluster,
    copy_ask,
    give,
    host_record,
    place,
    replies,
    run,
    state,
    usable,
)
from tests.unit.actors.clusters import report as host_report


def command(verb: str, operation_id: str = "op-1", timeout_s: float | None = None) -> m.CommandCluster:
    return m.CommandCluster(operation_id, m.ClusterCommand("prod", verb, timeout_s))  # type: ignore[arg-type]


def asked(done: Turn) -> list[tuple[str, str]]:
    """Whom, and what: machines and hosts."""
    return [
        (to, message.verb if isinstance(message, m.PowerVm) else message.action)
        for to, message, _ in done.sent
        if isinstance(message, m.PowerVm | m.CommandHost)
    ]


def ended(done: Turn) -> list[m.OperationEnded]:
    return [message for message in sent_to(done, "engine") if isinstance(message, m.OperationEnded)]


def progress(done: Turn) -> str:
    told = [message for message in sent_to(done, "engine") if isinstance(message, m.OperationProgressed)]
    return told[-1].reason


def three_tiers() -> Cluster:
    one = cluster("H1", "H2", memory_gib=64)
    for vm_id, on, priority in (("web", "H1", 10), ("app", "H2", 50), ("db", "H1", 90), ("api", "H2", 50)):
        run(one, vm_id, on, priority=priority)
    return one


def gone(one: Cluster, vm_id: str, epoch: int = 1) -> Turn:
    return give(one, m.ReleaseVm(vm_id, "", epoch), f"vm/{vm_id}")


def shut_down(one: Cluster) -> Turn:
    give(one, command("shutdown"), "engine")
    for vm_id in ("web", "app", "api", "db"):
        gone(one, vm_id)
    give(one, usable("H1", HostStatus.PREPARING_FOR_MAINTENANCE))
    give(one, usable("H1", HostStatus.MAINTENANCE))
    return give(one, usable("H2", HostStatus.MAINTENANCE))


def test_cluster_start_takes_no_answer_to_an_earlier_shutdown_for_its_own() -> None:
    """Found by a campaign: a stop outlived its shutdown, and its end was counted as the answer to the start."""
    one = three_tiers()
    give(one, command("shutdown"), "engine")
    give(one, m.TimerFired("power_deadline"))
    assert asked(give(one, command("start", "op-2"), "engine")) == [("vm/db", "start")]
    early = give(one, m.VmPowered("web", "web", True, verb="stop"), "vm/web")
    assert (asked(early), "web" in one.book.record.power_plan) == ([], True)
    again = give(one, m.VmPowered("db", "db", True, verb="stop"), "vm/db")
    assert asked(again) == [("vm/db", "start")]
    up = give(one, m.VmPowered("db", "db", False, verb="start"), "vm/db")
    assert asked(up) == [("vm/api", "start"), ("vm/app", "start")]


def test_cluster_shutdown_goes_in_waves_of_ascending_priority_and_then_to_the_hosts() -> None:
    one = three_tiers()
    first = give(one, command("shutdown"), "engine")
    assert asked(first) == [("vm/web", "shutdown")]
    assert progress(first) == "waits for web"
    assert asked(gone(one, "web")) == [("vm/api", "shutdown"), ("vm/app", "shutdown")]
    assert asked(gone(one, "app")) == []
    assert asked(gone(one, "api")) == [("vm/db", "shutdown")]
    hosts = gone(one, "db")
    assert asked(hosts) == [("host/H1", "maintenance"), ("host/H2", "maintenance")]
    assert all(
        message.operation_id == "" for _, message, _ in hosts.sent if isinstance(message, m.CommandHost)
    )
    assert progress(hosts) == "waits for host H1 (up), H2 (up)"
    give(one, usable("H1", HostStatus.MAINTENANCE))
    last = give(one, usable("H2", HostStatus.MAINTENANCE))
    assert ended(last) == [m.OperationEnded("op-1", True)]
    assert (one.record.power, one.record.timers, one.record.operation_id) == ("shut_down", {}, None)
    assert one.record.power_plan == ["db", "api", "app", "web"]


def test_cluster_going_down_places_nobody() -> None:
    one = three_tiers()
    give(one, command("shutdown"), "engine")
    (refused,) = replies(give(one, place("new"), "vm/new"), "vm/new")
    assert isinstance(refused, m.VmNotPlaced)
    assert "cluster prod is being shut down" in refused.reason
    (stays,) = replies(give(one, copy_ask("db"), "vm/db"), "vm/db")
    assert isinstance(stays, m.CopyNotPlaced)
    assert not stays.deferred


def test_cluster_shutdown_stops_who_does_not_obey_in_twice_the_shutdown_timeout() -> None:
    one = three_tiers()
    begun = give(one, command("shutdown"), "engine")
    assert ("power_wave", begun.now_ns + int(Config().shutdown_timeout_s * 2e9)) in begun.timers
    ignored = m.VmPowered("web", "web", False, "the guest did not react")
    assert progress(give(one, ignored, "vm/web")) == "waits for web (the guest did not react)"
    assert asked(give(one, m.TimerFired("power_wave"), "", at_s=341)) == [("vm/web", "stop")]


def test_cluster_shutdown_that_takes_too_long_fails_and_names_each_machine_with_its_reason() -> None:
    one = three_tiers()
    give(one, command("shutdown", timeout_s=60.0), "engine")
    gone(one, "web")
    give(one, m.VmPowered("app", "app", False, "it is unknown: its host does not answer"), "vm/app")
    (failed,) = ended(give(one, m.TimerFired("power_deadline"), "", at_s=160))
    assert failed.reason == (
        "cluster prod: not done in 60 s: api, app (it is unknown: its host does not answer), db"
    )
    assert (one.record.power, failed.succeeded) == ("running", False)
    assert isinstance(replies(give(one, place("new"), "vm/new"), "vm/new")[0], m.VmPlaced)


def test_cluster_command_during_another_is_refused_and_asked_twice_is_one() -> None:
    one = three_tiers()
    give(one, command("shutdown"), "engine")
    assert give(one, command("shutdown"), "engine").sent == []
    (refused,) = ended(give(one, command("start", "op-2"), "engine"))
    assert (refused.operation_id, refused.error_code) == ("op-2", "conflict")


def test_cluster_shutdown_goes_on_after_a_restart_of_the_engine() -> None:
    one, disk = three_tiers(), Disk()
    for held in one.book.reservations.values():
        disk.rows.setdefault(type(held), {})[held.vm_id] = held
    disk.keep(give(one, command("shutdown"), "engine"))
    disk.keep(gone(one, "web"))
    again = disk.restarted([host_record(name, memory_gib=64) for name in ("H1", "H2")])
    assert asked(give(again, m.Recovered(), "")) == []
    assert asked(give(again, m.TimerFired("power"), "")) == []  # that wave was asked before the restart
    gone(again, "app")
    assert asked(gone(again, "api")) == [("vm/db", "shutdown")]
    assert asked(gone(again, "db")) == [("host/H1", "maintenance"), ("host/H2", "maintenance")]


def test_cluster_start_activates_hosts_and_then_starts_who_ran_the_most_important_first() -> None:
    one = three_tiers()
    shut_down(one)
    begun = give(one, command("start", "op-2"), "engine")
    assert asked(begun) == [("host/H1", "activate"), ("host/H2", "activate")]
    assert asked(give(one, usable("H1", HostStatus.UNASSIGNED))) == [("host/H2", "activate")]
    give(one, usable("H2", HostStatus.UNASSIGNED))
    assert asked(give(one, usable("H1", HostStatus.UP))) == []
    assert asked(give(one, usable("H2", HostStatus.UP))) == [("vm/db", "start")]
    assert isinstance(replies(give(one, place("db", 2), "vm/db"), "vm/db")[0], m.VmPlaced)
    second = give(one, m.VmPowered("db", "db", False), "vm/db")
    assert asked(second) == [("vm/api", "start"), ("vm/app", "start")]
    give(one, m.VmPowered("api", "api", False), "vm/api")
    assert asked(give(one, m.VmPowered("app", "app", False), "vm/app")) == [("vm/web", "start")]
    assert ended(give(one, m.VmPowered("web", "web", False), "vm/web")) == [m.OperationEnded("op-2", True)]
    assert (one.record.power, one.record.power_plan) == ("running", [])


def test_cluster_start_tells_a_host_that_lacks_something_once() -> None:
    """Found by the simulator: told again each time that it said so, it went out and in thousands of times a minute."""
    one = three_tiers()
    shut_down(one)
    assert ("host/H1", "activate") in asked(give(one, command("start", "op-2"), "engine"))
    for _ in range(3):
        give(one, usable("H1", HostStatus.UNASSIGNED))
        assert ("host/H1", "activate") not in asked(give(one, usable("H1", HostStatus.NON_OPERATIONAL)))
        assert ("host/H1", "activate") not in asked(give(one, m.TimerFired("power"), ""))
    assert ("host/H1", "activate") in asked(give(one, usable("H1", HostStatus.MAINTENANCE)))


def test_cluster_start_does_not_wait_for_ever_for_a_host_or_a_machine() -> None:
    one = three_tiers()
    shut_down(one)
    give(one, command("start", "op-2"), "engine")
    give(one, usable("H1", HostStatus.UP))
    one.record.timers.pop("power_hosts")  # as the silo does when it fires
    assert asked(give(one, m.TimerFired("power_hosts"), "", at_s=1000)) == [("vm/db", "start")]
    late = give(one, m.TimerFired("power_wave"), "", at_s=1500)
    assert asked(late) == [("vm/api", "start"), ("vm/app", "start")]
    give(one, m.VmPowered("api", "api", True, "no host fits"), "vm/api")
    give(one, m.VmPowered("app", "app", False), "vm/app")
    (failed,) = ended(give(one, m.VmPowered("web", "web", False), "vm/web"))
    assert failed.reason == (
        "cluster prod: 2 machines did not start: api: no host fits; db: did not come up in 360 s"
    )


def test_cluster_start_without_a_plan_ends_when_its_hosts_are_up() -> None:
    one = cluster("H1")
    give(one, usable("H1", HostStatus.MAINTENANCE))
    give(one, command("start"), "engine")
    assert ended(give(one, usable("H1", HostStatus.UP))) == [m.OperationEnded("op-1", True)]


def test_cluster_shutdown_of_an_empty_cluster_ends_at_once_with_its_hosts() -> None:
    one = cluster("H1")
    assert asked(give(one, command("shutdown"), "engine")) == [("host/H1", "maintenance")]
    give(one, host_report("H1", state("stranger", status=VmStatus.DOWN)))
    assert ended(give(one, usable("H1", HostStatus.MAINTENANCE))) == [m.OperationEnded("op-1", True)]

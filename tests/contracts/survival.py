"""What a data center in real time must survive, as stories that each runtime is put through.

test_survival.py runs them on the local runtime, tests/ray/test_stories.py on Ray: three hosts with power management,
each in a silo of its own, so that a machine that moves leaves its process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from olvm import DataCenter
from olvm.model.errors import OlvmError
from olvm.model.hardware import DiskSpec, Hardware
from tests.contracts.fault_driver import INSTANT

GIB = 1024**3
# Periods of a lab: the proportions are those of the defaults, and a busy machine must not look like a dead one.
PERIODS: dict[str, Any] = {
    "heartbeat_period_s": 0.4,
    "report_period_s": 1.0,
    "host_connecting_after_s": 2.0,
    "host_grace_s": 4.0,
    "host_grace_per_vm_s": 0.1,
    "query_period_s": 0.5,
    "migration_bandwidth_mib_s": 2000.0,
    "migration_retry_s": 0.5,
    "migration_monitor_period_s": 0.5,
    "fence_quiet_at_start_s": 0.1,
    "soft_fence_timeout_s": 1.0,
    "fence_poll_period_s": 0.5,
    "fence_retry_s": 1.0,
    "fence_quiet_between_s": 0.1,
    "host_reboot_timeout_s": 5.0,
    "lease_renew_period_s": 1.0,
    "lease_expiry_s": 5.0,
    "lease_takeover_after_s": 3.0,
}
HOSTS = ("kvm00", "kvm01", "kvm02")
WITHIN_S = 60.0


def lab(directory: Path, runtime: Literal["local", "ray"]) -> DataCenter:
    """With cluster prod and its three hosts."""
    simulated = {**INSTANT, "migration_bandwidth_bytes_per_s": 2e9}
    dc = DataCenter.open(directory, runtime=runtime, simulated=simulated, **PERIODS)
    prod = dc.clusters.create("prod")
    for name in HOSTS:
        prod.hosts.add(name, cpus=16, memory="64GiB", dedicated=True, power_management=True)
    return dc


def silo_of(host: str) -> str:
    return f"host-{host}-own"


def poll(what: str, is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not is_so():
        assert time.monotonic() < deadline, f"{what}: not within {WITHIN_S:g} s"
        time.sleep(0.05)


def statuses(dc: DataCenter) -> dict[str, str]:
    return {vm.name: f"{vm.status.value} {vm.host}" for vm in dc.vms.list()}


def prod_power(dc: DataCenter) -> str:
    return dc.clusters.row("prod").power


def codes(dc: DataCenter, after: int) -> list[str]:
    return [event["code"] for event in dc.events(after)]


def last_event(dc: DataCenter) -> int:
    return max(int(event["seq"]) for event in dc.events())


def end(dc: DataCenter, *names: str) -> None:
    """Stop and remove machines."""
    for name in names:
        if dc.vms[name].status != "down":
            dc.vms[name].stop().wait(WITHIN_S)
    # A machine whose source host has not said its end yet is not removed.
    poll("copies are given back", lambda: dc.sql("select count(*) from copies").one() == 0)
    for name in names:
        dc.vms[name].remove().wait(WITHIN_S)


def assert_whole(dc: DataCenter) -> None:
    """Nothing is left over, and no turn failed: what every story ends with."""
    poll("copies are given back", lambda: dc.sql("select count(*) from copies").one() == 0)
    held = dc.sql("select vm_id, host, epoch from reservations order by vm_id").rows()
    assert held == dc.sql("select id, host, epoch from vms where host is not null order by id").rows()
    assert dc.sql("select count(*) from operations where finished_ns is null").one() == 0
    assert dc.sql("select message from events where code = 'turn_failed'").rows() == []


# ---------------------------------------------------------------- the stories


def migrate_between_processes(dc: DataCenter) -> None:
    """A machine goes once around all hosts, and comes back to where it was as a copy with the highest epoch.

    Its snapshot lies on a storage that they share.
    """
    hardware = Hardware(disks=(DiskSpec(name="vda", size_bytes=GIB),))
    web = dc.vms.create("web", vcpus=1, memory="1GiB", cluster="prod", hardware=hardware)
    web.start().wait(WITHIN_S)
    web.create_snapshot("s1").wait(WITHIN_S)
    epochs = [web.record.epoch]
    for to in ("kvm00", "kvm01", "kvm02", "kvm00"):
        if web.host == to:
            continue
        web.migrate(to=to).wait(WITHIN_S)
        assert (web.status, web.host, web.record.copy_phase) == ("up", to, "")
        epochs.append(web.record.epoch)
        assert [snapshot["name"] for snapshot in web.snapshots()] == ["s1"]
    assert len(epochs) >= 4
    assert epochs == sorted(set(epochs))
    with pytest.raises(OlvmError, match="kvm00"):
        web.migrate(to="kvm00").wait(WITHIN_S)
    end(dc, web.name)
    assert_whole(dc)


def leased_machine_migrates(dc: DataCenter) -> None:
    """Both hosts hold the lease while it moves; afterwards the new one alone, so that it can move on."""
    bank = dc.vms.create("bank", vcpus=1, memory="1GiB", cluster="prod", high_availability=True)
    bank.start().wait(WITHIN_S)
    for _ in range(3):
        before = bank.host
        bank.migrate().wait(WITHIN_S)
        assert (bank.status, bank.record.lease) == ("up", True)
        assert bank.host != before
    end(dc, bank.name)
    assert_whole(dc)


def maintenance_empties_a_host(dc: DataCenter) -> None:
    names = [f"m{n}" for n in range(4)]
    for name in names:
        dc.vms.create(name, vcpus=1, memory="1GiB", cluster="prod").start().wait(WITHIN_S)
    for name in names:
        if dc.vms[name].host != "kvm01":
            dc.vms[name].migrate(to="kvm01").wait(WITHIN_S)
    leaving = dc.hosts.get("kvm01")
    leaving.maintenance(timeout=WITHIN_S).wait(WITHIN_S)
    assert leaving.status == "maintenance"
    assert all(one.startswith("up") and "kvm01" not in one for one in statuses(dc).values()), statuses(dc)
    leaving.activate().wait(WITHIN_S)
    assert leaving.status == "up"
    end(dc, *names)
    assert_whole(dc)


def maintenance_names_the_machine_that_stays(dc: DataCenter) -> None:
    heavy = dc.vms.create("anchor", vcpus=1, memory="1GiB", cluster="prod", pinned_hosts=["kvm00"])
    heavy.start().wait(WITHIN_S)
    host = dc.hosts.get("kvm00")
    with pytest.raises(OlvmError, match="anchor"):
        host.maintenance(timeout=3).wait(WITHIN_S)
    poll("the host is in service again", lambda: host.status == "up")
    end(dc, heavy.name)
    assert_whole(dc)


def power_cycle_boots_a_host_anew(dc: DataCenter) -> None:
    host = dc.hosts.get("kvm02")
    host.maintenance(timeout=WITHIN_S).wait(WITHIN_S)
    before = host.record.boot_id
    host.restart().wait(WITHIN_S)
    if host.status == "maintenance":
        host.activate().wait(WITHIN_S)
    poll("the host is up", lambda: host.status == "up")
    assert host.record.boot_id not in ("", before)
    assert_whole(dc)


def lost_host_is_fenced_and_its_machines_start_elsewhere(dc: DataCenter, lose: Callable[[str], None]) -> None:
    """The process is gone for good: machines with a lease come back by it, the others after the power was cut."""
    prod = dc.clusters.get("prod")
    for name, lease in (("leased", True), ("fenced", False)):
        vm = prod.vms.create(name, vcpus=1, memory="1GiB", high_availability=True, lease=lease)
        vm.start().wait(WITHIN_S)
        if vm.host != "kvm02":
            vm.migrate(to="kvm02").wait(WITHIN_S)
    plain = prod.vms.create("plain", vcpus=1, memory="1GiB", pinned_hosts=["kvm02"])
    plain.start().wait(WITHIN_S)
    cursor = last_event(dc)
    boot_id = dc.hosts.row("kvm02").boot_id
    lose(silo_of("kvm02"))
    for name in ("leased", "fenced"):
        poll(f"{name} runs elsewhere", lambda: dc.vms.row(name).host in ("kvm00", "kvm01"))  # noqa: B023
        poll(f"{name} is up", lambda: dc.vms[name].status == "up")  # noqa: B023
    poll("what is not highly available is known to be down", lambda: plain.status == "down")
    assert dc.hosts.row("kvm02").fenced_boot_id == boot_id
    happened = codes(dc, cursor)
    print(happened)
    assert "host_non_responsive" in happened
    assert happened.count("vm_ha_restart") == 2
    end(dc, "leased", "fenced", "plain")


def cluster_is_shut_down_and_started(dc: DataCenter) -> None:
    prod = dc.clusters.get("prod")
    for name in ("first", "second"):
        prod.vms.create(name, vcpus=1, memory="1GiB").start().wait(WITHIN_S)
    prod.vms.create("idle", vcpus=1, memory="1GiB")
    prod.shutdown(timeout=WITHIN_S).wait(WITHIN_S)
    assert prod_power(dc) == "shut_down"
    assert {vm.name: vm.status.value for vm in prod.vms.list()} == dict.fromkeys(
        ("first", "idle", "second"), "down"
    )
    assert {host.status.value for host in prod.hosts.list()} == {"maintenance"}
    prod.start(timeout=WITHIN_S).wait(WITHIN_S)
    assert prod_power(dc) == "running"
    poll("what ran runs again", lambda: dc.vms["first"].status == dc.vms["second"].status == "up")
    assert dc.vms["idle"].status == "down"
    end(dc, "first", "second", "idle")
    assert_whole(dc)


STORIES: tuple[Callable[[DataCenter], None], ...] = (
    migrate_between_processes,
    leased_machine_migrates,
    maintenance_empties_a_host,
    maintenance_names_the_machine_that_stays,
    power_cycle_boots_a_host_anew,
    cluster_is_shut_down_and_started,
)

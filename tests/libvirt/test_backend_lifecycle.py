"""One machine's whole life on a real host, with a guest whose clock is watched from inside."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from xml.etree import ElementTree as ET

import libvirt
import msgspec
import pytest

from hypervisor_backends import libvirt_lifecycle as lifecycle
from hypervisor_backends.domain_metadata import domain_uuid
from hypervisor_backends.protocol import (
    ArmWatchdog,
    BulkStatistics,
    CallFailed,
    CallSucceeded,
    ContinueDomain,
    DestroyDomain,
    ExitReason,
    PauseDomain,
    RebootDomain,
    ResetDomain,
    ShutdownDomain,
    StatisticsReport,
    SuspendDomain,
)
from olvm.lab.guest import GuestImage
from olvm.lab.hosts import Lab
from olvm.model.hardware import DiskSpec
from olvm.model.limits import NS_PER_S
from tests.libvirt.lab_bench import InGuest, LabBench
from tests.unit.hypervisor_backends.bench import RealClock, restore_of, start_of


@pytest.fixture
def benches(lab: Lab, guest: GuestImage) -> Iterator[tuple[LabBench, LabBench]]:
    clock = RealClock()
    made = (LabBench(lab, lab.host("h1"), guest, clock), LabBench(lab, lab.host("h2"), guest, clock))
    clock.is_quiet = lambda: all(one.is_quiet() for one in made)
    yield made
    for one in made:
        one.backend.close()
        one.remove_all()


@pytest.fixture
def bench(benches: tuple[LabBench, LabBench]) -> LabBench:
    return benches[0]


def assert_ticks_go_on(before: list[int], after: list[int]) -> None:
    """None is missing, and none is counted twice: the guest's memory is the one that it had."""
    assert after == list(range(1, len(after) + 1))
    assert after[: len(before)] == before


def test_screen_of_a_restored_machine_is_as_closed_as_it_was(bench: LabBench) -> None:
    bench.willing_guest = True
    bench.dress_more = lambda hardware: msgspec.structs.replace(hardware, vnc=True)
    bench.start()
    before = password_of_screen(bench)
    bench.succeed(SuspendDomain(vm_id="v1"))
    bench.succeed(restore_of("v1", 2))

    assert before[0]
    assert password_of_screen(bench) == before
    bench.succeed(DestroyDomain(vm_id="v1"))


def password_of_screen(bench: LabBench) -> tuple[str | None, str | None]:
    with bench.connection() as connection:
        domain = connection.lookupByUUIDString(domain_uuid("v1"))
        graphics = ET.fromstring(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE)).find("devices/graphics")
    assert graphics is not None
    return graphics.get("passwd"), graphics.get("passwdValidTo")


def test_life_of_a_real_guest_from_boot_to_power_off(benches: tuple[LabBench, LabBench]) -> None:
    bench, other = benches
    bench.willing_guest = True
    bench.start()
    inside = InGuest(bench)
    boot_id, ticks = inside.boot_id(), inside.ticks()

    bench.succeed(PauseDomain(vm_id="v1"))
    bench.clock.pass_s(2)
    bench.succeed(ContinueDomain(vm_id="v1"))
    paused_ticks = inside.ticks()
    assert_ticks_go_on(ticks, paused_ticks)
    assert inside.boot_id() == boot_id

    # Saved here and restored on the other host, as the same machine of a later epoch.
    bench.succeed(SuspendDomain(vm_id="v1"))
    other.succeed(restore_of(epoch=2))
    moved = InGuest(other)
    assert moved.boot_id() == boot_id
    assert_ticks_go_on(paused_ticks, moved.ticks())
    state = other.state()
    assert state is not None
    assert (state.epoch, state.status) == (2, "up")
    other.reopen()
    state = other.state()
    assert state is not None
    assert state.epoch == 2

    other.succeed(RebootDomain(vm_id="v1"))
    other.clock.run_until(lambda: "rebooted" in other.kinds(), 30)
    moved.wait_for_agent()
    assert moved.boot_id() != boot_id
    assert other.kinds().count("rebooted") == 1
    other.succeed(ShutdownDomain(vm_id="v1"))
    other.wait("shut_down")
    assert other.events[-1].exit_reason == ExitReason.ADMIN_SHUTDOWN
    assert not any((bench.lab.shared / "saved").iterdir())


def test_guest_with_qemus_agent_alone_is_up_when_that_agent_is_after_a_reboot_too(
    lab: Lab, guest: GuestImage
) -> None:
    clock = RealClock()
    bench = LabBench(lab, lab.host("h1"), guest, clock, guest_wait_timeout_s=600.0)
    clock.is_quiet = bench.is_quiet
    bench.willing_guest = True
    try:
        bench.start()
        bench.wait("guest_up")
        boot_id = InGuest(bench).boot_id()
        bench.succeed(ResetDomain(vm_id="v1"))
        bench.wait("guest_up")
        assert bench.kinds()[-2:] == ["rebooted", "guest_up"]
        assert InGuest(bench).boot_id() != boot_id
        bench.succeed(DestroyDomain(vm_id="v1"))
    finally:
        bench.backend.close()
        bench.remove_all()


def test_guest_that_powers_off_or_panics_by_itself_is_told_apart(bench: LabBench) -> None:
    bench.willing_guest = True
    bench.start("v1")
    InGuest(bench, "v1").begin("sleep 0.2; poweroff -f")
    bench.wait("shut_down", "v1")
    assert bench.events[-1].exit_reason == ExitReason.USER_SHUTDOWN

    bench.start("v2")
    InGuest(bench, "v2").begin("sleep 0.2; echo c > /proc/sysrq-trigger")
    bench.wait("crashed", "v2")
    assert bench.events[-1].exit_reason == ExitReason.GENERIC_ERROR
    assert "panicked" in bench.events[-1].message


def test_shutdown_that_a_guest_ignores_presses_the_button_and_leaves_it_up(bench: LabBench) -> None:
    bench.start()  # nothing in it hears a button
    bench.call(ShutdownDomain(vm_id="v1", acpi_after_s=0.2))
    bench.clock.run_until(lambda: bench.status() == "powering_down", 10)
    bench.clock.pass_s(1)

    assert bench.status() == "powering_down"
    bench.succeed(ResetDomain(vm_id="v1"))
    assert bench.kinds()[-2:] == ["rebooted", "guest_up"]


def test_qemu_that_is_killed_is_lost(bench: LabBench) -> None:
    bench.start()
    os.kill(bench.qemu_pid(), signal.SIGKILL)
    bench.wait("crashed")

    assert bench.events[-1].exit_reason == ExitReason.LOST_QEMU
    assert bench.backend.domains() == []
    bench.clock.advance(1)
    with bench.connection() as connection, pytest.raises(libvirt.libvirtError):
        connection.lookupByUUIDString(domain_uuid("v1"))
    bench.start(epoch=2)


def test_machine_is_over_when_what_ends_it_has_come_back(
    bench: LabBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ends it clears away by its UUID, which its next life has too; libvirt tells of the end before that."""
    libvirt_is_done, may_clear_away = threading.Event(), threading.Event()
    clear_away = lifecycle.forget

    def wait_and_clear_away(connection: libvirt.virConnect, uuid: str) -> None:
        libvirt_is_done.set()
        assert may_clear_away.wait(30)
        clear_away(connection, uuid)

    bench.start()
    monkeypatch.setattr(lifecycle, "forget", wait_and_clear_away)
    answers = bench.call(DestroyDomain(vm_id="v1"))
    assert bench.clock.run_until(libvirt_is_done.is_set, 20)
    bench.clock.pass_s(1.0)
    assert not answers
    (refused,) = bench.call(start_of(epoch=2))
    assert isinstance(refused, CallFailed)
    assert refused.code == "duplicate_domain"

    may_clear_away.set()
    bench.clock.wait_for(answers)
    bench.start(epoch=2)
    assert bench.kinds() == ["started", "guest_up", "stopped", "started", "guest_up"]
    bench.succeed(DestroyDomain(vm_id="v1"))


def test_full_storage_pauses_with_its_code_and_goes_on_when_there_is_room(bench: LabBench) -> None:
    bench.host.run(["mkdir", "-p", "/tmp/small"])
    bench.host.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/tmp/small"])
    try:
        bench.host.run(["qemu-img", "create", "-q", "-f", "qcow2", "/tmp/small/full.qcow2", "64M"])
        bench.willing_guest = True
        bench.dress_more = lambda hardware: msgspec.structs.replace(
            hardware, disks=(DiskSpec(name="vda", source="/tmp/small/full.qcow2"),)
        )
        bench.succeed(start_of())
        inside = InGuest(bench)
        inside.wait_for_agent()
        inside.begin("dd if=/dev/urandom of=/dev/vda bs=64k count=40 oflag=direct")
        bench.wait("paused")
        state = bench.state()
        assert state is not None
        assert (state.status, state.pause_code) == ("paused", "ENOSPC")
        assert bench.events[-1].pause_code == "ENOSPC"

        bench.host.run(["mount", "-o", "remount,size=32m", "/tmp/small"])
        bench.succeed(ContinueDomain(vm_id="v1"))
        bench.clock.pass_s(0.5)
        assert bench.status() == "up"
        bench.succeed(DestroyDomain(vm_id="v1"))
    finally:
        bench.host.run(["umount", "-l", "/tmp/small"])
        bench.host.run(["rmdir", "/tmp/small"])


def test_second_start_of_a_leased_machine_on_the_other_host_is_refused_by_the_host_itself(
    benches: tuple[LabBench, LabBench],
) -> None:
    first, second = benches
    for one in benches:
        one.succeed(ArmWatchdog(deadline_ns=one.clock.now_ns() + 120 * NS_PER_S), seconds=0)
    request = start_of()
    request = msgspec.structs.replace(request, spec=msgspec.structs.replace(request.spec, leased=True))
    first.succeed(request)
    other = msgspec.structs.replace(request, epoch=2)

    failure = second.refuse(other)

    assert (failure.code, failure.outcome_known) == ("lease_held", True)
    assert second.backend.domains() == []
    first.succeed(DestroyDomain(vm_id="v1"))
    second.succeed(other)


def test_statistics_agree_with_what_the_guest_measures(bench: LabBench) -> None:
    bench.willing_guest = True
    bench.start()
    inside = InGuest(bench)
    inside.begin("t=0; while [ $t -lt 4000000 ]; do t=$((t+1)); done")
    bench.ask(BulkStatistics())
    idle_before = _idle_s(inside)
    bench.clock.pass_s(2.0)
    report = bench.ask(BulkStatistics())
    idle_after = _idle_s(inside)

    assert isinstance(report, CallSucceeded)
    assert isinstance(report.value, StatisticsReport)
    (domain,) = report.value.domains
    assert idle_after >= idle_before
    assert domain.cpu_user_percent + domain.cpu_sys_percent > 20
    total_kib = int(inside.run("/bin/sh", "-c", "grep MemTotal /proc/meminfo").split()[1])
    assert domain.mem_total_kib >= total_kib
    assert 0 < domain.mem_unused_kib <= domain.mem_total_kib
    received = int(inside.run("/bin/cat", "/sys/class/net/eth0/statistics/tx_bytes"))
    assert abs(domain.nics[0].tx_bytes - received) < 2_000 or domain.nics[0].rx_bytes >= received


def _idle_s(inside: InGuest) -> float:
    return float(inside.run("/bin/cat", "/proc/uptime").split()[1])

"""Back to a snapshot on real libvirt: what was written since is gone, and whoever is killed leaves no half revert."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import libvirt
import msgspec
import pytest

from hypervisor_backends.disk_layers import read_layers, revert_of
from hypervisor_backends.domain_metadata import domain_uuid
from hypervisor_backends.domain_xml import VOID_PASSWORD
from hypervisor_backends.libvirt_processes import qemu_pids
from hypervisor_backends.protocol import (
    CallFailed,
    CommitSnapshot,
    CreateSnapshot,
    DestroyDomain,
    DetachDisk,
    ListSnapshots,
    PauseDomain,
    RevertSnapshot,
    SetVcpus,
    SnapshotList,
)
from olvm import DataCenter
from olvm.lab.guest import GuestImage
from olvm.lab.hosts import Lab
from olvm.model.errors import Conflict, NotFound
from olvm.model.hardware import DiskSpec, Hardware
from tests.libvirt.lab_bench import InGuest, LabBench, migrate, wait_until_calm
from tests.libvirt.machine import Machine, TaskHost, eventually, spec_of
from tests.unit.hypervisor_backends.bench import RealClock, check_each_life_ends_once

MIB = 1024 * 1024
DISKS = (
    DiskSpec(name="vda", size_bytes=64 * MIB),
    DiskSpec(name="vdb", size_bytes=32 * MIB, format="raw"),
)


def dressed(hardware: Hardware) -> Hardware:
    return msgspec.structs.replace(hardware, disks=DISKS, vcpus_max=3)


@pytest.fixture
def benches(lab: Lab, guest: GuestImage) -> Iterator[tuple[LabBench, LabBench]]:
    clock = RealClock()
    made = [LabBench(lab, lab.host(name), guest, clock, guest_wait_timeout_s=60.0) for name in ("h1", "h2")]
    clock.is_quiet = lambda: all(one.is_quiet() for one in made)
    for one in made:
        one.willing_guest, one.dress_more = True, dressed
    yield made[0], made[1]
    for one in made:
        check_each_life_ends_once(one.events)
        one.backend.close()
    for one in made:
        one.remove_all()
    for path in (lab.shared / "images").glob("v1-*"):
        path.unlink()


@pytest.fixture
def bench(benches: tuple[LabBench, LabBench]) -> LabBench:
    return benches[0]


def write(bench: LabBench, word: str) -> None:
    for device in ("vda", "vdb"):
        script = f"printf {word} | dd of=/dev/{device} bs=4096 seek=1 conv=fsync,notrunc"
        InGuest(bench).run("/bin/sh", "-c", script)


def words(bench: LabBench) -> list[str]:
    """What both disks hold, past the guest's page cache."""
    script = "echo 3 > /proc/sys/vm/drop_caches; dd if=/dev/{} bs=4096 skip=1 count=1 2>/dev/null | head -c 6"
    return [InGuest(bench).run("/bin/sh", "-c", script.format(device)) for device in ("vda", "vdb")]


def revert(bench: LabBench, name: str = "s1", **how: bool) -> None:
    bench.succeed(RevertSnapshot(vm_id="v1", name=name, **how))
    InGuest(bench).wait_for_agent()


def names(bench: LabBench) -> list[str]:
    value = bench.succeed(ListSnapshots(vm_id="v1")).value
    assert isinstance(value, SnapshotList)
    return [snapshot.name for snapshot in value.snapshots]


def files(lab: Lab) -> list[str]:
    return sorted(path.name for path in (lab.shared / "images").glob("v1-*"))


def check_images(lab: Lab) -> None:
    for path in (lab.shared / "images").glob("v1-*"):
        if path.read_bytes()[:4] == b"QFI\xfb":
            subprocess.run(["qemu-img", "check", "-q", "-U", str(path)], check=True)


def test_what_was_written_since_is_gone_and_one_can_revert_again(
    benches: tuple[LabBench, LabBench], lab: Lab
) -> None:
    bench, other = benches
    bench.start()
    write(bench, "before")
    bench.succeed(CreateSnapshot(vm_id="v1", name="s1"))
    boot_ids = [InGuest(bench).boot_id()]
    for number in (1, 2):
        write(bench, f"after{number}")
        assert words(bench) == [f"after{number}"] * 2
        so_far = len(bench.kinds())
        revert(bench)

        assert words(bench) == ["before", "before"]
        bench.wait("guest_up", timeout_s=60)
        assert bench.kinds()[so_far:] == ["rebooted", "guest_up"]
        assert names(bench) == ["s1"]
        boot_ids.append(InGuest(bench).boot_id())
    assert len(set(boot_ids)) == 3, "it booted each time"
    beside = ["", ".olvm-layers", ".s1.revert-2"]
    assert files(lab) == [disk + suffix for disk in ("v1-vda", "v1-vdb") for suffix in beside]

    # Its life goes on like any other: it moves with its layers, starts again from them, and they can be committed.
    write(bench, "since1")
    wait_until_calm(bench)
    migrate(bench, other)
    InGuest(other).wait_for_agent()
    assert words(other) == ["since1", "since1"]
    other.succeed(DestroyDomain(vm_id="v1"))
    other.start(epoch=5)
    assert words(other) == ["since1", "since1"]
    other.succeed(CommitSnapshot(vm_id="v1", name="s1"))
    assert words(other) == ["since1", "since1"]
    assert files(lab) == ["v1-vda", "v1-vdb"]
    check_images(lab)


def test_memory_of_a_snapshot_goes_on_where_it_was_as_often_as_one_likes(bench: LabBench, lab: Lab) -> None:
    bench.dress_more = lambda hardware: msgspec.structs.replace(dressed(hardware), vnc=True)
    bench.start()
    boot_id = InGuest(bench).boot_id()
    write(bench, "before")
    InGuest(bench).run("/bin/sh", "-c", "echo then > /tmp/word")
    bench.succeed(CreateSnapshot(vm_id="v1", name="s1", with_memory=True))
    for number in (1, 2):
        InGuest(bench).run("/bin/sh", "-c", f"echo since{number} > /tmp/word")
        write(bench, f"after{number}")
        so_far = len(bench.kinds())
        revert(bench, with_memory=True)

        assert bench.kinds()[so_far:] == ["rebooted", "guest_up"]
        assert InGuest(bench).boot_id() == boot_id, "it did not boot"
        assert InGuest(bench).run("/bin/cat", "/tmp/word").strip() == "then"
        assert words(bench) == ["before", "before"]
        assert names(bench) == ["s1"]
        with bench.connection() as connection:
            domain = connection.lookupByUUIDString(domain_uuid("v1"))
            root = ET.fromstring(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE))
        graphics = root.find("devices/graphics")
        assert graphics is not None
        assert graphics.get("passwd") == VOID_PASSWORD, "nobody sees the screen without a ticket"
    # Without its memory the same snapshot is booted from.
    revert(bench)
    assert InGuest(bench).boot_id() != boot_id
    assert words(bench) == ["before", "before"]
    bench.succeed(CommitSnapshot(vm_id="v1", name="s1"))
    assert files(lab) == ["v1-vda", "v1-vdb"]


def test_later_snapshots_are_lost_only_where_that_is_asked_for(bench: LabBench, lab: Lab) -> None:
    bench.start()
    write(bench, "first1")
    bench.succeed(CreateSnapshot(vm_id="v1", name="s1"))
    write(bench, "second")
    bench.succeed(CreateSnapshot(vm_id="v1", name="s2", with_memory=True))
    write(bench, "third1")
    pid = bench.qemu_pid()

    assert bench.refuse(RevertSnapshot(vm_id="v1", name="s1")).code == "in_use"
    assert bench.qemu_pid() == pid
    assert words(bench) == ["third1", "third1"]
    revert(bench, discard_later=True)
    assert words(bench) == ["first1", "first1"]
    assert names(bench) == ["s1"]
    assert not [name for name in files(lab) if "s2" in name]
    bench.succeed(CommitSnapshot(vm_id="v1", name="s1"))


def test_revert_of_a_machine_that_lacks_a_disk_or_changed_is_refused_before_it_is_stopped(
    bench: LabBench,
) -> None:
    bench.start()
    bench.succeed(CreateSnapshot(vm_id="v1", name="s1", with_memory=True))
    bench.succeed(SetVcpus(vm_id="v1", vcpus=3))
    pid = bench.qemu_pid()
    changed = bench.refuse(RevertSnapshot(vm_id="v1", name="s1", with_memory=True))
    bench.succeed(DetachDisk(vm_id="v1", name="vdb"))
    missing = bench.refuse(RevertSnapshot(vm_id="v1", name="s1"))

    assert (changed.code, missing.code) == ("wrong_state", "wrong_state")
    assert "CPUs or memory" in changed.message
    assert "vdb" in missing.message
    assert bench.qemu_pid() == pid


def test_paused_machine_with_plugged_cpus_boots_with_them_from_the_snapshot(bench: LabBench) -> None:
    bench.start()
    write(bench, "before")
    bench.succeed(CreateSnapshot(vm_id="v1", name="s1"))
    write(bench, "after1")
    bench.succeed(SetVcpus(vm_id="v1", vcpus=3))
    bench.succeed(PauseDomain(vm_id="v1"))
    so_far = len(bench.kinds())
    revert(bench)

    assert bench.kinds()[so_far : so_far + 2] == ["continued", "rebooted"]
    assert words(bench) == ["before", "before"]
    state = bench.state()
    assert state is not None
    assert state.vcpus == 3
    assert InGuest(bench).run("/bin/sh", "-c", "grep -c ^processor /proc/cpuinfo").strip() == "3"


def test_machine_that_does_not_run_again_is_down_with_its_disks_as_they_were(
    bench: LabBench, lab: Lab
) -> None:
    """Its snapshot's memory is damaged: that shows when QEMU is gone already."""
    bench.start()
    write(bench, "before")
    bench.succeed(CreateSnapshot(vm_id="v1", name="s1", with_memory=True))
    write(bench, "after1")
    (memory,) = (lab.shared / "images").glob("*.olvm-memory")
    content = memory.read_bytes()
    at = content.index(b"QEVM")
    memory.write_bytes(content[:at] + b"damaged" + content[at + 7 :])
    so_far = len(bench.kinds())
    answers = bench.call(RevertSnapshot(vm_id="v1", name="s1", with_memory=True))
    bench.clock.wait_for(answers)

    (answer,) = answers
    assert isinstance(answer, CallFailed)
    assert (answer.code, answer.outcome_known) == ("start_failed", True)
    assert "as they were before" in answer.message
    assert bench.kinds()[so_far:] == ["crashed"]
    bench.start(epoch=2)
    assert words(bench) == ["after1", "after1"]
    assert names(bench) == ["s1"]
    revert(bench)
    assert words(bench) == ["before", "before"]


# ---------------------------------------------------------------- an agent that is killed on the way


def is_marked(machine: Machine, _pid: int) -> bool:
    """The record of the last disk says what is about to happen."""
    return revert_of(read_layers(source(machine, "vdb"), str)) is not None


def is_ended(machine: Machine, pid: int) -> bool:
    return pid_of(machine) != pid


def is_begun(machine: Machine, pid: int) -> bool:
    return pid_of(machine) not in (pid, None)


def pid_of(machine: Machine) -> int | None:
    return qemu_pids(machine.host.settings.root).get(domain_uuid(machine.vm_id))


def source(machine: Machine, name: str) -> str:
    directory = Path(machine.host.settings.pool_directory)
    return machine.host.settings.path_here(str(directory / f"{machine.vm_id}-{name}"))


@pytest.mark.parametrize("moment", [is_marked, is_ended, is_begun], ids=lambda moment: moment.__name__)
def test_agent_that_is_killed_leaves_all_disks_new_or_all_old(
    lab: Lab, guest: GuestImage, moment: Callable[[Machine, int], bool]
) -> None:
    host = TaskHost(lab.host("h1"))
    spec = spec_of(guest, "killed", memory_mib=192, disks=DISKS)
    machine = Machine(host, spec)
    machine.wait_until_up()
    for device in ("vda", "vdb"):
        machine.write(device, "before")
    machine.do(CreateSnapshot(vm_id="", name="s1"))
    for device in ("vda", "vdb"):
        machine.write(device, "after1")
    pid = pid_of(machine)
    assert pid is not None
    settings = json.dumps(lab.host("h1").settings)
    command = [sys.executable, "-m", "tests.libvirt.revert_driver", "h1", settings, '{"name": "s1"}']
    driver = subprocess.Popen([*command, machine.vm_id], stdout=subprocess.PIPE)
    assert driver.stdout is not None
    assert driver.stdout.readline() == b"begins\n"
    end_s = time.monotonic() + 60
    while not moment(machine, pid):
        assert time.monotonic() < end_s, "the moment did not come"
    driver.kill()
    driver.communicate(timeout=30)

    time.sleep(2)  # libvirtd finishes what it was asked for
    expected = {"is_marked": ["after1"], "is_ended": ["before", "after1"], "is_begun": ["before"]}
    if not machine.domain.isActive():
        machine.end()
        machine = Machine(host, spec, machine.vm_id, 2)
    machine.wait_until_up()
    found = {machine.read(device, 6) for device in ("vda", "vdb")}
    assert len(found) == 1, "half a revert"
    assert found <= set(expected[moment.__name__])
    listed = machine.do(ListSnapshots(vm_id=""))
    assert isinstance(listed, SnapshotList)
    assert [snapshot.name for snapshot in listed.snapshots] == ["s1"]
    kept = sorted((lab.shared / "images").glob(f"{machine.vm_id}*"))
    assert len(kept) == 6, "two files and a record of each disk, and nothing is left over"
    machine.do(CommitSnapshot(vm_id="", name="s1"))
    assert {machine.read(device, 6) for device in ("vda", "vdb")} == found
    machine.end()
    host.close()


def test_libvirtd_that_dies_between_two_qemus_leaves_no_half_of_a_revert(bench: LabBench) -> None:
    bench.start()
    write(bench, "before")
    bench.succeed(CreateSnapshot(vm_id="v1", name="s1"))
    write(bench, "after1")
    uuid, root = domain_uuid("v1"), bench.settings.root
    pid = qemu_pids(root)[uuid]
    answers = bench.call(RevertSnapshot(vm_id="v1", name="s1"))
    assert bench.clock.run_until(lambda: qemu_pids(root).get(uuid) != pid, 60)
    bench.host.kill_libvirtd()
    bench.clock.wait_for(answers)
    bench.host.start_libvirtd()
    bench.wait_connected()

    (answer,) = answers
    assert isinstance(answer, CallFailed)
    assert not answer.outcome_known
    assert bench.clock.run_until(lambda: bench.state() is None or qemu_pids(root).get(uuid), 30)
    if bench.state() is None:
        assert bench.kinds()[-1] == "crashed"
        bench.start(epoch=2)
    InGuest(bench).wait_for_agent()
    assert words(bench) in (["before"] * 2, ["after1"] * 2)
    revert(bench)
    assert words(bench) == ["before"] * 2
    assert names(bench) == ["s1"]


# ---------------------------------------------------------------- by the engine's verbs


def test_driver_script_reverts_a_highly_available_machine(
    lab: Lab, guest: GuestImage, tmp_path: Path
) -> None:
    guest = guest.without_our_agent()
    kernel = {"kernel": str(guest.kernel), "initrd": str(guest.initrd), "cmdline": guest.cmdline}
    hardware = Hardware(**kernel, disks=DISKS)  # type: ignore[arg-type]
    settings = {**lab.host("h1").settings, "seed_directory": str(lab.shared / "seeds")}
    with DataCenter.open(tmp_path / "dc", runtime="local") as dc:
        cluster = dc.clusters.create("lab")
        cluster.hosts.add("h1", backend="libvirt", backend_settings=settings)
        vm = cluster.vms.create("web", vcpus=1, memory="192MiB", hardware=hardware, high_availability=True)
        vm.start().wait(120)
        vm.create_snapshot("s1").wait(60)
        with pytest.raises(NotFound, match=r"web .*s9: there is none of that name; it has s1"):
            vm.revert_snapshot("s9").wait(60)
        for _ in range(2):
            vm.revert_snapshot("s1").wait(60)
            assert eventually(lambda: vm.status == "up", 60)
        assert [snapshot["name"] for snapshot in vm.snapshots()] == ["s1"]
        done = "select count(*) from events where message = 'machine web: revert_snapshot was done'"
        assert eventually(lambda: dc.sql(done).one() == 2, 30)
        assert vm.record.epoch == 1, "it was never started anew"
        vm.stop().wait(60)
        with pytest.raises(Conflict, match="it must be running: start it first"):
            vm.revert_snapshot("s1").wait(60)

"""What a task says is done is done: asked inside the guest, and of the screen from outside."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from hypervisor_backends.domain_metadata import metadata_of
from hypervisor_backends.libvirt_capabilities import capabilities_of
from hypervisor_backends.libvirt_domain import seen_of
from hypervisor_backends.libvirt_tasks import PreparedStart
from hypervisor_backends.protocol import (
    AttachDisk,
    AttachNic,
    ChangeMedium,
    ConsoleAddress,
    DetachDisk,
    DetachNic,
    PlugMemory,
    SetBalloon,
    SetConsoleTicket,
    SetCpuQuota,
    SetNicLink,
    SetVcpus,
    UnplugMemory,
)
from olvm.lab.guest import GuestImage
from olvm.lab.hosts import Lab
from olvm.model.hardware import CloudInit, DiskSpec, NicSpec
from tests.libvirt.machine import MIB, Machine, TaskHost, eventually, running, spec_of
from tests.libvirt.rfb import opens_screen

BLOCK = 128 * MIB
HARDWARE = {
    "disks": (
        DiskSpec(name="vda", size_bytes=64 * MIB),
        DiskSpec(name="logs", size_bytes=32 * MIB, bus="scsi", serial="LOG-1"),
        DiskSpec(name="cd", device="cdrom", bus="scsi"),
    ),
    "nics": (NicSpec(name="eth0"),),
    "vcpus_max": 4,
    "memory_bytes_max": 1024 * MIB,
    "tpm": True,
    "watchdog": "reset",
    "cloud_init": CloudInit(user_data="#cloud-config\nhostname: seeded\n"),
}


@pytest.fixture(scope="module")
def task_host(lab: Lab) -> Iterator[TaskHost]:
    host = TaskHost(lab.host("h1"))
    yield host
    host.close()


@pytest.fixture(scope="module")
def machine(task_host: TaskHost, guest: GuestImage) -> Iterator[Machine]:
    with running(task_host, spec_of(guest, "devices-1", **HARDWARE)) as made:
        yield made


@pytest.fixture(scope="module")
def small(lab: Lab) -> Iterator[Path]:
    """A file system of 6 MiB on the host; what is mounted after its begin is mounted inside it."""
    path = lab.shared / "small"
    path.mkdir(exist_ok=True)
    host = lab.host("h1")
    host.run(["mount", "-t", "tmpfs", "-o", "size=6m", "small", str(path)])
    yield path
    host.run(["umount", "-l", str(path)])


@pytest.fixture(scope="module")
def odd(task_host: TaskHost, guest: GuestImage, small: Path, lab: Lab) -> Iterator[Machine]:
    """One with everything that the other has not: NUMA nodes, no screen, a tight disk, memory that does not leave."""
    lab.host("h1").run(["qemu-img", "create", "-q", "-f", "qcow2", f"{small}/full", "64M"])
    spec = spec_of(
        guest,
        "odd-1",
        memory_mib=512,
        vcpus=2,
        numa_nodes=2,
        memory_bytes_max=1024 * MIB,
        cpu_model="max",
        vnc=False,
        rng=False,
        disks=(DiskSpec(name="vda", source=f"{small}/full"),),
        cmdline=guest.without_our_agent().cmdline.replace("online_movable", "online_kernel"),
    )
    with running(task_host, spec) as made:
        yield made


def memory_kib(machine: Machine) -> int:
    return int(machine.sh("awk '/MemTotal/{print $2}' /proc/meminfo"))


# ---------------------------------------------------------------- what it starts with


def test_machine_has_what_its_spec_says(machine: Machine) -> None:
    assert machine.sh("cat /sys/block/vda/serial") == "vda"
    assert machine.sh("cat /sys/block/vda/size /sys/block/sda/size").split() == ["131072", "65536"]
    assert machine.sh("ls /sys/firmware/acpi/tables/TPM2") == "/sys/firmware/acpi/tables/TPM2"
    assert machine.sh("ls /sys/class/net").split() == ["eth0", "lo"]
    assert machine.sh("ls /dev/hwrng /dev/ttyS0").split() == ["/dev/hwrng", "/dev/ttyS0"]


def test_cloud_init_seed_is_in_a_drive(machine: Machine) -> None:
    said = machine.sh(
        "mkdir -p /tmp/seed; for d in /dev/sr*; do mount -t iso9660 -o ro $d /tmp/seed 2>/dev/null && "
        "cat /tmp/seed/user-data /tmp/seed/meta-data; umount /tmp/seed 2>/dev/null; done"
    )

    assert "hostname: seeded" in said
    assert machine.vm_id in said


def test_what_the_serial_console_says_is_kept(machine: Machine, lab: Lab) -> None:
    log = lab.host("h1").root / f"var/log/libvirt/qemu/{machine.vm_id}.console.log"

    assert eventually(lambda: b"GUEST-READY" in log.read_bytes())


# ---------------------------------------------------------------- CPUs and memory


def test_plugged_cpu_comes_online_in_the_guest(machine: Machine) -> None:
    machine.do(SetVcpus(vm_id="", vcpus=2))

    assert eventually(lambda: machine.sh("nproc") == "2")
    assert machine.refused(SetVcpus(vm_id="", vcpus=1)).code == "not_supported"


def test_plugged_memory_grows_the_guest_and_is_taken_back(machine: Machine) -> None:
    before_kib = memory_kib(machine)
    machine.do(PlugMemory(vm_id="", name="m1", size_bytes=BLOCK))

    assert eventually(lambda: memory_kib(machine) > before_kib + 100_000)
    machine.do(UnplugMemory(vm_id="", name="m1"))
    assert memory_kib(machine) < before_kib + 10_000


def test_guest_that_uses_a_device_keeps_it_and_the_task_says_so(odd: Machine) -> None:
    """Memory that came online as ordinary memory holds the kernel's own data and cannot leave."""
    before_kib = memory_kib(odd)
    odd.do(PlugMemory(vm_id="", name="m1", size_bytes=BLOCK))
    assert eventually(lambda: memory_kib(odd) > before_kib + 100_000)
    # The kernel's own pages, on the memory that came last.
    odd.sh("for i in $(seq 100); do mkdir -p /tmp/d$i; mount -t tmpfs t /tmp/d$i; done")
    result = odd.ask(UnplugMemory(vm_id="", name="m1"))
    is_there = memory_kib(odd) > before_kib + 100_000
    assert getattr(result, "code", "") == ("guest_refused" if is_there else "")


def test_balloon_is_followed_by_the_guest(machine: Machine) -> None:
    before_kib = memory_kib(machine)
    machine.do(SetBalloon(vm_id="", memory_bytes=180 * MIB))

    assert eventually(lambda: memory_kib(machine) < before_kib - 60_000)
    machine.do(SetBalloon(vm_id="", memory_bytes=256 * MIB))
    assert eventually(lambda: memory_kib(machine) > before_kib - 5_000)


def test_cpu_quota_holds_a_busy_guest_down(machine: Machine, lab: Lab) -> None:
    """Of a busy loop on one vCPU; how much one without a quota gets depends on what else the machine does."""
    machine.sh("(while :; do :; done & loop=$!; sleep 60; kill $loop) > /dev/null 2>&1 &")
    machine.do(SetCpuQuota(vm_id="", percent=20))
    before = throttled_count(lab)
    share = vcpu_share(machine, 5.0)
    held = throttled_count(lab) - before
    machine.do(SetCpuQuota(vm_id="", percent=0))
    time.sleep(0.5)
    before = throttled_count(lab)
    time.sleep(2)

    assert 0.01 < share < 0.25
    assert held > 3
    assert throttled_count(lab) == before


def throttled_count(lab: Lab) -> int:
    """How often the host's scheduler has stopped a vCPU of the machine because its quota was used up."""
    find = "find /sys/fs/cgroup -path '*devices*vcpu*' -name cpu.stat"
    said = lab.host("h1").run(["sh", "-c", f"for f in $({find}); do cat $f; done"])
    return sum(int(line.split()[1]) for line in said.splitlines() if line.startswith("nr_throttled"))


def vcpu_share(machine: Machine, seconds: float) -> float:
    """The CPUs that the busiest vCPU used."""
    before = [vcpu[2] for vcpu in machine.domain.vcpus()[0]]
    began_s = time.monotonic()
    time.sleep(seconds)
    after = [vcpu[2] for vcpu in machine.domain.vcpus()[0]]
    return max(b - a for a, b in zip(before, after, strict=True)) / 1e9 / (time.monotonic() - began_s)


# ---------------------------------------------------------------- disks and media


def test_attached_disk_appears_with_its_serial_and_goes(machine: Machine) -> None:
    machine.do(AttachDisk(vm_id="", disk=DiskSpec(name="vdb", size_bytes=16 * MIB, serial="SPARE.1_a+b-c")))

    assert eventually(lambda: "vdb" in machine.sh("ls /sys/block"))
    assert machine.sh("cat /sys/block/vdb/serial") == "SPARE.1_a+b-c"
    machine.write("vdb", "kept")
    machine.do(DetachDisk(vm_id="", name="vdb"))
    assert "vdb" not in machine.sh("ls /sys/block")
    machine.do(AttachDisk(vm_id="", disk=DiskSpec(name="vdb", size_bytes=16 * MIB)))
    assert eventually(lambda: "vdb" in machine.sh("ls /sys/block"))
    assert machine.read("vdb", 4) == "kept"
    machine.do(DetachDisk(vm_id="", name="vdb"))


def test_scsi_disks_are_plugged_beside_each_other(machine: Machine) -> None:
    for name in ("sdb", "sdc"):
        machine.do(AttachDisk(vm_id="", disk=DiskSpec(name=name, size_bytes=16 * MIB, bus="scsi")))

    assert eventually(lambda: {"sdb", "sdc"} <= set(machine.sh("ls /sys/block").split()))
    for name in ("sdb", "sdc"):
        machine.do(DetachDisk(vm_id="", name=name))
    assert not {"sdb", "sdc"} & set(machine.sh("ls /sys/block").split())


def test_medium_that_is_put_in_is_read_in_the_guest(machine: Machine, lab: Lab) -> None:
    path = lab.shared / "images" / "medium.iso"
    path.write_bytes(b"olvm-medium".ljust(1024 * 1024, b"\0"))
    machine.do(ChangeMedium(vm_id="", name="cd", source=str(path)))

    reading = "for d in /dev/sr*; do head -c 11 $d 2>/dev/null; done"
    assert eventually(lambda: "olvm-medium" in machine.sh(reading))
    machine.do(ChangeMedium(vm_id="", name="cd"))
    assert eventually(lambda: "olvm-medium" not in machine.sh(reading))
    assert machine.refused(ChangeMedium(vm_id="", name="cd", source="/no/such.iso")).code == "not_found"


def test_disk_whose_storage_is_full_pauses_the_machine_until_there_is_room(
    odd: Machine, small: Path, lab: Lab
) -> None:
    fill = "dd if=/dev/zero of=/dev/vda bs=1M count=20 conv=fsync; echo done > /tmp/dd"
    odd.sh(f"({fill}) > /dev/null 2>&1 &")
    assert eventually(lambda: seen_of(odd.domain).pause_code == "ENOSPC")
    lab.host("h1").run(["mount", "-o", "remount,size=64m", str(small)])
    odd.domain.resume()
    assert eventually(lambda: odd.sh("cat /tmp/dd") == "done")


# ---------------------------------------------------------------- network cards


def test_network_card_appears_loses_its_cable_and_goes(machine: Machine) -> None:
    machine.do(AttachNic(vm_id="", nic=NicSpec(name="eth1", mac="52:54:00:00:01:02")))

    assert eventually(lambda: machine.sh("cat /sys/class/net/eth1/address") == "52:54:00:00:01:02")
    machine.sh("ip link set eth1 up")
    machine.do(SetNicLink(vm_id="", name="eth1", up=False))
    assert eventually(lambda: machine.sh("cat /sys/class/net/eth1/carrier") == "0")
    machine.do(SetNicLink(vm_id="", name="eth1", up=True))
    assert eventually(lambda: machine.sh("cat /sys/class/net/eth1/carrier") == "1")
    machine.do(DetachNic(vm_id="", name="eth1"))
    assert "eth1" not in machine.sh("ls /sys/class/net")


# ---------------------------------------------------------------- the screen


def test_screen_opens_to_the_right_ticket_in_time_and_to_nobody_else(machine: Machine, lab: Lab) -> None:
    def opens(password: str) -> bool:
        return opens_screen(lab.fabric, lab.host("h1").address, port, password)

    port = int(machine.domain.XMLDesc(0).split("type='vnc' port='")[1].split("'")[0])
    assert not opens("no-entry")
    assert not opens("")
    address = machine.do(SetConsoleTicket(vm_id="", password="first-1", valid_s=60))
    assert isinstance(address, ConsoleAddress)
    assert (address.kind, address.port) == ("vnc", port)
    assert opens("first-1")
    assert not opens("first-2")
    machine.do(SetConsoleTicket(vm_id="", password="second-2", valid_s=2))
    assert not opens("first-1")
    assert eventually(lambda: not opens("second-2"), 10)
    # The password stays out of what everybody can read.
    assert "second-2" not in machine.domain.XMLDesc(0)


# ---------------------------------------------------------------- what is remembered


def test_agent_without_memory_learns_of_plugged_devices_from_the_machine_itself(machine: Machine) -> None:
    disk = DiskSpec(name="vdz", size_bytes=16 * MIB)
    machine.do(AttachDisk(vm_id="", disk=disk))
    known = metadata_of(machine.domain.XMLDesc(0))
    machine.do(DetachDisk(vm_id="", name="vdz"))
    after = metadata_of(machine.domain.XMLDesc(0))

    assert known is not None
    assert after is not None
    (found,) = [one for one in known.spec.hardware.disks if one.name == "vdz"]
    assert found.source.endswith(f"{machine.vm_id}-vdz")
    assert [one.name for one in after.spec.hardware.disks] == ["vda", "logs", "cd"]


# ---------------------------------------------------------------- other machines


def test_machine_with_uefi_firmware_and_secure_boot_boots(task_host: TaskHost, guest: GuestImage) -> None:
    spec = spec_of(guest, "uefi-1", memory_mib=512, firmware="uefi", secure_boot=True)
    with running(task_host, spec) as machine:
        assert "efi" in machine.sh("ls /sys/firmware").split()
        loader = machine.xml().find("os/loader")
        assert loader is not None
        assert loader.get("secure") == "yes"


def test_machine_with_uefi_firmware_alone_has_one_without_keys(
    task_host: TaskHost, guest: GuestImage
) -> None:
    machine = Machine(task_host, spec_of(guest, "uefi-2", memory_mib=512, firmware="uefi"))
    loader = machine.xml().find("os/loader")
    machine.end()

    assert loader is not None
    assert loader.get("secure") != "yes"
    assert "ms.fd" not in (loader.text or "")


def test_machine_with_numa_nodes_and_no_screen_boots(odd: Machine) -> None:
    nodes = [f"/sys/devices/system/node/node{number}" for number in (0, 1)]
    assert odd.sh("ls -d /sys/devices/system/node/node*").split() == nodes
    assert odd.refused(SetConsoleTicket(vm_id="", password="x")).code == "not_found"


HUGE_BYTES = 2 * MIB
HUGE_COUNT = 104  # 192 MiB of a machine, and eight to spare


@pytest.fixture
def huge_pages() -> Iterator[None]:
    """Reserved for one test: the kernel's pages are all hosts' of this computer."""
    reserved = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
    try:
        before = int(reserved.read_text())
        reserved.write_text(str(before + HUGE_COUNT))
    except OSError as error:
        pytest.skip(f"this computer reserves no huge pages: {error}")
    try:
        if int(reserved.read_text()) < before + HUGE_COUNT:
            pytest.skip("this computer has no room for huge pages")
        yield
    finally:
        reserved.write_text(str(before))


@pytest.mark.usefixtures("huge_pages")
def test_machine_on_huge_pages_boots_and_takes_them(task_host: TaskHost, guest: GuestImage) -> None:
    def free() -> int:
        pages = capabilities_of(task_host.connection, task_host.settings).huge_pages
        return next(one.free for one in pages if one.size_bytes == HUGE_BYTES)

    before = free()
    assert before >= HUGE_COUNT
    with running(task_host, spec_of(guest, "huge-1", memory_mib=192, huge_page_bytes=HUGE_BYTES)):
        assert before - free() == 192 * MIB // HUGE_BYTES
        with pytest.raises(libvirt.libvirtError, match="memory"):
            Machine(task_host, spec_of(guest, "huge-2", memory_mib=192, huge_page_bytes=HUGE_BYTES))
    assert eventually(lambda: free() == before)


def test_host_says_why_it_emulates_and_what_it_can_do(task_host: TaskHost) -> None:
    have = task_host.capabilities

    assert (have.accelerator, have.accelerator_reason) == ("tcg", "libvirt offers no KVM")
    assert {"cpu_quota", "uefi", "tpm", "snapshot", "cloud_init"} <= set(have.features)
    assert "hot_unplug_vcpu" not in have.features
    assert have.cpus == have.cpu_sockets * have.cpu_cores_per_socket * have.cpu_threads_per_core
    assert have.numa_nodes[0].cpus == have.cpus
    assert "q35" in have.emulated_machines
    assert "libvirt 9" in have.hypervisor_version


def test_start_prepared_twice_makes_everything_once(task_host: TaskHost, guest: GuestImage) -> None:
    spec = spec_of(
        guest,
        "twice",
        disks=(DiskSpec(name="vda", size_bytes=16 * MIB),),
        cloud_init=CloudInit(user_data="x"),
    )
    first, second = (task_host.prepare("0b0e7a52-96f1-4d6a-8f6c-00000000abcd", spec) for _ in range(2))

    assert isinstance(first, PreparedStart)
    assert first == second
    assert (task_host.lab_host.root / first.xml.seed_path.lstrip("/")).stat().st_mode & 0o077 == 0
    volume = task_host.connection.storageVolLookupByPath(first.spec.hardware.disks[0].source)
    assert isinstance(volume, libvirt.virStorageVol)

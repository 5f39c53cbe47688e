"""Live migration between hosts whose storage is their own: the disks go along."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from hypervisor_backends.protocol import CallSucceeded, DestroyDomain
from olvm.lab.guest import GuestImage
from olvm.lab.hosts import Lab
from olvm.model.hardware import DiskSpec, Hardware
from tests.libvirt.lab_bench import InGuest, LabBench, migrate, wait_until_calm
from tests.unit.hypervisor_backends.bench import RealClock, check_each_life_ends_once

MIB = 1024 * 1024
OWN = "/var/lib/libvirt/images"  # each laboratory host has its own


def with_disk(hardware: Hardware) -> Hardware:
    return msgspec.structs.replace(hardware, disks=(DiskSpec(name="vda", size_bytes=24 * MIB),))


@pytest.fixture
def benches(lab: Lab, guest: GuestImage) -> Iterator[tuple[LabBench, LabBench]]:
    clock = RealClock()
    made = [LabBench(lab, lab.host(name), guest, clock, pool_directory=OWN) for name in ("h1", "h2")]
    clock.is_quiet = lambda: all(one.is_quiet() for one in made)
    for one in made:
        one.willing_guest, one.dress_more = True, with_disk
    yield made[0], made[1]
    for one in made:
        check_each_life_ends_once(one.events)
        one.backend.close()
    for one in made:
        one.remove_all()


def volumes(bench: LabBench) -> list[str]:
    return sorted(path.name for path in (bench.host.root / OWN.lstrip("/")).iterdir())


def digest(bench: LabBench) -> str:
    return InGuest(bench).run("/bin/sh", "-c", "head -c 8388608 /dev/vda | sha256sum").split()[0]


@pytest.mark.parametrize("managed", [False, True], ids=["peer to peer", "managed"])
def test_disks_that_are_not_shared_are_copied_with_the_machine(
    benches: tuple[LabBench, LabBench], managed: bool
) -> None:
    source, target = benches
    source.start()
    wait_until_calm(source)
    # Another pattern each time: the target's file of the time before is there still.
    pattern = f"yes managed is {managed} | head -c 8388608"
    InGuest(source).run("/bin/sh", "-c", f"{pattern} | dd of=/dev/vda bs=64k; sync")
    boot_id, before = InGuest(source).boot_id(), digest(source)

    result = migrate(source, target, copy_storage=True, managed=managed)

    assert isinstance(result, CallSucceeded), result
    InGuest(target).wait_for_agent()
    assert InGuest(target).boot_id() == boot_id
    InGuest(target).run("/bin/sh", "-c", "echo 3 > /proc/sys/vm/drop_caches")
    assert digest(target) == before
    assert volumes(target) == volumes(source)  # the source's stay: nobody deletes a disk unasked
    target.succeed(DestroyDomain(vm_id="v1"))

"""A cloud-init seed holds passwords: where it stands while its machine lives on real hosts, and that it ends then."""

from __future__ import annotations

from collections.abc import Iterator

import libvirt
import msgspec
import pytest

from hypervisor_backends.domain_metadata import domain_uuid, metadata_of
from hypervisor_backends.protocol import CallSucceeded, DestroyDomain, DomainSpec, SuspendDomain
from olvm.lab.guest import GuestImage
from olvm.lab.hosts import Lab
from olvm.model.hardware import CloudInit
from tests.libvirt.lab_bench import LabBench, migrate
from tests.unit.hypervisor_backends.bench import RealClock, restore_of

SECRET = "hunter2-in-the-seed"


class SeededBench(LabBench):
    def _dress(self, spec: DomainSpec) -> DomainSpec:
        dressed = super()._dress(spec)
        seed = CloudInit(user_data=f"#cloud-config\npassword: {SECRET}\n")
        hardware = msgspec.structs.replace(dressed.hardware, cloud_init=seed)
        return msgspec.structs.replace(dressed, hardware=hardware)

    def seeds(self) -> list[str]:
        """In the directory that both hosts share."""
        return [path.name for path in (self.lab.shared / "seeds").glob("*-seed-*")]

    def has_seed(self) -> bool:
        """What ends on a host is cleared away a moment after its end was told."""
        self.clock.advance(1)
        return bool(self.seeds())


@pytest.fixture
def benches(lab: Lab, guest: GuestImage) -> Iterator[tuple[SeededBench, SeededBench]]:
    clock = RealClock()
    made = (SeededBench(lab, lab.host("h1"), guest, clock), SeededBench(lab, lab.host("h2"), guest, clock))
    clock.is_quiet = lambda: all(one.is_quiet() for one in made)
    yield made
    for one in made:
        one.backend.close()
        one.remove_all()


def test_seed_is_in_no_xml_of_its_machine_and_all_else_is_known_from_it(
    benches: tuple[SeededBench, SeededBench],
) -> None:
    bench, _ = benches
    bench.start()
    with bench.connection() as connection:
        domain = connection.lookupByUUIDString(domain_uuid("v1"))
        xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE)
    assert SECRET not in xml
    assert bench.seeds()[0] in xml
    metadata = metadata_of(xml)
    assert metadata is not None
    assert metadata.spec.hardware.nics[0].name == "nic0"
    bench.succeed(DestroyDomain(vm_id="v1"))
    assert not bench.has_seed()


def test_seed_moves_with_its_machine_and_ends_with_it(benches: tuple[SeededBench, SeededBench]) -> None:
    here, there = benches
    here.start()
    result = migrate(here, there)
    assert isinstance(result, CallSucceeded), result
    assert there.has_seed()
    there.succeed(DestroyDomain(vm_id="v1"))
    assert not there.has_seed()


def test_seed_waits_with_saved_memory_and_the_host_that_saved_it_clears_up_when_it_comes_back(
    benches: tuple[SeededBench, SeededBench],
) -> None:
    here, there = benches
    here.start()
    here.succeed(SuspendDomain(vm_id="v1"))
    assert here.has_seed()
    there.succeed(restore_of("v1", 2))
    there.succeed(DestroyDomain(vm_id="v1"))
    here.reopen()
    assert not here.has_seed()


def test_seed_of_a_machine_that_ended_while_its_agent_was_away_is_swept(
    benches: tuple[SeededBench, SeededBench],
) -> None:
    bench, _ = benches
    bench.start()
    bench.backend.close()
    with bench.connection() as connection:
        domain = connection.lookupByUUIDString(domain_uuid("v1"))
        domain.destroy()
        domain.undefine()
    assert bench.seeds()
    bench.reopen()
    assert not bench.has_seed()

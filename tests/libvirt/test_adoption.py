"""What an agent that lost its journal knows of a machine on a real host is enough to start it again as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hypervisor_backends.protocol import AttachNic, DestroyDomain, DomainSpec, StartDomain
from olvm.lab.guest import GuestImage
from olvm.lab.hosts import Lab
from olvm.model.hardware import Hardware, NicSpec
from tests.libvirt.lab_bench import LabBench, on_one_host


@pytest.fixture
def bench(lab: Lab, guest: GuestImage) -> Iterator[LabBench]:
    with on_one_host(lab, guest) as made:
        yield made


def cards(bench: LabBench) -> list[str]:
    state = bench.state()
    return [] if state is None or state.hardware is None else [card.name for card in state.hardware.nics]


def test_machine_with_a_plugged_card_is_found_with_it_and_starts_again_as_it_was(bench: LabBench) -> None:
    bench.start()
    bench.succeed(AttachNic(vm_id="v1", nic=NicSpec(name="nic1", mac="52:54:00:aa:bb:cc")))
    assert bench.clock.run_until(lambda: cards(bench) == ["nic0", "nic1"], 20), cards(bench)

    bench.reopen()
    found = bench.state()
    assert found is not None
    assert isinstance(found.hardware, Hardware)
    assert cards(bench) == ["nic0", "nic1"]

    bench.succeed(DestroyDomain(vm_id="v1"))
    bench.dress = lambda spec: spec
    spec = DomainSpec(
        name=found.name, vcpus=found.vcpus, memory_bytes=found.memory_bytes, hardware=found.hardware
    )
    bench.succeed(StartDomain(vm_id="v1", epoch=2, spec=spec))
    again = bench.state()
    assert again is not None
    assert (again.hardware, again.memory_bytes) == (found.hardware, found.memory_bytes)
    with bench.connection() as connection:
        assert "52:54:00:aa:bb:cc" in connection.lookupByName(found.name).XMLDesc(0)

"""Files of cloud-init seeds: who needs one, who takes it away, and what two hosts do that share a directory."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

libvirt = pytest.importorskip("libvirt", reason="libvirt-python is not installed (`make apt-libvirt`)")
pytest.importorskip("pycdlib", reason="pycdlib is not installed; pip install 'olvm[libvirt]'")

from hypervisor_backends.domain_metadata import domain_uuid  # noqa: E402
from hypervisor_backends.libvirt_lifecycle import define, plain_xml, saved_path  # noqa: E402
from hypervisor_backends.libvirt_seeds import forget_with_seed, sweep_seeds, write_seed  # noqa: E402
from hypervisor_backends.libvirt_settings import LibvirtSettings  # noqa: E402
from hypervisor_backends.protocol import DomainSpec  # noqa: E402
from olvm.model.hardware import CloudInit, Hardware  # noqa: E402
from tests.unit.hypervisor_backends.bench import spec_of  # noqa: E402
from tests.unit.hypervisor_backends.libvirt_bench import URI, clear_driver  # noqa: E402


class Place:
    """A directory that hosts share, and libvirt's test driver."""

    def __init__(self, directory: Path, connection: libvirt.virConnect) -> None:
        self.seeds = directory / "seeds"
        self.connection = connection
        (directory / "saved").mkdir()
        self.settings = LibvirtSettings(
            seed_directory=str(self.seeds), saved_memory_directory=str(directory / "saved")
        )

    def write(self, vm_id: str = "v1", host: str = "h1", text: str = "#cloud-config") -> str:
        return write_seed(vm_id, seeded(vm_id, text), host, self.settings)

    def forget(self, vm_id: str = "v1", host: str = "h1") -> None:
        forget_with_seed(self.connection, domain_uuid(vm_id), host, self.settings)

    def sweep(self, *needed: str, host: str = "h1") -> None:
        sweep_seeds({domain_uuid(vm_id) for vm_id in needed}, host, self.settings)

    def save(self, vm_id: str = "v1") -> Path:
        path = Path(saved_path(self.settings, domain_uuid(vm_id)))
        path.write_bytes(b"memory")
        return path

    def files(self) -> list[str]:
        return sorted(str(path) for path in self.seeds.rglob("*") if path.is_file())

    def images(self) -> list[str]:
        return sorted(str(path) for path in self.seeds.glob("*.iso*"))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    clear_driver()
    connection = libvirt.open(URI)
    yield Place(tmp_path, connection)
    connection.close()


def seeded(vm_id: str, text: str) -> DomainSpec:
    return msgspec.structs.replace(spec_of(vm_id), hardware=Hardware(cloud_init=CloudInit(user_data=text)))


def test_seed_is_for_its_owner_alone_and_ends_with_its_machine(place: Place) -> None:
    path = place.write()
    assert place.images() == [path]
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
    other = place.write("v2")
    place.forget("v1")
    assert place.images() == [other]
    place.forget("v2")
    assert place.files() == []


def test_machine_without_a_seed_has_no_file(place: Place) -> None:
    assert write_seed("v1", spec_of("v1"), "h1", place.settings) == ""
    place.forget("v1")
    assert place.files() == []


def test_seed_that_was_changed_leaves_no_earlier_one_behind(place: Place) -> None:
    assert place.write(text="one") != place.write(text="two")
    place.forget()
    assert place.files() == []


def test_source_leaves_the_seed_to_the_target_of_a_shared_directory(place: Place) -> None:
    path = place.write(host="h1")
    assert place.write(host="h2") == path
    place.forget(host="h1")
    assert place.images() == [path]
    place.forget(host="h2")
    assert place.files() == []


def test_seed_of_a_machine_whose_memory_is_saved_stays_until_it_has_ended(place: Place) -> None:
    path = place.write()
    saved = place.save()
    place.forget()
    place.sweep()
    assert place.images() == [path]
    saved.unlink()
    place.forget()
    assert place.files() == []


def test_seed_stays_while_another_life_of_its_machine_runs(place: Place) -> None:
    path = place.write()
    domain = define(place.connection, domain_uuid("v1"), plain_xml("v1", 2, spec_of("v1"), 1))
    domain.create()
    place.forget()
    assert place.images() == [path]
    domain.destroy()
    place.forget()
    assert place.files() == []


def test_sweep_takes_away_what_nobody_here_needs_and_no_other_host(place: Place) -> None:
    needed, elsewhere = place.write("needed"), place.write("elsewhere", host="h2")
    place.write("ended")
    half = Path(place.write("half", host="h3"))
    half.rename(half.with_name(half.name + ".new"))  # its writer was killed
    (place.seeds / "claims" / "h3" / half.name).unlink()
    foreign = place.seeds / "notes-seed-1.iso"
    foreign.touch()
    place.sweep("needed")
    assert place.images() == sorted([needed, elsewhere, str(foreign)])


def test_sweep_without_a_directory_or_with_one_that_cannot_be_changed_is_no_hindrance(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.sweep()
    assert not caplog.records
    claim = place.seeds / "claims" / "h1" / Path(place.write()).name
    claim.unlink()
    claim.mkdir()  # nothing that could be unlinked
    place.sweep()
    assert "h1" in caplog.text


class Late:
    """A connection by which a domain is found that another call takes away at that moment."""

    def __init__(self, domain: libvirt.virDomain) -> None:
        self._domain = domain

    def lookupByUUIDString(self, _uuid: str) -> libvirt.virDomain:  # noqa: N802 - libvirt's name
        self._domain.undefine()
        return self._domain


def test_seed_goes_also_when_another_call_has_taken_the_domain_away_first(place: Place) -> None:
    place.write()
    domain = define(place.connection, domain_uuid("v1"), plain_xml("v1", 1, spec_of("v1"), 1))
    forget_with_seed(Late(domain), domain_uuid("v1"), "h1", place.settings)
    assert place.files() == []

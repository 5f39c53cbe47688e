"""The libvirt backend over libvirt's test driver: what others do to its machines, what it finds when it comes back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

libvirt = pytest.importorskip("libvirt", reason="libvirt-python is not installed (`make apt-libvirt`)")

from hypervisor_backends import libvirt_backend, libvirt_host, libvirt_session  # noqa: E402
from hypervisor_backends.domain_metadata import domain_uuid  # noqa: E402
from hypervisor_backends.libvirt_backend import LibvirtHypervisor  # noqa: E402
from hypervisor_backends.libvirt_measuring import Measured, measured  # noqa: E402
from hypervisor_backends.libvirt_settings import LibvirtSettings  # noqa: E402
from hypervisor_backends.protocol import (  # noqa: E402
    BulkStatistics,
    CallFailed,
    DestroyDomain,
    ExitReason,
    MigrateDomain,
    PauseDomain,
    SetVcpus,
    SuspendDomain,
)
from olvm.model.errors import OlvmError, OperationFailed  # noqa: E402
from olvm.model.hardware import CloudInit, Hardware, NicSpec  # noqa: E402
from tests.unit.hypervisor_backends.bench import (  # noqa: E402
    Bench,
    RealClock,
    migrate_of,
    prepare_of,
    restore_of,
    start_of,
)
from tests.unit.hypervisor_backends.libvirt_bench import (  # noqa: E402
    CPUS,
    MEMORY_BYTES,
    MIB,
    URI,
    clear_driver,
    driver_bench,
)


@pytest.fixture
def driver() -> Iterator[libvirt.virConnect]:
    """Whoever else uses this libvirt."""
    clear_driver()
    connection = libvirt.open(URI)
    yield connection
    connection.close()


@pytest.fixture
def bench(driver: libvirt.virConnect) -> Iterator[Bench]:
    made = driver_bench(clear=False)
    yield made
    made.backend.close()


class RealBench(Bench):
    """The same driver with the threads and events that a real hypervisor has."""

    def __init__(self, saved: Path) -> None:
        self.clock = RealClock()
        settings = LibvirtSettings(uri=URI, guest_wait_timeout_s=0.05, saved_memory_directory=str(saved))
        opened: list[LibvirtHypervisor | OlvmError] = []
        LibvirtHypervisor.open("h1", settings, self.clock.post, self.clock.now_ns, opened.append)
        assert self.clock.run_until(lambda: opened, 20)
        assert isinstance(opened[0], LibvirtHypervisor), opened
        super().__init__(opened[0], self.clock, cpus=CPUS, memory_bytes=MEMORY_BYTES, domain_bytes=64 * MIB)

    def wait_for_event(self, kind: str) -> None:
        assert self.clock.run_until(lambda: kind in self.kinds(), 20), self.events


@pytest.fixture
def real(driver: libvirt.virConnect, tmp_path: Path) -> Iterator[RealBench]:
    made = RealBench(tmp_path)
    yield made
    made.backend.close()


def domain_of(driver: libvirt.virConnect, vm_id: str = "v1") -> libvirt.virDomain:
    return driver.lookupByUUIDString(domain_uuid(vm_id))


def test_backend_leaves_domains_of_others_alone(bench: Bench, driver: libvirt.virConnect) -> None:
    assert bench.backend.domains() == []
    assert driver.lookupByName("test").isActive()


def test_start_under_the_name_of_a_foreign_domain_is_refused_and_leaves_no_definition(
    bench: Bench, driver: libvirt.virConnect
) -> None:
    request = start_of()
    request = msgspec.structs.replace(request, spec=msgspec.structs.replace(request.spec, name="test"))

    assert bench.refuse(request).code == "duplicate_domain"
    assert bench.backend.domains() == []
    assert [domain.name() for domain in driver.listAllDomains(0)] == ["test"]


def test_ended_machine_leaves_no_definition(bench: Bench, driver: libvirt.virConnect) -> None:
    bench.start()
    assert domain_of(driver).isPersistent()
    bench.succeed(DestroyDomain(vm_id="v1"))

    assert [domain.name() for domain in driver.listAllDomains(0)] == ["test"]


def test_machine_destroyed_by_somebody_else_is_told_as_stopped(
    real: RealBench, driver: libvirt.virConnect
) -> None:
    real.start()
    domain_of(driver).destroy()
    real.wait_for_event("stopped")

    assert real.events[-1].exit_reason == ExitReason.ADMIN_SHUTDOWN
    assert real.backend.domains() == []


def after_each_survey(monkeypatch: pytest.MonkeyPatch, change: Callable[[], None]) -> None:
    """Each survey's answer waits until `change` was made and libvirt has told of it: the answer is out of date."""
    survey, tell = libvirt_session.survey, libvirt_session.Session._tell
    told = threading.Event()

    def tell_and_note(session: libvirt_session.Session, event: libvirt_session.LibvirtEvent) -> None:
        tell(session, event)
        told.set()

    def survey_and_change(connection: libvirt.virConnect, root: str) -> list[libvirt_session.Found]:
        found = survey(connection, root)
        change()
        assert told.wait(20)
        return found

    monkeypatch.setattr(libvirt_session.Session, "_tell", tell_and_note)
    monkeypatch.setattr(libvirt_session, "survey", survey_and_change)


def test_end_that_is_told_between_the_survey_of_a_reconnect_and_its_answer_is_not_lost(
    real: RealBench, driver: libvirt.virConnect, monkeypatch: pytest.MonkeyPatch
) -> None:
    real.start()
    after_each_survey(monkeypatch, domain_of(driver).destroy)
    real.backend._session._on_closed(real.backend._host.link)  # type: ignore[attr-defined]
    real.wait_for_event("stopped")

    assert real.events[-1].exit_reason == ExitReason.ADMIN_SHUTDOWN
    assert real.backend.domains() == []


def test_end_of_a_machine_that_is_just_being_adopted_is_not_lost(
    real: RealBench, driver: libvirt.virConnect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real.start()
    real.backend.close()
    after_each_survey(monkeypatch, domain_of(driver).destroy)
    second = RealBench(tmp_path)
    try:
        second.wait_for_event("stopped")
        assert second.backend.domains() == []
    finally:
        second.backend.close()


def test_machine_starts_when_its_unprepared_arrival_has_been_ended(
    real: RealBench, driver: libvirt.virConnect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ends the arrival takes a definition of that UUID away: the start's, were it there already."""
    ending, go_on = threading.Event(), threading.Event()

    def end_late(_connection: object, _uuid: str) -> bool:
        ending.set()
        return go_on.wait(30)

    monkeypatch.setattr(libvirt_session, "end_unprepared", end_late)
    arrival = libvirt_session.LibvirtEvent(
        name="lifecycle",
        uuid=domain_uuid("v1"),
        event=libvirt.VIR_DOMAIN_EVENT_STARTED,
        detail=libvirt.VIR_DOMAIN_EVENT_STARTED_MIGRATED,
    )
    real.backend._on_event(arrival)  # type: ignore[attr-defined]
    assert ending.wait(20)
    answers = real.call(start_of("v1"))

    assert not real.clock.run_until(lambda: bool(answers), 0.5)
    assert [domain.name() for domain in driver.listAllDomains(0)] == ["test"]
    go_on.set()
    assert real.clock.run_until(lambda: bool(answers), 20)
    assert domain_of(driver).isActive()


def test_machine_paused_and_continued_by_somebody_else_is_told(
    real: RealBench, driver: libvirt.virConnect
) -> None:
    real.start()
    domain_of(driver).suspend()
    real.wait_for_event("paused")
    assert real.status() == "paused"
    domain_of(driver).resume()
    real.wait_for_event("continued")
    assert real.status() == "up"


def test_guest_that_powers_off_by_itself_is_told_so(real: RealBench, driver: libvirt.virConnect) -> None:
    real.start()
    domain_of(driver).shutdown()
    real.wait_for_event("shut_down")

    assert real.events[-1].exit_reason == ExitReason.USER_SHUTDOWN


def test_real_life_with_threads_and_events_is_told_once(real: RealBench) -> None:
    for epoch in range(1, 6):
        real.start(epoch=epoch)
        real.wait_for_event("guest_up")
        real.succeed(PauseDomain(vm_id="v1"))
        real.succeed(DestroyDomain(vm_id="v1"))
    real.clock.advance(1)

    assert real.kinds() == ["started", "guest_up", "paused", "stopped"] * 5


def test_backend_that_comes_back_knows_the_hardware_of_its_machines_but_their_seeds(bench: Bench) -> None:
    hardware = Hardware(nics=(NicSpec(name="nic0"),), vcpus_max=8, cloud_init=CloudInit(user_data="secret"))
    start = start_of()
    bench.succeed(msgspec.structs.replace(start, spec=msgspec.structs.replace(start.spec, hardware=hardware)))
    bench.backend.close()

    again = driver_bench(clear=False)

    (found,) = again.backend.domains()
    assert found.hardware == msgspec.structs.replace(hardware, cloud_init=None)
    again.succeed(DestroyDomain(vm_id="v1"))
    again.backend.close()


def test_backend_that_comes_back_finds_its_machines_with_epoch_status_and_size(
    bench: Bench, driver: libvirt.virConnect
) -> None:
    bench.start("v1", epoch=3)
    bench.start("v2", epoch=7)
    bench.succeed(PauseDomain(vm_id="v2"))
    before = bench.backend.domains()
    bench.backend.close()

    again = driver_bench(clear=False)

    found = again.backend.domains()
    assert [msgspec.structs.replace(one, started_ns=None) for one in found] == [
        msgspec.structs.replace(one, started_ns=None) for one in before
    ]
    assert again.events == []
    again.succeed(DestroyDomain(vm_id="v1"))
    assert again.kinds() == ["stopped"]
    again.backend.close()


def test_size_after_a_task_of_unknown_outcome_is_not_known_until_it_was_measured(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.start()
    broken = [libvirt.libvirtError("the connection broke")] * 2

    def measured_late(connection: libvirt.virConnect, uuid: str) -> Measured:
        if broken:
            raise broken.pop()
        return measured(connection, uuid)

    unknown = CallFailed(code="call_failed", message="the connection broke", outcome_known=False)
    monkeypatch.delitem(libvirt_backend.FEATURE_BY_REQUEST, SetVcpus)  # the test driver has it not
    monkeypatch.setattr(libvirt_backend, "run_domain_task", lambda *_: unknown)
    monkeypatch.setattr(libvirt_host, "measured", measured_late)
    assert bench.ask(SetVcpus(vm_id="v1", vcpus=3)) == unknown
    (state,) = bench.backend.domains()
    assert (state.vcpus, state.size_known) == (3, False)
    bench.scheduler.advance(libvirt_host.LOOK_AGAIN_S + 0.1)
    assert not bench.backend.domains()[0].size_known
    bench.scheduler.advance(libvirt_host.LOOK_AGAIN_S + 0.1)

    (state,) = bench.backend.domains()
    assert (state.vcpus, state.size_known) == (2, True)


def test_end_while_nobody_listened_is_told_with_its_reason(bench: Bench, driver: libvirt.virConnect) -> None:
    bench.start(epoch=3)
    bench.backend.close()
    domain_of(driver).shutdown()

    again = driver_bench(clear=False)

    assert [(event.vm_id, event.epoch, event.kind) for event in again.events] == [("v1", 3, "shut_down")]
    assert again.backend.domains() == []
    assert [domain.name() for domain in driver.listAllDomains(0)] == ["test"]
    again.start(epoch=4)
    again.backend.close()


def test_definition_that_somebody_edited_is_nobodys_machine(bench: Bench, driver: libvirt.virConnect) -> None:
    bench.start()
    bench.backend.close()
    domain_of(driver).setMetadata(
        libvirt.VIR_DOMAIN_METADATA_ELEMENT, None, "olvm", "urn:olvm:domain:1", libvirt.VIR_DOMAIN_AFFECT_LIVE
    )

    again = driver_bench(clear=False)

    assert again.backend.domains() == []
    assert domain_of(driver).isActive()
    again.backend.close()


def test_saved_memory_that_is_no_such_file_is_refused_and_leaves_nothing(
    bench: Bench, driver: libvirt.virConnect
) -> None:
    bench.start()
    bench.succeed(SuspendDomain(vm_id="v1"))
    (saved,) = Path(bench.backend._host.settings.saved_memory_directory).iterdir()  # type: ignore[attr-defined]
    saved.write_bytes(b"garbage")

    failure = bench.refuse(restore_of(epoch=2))

    assert failure.code == "start_failed"
    assert bench.backend.domains() == []
    assert [domain.name() for domain in driver.listAllDomains(0)] == ["test"]


def test_requests_of_what_the_driver_cannot_do_are_declared_and_refused(bench: Bench) -> None:
    bench.start()
    for request in (migrate_of("test:///default"), prepare_of("v2")):
        assert bench.refuse(request).code == "not_supported"
    assert isinstance(migrate_of("x"), MigrateDomain)


def test_end_that_libvirt_tells_nobody_is_found_by_a_sample(bench: Bench, driver: libvirt.virConnect) -> None:
    """The bench hears no events."""
    bench.start()
    bench.start("v2")
    domain_of(driver).destroy()
    bench.scheduler.advance(60)
    assert bench.kinds() == ["started", "guest_up"]
    bench.succeed(BulkStatistics())

    assert bench.kinds() == ["started", "guest_up", "stopped"]
    assert [state.vm_id for state in bench.backend.domains()] == ["v2"]


def test_statistics_before_the_first_sample_have_every_machine_that_runs(bench: Bench) -> None:
    bench.start()
    host, (domain,) = bench.backend.statistics()

    assert (host.host, host.vm_count) == ("h1", 1)
    assert (domain.vm_id, domain.epoch, domain.cpu_usage_ns) == ("v1", 1, 0)
    bench.ask(BulkStatistics())


def test_host_that_cannot_be_reached_is_told_when_it_is_opened() -> None:
    clock = RealClock()
    settings = LibvirtSettings(uri="qemu+unix:///system?socket=/nonexistent/libvirt-sock")
    opened: list[LibvirtHypervisor | OlvmError] = []
    made = LibvirtHypervisor.open("h1", settings, clock.post, clock.now_ns, opened.append)
    assert clock.run_until(lambda: opened, 20)

    (error,) = opened
    assert isinstance(error, OperationFailed)
    assert "cannot be reached" in error.message
    answers: list[object] = []
    made.submit(start_of(), answers.append)
    assert isinstance(answers[0], CallFailed)
    assert answers[0].code == "closed"

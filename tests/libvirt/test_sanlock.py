"""sanlock as libvirt's lock manager, on two hosts of a laboratory of their own: a lease is what their daemons wrote on
the shared storage, and not a lock of this computer's kernel.

How long the lease of a dead host lasts is measured and not tested, for it takes minutes: docs/leases.md.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import libvirt
import msgspec
import pytest

from hypervisor_backends.domain_metadata import domain_uuid
from hypervisor_backends.host_lock_check import lock_manager
from hypervisor_backends.host_view import HostView
from hypervisor_backends.libvirt_errors import failure_of
from hypervisor_backends.libvirt_settings import LibvirtSettings
from hypervisor_backends.protocol import (
    ArmWatchdog,
    CallFailed,
    CallSucceeded,
    ContinueDomain,
    DestroyDomain,
    DomainSpec,
    PauseDomain,
    StartDomain,
)
from olvm.lab.guest import GuestImage
from olvm.lab.hosts import Lab
from olvm.model.hardware import Hardware
from tests.libvirt.conftest import LAB_DIRECTORY, LAB_NAME, put_right
from tests.libvirt.lab_bench import LabBench, migrate
from tests.unit.hypervisor_backends.bench import RealClock, start_of

ARMED_S = 600.0
SEEN_WITHIN_S = 30.0


class Pair:
    """Two hosts whose watchdogs are armed, and one machine that either may be told to run."""

    def __init__(self, lab: Lab, guest: GuestImage) -> None:
        self.lab = lab
        self.clock = RealClock()
        self.first, self.second = (
            LabBench(lab, host, guest, self.clock, call_timeout_s=30.0) for host in lab.hosts.values()
        )
        self.clock.is_quiet = lambda: self.first.is_quiet() and self.second.is_quiet()
        for bench in (self.first, self.second):
            deadline_ns = self.clock.now_ns() + int(ARMED_S * 1e9)
            bench.backend.submit(ArmWatchdog(deadline_ns=deadline_ns), lambda _: None)
            bench.dress = bare
        self.epoch = 0

    def start(self, bench: LabBench) -> object:
        self.epoch += 1
        request = start_of("v1", self.epoch)
        spec = msgspec.structs.replace(request.spec, leased=True)
        return bench.ask(StartDomain(vm_id="v1", epoch=self.epoch, spec=spec))

    def begin(self, bench: LabBench) -> None:
        answer = self.start(bench)
        assert isinstance(answer, CallSucceeded), answer

    def refused(self, bench: LabBench) -> CallFailed:
        answer = self.start(bench)
        assert isinstance(answer, CallFailed), answer
        assert bench.state() is None, "a start that was refused leaves nothing"
        assert not bench.host.pids("qemu")
        return answer

    @property
    def directory(self) -> Path:
        return self.lab.shared / "leases" / "area-sanlock"

    def close(self) -> None:
        for bench in (self.first, self.second):
            bench.backend.close()
            bench.remove_all()


def bare(spec: DomainSpec) -> DomainSpec:
    """Without disks: QEMU locks an image itself, before the lock manager is asked."""
    return msgspec.structs.replace(spec, hardware=Hardware())


@pytest.fixture(scope="module")
def sanlock_lab() -> Iterator[Lab]:
    directory = LAB_DIRECTORY.with_name(f"{LAB_DIRECTORY.name}-s")
    made = Lab(f"s{LAB_NAME}"[:8], directory, lock_manager="sanlock")
    with made:
        yield made
    assert made.leftovers() == []


@pytest.fixture
def pair(sanlock_lab: Lab, guest: GuestImage) -> Iterator[Pair]:
    made = Pair(sanlock_lab, guest)
    yield made
    made.close()
    put_right(sanlock_lab)


def lockspace_of(bench: LabBench) -> str:
    number = bench.host.name.removeprefix("h")
    return f"area:{number}:{bench.settings.sanlock_lockspace_path}:0"


def leave_lockspace(bench: LabBench) -> None:
    bench.host.run(["sanlock", "client", "rem_lockspace", "-s", lockspace_of(bench)])


def join_lockspace(bench: LabBench) -> None:
    bench.host.run(["sanlock", "client", "add_lockspace", "-s", lockspace_of(bench), "-o", "1"])


# ---------------------------------------------------------------- who may begin


def test_second_start_is_refused_by_the_host_itself_until_the_machine_has_ended(pair: Pair) -> None:
    pair.begin(pair.first)
    refused = pair.refused(pair.second)
    assert (refused.code, refused.can_retry, refused.outcome_known) == ("lease_held", True, True)
    assert "sanlock keeps its lease for host h1" in refused.message
    assert len(pair.first.host.pids("qemu")) == 1

    assert isinstance(pair.first.ask(DestroyDomain(vm_id="v1")), CallSucceeded)
    pair.begin(pair.second)
    assert pair.refused(pair.first).code == "lease_held"


def test_start_that_asks_nobody_but_libvirt_is_refused_by_libvirt(pair: Pair) -> None:
    pair.begin(pair.first)
    bench = pair.second
    with bench.connection() as connection:
        spec = msgspec.structs.replace(bare(start_of("v1").spec), leased=True)
        domain = connection.defineXML(bench.hypervisor._xml.make(connection, "v1", 9, spec))
        with pytest.raises(libvirt.libvirtError) as refused:
            domain.create()
        domain.undefine()
    failure = failure_of(refused.value, "start")
    assert (failure.code, failure.can_retry) == ("lease_held", True)
    assert "Lease is held by another host" in failure.message


def test_lease_of_a_host_that_lost_its_power_is_refused_at_once_and_free_when_it_is_back(pair: Pair) -> None:
    """sanlock would let the start wait for more than a minute, and libvirt would list nothing meanwhile."""
    pair.begin(pair.first)
    pair.first.host.crash()
    began_s = time.monotonic()
    pair.clock.pass_s(4)  # for sanlock it is no longer one that lives
    refused = pair.refused(pair.second)
    assert (refused.code, "if that host stays silent" in refused.message) == ("lease_held", True)
    assert time.monotonic() - began_s < 30
    pair.first.host.boot()
    pair.first.host.wait_until_joined()
    # The other host's daemon must have seen it too: until then it is refused, and tried again as an engine does.
    assert pair.clock.run_until(lambda: isinstance(pair.start(pair.second), CallSucceeded), SEEN_WITHIN_S)


def test_machines_without_a_lease_start_beside_those_with_one(pair: Pair) -> None:
    bench = pair.first
    bench.dress = (
        bench._dress
    )  # with a disk, for which sanlock would want a lease if it were not told otherwise
    assert isinstance(bench.ask(start_of("v2", 1)), CallSucceeded)


def test_paused_machine_gives_its_lease_up_and_goes_on_only_when_it_is_free(pair: Pair) -> None:
    pair.begin(pair.first)
    assert isinstance(pair.first.ask(PauseDomain(vm_id="v1")), CallSucceeded)
    pair.begin(pair.second)
    refused = pair.first.ask(ContinueDomain(vm_id="v1"))
    assert isinstance(refused, CallFailed)
    assert refused.code == "lease_held"


# ---------------------------------------------------------------- migration


def test_migration_hands_the_lease_over(pair: Pair) -> None:
    pair.begin(pair.first)
    moved = migrate(pair.first, pair.second)
    assert isinstance(moved, CallSucceeded), moved
    pair.epoch += 1
    assert pair.refused(pair.first).code == "lease_held"
    assert isinstance(pair.second.ask(DestroyDomain(vm_id="v1")), CallSucceeded)
    pair.begin(pair.first)


# ---------------------------------------------------------------- what may be missing


def test_host_that_has_not_joined_the_lockspace_takes_no_machine_and_says_what_to_do(pair: Pair) -> None:
    leave_lockspace(pair.second)
    refused = pair.refused(pair.second)
    assert (refused.code, refused.can_retry) == ("start_failed", True)
    assert "has not joined: `olvm host check" in refused.message

    pair.begin(pair.first)
    failed = migrate(pair.first, pair.second)
    assert isinstance(failed, CallFailed)
    assert (failed.code, "has not joined" in failed.message) == ("migration_failed", True)
    state = pair.first.state()
    assert state is not None
    assert state.status == "up"

    join_lockspace(pair.second)
    pair.epoch += 1
    assert pair.refused(pair.second).code == "lease_held"


def test_start_without_a_lockspace_is_refused_with_what_to_do(pair: Pair) -> None:
    lockspace, aside = pair.directory / "lockspace", pair.directory / "aside"
    lockspace.rename(aside)
    try:
        refused = pair.refused(pair.first)
    finally:
        aside.rename(lockspace)
    assert (refused.code, refused.can_retry) == ("call_failed", True)
    assert str(lockspace) in refused.message


def test_lease_whose_file_is_damaged_is_not_taken_for_one_that_is_held(pair: Pair) -> None:
    lease = pair.directory / domain_uuid("v1")
    lease.write_bytes(b"x" * (1 << 20))
    try:
        refused = pair.refused(pair.first)
    finally:
        lease.unlink()
    assert (refused.code, "sanlock client log_dump" in refused.message) == ("start_failed", True)
    pair.begin(pair.first)


def test_check_of_a_host_of_the_laboratory_finds_nothing_missing(pair: Pair) -> None:
    bench = pair.first

    class OnHost(HostView, frozen=True, kw_only=True):
        def run(self, command: list[str], timeout_s: float = 15.0) -> tuple[int | None, str]:  # type: ignore[override]
            return 0, bench.host.run(command)

    settings: LibvirtSettings = bench.settings
    view = OnHost(root=bench.host.root)
    findings = lock_manager(view, "sanlock", settings.lease_directory, settings.lockspace)
    assert [finding.what for finding in findings if finding.state != "ok"] == ["sanlock_watchdog"]

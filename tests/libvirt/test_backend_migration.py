"""Live migration between two real hosts, with a guest that counts its seconds; and what breaks in the middle of one.

One guest wanders through all tests of this module, in their order: a boot costs more than all that happens here. That
its ticks have neither gap nor repetition, over all the journeys, is checked after each.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import libvirt
import pytest

from hypervisor_backends.domain_metadata import domain_uuid, with_epoch
from hypervisor_backends.protocol import (
    CallFailed,
    CallResult,
    CallSucceeded,
    CancelMigration,
    ChangeMigration,
    ContinueDomain,
    DestroyDomain,
    ExitReason,
    MigrationStatistics,
    PauseDomain,
    StartPostCopy,
    SuspendDomain,
)
from olvm.lab.guest import GuestImage
from olvm.lab.hosts import Lab
from tests.libvirt.lab_bench import INCOMING_TIMEOUT_S, InGuest, LabBench, migrate, wait_until_calm
from tests.unit.hypervisor_backends.bench import (
    RealClock,
    address_of,
    check_each_life_ends_once,
    migrate_of,
    start_of,
)

MIB = 1024 * 1024
SLOW = (
    8 * MIB
)  # bytes a second: 192 MiB take long enough for something to break. Only where the copy is given up.


class Journey:
    """Two hosts and a guest that is on one of them."""

    def __init__(self, first: LabBench, second: LabBench) -> None:
        self.benches = (first, second)
        self.clock = first.clock
        self.boot_id = ""
        self.tick_count = 0

    @property
    def source(self) -> LabBench:
        there = [one for one in self.benches if one.state() is not None]
        told = [
            (one.host.name, event.epoch, event.kind, event.message)
            for one in self.benches
            for event in one.events[-8:]
        ]
        assert len(there) == 1, f"the machine is on {len(there)} hosts; {told}"
        return there[0]

    @property
    def target(self) -> LabBench:
        return next(one for one in self.benches if one is not self.source)

    def uptime_s(self) -> int:
        """As the host that it is on tells it: since its power-on, wherever that was."""
        (domain,) = self.source.backend.statistics()[1]
        return domain.elapsed_time_s

    def check_guest(self) -> None:
        """It is the one that was booted, and no second of its is missing or counted twice."""
        inside = InGuest(self.source)
        inside.wait_for_agent()
        assert inside.boot_id() == self.boot_id
        ticks = inside.ticks()
        assert ticks == list(range(1, len(ticks) + 1))
        assert len(ticks) >= self.tick_count
        self.tick_count = len(ticks)

    def check_stayed(self, source: LabBench) -> None:
        assert self.source is source
        assert source.status() == "up"
        assert self.target.backend.domains() == []
        self.check_guest()


@pytest.fixture(scope="module")
def wandering(lab: Lab, guest: GuestImage) -> Iterator[Journey]:
    clock = RealClock()
    made = [LabBench(lab, lab.host(name), guest, clock, throttle_tcg=True) for name in ("h1", "h2")]
    clock.is_quiet = lambda: all(one.is_quiet() for one in made)
    for one in made:
        one.willing_guest = True
    made[0].start()
    wait_until_calm(made[0])
    journey = Journey(made[0], made[1])
    journey.boot_id = InGuest(made[0]).boot_id()
    yield journey
    for one in made:
        check_each_life_ends_once(one.events)
        one.backend.close()
    for one in made:
        one.remove_all()


@pytest.fixture
def journey(wandering: Journey) -> Iterator[Journey]:
    yield wandering
    for one in wandering.benches:
        one.wait_connected()


@pytest.mark.parametrize(
    "how", ["peer to peer, there", "managed, back", "managed, there", "peer to peer, back"]
)
def test_guest_migrates_in_both_directions_without_losing_a_tick(journey: Journey, how: str) -> None:
    source, target = journey.source, journey.target
    uptime_s = journey.uptime_s()
    result = migrate(source, target, managed=how.startswith("managed"))

    assert isinstance(result, CallSucceeded), result
    assert isinstance(result.value, MigrationStatistics)
    assert result.value.progress_percent == 100
    assert 0 < result.value.expected_downtime_ms < 2_000
    assert source.backend.domains() == []
    assert source.events[-1].exit_reason == ExitReason.MIGRATION_SUCCEEDED
    assert target.kinds()[-2:] == ["started", "guest_up"]
    journey.check_guest()
    assert journey.clock.run_until(lambda: journey.uptime_s() > uptime_s, 5), (uptime_s, journey.uptime_s())


def test_paused_guest_arrives_paused_and_goes_on_there(journey: Journey) -> None:
    source, target = journey.source, journey.target
    source.succeed(PauseDomain(vm_id="v1"))
    result = migrate(source, target)

    assert isinstance(result, CallSucceeded), result
    assert target.status() == "paused"
    target.succeed(ContinueDomain(vm_id="v1"))
    journey.check_guest()


def test_cancelled_migration_leaves_the_guest_where_it_was(journey: Journey) -> None:
    source, target = journey.source, journey.target

    def change_and_cancel() -> None:
        assert source.status() == "migrating_from"
        assert isinstance(source.ask(ChangeMigration(vm_id="v1", downtime_ms=400)), CallSucceeded)
        assert isinstance(source.ask(CancelMigration(vm_id="v1")), CallSucceeded)

    result = migrate(source, target, during=change_and_cancel, bandwidth_bytes_per_s=SLOW)

    assert isinstance(result, CallFailed)
    assert (result.code, result.outcome_known) == ("migration_cancelled", True)
    assert target.events[-1].exit_reason == ExitReason.MIGRATION_FAILED
    journey.check_stayed(source)


def test_post_copy_lets_the_target_run_before_memory_is_there(journey: Journey) -> None:
    source, target = journey.source, journey.target
    refused: list[object] = []

    def post_copy() -> None:
        journey.clock.pass_s(0.3)
        assert isinstance(source.ask(StartPostCopy(vm_id="v1")), CallSucceeded)
        refused.append(source.ask(CancelMigration(vm_id="v1")))

    result = migrate(source, target, during=post_copy, bandwidth_bytes_per_s=SLOW, post_copy=True)

    assert isinstance(result, CallSucceeded), result
    (cancel,) = refused
    assert isinstance(cancel, CallFailed)
    assert cancel.code == "wrong_state"
    assert [event.pause_code for event in source.events if event.kind == "paused"][-1] == "POSTCOPY"
    journey.check_guest()


def test_target_qemu_that_dies_in_the_middle_leaves_the_guest_at_its_source(journey: Journey) -> None:
    source, target = journey.source, journey.target

    def kill() -> None:
        os.kill(target.host.qemu_pid(domain_uuid("v1")), signal.SIGKILL)

    result = migrate(source, target, during=kill, bandwidth_bytes_per_s=SLOW)

    assert isinstance(result, CallFailed)
    assert (result.code, result.outcome_known) == ("migration_failed", True)
    journey.check_stayed(source)


def test_target_libvirtd_that_dies_in_the_middle_leaves_the_guest_at_its_source(journey: Journey) -> None:
    source, target = journey.source, journey.target
    result = migrate(source, target, during=target.host.kill_libvirtd, bandwidth_bytes_per_s=SLOW)

    assert isinstance(result, CallFailed)
    assert (result.code, result.outcome_known) == ("migration_failed", True)
    target.host.start_libvirtd()
    target.wait_connected()
    assert journey.clock.run_until(lambda: not target.backend.domains(), 10)
    assert target.host.pids("qemu") == []
    journey.check_stayed(source)


def test_source_libvirtd_that_dies_in_the_middle_is_asked_before_anything_is_said(journey: Journey) -> None:
    source, target = journey.source, journey.target
    result = migrate(source, target, during=source.host.kill_libvirtd, bandwidth_bytes_per_s=SLOW)

    assert isinstance(result, CallFailed)
    assert not result.outcome_known
    assert source.status() == "migrating_from"
    source.host.start_libvirtd()
    source.wait_connected()
    assert journey.clock.run_until(lambda: source.status() == "up", 10)
    assert journey.clock.run_until(lambda: not target.backend.domains(), 10)
    journey.check_stayed(source)


def test_source_that_has_sent_everything_waits_for_a_word_and_goes_on_when_it_is_told(
    journey: Journey,
) -> None:
    """The target's libvirtd stands still before it could let the machine run; then the source's is killed."""
    source, target = journey.source, journey.target
    (daemon,) = target.host.pids("libvirtd")

    def strand() -> None:
        os.kill(daemon, signal.SIGSTOP)
        with source.connection() as connection:
            domain = connection.lookupByUUIDString(domain_uuid("v1"))
            deadline_s = time.monotonic() + 30
            while domain.state()[0] != libvirt.VIR_DOMAIN_PAUSED:
                assert time.monotonic() < deadline_s, domain.state()
                time.sleep(0.01)
        time.sleep(1.0)  # until libvirtd has noted that all was sent: killed before, it lets the source go on
        source.host.kill_libvirtd()

    try:
        result = migrate(source, target, during=strand)
        assert isinstance(result, CallFailed)
        assert not result.outcome_known
        source.host.start_libvirtd()
        source.wait_connected()
        assert journey.clock.run_until(lambda: source.status() == "paused", 20)
        state = source.state()
        assert state is not None
        assert state.pause_code == "POSTMIGRATE"
        assert source.refuse(SuspendDomain(vm_id="v1")).code == "wrong_state"
    finally:  # by a kill: what waits to be read there would let the machine run
        target.host.kill_libvirtd()
        target.host.start_libvirtd()

    # The target has never run it, and never will: it may go on at its source.
    for pid in target.host.pids("qemu"):
        os.kill(pid, signal.SIGKILL)
    target.wait_connected()
    assert journey.clock.run_until(lambda: not target.backend.domains(), 20)
    assert isinstance(source.ask(ContinueDomain(vm_id="v1")), CallSucceeded)
    assert journey.clock.run_until(lambda: source.status() == "up", 20)
    journey.check_stayed(source)


def test_network_that_is_cut_in_the_middle_fails_the_migration_once_it_is_noticed(journey: Journey) -> None:
    source, target = journey.source, journey.target
    try:
        result = migrate(source, target, during=target.host.cut_network, bandwidth_bytes_per_s=SLOW)
    finally:
        target.host.mend_network()

    assert isinstance(result, CallFailed)
    assert (result.code, result.outcome_known) == ("migration_failed", True)
    assert journey.clock.run_until(lambda: not target.backend.domains(), 30)
    journey.check_stayed(source)


def test_backend_that_comes_back_in_the_middle_finds_the_machine_on_its_way(journey: Journey) -> None:
    source, target = journey.source, journey.target
    state = source.state()
    assert state is not None
    epoch = state.epoch + 50
    uri = address_of(target, epoch=epoch)
    source.call(migrate_of(uri, epoch=state.epoch, to_epoch=epoch, bandwidth_bytes_per_s=SLOW))
    journey.clock.run_until(lambda: source.host.pids("qemu") and target.host.pids("qemu"), 10)
    journey.clock.pass_s(0.5)
    target.reopen()

    found = target.state()
    assert found is not None
    assert (found.epoch, found.status) == (epoch, "migrating_to")
    source.ask(CancelMigration(vm_id="v1"))
    assert journey.clock.run_until(lambda: not target.backend.domains(), 20)
    assert journey.clock.run_until(lambda: source.status() == "up", 20)
    journey.check_stayed(source)


@contextmanager
def sent_by_libvirt_alone(source: LabBench, target: LabBench) -> Iterator[list[object]]:
    """Past our own check, as an agent of another make would, and slowly; how it ends is in the list when it has."""
    with source.connection() as connection:
        domain = connection.lookupByUUIDString(domain_uuid("v1"))
        domain.migrateSetMaxSpeed(4)
        answers: list[object] = []

        def go() -> None:
            flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER
            try:
                domain.migrateToURI3(target.host.migration_uri, {}, flags)
                answers.append("migrated")
            except libvirt.libvirtError as error:
                answers.append(error)

        thread = threading.Thread(target=go)
        thread.start()
        yield answers
        thread.join(60)
        domain.migrateSetMaxSpeed(8796093022207)


def test_target_that_nobody_prepared_ends_what_arrives(journey: Journey) -> None:
    source, target = journey.source, journey.target
    with sent_by_libvirt_alone(source, target) as answers:
        journey.clock.run_until(lambda: answers, 60)

    assert isinstance(answers[0], libvirt.libvirtError)
    journey.check_stayed(source)


def test_machine_that_is_on_no_book_is_ended_while_it_arrives(journey: Journey) -> None:
    """Nothing that libvirt tells of it is heard meanwhile: it ends because somebody has it destroyed."""
    source, target = journey.source, journey.target
    with target.connection() as there, sent_by_libvirt_alone(source, target) as answers:
        deadline_s = time.monotonic() + 20
        while not there.numOfDomains():
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        told = target.call(DestroyDomain(vm_id="v1"))

    assert isinstance(answers[0], libvirt.libvirtError)
    target.clock.wait_for(told)
    assert isinstance(told[0], CallFailed)
    assert told[0].code == "unknown_domain"
    journey.check_stayed(source)


def move_by_libvirt_alone(source: LabBench, target: LabBench, epoch: int) -> None:
    """Nobody of ours has the time to do anything until it has arrived: what they would be told waits."""
    with source.connection() as connection:
        domain = connection.lookupByUUIDString(domain_uuid("v1"))
        live = with_epoch(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE), epoch)
        flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER | libvirt.VIR_MIGRATE_PERSIST_DEST
        parameters = {libvirt.VIR_MIGRATE_PARAM_DEST_XML: live, libvirt.VIR_MIGRATE_PARAM_PERSIST_XML: live}
        domain.migrateToURI3(target.host.migration_uri, parameters, flags)


def check_moved(journey: Journey, source: LabBench, target: LabBench, epoch: int) -> None:
    assert journey.clock.run_until(lambda: target.status() == "up", 30), target.events[-3:]
    assert journey.clock.run_until(lambda: source.state() is None, 30)
    state = target.state()
    assert state is not None
    assert state.epoch == epoch
    assert target.host.pids("qemu") != []
    journey.check_guest()


def test_machine_that_runs_here_before_it_could_be_ended_is_told_of(journey: Journey) -> None:
    source, target = journey.source, journey.target
    told = len(target.kinds())
    move_by_libvirt_alone(source, target, epoch=700)

    check_moved(journey, source, target, epoch=700)
    assert target.kinds()[told:][:1] == ["started"]


def test_target_whose_time_is_over_asks_libvirt_before_it_gives_up(journey: Journey) -> None:
    source, target = journey.source, journey.target
    told = len(target.kinds())
    address_of(target, epoch=800)
    # Its word that nothing came waits to be heard, before that of the arrival.
    time.sleep(INCOMING_TIMEOUT_S + 0.5)
    move_by_libvirt_alone(source, target, epoch=800)

    check_moved(journey, source, target, epoch=800)
    assert target.kinds()[told:] == ["started", "guest_up"]


def test_target_to_which_nothing_came_gives_up_and_leaves_nothing(journey: Journey) -> None:
    source, target = journey.source, journey.target
    address_of(target, epoch=850)
    assert journey.clock.run_until(lambda: target.state() is None, 30)

    assert target.events[-1].exit_reason == ExitReason.ARRIVAL_GIVEN_UP
    assert target.events[-1].message == "nothing was heard from its source in time"
    target.clock.advance(1)
    with target.connection() as connection:
        assert connection.listAllDomains(0) == []
    journey.check_stayed(source)


def test_target_qemu_that_dies_after_post_copy_loses_the_machine_on_both_sides(journey: Journey) -> None:
    source, target = journey.source, journey.target

    def break_it() -> None:
        journey.clock.pass_s(0.3)
        source.ask(StartPostCopy(vm_id="v1"))
        assert journey.clock.run_until(lambda: source.status() == "paused", 5)
        os.kill(target.host.qemu_pid(domain_uuid("v1")), signal.SIGKILL)

    result = migrate(source, target, during=break_it, bandwidth_bytes_per_s=4 * MIB, post_copy=True)

    assert isinstance(result, CallFailed)
    assert journey.clock.run_until(lambda: not source.backend.domains() and not target.backend.domains(), 20)
    assert source.events[-1].exit_reason == ExitReason.POSTCOPY_MIGRATION_FAILED
    _restart_libvirtd_if_it_holds_the_job(source, source.ask(start_of(epoch=1000)))
    source.start(epoch=1001)
    journey.boot_id, journey.tick_count = InGuest(source).boot_id(), 0
    journey.check_guest()


def _restart_libvirtd_if_it_holds_the_job(source: LabBench, answer: CallResult) -> None:
    """libvirt 9.0 mostly holds the job of such a migration for ever; now and then it lets go. A start says which."""
    if isinstance(answer, CallSucceeded):
        source.succeed(DestroyDomain(vm_id="v1"))
        return
    assert (answer.code, answer.can_retry) == ("start_failed", True)
    assert "restart libvirtd there" in answer.message
    source.host.kill_libvirtd()
    assert source.clock.run_until(lambda: not source.hypervisor.is_connected, 10)
    source.host.start_libvirtd()
    source.wait_connected()

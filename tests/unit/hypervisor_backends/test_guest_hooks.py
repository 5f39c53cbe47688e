"""What a guest is told before and after it moves or rests, over real sockets; libvirt's test driver has its machine.

The driver cannot migrate: here a migration ends before libvirt is asked to move anything, which is where the guest's
part is. The whole way is in `tests/libvirt/test_guest_hooks.py`.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

libvirt = pytest.importorskip("libvirt", reason="libvirt-python is not installed (`make apt-libvirt`)")

from hypervisor_backends.domain_metadata import domain_uuid  # noqa: E402
from hypervisor_backends.libvirt_backend import LibvirtHypervisor  # noqa: E402
from hypervisor_backends.libvirt_channels import LibvirtGuests  # noqa: E402
from hypervisor_backends.libvirt_features import OF_MIGRATION  # noqa: E402
from hypervisor_backends.libvirt_host import LibvirtHost  # noqa: E402
from hypervisor_backends.libvirt_settings import LibvirtSettings  # noqa: E402
from hypervisor_backends.protocol import (  # noqa: E402
    CallFailed,
    CallGuest,
    CallResult,
    CallSucceeded,
    CancelMigration,
    ChangeMigration,
    DestroyDomain,
    ExitReason,
    GetMigrationStatistics,
    MigrationStatistics,
    PauseDomain,
    StartPostCopy,
    SuspendDomain,
)
from hypervisor_backends.real_time import Post  # noqa: E402
from tests.unit.hypervisor_backends.bench import (  # noqa: E402
    Bench,
    RealClock,
    migrate_of,
    prepare_of,
    restore_of,
)
from tests.unit.hypervisor_backends.guest_sockets import WITHIN_S, Guest  # noqa: E402
from tests.unit.hypervisor_backends.libvirt_bench import (  # noqa: E402
    CPUS,
    MEMORY_BYTES,
    MIB,
    URI,
    clear_driver,
)

FOR_EVER_S = 600.0  # longer than any test lasts


class GuestBench(Bench):
    """A host whose machine v1 has a channel, and who speaks behind it."""

    def __init__(self, directory: Path, hooks_timeout_s: float) -> None:
        self.clock = RealClock()
        self._directory = directory
        self._guests: list[Guest] = []
        settings = LibvirtSettings(
            uri=URI, saved_memory_directory=str(directory / "saved"), guest_hooks_timeout_s=hooks_timeout_s
        )
        backend = LibvirtHypervisor(
            "h1", settings, self.clock.post, self.clock.now_ns, guests_of=self._listen_to
        )
        self.until(lambda: backend.is_connected)
        have = self.host.capabilities
        features = (*have.features, *OF_MIGRATION)
        self.host.capabilities = msgspec.structs.replace(have, features=features)
        super().__init__(backend, self.clock, cpus=CPUS, memory_bytes=MEMORY_BYTES, domain_bytes=64 * MIB)

    def _listen_to(self, host: LibvirtHost, post: Post) -> LibvirtGuests:
        self.host, self.channels = host, LibvirtGuests(host, post)
        return self.channels

    def until(self, holds: Callable[[], object]) -> None:
        assert self.clock.run_until(holds, WITHIN_S), getattr(self, "events", [])

    def answer(self, answers: list[CallResult]) -> CallResult:
        self.until(lambda: answers)
        return answers[0]

    def guest(self, version: int | None = 3) -> Guest:
        """Behind the machine's channel, as libvirt tells of it; None: nobody speaks there."""
        self.until(lambda: self.state() and not self.backend.busy_count)  # type: ignore[attr-defined]
        one = Guest(self._directory, f"v1-{len(self._guests)}")
        self._guests.append(one)
        life = self.host.book.lives["v1"]
        life.channel = one.path
        self.channels.opened(life)
        one.accept()
        if version is not None:
            one.say("heartbeat", apiVersion=version)
            self.until(lambda: self.channels.speaks("v1"))
        return one

    def catch_up(self) -> None:
        """Until whatever was ordered of the guest's line is done: orders are taken in their order."""
        answers: list[CallResult] = []
        self.channels.call(CallGuest(vm_id="v1", message="echo"), answers.append)
        self.answer(answers)

    def heard(self, guest: Guest) -> tuple[object, object]:
        """What the guest is told of next, and whether as a failure."""
        line = guest.line
        assert line is not None
        while True:
            self.until(lambda: select.select([line], [], [], 0)[0])
            message = guest.hear_message()
            if message["__name__"] == "lifecycle-event":
                return message["type"], message.get("failure", False)

    def close(self) -> None:
        self.backend.close()
        for guest in self._guests:
            guest.close()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[float], GuestBench]]:
    made: list[GuestBench] = []
    clear_driver()

    def bench(hooks_timeout_s: float = FOR_EVER_S) -> GuestBench:
        made.append(GuestBench(tmp_path, hooks_timeout_s))
        made[-1].start()
        return made[-1]

    yield bench
    for one in made:
        one.close()


@pytest.fixture
def bench(make: Callable[..., GuestBench]) -> GuestBench:
    """Whose guests have for ever for their hooks: what goes on has not waited for a deadline."""
    return make()


def complete(guest: Guest, reply_id: int = 1) -> None:
    guest.say("completion", reply_id=reply_id)


# ---------------------------------------------------------------- a rest


def test_memory_is_saved_once_the_guest_has_run_its_hooks(bench: GuestBench) -> None:
    guest = bench.guest()
    answers = bench.call(SuspendDomain(vm_id="v1"))
    assert bench.heard(guest) == ("before_hibernation", False)
    bench.clock.pass_s(0.3)
    assert (answers, bench.status()) == ([], "saving_state")
    complete(guest)
    assert isinstance(bench.answer(answers), CallSucceeded)
    assert bench.events[-1].exit_reason == ExitReason.SAVE_STATE_SUCCEEDED


def test_guest_that_was_restored_is_told_when_it_says_its_version(bench: GuestBench) -> None:
    bench.succeed(SuspendDomain(vm_id="v1"))
    bench.succeed(restore_of("v1", 2))
    guest = bench.guest(version=0)  # as our agent begins on a new line
    bench.clock.pass_s(0.3)  # it is tried, and cannot be told yet
    guest.say("heartbeat", apiVersion=3)
    assert bench.heard(guest) == ("after_hibernation", False)


def test_guest_that_never_answers_delays_its_rest_by_the_bound_alone(
    make: Callable[[float], GuestBench],
) -> None:
    bench = make(0.3)
    guest = bench.guest()
    answers = bench.call(SuspendDomain(vm_id="v1"))
    assert bench.heard(guest) == ("before_hibernation", False)
    assert isinstance(bench.answer(answers), CallSucceeded)


@pytest.mark.parametrize("version", [None, 0, 2])
def test_guest_that_has_no_agent_or_an_old_one_delays_nothing(bench: GuestBench, version: int | None) -> None:
    bench.guest(version)
    assert isinstance(bench.answer(bench.call(SuspendDomain(vm_id="v1"))), CallSucceeded)


def test_guest_that_stands_still_is_not_waited_for(bench: GuestBench) -> None:
    bench.guest()
    bench.succeed(PauseDomain(vm_id="v1"))
    assert isinstance(bench.answer(bench.call(SuspendDomain(vm_id="v1"))), CallSucceeded)


def test_machine_that_ends_while_its_guest_prepares_was_not_saved(bench: GuestBench) -> None:
    guest = bench.guest()
    answers = bench.call(SuspendDomain(vm_id="v1"))
    assert bench.heard(guest) == ("before_hibernation", False)
    driver = libvirt.open(URI)
    driver.lookupByUUIDString(domain_uuid("v1")).destroy()
    driver.close()
    answer = bench.answer(answers)
    assert isinstance(answer, CallFailed)
    assert answer.code == "domain_ended"
    assert bench.events[-1].exit_reason == ExitReason.ADMIN_SHUTDOWN


def test_machine_that_is_destroyed_while_its_guest_prepares_ends(bench: GuestBench) -> None:
    guest = bench.guest()
    answers = bench.call(SuspendDomain(vm_id="v1"))
    assert bench.heard(guest) == ("before_hibernation", False)
    bench.succeed(DestroyDomain(vm_id="v1"))
    answer = bench.answer(answers)
    assert isinstance(answer, CallFailed)
    assert (bench.status(), bench.events[-1].exit_reason) == (None, ExitReason.ADMIN_SHUTDOWN)


def test_guest_whose_memory_could_not_be_saved_is_told_so(bench: GuestBench, tmp_path: Path) -> None:
    (tmp_path / "saved").write_text("in the way")
    guest = bench.guest()
    answers = bench.call(SuspendDomain(vm_id="v1"))
    assert bench.heard(guest) == ("before_hibernation", False)
    complete(guest)
    answer = bench.answer(answers)
    assert isinstance(answer, CallFailed)
    assert str(tmp_path / "saved") in answer.message
    assert bench.heard(guest) == ("after_hibernation", True)
    bench.until(lambda: bench.status() == "up")


# ---------------------------------------------------------------- a move


def test_migration_begins_once_the_guest_has_run_its_hooks_and_a_failed_one_is_told(
    bench: GuestBench,
) -> None:
    guest = bench.guest()
    answers = bench.call(migrate_of(URI))
    assert bench.heard(guest) == ("before_migration", False)
    bench.clock.pass_s(0.3)
    assert (answers, bench.status()) == ([], "migrating_from")
    complete(guest)
    answer = bench.answer(answers)
    assert isinstance(answer, CallFailed)
    assert answer.code == "migration_failed", answer
    assert "the target" in answer.message
    assert bench.heard(guest) == ("after_migration", True)
    assert bench.status() == "up"


def test_migration_of_a_guest_that_never_answers_begins_after_the_bound(
    make: Callable[[float], GuestBench],
) -> None:
    bench = make(0.3)
    guest = bench.guest()
    answers = bench.call(migrate_of(URI))
    assert bench.heard(guest) == ("before_migration", False)
    answer = bench.answer(answers)
    assert isinstance(answer, CallFailed)
    assert answer.code == "migration_failed"


def test_migration_is_cancelled_while_the_guest_prepares(bench: GuestBench) -> None:
    guest = bench.guest()
    answers = bench.call(migrate_of(URI))
    assert bench.heard(guest) == ("before_migration", False)
    bench.succeed(CancelMigration(vm_id="v1"))
    answer = bench.answer(answers)
    assert isinstance(answer, CallFailed)
    assert answer.code == "migration_cancelled"
    assert bench.heard(guest) == ("after_migration", True)
    complete(guest)  # of its first hooks, late: nothing begins by that
    bench.clock.pass_s(0.3)
    assert (len(answers), bench.status()) == (1, "up")


def test_migration_whose_guest_prepares_is_answered_for_and_takes_changes(bench: GuestBench) -> None:
    guest = bench.guest()
    bench.call(migrate_of(URI))
    assert bench.heard(guest) == ("before_migration", False)
    bench.succeed(ChangeMigration(vm_id="v1", downtime_ms=700))
    value = bench.succeed(GetMigrationStatistics(vm_id="v1")).value
    assert isinstance(value, MigrationStatistics)
    assert (value.progress_percent, value.data_processed_bytes, value.downtime_ms) == (0, 0, 700)
    assert bench.refuse(StartPostCopy(vm_id="v1")).code == "wrong_state"
    assert bench.refuse(migrate_of(URI)).code == "wrong_state"


def test_guest_that_arrived_is_told_when_it_says_its_version(
    make: Callable[[float], GuestBench],
) -> None:
    bench = make(FOR_EVER_S)
    bench.succeed(DestroyDomain(vm_id="v1"))
    bench.succeed(prepare_of())
    driver = libvirt.open(URI)
    driver.lookupByUUIDString(domain_uuid("v1")).create()  # as if its source had sent it
    driver.close()
    bench.until(lambda: bench.status() == "up")
    guest = bench.guest(version=0)
    guest.say("heartbeat", apiVersion=3)
    assert bench.heard(guest) == ("after_migration", False)


def test_guest_that_booted_anew_since_is_told_nothing_of_its_earlier_life(bench: GuestBench) -> None:
    bench.succeed(SuspendDomain(vm_id="v1"))
    bench.succeed(restore_of("v1", 2))
    guest = bench.guest(version=None)
    bench.host.book.rebooted(bench.host.book.lives["v1"])
    bench.catch_up()
    guest.say("heartbeat", apiVersion=3)
    bench.until(lambda: (facts := bench.channels.facts("v1")) and "ovirt 3" in facts.agents)
    bench.catch_up()
    bench.call(SuspendDomain(vm_id="v1"))
    assert bench.heard(guest) == ("before_hibernation", False)

"""What follows from what is seen of a machine: statuses, events, and one end for each life."""

from __future__ import annotations

from collections.abc import Callable

import pytest

libvirt = pytest.importorskip("libvirt", reason="libvirt-python is not installed (`make apt-libvirt`)")

from hypervisor_backends.libvirt_book import REBOOT_ECHO_NS, Book, Life  # noqa: E402
from hypervisor_backends.libvirt_domain import Seen, pause_code_of_word  # noqa: E402
from hypervisor_backends.libvirt_outgoing import Outgoing  # noqa: E402
from hypervisor_backends.protocol import DomainEvent, ExitReason  # noqa: E402
from hypervisor_backends.simulated_outbox import Outbox  # noqa: E402
from tests.unit.hypervisor_backends.bench import migrate_of, spec_of  # noqa: E402

RUNS = Seen(uuid="u", execution="runs", number=7)
PAUSED = Seen(uuid="u", execution="paused", number=7, cause="user")


class World:
    def __init__(self) -> None:
        self.now_ns = 10**18
        self.outbox = Outbox()
        self.events: list[DomainEvent] = []
        self.outbox.listener = self.events.append
        self.book = Book("h1", lambda: self.now_ns, self.outbox)

    def running(self) -> Life:
        life = Life("v1", "u", 1, spec_of("v1"), "wait_for_launch")
        self.book.add(life)
        self.book.started(life, 7, 0, "booting")
        self.book.guest_up(life)
        return life

    def arriving(self) -> Life:
        life = Life("v1", "u", 2, spec_of("v1"), "migrating_to")
        life.incoming = True
        self.book.add(life)
        return life

    def told(self) -> list[str]:
        self.outbox.drain()
        return [event.kind for event in self.events]

    def last(self) -> DomainEvent:
        self.outbox.drain()
        return self.events[-1]


@pytest.fixture
def world() -> World:
    return World()


def off(reason: str) -> Seen:
    return Seen(uuid="u", execution="off", off_reason=getattr(libvirt, f"VIR_DOMAIN_SHUTOFF_{reason}"))


@pytest.mark.parametrize(
    ("reason", "kind", "exit_reason"),
    [
        ("SHUTDOWN", "shut_down", ExitReason.USER_SHUTDOWN),
        ("DESTROYED", "stopped", ExitReason.ADMIN_SHUTDOWN),
        ("CRASHED", "crashed", ExitReason.LOST_QEMU),
        ("MIGRATED", "stopped", ExitReason.MIGRATION_SUCCEEDED),
        ("SAVED", "stopped", ExitReason.SAVE_STATE_SUCCEEDED),
        ("FAILED", "crashed", ExitReason.LOST_QEMU),
        ("DAEMON", "crashed", ExitReason.LOST_QEMU),
        ("UNKNOWN", "crashed", ExitReason.LOST_QEMU),
    ],
)
def test_book_machine_seen_off_ends_once_for_libvirts_reason(
    world: World, reason: str, kind: str, exit_reason: ExitReason
) -> None:
    life = world.running()
    world.book.apply(life, off(reason))
    world.book.apply(life, off(reason))

    assert world.told() == ["started", "guest_up", kind]
    assert world.last().exit_reason == exit_reason
    assert world.book.states() == []


def test_book_machine_that_is_gone_is_lost(world: World) -> None:
    world.book.apply(world.running(), Seen(uuid="u", execution="absent"))

    assert (world.last().kind, world.last().exit_reason) == ("crashed", ExitReason.LOST_QEMU)


def test_book_end_that_was_asked_for_is_told_as_asked(world: World) -> None:
    life = world.running()
    life.shutdown_asked = True
    world.book.apply(life, off("SHUTDOWN"))

    assert (world.last().kind, world.last().exit_reason) == ("shut_down", ExitReason.ADMIN_SHUTDOWN)


def test_book_guest_that_panicked_crashed_and_qemu_is_not_blamed(world: World) -> None:
    life = world.running()
    life.panicked = True
    world.book.apply(life, off("CRASHED"))

    assert (world.last().kind, world.last().exit_reason) == ("crashed", ExitReason.GENERIC_ERROR)


def test_book_another_life_of_the_machine_ends_the_one_that_was_known(world: World) -> None:
    world.book.apply(world.running(), Seen(uuid="u", execution="runs", number=8))

    assert world.told()[-1] == "crashed"
    assert world.book.states() == []


def test_book_pause_and_continue_are_told_once_each(world: World) -> None:
    life = world.running()
    for seen in (PAUSED, PAUSED, RUNS, RUNS):
        world.book.apply(life, seen)

    assert world.told() == ["started", "guest_up", "paused", "continued"]
    assert life.state().status == "up"


@pytest.mark.parametrize(
    ("word", "code"),
    [("enospc of virtio-disk0", "ENOSPC"), ("eio of x", "EIO"), ("", "EOTHER"), (" of x", "EOTHER")],
)
def test_book_pause_by_an_io_error_has_qemus_word_for_it(world: World, word: str, code: str) -> None:
    life = world.running()
    life.io_reason = pause_code_of_word(word)
    world.book.apply(
        life, Seen(uuid="u", execution="paused", number=7, cause="io_error", pause_code="EOTHER")
    )

    assert (life.state().status, life.state().pause_code) == ("paused", code)
    assert world.last().pause_code == code


@pytest.mark.parametrize("cause", ["momentary"])
def test_book_pause_within_a_call_is_not_told(world: World, cause: str) -> None:
    life = world.running()
    world.book.apply(life, Seen(uuid="u", execution="paused", number=7, cause=cause))  # type: ignore[arg-type]

    assert world.told() == ["started", "guest_up"]


def test_book_echoes_of_one_reboot_are_one_and_the_guest_is_waited_for_again(world: World) -> None:
    life = world.running()
    for _ in range(3):
        world.book.rebooted(life)
    world.book.guest_up(life)
    world.now_ns += REBOOT_ECHO_NS
    world.book.rebooted(life)

    assert world.told() == ["started", "guest_up", "rebooted", "guest_up", "rebooted"]
    assert life.state().status == "reboot_in_progress"


def test_book_machine_that_arrives_running_begins_a_life(world: World) -> None:
    life = world.arriving()
    world.book.apply(life, off("UNKNOWN"))  # nothing has come yet
    world.book.apply(life, Seen(uuid="u", execution="paused", number=3, cause="migration"))
    assert (world.told(), life.state().status) == ([], "migrating_to")
    world.book.apply(life, Seen(uuid="u", execution="runs", number=3))

    assert world.told() == ["started", "guest_up"]


def test_book_machine_that_arrives_paused_is_paused(world: World) -> None:
    life = world.arriving()
    world.book.apply(life, Seen(uuid="u", execution="paused", number=3, cause="user"))

    assert world.told() == ["started", "guest_up", "paused"]
    assert (life.state().status, life.state().pause_code) == ("paused", "NOERR")


def test_book_arrival_that_broke_off_ends_without_having_begun(world: World) -> None:
    life = world.arriving()
    world.book.apply(life, Seen(uuid="u", execution="paused", number=3, cause="migration"))
    world.book.apply(life, off("FAILED"))

    assert world.told() == ["stopped"]
    assert world.last().exit_reason == ExitReason.MIGRATION_FAILED


def leaving(world: World) -> tuple[Life, Outgoing]:
    life = world.running()
    life.outgoing = Outgoing(migrate_of("qemu+tcp://h2/system"), lambda _result: None)
    return life, life.outgoing


def test_book_pause_of_the_switch_over_is_not_told_while_the_call_goes_on(world: World) -> None:
    life, _ = leaving(world)
    world.book.apply(life, Seen(uuid="u", execution="paused", number=7, cause="migration"))
    world.book.apply(life, off("MIGRATED"))

    assert (world.told(), life.state().status) == (["started", "guest_up"], "migrating_from")


def test_book_migration_of_unknown_outcome_stands_until_seen(world: World) -> None:
    life, outgoing = leaving(world)
    outgoing.unknown = True
    world.book.apply(life, Seen(uuid="u", execution="paused", number=7, cause="migration"))

    assert (life.state().status, life.state().pause_code) == ("paused", "POSTMIGRATE")
    assert world.told()[-1] == "paused"


def test_book_migration_of_unknown_outcome_whose_source_runs_has_failed(world: World) -> None:
    life, outgoing = leaving(world)
    outgoing.unknown = True
    world.book.apply(life, RUNS)

    assert (life.state().status, world.told()) == ("up", ["started", "guest_up"])


def test_book_source_of_post_copy_is_paused_with_its_code(world: World) -> None:
    life, _ = leaving(world)
    world.book.apply(life, Seen(uuid="u", execution="paused", number=7, cause="post_copy"))

    assert (life.state().status, life.state().pause_code) == ("paused", "POSTCOPY")
    assert (world.last().kind, world.last().pause_code) == ("paused", "POSTCOPY")


def test_book_machine_lost_in_post_copy_is_handed_to_whoever_ends_it(world: World) -> None:
    life, _ = leaving(world)
    lost: list[Life] = []
    on_lost: Callable[[Life], None] = lost.append
    world.book.on_lost_in_post_copy = on_lost
    world.book.apply(life, Seen(uuid="u", execution="paused", number=7, cause="post_copy_failed"))

    assert lost == [life]


def test_book_start_of_unknown_outcome_that_is_seen_running_has_begun(world: World) -> None:
    life = Life("v1", "u", 1, spec_of("v1"), "wait_for_launch")
    world.book.add(life)
    world.book.apply(life, RUNS)

    assert (world.told(), life.state().status) == (["started"], "powering_up")


def test_book_start_of_unknown_outcome_that_is_not_there_leaves_nothing(world: World) -> None:
    life = Life("v1", "u", 1, spec_of("v1"), "wait_for_launch")
    world.book.add(life)
    world.book.apply(life, Seen(uuid="u", execution="absent"))

    assert (world.told(), world.book.states()) == ([], [])


def test_book_guest_that_does_not_obey_is_up_again(world: World) -> None:
    life = world.running()
    world.book.ask(life, "powering_down")
    assert life.state().status == "powering_down"
    world.book.stand_again(life)

    assert life.state().status == "up"

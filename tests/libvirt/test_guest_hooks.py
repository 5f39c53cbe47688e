"""A real guest runs its hooks before and after it moves and rests, and is told what came to nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hypervisor_backends.protocol import CallFailed, CallSucceeded, SuspendDomain
from olvm.lab.guest import GuestImage
from olvm.lab.hosts import Lab
from tests.libvirt.lab_bench import InGuest, LabBench, migrate, wait_until_calm
from tests.unit.hypervisor_backends.bench import RealClock, address_of, migrate_of, restore_of

HOOKS = "/etc/olvm-guest-agent/hooks.d"
NOTES = "/run/hooks"
EVENTS = "before_migration after_migration before_hibernation after_hibernation"
INSTALL = (
    f"for event in {EVENTS}; do mkdir -p {HOOKS}/$event; done; "
    f"printf '#!/bin/sh\\necho $OLVM_EVENT $OLVM_FAILURE >> {NOTES}\\n' > {HOOKS}/note; chmod +x {HOOKS}/note; "
    f"for event in {EVENTS}; do ln -s ../note {HOOKS}/$event/10-note; done; : > {NOTES}"
)
WAITS_S = 15.0  # a target: for hooks that hang, and for a slow machine's QEMU to begin
TOLD_S = 30.0  # the agent is heard anew after a move: with its next heartbeats


@pytest.fixture
def benches(lab: Lab, guest: GuestImage) -> Iterator[tuple[LabBench, LabBench]]:
    clock = RealClock()
    here, there = (
        LabBench(lab, lab.host(name), guest, clock, incoming_timeout_s=WAITS_S) for name in ("h1", "h2")
    )
    clock.is_quiet = lambda: here.is_quiet() and there.is_quiet()
    for bench in (here, there):
        bench.willing_guest = bench.our_agent_in_guest = True
    yield here, there
    for one in (here, there):
        one.backend.close()
    for one in (here, there):
        one.remove_all()


def notes(bench: LabBench) -> list[str]:
    return InGuest(bench).run("/bin/cat", NOTES).splitlines()


def wait_for_notes(bench: LabBench, *expected: str) -> None:
    InGuest(bench).wait_for_agent()
    assert bench.clock.run_until(lambda: notes(bench) == list(expected), TOLD_S), notes(bench)
    InGuest(bench).run("/bin/sh", "-c", f": > {NOTES}")


def test_guest_runs_its_hooks_over_a_move_a_failed_one_and_a_rest(
    benches: tuple[LabBench, LabBench],
) -> None:
    here, there = benches
    here.start()
    wait_until_calm(here)
    InGuest(here).run("/bin/sh", "-c", INSTALL)
    result = migrate(here, there)
    assert isinstance(result, CallSucceeded), result
    wait_for_notes(there, "before_migration", "after_migration")

    wait_until_calm(there)
    unprepared = migrate_of(address_of(here, epoch=3), epoch=2, to_epoch=4, bandwidth_bytes_per_s=0)
    assert isinstance(there.ask(unprepared), CallFailed)
    wait_for_notes(there, "before_migration", "after_migration True")

    there.succeed(SuspendDomain(vm_id="v1"))
    there.succeed(restore_of("v1", 5))
    wait_for_notes(there, "before_hibernation", "after_hibernation")


def test_guest_whose_hooks_hang_moves_all_the_same(benches: tuple[LabBench, LabBench]) -> None:
    here, there = benches
    here.start()
    wait_until_calm(here)
    InGuest(here).run("/bin/sh", "-c", f"{INSTALL}; printf '#!/bin/sh\\nsleep 600\\n' > {HOOKS}/note")
    result = migrate(here, there)
    assert isinstance(result, CallSucceeded), result
    assert there.status() == "up"

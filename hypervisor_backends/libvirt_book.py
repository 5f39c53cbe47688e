"""The machines of one host as its backend knows them: their lives, statuses, and what is told of each change.

Decides which change is an event, and that each life that had `started` ends once. Owner's thread alone; must not call
libvirt: it is told what was *seen* and what calls have done. A callback of libvirt says that something changed and
never what stands now: it may be of an earlier life, or past. So the backend looks again, and what is seen is applied
here; a look that a call has overtaken is thrown away (`Life.touched`).

Invariants:
1. `started_ns` is set exactly when `started` was told of this life.
2. `outgoing` is set exactly while a migration from here has begun and its end is not known.
3. `incoming` is set exactly until the machine runs here, or stands here as it stood at its source.
4. While `reverting` is set nothing that is seen ends the life: a call is about to say how it goes on.
"""

from __future__ import annotations

from collections.abc import Callable

from hypervisor_backends.libvirt_domain import Found, Seen, end_of
from hypervisor_backends.libvirt_outgoing import Outgoing
from hypervisor_backends.protocol import (
    NEVER_ARRIVED,
    Cancel,
    DomainEvent,
    DomainEventKind,
    DomainSpec,
    DomainState,
    DomainStatus,
    Done,
    ExitReason,
    PauseCode,
)
from hypervisor_backends.simulated_outbox import Outbox

End = tuple[DomainEventKind, ExitReason, str]
# QEMU tells a reset more than once for one reboot of a Linux guest (measured: three times within a second).
REBOOT_ECHO_NS = 3_000_000_000


class Life:
    """One (vm_id, epoch) on this host; plain state that `Book` and the backend's parts change."""

    __slots__ = (
        "arriving",
        "channel",
        "doom_waiters",
        "ending",
        "epoch",
        "guest_heard",
        "incoming",
        "io_reason",
        "leased",
        "look_wanted",
        "looking",
        "memory_bytes",
        "number",
        "outgoing",
        "panicked",
        "pause_code",
        "paused_from",
        "powered_on_ns",
        "rebooted_ns",
        "responds",
        "reverting",
        "shutdown_asked",
        "size_known",
        "snapshots_asked",
        "spec",
        "started_ns",
        "status",
        "timers",
        "touched",
        "under_way",
        "uuid",
        "vcpus",
        "vm_id",
        "waiters",
    )

    def __init__(self, vm_id: str, uuid: str, epoch: int, spec: DomainSpec, status: DomainStatus) -> None:
        self.vm_id = vm_id
        self.uuid = uuid
        self.epoch = epoch
        self.spec = spec
        self.leased = spec.leased
        self.vcpus = spec.vcpus
        self.memory_bytes = spec.memory_bytes
        self.size_known = True  # else the larger one counts until it was measured
        self.status: DomainStatus = status  # a migration from here leaves it as it is: `shown` hides it
        self.pause_code: PauseCode = "NONE"
        self.paused_from: DomainStatus = "up"
        self.number = -1  # libvirt's, of a running domain
        self.started_ns: int | None = None
        self.powered_on_ns = 0  # on whichever host; 0 before `started`
        self.guest_heard = False  # since the last boot
        self.responds = True  # its monitor
        self.ending: End | None = None  # how it ends if it ends now, because we asked for it
        self.shutdown_asked = False
        self.under_way = False  # a start or restore whose worker has not come back
        self.reverting = (
            False  # a revert's worker ends its QEMU and begins another: looks say nothing meanwhile
        )
        self.snapshots_asked = 0  # that have not come back; read on workers too
        self.incoming = False
        self.arriving = False  # libvirt has been seen to receive it
        self.outgoing: Outgoing | None = None
        self.waiters: list[Done] = []
        self.timers: dict[str, Cancel] = {}
        self.touched = 0  # changes with each call that may change its state
        self.looking = False  # a look is under way
        self.look_wanted = False  # something changed that no look has shown
        # Not empty: it is to be destroyed as soon as the start that is under way lets it.
        self.doom_waiters: list[Done] = []
        self.io_reason: PauseCode = "NONE"  # of the last I/O error that libvirt told of
        self.rebooted_ns = 0
        self.panicked = False  # since the last boot
        self.channel = ""

    def shown(self) -> DomainStatus:
        if self.outgoing is None:
            return self.status
        return "paused" if self.outgoing.post_copy else "migrating_from"

    def state(self) -> DomainState:
        post_copy = self.outgoing is not None and self.outgoing.post_copy
        return DomainState(
            vm_id=self.vm_id,
            epoch=self.epoch,
            name=self.spec.name,
            status=self.shown(),
            vcpus=self.vcpus,
            memory_bytes=self.memory_bytes,
            pause_code="POSTCOPY" if post_copy else self.pause_code,
            monitor_responds=self.responds,
            started_ns=self.started_ns,
            leased=self.leased,
            hardware=self.spec.hardware,
            size_known=self.size_known,
        )

    def cancel_timer(self, name: str) -> None:
        cancel = self.timers.pop(name, None)
        if cancel is not None:
            cancel()


class Book:
    """`on_started`, `on_ended`, `on_booting` are the backend's: channels, definitions, the wait for the guest."""

    def __init__(self, host: str, now_ns: Callable[[], int], outbox: Outbox) -> None:
        self.host = host
        self.lives: dict[str, Life] = {}
        self._now_ns = now_ns
        self._outbox = outbox
        self.on_started: Callable[[Life], None] = _ignore
        self.on_ended: Callable[[Life], None] = _ignore
        self.on_booting: Callable[[Life], None] = _ignore
        # The guest goes on where it stood: after a restore, an arrival, or a migration from here that came to nothing.
        self.on_resumed: Callable[[Life, str, bool], None] = lambda _life, _event, _failure: None
        self.was_killed: Callable[[Life], bool] = lambda _life: False  # by the host's watchdog
        self.on_lost_in_post_copy: Callable[[Life], None] = _ignore

    def states(self) -> list[DomainState]:
        return [life.state() for _, life in sorted(self.lives.items())]

    def by_uuid(self, uuid: str) -> Life | None:
        return next((life for life in self.lives.values() if life.uuid == uuid), None)

    def by_name(self, name: str) -> Life | None:
        return next((life for life in self.lives.values() if life.spec.name == name), None)

    def add(self, life: Life) -> None:
        assert life.vm_id not in self.lives
        self.lives[life.vm_id] = life

    def is_present(self, life: Life) -> bool:
        return self.lives.get(life.vm_id) is life

    # ------------------------------------------------------------ a life's course

    def started(self, life: Life, number: int, started_ns: int, message: str) -> None:
        """The process runs. `restoring_state` and arrivals are up at once, a boot waits for the guest."""
        assert life.started_ns is None
        was_boot, was_saved = life.status == "wait_for_launch", life.status == "restoring_state"
        life.number = number
        life.started_ns = started_ns or self._now_ns()
        life.powered_on_ns = life.powered_on_ns or life.started_ns
        life.incoming = life.under_way = False
        life.status = "powering_up" if was_boot else "up"
        self.tell(life, "started", message)
        self.on_started(life)
        if was_boot:
            self.on_booting(life)
        else:
            self.guest_up(life)
            self.on_resumed(life, "after_hibernation" if was_saved else "after_migration", False)

    def adopt(self, life: Life, found: Found) -> None:
        """A machine that ran before this backend was opened: nothing is told of it."""
        life.number = found.seen.number
        life.started_ns = found.started_ns or self._now_ns()
        life.powered_on_ns = found.metadata.powered_on_ns or life.started_ns
        life.vcpus, life.memory_bytes = found.vcpus, found.memory_bytes
        life.guest_heard = True
        life.status = "up"
        self.add(life)
        if found.seen.execution == "paused":
            life.status = "paused"
            life.pause_code = pause_code_of(life, found.seen)
        self.on_started(life)

    def guest_up(self, life: Life) -> None:
        """The guest's agent was heard, or it had its time. Without effect before a start and after the first time."""
        if life.started_ns is None or life.guest_heard:
            return
        life.guest_heard = True
        life.cancel_timer("guest_wait")
        if life.status in ("powering_up", "reboot_in_progress"):
            life.status = "up"
        elif life.status == "paused":
            life.paused_from = "up"
        self.tell(life, "guest_up")

    def rebooted(self, life: Life) -> None:
        """The guest begins anew in the same life. Echoes of one reset are one."""
        now_ns = self._now_ns()
        if life.started_ns is None or now_ns - life.rebooted_ns < REBOOT_ECHO_NS:
            return
        life.rebooted_ns = now_ns
        life.guest_heard = life.shutdown_asked = life.panicked = False
        if life.status == "paused":
            life.paused_from = "reboot_in_progress"
        else:
            life.status = "reboot_in_progress"
        self.tell(life, "rebooted")
        self.on_booting(life)

    def reverted(self, life: Life, number: int, *, boots: bool) -> None:
        """Another QEMU runs in the same life, from what was at a snapshot; it boots, or goes on where it was then."""
        assert life.started_ns is not None
        if life.status == "paused":
            self.continued(life)
        life.number = number
        life.rebooted_ns = self._now_ns()
        life.guest_heard = life.shutdown_asked = life.panicked = False
        life.cancel_timer("obey")
        life.cancel_timer("acpi")
        life.status, life.pause_code = "reboot_in_progress", "NONE"
        self.tell(life, "rebooted", "reverted to a snapshot")
        self.on_booting(life)
        if not boots:
            self.guest_up(life)
            self.on_resumed(life, "after_hibernation", False)

    def paused(self, life: Life, code: PauseCode, message: str) -> None:
        if life.status == "paused" and life.pause_code == code:
            return
        if life.status != "paused":
            life.paused_from = life.status
        life.status, life.pause_code = "paused", code
        self.tell(life, "paused", message)

    def continued(self, life: Life) -> None:
        life.io_reason = "NONE"
        if life.status != "paused":
            return
        life.status, life.pause_code = life.paused_from, "NONE"
        self.tell(life, "continued")

    def end(self, life: Life, end: End) -> None:
        """Take the life off the book; told unless it never started. A prepared one that ends is told as well."""
        if not self.is_present(life):
            return
        for name in list(life.timers):
            life.cancel_timer(name)
        del self.lives[life.vm_id]
        kind, reason, message = end
        if life.started_ns is not None or (life.incoming and reason in NEVER_ARRIVED):
            life.outgoing, outgoing = None, life.outgoing
            self.tell(life, kind, message, exit_reason=reason)
            life.outgoing = outgoing
        self.on_ended(life)

    def ask(self, life: Life, status: DomainStatus) -> None:
        """The guest or libvirt was asked for what this status names; it may not obey."""
        if life.status != status:
            life.paused_from = life.status if life.status != "paused" else life.paused_from
            life.status, life.pause_code = status, "NONE"

    def stand_again(self, life: Life) -> None:
        """What was asked for has not come: the machine is as it was, up if nobody knows better."""
        if life.status in ("powering_down", "reboot_in_progress", "saving_state"):
            life.shutdown_asked = False
            life.status = "up" if life.guest_heard else "powering_up"

    def stays(self, life: Life) -> None:
        """Its migration from here came to nothing."""
        outgoing, life.outgoing = life.outgoing, None
        if outgoing is not None and outgoing.guest_told:
            self.on_resumed(life, "after_migration", True)

    # ------------------------------------------------------------ what was seen

    def apply(self, life: Life, seen: Seen) -> None:
        """Let the life be as it was seen. The caller has made sure that no call of ours has overtaken the look."""
        if not self.is_present(life) or life.reverting:
            return
        if seen.execution in ("absent", "off"):
            self._seen_off(life, seen)
        elif life.incoming:
            self._seen_incoming(life, seen)
        elif life.started_ns is None:
            if not life.under_way:  # a start of unknown outcome has worked
                self.started(life, seen.number, 0, "started; its call was not answered")
        elif seen.number != life.number:
            # This life ended and another one of the machine runs: its reason is gone with it.
            self.end(life, life.ending or end_of(-1))
        elif seen.execution == "runs":
            self._seen_running(life)
        else:
            self._seen_paused(life, seen)

    def _seen_off(self, life: Life, seen: Seen) -> None:
        if life.outgoing is not None and not life.outgoing.unknown:
            return  # its migration's call is about to say how it ended
        if life.started_ns is not None:
            self.end(life, self.end_as_seen(life, seen))
        elif life.incoming:
            if life.arriving or seen.execution == "absent":
                words = "its source gave up, or was lost"
                self.end(life, ("stopped", ExitReason.MIGRATION_FAILED, words))
        elif not life.under_way:
            words = "it was not started after all"
            self.end(life, ("crashed", ExitReason.LIBVIRT_START_FAILED, words))

    def end_as_seen(self, life: Life, seen: Seen) -> End:
        """What we asked for explains an end of that kind; libvirt's reason explains any other."""
        kind, reason, message = end_of(seen.off_reason if seen.execution == "off" else -1)
        if life.ending is not None and kind != "shut_down":
            return life.ending
        if kind == "crashed" and self.was_killed(life):
            return kind, ExitReason.GENERIC_ERROR, "its lease expired"
        if life.panicked and kind == "crashed":
            return kind, ExitReason.GENERIC_ERROR, "the guest panicked"
        if reason == ExitReason.USER_SHUTDOWN and life.shutdown_asked:
            return "shut_down", ExitReason.ADMIN_SHUTDOWN, "the guest powered off as asked"
        return kind, reason, message

    def _seen_incoming(self, life: Life, seen: Seen) -> None:
        life.arriving = True
        life.cancel_timer("incoming")
        life.number = seen.number
        if seen.execution == "runs":
            self.started(life, seen.number, 0, "arrived by live migration")
        elif seen.cause in ("user", "io_error", "other"):
            self.started(life, seen.number, 0, "arrived by live migration")
            self.paused(life, seen.pause_code, "arrived paused")

    def _seen_running(self, life: Life) -> None:
        if life.outgoing is not None and life.outgoing.unknown:
            self.stays(life)  # whoever asks finds it as it was before; the call was answered
        if life.status == "paused":
            self.continued(life)

    def _seen_paused(self, life: Life, seen: Seen) -> None:
        if seen.cause == "post_copy_failed":
            self.on_lost_in_post_copy(life)
            return
        if life.outgoing is not None:
            self._seen_paused_while_it_leaves(life, life.outgoing, seen)
            return
        if seen.cause == "momentary" or life.status == "saving_state":
            return
        code = pause_code_of(life, seen)
        self.paused(life, code, _PAUSE_WORDS.get(code, f"paused by an error ({code})"))

    def _seen_paused_while_it_leaves(self, life: Life, outgoing: Outgoing, seen: Seen) -> None:
        if seen.cause == "post_copy" and not outgoing.post_copy:
            outgoing.post_copy = outgoing.no_way_back = True
            self.tell(life, "paused", "its target runs, and fetches memory from here")
        elif outgoing.unknown and seen.cause != "momentary":
            life.outgoing = None
            code = pause_code_of(life, seen)
            self.paused(life, code, _PAUSE_WORDS.get(code, "paused"))

    # ------------------------------------------------------------ telling

    def tell(
        self, life: Life, kind: DomainEventKind, message: str = "", *, exit_reason: ExitReason | None = None
    ) -> None:
        post_copy = life.outgoing is not None and life.outgoing.post_copy
        event = DomainEvent(
            vm_id=life.vm_id,
            epoch=life.epoch,
            kind=kind,
            at_ns=self._now_ns(),
            exit_reason=exit_reason,
            pause_code="POSTCOPY" if post_copy else life.pause_code,
            message=message,
        )
        self._outbox.tell(event)


_PAUSE_WORDS: dict[PauseCode, str] = {
    "NOERR": "paused on request",
    "POSTMIGRATE": "all was sent and the target's word is missing",
    "ENOSPC": "paused by an I/O error: its storage is full",
    "EIO": "paused by an I/O error of a disk",
}


def pause_code_of(life: Life, seen: Seen) -> PauseCode:
    """QEMU's word, told with the error, says more than what libvirt keeps."""
    if seen.cause == "migration":
        return "POSTMIGRATE"
    if seen.cause == "post_copy":
        return "POSTCOPY"
    if seen.cause == "io_error" and life.io_reason != "NONE":
        return life.io_reason
    return seen.pause_code


def _ignore(_life: Life) -> None:
    return None

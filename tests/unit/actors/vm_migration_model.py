"""A machine's actor between two hosts that crash, fall silent and answer late: what a tape of bytes makes of it.

The hosts are small and honest, and keep the agent's rules: highest epoch, Down entries until they are acknowledged,
ordered messages in each direction (which may be held back for long), questions that may be lost. Truth is here:
`executing` is where virtual CPUs run. Nothing of the actor is read to decide what happens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import msgspec

from actors.vm import Vm
from olvm.model import messages as m
from olvm.model.records import VmRecord
from olvm.model.vm_states import VmStatus
from tests.builders import turn, vm

S = VmStatus
STEPS_TO_SETTLE_MAX = 400


class Host:
    """One host and its agent. `status` None: it has no copy; `loaded`: a waiting copy has all of the memory."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.boot = 1
        self.on = True
        self.epoch = 0
        self.status: VmStatus | None = None
        self.pause_code = ""
        self.exit_reason: int | None = None
        self.to_epoch = 0
        self.loaded = False
        self.has_run = False
        self.host_epoch, self.seq = 1, 0
        self.inbox: deque[m.AnyMessage] = deque()
        self.outbox: deque[m.AnyMessage] = deque()

    @property
    def boot_id(self) -> str:
        return f"{self.name}-boot-{self.boot}"

    @property
    def address(self) -> str:
        return f"agent/{self.name}@host-{self.name[1:]}"

    @property
    def executing(self) -> bool:
        return self.on and self.status in (S.UP, S.MIGRATING_FROM)

    def tell(self, *, absent: bool = False) -> None:
        self.seq += 1
        status = S.DOWN if absent or self.status is None else self.status
        state = m.DomainState("v1", "vm/v1", self.epoch, status, self.exit_reason, "", self.pause_code)
        self.outbox.append(
            m.DomainReported(self.name, self.address, self.host_epoch, self.seq, state, absent)
        )

    def stand(self, status: VmStatus, *, pause_code: str = "", exit_reason: int | None = None) -> None:
        self.status, self.pause_code, self.exit_reason = status, pause_code, exit_reason
        self.loaded = self.loaded and status is S.MIGRATING_TO
        self.tell()

    def end(self, exit_reason: int) -> None:
        if self.status is S.MIGRATING_TO and exit_reason == 6:
            exit_reason = 8
        self.stand(S.DOWN, exit_reason=exit_reason)

    def refuse(self, verb: str, epoch: int, code: str) -> None:
        self.outbox.append(m.DomainRefused(self.name, epoch, verb, code, code))

    def refuse_to_send(self, to_epoch: int, code: str) -> None:
        self.outbox.append(m.MigrationFailed(self.name, self.epoch, to_epoch, code, code))

    def take(self, message: m.AnyMessage) -> None:
        match message:
            case m.CreateDomain():
                self._begin(message, "create", S.UP)
            case m.PrepareIncoming():
                if self._begin(message, "incoming", S.MIGRATING_TO):
                    self.outbox.append(m.IncomingReady(self.name, self.epoch, "uri"))
            case m.MigrateDomain():
                self._migrate(message)
            case m.CancelMigration():
                ours = message.epoch == self.epoch
                if self.status is S.MIGRATING_FROM and ours:
                    self.fail("migration_stopped" if message.to_epoch else "migration_cancelled")
                elif message.to_epoch and ours and self.executing:
                    self.to_epoch = max(self.to_epoch, message.to_epoch)
                    self.refuse_to_send(message.to_epoch, "migration_stopped")
                elif self.status is not None:
                    self.tell()
            case m.CommandDomain():
                self._command(message)
            case m.QueryDomain():
                if self.status is None:
                    self.epoch = max(self.epoch, message.epoch)
                self.tell(absent=self.status is None)
            case m.ForgetDomain():
                if self.status is S.DOWN and message.epoch == self.epoch:
                    self.status = None
            case _:
                raise AssertionError(message)

    def _begin(self, message: m.CreateDomain | m.PrepareIncoming, verb: str, status: VmStatus) -> bool:
        if message.boot_id != self.boot_id:
            self.refuse(verb, message.epoch, "other_boot")
        elif message.epoch <= self.epoch:
            self.refuse(verb, message.epoch, "stale_epoch")
        elif self.status not in (None, S.DOWN):
            self.end(6)
            self.refuse(verb, message.epoch, "older_copy")
        else:
            self.epoch, self.to_epoch, self.has_run = message.epoch, 0, status is S.UP
            self.stand(status)
            return True
        return False

    def _migrate(self, message: m.MigrateDomain) -> None:
        if self.status is None or message.epoch != self.epoch:
            self.refuse("migrate", message.epoch, "absent")
        elif self.status is not S.UP or message.to_epoch <= self.to_epoch:
            self.refuse_to_send(message.to_epoch, "wrong_state")
        else:
            self.to_epoch = message.to_epoch
            self.stand(S.MIGRATING_FROM)

    def _command(self, message: m.CommandDomain) -> None:
        if self.status is None:
            self.epoch = max(self.epoch, message.epoch)
            self.refuse(message.verb, message.epoch, "absent")
        elif message.epoch < self.epoch:
            self.refuse(message.verb, message.epoch, "stale_epoch")
        elif self.status is S.DOWN and message.epoch == self.epoch:
            self.tell()
        elif self.status is S.DOWN:
            self.refuse(message.verb, message.epoch, "absent")
        elif message.verb == "destroy":
            self.end(6)
        elif message.verb == "continue" and self.pause_code:
            self.stand(S.UP)

    def fail(self, code: str) -> None:
        self.outbox.append(m.MigrationFailed(self.name, self.epoch, self.to_epoch, "failed", code))
        self.stand(S.UP)

    def power_off(self) -> None:
        self.on = False

    def power_on(self) -> None:
        self.on, self.boot, self.seq = True, self.boot + 1, 0
        self.host_epoch += 1
        if self.status not in (None, S.DOWN):
            unsure = self.status in (S.MIGRATING_FROM, S.MIGRATING_TO) or self.pause_code
            self.end(9 if unsure else 11)
        elif self.status is S.DOWN:
            self.tell()


class Model:
    """`tape` chooses; when it ends, everything is healed and must come to rest."""

    def __init__(self, tape: bytes) -> None:
        self._tape: Iterator[int] = iter(tape)
        self.hosts = {name: Host(name) for name in ("H1", "H2")}
        first = self.hosts["H1"]
        first.epoch, first.status, first.has_run = 3, S.UP, True
        self.one = vm(status=S.UP, boot_id=first.boot_id, high_availability=True, seen_host_epoch=0)
        self.now_s = 100.0
        self.held: set[tuple[str, int]] = {("H1", 3)}
        self.placed: dict[int, str] = {}
        self.marks: list[str] = []
        self.asked: list[str] = []
        self.ended: list[str] = []
        self.dead_boots: list[tuple[str, str]] = []

    def draw(self, count: int) -> int:
        return next(self._tape) % count

    # ------------------------------------------------------------------ the actor's turn

    def give(self, message: m.AnyMessage) -> None:
        self.now_s += 0.001
        done = turn(at_s=self.now_s)
        done.marks = self.marks
        record = self.one.record
        before = msgspec.msgpack.encode(record)
        if isinstance(message, m.TimerFired) and record.timers.pop(message.name, None) is not None:
            done.save(record)
        self.one.handle(message, done)
        assert record in done.saved or _same(before, record), f"changed and not saved by {message}"
        assert not record.copy_phase or "copy" in record.timers, f"{record.copy_phase} without a timer"
        assert record.copy_phase != "copying" or record.status in (S.MIGRATING_FROM,), record.status
        if record.status is S.MIGRATING_FROM:
            assert record.copy_phase in ("copying", "settling"), "MigratingFrom, and nobody knows why"
        for to, sent, _ in done.sent:
            self._carry(to, sent)
        self.check()

    def _carry(self, to: str, sent: m.AnyMessage) -> None:
        if to.startswith("agent/"):
            self.hosts[to.removeprefix("agent/")[:2]].inbox.append(sent)
        elif isinstance(sent, m.OperationEnded):
            self.ended.append(sent.operation_id)
        elif isinstance(sent, m.ReleaseVm):
            self.held -= {pair for pair in self.held if pair[1] == sent.epoch}
            self.placed[sent.epoch] = ""
        elif isinstance(sent, m.PlaceVm | m.PlaceCopy):
            self._place(sent)

    def _place(self, ask: m.PlaceVm | m.PlaceCopy) -> None:
        host = self.placed.get(ask.epoch)
        if host == "":
            return
        if host is None:
            current = ask.current_host if isinstance(ask, m.PlaceCopy) else ""
            host = "H2" if current == "H1" or (not current and ask.epoch % 2) else "H1"
            self.placed[ask.epoch] = host
        self.held.add((host, ask.epoch))
        where = self.hosts[host]
        if isinstance(ask, m.PlaceCopy):
            self.give(m.CopyPlaced(ask.epoch, host, where.address, where.boot_id, "minimal_downtime", 52.0))
        else:
            self.give(m.VmPlaced(ask.epoch, host, where.address, where.boot_id))

    # ------------------------------------------------------------------ what may happen

    def pair(self) -> tuple[Host, Host] | None:
        """A source that sends, and the target that waits for just that."""
        for source in self.hosts.values():
            target = self.hosts["H2" if source.name == "H1" else "H1"]
            sends = source.on and source.status is S.MIGRATING_FROM
            if sends and target.on and target.status is S.MIGRATING_TO and target.epoch == source.to_epoch:
                return source, target
        return None

    def arrive(self, target: Host) -> None:
        target.has_run = True
        target.stand(S.UP)

    def step(self) -> None:
        host = self.hosts[("H1", "H2")[self.draw(2)]]
        match self.draw(32):
            case 0 | 1 | 2 | 3 | 4 | 5 | 6:
                self.deliver_to(host)
            case 7 | 8 | 9 | 10 | 11 | 12 | 13:
                self.hear_from(host)
            case 14 | 15 | 16:
                self.order(m.CommandVm("", ("migrate", "migrate", "migrate", "start")[self.draw(4)]))
            case 17:
                self.order(m.CommandVm("", ("cancel_migration", "stop")[self.draw(2)]))
            case 18 | 19 | 20:
                self.migrate(self.draw(4))
            case 21 | 22 | 23 | 24 as what:
                self.strike(host, what)
            case 25:
                self.give(m.HostLost(host.name, "silent"))
            case 26:
                self.power(host)
            case 27:
                self.confirm_dead()
            case 28 | 29:
                self.fire(self.draw(4))
            case 30:
                self.restart_engine()
            case _:
                if host.on and host.status is not None:
                    host.tell()

    def strike(self, host: Host, what: int) -> None:
        """A copy that has everything begins to run, one that waits gives up, a guest ends."""
        waits = host.on and host.status is S.MIGRATING_TO
        if waits and host.loaded and what < 23:
            self.arrive(host)
        elif waits and not host.loaded and what == 23 and self.draw(3) == 1:
            host.end(8)
        elif host.on and host.status is S.UP and what == 24 and self.draw(3) == 1:
            host.end((2, 7)[self.draw(2)])

    def migrate(self, how: int) -> None:
        """The hypervisors: confirmed, arrived but unconfirmed, all sent and not arrived, failed."""
        found = self.pair()
        if found is None:
            lonely = [one for one in self.hosts.values() if one.on and one.status is S.MIGRATING_FROM]
            if lonely:
                lonely[0].fail("migration_failed")
            return
        source, target = found
        if how == 0:
            source.status = S.PAUSED
            self.arrive(target)
            source.end(4)
        elif how == 1:
            source.stand(S.PAUSED, pause_code="POSTMIGRATE")
            self.arrive(target)
        elif how == 2:
            source.stand(S.PAUSED, pause_code="POSTMIGRATE")
            target.loaded = True
        else:
            source.fail("migration_failed")

    def deliver_to(self, host: Host) -> None:
        if host.on and host.inbox:
            message = host.inbox.popleft()
            if not isinstance(message, m.QueryDomain) or self.draw(3):
                host.take(message)
            self.check()

    def hear_from(self, host: Host) -> None:
        if host.outbox:
            self.give(host.outbox.popleft())

    def order(self, command: m.CommandVm) -> None:
        operation_id = f"op-{len(self.asked)}"
        self.asked.append(operation_id)
        self.give(m.CommandVm(operation_id, command.verb))

    def power(self, host: Host) -> None:
        if host.on:
            self.dead_boots.append((host.name, host.boot_id))
            host.power_off()
        else:
            host.power_on()

    def confirm_dead(self) -> None:
        if self.dead_boots:
            name, boot_id = self.dead_boots.pop(0)
            self.give(m.HostConfirmedDead(name, boot_id, "fenced"))

    def fire(self, which: int) -> None:
        names = [*sorted(self.one.record.timers), "query"]
        self.give(m.TimerFired(names[which % len(names)]))

    def restart_engine(self) -> None:
        """What is not in the record is gone."""
        image = msgspec.msgpack.decode(msgspec.msgpack.encode(self.one.record), type=VmRecord)
        self.one = Vm(image)
        self.give(m.Recovered())

    # ------------------------------------------------------------------ truth

    def check(self) -> None:
        running = [host for host in self.hosts.values() if host.executing]
        assert len(running) <= 1, f"runs {[(host.name, host.epoch, host.status) for host in running]}"
        for host in running:
            later = [one for one in self.hosts.values() if one is not host and one.epoch > host.epoch]
            overtaken = [one.name for one in later if one.has_run and one.epoch == host.to_epoch]
            assert not overtaken, f"{host.name} runs on with memory that {overtaken} has overtaken"

    def run(self) -> None:
        try:
            while True:
                self.step()
        except StopIteration:
            pass
        self.settle()

    def settle(self) -> None:
        """The faults stop. Everything that is under way must end, and the belief must be true."""
        self._tape = _ones()
        for host in self.hosts.values():
            if not host.on:
                host.power_on()
        while self.dead_boots:
            self.confirm_dead()
        for round_number in range(STEPS_TO_SETTLE_MAX):
            self._quieten()
            if self.is_at_rest() and round_number > 2:
                break
            self.fire(round_number)
        record = self.one.record
        truth = [(host.name, host.epoch) for host in self.hosts.values() if host.status not in (None, S.DOWN)]
        story = (record.status, record.copy_phase, record.copy_source_word, record.copy_target_word, truth)
        assert self.is_at_rest(), f"never came to rest: {story} {record.strays} {record.operation_kind}"
        believed = [(record.host, record.epoch)] if record.host else []
        assert believed == truth, f"belief {believed} and truth {truth}: {story}"
        assert self.held == set(believed), f"reserved {self.held} for {believed}"
        assert sorted(self.asked) == sorted(self.ended), "an operation has no end, or two"

    def _quieten(self) -> None:
        for _ in range(200):
            for host in self.hosts.values():
                while host.inbox:
                    host.take(host.inbox.popleft())
                    self.check()
                while host.outbox:
                    self.give(host.outbox.popleft())
            if not any(host.inbox or host.outbox for host in self.hosts.values()):
                break
        for host in self.hosts.values():  # a full report, and hypervisors that go on
            if host.status is S.MIGRATING_TO:
                self.arrive(host) if host.loaded else self._idle(host)
            if host.status is not None:
                host.tell()
            elif host.name == self.one.record.host:
                host.seq += 1
                self.give(m.DomainMissing(host.name, host.host_epoch, host.seq, self.one.record.epoch))
        self.migrate(0)

    def _idle(self, host: Host) -> None:
        if self.pair() is None:
            host.end(8)

    def is_at_rest(self) -> bool:
        record = self.one.record
        resting = record.status in (S.UP, S.DOWN) and not record.copy_phase and record.operation_id is None
        quiet = not any(host.inbox for host in self.hosts.values())
        return resting and quiet and not record.strays and "ha_retry" not in record.timers


def _ones() -> Iterator[int]:
    while True:
        yield 1


def _same(before: bytes, record: VmRecord) -> bool:
    """But for the marks of what was seen, which are committed with the next change."""
    then: Any = msgspec.msgpack.decode(before, type=VmRecord)
    for name in ("seen_host_epoch", "seen_seq", "copy_seen_host_epoch", "copy_seen_seq"):
        setattr(then, name, getattr(record, name))
    return bool(then == record)

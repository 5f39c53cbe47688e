"""The processes of silos: they start, run batches when there is work, die, stand still, and haunt.

It decides when a silo's `run_batch` is called and where a death strikes; what the silo does is its own affair.

Rules:
1. A process is scheduled only when something waits for it or one of its timers comes due. Nothing scans.
2. What leaves a batch leaves when its commit has taken its time; until then the process takes nothing new.
3. A dead process's frames may still arrive. Frames for a process that does not run are lost.
4. A zombie is an old life that goes on beside the new one. Its journal is fenced: at its next commit it ends.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

from actors.assembly import cast_of, kind_of, record_types
from actors.silo import Silo
from actors.wire import ENGINE_SILO, TELEMETRY_SILO, Envelope
from olvm.journal.port import Batch
from olvm.model.config import Config
from olvm.model.errors import JournalCorrupt, JournalError, JournalUnwritable
from olvm.model.limits import NS_PER_S
from sim.clock import FOR_EVER_NS, HostClock, ProcessClock, Timeline
from sim.digest import Digest
from sim.network import Deliver, Link, Network, stream
from sim.silo_disk import CrashPoint, ProcessDied, SiloDisk, SiloJournal

log = logging.getLogger("olvm.sim")

COMMIT_NS = 2_000_000
BATCH_NS = 300_000  # of a batch that commits nothing
UNWRITABLE_RETRY_NS = NS_PER_S
COMMITS_PER_MAINTENANCE = 256
JOURNAL_ROWS_MAX = 4_000


class Process:
    """One life of a silo. Made by `Processes`; dead for ever when it is over."""

    __slots__ = (
        "_entry_ns",
        "_timeline",
        "_wake_ns",
        "batch_delay_ns",
        "busy_until_ns",
        "clock",
        "dies_after_commits",
        "dies_at",
        "draw_commit",
        "is_alive",
        "is_true_clock",
        "is_zombie",
        "journal",
        "life",
        "links",
        "name",
        "paused_until_ns",
        "processes",
        "silo",
    )

    def __init__(self, processes: Processes, name: str, life: int, clock: ProcessClock) -> None:
        self.name = name
        self.life = life
        self.clock = clock
        self.is_alive = True
        self.is_zombie = False
        self.paused_until_ns = 0
        self.busy_until_ns = 0
        self.batch_delay_ns = COMMIT_NS
        self.dies_at: CrashPoint | None = None
        self.dies_after_commits = 0
        self.links: dict[str, Link] = {}
        self.draw_commit = processes.stream("commit", name).getrandbits
        self.processes = processes
        self._timeline = processes.timeline
        self._wake_ns = FOR_EVER_NS
        self._entry_ns = -1
        self.is_true_clock = clock.is_true()
        disk = processes.disk(name)
        if disk.ends_torn():
            processes.situations["torn_tail_recovered"] += 1
        disk.user = self
        self.journal = SiloJournal(
            record_types(kind_of(name)),
            journal_id=f"{name}-{processes.wipe_counts.get(name, 0)}",
            disk=disk,
            journal_rows_max=processes.journal_rows_max,
            rows_kept_max=5 * processes.journal_rows_max,
        )
        self.journal.owner = self
        self.silo = Silo(
            name,
            self.journal,
            cast_of(kind_of(name)),
            processes.config,
            clock_ns=self._timeline.now_ns if self.is_true_clock else clock.now_ns,
            transmit=self.transmit,
            wake=self.wake,
        )
        self.silo.marks = processes.marks

    def strike(self, point: CrashPoint) -> None:
        """Die here, if that was planned. `dies_after_commits` counts commits, in a release frames."""
        if self.dies_at != point:
            return
        if self.dies_after_commits == 0:
            raise ProcessDied
        self.dies_after_commits -= 1

    # ------------------------------------------------------------------ when it runs

    def wake(self) -> None:
        self._schedule(self._timeline.time_ns)

    def take(self, frame: bytes) -> None:
        """A frame arrives; who stands idle handles it at once."""
        now_ns = self._timeline.time_ns
        if self.busy_until_ns > now_ns or self.paused_until_ns > now_ns or self._wake_ns <= now_ns:
            self.silo.receive(frame)
            return
        self.silo.receive_unwoken(frame)
        self._wake_ns = now_ns
        self._run(now_ns, None)

    def _schedule(self, due_ns: int) -> None:
        """Run at `due_ns`, or before if something wakes it. An entry that is waiting for that very moment is used."""
        due_ns = max(due_ns, self.busy_until_ns)
        due_ns = max(due_ns, self.paused_until_ns)
        if due_ns < self._wake_ns and due_ns < FOR_EVER_NS:
            self._wake_ns = due_ns
            if due_ns != self._entry_ns:
                if due_ns > self._timeline.time_ns:
                    self._entry_ns = due_ns
                self._timeline.put(due_ns, self._run, due_ns)

    def _run(self, due_ns: int, _: None) -> None:
        if due_ns == self._entry_ns:
            self._entry_ns = -1
        if due_ns != self._wake_ns or not self.is_alive:
            return  # it was woken earlier, or is dead
        self._wake_ns = FOR_EVER_NS
        now_ns = self._timeline.time_ns
        try:
            self._run_batch(now_ns)
        except ProcessDied:
            self.processes.die(self)
            return
        silo = self.silo
        if silo.has_work:
            self._schedule(now_ns)
        else:
            next_ns = silo.next_due_ns()
            if next_ns is not None:
                self._schedule(next_ns if self.is_true_clock else self.clock.true_ns(next_ns))

    def _run_batch(self, now_ns: int) -> None:
        processes, silo = self.processes, self.silo
        before = silo.commit_count
        is_quick = not (processes.commit_ms_max or processes.slow_disk_ns)
        self.batch_delay_ns = COMMIT_NS if is_quick else processes.commit_ns(self)
        point = None
        if processes.fate is not None:
            point = processes.fate(self)
            if self.paused_until_ns > now_ns:
                return
            if point is not None:
                self.dies_at, self.dies_after_commits = point, 0
        try:
            silo.run_batch()
        except JournalUnwritable:
            processes.situations["journal_refused"] += 1
            self._give_up(now_ns)
            return
        if silo.commit_count == before:
            self.busy_until_ns = now_ns + BATCH_NS
        else:
            self.busy_until_ns = now_ns + self.batch_delay_ns
            if silo.commit_count % COMMITS_PER_MAINTENANCE == 0:
                self._maintain()
        if point is not None:
            raise ProcessDied
        for observe in processes.after_batch:
            observe(silo)

    def _maintain(self) -> None:
        try:
            self.journal.maintain()
        except JournalError as error:
            log.debug("%s: not compacted: %s", self.name, error)

    def _give_up(self, now_ns: int) -> None:
        """As the runner in real time does: forget the batch, try again; a zombie ends here."""
        if self.journal.is_fenced:
            raise ProcessDied
        try:
            self.silo.give_up_batch("the journal cannot be written")
        except JournalCorrupt:
            raise
        except JournalError as error:
            log.debug("%s: %s", self.name, error)
        self.busy_until_ns = now_ns + UNWRITABLE_RETRY_NS

    # ------------------------------------------------------------------ what passes its doors

    def transmit(self, to: str, frame: bytes) -> None:
        self.strike("in_release")
        link = self.links.get(to)
        if link is None:
            processes = self.processes
            link = self.links[to] = processes.network.link(self.name, to, processes.deliver_on(self.name, to))
        self.processes.network.send(link, frame, self.batch_delay_ns)


class Processes:
    """Every silo's process, by name. `plug` gives a new silo its ports; `host_clock` says whose clock it has."""

    def __init__(
        self, timeline: Timeline, network: Network, config: Config, digest: Digest, seed: int
    ) -> None:
        self.timeline = timeline
        self.network = network
        self.config = config
        self.digest = digest
        self.by_name: dict[str, Process] = {}
        self.zombies: list[Process] = []
        self.disks: dict[str, SiloDisk] = {}
        self.wipe_counts: dict[str, int] = {}
        self.marks: list[str] = []
        self.situations: Counter[str] = Counter()
        # Told of what is durable, and of what a new life has read.
        self.committed: list[Callable[[str, Batch], None]] = []
        self.recovered: list[Callable[[str, Any, int], None]] = []
        self.wiped: list[Callable[[str], None]] = []
        self.plug: Callable[[Process], None] = lambda _process: None
        self.clock_of: Callable[[str], HostClock] = lambda _name: HostClock(timeline)
        self.has_power: Callable[[str], bool] = lambda _name: True
        self.fate: Callable[[Process], CrashPoint | None] | None = None
        self.after_batch: list[Callable[[Silo], None]] = []
        # Told of each frame that arrives at the telemetry silo, or from it.
        self.overheard: Callable[[Link, bytes], None] = lambda _link, _frame: None
        self.journal_rows_max = JOURNAL_ROWS_MAX
        self.commit_ms_max = 0
        self.clock_step_s_max = 0
        self.torn_tail_percent = 0
        self.slow_disk_ns: dict[str, int] = {}
        self.turns_of_dead = 0
        self.commits_of_dead = 0
        self._seed = seed
        self._lives: dict[str, int] = {}
        self._streams: dict[tuple[str, str], Random] = {}

    # ------------------------------------------------------------------ draws

    def stream(self, purpose: str, name: str) -> Random:
        drawn = self._streams.get((purpose, name))
        if drawn is None:
            drawn = self._streams[purpose, name] = stream(self._seed, purpose, name)
        return drawn

    def commit_ns(self, process: Process) -> int:
        """How long this batch's commit takes, where disks are not always quick."""
        slow_ns = self.slow_disk_ns.get(process.name, 0) if self.slow_disk_ns else 0
        drawn_ns = (process.draw_commit(32) * (self.commit_ms_max * 1_000_000 + 1)) >> 32
        return max(COMMIT_NS, slow_ns, drawn_ns)

    # ------------------------------------------------------------------ life and death

    def disk(self, name: str) -> SiloDisk:
        disk = self.disks.get(name)
        if disk is None:
            disk = self.disks[name] = SiloDisk(name, self.timeline, self.digest)
        return disk

    def is_up(self, name: str) -> bool:
        return name in self.by_name

    def start(self, name: str) -> Process | None:
        """Begin a new life from the disk. None: it runs already, its computer is off, or its disk does not work now."""
        if name in self.by_name or not self.has_power(name):
            return None
        if name == TELEMETRY_SILO and name in self.disks:
            self._lose_disk(name)  # its journal is in memory; what it knows for good is in history
        life = self._lives[name] = self._lives.get(name, 0) + 1
        step_ns = 0
        if self.clock_step_s_max:
            most = self.clock_step_s_max
            step_ns = self.stream("clock_step", name).randint(-most, most) * NS_PER_S
            self.situations["clock_stepped"] += step_ns != 0
        try:
            process = Process(self, name, life, ProcessClock(self.clock_of(name), step_ns))
        except JournalUnwritable:
            self.timeline.after(1.0, lambda: self._start_again(name, life))
            return None
        self.by_name[name] = process
        self.plug(process)
        process.wake()
        return process

    def _start_again(self, name: str, life: int) -> None:
        if self._lives[name] == life:
            self.start(name)

    def crash(self, name: str, restart_after_s: float | None = 1.0) -> bool:
        """Kill the process; what is not committed is gone. False: it did not run.

        `restart_after_s` None: it stays dead until somebody starts it.
        """
        process = self.by_name.get(name)
        if process is None:
            return False
        self.end(process)
        if restart_after_s is not None:
            self.restart_later(name, restart_after_s)
        return True

    def restart_later(self, name: str, after_s: float) -> None:
        life = self._lives[name]
        self.timeline.after(after_s, lambda: self._start_again(name, life))

    def die(self, process: Process) -> None:
        """A planned death has struck in the middle of a batch; a supervisor starts the next life."""
        was_zombie = process.is_zombie
        released = process.dies_at in ("after_commit", "in_release")
        self.situations[
            "died_between_commit_and_release" if released else "commit_lost_with_the_process"
        ] += 1
        self.end(process)
        if not was_zombie:
            self.restart_later(process.name, 1.0)

    def end(self, process: Process) -> None:
        process.is_alive = False
        process.clock.end()
        self._see_last_frames(process)
        self.turns_of_dead += process.silo.turn_count
        self.commits_of_dead += process.silo.commit_count
        if process.is_zombie:
            self.zombies.remove(process)
            return
        del self.by_name[process.name]
        disk = self.disks[process.name]
        disk.user = None
        torn = self.torn_tail_percent
        if torn and self.stream("torn", process.name).randrange(100) < torn:
            disk.begin_write()
        disk.power_off(is_torn=True)

    def _see_last_frames(self, process: Process) -> None:
        """Whether something of a dead process will still arrive."""
        for link in process.links.values():
            if link.busy_until_ns > max(self.timeline.time_ns, link.cut_until_ns) and link.to in self.by_name:
                self.situations["frame_of_a_former_life"] += 1

    def die_soon(self, name: str, point: CrashPoint, after_commits: int = 0) -> None:
        """Let the process die at `point` of its next batch that commits, or of one after so many commits more."""
        process = self.by_name.get(name)
        if process is not None:
            process.dies_at, process.dies_after_commits = point, after_commits

    def wipe(self, name: str, *, starts: bool = True) -> None:
        """Lose the disk with the process; start anew with nothing, now or when somebody says so."""
        self.crash(name, None)
        self._lose_disk(name)
        if starts:
            self.start(name)

    def _lose_disk(self, name: str) -> None:
        self.wipe_counts[name] = self.wipe_counts.get(name, 0) + 1
        self.disks.pop(name, None)
        for forget in self.wiped:
            forget(name)

    def pause(self, name: str, seconds: float | None) -> None:
        """Stand still: frames and timers queue up. None: until it is crashed."""
        process = self.by_name.get(name)
        if process is None:
            return
        if seconds is None:
            process.paused_until_ns = FOR_EVER_NS
            return
        process.paused_until_ns = max(
            process.paused_until_ns, self.timeline.time_ns + int(seconds * NS_PER_S)
        )
        process._wake_ns = FOR_EVER_NS
        process._schedule(process.paused_until_ns)

    def resume(self, name: str) -> None:
        """End a pause."""
        process = self.by_name.get(name)
        if process is not None and process.paused_until_ns > self.timeline.time_ns:
            process.paused_until_ns = 0
            process.wake()

    def haunt(self, name: str) -> Process | None:
        """A new life starts from the disk while the old one goes on; what is sent to the name reaches the new one."""
        old = self.by_name.pop(name, None)
        if old is None:
            return None
        old.is_zombie = True
        old.journal.is_fenced = True
        self.disks[name].user = None
        self.zombies.append(old)
        self.situations["two_engines_alive"] += name == ENGINE_SILO
        return self.start(name)

    # ------------------------------------------------------------------ what arrives

    def deliver_on(self, source: str, to: str) -> Deliver:
        """Who takes what arrives on a link between two silos."""
        return self._deliver_overheard if TELEMETRY_SILO in (source, to) else self.deliver

    def _deliver_overheard(self, link: Link, frame: bytes) -> None:
        if link.to in self.by_name:
            self.overheard(link, frame)
        self.deliver(link, frame)

    def deliver(self, link: Link, frame: bytes) -> None:
        process = self.by_name.get(link.to)
        if process is not None:
            process.take(frame)

    def post(self, name: str, envelope: Envelope) -> bool:
        """Give a silo a client's message; false: it does not run."""
        process = self.by_name.get(name)
        if process is None:
            return False
        process.silo.post(envelope)
        return True

    def turn_count(self) -> int:
        living = sum(process.silo.turn_count for process in [*self.by_name.values(), *self.zombies])
        return self.turns_of_dead + living

    def commit_count(self) -> int:
        living = sum(process.silo.commit_count for process in [*self.by_name.values(), *self.zombies])
        return self.commits_of_dead + living

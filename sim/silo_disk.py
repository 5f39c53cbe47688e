"""A silo's disk and its journal, as a simulated process has them.

It decides where in a write a planned death strikes. What is durable is told and goes into the digest; a journal whose
process was replaced can write no more.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Literal

from olvm.journal.memory_disk import DiskFault, MemoryDisk, checked
from olvm.journal.memory_journal import MemoryJournal
from olvm.journal.port import Batch, Recovered
from olvm.model.errors import JournalUnwritable
from sim.clock import Timeline
from sim.digest import Digest

if TYPE_CHECKING:
    from sim.processes import Process

# Where a process dies: before anything of its batch is on the disk, in the middle of writing it, when it is durable
# and nothing was released, and between two frames of the release.
CrashPoint = Literal["before_commit", "in_commit", "after_commit", "in_release"]


class ProcessDied(Exception):
    """Thrown where a planned death strikes; caught by the process's own `run` and by nobody else."""


class SiloDisk(MemoryDisk):
    """A silo's disk: what is written on it goes into the digest, and a death may strike while it writes."""

    def __init__(self, where: str, timeline: Timeline, digest: Digest) -> None:
        super().__init__()
        self.user: Process | None = None
        self._where = f"disk/{where}".encode()
        self._timeline = timeline
        self._digest = digest

    def write(self, payload: bytes) -> None:
        self._strike("before_commit")
        super().write(payload)
        self._digest.note(self._timeline.time_ns, self._where, payload)

    def ends_torn(self) -> bool:
        return bool(self._frames) and checked(self._frames[-1]) is None

    def begin_write(self) -> None:
        """A batch that was on its way to the disk when its process died: half of it is there."""
        with contextlib.suppress(DiskFault):
            super().write(b"a batch that nobody was told of")

    def sync(self) -> None:
        self._strike("in_commit")
        super().sync()

    def _strike(self, point: CrashPoint) -> None:
        if self.user is not None:
            self.user.strike(point)


class SiloJournal(MemoryJournal):
    """A journal whose handle can be taken away, and that says what it has made durable and what it has read."""

    owner: Process | None = None
    is_fenced = False

    def commit(self, batch: Batch) -> None:
        self._check_fence()
        super().commit(batch)
        if self.owner is not None:
            for committed in self.owner.processes.committed:
                committed(self.owner.name, batch)
            self.owner.strike("after_commit")

    def recover(self) -> Recovered:
        found = super().recover()
        if self.owner is not None:
            for recovered in self.owner.processes.recovered:
                recovered(self.owner.name, found.records, found.next_event_seq)
        return found

    def maintain(self) -> bool:
        self._check_fence()
        return super().maintain()

    def _check_fence(self) -> None:
        if self.is_fenced:
            raise JournalUnwritable("another process has taken this journal")

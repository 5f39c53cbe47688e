"""The loop that owns a silo in real time: one thread, woken by what arrives or by the next timer.

Here live the only reactions to a journal that cannot be written: nothing is released, the silo forgets the batch
as a crash would, and the loop tries again, so that what was acknowledged stays and what was not is sent again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from actors.silo import Silo
from olvm.model.errors import JournalCorrupt, JournalError, JournalUnwritable
from olvm.model.limits import NS_PER_S

log = logging.getLogger("olvm.runner")

IDLE_WAIT_S_MAX = 5.0
UNWRITABLE_RETRY_S = 1.0
QUIET_S = 0.2
COMMITS_PER_MAINTENANCE = 256


class SiloRunner:
    """Runs `silo` in a thread of its own until `stop`."""

    def __init__(self, name: str, make_silo: Callable[[Callable[[], None]], Silo]) -> None:
        self._woken = threading.Event()
        self._stopping = False
        self.fault: BaseException | None = None
        # Told when the thread ends by a fault: where the process is the silo's own, it ends too and is restarted.
        self.on_fault: Callable[[], None] | None = None
        self.unwritable: str = ""
        self.silo = make_silo(self._woken.set)
        self._thread = threading.Thread(target=self._run, name=f"silo-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after the batch under way and close the journal. Idempotent."""
        self._stopping = True
        self._woken.set()
        if self._thread.ident is None:
            self.silo.journal.close()  # never started: nobody else lets go of the file
        elif self._thread.is_alive():
            self._thread.join(timeout=30)

    def wake(self) -> None:
        self._woken.set()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        silo = self.silo
        try:
            while not self._stopping:
                self._step(silo)
        except BaseException as fault:  # the supervisor of the thread: it must not die in silence
            self.fault = fault
            log.exception("silo %s ended", silo.name)
            raise
        finally:
            silo.journal.close()
            if self.fault is not None and self.on_fault is not None:
                self.on_fault()

    def _step(self, silo: Silo) -> None:
        self._woken.clear()
        try:
            silo.run_batch()
            self.unwritable = ""
            if silo.commit_count % COMMITS_PER_MAINTENANCE == 0:
                silo.journal.maintain()
        except JournalUnwritable as error:
            self._give_up(silo, error)
            return
        if silo.has_work:
            return
        due_ns = silo.next_due_ns()
        wait_s = IDLE_WAIT_S_MAX if due_ns is None else (due_ns - clock_ns()) / NS_PER_S
        if wait_s > 0 and not self._woken.wait(min(wait_s, IDLE_WAIT_S_MAX, QUIET_S)):
            self._rest(silo)
            self._woken.wait(max(0.0, min(wait_s, IDLE_WAIT_S_MAX) - QUIET_S))

    def _rest(self, silo: Silo) -> None:
        """Nothing has come for a while: a checkpoint now keeps nobody waiting."""
        try:
            silo.journal.maintain()
        except JournalUnwritable as error:
            self._give_up(silo, error)

    def _give_up(self, silo: Silo, error: JournalError) -> None:
        """Let the silo forget its batch; while the journal cannot even be read, try that again."""
        given_up = False
        while not (given_up or self._stopping):
            self.unwritable = error.message
            log.error("silo %s: %s; nothing of this batch was acknowledged, trying again", silo.name, error)
            try:
                silo.give_up_batch(error.message)
                given_up = True
            except JournalCorrupt:
                raise
            except JournalError as again:
                error = again
            time.sleep(UNWRITABLE_RETRY_S)


_WALL_AT_START_NS = time.time_ns() - time.monotonic_ns()


def clock_ns() -> int:
    """Wall time at the start of the process plus what has passed since: deadlines in records mean the same after a
    restart, and a step of the wall clock moves no timer."""
    return _WALL_AT_START_NS + time.monotonic_ns()

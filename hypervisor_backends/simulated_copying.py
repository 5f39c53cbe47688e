"""How the memory of a running guest is copied: iterations that chase what the guest dirties meanwhile.

Decides bytes and moments only; who is told what is `simulated_migration.py`. The first iteration sends all memory,
each later one what was dirtied during the one before. The guest dirties memory in proportion to the CPU time that
it uses, so a paused guest dirties nothing. Auto-convergence is QEMU's: once two iterations dirtied more than half of
what they sent, the guest's dirtying is throttled by 20 %, then by 10 % more each time, up to 99 %.
"""

from __future__ import annotations

import math

from hypervisor_backends.protocol import MigrationStatistics
from olvm.model.limits import NS_PER_S

THROTTLE_FIRST = 0.20
THROTTLE_STEP = 0.10
THROTTLE_MAX = 0.99
DIRTY_SHARE_MAX = 0.5  # of what an iteration sent: more of it counts towards a throttle
HIGH_COUNT_MAX = 2
# No iteration is shorter, however small the downtime asked for: it bounds the timers of one migration.
ITERATION_NS_MIN = NS_PER_S // 10


class Copying:
    """One migration's progress. `core_ns` is the guest's used CPU time, which only ever grows."""

    __slots__ = (
        "_core_ns_at",
        "_dirty_bytes_per_core_ns",
        "_high_count",
        "_iteration_begun_ns",
        "_iteration_bytes",
        "_mark_ns",
        "_never_converges",
        "_throttle",
        "_working_set_bytes",
        "auto_converge",
        "downtime_ms",
        "iteration",
        "left_bytes",
        "memory_bytes",
        "rate",
        "sent_bytes",
    )

    def __init__(
        self,
        *,
        memory_bytes: int,
        working_set_bytes: float,
        dirty_bytes_per_core_ns: float,
        downtime_ms: int,
        auto_converge: bool,
        never_converges: bool,
    ) -> None:
        self.memory_bytes = memory_bytes
        self.rate = 0.0  # bytes/s; infinite where a copy takes no time
        self.downtime_ms = downtime_ms
        self.auto_converge = auto_converge
        self.iteration = 0  # 0 until the first one begins
        self.left_bytes = 0.0  # of the present iteration, at _mark_ns
        self.sent_bytes = 0.0
        self._working_set_bytes = working_set_bytes
        self._dirty_bytes_per_core_ns = dirty_bytes_per_core_ns
        self._never_converges = never_converges
        self._iteration_bytes = 0.0
        self._iteration_begun_ns = 0
        self._core_ns_at = 0.0  # at the begin of the present iteration
        self._mark_ns = 0
        self._throttle = 0.0
        self._high_count = 0

    def begin(self, now_ns: int, core_ns: float) -> None:
        self._begin_iteration(float(self.memory_bytes), now_ns, core_ns)

    def set_rate(self, rate: float, now_ns: int) -> None:
        self._settle(now_ns)
        self.rate = rate

    def due_ns(self) -> int:
        """When all of the present iteration is sent, at the present rate."""
        if self.rate == math.inf:
            return self._mark_ns
        sent_ns = self._mark_ns + math.ceil(self.left_bytes / self.rate * NS_PER_S)
        return max(sent_ns, self._iteration_begun_ns + ITERATION_NS_MIN)

    def end_iteration(self, now_ns: int, core_ns: float) -> bool:
        """All of the iteration is sent; begin the next. True: it fits into the allowed downtime."""
        self.sent_bytes += self.left_bytes
        sent = self._iteration_bytes
        dirty = self._dirtied_bytes(core_ns)
        if self.auto_converge and dirty > DIRTY_SHARE_MAX * sent:
            self._high_count += 1
            if self._high_count == HIGH_COUNT_MAX:
                self._high_count = 0
                step = THROTTLE_STEP if self._throttle else THROTTLE_FIRST
                self._throttle = min(self._throttle + step, THROTTLE_MAX)
        self._begin_iteration(dirty, now_ns, core_ns)
        return self._time_ms(dirty) <= self.downtime_ms

    def begin_rest(self, now_ns: int, core_ns: float) -> None:
        """The guest stands still at the source from now on; what is left to send only shrinks."""
        self._settle(now_ns)
        self._begin_iteration(
            min(self.left_bytes + self._dirtied_bytes(core_ns), float(self.memory_bytes)), now_ns, core_ns
        )

    def rest_due_ns(self) -> int:
        return self._mark_ns + math.ceil(self.left_bytes / self.rate * NS_PER_S)

    def end_rest(self) -> None:
        self.sent_bytes += self.left_bytes
        self.left_bytes = 0.0

    def statistics(self, now_ns: int, core_ns: float, cores: float, post_copy: bool) -> MigrationStatistics:
        self._settle(now_ns)
        dirty_rate = 0.0 if post_copy else self._dirty_rate(cores, core_ns)
        rate = self.rate if 0.0 < self.rate < math.inf else 0.0
        iteration_s = self._iteration_bytes / rate if rate else 0.0
        dirtied = min(dirty_rate * iteration_s, self._working_set_bytes)
        progress = int(100.0 * (1.0 - self.left_bytes / self.memory_bytes)) if self.iteration else 0
        return MigrationStatistics(
            progress_percent=max(0, min(progress, 99)),
            data_total_bytes=self.memory_bytes,
            data_processed_bytes=int(self.sent_bytes),
            data_remaining_bytes=math.ceil(self.left_bytes) if self.iteration else self.memory_bytes,
            memory_iteration=self.iteration,
            dirty_bytes_per_s=dirty_rate,
            bandwidth_bytes_per_s=rate,
            downtime_ms=self.downtime_ms,
            expected_downtime_ms=math.ceil(1000.0 * dirtied / rate) if rate else 0,
            post_copy=post_copy,
        )

    def _begin_iteration(self, size_bytes: float, now_ns: int, core_ns: float) -> None:
        self.iteration += 1
        self._iteration_bytes = self.left_bytes = size_bytes
        self._iteration_begun_ns = self._mark_ns = now_ns
        self._core_ns_at = core_ns

    def _settle(self, now_ns: int) -> None:
        """Count what was sent since the mark."""
        if now_ns > self._mark_ns and self.left_bytes:
            sent = min(self.left_bytes, self.rate * (now_ns - self._mark_ns) / NS_PER_S)
            self.sent_bytes += sent
            self.left_bytes -= sent
        self._mark_ns = max(self._mark_ns, now_ns)

    def _dirtied_bytes(self, core_ns: float) -> float:
        used_ns = core_ns - self._core_ns_at
        if self._never_converges and used_ns > 0:
            return self._working_set_bytes
        dirty = self._dirty_bytes_per_core_ns * used_ns * (1.0 - self._throttle)
        return min(max(dirty, 0.0), self._working_set_bytes)

    def _dirty_rate(self, cores: float, core_ns: float) -> float:
        if self._never_converges and core_ns > self._core_ns_at:
            return max(2.0 * self.rate, 0.0) if self.rate < math.inf else 0.0
        return self._dirty_bytes_per_core_ns * cores * NS_PER_S * (1.0 - self._throttle)

    def _time_ms(self, size_bytes: float) -> float:
        return 1000.0 * size_bytes / self.rate

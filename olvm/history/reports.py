"""Which reports were already counted: a window per host and kind, like the anti-replay window of IPsec.

Rule: a report (kind, host, host_epoch, seq) is counted at most once, also when it comes late or again, and
also after a restart (the windows are rebuilt from `sample_reports`). One that falls out of the window is not
counted.
"""

from __future__ import annotations

from typing import Final, Literal

from olvm.history.bounds import REPORT_WINDOW

Verdict = Literal["accepted", "repeated", "late"]

_MASK: Final = (1 << REPORT_WINDOW) - 1


class ReportWindows:
    def __init__(self) -> None:
        # (kind, host) -> (epoch, highest seq, bits of the seqs below it: bit i is highest - i)
        self._by_host: dict[tuple[str, str], tuple[int, int, int]] = {}

    def judge(self, kind: str, host: str, epoch: int, seq: int) -> Verdict:
        """Whether this report is to be counted; if so, it is remembered."""
        known = self._by_host.get((kind, host))
        if known is None or epoch > known[0]:
            self._by_host[kind, host] = (epoch, seq, 1)
            return "accepted"
        known_epoch, highest, seen = known
        if epoch < known_epoch:
            return "late"
        if seq > highest:
            step = seq - highest
            seen = ((seen << step) | 1) & _MASK if step < REPORT_WINDOW else 1
            self._by_host[kind, host] = (epoch, seq, seen)
            return "accepted"
        age = highest - seq
        if age >= REPORT_WINDOW:
            return "late"
        if seen >> age & 1:
            return "repeated"
        self._by_host[kind, host] = (epoch, highest, seen | 1 << age)
        return "accepted"

    def __len__(self) -> int:
        return len(self._by_host)

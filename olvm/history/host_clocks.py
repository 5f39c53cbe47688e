"""Hosts whose samples carry times that cannot be: who, how many reports, and how far off.

Decides what is far off. Such samples are stored as they were told, for nobody here knows which of two clocks is wrong;
but what is older than history keeps is not taken. Either is told, by whoever asks `take`.
"""

from __future__ import annotations

from typing import Final

import msgspec

from olvm.history.bounds import CLOCKS_NOTED_MAX, NS_PER_S

# More than reports take on their way, and than clocks that are kept by NTP differ.
AHEAD_S_MAX: Final = 300


class OddClock(msgspec.Struct):
    """`ahead_ns` is the most of those `ahead_count` reports; `expired_ns` is how old the oldest of the others was."""

    host: str
    ahead_count: int = 0
    ahead_ns: int = 0
    expired_count: int = 0
    expired_ns: int = 0


class HostClocks:
    def __init__(self) -> None:
        self._by_host: dict[str, OddClock] = {}

    def note_ahead(self, host: str, ahead_ns: int) -> None:
        """Of any report; only those that are too far ahead count."""
        if ahead_ns > AHEAD_S_MAX * NS_PER_S:
            odd = self._of(host)
            odd.ahead_count += 1
            odd.ahead_ns = max(odd.ahead_ns, ahead_ns)

    def note_expired(self, host: str, age_ns: int) -> None:
        odd = self._of(host)
        odd.expired_count += 1
        odd.expired_ns = max(odd.expired_ns, age_ns)

    def take(self) -> list[OddClock]:
        """What was noted since this was asked last."""
        taken, self._by_host = list(self._by_host.values()), {}
        return taken

    def _of(self, host: str) -> OddClock:
        name = host if host in self._by_host or len(self._by_host) < CLOCKS_NOTED_MAX else ""
        return self._by_host.setdefault(name, OddClock(name))

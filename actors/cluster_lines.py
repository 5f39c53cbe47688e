"""Which lines of a host's full report its machines are told: those that may be news, and now and then all of them.

Agents tell each change of a machine by themselves and durably, so a full report says what is known already; it mends
what went wrong with that. Rules:
1. A line is left out only if the same one was passed before, of the same start of the agent, and only for a machine
   at rest: it holds its place there with that epoch and has no second copy. Who begins, moves or ends hears all.
2. Each REPORTS_PER_REPEAT-th report of a host is passed on whole, so a line that was lost on its way to a machine in
   another silo is repaired by then.
3. What was passed is forgotten when machines are told anything about their host, and when the cluster recovers.
"""

from __future__ import annotations

import msgspec

from actors.cluster_book import Book
from olvm.model import messages as m
from olvm.model.vm_states import VmStatus

REPORTS_PER_REPEAT = 4
AT_REST = frozenset({VmStatus.UP, VmStatus.PAUSED})


class _Passed(msgspec.Struct):
    """What the machines of a host were told since the last report that was passed on whole."""

    agent: str
    host_epoch: int
    report_count: int = 0
    line_by_vm_id: dict[str, m.DomainState] = {}


class Lines:
    def __init__(self, book: Book) -> None:
        self.book = book
        self._passed_by_host: dict[str, _Passed] = {}

    def forget(self, host: str) -> None:
        self._passed_by_host.pop(host, None)

    def to_pass(self, report: m.HostReported) -> list[m.DomainState]:
        """The lines that may be news to their machines; they count as told from now on."""
        passed = self._passed_by_host.get(report.host)
        if (
            passed is None
            or passed.report_count == REPORTS_PER_REPEAT
            or (passed.agent, passed.host_epoch) != (report.agent, report.host_epoch)
        ):
            passed = self._passed_by_host[report.host] = _Passed(report.agent, report.host_epoch)
        passed.report_count += 1
        host, reservations, copies = report.host, self.book.reservations, self.book.copy_keys_by_vm
        before, now = passed.line_by_vm_id, {}
        news = []
        for line in report.domains:
            vm_id = line.vm_id
            held = reservations.get(vm_id)
            if (
                held is not None
                and held.epoch == line.epoch
                and held.host == host
                and line.status in AT_REST
                and vm_id not in copies
            ):
                now[vm_id] = line
                if before.get(vm_id) == line:
                    continue
            news.append(line)
        passed.line_by_vm_id = now
        return news

"""L6: history catches up: with the engine's logs, and with what the agents that live have sampled."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar, cast

from olvm.history.samples import decode_batch
from olvm.journal.port import Batch
from olvm.model.host_states import HostStatus
from olvm.model.limits import NS_PER_S
from olvm.model.records import EventRecord, HostRecord, OperationRecord
from sim.oracles.oracle import Oracle, OracleKind, ReportName, Witness, report_name

# From an event to history: a pull and a flush each second or two, and one repetition of either.
LATE_S = 60


class _Sent:
    """What one life of an agent has sent: when each number came first, and which of them are in history."""

    def __init__(self, host: str, incarnation: int) -> None:
        self.host = host
        self.incarnation = incarnation
        self.heard_ns_by_number: dict[int, int] = {}
        self.number_by_name: dict[ReportName, int] = {}
        self.stored: set[int] = set()


class HistoryComplete(Oracle):
    ID: ClassVar[str] = "L6"
    KIND: ClassVar[OracleKind] = "liveness"
    PROMISE: ClassVar[str] = (
        "faults off: history has all events and ended operations, and every report of the agents that live but those"
        " that they told as dropped"
    )

    def __init__(self, witness: Witness) -> None:
        super().__init__(witness)
        self._logged: dict[str, tuple[int, str]] = {}  # not yet in history: when, and what
        self._ended: set[str] = set()
        self._sent_by_agent: dict[str, _Sent] = {}
        self._sent_by_report: dict[ReportName, _Sent] = {}  # of those that are not in history
        self._dropped_by_host: Counter[str] = Counter()  # reports, as told

    def committed(self, silo: str, batch: Batch) -> None:
        if silo != "engine" or not self.witness.has_history:
            return
        now_ns = self.witness.now_ns
        for event in cast("dict[str, EventRecord]", batch.upserts.get(EventRecord, {})).values():
            self._logged[f"event {event.seq}"] = now_ns, event.code
            if event.code == "samples_dropped":
                self._dropped_by_host[event.host] += cast(int, event.details["reports"])
        for row in cast("dict[str, OperationRecord]", batch.upserts.get(OperationRecord, {})).values():
            if row.finished_ns is not None and row.id not in self._ended:
                self._ended.add(row.id)
                self._logged[f"operation {row.id}"] = now_ns, f"{row.kind} {row.target_name}"

    def event_stored(self, source: str, event: EventRecord) -> None:
        del source
        self._logged.pop(f"event {event.seq}", None)

    def operation_stored(self, operation: OperationRecord) -> None:
        self._logged.pop(f"operation {operation.id}", None)

    def samples_sent(self, agent: str, incarnation: int, number: int, payload: bytes) -> None:
        sent = self._sent_by_agent.get(agent)
        batch = decode_batch(payload)
        if sent is None or incarnation > sent.incarnation:
            sent = self._sent_by_agent[agent] = _Sent(batch.host, incarnation)
        if incarnation < sent.incarnation or number in sent.heard_ns_by_number:
            return
        name = report_name(batch)
        sent.heard_ns_by_number[number] = self.witness.now_ns
        sent.number_by_name[name] = number
        self._sent_by_report[name] = sent

    def report_stored(self, name: ReportName, payload: bytes) -> None:
        del payload
        sent = self._sent_by_report.pop(name, None)
        if sent is not None:
            sent.stored.add(sent.number_by_name[name])

    def settled(self) -> None:
        if not self.witness.has_history:
            return
        now_ns = self.witness.now_ns
        for what, (at_ns, says) in self._logged.items():
            late_s = (now_ns - at_ns) / NS_PER_S
            if late_s > LATE_S:
                self.fail(f"{what} ({says}) was committed {late_s:.0f} s ago and is not in history")
        sent_by_host = {sent.host: sent for sent in self._sent_by_agent.values()}
        for host in cast("dict[str, HostRecord]", self.witness.durable("engine", HostRecord)).values():
            if host.status == HostStatus.UP and self.witness.is_powered(host.name):
                self._judge(host.name, sent_by_host.get(host.name), now_ns)

    def _judge(self, host: str, sent: _Sent | None, now_ns: int) -> None:
        """Of a host that is in service."""
        late_ns = int((LATE_S + 2 * self.witness.config.sample_period_s) * NS_PER_S)
        heard = {} if sent is None else sent.heard_ns_by_number
        newest_ns = max(heard.values(), default=0)
        if sent is None or now_ns - newest_ns > late_ns:
            self.fail(f"host {host} is up, and no samples of it came since {newest_ns / NS_PER_S:.0f} s")
        old = max((number for number, at_ns in heard.items() if now_ns - at_ns > late_ns), default=0)
        missing = [number for number in range(1, old + 1) if number not in sent.stored]
        if len(missing) > self._dropped_by_host[host]:
            self.fail(
                f"{len(missing)} reports of host {host} are not in history, the first of them number {missing[0]} of"
                f" incarnation {sent.incarnation}; {self._dropped_by_host[host]} were told as dropped"
            )

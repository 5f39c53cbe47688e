"""The history of simulated worlds answers as the file does: any order of what a telemetry silo may ask, both at once.

What one has on its disk when its process dies, the other has; so what is tried in the simulator holds for the file.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from olvm.history import store as store_module
from olvm.history.reports import Verdict
from olvm.history.store import HistoryStore
from olvm.model.records import OperationRecord
from sim.hearing import Hearing
from sim.history import HistoryDisk, SimulatedHistory
from tests.unit.history.building import NOW_NS, event, vm_report

LOG = "engine/operations"


def operation(number: int) -> OperationRecord:
    """Two end in each moment."""
    return OperationRecord(
        f"op-{number}",
        "start",
        "vm",
        "v1",
        "web",
        status="succeeded",
        finished_ns=NOW_NS + number // 2 * 1_000,
    )


class AnyOrder(RuleBasedStateMachine):
    @initialize()
    def open_both(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "history.duckdb"
        self.file = HistoryStore.open(self.path)
        self.disk = HistoryDisk(Hearing())
        self.begin()

    def begin(self) -> None:
        # Never of itself: what the file commits early, many samples decide, and here are few.
        self.simulated = SimulatedHistory(self.disk, lambda below: below - 1, [])

    @rule(host=st.sampled_from(["H1", "H2"]), epoch=st.integers(1, 3), seq=st.integers(1, 80))
    def report(self, host: str, epoch: int, seq: int) -> None:
        payload = vm_report(host=host, host_epoch=epoch, seq=seq, at_ns=NOW_NS + seq)
        verdicts: list[Verdict | str] = [one.add_samples(payload) for one in (self.file, self.simulated)]
        assert verdicts[0] == verdicts[1]

    @rule(first=st.integers(1, 12), count=st.integers(1, 6), erased=st.booleans())
    def events(self, first: int, count: int, erased: bool) -> None:
        page = [event(seq) for seq in range(first, first + count)]
        kept = first if erased else 1
        taken = [one.add_events("engine", page, first_kept_seq=kept) for one in (self.file, self.simulated)]
        assert taken[0] == taken[1]

    @rule(first=st.integers(0, 12), count=st.integers(1, 6))
    def operations(self, first: int, count: int) -> None:
        page = [operation(number) for number in range(first, first + count)]
        taken = [one.add_operations(page, LOG) for one in (self.file, self.simulated)]
        assert taken[0] == taken[1]

    @rule()
    def commit(self) -> None:
        self.file.commit()
        self.simulated.commit()

    @rule()
    def die(self) -> None:
        """What was not committed is gone, and the next life goes on from the disk."""
        self.file._drop_connection("the process is dead")
        store_module._paths_open.discard(self.file.path)
        self.file = HistoryStore.open(self.path)
        self.begin()

    @invariant()
    def cursors_are_the_same(self) -> None:
        for log in ("engine", LOG):
            assert self.file.event_cursor(log) == self.simulated.event_cursor(log)

    def teardown(self) -> None:
        if not hasattr(self, "file"):
            return
        self.commit()
        reports = self.file.query(
            "select kind, text, host_epoch, seq from sample_reports join texts on text_key = host_key"
        ).rows
        assert sorted(reports) == sorted(self.disk.reports)  # type: ignore[type-var]
        events = self.file.query("select source, seq from events").rows
        assert sorted(events) == sorted(self.disk.events)  # type: ignore[type-var]
        operations = self.file.query("select operation_id from operations_history").rows
        assert sorted(row[0] for row in operations) == sorted(self.disk.operations)  # type: ignore[type-var]
        self.file.close()
        self.directory.cleanup()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)

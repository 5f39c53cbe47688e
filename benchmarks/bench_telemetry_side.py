"""Whether a flood of samples, or heavy questions to history, slow the engine: latency of starts. JSON lines.

Starts are timed alone, beside the flood, beside questions, and beside both: the last tells whether questions hold up
ingest. As many questions run as may run at once, one after the other without a pause.

Samples are poured into the telemetry silo as agents send them. Their reports are encoded once and stamped anew each
time, so that this process, which also measures, does not spend itself on encoding; each report is new to history.
What arrived is counted in history. Use Ray: in the local runtime all silos share one interpreter's lock.

python benchmarks/bench_telemetry_side.py [--runtime ray|local] [--samples-per-s 200000] [--starts 500]
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable

import msgspec
from bench_history import Fleet
from bench_starts import time_start
from measuring import Teller, add_hosts, create_vms, instant

import olvm
from actors.questions import AT_ONCE
from actors.wire import TELEMETRY_SILO, Frame, encode
from olvm.history.samples import SampleBatch, decode_batch
from olvm.model.errors import OlvmError
from olvm.model.messages import Samples

VMS_PER_REPORT = 75
TICK_S = 0.05
DRAIN_S_MAX = 60.0
STORED_QUERY = (
    "select count(*) from vm_samples s join vm_names v using (vm_key) where v.vm_name like 'vm-%-%'"
)
# Sorts all samples of history by machine, in every column that it names: nothing of it is in a roll-up.
HEAVY_QUESTION = (
    "select vm_id, median(cpu_usage_percent), quantile_cont(memory_used_mb, 0.99), count(distinct history_datetime)"
    " from statistics_vms_resources_usage_samples group by vm_id order by 2 desc limit 10"
)
POURED_BEFORE_S = 2.0  # the flood has its full strength when the first start is timed


class Flood:
    """Pours samples until it is left; `with` runs it in a thread."""

    def __init__(self, transmit: Callable[[str, bytes], None], samples_per_s: float, host_epoch: int) -> None:
        """Another `host_epoch` is another boot of the same hosts, so that its reports are new to history."""
        self._transmit = transmit
        self._host_epoch = host_epoch
        self._reports_per_tick = max(1, round(samples_per_s * TICK_S / VMS_PER_REPORT))
        fleet = Fleet(self._reports_per_tick, VMS_PER_REPORT, seed=1)
        fleet.step(0.0)
        self._batches: list[SampleBatch] = [decode_batch(payload) for payload in fleet.encoded(0)]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flood", daemon=True)
        self.sent = 0
        self.seconds = 0.0

    def __enter__(self) -> Flood:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(timeout=30)

    def _run(self) -> None:
        began_s = due_s = time.perf_counter()
        round_number = 1
        while not self._stopping.wait(max(0.0, due_s - time.perf_counter())):
            due_s += TICK_S
            round_number += 1
            self._transmit(TELEMETRY_SILO, self._frame(round_number))
            self.sent += self._reports_per_tick * VMS_PER_REPORT
        self.seconds = time.perf_counter() - began_s

    def _frame(self, round_number: int) -> bytes:
        at_ns = time.time_ns()
        volatile = []
        for batch in self._batches:
            payload = encode(
                msgspec.structs.replace(batch, host_epoch=self._host_epoch, seq=round_number, at_ns=at_ns)
            )
            volatile.append(
                encode((f"telemetry@{TELEMETRY_SILO}", "flood@host-flood", "flood", "", Samples(payload)))
            )
        return encode(
            Frame(
                source="host-flood",
                source_id="flood",
                base_seq=1,
                first_seq=1,
                durable=[],
                volatile=volatile,
                acked_seq=0,
                acked_id="",
            )
        )


class Askers:
    """Asks history one heavy question after the other, in as many threads as may be answered at once."""

    def __init__(self, dc: olvm.DataCenter) -> None:
        self._dc = dc
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, name=f"asker-{number}", daemon=True)
            for number in range(AT_ONCE)
        ]
        self.answered = 0
        self.failed: list[str] = []

    def __enter__(self) -> Askers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(timeout=120)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._dc.sql(HEAVY_QUESTION, timeout=120)
                self.answered += 1
            except OlvmError as error:
                self.failed.append(error.message)
                time.sleep(0.1)


def transmit_of(dc: olvm.DataCenter, runtime: str) -> Callable[[str, bytes], None]:
    """The runtime's own way to a silo: there is no other, because tenants do not send samples."""
    opened = dc._runtime
    transmit: Callable[[str, bytes], None] = opened._peers.transmit if runtime == "ray" else opened._transmit
    return transmit


def stored_count(dc: olvm.DataCenter) -> int:
    """By the flood's own hosts: those of the data center send samples too."""
    while True:
        try:
            return int(dc.sql(STORED_QUERY, timeout=120).one())
        except OlvmError:  # history had no memory for a commit, ended all questions and opens its file anew
            time.sleep(0.2)


def drain(dc: olvm.DataCenter, before: int, sent: int) -> tuple[int, float]:
    """How many of the samples history holds in the end, and how long after the flood it had them."""
    began_s = time.perf_counter()
    while True:
        stored = stored_count(dc) - before
        waited_s = time.perf_counter() - began_s
        if stored >= sent or waited_s > DRAIN_S_MAX:
            return stored, waited_s
        time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Whether samples and questions slow the engine.")
    parser.add_argument("--runtime", choices=["ray", "local"], default="ray")
    parser.add_argument("--samples-per-s", type=float, default=200_000)
    parser.add_argument("--starts", type=int, default=500)
    arguments = parser.parse_args()
    teller = Teller("telemetry_side", vars(arguments))
    with (
        tempfile.TemporaryDirectory(prefix="olvm-bench-") as directory,
        olvm.DataCenter.open(directory, runtime=arguments.runtime, simulated=instant()) as dc,
    ):
        count = arguments.starts
        add_hosts(dc, "bench", count=4, vm_count=4 * count)
        names = [f"vm-{number:06}" for number in range(4 * count)]
        create_vms(dc, "bench", names, in_flight=1000)

        def starts(case: str, number: int) -> None:
            chosen = names[number * count : (number + 1) * count]
            teller.tell_percentiles(f"start_{case}", [time_start(dc, name) for name in chosen])

        def pour(case: str, number: int) -> None:
            before = stored_count(dc)
            with Flood(transmit_of(dc, arguments.runtime), arguments.samples_per_s, number) as flood:
                time.sleep(POURED_BEFORE_S)
                starts(case, number)
            stored, drained_s = drain(dc, before, flood.sent)
            teller.tell(f"{case}.samples_sent", flood.sent / flood.seconds, "1/s")
            teller.tell(f"{case}.samples_stored", 100 * stored / flood.sent, "percent")
            teller.tell(f"{case}.stored_after_flood", drained_s, "s")

        starts("quiet", 0)
        pour("flooded", 1)
        with Askers(dc) as askers:
            starts("questioned", 2)
            pour("flooded_and_questioned", 3)
        teller.tell("questions_answered", askers.answered, "count")
        teller.tell("questions_failed", len(askers.failed), "count")


if __name__ == "__main__":
    main()

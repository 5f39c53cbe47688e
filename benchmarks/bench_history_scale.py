"""History at scale: JSON lines, one figure each; nothing is asserted.

A fleet (`history_fleet`) reports each 60 s, as oVirt keeps samples, for the given days, after days of the past with a
report each half hour that give the hourly and daily tables, and Parquet, their length at little cost. All of it goes
through HistoryStore's public writers, with roll-ups, moves to Parquet and retention as in production: commits when so
many samples wait as start one, and `maintain` each 15 minutes of the story, which pass in seconds here (in production
each 2 s and each 300 s of real time; `--commit-all` commits what is buffered before each `maintain`). What comes
between two `maintain` is made before it is stored. Then the questions of docs/history-cookbook.md are asked: `cold` in
a process that has just opened the file (the kernel may have it in memory), `warm` is the median of three more.
`--layout plain` does the same with one table of samples for each kind (`history_plain`).

    python benchmarks/bench_history_scale.py --hosts 1000 --vms 10000 --days 7 --out DIRECTORY

Making the samples is not counted. `--out` gets the files (a new directory; they stay there); without it they go.
`--only-questions` asks a file that an earlier run has left there.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
from history_fleet import MINUTES_PER_DAY, NS_PER_S, Fleet, Told
from history_plain import PlainHistory
from measuring import Teller

from olvm.history.archive import archive_directory
from olvm.history.bounds import SAMPLES_KEPT_S
from olvm.history.store import HistoryStore

END_NS = 1_800_057_600 * NS_PER_S  # 2027-01-16 00:00 UTC, so that question 27 asks of a day that there is
PAST_PERIOD_MINUTES = 30
MAINTAIN_MINUTES = 15
WARM_COUNT = 3
PAGE = Path(__file__).resolve().parents[1] / "docs" / "history-cookbook.md"

Ask = Callable[[str], int]


class Clock:
    """Seconds spent on each kind of work: of wall time, and of CPU time of all threads of this process."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def of(self, work: str) -> Iterator[None]:
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.seconds[work] = self.seconds.get(work, 0.0) + time.perf_counter() - began_s
            spent_s = time.process_time() - began_cpu_s
            self.cpu_seconds[work] = self.cpu_seconds.get(work, 0.0) + spent_s


def minutes_of(arguments: argparse.Namespace) -> Iterator[tuple[int, int]]:
    """Minute of the story, and minutes to the sample after it."""
    past = arguments.past_days * MINUTES_PER_DAY
    for minute in range(0, past, PAST_PERIOD_MINUTES):
        yield minute, PAST_PERIOD_MINUTES
    for minute in range(past, past + int(arguments.days * MINUTES_PER_DAY)):
        yield minute, 1


def start_ns(arguments: argparse.Namespace) -> int:
    minutes: int = arguments.past_days * MINUTES_PER_DAY + int(arguments.days * MINUTES_PER_DAY)
    return END_NS - minutes * 60 * NS_PER_S


def load(store: HistoryStore, arguments: argparse.Namespace, teller: Teller) -> None:
    fleet = Fleet(arguments.hosts, arguments.vms, start_ns=start_ns(arguments))
    clock, began_s = Clock(), time.perf_counter()
    maintain_s: list[float] = []  # of passes at 60-s reports that have rolled an hour up
    with clock.of("rows"):
        first, facts = fleet.first_told()
        tell(store, first)
        store.add_guest_facts(facts)
        store.commit()
    past_sample_count = 0
    payloads: list[bytes] = []
    told: list[Told] = []
    minutes = list(minutes_of(arguments))
    for minute, period in minutes:
        payloads += fleet.reports(minute, period)
        told += [fleet.told(one) for one in range(minute, minute + period)]
        if (minute + period) % MAINTAIN_MINUTES and (minute, period) != minutes[-1]:
            continue
        phase = "past" if period > 1 else "full"
        with clock.of(f"{phase}_ingest"):
            for payload in payloads:
                store.add_samples(payload)
        with clock.of("rows"):
            for one in told:
                tell(store, one)
        payloads.clear()
        told.clear()
        if period > 1 or arguments.commit_all:
            with clock.of(f"{phase}_ingest"):
                store.commit()
        rolled_up_count, began_pass_s = store.counters.rolled_up_count, time.perf_counter()
        with clock.of(f"{phase}_maintain"):
            maintain(store, fleet.at_ns(minute + period, 0))
        if period == 1 and store.counters.rolled_up_count > rolled_up_count:
            maintain_s.append(time.perf_counter() - began_pass_s)
        if period > 1:
            past_sample_count = store.counters.sample_count
        if (minute + period) % MINUTES_PER_DAY == 0:
            spent = ", ".join(f"{work} {seconds:.1f} s" for work, seconds in clock.seconds.items())
            done = f"day {(minute + period) // MINUTES_PER_DAY}: {store.counters.sample_count} samples"
            print(f"{done}; {spent}", file=sys.stderr, flush=True)
    with clock.of("full_ingest"):
        store.commit()
    with clock.of("full_maintain"):
        maintain(store, END_NS + 3600 * NS_PER_S)
    counts = (store.counters.sample_count - past_sample_count, past_sample_count)
    tell_load(teller, clock, counts, arguments.days, maintain_s)
    teller.tell("load", sum(clock.seconds.values()), "s", with_generation=time.perf_counter() - began_s)


def tell_load(
    teller: Teller, clock: Clock, counts: tuple[int, int], days: float, maintain_s: list[float]
) -> None:
    """`counts`: samples at full rate, and of the past."""
    ingest_s, upkeep_s = clock.seconds["full_ingest"], clock.seconds["full_maintain"]
    ingest_cpu_s, upkeep_cpu_s = clock.cpu_seconds["full_ingest"], clock.cpu_seconds["full_maintain"]
    teller.tell("samples", counts[0], "rows", past=counts[1])
    for figure, wall_s, cpu_s in (
        ("ingest_without_upkeep", ingest_s, ingest_cpu_s),
        ("ingest_with_upkeep", ingest_s + upkeep_s, ingest_cpu_s + upkeep_cpu_s),
    ):
        teller.tell(figure, counts[0] / wall_s, "samples/s", per_cpu_s=counts[0] / cpu_s)
    teller.tell("upkeep_per_hour", upkeep_s / (days * 24), "s")
    if maintain_s:
        teller.tell("rollup_pass", statistics.median(maintain_s), "s", longest=max(maintain_s))
    teller.tell("rows_told", clock.seconds["rows"], "s")
    if counts[1]:
        teller.tell("past", clock.seconds["past_ingest"] + clock.seconds["past_maintain"], "s")


def tell(store: HistoryStore, told: Told) -> None:
    store.add_events("engine", told.events)
    store.add_configuration(told.configuration)
    store.add_operations(told.operations)


def maintain(store: HistoryStore, now_ns: int) -> None:
    store.maintain(now_ns)
    while store.is_behind:
        store.maintain(now_ns)


def load_plain(plain: PlainHistory, arguments: argparse.Namespace, teller: Teller) -> None:
    """The same story, minute by minute."""
    fleet = Fleet(arguments.hosts, arguments.vms, start_ns=start_ns(arguments))
    clock = Clock()
    told, facts = fleet.first_told()
    plain.add_told(told, facts)
    sample_count = 0
    for minute, period in minutes_of(arguments):
        reports = list(fleet.columns(minute, period))
        sample_count += sum(of_kind.bounds[-1] for of_kind in reports)
        with clock.of("ingest"):
            plain.add_minute(fleet, reports, minute)
        for one in range(minute, minute + period):
            plain.add_told(fleet.told(one), [])
    with clock.of("ingest"):
        plain.checkpoint()
    teller.tell("samples", sample_count, "rows")
    per_cpu_s = sample_count / clock.cpu_seconds["ingest"]
    teller.tell("ingest", sample_count / clock.seconds["ingest"], "samples/s", per_cpu_s=per_cpu_s)


def tell_sizes(path: Path, teller: Teller) -> None:
    """What the closed file and its Parquet take on disk; of tables, the blocks that hold their columns."""
    parquet = list(archive_directory(path).glob("*.parquet"))
    teller.tell("file", path.stat().st_size, "B")
    teller.tell("parquet", sum(file.stat().st_size for file in parquet), "B", files=len(parquet))
    with duckdb.connect(str(path), read_only=True) as con:
        tables = con.execute(
            "select table_name, estimated_size from duckdb_tables() where estimated_size > 0"
        ).fetchall()
        (block_bytes,) = con.execute("select block_size from pragma_database_size()").fetchone() or (0,)
        for table, row_count in tables:
            # A block may be shared by small columns, so the sum is somewhat more than the file.
            blocks = con.execute(
                "select count(distinct b) from (select unnest(list_concat([block_id], additional_block_ids)) as b"
                f" from pragma_storage_info('{table}')) where b >= 0"
            ).fetchone() or (0,)
            teller.tell(f"table_{table}", blocks[0] * block_bytes, "B", rows=row_count)
    for kind in sorted({file.name.split("-")[0] for file in parquet}):
        of_kind = [file.stat().st_size for file in parquet if file.name.startswith(f"{kind}-")]
        teller.tell(f"parquet_{kind}", sum(of_kind), "B", files=len(of_kind))


def questions() -> dict[int, str]:
    found = re.findall(
        r"\*\*(\d+)\. [^*]+\*\*.*?```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL
    )
    return {int(number): statement for number, statement in found}


def ask_all(opened: Callable[[], contextlib.AbstractContextManager[Ask]], teller: Teller) -> None:
    """Each question cold, then warm; every one in a newly opened file."""
    warm_s, open_s = [], []
    for number, statement in questions().items():
        began_s = time.perf_counter()
        with opened() as ask:
            open_s.append(time.perf_counter() - began_s)
            seconds, row_count = [], 0
            for _ in range(1 + WARM_COUNT):
                began_s = time.perf_counter()
                row_count = ask(statement)
                seconds.append(time.perf_counter() - began_s)
        median_s = statistics.median(seconds[1:])
        warm_s.append(median_s)
        teller.tell(f"question_{number:02}", median_s, "s", cold=seconds[0], rows=row_count)
    teller.tell("open", statistics.median(open_s), "s", longest=max(open_s))
    teller.tell("questions_median", statistics.median(warm_s), "s", slowest=max(warm_s))


def bench_history(directory: Path, arguments: argparse.Namespace, teller: Teller) -> None:
    path = directory / "history.duckdb"

    @contextlib.contextmanager
    def opened() -> Iterator[Ask]:
        with HistoryStore.open(path, samples_kept_s=arguments.samples_kept_hours * 3600) as store:
            yield lambda statement: len(store.query(statement, timeout_s=arguments.timeout_s).rows)

    if not arguments.only_questions:
        with HistoryStore.open(path, samples_kept_s=arguments.samples_kept_hours * 3600) as store:
            load(store, arguments, teller)
        tell_sizes(path, teller)
    ask_all(opened, teller)


def bench_plain(directory: Path, arguments: argparse.Namespace, teller: Teller) -> None:
    path = directory / "plain.duckdb"

    @contextlib.contextmanager
    def opened() -> Iterator[Ask]:
        with PlainHistory(path) as plain:
            yield plain.ask

    if not arguments.only_questions:
        with PlainHistory(path) as plain:
            load_plain(plain, arguments, teller)
        tell_sizes(path, teller)
    ask_all(opened, teller)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hosts", type=int, default=100)
    parser.add_argument("--vms", type=int, default=1000)
    parser.add_argument("--days", type=float, default=2.0, help="with a report each minute")
    parser.add_argument("--past-days", type=int, default=0, help="before them, with a report each half hour")
    parser.add_argument("--commit-all", action="store_true", help="before each `maintain`")
    parser.add_argument("--samples-kept-hours", type=float, default=SAMPLES_KEPT_S / 3600)
    parser.add_argument("--timeout-s", type=float, default=60.0, help="of one question")
    parser.add_argument("--layout", choices=("history", "plain"), default="history")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only-questions", action="store_true")
    arguments = parser.parse_args()
    if min(arguments.hosts, arguments.vms, arguments.days) <= 0 or arguments.past_days < 0:
        parser.error("--hosts, --vms and --days are to be more than 0, --past-days not less")
    if arguments.only_questions and not (arguments.out and arguments.out.is_dir()):
        parser.error("--only-questions asks what an earlier run has left: name its directory with --out")
    if arguments.out and arguments.out.exists() and not arguments.only_questions:
        parser.error(f"--out {arguments.out} exists; name a new directory, or say --only-questions")
    parameters = {
        name: value for name, value in vars(arguments).items() if name not in ("out", "only_questions")
    }
    teller = Teller("history_scale", {**parameters, "load_average": round(os.getloadavg()[0], 1)})
    bench = bench_history if arguments.layout == "history" else bench_plain
    with contextlib.ExitStack() as stack:
        directory = arguments.out or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        directory.mkdir(parents=True, exist_ok=True)
        bench(directory, arguments, teller)


if __name__ == "__main__":
    main()

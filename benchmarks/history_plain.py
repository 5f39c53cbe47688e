"""The straightforward layout that history is compared with: one table of samples for each kind, and nothing else.

Texts stand in the rows; nothing is rolled up, moved or erased. Hours and days are worked out when asked, by views with
the names and columns of history's own, so that the same questions can be put to both. The tables that are not of
samples are history's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import duckdb
import numpy as np
from history_fleet import Fleet, KindReports, Told

from olvm.history.guest_rows import GUEST_FACTS, GuestFacts, guest_facts_row
from olvm.history.kinds import KINDS, SampleKind
from olvm.history.opening import MEMORY_LIMIT, QUESTION_OPERATOR_MEMORY
from olvm.history.row_table import Row, RowTable, storable
from olvm.history.rows import CONFIGURATION, EVENTS, OPERATIONS, configuration_row, event_row, operation_row
from olvm.history.samples import FIELD_SEPARATOR
from olvm.history.schema import creation_statements
from olvm.history.transaction import write_rows
from olvm.history.views import Period, statistics_view

SAMPLE_SECONDS = 60


class PlainHistory:
    """One thread, and the memory of history's own reader."""

    def __init__(self, path: Path) -> None:
        config: dict[str, str | int] = {"threads": 1, "memory_limit": MEMORY_LIMIT}
        is_new = not path.exists()
        self._con = duckdb.connect(str(path), config=config)  # type: ignore[arg-type]
        if is_new:
            self._create()
        self._con.execute("set checkpoint_threshold = '1GB'")
        self._con.execute(f"set operator_memory_limit = '{QUESTION_OPERATOR_MEMORY}'")

    def _create(self) -> None:
        for statement in creation_statements():
            self._con.execute(statement)
        periods: tuple[Period, ...] = ("samples", "hourly", "daily")
        for kind in KINDS:
            self._con.execute(_table_sql(kind))
            for period in periods:
                self._con.execute(_view_sql(kind, period))

    def add_minute(self, fleet: Fleet, reports: list[KindReports], minute: int) -> None:
        """All samples of one minute, in one transaction."""
        at_us = np.array([fleet.at_ns(minute, host) // 1000 for host in range(fleet.host_count)])
        names = np.array(fleet.hosts, dtype=object)
        self._con.execute("begin")
        for of_kind in reports:
            kind = of_kind.kind
            counts = np.diff(of_kind.bounds)
            columns = {"history_datetime": np.repeat(at_us, counts).view("datetime64[us]")}
            if kind.has_vm:
                fields = [one.split(FIELD_SEPARATOR) for one in of_kind.ids]
                columns["vm_id"] = np.array([one[0] for one in fields], dtype=object)
                columns["vm_name"] = np.array([one[1] for one in fields], dtype=object)
            columns[_host_column(kind)] = np.repeat(names, counts)
            texts = [one.split(FIELD_SEPARATOR) for one in of_kind.texts]
            for position, (name, _) in enumerate(kind.texts):
                columns[name] = np.array([one[position] for one in texts], dtype=object)
            self._con.register("arriving", {**columns, **of_kind.columns})
            self._con.execute(f"insert into {_table(kind)} by name select * from arriving")
            self._con.unregister("arriving")
        self._con.execute("commit")

    def add_told(self, told: Told, facts: list[GuestFacts]) -> None:
        tables: list[tuple[RowTable, list[Row]]] = [
            (EVENTS, [event_row("engine", one) for one in told.events]),
            (CONFIGURATION, [configuration_row(one) for one in told.configuration]),
            (OPERATIONS, [operation_row(one) for one in told.operations]),
            (GUEST_FACTS, [guest_facts_row(one) for one in facts]),
        ]
        for table, rows in tables:
            write_rows(self._con, table, [storable(row) for row in rows])

    def checkpoint(self) -> None:
        self._con.execute("checkpoint")

    def ask(self, statement: str) -> int:
        """The number of rows in the answer."""
        return len(self._con.execute(statement).fetchall())

    def close(self) -> None:
        self._con.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _table(kind: SampleKind) -> str:
    return f"plain_{kind.name}"


def _host_column(kind: SampleKind) -> str:
    return "currently_running_on_host" if kind.has_vm else "host_name"


def _names(kind: SampleKind) -> list[str]:
    """The texts that name a row of an hour: its object, host and status."""
    owner = ["vm_id", "vm_name"] if kind.has_vm else []
    return [*owner, _host_column(kind), *(name for name in (kind.device, kind.status) if name)]


def _table_sql(kind: SampleKind) -> str:
    owner = ["vm_id", "vm_name"] if kind.has_vm else []
    texts = [*owner, _host_column(kind), *(name for name, _ in kind.texts)]
    columns = [f"{name} VARCHAR" for name in texts]
    columns += [f"{column.name} {'FLOAT' if column.code == 'f' else 'BIGINT'}" for column in kind.columns]
    return f"create table {_table(kind)} (history_datetime TIMESTAMP, {', '.join(columns)})"


def _view_sql(kind: SampleKind, period: Period) -> str:
    name = statistics_view(kind, period).name
    if period == "samples":
        return f"create or replace view {name} as select * from {_table(kind)}"
    start = "date_trunc('hour', history_datetime)" if period == "hourly" else "history_datetime::DATE"
    seconds = "seconds_in_status" if kind.status else "seconds_observed"
    figures = []
    for column in kind.columns:
        if column.is_counter:
            figures.append(f"max({column.name}) as {column.name}")
        else:
            figures.append(f"avg({column.name}) as {column.name}")
            figures.append(f"max({column.name}) as max_{column.name}")
    return (
        f"create or replace view {name} as select {start} as history_datetime, {', '.join(_names(kind))},"
        f" count(*) as sample_count, count(*) * {SAMPLE_SECONDS} as {seconds}, {', '.join(figures)}"
        f" from {_table(kind)} group by all"
    )

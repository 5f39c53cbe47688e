"""PlanetLab days as CloudSim distributes them: a folder of files, each a VM with 288 whole percentages, one a line.

Line n is the VM's CPU utilisation at n × 300 s, in percent. The files carry no sizes: those are of the experiment that
made them known (Beloglazov & Buyya 2012; CloudSim 3.0.3, examples/power/Constants.java), where a VM has one core and,
by the quarter of the files in order of name, 870, 1740, 1740 or 613 MB. Sources: CloudSim's
UtilizationModelPlanetLabInMemory.java (288 lines, whole numbers), and `reference/placement.md` section 3 for the order.

- The source is a folder of files, a folder of such folders (one a day), or the bundled Parquet file (`day`, `name`,
  `cpu_pct`). Files are sorted by name; hidden files are not read.
- Every VM of a day arrives when the day begins and stays for its 86,400 s. The first day begins at 0 s, the others as
  many days later as their names (YYYYMMDD) say; where names are no dates, one follows the other.
- The percentages stay in `cpu_pct`, with `day` and `name`: the PlanetLab experiment reads the imported file.
- A file that has not 288 whole numbers from 0 to 100 is bad as a whole: one missing value would shift all others.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

from olvm.experiments.imports.bounds import PLANETLAB_FILE_BYTES_MAX, ROWS_PER_BATCH
from olvm.experiments.imports.checking import SEPARATOR
from olvm.experiments.imports.importing import Importer, Importing, Options
from olvm.experiments.imports.sources import file_literal, is_parquet
from olvm.model.errors import BadInput, NotFound

SAMPLE_COUNT = 288
DAY_S = 86_400
MEMORY_MB = (870, 1740, 1740, 613)
MB_PER_GIB = 1024
COLUMNS = ("day", "name", "cpu_pct")


class PlanetlabOptions(Options, frozen=True, kw_only=True):
    """None."""


def read(importing: Importing, options: PlanetlabOptions) -> None:
    del options
    path = importing.source
    importing.connection.execute(
        "create table samples (source_file integer, source_line bigint, day varchar, name varchar, cpu_pct utinyint[])"
    )
    if not path.exists():
        raise NotFound(f"cannot import {path} as planetlab: there is no such folder or file")
    if path.is_dir():
        _read_folder(importing, path)
    elif is_parquet(path):
        _read_parquet(importing, path)
    else:
        raise BadInput(
            f"cannot import {path} as planetlab: it is one file; give the folder that has a file for each VM, or the "
            "Parquet file with day, name and cpu_pct"
        )
    importing.rows_read = importing.value("select count(*) from samples") + importing.bad()
    _stage_vms(importing)


def _stage_vms(importing: Importing) -> None:
    days = [
        row[0]
        for row in importing.connection.execute("select distinct day from samples order by day").fetchall()
    ]
    begins = _beginnings(days)
    importing.connection.execute("create table days (day varchar, begins_s double)")
    for day, begins_s in begins.items():
        importing.connection.execute("insert into days values (?, ?)", [day, begins_s])
    memory = ", ".join(str(megabytes) for megabytes in MEMORY_MB)
    importing.stage(
        f"""
        select source_file, source_line, begins_s as arrival_s, {DAY_S} as lifetime_s, 1 as vcpus,
            [{memory}][1 + least(nth * 4 // of_day, 3)] / {MB_PER_GIB} as memory_gib,
            case when {len(days)} > 1 then day || '/' else '' end || name as vm_id,
            list_sum(cpu_pct) / {SAMPLE_COUNT * 100} as utilisation, day, name, cpu_pct
        from (
            select *, row_number() over (partition by day order by name) - 1 as nth,
                count(*) over (partition by day) as of_day
            from samples
        ) join days using (day)
        """
    )
    importing.notes.append(f"{len(days)} {'day' if len(days) == 1 else 'days'}: {', '.join(days[:10])}")
    importing.notes.append(
        "sizes are the experiment's, by quarter of the files: 1 vCPU and 870, 1740, 1740, 613 MB"
    )


def _beginnings(days: list[str]) -> dict[str, float]:
    try:
        dates = [
            dt.date(int(day[:4]), int(day[4:6]), int(day[6:8])) if len(day) == 8 else None for day in days
        ]
    except ValueError:
        dates = [None]
    if None in dates:
        return {day: float(DAY_S * position) for position, day in enumerate(days)}
    return {
        day: float((date - dates[0]).days * DAY_S)
        for day, date in zip(days, dates, strict=True)
        if date and dates[0]
    }


def _read_folder(importing: Importing, path: Path) -> None:
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    folders = [entry for entry in entries if entry.is_dir()] or [path]
    batch: dict[str, list[object]] = {
        name: [] for name in ("source_file", "source_line", "day", "name", "text")
    }
    found = False
    for folder in folders:
        for file in sorted(
            entry for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith(".")
        ):
            found = True
            position = len(importing.files)
            importing.files.append(file)
            values = _values_of(importing, file, position)
            if values is not None:
                for name, value in zip(
                    batch, (position, 1, folder.resolve().name, file.name, values), strict=True
                ):
                    batch[name].append(value)
            if len(batch["day"]) >= ROWS_PER_BATCH // SAMPLE_COUNT:
                _flush(importing, batch)
    _flush(importing, batch)
    if not found:
        raise BadInput(f"cannot import {path} as planetlab: there is no file in it")


def _flush(importing: Importing, batch: dict[str, list[object]]) -> None:
    import numpy as np

    if not batch["day"]:
        return
    importing.connection.register(
        "arriving", {name: np.array(column, dtype=object) for name, column in batch.items()}
    )
    importing.connection.execute(
        "insert into samples select source_file, source_line, day, name, cast(string_split(text, ',') as utinyint[]) "
        "from arriving"
    )
    importing.connection.unregister("arriving")
    for column in batch.values():
        column.clear()


def _values_of(importing: Importing, file: Path, position: int) -> str | None:
    """The percentages with commas between; None for a bad file, which is set aside with its first fault."""
    if file.stat().st_size > PLANETLAB_FILE_BYTES_MAX:
        _set_aside(
            importing, position, SAMPLE_COUNT + 1, "columns", "it is far too large for 288 percentages"
        )
        return None
    lines = file.read_text(encoding="latin-1").splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    fault = next(_faults(lines), None)
    if fault is not None:
        _set_aside(importing, position, *fault)
        return None
    return ",".join(str(int(line)) for line in lines)


def _faults(lines: list[str]) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(lines[: SAMPLE_COUNT + 1], 1):
        text = line.strip()
        digits = text.removeprefix("-")
        if number > SAMPLE_COUNT:
            yield number, "columns", f"it has {len(lines)} values where {SAMPLE_COUNT} belong"
        elif not (digits.isascii() and digits.isdigit()):
            yield number, "not_a_number", f"the percentage is {text[:40]!r}, not a whole number"
        elif not 0 <= int(text) <= 100:
            yield (
                number,
                "negative" if text.startswith("-") else "out_of_range",
                f"the percentage is {text[:40]}, not 0 to 100",
            )
    if len(lines) < SAMPLE_COUNT:
        yield (
            max(len(lines), 1),
            "truncated" if lines else "empty",
            f"it ends after {len(lines)} of {SAMPLE_COUNT} values",
        )


def _set_aside(importing: Importing, position: int, line: int, kind: str, why: str) -> None:
    importing.connection.execute(
        "insert into bad_rows values (?, ?, ?)", [position, line, kind + SEPARATOR + why]
    )


def _read_parquet(importing: Importing, path: Path) -> None:
    importing.add_file(path)
    missing = [name for name in COLUMNS if name not in importing.parquet_columns(path)]
    if missing:
        raise BadInput(f"cannot import {path} as planetlab: it has no column {', '.join(missing)}")
    source = f"read_parquet({file_literal(path)}, file_row_number = true)"
    good = (
        f"day is not null and name is not null and len(cpu_pct) = {SAMPLE_COUNT} and list_min(cpu_pct) >= 0 "
        f"and list_max(cpu_pct) <= 100 and list_count(cpu_pct) = {SAMPLE_COUNT}"
    )
    importing.run(
        "insert into samples select 0, file_row_number + 1, cast(day as varchar), cast(name as varchar), "
        f"cast(cpu_pct as utinyint[]) from {source} where {good}"
    )
    importing.set_aside(
        f"select 0 as source_file, file_row_number + 1 as source_line, 'columns' || chr(31) || "
        f"'its day or name is missing, or it has not {SAMPLE_COUNT} percentages from 0 to 100' as problem "
        f"from {source} where not coalesce({good}, false)"
    )


PLANETLAB = Importer(
    name="planetlab",
    summary="PlanetLab days of CloudSim: a folder with a file of 288 percentages for each VM.",
    row_is="VMs",
    columns=("vm_id", "utilisation"),
    more_columns={"day": "varchar", "name": "varchar", "cpu_pct": "utinyint[]"},
    units={
        "arrival_s": "s, the beginning of the VM's day",
        "lifetime_s": "s, one day",
        "vcpus": "1: the experiment's, not the source's",
        "memory_gib": "GiB, from MB of 1,024 KiB: the experiment's, not the source's",
        "utilisation": "the day's mean, 0 to 1",
        "cpu_pct": "percent, one value for each 300 s",
    },
    licence="distributed with CloudSim under Apache-2.0; collected by CoMon on PlanetLab",
    cite="Beloglazov & Buyya, CCPE 24(13), 2012; Park & Pai, CoMon, OSR 40(1), 2006",
    options=PlanetlabOptions,
    read=read,
)

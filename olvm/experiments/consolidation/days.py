"""Reads a day of PlanetLab: for each VM 288 whole percentages of CPU, one every five minutes.

Decides what is a sound day and says what is wrong with another; knows nothing of hosts. Two shapes are read:

- a Parquet file with the columns `day` (text), `name` (text) and `cpu_pct` (a list of whole numbers), one row a VM;
- a folder of files, one a VM, a percentage a line, as PlanetLab's and CloudSim's are; or a folder of such folders,
  named by day.

Rule: VMs are always in the order of their names (by code point). What a machine is comes from its place in that order,
so an order that a directory happens to have would change every figure.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from olvm.experiments.consolidation.plant import SAMPLE_COUNT
from olvm.model.errors import BadInput, NotFound
from olvm.model.search import nearest

BUNDLED_DAY = "20110303"
BUNDLED_PATH = Path(__file__).resolve().parents[2] / "data" / "planetlab_20110303.parquet"
VM_COUNT_MAX = 100_000
FILE_BYTES_MAX = 64 * 1024  # 288 lines of up to three digits need 1.5 kB
SHOWN_MAX = 3
PERCENT_MAX = 100
COLUMNS = ("day", "name", "cpu_pct")

Percentages = npt.NDArray[np.uint8]


def read_day(path: Path, day: str) -> tuple[list[str], Percentages]:
    """The names of the VMs, ascending, and their samples, n × 288.

    Raises:
        NotFound: there is no such file, or no such day in it.
        BadInput: it is not such data: the message names the VM, the sample and the fault.

    Cost: 0.1 s for a Parquet file with five days of a thousand VMs; the first call also loads DuckDB.
    """
    if path.is_dir():
        rows = _read_folder(path, day)
    elif path.exists():
        rows = _read_parquet(path, day)
    else:
        raise NotFound(
            f"there is no {path}: give a Parquet file of PlanetLab days, or a folder of a day's files"
        )
    if len(rows) > VM_COUNT_MAX:
        raise BadInput(f"{path} has {len(rows)} VMs on {day}; this experiment takes up to {VM_COUNT_MAX}")
    rows.sort(key=lambda row: row[0])
    names = [name for name, _ in rows]
    _complain(
        path,
        [f"{name} is there twice" for name, after in pairwise(names) if name == after],
    )
    _complain(path, [fault for name, samples in rows if (fault := _fault(name, samples))])
    return names, np.array([samples for _, samples in rows], dtype=np.uint8)


def _fault(name: str, samples: Any) -> str:
    """What is wrong with one VM's samples; empty for nothing."""
    if samples is None or len(samples) != SAMPLE_COUNT:
        count = 0 if samples is None else len(samples)
        return f"{name} has {count} samples and not {SAMPLE_COUNT}"
    values = np.asarray(samples, dtype=np.float64)  # None becomes NaN
    wrong = np.flatnonzero(~((values >= 0) & (values <= PERCENT_MAX) & (values == np.floor(values))))
    if not wrong.size:
        return ""
    first = int(wrong[0])
    return f"{name} has {samples[first]} as sample {first + 1}, which is no whole percentage (0 to {PERCENT_MAX})"


def _complain(path: Path, faults: list[str]) -> None:
    if faults:
        more = f"; and {len(faults) - SHOWN_MAX} more" if len(faults) > SHOWN_MAX else ""
        raise BadInput(f"{path} cannot be read as a day of PlanetLab: {'; '.join(faults[:SHOWN_MAX])}{more}")


# ---------------------------------------------------------------- a Parquet file


def _read_parquet(path: Path, day: str) -> list[tuple[str, Any]]:
    import duckdb

    with duckdb.connect(config={"threads": 1}) as connection:
        try:
            source = connection.read_parquet(str(path))
        except duckdb.Error as error:
            raise BadInput(f"{path} is not a Parquet file that can be read: {error}") from error
        missing = [column for column in COLUMNS if column not in source.columns]
        if missing:
            raise BadInput(
                f"{path} has no column {', '.join(missing)}; a file of PlanetLab days has {', '.join(COLUMNS)}, "
                f"this one has {', '.join(source.columns)}"
            )
        named = source.project("cast(day as varchar) as day, cast(name as varchar) as name, cpu_pct")
        picked = named.filter(duckdb.ColumnExpression("day") == duckdb.ConstantExpression(day))
        columns = picked.project("name, cpu_pct").fetchnumpy()
        if not len(columns["name"]):
            days = sorted({str(row[0]) for row in named.project("day").distinct().fetchall()})
            raise NotFound(_no_day(path, day, days))
    unnamed = int(np.sum(np.ma.getmaskarray(columns["name"]))) if np.ma.isMaskedArray(columns["name"]) else 0
    _complain(path, ["a VM of that day has no name"] * unnamed)
    masked = np.ma.getmaskarray(columns["cpu_pct"])
    samples = [None if gone else _plain(one) for one, gone in zip(columns["cpu_pct"], masked, strict=True)]
    return list(zip([str(name) for name in columns["name"]], samples, strict=True))


def _plain(samples: Any) -> Any:
    """Numbers as an array; a masked one as a list with None, so that what is missing is seen."""
    return samples.tolist() if np.ma.isMaskedArray(samples) and np.any(samples.mask) else np.asarray(samples)


def _no_day(path: Path, day: str, days: list[str]) -> str:
    return f"{path} has no day {day}{nearest(day, days)}; it has {', '.join(days) or 'none'}"


# ---------------------------------------------------------------- a folder of files


def _read_folder(path: Path, day: str) -> list[tuple[str, Any]]:
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    folders = [entry.name for entry in entries if entry.is_dir()]
    if folders:
        if day not in folders:
            raise NotFound(_no_day(path, day, folders))
        return _read_folder(path / day, day)
    if not entries:
        raise BadInput(f"{path} is an empty folder; a day of PlanetLab is a file for each VM")
    return [(file.name, _read_file(file)) for file in entries]


def _read_file(file: Path) -> list[int]:
    with file.open("rb") as stream:
        text = stream.read(FILE_BYTES_MAX + 1)
    if len(text) > FILE_BYTES_MAX:
        raise BadInput(f"{file} is too long for the {SAMPLE_COUNT} samples of a VM")
    samples = []
    for number, line in enumerate(text.split(b"\n"), 1):
        word = line.strip()
        if not word:
            continue
        if not word.isdigit():
            shown = word[:20].decode("utf-8", "backslashreplace")
            raise BadInput(f"{file} has {shown!r} on line {number}, which is no whole percentage (0 to 100)")
        samples.append(int(word))
    return samples

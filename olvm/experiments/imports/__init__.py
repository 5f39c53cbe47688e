"""Imports published traces into the trace table that experiments replay: `import_trace`, and `IMPORTERS` by name.

Each format is one module, which says what the source's columns mean and where that is written.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from olvm.experiments.imports.azure_packing import AZURE_PACKING
from olvm.experiments.imports.azure_v1 import AZURE_V1
from olvm.experiments.imports.bitbrains import BITBRAINS
from olvm.experiments.imports.borg import BORG
from olvm.experiments.imports.huawei import HUAWEI
from olvm.experiments.imports.importing import (
    Importer,
    Importing,
    OnBad,
    Options,
    carry_out,
    made_options,
    plain_failures,
)
from olvm.experiments.imports.opendc import OPENDC
from olvm.experiments.imports.planetlab import PLANETLAB
from olvm.experiments.imports.report import BadRow, ImportReport
from olvm.experiments.imports.swf import SWF
from olvm.experiments.imports.writing import KNOWN_COLUMNS, TraceWriter
from olvm.model.errors import BadInput
from olvm.model.search import nearest

__all__ = ["IMPORTERS", "BadRow", "ImportReport", "Importer", "Options", "TraceWriter", "import_trace"]

IMPORTERS: dict[str, Importer] = {
    importer.name: importer
    for importer in (AZURE_V1, AZURE_PACKING, HUAWEI, OPENDC, PLANETLAB, BITBRAINS, BORG, SWF)
}


def import_trace(
    format: str,  # noqa: A002 - the word that the command line has
    path: str | Path,
    out: str | Path | None = None,
    *,
    on_bad: OnBad = "error",
    told: Callable[[str], None] | None = None,
    **options: object,
) -> ImportReport:
    """Read a published trace and write it as the Parquet file that `replay` takes.

    Columns: `arrival_s`, `lifetime_s` (null: never leaves), `vcpus`, `memory_gib`, and what the source has of `vm_id`,
    `tenant`, `priority`, `host_group` and `utilisation` (0 to 1). Rows are in order of arrival, and at one time in the
    source's. `docs/traces.md` says for each format what they mean.

    Args:
        format: a key of `IMPORTERS`.
        path: the source: a file, or for some formats a folder.
        out: what to write; an existing file is replaced once the new one is whole. By default the source's name with
            `-trace.parquet`, in the working directory.
        on_bad: `"error"` refuses a source with bad rows, naming the first ten; `"drop"` leaves them out, counted.
        told: called with a line now and then while many files are read.
        options: the format's own, as `IMPORTERS[format].options` documents them.

    Raises:
        NotFound: there is no such source.
        BadInput: an unknown format or option, a source that is not of the format, or bad rows.
        OperationFailed: the disk is full.

    Cost: 200,000 to 400,000 rows a second of one core. Memory is bounded (`bounds.py`) whatever the size; the rest is
    spilled to a hidden folder beside `out`, which takes about twice the result's size meanwhile. An import that is
    interrupted leaves no file.
    """
    importer = IMPORTERS.get(format)
    if importer is None:
        known = ", ".join(IMPORTERS)
        raise BadInput(
            f"there is no trace format {format!r}{nearest(format, list(IMPORTERS))}; the formats are {known}"
        )
    if on_bad not in ("error", "drop"):
        raise BadInput(f"on_bad is 'error' or 'drop', not {on_bad!r}")
    chosen = made_options(importer.options, format, options)
    source = Path(path)
    target = (
        Path(out) if out is not None else Path.cwd() / f"{source.resolve().name.split('.')[0]}-trace.parquet"
    )
    _check_paths(format, source, target)
    columns = {name: KNOWN_COLUMNS[name] for name in importer.columns} | importer.more_columns
    with plain_failures(source, format), TraceWriter(target, columns) as writer:
        importing = Importing(importer, source, writer, told or (lambda _line: None))
        return carry_out(importing, chosen, on_bad)


def _check_paths(format_name: str, source: Path, target: Path) -> None:
    if source.exists() and not source.is_file() and not source.is_dir():
        raise BadInput(f"cannot import {source} as {format_name}: it is neither a file nor a folder")
    if target.is_dir():
        raise BadInput(f"cannot write {target}: it is a folder; give a file")
    if target.suffix != ".parquet":
        raise BadInput(
            f"cannot write {target}: a trace is written as Parquet; give a name that ends with .parquet"
        )
    if target.exists() and source.exists() and target.samefile(source):
        raise BadInput(f"cannot write {target}: it is the source itself")

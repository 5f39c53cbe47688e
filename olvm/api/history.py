"""History as a whole: a copy of it for whoever wants to keep or study it elsewhere."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from olvm.api.link import result_of
from olvm.api.whole_files import sync
from olvm.model import client_protocol as p
from olvm.model.errors import BadInput, Conflict

if TYPE_CHECKING:
    from olvm.api.data_center import DataCenter

MARGIN_S = 30.0
DUCKDB_FILE = "history.duckdb"


class History:
    def __init__(self, dc: DataCenter) -> None:
        self._dc = dc

    def export(
        self,
        path: str | Path,
        *,
        format: Literal["duckdb", "parquet"] = "duckdb",  # noqa: A002 - the word that the command line has too
        start_ns: int | None = None,
        end_ns: int | None = None,
        timeout: float = 3600.0,
    ) -> p.Exported:
        """Write a copy of history as of one moment to `path`, whole or not at all, while the data center runs.

        Args:
            path: `duckdb`: a file that any DuckDB opens; `parquet`: a directory with a file for each table, and
                `open.sql` for the views. It must not be there yet.
            start_ns, end_ns: samples, roll-ups and events from the one on and before the other; other tables are whole.

        Returns:
            The rows of each table and the bytes on disk.

        Raises:
            Conflict: there is something at `path`. BadInput: its directory is none. BadQuery: slower than `timeout`.
        """
        path = Path(path).absolute()
        if os.path.lexists(path):
            raise Conflict(f"export: {path} is there already; remove it or name another")
        if not path.parent.is_dir():
            raise BadInput(f"export: there is no directory {path.parent}; create it")
        asked = self._dc._link.ask(p.ExportHistory(format, start_ns, end_ns, timeout))
        try:
            exported: p.Exported = result_of(asked, timeout + MARGIN_S, "export")
        except BaseException:  # Ctrl-C too: nobody waits for it any more
            self._dc._link.cancel(asked)
            raise
        source = Path(exported.directory)
        _take(source / DUCKDB_FILE if format == "duckdb" else source, path)
        return exported


def _take(source: Path, path: Path) -> None:
    """Move what is whole to `path`; from another file system under a hidden name first, for that takes its time."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        shutil.move(source, part)
        for file in part.iterdir() if part.is_dir() else ():
            sync(file)
        sync(part)
        if os.path.lexists(path):
            raise Conflict(f"export: {path} has appeared meanwhile; remove it or name another")
        os.rename(part, path)
        sync(path.parent)
    finally:
        if part.is_dir():
            shutil.rmtree(part)
        else:
            part.unlink(missing_ok=True)

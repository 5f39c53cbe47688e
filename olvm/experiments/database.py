"""The one DuckDB of a process that experiments read and write files with. It holds no data between two uses.

Opening one takes 15 ms, a cursor nothing; a short replay is shorter than that.
"""

from __future__ import annotations

import os
import tempfile
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

MEMORY_LIMIT = "1GB"  # what series that wait to be written may take; what is more goes to scratch files


def cursor() -> duckdb.DuckDBPyConnection:
    """A connection with temporary tables of its own. One thread: rows keep their order, equal runs do equal work."""
    return _database(os.getpid()).cursor()


@lru_cache(maxsize=1)
def _database(_process: int) -> duckdb.DuckDBPyConnection:  # a child of a fork needs its own
    import duckdb

    scratch = os.path.join(tempfile.gettempdir(), f"olvm-experiments-{os.getpid()}")
    return duckdb.connect(
        config={
            "threads": 1,
            "memory_limit": MEMORY_LIMIT,
            "temp_directory": scratch,
        }
    )

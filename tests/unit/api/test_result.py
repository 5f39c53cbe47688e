"""What a script makes of the rows that SQL gave."""

from __future__ import annotations

import datetime as dt
import decimal
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from olvm.api.result import Result
from olvm.model.table import QueryResult


def result() -> Result:
    return Result(
        QueryResult(columns=["name", "vcpus"], types=["VARCHAR", "BIGINT"], rows=[("web", 4), ("db", None)])
    )


def test_result_gives_rows_mappings_and_text() -> None:
    assert result().rows() == [("web", 4), ("db", None)]
    assert result().dicts()[1] == {"name": "db", "vcpus": None}
    assert str(result()).splitlines() == ["name  vcpus", "web   4", "db"]
    assert len(result()) == 2


def test_result_is_an_arrow_stream_without_further_packages() -> None:
    assert "arrow_array_stream" in repr(result().__arrow_c_stream__())


def test_result_html_escapes_what_a_guest_may_have_chosen() -> None:
    hostile = Result(QueryResult(columns=["name"], types=["VARCHAR"], rows=[("<script>",)]))
    assert "<script>" not in hostile._repr_html_()
    assert "&lt;script&gt;" in hostile._repr_html_()


def test_result_single_value_is_refused_when_there_are_more() -> None:
    with pytest.raises(ValueError, match="unpack"):
        result().one()


def test_result_as_parquet_keeps_types_and_columns_of_one_name(tmp_path: Path) -> None:
    table = QueryResult(
        columns=["at", "at", 'a "b"', "list", "huge"],
        types=["TIMESTAMP", "DATE", "DECIMAL(9,2)", "BIGINT[]", "HUGEINT"],
        rows=[("2026-01-02T03:04:05", "2026-01-02", 1.5, [1, 2], str(2**90)), (None,) * 5],
    )
    file = tmp_path / "rows.parquet"
    Result(table).write_parquet(file)
    with duckdb.connect() as con:
        described = con.execute(f"describe from '{file}'").fetchall()
        rows = con.execute(f"from '{file}'").fetchall()
    assert [row[0] for row in described] == ["at", "at_2", 'a "b"', "list", "huge"]
    assert rows[0][:4] == (
        dt.datetime(2026, 1, 2, 3, 4, 5),  # noqa: DTZ001 - SQL's type has no zone
        dt.date(2026, 1, 2),
        decimal.Decimal("1.50"),
        [1, 2],
    )
    assert rows[1] == (None,) * 5


def test_result_is_read_as_arrow_by_another_library_without_pyarrow() -> None:
    """In a process of its own, for the tests themselves may have loaded it."""
    program = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from olvm.api.result import Result; from olvm.model.table import QueryResult\n"
        "stream = Result(QueryResult(columns=['n'], types=['BIGINT'], rows=[(1,), (2,)])).__arrow_c_stream__()\n"
        "import ctypes\n"
        "pointer = ctypes.pythonapi.PyCapsule_GetPointer\n"
        "pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]\n"
        "address = pointer(stream, b'arrow_array_stream')\n"
        "call = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)\n"
        "get_next = call(ctypes.cast(address, ctypes.POINTER(ctypes.c_void_p))[1])\n"
        "array = (ctypes.c_int64 * 10)()\n"
        "assert get_next(address, ctypes.addressof(array)) == 0\n"
        "print(array[0])\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("2\n", "")

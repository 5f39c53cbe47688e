"""PlanetLab: folders of files with 288 percentages, and the Parquet file of five days."""

from __future__ import annotations

from pathlib import Path

import pytest

from olvm.experiments import import_trace
from olvm.experiments.consolidation.days import read_day
from olvm.model.errors import BadInput
from tests.unit.experiments.imports.trace_sources import columns_of, imported, parquet_file, text_file


def vm_file(path: Path, percent: int = 25, count: int = 288) -> Path:
    return text_file(path, [str(percent)] * count)


def kib(megabytes: int) -> float:
    return megabytes * 1024 / (1 << 20)


def test_day_imported_has_its_files_by_name_with_the_experiments_sizes(tmp_path: Path) -> None:
    for name in ("d", "a", "c", "b"):
        vm_file(tmp_path / "20110303" / name, 25 if name == "a" else 50)
    vm_file(tmp_path / "20110303" / ".hidden")
    report, rows = imported(
        "planetlab",
        tmp_path / "20110303",
        tmp_path / "t.parquet",
        "vm_id, arrival_s, lifetime_s, vcpus, memory_gib, utilisation",
    )
    assert rows == [
        ("a", 0.0, 86400.0, 1.0, kib(870), 0.25),
        ("b", 0.0, 86400.0, 1.0, kib(1740), 0.5),
        ("c", 0.0, 86400.0, 1.0, kib(1740), 0.5),
        ("d", 0.0, 86400.0, 1.0, kib(613), 0.5),
    ]
    assert columns_of(tmp_path / "t.parquet")[-3:] == ["day", "name", "cpu_pct"]
    assert (report.files, report.rows_read, report.rows_written) == (4, 4, 4)


def test_days_imported_begin_as_many_days_apart_as_their_names_say(tmp_path: Path) -> None:
    for day in ("20110303", "20110306"):
        vm_file(tmp_path / "days" / day / "vm")
    _, rows = imported(
        "planetlab", tmp_path / "days", tmp_path / "t.parquet", "vm_id, arrival_s, day, name, cpu_pct[:2]"
    )
    assert rows == [
        ("20110303/vm", 0.0, "20110303", "vm", [25, 25]),
        ("20110306/vm", 3 * 86400.0, "20110306", "vm", [25, 25]),
    ]


def test_imported_days_can_be_imported_again(tmp_path: Path) -> None:
    for day in ("one", "two"):
        vm_file(tmp_path / "days" / day / "vm", 7)
    import_trace("planetlab", tmp_path / "days", tmp_path / "a.parquet")
    import_trace("planetlab", tmp_path / "a.parquet", tmp_path / "b.parquet")
    _, rows = imported(
        "planetlab", tmp_path / "b.parquet", tmp_path / "c.parquet", "vm_id, arrival_s, utilisation"
    )
    assert rows == [("one/vm", 0.0, 0.07), ("two/vm", 86400.0, 0.07)]


def test_imported_day_is_what_the_experiment_reads(tmp_path: Path) -> None:
    for number in range(5):
        vm_file(tmp_path / "20110303" / f"vm{number}", number)
    import_trace("planetlab", tmp_path / "20110303", tmp_path / "t.parquet")
    from_folder = read_day(tmp_path / "20110303", "20110303")
    names, samples = read_day(tmp_path / "t.parquet", "20110303")
    assert (names, samples.tolist()) == (from_folder[0], from_folder[1].tolist())
    assert samples[3].tolist() == [3] * 288


def test_files_with_a_fault_are_bad_as_a_whole_and_named_with_the_line(tmp_path: Path) -> None:
    day = tmp_path / "day"
    vm_file(day / "a-good")
    vm_file(day / "b-short", count=287)
    vm_file(day / "c-long", count=289)
    text_file(day / "d-empty", [], end="")
    text_file(day / "e-text", ["1", "two", *["3"] * 286])
    text_file(day / "f-negative", ["-1", *["3"] * 287])
    text_file(day / "g-large", ["1", "2", "101", *["3"] * 285])
    text_file(day / "h-fraction", ["1", "2.5", *["3"] * 286])
    text_file(day / "i-delimiter", [";".join(["1"] * 288)])
    text_file(day / "j-gap", ["1", "", *["3"] * 286])
    text_file(day / "k-huge", ["1" * 80] * 1000)
    report, rows = imported("planetlab", day, tmp_path / "t.parquet", "vm_id", on_bad="drop")
    assert rows == [("a-good",)]
    assert [(row.file, row.line, row.kind, row.why) for row in report.bad_rows_named] == [
        ("b-short", 287, "truncated", "it ends after 287 of 288 values"),
        ("c-long", 289, "columns", "it has 289 values where 288 belong"),
        ("d-empty", 1, "empty", "it ends after 0 of 288 values"),
        ("e-text", 2, "not_a_number", "the percentage is 'two', not a whole number"),
        ("f-negative", 1, "negative", "the percentage is -1, not 0 to 100"),
        ("g-large", 3, "out_of_range", "the percentage is 101, not 0 to 100"),
        ("h-fraction", 2, "not_a_number", "the percentage is '2.5', not a whole number"),
        ("i-delimiter", 1, "not_a_number", f"the percentage is '{'1;' * 20}', not a whole number"),
        ("j-gap", 2, "not_a_number", "the percentage is '', not a whole number"),
        ("k-huge", 289, "columns", "it is far too large for 288 percentages"),
    ]
    assert report.bad_rows == 10
    assert {row.file for row in report.bad_rows_named} == {path.name for path in day.iterdir()} - {"a-good"}
    with pytest.raises(
        BadInput, match=r"10 rows are bad: b-short line 287: it ends after 287 of 288 values; c-long line 289"
    ):
        import_trace("planetlab", day, tmp_path / "u.parquet")


def test_parquet_with_bad_rows_names_them(tmp_path: Path) -> None:
    source = parquet_file(
        tmp_path / "p.parquet",
        "select * from (values ('d', 'a', [5 for x in range(288)]), ('d', 'b', [5 for x in range(287)]), "
        "('d', 'c', [case when x = 3 then null else 5 end for x in range(288)]), ('d', null, [5 for x in range(288)])) "
        "t(day, name, cpu_pct)",
    )
    report, rows = imported("planetlab", source, tmp_path / "t.parquet", "vm_id", on_bad="drop")
    assert rows == [("a",)]
    assert [row.line for row in report.bad_rows_named] == [2, 3, 4]


def test_sources_that_are_no_days_are_refused(tmp_path: Path) -> None:
    one = vm_file(tmp_path / "one")
    with pytest.raises(BadInput, match="it is one file; give the folder"):
        import_trace("planetlab", one, tmp_path / "t.parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="there is no file in it"):
        import_trace("planetlab", tmp_path / "empty", tmp_path / "t.parquet")
    other = parquet_file(tmp_path / "o.parquet", "select 1 as day")
    with pytest.raises(BadInput, match="it has no column name, cpu_pct"):
        import_trace("planetlab", other, tmp_path / "t.parquet")

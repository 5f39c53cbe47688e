"""A day of PlanetLab is read in the order of names, or refused with what is wrong where."""

from __future__ import annotations

import random
from pathlib import Path

import duckdb
import numpy as np
import pytest

from olvm.experiments.consolidation.days import BUNDLED_DAY, BUNDLED_PATH, read_day
from olvm.model.errors import BadInput, NotFound

GOOD = [str(number % 101) for number in range(288)]


def write_folder(folder: Path, **samples_by_name: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, samples in samples_by_name.items():
        (folder / name).write_text("\n".join(samples) + "\n", encoding="ascii")
    return folder


def write_parquet(path: Path, select: str) -> Path:
    duckdb.sql(f"copy ({select}) to '{path}' (format parquet)")
    return path


def test_bundled_day_is_whole_and_in_order() -> None:
    names, percentages = read_day(BUNDLED_PATH, BUNDLED_DAY)
    assert percentages.shape == (1052, 288)
    assert names == sorted(set(names))
    assert percentages.max() <= 100


def test_folder_is_read_in_the_order_of_names_and_as_the_parquet_file(tmp_path: Path) -> None:
    names, percentages = read_day(BUNDLED_PATH, BUNDLED_DAY)
    order = list(range(len(names)))
    random.Random(7).shuffle(order)
    for index in order:
        write_folder(tmp_path, **{names[index]: [str(value) for value in percentages[index]]})
    again, same = read_day(tmp_path, BUNDLED_DAY)
    assert again == names
    assert np.array_equal(same, percentages)


def test_folder_of_days_is_read_by_day(tmp_path: Path) -> None:
    write_folder(tmp_path / "20110306", a=GOOD)
    write_folder(tmp_path / "20110309", a=GOOD, b=GOOD)
    assert read_day(tmp_path, "20110309")[0] == ["a", "b"]
    with pytest.raises(NotFound, match=r"has no day 20110307 \(did you mean 2011030[69]\?\)"):
        read_day(tmp_path, "20110307")


def test_parquet_with_text_days_as_numbers_is_read(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "days.parquet",
        "select 20110303 as day, name, [50 for x in range(288)] as cpu_pct from (values ('b'), ('a')) t(name)",
    )
    assert read_day(path, "20110303")[0] == ["a", "b"]


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (GOOD[:-1], "a has 287 samples and not 288"),
        ([*GOOD, "3"], "a has 289 samples and not 288"),
        ([*GOOD[:-1], "101"], r"a has 101 as sample 288, which is no whole percentage \(0 to 100\)"),
        ([*GOOD[:-1], "-1"], "a has '-1' on line 288, which is no whole percentage"),
        ([*GOOD[:-1], "1.5"], "a has '1.5' on line 288"),
        (["x" * 70_000], "a is too long"),
        ([], "a has 0 samples"),
    ],
)
def test_file_with_a_fault_is_named_with_it(tmp_path: Path, samples: list[str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_day(write_folder(tmp_path, a=samples), "20110303")


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is an empty folder"):
        read_day(tmp_path, "20110303")


def test_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"there is no .*nowhere\.parquet"):
        read_day(tmp_path / "nowhere.parquet", "20110303")


def test_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "day.parquet").write_text("day,name\n", encoding="ascii")
    with pytest.raises(BadInput, match="is not a Parquet file that can be read"):
        read_day(tmp_path / "day.parquet", "20110303")


def test_parquet_without_the_day_says_which_it_has() -> None:
    with pytest.raises(NotFound, match=r"has no day 20110304 \(did you mean 20110303\?\); it has 20110303"):
        read_day(BUNDLED_PATH, "20110304")


def test_parquet_without_the_columns_says_which_it_has(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "x.parquet", "select '20110303' as day, 1 as cpu")
    with pytest.raises(BadInput, match=r"has no column name, cpu_pct; .* this one has day, cpu"):
        read_day(path, "20110303")


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ("[x for x in range(288)]", "a has 101 as sample 102"),
        ("[1.5 for x in range(288)]", "a has 1.5 as sample 1"),
        ("[if(x = 7, null, 1) for x in range(288)]", "a has None as sample 8"),
        ("null::int[]", "a has 0 samples"),
        ("[1, 2]", "a has 2 samples"),
    ],
)
def test_parquet_with_a_fault_is_named_with_it(tmp_path: Path, samples: str, message: str) -> None:
    path = write_parquet(
        tmp_path / "x.parquet", f"select '20110303' as day, 'a' as name, {samples} as cpu_pct"
    )
    with pytest.raises(BadInput, match=message):
        read_day(path, "20110303")


def test_name_that_stands_twice_is_refused(tmp_path: Path) -> None:
    select = "select '1' as day, 'a' as name, [1 for x in range(288)] as cpu_pct from range(2)"
    with pytest.raises(BadInput, match="a is there twice"):
        read_day(write_parquet(tmp_path / "x.parquet", select), "1")


def test_faults_of_many_are_counted(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, **{name: ["1"] for name in "abcde"})
    with pytest.raises(BadInput, match=r"a has 1 samples .*; b .*; c .*; and 2 more"):
        read_day(folder, "20110303")

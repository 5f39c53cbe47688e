"""What is wrong with a trace or with hosts is said with row, value, reason and remedy; nothing is skipped silently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from olvm.experiments.azure_trace import read_azure_trace
from olvm.experiments.host_specs import parse_hosts
from olvm.experiments.trace import read_trace
from olvm.model.errors import BadInput, NotFound, OlvmError

HEADER = "arrival_s,lifetime_s,vcpus,memory_gib\n"
GOOD = "0,10,1,2\n"


def csv(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text(text, encoding="utf-8")
    return path


def table(**columns: Any) -> dict[str, Any]:
    return {
        "arrival_s": [0.0, 1.0],
        "lifetime_s": [5.0, 6.0],
        "vcpus": [1, 2],
        "memory_gib": [2, 4],
        **columns,
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "arrival_s,lifetime,vcpus,memory_gib\n0,1,1,1\n",
            r"lacks the column lifetime_s \(did you mean lifetime\?\)",
        ),
        (HEADER, "has no rows"),
        ("", "is empty; its first line must name the columns"),
        (HEADER + GOOD + "1,10,two,2\n", "line 3, vcpus is no number: 'two'"),
        (HEADER + GOOD + "1,10,nan,2\n", "line 3, vcpus is nan"),
        (HEADER + GOOD + "1,10,0,2\n", "line 3, vcpus is 0"),
        (HEADER + GOOD + "1,10,-2,2\n", "line 3, vcpus is negative: -2"),
        (HEADER + GOOD + "1,10,1,-2\n", "line 3, memory_gib is negative: -2"),
        (HEADER + GOOD + "1,10,1,\n", "line 3, memory_gib is missing"),
        (HEADER + GOOD + ",10,1,2\n", "line 3, arrival_s is missing"),
        (HEADER + GOOD + "1,inf,1,2\n", "line 3, lifetime_s is infinite; leave it null"),
        (HEADER + GOOD + "1,nan,1,2\n", "line 3, lifetime_s is nan; leave it null"),
        (HEADER + GOOD + "1,-5,1,2\n", "line 3, lifetime_s is negative: -5"),
        (HEADER + "7,1,1,1\n" + GOOD, "line 3, arrival_s is 0, before a row above it .7.; sort the trace"),
        (HEADER + GOOD + "1,1,1e9,1\n", "line 3, vcpus is beyond any machine"),
        (HEADER + GOOD + "1,2,3\n", "cannot read .*trace.csv"),
    ],
)
def test_csv_that_is_malformed_is_refused_with_line_and_reason(
    tmp_path: Path, text: str, sentence: str
) -> None:
    with pytest.raises(BadInput, match=sentence):
        read_trace(csv(tmp_path, text))


def test_bad_rows_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    path = csv(tmp_path, HEADER + GOOD + "1,1,0,1\n" * 9)
    with pytest.raises(
        BadInput, match=r"9 bad rows of 10: line 3, .*line 7, .*; and 4 more; mend the trace, or drop"
    ):
        read_trace(path)


def test_bad_rows_dropped_are_reported_and_the_rest_is_kept(tmp_path: Path) -> None:
    path = csv(tmp_path, HEADER + GOOD + "x,1,1,1\n5,1,1,1\n3,1,1,1\n6,,1,1\n")
    trace = read_trace(path, on_bad="drop")
    assert trace.arrival_s.tolist() == [0.0, 5.0, 6.0]
    assert np.isnan(trace.lifetime_s).tolist() == [False, False, True]
    assert trace.dropped_count == 2
    assert [str(bad) for bad in trace.bad_rows] == [
        "line 3, arrival_s is no number: 'x'",
        "line 5, arrival_s is 3, before a row above it (5); sort the trace by arrival_s",
    ]
    assert trace.rows is not None
    assert trace.rows.tolist() == [0, 2, 4]


def test_trace_of_bad_rows_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nothing is left"):
        read_trace(csv(tmp_path, HEADER + "1,1,0,1\n"), on_bad="drop")


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"vcpus": [1, float("nan")]}, "row 1, vcpus is nan"),
        ({"vcpus": [1, None]}, "row 1, vcpus is missing"),
        ({"vcpus": ["1", "many"]}, "row 1, vcpus is no number: 'many'"),
        ({"memory_gib": [1]}, "differ in length: arrival_s 2"),
        ({"vcpus": [[1], [2]]}, "not an array of 2 dimensions"),
        ({"arrival_s": [3.0, 1.0]}, "row 1, arrival_s is 1, before"),
        ({"lifetime_s": [3.0, np.inf]}, "row 1, lifetime_s is infinite"),
    ],
)
def test_table_in_memory_that_is_malformed_is_refused(columns: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        read_trace(table(**columns))


def test_parquet_that_is_none_or_not_there_is_refused(tmp_path: Path) -> None:
    fake = tmp_path / "trace.parquet"
    fake.write_text("no", encoding="ascii")
    with pytest.raises(BadInput, match=r"cannot read .*trace.parquet"):
        read_trace(fake)
    with pytest.raises(NotFound, match="there is no trace"):
        read_trace(tmp_path / "other.parquet")
    with pytest.raises(BadInput, match="must end in"):
        read_trace(csv(tmp_path, HEADER).rename(tmp_path / "trace.txt"))


def test_same_table_from_every_source_is_the_same_trace(tmp_path: Path) -> None:
    import duckdb

    text = HEADER + "0,10,1,2\n1,,2.5,0.75\n1,0,0.25,3\n"
    connection = duckdb.connect()
    select = "select cast(arrival_s as double) arrival_s, cast(lifetime_s as double) lifetime_s, " \
        "cast(vcpus as double) vcpus, cast(memory_gib as double) memory_gib " \
        f"from read_csv('{csv(tmp_path, text)}', all_varchar = true)"  # fmt: skip
    connection.execute(f"copy ({select}) to '{tmp_path}/trace.parquet' (format parquet)")

    class Arrow:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            return duckdb.connect().sql(select).__arrow_c_stream__()

    arrays = dict(connection.sql(select).fetchnumpy())
    sources: list[object] = [
        tmp_path / "trace.csv",
        str(tmp_path / "trace.parquet"),
        connection.sql(select),
        Arrow(),
        arrays,
        {**arrays, "lifetime_s": [10.0, float("nan"), 0.0]},
    ]
    for source in sources:
        trace = read_trace(source)
        assert trace.arrival_s.tolist() == [0.0, 1.0, 1.0]
        assert str(trace.lifetime_s.tolist()) == "[10.0, nan, 0.0]"
        assert trace.milli_vcpus.tolist() == [1000, 2500, 250]
        assert trace.memory_kib.tolist() == [2 << 20, 3 << 18, 3 << 20]


def test_requests_between_two_steps_are_rounded_up_and_counted() -> None:
    trace = read_trace(table(vcpus=[1.1, 1.00001], memory_gib=[0.1, 2]))
    assert trace.milli_vcpus.tolist() == [1100, 1001]
    assert trace.memory_kib.tolist() == [104858, 2 << 20]
    assert trace.rounded_count == 2


def test_callers_arrays_stay_writable_and_as_they_were() -> None:
    arrivals = np.array([0.0, 1.0])
    read_trace(table(arrival_s=arrivals))
    arrivals[0] = 0.5
    assert arrivals.tolist() == [0.5, 1.0]


# ---------------------------------------------------------------- hosts


def test_hosts_of_every_spec_are_in_its_order(tmp_path: Path) -> None:
    path = tmp_path / "hosts.csv"
    path.write_text("name,cpus,memory_gib,count\nbig,64,512,1\nsmall,8,7.5,2\n", encoding="utf-8")
    fleet = parse_hosts(str(path))
    assert fleet.milli_cpus.tolist() == [64_000, 8_000, 8_000]
    assert fleet.names == ("big", "small-0", "small-1")
    mixed = parse_hosts("2x64c256g, 1x1.5c0.5G")
    assert mixed.milli_cpus.tolist() == [64_000, 64_000, 1_500]
    assert mixed.memory_kib.tolist() == [256 << 20, 256 << 20, 512 << 10]
    assert len(parse_hosts("borg-a:100")) == 100
    assert parse_hosts("borg-a:100x32c64g").milli_cpus.max() <= 32_000
    assert len(parse_hosts("borg-b")) > 1000


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("0x64c256g", "ask for 0 hosts"),
        ("64c", "cannot read '64c'"),
        ("", "cannot read ''"),
        ("2x64c256g,", "cannot read ''"),
        ("5x0c1g", "more than 0"),
        ("borg-z:5", "no Borg cell 'z'"),
        ("nowhere.csv", "no file of hosts"),
    ],
)
def test_hosts_that_make_no_sense_are_refused(spec: str, sentence: str) -> None:
    with pytest.raises(OlvmError, match=sentence):
        parse_hosts(spec)


def test_hosts_csv_with_a_bad_line_is_refused_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "hosts.csv"
    path.write_text("cpus,memory_gib\n64,512\nmany,1\n", encoding="utf-8")
    with pytest.raises(BadInput, match="line 3"):
        parse_hosts(str(path))


def test_bundled_trace_is_there_by_name_under_the_rules_of_its_reader() -> None:
    trace, vms = read_trace("azure-v1"), read_azure_trace()

    assert trace.arrival_s.tolist() == [vm.arrival_s for vm in vms]
    assert [None if np.isnan(one) else one for one in trace.lifetime_s.tolist()] == [
        vm.lifetime_s for vm in vms
    ]
    assert trace.memory_kib.tolist() == [vm.memory_bytes // 1024 for vm in vms]
    assert trace.milli_vcpus.tolist() == [vm.vcpus * 1000 for vm in vms]


def test_file_of_that_name_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "azure-v1").write_text(HEADER + GOOD)

    with pytest.raises(BadInput, match="cannot tell the format of trace azure-v1"):
        read_trace("azure-v1")

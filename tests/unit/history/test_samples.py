"""Samples on the wire."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from olvm.history.samples import (
    HostSample,
    decode_batch,
    encode_host_sample,
    encode_vm_samples,
    split_rows,
)
from olvm.model.errors import BadInput
from tests.unit.history.building import NOW_NS, vm_report, vm_sample

_ROOT = Path(__file__).parents[3]


def _altered(payload: bytes, **changes: object) -> bytes:
    return msgspec.msgpack.encode(msgspec.structs.replace(decode_batch(payload), **changes))


def test_vm_report_encoded_and_decoded_keeps_every_value() -> None:
    batch = decode_batch(
        vm_report(vm_sample("a", uptime_seconds=2**40), vm_sample("b", vm_name="web"), seq=7)
    )
    assert (batch.kind, batch.host, batch.at_ns, batch.host_epoch, batch.seq) == ("vm", "kvm01", NOW_NS, 1, 7)
    assert split_rows(batch.ids, 2, 2) == [["a", ""], ["b", "web"]]
    assert batch.column("uptime_seconds") == (2**40, -1)
    assert batch.column("cpu_usage_percent") == (12.5, 12.5)
    assert batch.column("memory_usage_percent") is None, "no row has it, so it is not sent"


def test_column_that_one_row_has_is_sent_with_the_others_unknown() -> None:
    batch = decode_batch(vm_report(vm_sample("a"), vm_sample("b", memory_usage_percent=40.0)))
    unknown, known = batch.column("memory_usage_percent") or ()
    assert (math.isnan(unknown), known) == (True, 40.0)


def test_vm_report_without_vms_decodes_to_no_rows() -> None:
    batch = decode_batch(encode_vm_samples([], host="kvm01", at_ns=NOW_NS, host_epoch=1, seq=1))
    assert batch.row_count == 0
    assert split_rows(batch.ids, 0, 2) == []


def test_host_report_decodes_to_one_row() -> None:
    sample = HostSample(host_status="Up", active_vms=3)
    batch = decode_batch(encode_host_sample(sample, host="kvm01", at_ns=NOW_NS, host_epoch=1, seq=1))
    assert (batch.kind, batch.row_count, batch.texts) == ("host", 1, "Up")


def test_guest_text_with_separators_and_surrogates_cannot_break_the_rows() -> None:
    hostile = vm_sample("a", current_user_name="x\x1fy\x1ez\ud800" + "u" * 1000)
    batch = decode_batch(vm_report(hostile, vm_sample("b")))
    rows = split_rows(batch.texts, 2, 3)
    assert rows[0][2].startswith("x y z?uu")
    assert len(rows[0][2]) == 255
    assert rows[1] == ["", "", ""]


def test_number_past_64_bits_is_the_nearest_that_is_not_and_costs_no_other_machine_its_sample() -> None:
    batch = decode_batch(
        vm_report(vm_sample("a", uptime_seconds=2**80), vm_sample("b", uptime_seconds=-(2**80)))
    )
    assert batch.column("uptime_seconds") == (2**63 - 1, -(2**63))


def test_number_past_32_bits_of_a_float_is_the_nearest_that_is_not() -> None:
    batch = decode_batch(
        vm_report(vm_sample("a", cpu_usage_percent=1e300), vm_sample("b", cpu_usage_percent=-1e300))
    )
    most, least = batch.column("cpu_usage_percent") or ()
    assert (most, least) == (pytest.approx(3.4e38, rel=0.01), -most)


def test_value_that_is_no_number_is_refused_by_the_encoder() -> None:
    with pytest.raises(BadInput, match="uptime_seconds is no number"):
        vm_report(vm_sample(uptime_seconds="long"))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x00",
        vm_report()[:-1],
        _altered(vm_report(), data=b"\x00"),
        _altered(vm_report(), shape="cpu_usage_percent"),
        _altered(vm_report(), shape="cpu_usage_percent:d"),
        _altered(vm_report(), shape="cpu_usage_percent:q", data=bytes(8)),
        _altered(vm_report(), shape="cpu_usage_percent:f cpu_usage_percent:f", data=bytes(8)),
        _altered(vm_report(), shape=" ".join(f"c{number}:f" for number in range(300)), data=bytes(1200)),
        _altered(vm_report(), row_count=2),
        _altered(vm_report(), row_count=10**9, shape="", data=b""),
        _altered(vm_report(), row_count=-1, shape="", data=b""),
        _altered(vm_report(), seq=0),
        _altered(vm_report(), seq=2**63),
        _altered(vm_report(), at_ns=-1),
    ],
)
def test_malformed_report_is_refused(payload: bytes) -> None:
    with pytest.raises(BadInput, match="refused"):
        decode_batch(payload)


def test_column_of_a_newer_agent_is_passed_over() -> None:
    batch = decode_batch(vm_report())
    newer = msgspec.structs.replace(
        batch, shape=f"gpu_usage_percent:f {batch.shape}", data=bytes(4) + batch.data
    )
    decoded = decode_batch(msgspec.msgpack.encode(newer))
    assert decoded.column("cpu_usage_percent") == batch.column("cpu_usage_percent")


def test_encoder_import_loads_neither_numpy_nor_duckdb() -> None:
    code = "import sys, olvm.history.samples; print({'numpy', 'duckdb', 'ray'} & set(sys.modules))"
    answer = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=_ROOT
    )
    assert answer.stdout.strip() == "set()"

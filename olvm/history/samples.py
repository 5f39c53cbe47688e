"""Samples on the wire: one report of one host as rows of raw numbers.

Decides the encoding of what `kinds` names. Runs in host agents, so it knows only the standard library and
msgspec: no numpy, no DuckDB.

Rules:
1. A row is packed as its shape says (`row_layout`). The writer joins the rows of many reports of one shape without
   looking at one.
2. What is unknown is NaN or -1, and becomes NULL. A column that is not in the shape is all unknown: an older agent does
   not know it, or no row has it.
3. Identities and texts are joined into one text each (unit and record separators), because they seldom
   change: the writer looks them up once and then recognises the whole text.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from operator import attrgetter, index
from typing import Any, Final

import msgspec

from olvm.history.bounds import ROWS_PER_BATCH_MAX, TEXT_CHARS_MAX
from olvm.history.kinds import (
    HOST_CORE_KIND,
    HOST_INTERFACE_KIND,
    HOST_KIND,
    HOST_NUMA_KIND,
    HOST_STORAGE_KIND,
    KIND_BY_NAME,
    KINDS,
    VM_DISK_KIND,
    VM_INTERFACE_KIND,
    VM_KIND,
    SampleColumn,
    SampleKind,
    SampleKindName,
)
from olvm.history.row_layout import SHAPES_MAX, RowLayout, layout_of, shape_of
from olvm.model.errors import BadInput

UNKNOWN_FLOAT: Final = float("nan")
UNKNOWN_INT: Final = -1

_FLOAT_MAX: Final = 3.4028234e38  # of 32 bits

_UNKNOWN_BY_CODE: Final = {"f": UNKNOWN_FLOAT, "q": UNKNOWN_INT}

ROW_SEPARATOR: Final = "\x1e"
FIELD_SEPARATOR: Final = "\x1f"
_SEPARATORS_TO_SPACE: Final = {0x1E: " ", 0x1F: " "}


class _Sample(msgspec.Struct, kw_only=True, gc=False):
    cpu_usage_percent: float = UNKNOWN_FLOAT
    user_cpu_usage_percent: float = UNKNOWN_FLOAT
    system_cpu_usage_percent: float = UNKNOWN_FLOAT
    memory_usage_percent: float = UNKNOWN_FLOAT
    memory_used_mb: int = UNKNOWN_INT
    received_total_byte: int = UNKNOWN_INT
    transmitted_total_byte: int = UNKNOWN_INT
    receive_rate_bytes_per_second: int = UNKNOWN_INT
    transmit_rate_bytes_per_second: int = UNKNOWN_INT
    uptime_seconds: int = UNKNOWN_INT


class VmSample(_Sample, kw_only=True, gc=False):
    """One VM at one instant; units as in `VM_KIND`."""

    vm_id: str
    vm_name: str = ""
    vm_status: str = ""
    vm_ip: str = ""
    current_user_name: str = ""
    read_rate_bytes_per_second: int = UNKNOWN_INT
    write_rate_bytes_per_second: int = UNKNOWN_INT
    guest_heartbeat_age_seconds: int = UNKNOWN_INT
    vcpus: int = UNKNOWN_INT
    balloon_mb: int = UNKNOWN_INT
    swap_in_pages_per_second: int = UNKNOWN_INT
    swap_out_pages_per_second: int = UNKNOWN_INT
    major_faults_per_second: int = UNKNOWN_INT
    minor_faults_per_second: int = UNKNOWN_INT
    cpu_time_total_ms: int = UNKNOWN_INT
    balloon_min_mb: int = UNKNOWN_INT
    balloon_max_mb: int = UNKNOWN_INT
    balloon_target_mb: int = UNKNOWN_INT
    monitor_unresponsive: float = UNKNOWN_FLOAT
    guest_memory_free_mb: int = UNKNOWN_INT
    guest_memory_cached_mb: int = UNKNOWN_INT
    guest_memory_buffers_mb: int = UNKNOWN_INT
    guest_swap_used_mb: int = UNKNOWN_INT
    guest_swap_total_mb: int = UNKNOWN_INT


class HostSample(_Sample, kw_only=True, gc=False):
    """The host itself at one instant; units as in `HOST_KIND`."""

    host_status: str = ""
    cpu_load: float = UNKNOWN_FLOAT
    ksm_cpu_percent: float = UNKNOWN_FLOAT
    swap_used_mb: int = UNKNOWN_INT
    active_vms: int = UNKNOWN_INT
    total_vms: int = UNKNOWN_INT
    total_vms_vcpus: int = UNKNOWN_INT
    memory_shared_mb: int = UNKNOWN_INT
    anon_huge_pages_mb: int = UNKNOWN_INT
    ksm_pages: int = UNKNOWN_INT
    swap_total_mb: int = UNKNOWN_INT
    incoming_vm_migrations: int = UNKNOWN_INT
    outgoing_vm_migrations: int = UNKNOWN_INT
    idle_cpu_percent: float = UNKNOWN_FLOAT
    memory_free_mb: int = UNKNOWN_INT
    ksm_active: float = UNKNOWN_FLOAT
    agent_user_cpu_percent: float = UNKNOWN_FLOAT
    agent_system_cpu_percent: float = UNKNOWN_FLOAT


class VmDiskSample(msgspec.Struct, kw_only=True, gc=False):
    """One disk of a VM at one instant; units as in `VM_DISK_KIND`."""

    vm_id: str
    vm_name: str = ""
    vm_disk_name: str
    vm_disk_actual_size_mb: int = UNKNOWN_INT
    vm_disk_size_mb: int = UNKNOWN_INT
    read_rate_bytes_per_second: int = UNKNOWN_INT
    write_rate_bytes_per_second: int = UNKNOWN_INT
    read_latency_seconds: float = UNKNOWN_FLOAT
    write_latency_seconds: float = UNKNOWN_FLOAT
    flush_latency_seconds: float = UNKNOWN_FLOAT
    read_ops_total: int = UNKNOWN_INT
    write_ops_total: int = UNKNOWN_INT
    read_total_byte: int = UNKNOWN_INT
    written_total_byte: int = UNKNOWN_INT


class _InterfaceSample(msgspec.Struct, kw_only=True, gc=False):
    receive_rate_percent: float = UNKNOWN_FLOAT
    transmit_rate_percent: float = UNKNOWN_FLOAT
    receive_rate_bytes_per_second: int = UNKNOWN_INT
    transmit_rate_bytes_per_second: int = UNKNOWN_INT
    received_total_byte: int = UNKNOWN_INT
    transmitted_total_byte: int = UNKNOWN_INT
    receive_errors_total: int = UNKNOWN_INT
    transmit_errors_total: int = UNKNOWN_INT
    receive_dropped_total: int = UNKNOWN_INT
    transmit_dropped_total: int = UNKNOWN_INT
    speed_mbps: int = UNKNOWN_INT


class VmInterfaceSample(_InterfaceSample, kw_only=True, gc=False):
    """One network interface of a VM at one instant; units as in `VM_INTERFACE_KIND`."""

    vm_id: str
    vm_name: str = ""
    vm_interface_name: str
    vm_interface_state: str = ""


class HostInterfaceSample(_InterfaceSample, kw_only=True, gc=False):
    """One network interface of the host at one instant; units as in `HOST_INTERFACE_KIND`."""

    host_interface_name: str
    host_interface_state: str = ""


class HostCoreSample(msgspec.Struct, kw_only=True, gc=False):
    """One core of the host at one instant; units as in `HOST_CORE_KIND`."""

    core_number: str
    numa_node: str = ""
    user_cpu_usage_percent: float = UNKNOWN_FLOAT
    system_cpu_usage_percent: float = UNKNOWN_FLOAT
    idle_cpu_percent: float = UNKNOWN_FLOAT


class HostNumaSample(msgspec.Struct, kw_only=True, gc=False):
    """One NUMA node of the host at one instant; units as in `HOST_NUMA_KIND`."""

    numa_node: str
    user_cpu_usage_percent: float = UNKNOWN_FLOAT
    system_cpu_usage_percent: float = UNKNOWN_FLOAT
    memory_usage_percent: float = UNKNOWN_FLOAT
    memory_free_mb: int = UNKNOWN_INT
    memory_size_mb: int = UNKNOWN_INT


class HostStorageSample(msgspec.Struct, kw_only=True, gc=False):
    """One storage pool of the host at one instant; units as in `HOST_STORAGE_KIND`."""

    storage_name: str
    available_disk_size_mb: int = UNKNOWN_INT
    used_disk_size_mb: int = UNKNOWN_INT
    total_disk_size_mb: int = UNKNOWN_INT


class SampleBatch(msgspec.Struct, kw_only=True, frozen=True, gc=False, array_like=True):
    """One report of one host. (kind, host, host_epoch, seq) names it for ever.

    `host_epoch` counts the agent's starts; `seq` the reports of this kind within it, from 1.
    `ids` holds `vm_id FS vm_name` per row, `texts` the kind's texts joined by FS per row; RS between rows.
    `shape` says how the rows lie in `data`.
    """

    host: str
    at_ns: int
    host_epoch: int
    row_count: int
    kind: SampleKindName
    seq: int
    ids: str
    texts: str
    shape: str
    data: bytes

    def column(self, name: str) -> tuple[float | int, ...] | None:
        """The values of one column, a row each; None if it was not sent."""
        return layout_of(self.shape).column(name, self.data)


class BatchHeading(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The beginning of an encoded report, which is read without the rest."""

    host: str
    at_ns: int
    host_epoch: int
    row_count: int


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(SampleBatch)
_heading_decoder = msgspec.msgpack.Decoder(BatchHeading)
_values_of: Final = {kind.name: attrgetter(*(column.name for column in kind.columns)) for kind in KINDS}


def encode_vm_samples(
    samples: Sequence[VmSample], *, host: str, at_ns: int, host_epoch: int, seq: int
) -> bytes:
    """One report of all VMs of a host; `BadInput` if a number does not fit 64 bits.

    Cost: 3 to 4 us a VM (benchmarks/bench_history.py).
    """
    return _encoded(VM_KIND, samples, host, at_ns, host_epoch, seq)


def encode_host_sample(sample: HostSample, *, host: str, at_ns: int, host_epoch: int, seq: int) -> bytes:
    """One report of the host itself."""
    return _encoded(HOST_KIND, (sample,), host, at_ns, host_epoch, seq)


def encode_vm_disk_samples(
    samples: Sequence[VmDiskSample], *, host: str, at_ns: int, host_epoch: int, seq: int
) -> bytes:
    """One report of all disks of all VMs of a host."""
    return _encoded(VM_DISK_KIND, samples, host, at_ns, host_epoch, seq)


def encode_vm_interface_samples(
    samples: Sequence[VmInterfaceSample], *, host: str, at_ns: int, host_epoch: int, seq: int
) -> bytes:
    """One report of all network interfaces of all VMs of a host."""
    return _encoded(VM_INTERFACE_KIND, samples, host, at_ns, host_epoch, seq)


def encode_host_interface_samples(
    samples: Sequence[HostInterfaceSample], *, host: str, at_ns: int, host_epoch: int, seq: int
) -> bytes:
    """One report of all network interfaces of the host itself."""
    return _encoded(HOST_INTERFACE_KIND, samples, host, at_ns, host_epoch, seq)


def encode_host_core_samples(
    samples: Sequence[HostCoreSample], *, host: str, at_ns: int, host_epoch: int, seq: int
) -> bytes:
    """One report of all cores of the host."""
    return _encoded(HOST_CORE_KIND, samples, host, at_ns, host_epoch, seq)


def encode_host_numa_samples(
    samples: Sequence[HostNumaSample], *, host: str, at_ns: int, host_epoch: int, seq: int
) -> bytes:
    """One report of all NUMA nodes of the host."""
    return _encoded(HOST_NUMA_KIND, samples, host, at_ns, host_epoch, seq)


def encode_host_storage_samples(
    samples: Sequence[HostStorageSample], *, host: str, at_ns: int, host_epoch: int, seq: int
) -> bytes:
    """One report of all storage pools of the host."""
    return _encoded(HOST_STORAGE_KIND, samples, host, at_ns, host_epoch, seq)


def _encoded(
    kind: SampleKind, samples: Sequence[Any], host: str, at_ns: int, host_epoch: int, seq: int
) -> bytes:
    values_of = _values_of[kind.name]
    names = [name for name, _ in kind.texts]
    shape, data = _packed(kind, [values_of(sample) for sample in samples], host)
    batch = SampleBatch(
        kind=kind.name,
        host=host,
        at_ns=at_ns,
        host_epoch=host_epoch,
        seq=seq,
        row_count=len(samples),
        ids=_joined([(sample.vm_id, sample.vm_name) for sample in samples]) if kind.has_vm else "",
        texts=_joined([tuple([getattr(sample, name) for name in names]) for sample in samples]),
        shape=shape,
        data=data,
    )
    return _encoder.encode(batch)


def heading_of(payload: bytes) -> BatchHeading:
    """The heading of a report that was encoded here; its rows are passed over."""
    return _heading_decoder.decode(payload)


def decode_batch(payload: bytes) -> SampleBatch:
    """The batch, checked so far that the writer may join its rows; otherwise `BadInput`. Cost: some us, not by rows."""
    try:
        batch = _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadInput(
            f"sample batch is refused, it cannot be decoded: {error}; is the agent newer?"
        ) from error
    row_count = batch.row_count
    if not (
        0 <= row_count <= ROWS_PER_BATCH_MAX
        and 0 <= batch.at_ns < 2**63
        and 0 <= batch.host_epoch < 2**63
        and 0 < batch.seq < 2**63
    ):
        raise _refused(
            batch,
            f"it says {row_count} rows (the limit is {ROWS_PER_BATCH_MAX}), or no time, epoch or sequence",
        )
    try:
        layout = _layout_of_kind(batch.kind, batch.shape)
    except ValueError as error:
        raise _refused(batch, f"its rows cannot be read: {error}") from error
    if len(batch.data) != row_count * layout.packer.size:
        raise _refused(
            batch, f"its rows are {len(batch.data)} bytes, not {row_count} times {layout.packer.size}"
        )
    return batch


def _refused(batch: SampleBatch, why: str) -> BadInput:
    return BadInput(f"sample batch {batch.seq} of host {batch.host!r} is refused: {why}")


@lru_cache(SHAPES_MAX)
def _layout_of_kind(kind: SampleKindName, shape: str) -> RowLayout:
    """The layout, in which every column that is known is what the kind says; otherwise `ValueError`."""
    layout = layout_of(shape)
    code_by_name = {column.name: column.code for column in KIND_BY_NAME[kind].columns}
    for name, code in layout.columns:
        if code_by_name.get(name, code) != code:
            raise ValueError(f"column {name} is {code}, not {code_by_name[name]}")
    return layout


def split_rows(joined: str, row_count: int, field_count: int) -> list[list[str]]:
    """Undo `_joined`; a text that does not hold `row_count` rows of `field_count` fields is `BadInput`."""
    rows = [row.split(FIELD_SEPARATOR) for row in joined.split(ROW_SEPARATOR)] if row_count else []
    if len(rows) != row_count or any(len(row) != field_count for row in rows):
        raise BadInput(f"sample batch is refused: its texts are not {row_count} rows of {field_count} fields")
    return rows


def _joined(rows: Sequence[tuple[str, ...]]) -> str:
    joined = ROW_SEPARATOR.join([FIELD_SEPARATOR.join(row) for row in rows])
    separator_count = joined.count(ROW_SEPARATOR) + joined.count(FIELD_SEPARATOR)
    expected_count = sum(len(row) for row in rows) - 1 if rows else 0
    long = len(joined) > TEXT_CHARS_MAX and any(len(text) > TEXT_CHARS_MAX for row in rows for text in row)
    if separator_count == expected_count and not long and joined.isascii():
        return joined
    cleaned = [FIELD_SEPARATOR.join([_clean(text) for text in row]) for row in rows]
    return ROW_SEPARATOR.join(cleaned)


def _clean(text: str) -> str:
    """A guest may choose this text: no separators, no lone surrogates, no more than the dictionary takes."""
    shortened = text.translate(_SEPARATORS_TO_SPACE)[:TEXT_CHARS_MAX]
    return shortened.encode("utf-8", "replace").decode("utf-8")


def _packed(kind: SampleKind, rows: Sequence[tuple[float | int, ...]], host: str) -> tuple[str, bytes]:
    """The shape and the bytes of these rows, without the columns that no row has (rule 2)."""
    present: list[SampleColumn] = []
    by_column: list[tuple[float | int, ...]] = []
    for column, values in zip(kind.columns, zip(*rows, strict=True), strict=bool(rows)):
        # `count` knows the NaN that stands for the unknown by its identity.
        if values.count(_UNKNOWN_BY_CODE[column.code]) != len(values):
            present.append(column)
            by_column.append(values)
    if not present:
        return "", b""
    shape = shape_of(tuple([(column.name, column.code) for column in present]))
    pack = layout_of(shape).packer.pack
    try:
        data = [pack(*row) for row in zip(*by_column, strict=True)]
    except (struct.error, OverflowError):
        possible = [
            [_possible(column, value, host) for value in values]
            for column, values in zip(present, by_column, strict=True)
        ]
        data = [pack(*row) for row in zip(*possible, strict=True)]
    return shape, b"".join(data)


def _possible(column: SampleColumn, value: Any, host: str) -> float | int:
    """One guest's lie must not cost the samples of its host: the writer clips what this makes of it, and counts."""
    try:
        if column.code == "f":
            number: float = 0.0 + value
            return min(max(number, -_FLOAT_MAX), _FLOAT_MAX)
        return max(-(2**63), min(index(value), 2**63 - 1))
    except (TypeError, OverflowError) as error:
        raise BadInput(f"samples of host {host!r}: {column.name} is no number: {error}") from error

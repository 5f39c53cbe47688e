"""Reads the bundled trace of real Azure VM requests (`olvm/data/azure_v1_vms.parquet`).

Decides what a row of the trace means to us; knows nothing of hosts, policies or clocks.

- Arrivals come in periods of 300 s, so hundreds of VMs share one arrival; their order is the file's own.
- Lifetimes are bins. We take the bin's upper edge: demand is then over-stated and never under-stated, which
  is the safe side when a fleet is sized. Up to one hour a bin is one period and both edges are equal; above
  that bins are 1 h wide, and above a day 24 h.
- A VM that came and went inside one period is 0 s in the file. It did occupy a host, so it counts as one
  whole period: no lifetime is below 300 s. (With both rules the trace's peak is 21,236 VMs.)
- A VM still running when the trace ends is *censored*: its lifetime is unknown, so it is None, not a guess.
- The trace has no tenant ids. One batch is one tenant's consecutive requests, so a batch is the nearest thing
  to a tenant; the same customer's next batch counts as another tenant.

Source: Cortez et al., SOSP 2017, as processed by Bergsma et al., SOSP 2021 (see NOTICE).
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from olvm.model.errors import BadInput

TRACE_PATH = Path(__file__).resolve().parents[1] / "data" / "azure_v1_vms.parquet"
VM_COUNT = 259_159
TRACE_SPAN_S = 300_000.0  # the trace's first and last arrivals are 299,700 s apart, and a period is 300 s
PERIOD_S = 300
GIB_BYTES = 1 << 30

_QUERY = """
    with numbered as (
        select *, file_row_number as row, arrival_s - min(arrival_s) over () as since_start_s
        from read_parquet($path, file_row_number = true)
    )
    select row, since_start_s - $first_s,
           case when censored then null else greatest(duration_hi_s, $period_s) end,
           vcpu, cast(mem_gb * $gib_bytes as bigint), batch_id
    from numbered
    where since_start_s >= $first_s
    order by row
    limit $row_count_max
"""

# The same rules as columns of the table that replays read; rows stay in the file's order.
REPLAY_TABLE = """
    select 'azure-' || lpad(cast(file_row_number as varchar), 6, '0') as vm_id,
           arrival_s - (select min(arrival_s) from read_parquet({path})) as arrival_s,
           case when censored then null else greatest(duration_hi_s, 300) end as lifetime_s,
           vcpu as vcpus, mem_gb as memory_gib, 'batch-' || cast(batch_id as varchar) as tenant
    from read_parquet({path}, file_row_number = true)
"""


class TraceVm(msgspec.Struct, frozen=True, kw_only=True):
    """One VM request. `vm_id` names a row of the trace: it does not depend on `limit` or `first_s`."""

    vm_id: str
    arrival_s: float
    # None when the VM outlived the trace; otherwise 300 or more.
    lifetime_s: float | None
    vcpus: int
    memory_bytes: int
    tenant: str


def read_azure_trace(limit: int | None = None, first_s: float = 0.0) -> list[TraceVm]:
    """Read VM requests in arrival order, from `first_s` seconds into the trace.

    Args:
        limit: at most this many VMs; None for all 259,159.
        first_s: earlier arrivals are left out, and `arrival_s` counts from here. 0 is the trace's beginning.

    Raises:
        BadInput: `limit` is negative, or `first_s` is not within the trace.

    Cost: 0.05 s for a few thousand VMs, 0.4 s for all; the first call also loads DuckDB.
    """
    if limit is not None and limit < 0:
        raise BadInput(f"cannot read {limit} VMs of the Azure trace: a limit is 0 or more, or None for all")
    if not 0.0 <= first_s < TRACE_SPAN_S:
        raise BadInput(
            f"cannot read the Azure trace from {first_s} s: it spans {TRACE_SPAN_S:.0f} s; "
            "give a first second within it"
        )
    return [
        TraceVm(
            vm_id=f"azure-{row:06}",
            arrival_s=float(arrival_s),
            lifetime_s=None if lifetime_s is None else float(lifetime_s),
            vcpus=vcpus,
            memory_bytes=memory_bytes,
            tenant=f"batch-{batch_id}",
        )
        for row, arrival_s, lifetime_s, vcpus, memory_bytes, batch_id in _rows(limit, first_s)
    ]


def _rows(limit: int | None, first_s: float) -> list[tuple[int, float, int | None, int, int, int]]:
    import duckdb  # `import olvm` must stay fast: DuckDB is loaded only by those who read a trace

    parameters: dict[str, object] = {
        "path": str(TRACE_PATH),
        "first_s": first_s,
        "period_s": PERIOD_S,
        "gib_bytes": GIB_BYTES,
        "row_count_max": VM_COUNT if limit is None else limit,
    }
    with duckdb.connect() as connection:
        return connection.execute(_QUERY, parameters).fetchall()

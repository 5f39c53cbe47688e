"""Holds the journal to what the driver was told: nothing here is asserted, everything is counted.

An acknowledgement is lost when an operation that the driver has an acknowledgement for is not in the journal, when
the journal tells another end than the driver was told, or when a machine is not in the state that its last
successful operation left it in.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from olvm.api.data_center import DataCenter
from olvm.demo.replay import Ledger
from olvm.demo.tenants import Tenant

ROWS_MAX = 1_000_000
REASON_CHARS_MAX = 60
LATENCY_QUERY = """
    select count(*), quantile_cont((finished_ns - created_ns) / 1e6, 0.5),
           quantile_cont((finished_ns - created_ns) / 1e6, 0.9), quantile_cont((finished_ns - created_ns) / 1e6, 0.99)
    from operations where kind = 'start_vm' and status = 'succeeded'
"""
# What differs from machine to machine is taken out of reasons, so that like failures stand in one line.
FAILURE_QUERY = r"""
    select kind, error_code,
           regexp_replace(reason, 'azure-\d+|kvm\d+|\d+(\.\d+)?( GiB)?|\([^)]*\)', '*', 'g') as why, count(*)
    from operations where status = 'failed' group by all order by count(*) desc, kind limit 12
"""


class Proof(msgspec.Struct, kw_only=True):
    acknowledged: int = 0
    in_journal: int = 0  # operations of all kinds
    by_status: dict[str, int] = {}
    missing: list[str] = []  # acknowledged, and not in the journal
    ended_otherwise: list[str] = []  # the driver was told another end than the journal tells
    vms_otherwise: list[str] = []
    vms_by_status: dict[str, int] = {}
    vms_expected: dict[str, int] = {}
    failures: list[tuple[Any, ...]] = []
    starts: int = 0
    start_ms: list[float] = []  # p50, p90, p99 by the journal's own times

    @property
    def lost(self) -> int:
        return len(self.missing) + len(self.ended_otherwise)


def prove(dc: DataCenter, ledger: Ledger, tenants: dict[str, Tenant]) -> Proof:
    proof = Proof(acknowledged=len(ledger.acknowledged))
    told = dict(dc.sql("select id, status from operations", limit=ROWS_MAX).rows())
    proof.in_journal = len(told)
    proof.by_status = dict(Counter(told.values()).most_common())
    proof.missing = sorted(ledger.acknowledged - told.keys())
    proof.ended_otherwise = sorted(
        operation_id for operation_id, end in ledger.ends.items() if told.get(operation_id, end) != end
    )
    statuses = dict(dc.sql("select name, status from vms", limit=ROWS_MAX).rows())
    proof.vms_by_status = dict(Counter(statuses.values()).most_common())
    expected = {name: status for name, tenant in tenants.items() if (status := tenant.expected_status)}
    proof.vms_expected = dict(Counter(expected.values()).most_common())
    proof.vms_otherwise = [
        f"{name}: expected {expected.get(name, 'none')}, is {statuses.get(name, 'none')}"
        for name in sorted(expected.keys() | statuses.keys())
        if expected.get(name) != statuses.get(name)
    ]
    proof.failures = dc.sql(FAILURE_QUERY).rows()
    ((proof.starts, *quantiles),) = dc.sql(LATENCY_QUERY).rows()
    proof.start_ms = [float(value) for value in quantiles if value is not None]
    return proof


def percentile(values: list[float], share: float) -> float:
    """By nearest rank; 0 without values."""
    if not values:
        return 0.0
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]

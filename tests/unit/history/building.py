"""What the tests of history are made of: samples, events and files, with a default for everything."""

from __future__ import annotations

from olvm.history.samples import VmSample, encode_vm_samples
from olvm.model.records import EventRecord, Severity

NOW_NS = 1_800_000_000 * 10**9


def vm_sample(vm_id: str = "vm-1", *, cpu_usage_percent: float = 12.5, **values: object) -> VmSample:
    return VmSample(vm_id=vm_id, cpu_usage_percent=cpu_usage_percent, **values)  # type: ignore[arg-type]


def vm_report(
    *samples: VmSample, host: str = "kvm01", seq: int = 1, host_epoch: int = 1, at_ns: int = NOW_NS
) -> bytes:
    return encode_vm_samples(
        samples or (vm_sample(),), host=host, at_ns=at_ns, host_epoch=host_epoch, seq=seq
    )


def event(
    seq: int, *, event_id: str | None = None, severity: Severity = "normal", at_ns: int = NOW_NS
) -> EventRecord:
    return EventRecord(
        id=f"engine-{seq}" if event_id is None else event_id,
        seq=seq,
        at_ns=at_ns,
        code="vm_started",
        severity=severity,
        message=f"event {seq}",
        details={"correlation_id": f"request-{seq}"},
    )

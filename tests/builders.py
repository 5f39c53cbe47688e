"""Records, messages and turns with everything defaulted: a test names only what it is about."""

from __future__ import annotations

from itertools import count
from typing import Any, Literal

import msgspec

from actors.behaviour import Turn
from actors.host import Host
from actors.vm import Vm
from olvm.model import messages as m
from olvm.model.config import Config
from olvm.model.host_states import HostStatus
from olvm.model.limits import NS_PER_S
from olvm.model.record import Record
from olvm.model.records import HostRecord, VmRecord
from olvm.model.vm_states import ON_A_HOST, VmStatus

GIB = 1024**3
LAUNCHING = frozenset({VmStatus.WAIT_FOR_LAUNCH, VmStatus.RESTORING_STATE})


def turn(
    *, me: str = "vm/v1", sender: str = "engine", at_s: float = 100.0, config: Config | None = None
) -> Turn:
    ids = count(1)
    return Turn(me, sender, "message-1", int(at_s * NS_PER_S), config or Config(), lambda: f"id-{next(ids)}")


def vm(*, status: VmStatus = VmStatus.DOWN, on_host: bool | None = None, **fields: Any) -> Vm:
    """A machine as it stands in `status`; on a host where that status has one."""
    if on_host is None:
        on_host = status in ON_A_HOST or status is VmStatus.UNKNOWN
    base: dict[str, Any] = {"id": "v1", "name": "web", "cluster": "prod", "vcpus": 1, "memory_bytes": GIB}
    base |= {"status": status, "epoch": 3, "seen_host_epoch": 1, "seen_seq": 10}
    if on_host:
        base |= {"host": "H1", "agent": "agent/H1@host-1"}
    return Vm(VmRecord(**(base | fields)))


def migrating(*, phase: str = "copying", **fields: Any) -> Vm:
    """A machine on its way from H1 (epoch 3) to H2 (epoch 4), ordered by an operation `migrate`."""
    status = VmStatus.MIGRATING_FROM if phase in ("copying", "settling") else VmStatus.UP
    base: dict[str, Any] = {"status": status, "boot_id": "boot-1", "epoch_issued": 4}
    base |= {"operation_id": "op-old", "operation_kind": "migrate"}
    base |= {"timers": {"deadline": 10**15, "copy": 10**13}, "copy_phase": phase, "copy_kind": "migration"}
    base |= {"copy_reason": "asked", "copy_host": "H2", "copy_agent": "agent/H2@host-2", "copy_epoch": 4}
    base |= {"copy_boot_id": "boot-2", "copy_policy": "post_copy", "copy_bandwidth_mib_s": 52.0}
    base |= {"copy_target_word": "waiting" if phase == "copying" else "", "copy_begun_ns": 90 * NS_PER_S}
    return vm(**(base | fields))


def taken_over(*, phase: str = "starting", **fields: Any) -> Vm:
    """A leased machine whose host H1 (epoch 3) is silent, and which is started on H2 (epoch 4)."""
    base: dict[str, Any] = {"status": VmStatus.UNKNOWN, "boot_id": "boot-1", "epoch_issued": 4}
    base |= {"high_availability": True, "lease": True, "resume_behavior": "kill"}
    base |= {"timers": {"copy": 10**13}, "copy_phase": phase, "copy_kind": "takeover"}
    base |= {"copy_reason": "host_error", "copy_epoch": 4, "copy_begun_ns": 60 * NS_PER_S}
    if phase == "starting":
        base |= {"copy_host": "H2", "copy_agent": "agent/H2@host-2", "copy_boot_id": "boot-2"}
    return vm(**(base | fields))


def host(*, status: HostStatus = HostStatus.UP, vm_count: int = 0, **fields: Any) -> Host:
    base: dict[str, Any] = {"name": "H1", "cluster": "prod", "status": status, "silo": "host-1"}
    base |= {"cpus": 8, "memory_bytes": 16 * GIB, "host_epoch": 2, "boot_id": "boot-1"}
    made = Host(HostRecord(**(base | fields)))
    made.vm_count = vm_count
    made.last_seen_ns = 100 * NS_PER_S
    return made


def domain_state(
    *,
    status: VmStatus,
    epoch: int = 3,
    exit_reason: int | None = None,
    exit_message: str = "",
    pause_code: str = "",
) -> m.DomainState:
    return m.DomainState("v1", "vm/v1", epoch, status, exit_reason, exit_message, pause_code)


def reported(
    status: VmStatus = VmStatus.UP,
    *,
    on: str = "H1",
    host_epoch: int = 1,
    seq: int = 11,
    epoch: int = 3,
    exit_reason: int | None = None,
    exit_message: str = "",
    absent: bool = False,
    pause_code: str = "",
) -> m.DomainReported:
    state = domain_state(
        status=status,
        epoch=epoch,
        exit_reason=exit_reason,
        exit_message=exit_message,
        pause_code=pause_code,
    )
    return m.DomainReported(on, f"agent/{on}@host-{on[1:]}", host_epoch, seq, state, absent)


def command(verb: m.VmVerb, *, operation_id: str = "op-new", timeout_s: float | None = None) -> m.CommandVm:
    return m.CommandVm(operation_id, verb, timeout_s)


def create_vm(name: str = "web", *, silo: str = "", ha: bool = False, memory_bytes: int = GIB) -> m.CreateVm:
    return m.CreateVm(name, "prod", 1, memory_bytes, high_availability=ha, silo=silo)


HostAct = Literal["activate", "maintenance", "remove"]


def encoded(record: Record) -> bytes:
    return msgspec.msgpack.encode(record)


def sent_to(done: Turn, to: str) -> list[m.AnyMessage]:
    return [message for address, message, _ in done.sent if address == to]


def endings(done: Turn) -> list[m.OperationEnded]:
    return [message for _, message, _ in done.sent if isinstance(message, m.OperationEnded)]

"""Drives a host agent turn by turn: its records, what a port answers, and what it said and asked."""

from __future__ import annotations

from typing import Any

import msgspec

from actors.behaviour import Turn
from actors.host_agent import HostAgent
from actors.hypervisor_port import FoundDomain, HostOpened, HostSeen
from hypervisor_backends.protocol import MigrationStatistics
from olvm.model import messages as m
from olvm.model.config import Config
from olvm.model.records import AgentRecord, DomainRecord
from olvm.model.vm_states import VmStatus
from tests.builders import GIB, sent_to, turn

VM = "vm/v1"
CONFIG = Config(migration_monitor_period_s=10, io_error_kill_after_s=80, io_error_resume_period_s=10)


def there(status: str, *, epoch: int = 3, pause_code: str = "") -> dict[str, FoundDomain]:
    """The hypervisor's list when it has machine v1."""
    return {"v1": FoundDomain(epoch, status, pause_code, "web")}


def opened(
    found: dict[str, FoundDomain] | None = None, *, boot_id: str = "boot-1", under_way: tuple[str, ...] = ()
) -> m.CallEnded:
    value = HostOpened(
        boot_id=boot_id, cpus=8, memory_bytes=16 * GIB, cpu_model="", found=found or {}, features=["post_copy"],
        under_way=list(under_way),
    )  # fmt: skip
    return m.CallEnded("open", True, msgspec.msgpack.encode(value))


def seen(
    found: dict[str, FoundDomain], *, boot_id: str = "boot-1", problems: list[str] | None = None
) -> m.CallEnded:
    return m.CallEnded("look", True, msgspec.msgpack.encode(HostSeen(boot_id, problems or [], found)))


def listed(tag: str, found: dict[str, FoundDomain]) -> m.CallEnded:
    return m.CallEnded(tag, True, msgspec.msgpack.encode(found))


def statistics(tag: str, *, iteration: int, post_copy: bool = False) -> m.CallEnded:
    value = MigrationStatistics(
        progress_percent=40, data_total_bytes=10, data_processed_bytes=4, data_remaining_bytes=6,
        memory_iteration=iteration, dirty_bytes_per_s=0.0, bandwidth_bytes_per_s=0.0, downtime_ms=100,
        expected_downtime_ms=900, post_copy=post_copy,
    )  # fmt: skip
    return m.CallEnded(tag, True, msgspec.msgpack.encode(value))


def ok(tag: str, value: str = "") -> m.CallEnded:
    return m.CallEnded(tag, True, value.encode())


def failed(tag: str, code: str, *, outcome_known: bool = True) -> m.CallEnded:
    return m.CallEnded(tag, False, f"because of {code}".encode(), code, outcome_known)


def domain(status: VmStatus = VmStatus.UP, **fields: Any) -> DomainRecord:
    base: dict[str, Any] = {"key": "H1/v1", "host": "H1", "vm_id": "v1", "vm_address": VM, "name": "web"}
    base |= {"epoch": 3, "status": status, "vcpus": 1, "memory_bytes": GIB, "boot_id": "boot-1"}
    return DomainRecord(**(base | fields))


def migrating(**fields: Any) -> DomainRecord:
    """A source that copies epoch 3 to epoch 4 on H2."""
    base: dict[str, Any] = {"to_host": "H2", "to_epoch": 4, "to_uri": "sim://H2/v1"}
    return domain(VmStatus.MIGRATING_FROM, **(base | {"policy": "minimal_downtime"} | fields))


def agent(*domains: DomainRecord, is_open: bool = True) -> HostAgent:
    record = AgentRecord(host="H1", cluster="prod", cpus=8, memory_bytes=GIB, host_epoch=1, boot_id="boot-1")
    made = HostAgent(record, {one.vm_id: one for one in domains})
    made.book.is_open = is_open
    made.opening = not is_open
    if is_open:
        made.opened = msgspec.msgpack.decode(opened().value, type=HostOpened)
        made.migrations.features = frozenset({"migration", "post_copy"})
    return made


def give(one: HostAgent, message: m.AnyMessage, *, at_s: float = 100.0, flush: bool = True) -> Turn:
    """One turn, and the flush of reports that would follow it in the same batch."""
    done = turn(me="agent/H1", sender=VM, at_s=at_s, config=CONFIG)
    done.silo = "host-1"
    done.marks = []
    one.handle(message, done)
    asked = ("agent/H1@host-1", m.FlushReports(), True)
    if flush and asked in done.sent:
        done.sent.remove(asked)
        one.handle(m.FlushReports(), done)
    return done


def create(epoch: int = 3, *, leased: bool = False, boot_id: str = "") -> m.CreateDomain:
    return m.CreateDomain("v1", VM, epoch, "web", 1, GIB, boot_id=boot_id, leased=leased)


def incoming(epoch: int = 4, *, leased: bool = False, boot_id: str = "") -> m.PrepareIncoming:
    return m.PrepareIncoming("v1", VM, epoch, "web", 1, GIB, "H2", boot_id=boot_id, leased=leased)


def told(done: Turn) -> list[tuple[VmStatus, int, bool]]:
    return [(said.domain.status, said.domain.epoch, said.absent) for said in reports(done)]


def ends(done: Turn) -> list[int | None]:
    """The exit reasons of the Down reports."""
    return [said.domain.exit_reason for said in reports(done) if said.domain.status is VmStatus.DOWN]


def reports(done: Turn) -> list[m.DomainReported]:
    return [said for said in sent_to(done, VM) if isinstance(said, m.DomainReported)]


def refusals(done: Turn) -> list[tuple[str, int, str]]:
    """Verb, epoch and code."""
    said = [one for one in sent_to(done, VM) if isinstance(one, m.DomainRefused)]
    return [(one.verb, one.epoch, one.code) for one in said]


def failures(done: Turn) -> list[tuple[int, str]]:
    """The attempt and code of migrations that are told to have failed."""
    said = [one for one in sent_to(done, VM) if isinstance(one, m.MigrationFailed)]
    return [(one.to_epoch, one.code) for one in said]


def tags(done: Turn) -> list[str]:
    return [tag for _, _, tag in done.calls]


def asked(done: Turn) -> list[str]:
    """The classes of what the ports were asked."""
    return [type(request).__name__ for _, request, _ in done.calls]


def alarms(done: Turn) -> list[tuple[str, float]]:
    """Timers that were set, and after how many seconds."""
    return [(name, (due - done.now_ns) / 1e9) for name, due in done.timers if due is not None]

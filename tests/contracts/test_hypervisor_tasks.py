"""Consoles, freezing, and what every task of a machine that is not there must hear, on every backend."""

from __future__ import annotations

import pytest

from hypervisor_backends.protocol import (
    AttachDisk,
    ConsoleAddress,
    DetachNic,
    FreezeGuest,
    HypervisorRequest,
    ListSnapshots,
    RevertSnapshot,
    SetBalloon,
    SetConsoleTicket,
    SetVcpus,
    ThawGuest,
)
from olvm.model.hardware import DiskSpec
from olvm.model.limits import NS_PER_S
from tests.unit.hypervisor_backends.task_bench import MIB, TaskBench


def test_console_ticket_names_where_and_until_when(tasks: TaskBench) -> None:
    tasks.need("console_ticket")
    address = tasks.do(SetConsoleTicket(vm_id=tasks.vm_id, password="open-1", valid_s=60))

    assert isinstance(address, ConsoleAddress)
    assert address.kind == "vnc"
    assert address.host
    assert address.port >= 5900
    assert abs(address.expires_ns - tasks.bench.scheduler.now_ns()) < 3600 * NS_PER_S


@pytest.mark.parametrize(
    ("password", "valid_s"), [("", 60), ("x" * 9, 60), ("é", 60), ("ok", 0), ("ok", 10**9)]
)
def test_console_ticket_that_cannot_be_is_refused_without_its_password(
    tasks: TaskBench, password: str, valid_s: int
) -> None:
    tasks.need("console_ticket")
    failure = tasks.failure(SetConsoleTicket(vm_id=tasks.vm_id, password=password, valid_s=valid_s))

    assert failure.code == "bad_request"
    assert len(password) < 3 or password not in failure.message


def test_guest_is_frozen_and_thawed_however_often_it_is_asked(tasks: TaskBench) -> None:
    tasks.need("guest_agent")
    for request in (FreezeGuest, FreezeGuest, ThawGuest, ThawGuest):
        tasks.do(request(vm_id=tasks.vm_id))


DOMAIN_TASKS: tuple[HypervisorRequest, ...] = (
    SetVcpus(vm_id="nobody", vcpus=1),
    SetBalloon(vm_id="nobody", memory_bytes=128 * MIB),
    AttachDisk(vm_id="nobody", disk=DiskSpec(name="vdz", size_bytes=MIB)),
    DetachNic(vm_id="nobody", name="eth0"),
    ListSnapshots(vm_id="nobody"),
    RevertSnapshot(vm_id="nobody", name="s"),
    SetConsoleTicket(vm_id="nobody", password="x"),
)


@pytest.mark.parametrize("request_", DOMAIN_TASKS, ids=lambda request: type(request).__name__)
def test_task_of_unknown_domain_is_refused(tasks: TaskBench, request_: HypervisorRequest) -> None:
    assert tasks.refused(request_) == "unknown_domain"

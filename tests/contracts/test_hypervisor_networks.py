"""What every backend with networks of its own must do by them."""

from __future__ import annotations

import pytest

from hypervisor_backends.protocol import (
    AttachNic,
    CreateNetwork,
    DeleteNetwork,
    DetachNic,
)
from olvm.model.hardware import NicSpec
from tests.unit.hypervisor_backends.task_bench import TaskBench


def test_network_is_made_once_shown_and_deleted(tasks: TaskBench) -> None:
    tasks.need("networks")
    request = CreateNetwork(name="iso1", kind="isolated", address="192.168.211.1/24")
    for _ in range(2):
        tasks.do(request)

    other = CreateNetwork(name="iso1", kind="isolated", address="192.168.212.1/24")
    assert tasks.refused(other) == "exists"
    shown = tasks.networks()["iso1"]
    assert (shown.kind, shown.active) == ("isolated", True)
    tasks.do(DeleteNetwork(name="iso1"))
    assert "iso1" not in tasks.networks()
    assert tasks.refused(DeleteNetwork(name="iso1")) == "not_found"


def test_network_with_a_machine_on_it_is_not_deleted(tasks: TaskBench) -> None:
    tasks.need("networks", "hot_plug_nic")
    tasks.do(CreateNetwork(name="used1", kind="isolated"))
    tasks.do(AttachNic(vm_id=tasks.vm_id, nic=NicSpec(name="eth4", network="used1")))

    assert tasks.refused(DeleteNetwork(name="used1")) == "in_use"
    tasks.do(DetachNic(vm_id=tasks.vm_id, name="eth4"))
    tasks.do(DeleteNetwork(name="used1"))


@pytest.mark.parametrize(
    "request_",
    [
        CreateNetwork(name="n/1", kind="isolated"),
        CreateNetwork(name="n1", kind="nat"),
        CreateNetwork(name="n1", kind="bridge"),
        CreateNetwork(name="n1", kind="bridge", bridge="br0", address="10.9.0.1/24"),
        CreateNetwork(name="n1", kind="isolated", address="10.9.0.300/24"),
        CreateNetwork(name="n1", kind="isolated", address="10.9.0.0/24"),
        CreateNetwork(name="n1", kind="isolated", address="10.9.0.1/31"),
        CreateNetwork(name="n1", kind="isolated", bridge="x" * 16),
        CreateNetwork(name="n1", kind="isolated", bridge="a b"),
    ],
)
def test_network_that_cannot_be_is_refused(tasks: TaskBench, request_: CreateNetwork) -> None:
    tasks.need("networks")

    assert tasks.refused(request_) == "bad_request"


def test_network_on_a_bridge_that_is_not_there_is_refused(tasks: TaskBench) -> None:
    tasks.need("networks")

    assert tasks.refused(CreateNetwork(name="n2", kind="bridge", bridge="nobr")) == "not_found"

"""Networks that libvirt makes, as machines on them see them. All of it in the namespaces of a laboratory host."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hypervisor_backends.protocol import (
    AttachNic,
    CreateNetwork,
    DeleteNetwork,
    DetachNic,
    ListNetworks,
    NetworkList,
)
from olvm.lab.guest import GuestImage
from olvm.lab.hosts import Lab
from olvm.model.hardware import NicSpec
from tests.libvirt.machine import TaskHost, eventually, running, spec_of


@pytest.fixture(scope="module")
def task_host(lab: Lab) -> Iterator[TaskHost]:
    host = TaskHost(lab.host("h1"))
    yield host
    host.close()


def kinds(host: TaskHost) -> dict[str, tuple[str, bool]]:
    value = host.do(ListNetworks())
    assert isinstance(value, NetworkList)
    return {network.name: (network.kind, network.active) for network in value.networks}


def test_machines_on_an_isolated_network_get_addresses_and_reach_each_other_alone(
    task_host: TaskHost, guest: GuestImage
) -> None:
    task_host.do(CreateNetwork(name="inner", kind="isolated", address="192.168.77.1/24"))
    first = spec_of(guest, "inner-1", memory_mib=192, nics=(NicSpec(name="eth0", network="inner"),))
    second = spec_of(guest, "inner-2", memory_mib=192, nics=(NicSpec(name="eth0", network="inner"),))
    try:
        with running(task_host, first) as one, running(task_host, second) as other:
            show = "ip -4 -o addr show eth0"
            assert eventually(lambda: "192.168.77." in one.sh(show))
            assert eventually(lambda: "192.168.77." in other.sh(show))
            address = other.sh(f"{show} | awk '{{print $4}}' | cut -d/ -f1")
            assert "1 packets received" in one.sh(f"ping -c 1 -W 5 {address}")
            assert task_host.refused(DeleteNetwork(name="inner")).code == "in_use"
    finally:
        task_host.do(DeleteNetwork(name="inner"))
    assert "inner" not in kinds(task_host)


def test_machine_behind_nat_reaches_the_hosts_own_network(
    task_host: TaskHost, guest: GuestImage, lab: Lab
) -> None:
    task_host.do(CreateNetwork(name="behind", kind="nat", address="192.168.78.1/24"))
    spec = spec_of(guest, "nat-1", memory_mib=192, nics=(NicSpec(name="eth0", network="behind"),))
    try:
        with running(task_host, spec) as machine:
            assert eventually(lambda: "192.168.78." in machine.sh("ip -4 -o addr show eth0"))
            assert "1 packets received" in machine.sh(f"ping -c 1 -W 5 {lab.subnet}.254")
    finally:
        task_host.do(DeleteNetwork(name="behind"))


def test_machine_on_the_hosts_bridge_by_name_of_a_network(
    task_host: TaskHost, guest: GuestImage, lab: Lab
) -> None:
    task_host.do(CreateNetwork(name="outer", kind="bridge", bridge="br0"))
    spec = spec_of(guest, "outer-1", memory_mib=192, nics=(NicSpec(name="eth0", network="outer"),))
    try:
        with running(task_host, spec) as machine:
            machine.sh(f"ip addr add {lab.subnet}.99/24 dev eth0; ip link set eth0 up")
            assert eventually(lambda: "1 packets received" in machine.sh(f"ping -c 1 -W 2 {lab.subnet}.254"))
            machine.do(AttachNic(vm_id="", nic=NicSpec(name="eth1", network="outer")))
            assert eventually(lambda: "eth1" in machine.sh("ls /sys/class/net"))
            machine.do(DetachNic(vm_id="", name="eth1"))
    finally:
        task_host.do(DeleteNetwork(name="outer"))


def test_network_whose_address_is_taken_is_refused_and_not_left_half(task_host: TaskHost) -> None:
    task_host.do(CreateNetwork(name="taken1", kind="isolated", address="192.168.79.1/24"))
    failure = task_host.refused(CreateNetwork(name="taken2", kind="isolated", address="192.168.79.9/24"))

    assert failure.code == "in_use"
    assert "taken2" not in kinds(task_host)
    task_host.do(DeleteNetwork(name="taken1"))


def test_network_that_stands_still_is_started_when_asked_for_again(task_host: TaskHost) -> None:
    request = CreateNetwork(name="again", kind="isolated", address="192.168.80.1/24")
    task_host.do(request)
    task_host.connection.networkLookupByName("again").destroy()
    assert kinds(task_host)["again"] == ("isolated", False)
    task_host.do(request)
    assert kinds(task_host)["again"] == ("isolated", True)
    task_host.do(DeleteNetwork(name="again"))


def test_network_with_an_address_of_ipv6_is_made(task_host: TaskHost) -> None:
    task_host.do(CreateNetwork(name="six", kind="isolated", address="fd00:77::1/64"))
    assert kinds(task_host)["six"] == ("isolated", True)
    task_host.do(DeleteNetwork(name="six"))

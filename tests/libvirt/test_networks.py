"""Networks that libvirt makes, as machines on them see them. All of it in the namespaces of a laboratory host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
from tests.libvirt.machine import Machine, TaskHost, eventually, running, spec_of


@pytest.fixture(scope="module")
def task_host(lab: Lab) -> Iterator[TaskHost]:
    host = TaskHost(lab.host("h1"))
    yield host
    host.close()


def kinds(host: TaskHost) -> dict[str, tuple[str, bool]]:
    value = host.do(ListNetworks())
    assert isinstance(value, NetworkList)
    return {network.name: (network.kind, network.active) for network in value.networks}


@pytest.fixture(scope="module")
def machines(task_host: TaskHost, guest: GuestImage) -> Iterator[tuple[Machine, Machine]]:
    first, second = (spec_of(guest, f"net-{number}", memory_mib=192) for number in (1, 2))
    with running(task_host, first) as one, running(task_host, second) as other:
        yield one, other


@contextmanager
def joined(machine: Machine, network: str) -> Iterator[None]:
    """A card of the machine on that network."""
    machine.do(AttachNic(vm_id="", nic=NicSpec(name="eth0", network=network)))
    assert eventually(lambda: "eth0" in machine.sh("ls /sys/class/net"))
    machine.sh("ip link set eth0 up")
    try:
        yield
    finally:
        machine.do(DetachNic(vm_id="", name="eth0"))


def address_of(machine: Machine) -> str:
    """What the network's DHCP gave."""
    machine.sh("udhcpc -n -q -i eth0 -t 10 -T 1 -s /usr/share/udhcpc/default.script")
    return machine.sh("ip -4 -o addr show eth0 | awk '{print $4}' | cut -d/ -f1")


def reaches(machine: Machine, address: str) -> bool:
    return eventually(lambda: "1 packets received" in machine.sh(f"ping -c 1 -W 2 {address}"), 10)


def test_machines_on_an_isolated_network_get_addresses_and_reach_each_other_alone(
    task_host: TaskHost, machines: tuple[Machine, Machine], lab: Lab
) -> None:
    one, other = machines
    task_host.do(CreateNetwork(name="inner", kind="isolated", address="192.168.77.1/24"))
    with joined(one, "inner"), joined(other, "inner"):
        mine, theirs = address_of(one), address_of(other)
        assert mine.startswith("192.168.77.")
        assert theirs.startswith("192.168.77.")
        assert reaches(one, theirs)
        assert "1 packets received" not in one.sh(f"ping -c 1 -W 2 {lab.subnet}.254")
        assert task_host.refused(DeleteNetwork(name="inner")).code == "in_use"
    task_host.do(DeleteNetwork(name="inner"))
    assert "inner" not in kinds(task_host)


def test_machine_behind_nat_reaches_the_hosts_own_network(
    task_host: TaskHost, machines: tuple[Machine, Machine], lab: Lab
) -> None:
    one, _ = machines
    task_host.do(CreateNetwork(name="behind", kind="nat", address="192.168.78.1/24"))
    with joined(one, "behind"):
        assert address_of(one).startswith("192.168.78.")
        assert reaches(one, f"{lab.subnet}.254")
    task_host.do(DeleteNetwork(name="behind"))


def test_machine_on_the_hosts_bridge_by_name_of_a_network(
    task_host: TaskHost, machines: tuple[Machine, Machine], lab: Lab
) -> None:
    one, _ = machines
    task_host.do(CreateNetwork(name="outer", kind="bridge", bridge="br0"))
    with joined(one, "outer"):
        one.sh(f"ip addr add {lab.subnet}.99/24 dev eth0")
        assert reaches(one, f"{lab.subnet}.254")
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

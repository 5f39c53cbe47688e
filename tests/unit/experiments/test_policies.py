"""What each policy is for, in examples that one can follow with a pencil; and their names."""

from __future__ import annotations

from typing import Any

from olvm.experiments import replay

Vm = tuple[float, float | None, float, float]  # arrival, lifetime, vCPUs, GiB


def places(policy: str, vms: list[Vm], hosts: str, **how: Any) -> list[tuple[int | None, int | None]]:
    """The host of each VM and the node in it."""
    arrival, lifetime, vcpus, memory = zip(*vms, strict=True)
    trace = {"arrival_s": arrival, "lifetime_s": lifetime, "vcpus": vcpus, "memory_gib": memory}
    table = replay(trace, hosts, policy=policy, queue="reject", **how).vms
    return list(zip(table["host"].tolist(), table["numa_node"].tolist(), strict=True))


def hosts_of(policy: str, vms: list[Vm], hosts: str, **how: Any) -> list[int | None]:
    return [host for host, _ in places(policy, vms, hosts, **how)]


def test_weighted_dot_product_heeds_the_scarcer_resource() -> None:
    """Panigrahy et al., 2011, with the weights of FFDAvgSum: what is asked for most counts most.

    The first three leave (6, 2), (2, 6) and (7, 0) of 8 vCPUs and 8 GiB free. For the last one, which asks for 1 and 1,
    the plain product is 6 + 2 on both hosts with room. Sums of demand are 10 and 17, so that weighted it is
    10*6 + 17*2 = 94 on the first and 10*2 + 17*6 = 122 on the second.
    """
    vms: list[Vm] = [(0.0, None, 2, 6), (1.0, None, 6, 2), (2.0, None, 1, 8), (3.0, None, 1, 1)]
    assert hosts_of("dot_product", vms, "3x8c8g") == [0, 1, 2, 0]
    assert hosts_of("weighted_dot_product", vms, "3x8c8g") == [0, 1, 2, 1]


def test_numa_balance_evens_out_the_nodes_of_a_host() -> None:
    """Two nodes of 8 vCPUs and 8 GiB in each of two hosts.

    The first VM (4 and 4) would leave any host as uneven. The second evens out host 0 on its other node, where best fit
    and first fit would take the lowest node with room. The third (6 and 2) makes host 0 uneven by 6/8 + 2/8, as it
    would host 1, but does not fit host 0.
    """
    vms: list[Vm] = [(0.0, None, 4, 4), (1.0, None, 4, 4), (2.0, None, 6, 2)]
    assert places("numa_balance", vms, "2x16c16g", numa_nodes=2) == [(0, 0), (0, 1), (1, 0)]
    assert places("best_fit", vms, "2x16c16g", numa_nodes=2) == [(0, 0), (0, 0), (0, 1)]


def test_numa_balance_evens_out_a_host_before_it_begins_another() -> None:
    vms: list[Vm] = [(0.0, None, 2, 1), (1.0, None, 2, 1)]
    assert places("numa_balance", vms, "2x8c8g", numa_nodes=2) == [(0, 0), (0, 1)]
    assert places("worst_fit", vms, "2x8c8g", numa_nodes=2) == [(0, 0), (1, 0)]


def test_numa_balance_keeps_a_vm_that_is_spread_off_an_uneven_host() -> None:
    """It makes no host more even: host 0 stays 1/4 + 1/4 apart, host 1 stays even."""
    vms: list[Vm] = [(0.0, None, 1, 1), (1.0, None, 4, 6)]
    assert places("numa_balance", vms, "2x8c8g", numa_nodes=2, split_above_gib=4) == [(0, 0), (1, None)]
    assert places("best_fit", vms, "2x8c8g", numa_nodes=2, split_above_gib=4) == [(0, 0), (0, None)]

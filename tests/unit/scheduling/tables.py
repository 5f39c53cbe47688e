"""Builders and Hypothesis strategies for host tables and requests; everything has a default."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from hypothesis import strategies as st

from olvm.model.host_profile import HostProfile
from olvm.scheduling import POLICY_BY_NAME, HostTable, Policy, VmRequest, policy_named

MIB = 2**20
GIB = 2**30


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One host to put into a table, with the VMs it runs as (vcpus, memory_bytes, settled)."""

    name: str = "kvm01"
    cpus: int = 8
    memory_bytes: int = 32 * GIB
    usable: bool = True
    cpu_load_percent: int = 0
    vms: tuple[tuple[int, int, bool], ...] = ()
    profile: HostProfile | None = None


def host(name: str, **facts: object) -> HostFacts:
    return msgspec.convert({"name": name, **facts}, HostFacts)


def request(**facts: object) -> VmRequest:
    return msgspec.convert({"vm_id": "web-1", "vcpus": 1, "memory_bytes": GIB, **facts}, VmRequest)


def table_of(
    hosts: Iterable[HostFacts], *, memory_overcommit_percent: int = 100, cpu_overcommit_percent: int = 0
) -> HostTable:
    """A table of `hosts`, added in the order given; VMs that do not fit are left out."""
    table = HostTable(
        memory_overcommit_percent=memory_overcommit_percent, cpu_overcommit_percent=cpu_overcommit_percent
    )
    for facts in hosts:
        table.add_host(
            facts.name,
            cpus=facts.cpus,
            memory_bytes=facts.memory_bytes,
            cpu_load_percent=facts.cpu_load_percent,
            profile=facts.profile,
        )
        for number, (vcpus, memory_bytes, settled) in enumerate(facts.vms):
            vm_id = f"{facts.name}/{number}"
            if table.fits(facts.name, vcpus=vcpus, memory_bytes=memory_bytes):
                table.reserve(vm_id, facts.name, vcpus, memory_bytes)
                if settled:
                    table.settle(vm_id)
        table.update_host(facts.name, usable=facts.usable)
    return table


_VM = st.tuples(st.integers(1, 9), st.integers(1, 12).map(lambda n: n * 512 * MIB), st.booleans())


def hosts_strategy(host_count_min: int = 0, host_count_max: int = 6) -> st.SearchStrategy[list[HostFacts]]:
    names = st.sampled_from([f"kvm{n:02}" for n in range(12)])
    facts = st.builds(
        HostFacts,
        name=names,
        cpus=st.integers(1, 12),
        memory_bytes=st.integers(1, 24).map(lambda n: n * 512 * MIB),
        usable=st.integers(0, 7).map(bool),
        cpu_load_percent=st.integers(0, 100),
        vms=st.lists(_VM, max_size=4).map(tuple),
    )
    return st.lists(
        facts, min_size=host_count_min, max_size=host_count_max, unique_by=lambda facts: facts.name
    )


def requests_strategy() -> st.SearchStrategy[VmRequest]:
    names = st.lists(st.sampled_from([f"kvm{n:02}" for n in range(12)]), max_size=3, unique=True).map(tuple)
    none_mostly = st.one_of(st.just(()), st.just(()), st.just(()), names)
    return st.builds(
        VmRequest,
        vm_id=st.just("web-1"),
        vcpus=st.integers(1, 10),
        memory_bytes=st.integers(1, 16).map(lambda n: n * 512 * MIB),
        pinned_hosts=none_mostly,
        excluded_hosts=none_mostly,
        current_host=st.one_of(st.none(), st.none(), st.sampled_from(["kvm00", "kvm01", "kvm02"])),
        high_availability=st.booleans(),
    )


UNCERTAIN = {
    "random",
    "two_choice",
    "round_robin",
    "dot_product",
    "cosine",
    "norm_greedy",
    "weighted_dot_product",
    "numa_balance",
}


def policies_strategy() -> st.SearchStrategy[Policy]:
    """Every built-in policy with its defaults, and with the parameters that its weights read.

    But those that draw, go by the newest booking or by NUMA nodes, or compare sums of shares: they are in
    `test_host_selectors.py`.
    """
    ratio = st.sampled_from([0, 0.5, 1, 2, 2.5])
    memory_mib = st.integers(1, 8192)
    return st.one_of(
        st.sampled_from(sorted(set(POLICY_BY_NAME) - UNCERTAIN)).map(policy_named),
        ratio.map(lambda value: policy_named("evenly_distributed", {"VCpuToPhysicalCpuRatio": value})),
        st.builds(
            lambda high, low_mib, high_mib: policy_named(
                "power_saving",
                {
                    "HighUtilization": high,
                    "MaxFreeMemoryForOverUtilized": low_mib,
                    "MinFreeMemoryForUnderUtilized": high_mib,
                },
            ),
            st.integers(50, 99),
            memory_mib,
            memory_mib,
        ),
    )

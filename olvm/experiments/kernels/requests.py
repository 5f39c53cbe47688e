"""What is known of VMs without the loop.

Before the first event: what each takes from a node, what fits nowhere and peaks of demand. After the last: how long
hosts held them.
"""

from __future__ import annotations

from collections.abc import Callable

from olvm.experiments.compilation import compiled, entry
from olvm.experiments.kernels.state import (
    PLACED,
    TOO_LARGE,
    TOO_LARGE_FOR_GROUP,
    TOO_MANY_NODES,
    TOO_MANY_VCPUS,
    TOO_MUCH_MEMORY,
    Bytes,
    Demand,
    Floats,
    Ints,
    SmallInts,
)


@entry
def prepare(digest: int) -> Callable[..., int]:
    def prepare(demand: Demand, split_above: int, node_count: int, kinds: Ints, step: int) -> int:
        """Turn `demand` in place into what one node gives, and mark what no empty host could hold.

        `kinds`: rows (vCPUs, memory, groups) of a node of the kinds of host that none other contains. A VM that does
        not say over how many nodes it is spread and has more memory than `split_above` is spread over all. Each of
        its nodes gives the share, rounded up. What has a status already is left alone.

        Returns the greatest common divisor of `step`, which divides the vCPUs of every node, and those of all VMs.
        """
        assert digest >= 0
        cpu, mem, parts, group, status = demand
        has_groups = len(group) > 0
        cpu_max, mem_max = 0, 0
        for kind in range(kinds.shape[0]):
            cpu_max, mem_max = max(cpu_max, kinds[kind, 0]), max(mem_max, kinds[kind, 1])
        for vm in range(len(cpu)):
            if parts[vm] == 0:
                parts[vm] = node_count if node_count > 1 and mem[vm] > split_above else 1
            elif parts[vm] > node_count and status[vm] == 0:
                status[vm] = TOO_MANY_NODES
            if status[vm] != 0:
                continue
            if parts[vm] > 1:
                cpu[vm] = (cpu[vm] + parts[vm] - 1) // parts[vm]
                mem[vm] = (mem[vm] + parts[vm] - 1) // parts[vm]
            asked = group[vm] if has_groups else 0
            if not _fits(kinds, cpu[vm], mem[vm], asked):
                if asked:
                    status[vm] = TOO_LARGE_FOR_GROUP
                elif cpu[vm] > cpu_max:
                    status[vm] = TOO_MANY_VCPUS
                else:
                    status[vm] = TOO_MUCH_MEMORY if mem[vm] > mem_max else TOO_LARGE
                continue
            if cpu[vm] % step:
                a, b = cpu[vm], step
                while b:
                    a, b = b, a % b
                step = a
        return step

    return prepare


@compiled
def _fits(kinds: Ints, cpu: int, mem: int, asked: int) -> bool:
    for kind in range(kinds.shape[0]):
        if cpu <= kinds[kind, 0] and mem <= kinds[kind, 1] and kinds[kind, 2] & asked == asked:
            return True
    return False


@entry
def peaks(digest: int) -> Callable[..., tuple[int, int, int]]:
    def peaks(arrival_s: Floats, end_s: Floats, by_end: Ints, demand: Demand) -> tuple[int, int, int]:
        """The largest number of VMs, vCPUs and memory at one time if each came when it asked and none waited.

        `by_end` sorts `end_s`, at equal times by number. VMs that fit nowhere are left out. Those who leave go first.
        """
        assert digest >= 0
        cpu, mem, parts, _, status = demand
        count, cpu_now, mem_now = 0, 0, 0
        count_max, cpu_max, mem_max = 0, 0, 0
        leaving = 0
        for vm in range(len(arrival_s)):
            while end_s[by_end[leaving]] <= arrival_s[vm] and by_end[leaving] < vm:
                gone = by_end[leaving]
                if status[gone] < TOO_MANY_VCPUS:
                    count -= 1
                    cpu_now -= cpu[gone] * parts[gone]
                    mem_now -= mem[gone] * parts[gone]
                leaving += 1
            if status[vm] < TOO_MANY_VCPUS:
                count += 1
                cpu_now += cpu[vm] * parts[vm]
                mem_now += mem[vm] * parts[vm]
                count_max = max(count_max, count)
                cpu_max = max(cpu_max, cpu_now)
                mem_max = max(mem_max, mem_now)
        return count_max, cpu_max, mem_max

    return peaks


@entry
def hold_until(digest: int) -> Callable[..., None]:
    def hold_until(
        status: Bytes, host: SmallInts, start_s: Floats, lifetime_s: Floats, last_s: float, until_s: Floats
    ) -> None:
        """Raise `until_s` of each host to the latest end of a VM that it got, or to `last_s` if that is before.

        Of a host that holds VMs at the end this is when the last of them leaves: all others left before.
        """
        assert digest >= 0
        for vm in range(len(status)):
            if status[vm] == PLACED:
                end_s = min(start_s[vm] + lifetime_s[vm], last_s)
                until_s[host[vm]] = max(until_s[host[vm]], end_s)

    return hold_until

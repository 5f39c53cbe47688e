"""What must be known before the first event: what each VM takes from a node, what fits nowhere, peaks of demand."""

from __future__ import annotations

from collections.abc import Callable

from olvm.experiments.compilation import entry
from olvm.experiments.kernels.state import (
    TOO_LARGE,
    TOO_MANY_VCPUS,
    TOO_MUCH_MEMORY,
    Demand,
    Floats,
    Ints,
)


@entry
def prepare(digest: int) -> Callable[..., int]:
    def prepare(demand: Demand, split_above: int, node_count: int, kinds: Ints, step: int) -> int:
        """Turn `demand` in place into what one node gives, and mark what no empty host could hold.

        `kinds`: rows (vCPUs, memory) of a node of the kinds of host that none other contains. A VM of more memory
        than `split_above` is spread over all nodes, each of which gives the share, rounded up.

        Returns the greatest common divisor of `step`, which divides the vCPUs of every node, and those of all VMs.
        """
        assert digest >= 0
        cpu, mem, is_spread, status = demand
        cpu_max, mem_max = 0, 0
        for kind in range(kinds.shape[0]):
            cpu_max, mem_max = max(cpu_max, kinds[kind, 0]), max(mem_max, kinds[kind, 1])
        for vm in range(len(cpu)):
            if node_count > 1 and mem[vm] > split_above:
                is_spread[vm] = 1
                cpu[vm] = (cpu[vm] + node_count - 1) // node_count
                mem[vm] = (mem[vm] + node_count - 1) // node_count
            fits = False
            for kind in range(kinds.shape[0]):
                if cpu[vm] <= kinds[kind, 0] and mem[vm] <= kinds[kind, 1]:
                    fits = True
                    break
            if not fits:
                if cpu[vm] > cpu_max:
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


@entry
def peaks(digest: int) -> Callable[..., tuple[int, int, int]]:
    def peaks(
        arrival_s: Floats, end_s: Floats, by_end: Ints, demand: Demand, node_count: int
    ) -> tuple[int, int, int]:
        """The largest number of VMs, vCPUs and memory at one time if each came when it asked and none waited.

        `by_end` sorts `end_s`, at equal times by number. VMs that fit nowhere are left out. Those who leave go first.
        """
        assert digest >= 0
        cpu, mem, is_spread, status = demand
        count, cpu_now, mem_now = 0, 0, 0
        count_max, cpu_max, mem_max = 0, 0, 0
        leaving = 0
        for vm in range(len(arrival_s)):
            while end_s[by_end[leaving]] <= arrival_s[vm] and by_end[leaving] < vm:
                gone = by_end[leaving]
                if status[gone] < TOO_MANY_VCPUS:
                    parts = node_count if is_spread[gone] else 1
                    count -= 1
                    cpu_now -= cpu[gone] * parts
                    mem_now -= mem[gone] * parts
                leaving += 1
            if status[vm] < TOO_MANY_VCPUS:
                parts = node_count if is_spread[vm] else 1
                count += 1
                cpu_now += cpu[vm] * parts
                mem_now += mem[vm] * parts
                count_max = max(count_max, count)
                cpu_max = max(cpu_max, cpu_now)
                mem_max = max(mem_max, mem_now)
        return count_max, cpu_max, mem_max

    return peaks

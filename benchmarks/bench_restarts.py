"""How long highly available machines are away when their host dies: from the simulator, with default settings.

Ten hosts, a hundred machines that boot in 5 to 20 s, a quiet network. Every half hour of simulated time one host loses
its power and stays off for ten minutes. An outage lasts from the moment that the machine stops executing until a later
life of it executes: the hypervisor's start, not the guest's agent. Two worlds: every machine has a lease, none has;
all hosts have power management. A third: no lease, and the dead hosts' kernels write a dump that they announce.
JSON lines.

python benchmarks/bench_restarts.py [--deaths 40] [--seed 1]
"""

from __future__ import annotations

import argparse

from measuring import Teller

from sim.plan import Plan, Shape, Step
from sim.runs import Run

HOSTS = 10


def plan(seed: int, deaths: int, *, lease_percent: int, what: str) -> Plan:
    shape = Shape(
        hosts=HOSTS,
        vms=100,
        host_memory_gib=64,
        vm_memory_gib=2,
        running_percent=100,
        ha_percent=100,
        lease_percent=lease_percent,
        fence_percent=100,
        kdump_percent=100 if what == "kdump_host" else 0,
    )
    steps = tuple(
        Step(600_000 + 1_800_000 * number + 137 * number, what, f"H{number % HOSTS + 1}", 600_000)
        for number in range(deaths)
    )
    return Plan(seed=seed, profile="calm", hours=0.5 * deaths + 0.5, shape=shape, steps=steps)


def main() -> None:
    parser = argparse.ArgumentParser(description="How long highly available machines are away.")
    parser.add_argument("--deaths", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    teller = Teller("restarts", vars(arguments))
    worlds = (("lease", 100, "crash_host"), ("fence", 0, "crash_host"), ("kdump", 0, "kdump_host"))
    for name, lease_percent, what in worlds:
        outcome = Run(plan(arguments.seed, arguments.deaths, lease_percent=lease_percent, what=what)).go()
        outages_s = sorted(outcome.restart_s)
        more = {"machines": len(outages_s), "verdict": outcome.verdict}
        for share, word in ((0.0, "min"), (0.5, "p50"), (0.95, "p95"), (0.99, "p99"), (1.0, "max")):
            value = outages_s[min(len(outages_s) - 1, int(share * len(outages_s)))]
            teller.tell(f"{name}_{word}", value, "s", **more)


if __name__ == "__main__":
    main()

"""How fast the simulator is, all oracles on: messages a second, and simulated against real time. JSON lines.

One process, one core. A delivered message is one that an actor handled. Rates are by CPU time of the process, which
another load on the machine does not change much; the time on the wall is beside them. Shapes:
`fuzz` 5 hosts / 50 machines under faults of profile rough, judged at the end; `calm` the same without faults;
`steady` 50 hosts / 1,000 machines without faults; `rack` 1,000 hosts / 20,000 machines for an hour, in whose middle
one rack of forty is lost; `seeds` seeds of the profile rough in a row, each with what it draws, building included;
`small` as `seeds`, all of them with 5 hosts / 50 machines. The building of a world is not what is measured elsewhere.

python benchmarks/bench_sim.py [--shapes fuzz calm steady rack seeds small] [--hours 4] [--seeds 60]
"""

from __future__ import annotations

import argparse
import time

from measuring import Teller

from sim.plan import Plan, Shape, Step
from sim.runs import Run
from sim.swarm import draw_plan

SHAPES = ("fuzz", "calm", "steady", "rack", "seeds", "small")
SEED = 11


def fuzz(hours: float) -> Plan:
    """The small world of the random campaigns, with the faults of profile rough."""
    return draw_plan(SEED, "rough", hours=hours, hosts=5, vms=50)


def quiet(hours: float, hosts: int, vms: int) -> Plan:
    shape = Shape(hosts=hosts, vms=vms, host_memory_gib=64, vm_memory_gib=2, running_percent=100)
    return Plan(seed=SEED, profile="calm", hours=hours, shape=shape)


def rack() -> Plan:
    shape = Shape(
        hosts=1_000,
        vms=20_000,
        racks=40,
        host_memory_gib=64,
        vm_memory_gib=2,
        running_percent=100,
        ha_percent=100,
    )
    steps = (Step(1_800_000, "lose_rack", "R7", 1_200_000),)
    return Plan(seed=SEED, profile="calm", hours=1.0, shape=shape, steps=steps)


def measure(teller: Teller, name: str, plan: Plan, *, judged: bool) -> None:
    """`judged`: with the time after the faults in which everything comes to rest, and the judgement of it."""
    run = Run(plan)
    outcome = run.go(settles=judged)
    built = run.built
    cpu_s = outcome.cpu_s - built.cpu_s
    messages = outcome.messages - built.messages
    simulated_s = outcome.simulated_s - built.simulated_s
    more = {
        "hosts": plan.shape.hosts,
        "machines": plan.shape.vms,
        "simulated_hours": round(simulated_s / 3_600, 2),
        "verdict": outcome.verdict,
        "faults": sum(outcome.fault_counts.values()),
    }
    teller.tell(f"{name}_messages_per_cpu_s", messages / cpu_s, "1/s", **more)
    teller.tell(f"{name}_simulated_per_cpu", simulated_s / cpu_s, "", **more)
    teller.tell(f"{name}_cpu", cpu_s, "s", messages=messages, wall_with_building_s=outcome.wall_s, **more)
    teller.tell(f"{name}_building_cpu", built.cpu_s, "s", messages=built.messages, **more)


def seeds(teller: Teller, name: str, plans: list[Plan]) -> None:
    began, began_cpu = time.perf_counter(), time.process_time()
    messages, simulated_s, failed = 0, 0.0, 0
    for plan in plans:
        outcome = Run(plan).go()
        messages += outcome.messages
        simulated_s += outcome.simulated_s
        failed += outcome.verdict != "ok"
    cpu_s, wall_s = time.process_time() - began_cpu, time.perf_counter() - began
    more = {"seeds": len(plans), "failed": failed, "cpu_s": cpu_s, "wall_s": wall_s}
    teller.tell(f"{name}_per_cpu_s", len(plans) / cpu_s, "1/s", **more)
    teller.tell(f"{name}_messages_per_cpu_s", messages / cpu_s, "1/s", **more)
    teller.tell(f"{name}_simulated_per_cpu", simulated_s / cpu_s, "", **more)


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast the simulator is.")
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--hours", type=float, default=4.0)
    parser.add_argument("--seeds", type=int, default=60)
    arguments = parser.parse_args()
    teller = Teller("sim", vars(arguments))
    chosen, hours = frozenset(arguments.shapes), arguments.hours
    if "fuzz" in chosen:
        measure(teller, "fuzz", fuzz(hours), judged=True)
    if "calm" in chosen:
        measure(teller, "calm", quiet(hours, 5, 50), judged=False)
    if "steady" in chosen:
        measure(teller, "steady", quiet(hours / 4, 50, 1_000), judged=False)
    if "rack" in chosen:
        measure(teller, "rack", rack(), judged=False)
    numbers = range(1, arguments.seeds + 1)
    if "seeds" in chosen:
        seeds(teller, "seeds", [draw_plan(seed, "rough") for seed in numbers])
    if "small" in chosen:
        seeds(teller, "small", [draw_plan(seed, "rough", hosts=5, vms=50) for seed in numbers])


if __name__ == "__main__":
    main()

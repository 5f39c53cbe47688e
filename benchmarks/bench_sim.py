"""How fast the simulator is, all oracles on: messages a second, and simulated against real time. JSON lines.

One process, one core. A delivered message is one that an actor handled. Shapes:
`fuzz` 5 hosts / 50 machines under faults; `steady` 50 hosts / 1,000 machines without; `rack` 1,000 hosts / 20,000
machines for an hour, in whose middle one rack of forty is lost; `seeds` seeds of the profile rough in a row.

python benchmarks/bench_sim.py [--shapes fuzz steady rack seeds] [--hours 4] [--seeds 60]
"""

from __future__ import annotations

import argparse
import time

from measuring import Teller

from sim.plan import Plan, Shape, Step
from sim.runs import Outcome, Run
from sim.swarm import draw_plan


def fuzz(hours: float) -> Plan:
    """The small world of the random campaigns, with the faults of profile rough."""
    return draw_plan(11, "rough", hours=hours, hosts=5, vms=50)


def steady(hours: float) -> Plan:
    shape = Shape(hosts=50, vms=1_000, host_memory_gib=64, vm_memory_gib=2, running_percent=100)
    return Plan(seed=11, profile="calm", hours=hours, shape=shape)


def rack() -> Plan:
    shape = Shape(
        hosts=1_000, vms=20_000, racks=40, host_memory_gib=64, vm_memory_gib=2, running_percent=100, ha_percent=100
    )
    steps = (Step(1_800_000, "lose_rack", "R7", 1_200_000),)
    return Plan(seed=11, profile="calm", hours=1.0, shape=shape, steps=steps)


def tell(teller: Teller, name: str, plan: Plan, outcome: Outcome, build_s: float) -> None:
    shape = f"{plan.shape.hosts} hosts, {plan.shape.vms} machines, {plan.hours:g} h, {outcome.verdict}"
    wall_s = outcome.wall_s
    teller.tell(f"{name}_messages_per_s", outcome.messages / wall_s, "1/s", shape=shape)
    teller.tell(f"{name}_simulated_per_real", outcome.simulated_s / wall_s, "", shape=shape)
    teller.tell(f"{name}_wall", wall_s, "s", shape=shape, build_s=round(build_s, 2), messages=outcome.messages)


def measure(teller: Teller, name: str, plan: Plan, *, judged: bool) -> None:
    run = Run(plan)
    began = time.perf_counter()
    built: list[float] = []
    run.after_build = lambda: built.append(time.perf_counter())
    outcome = run.go(settles=judged)
    # The building of the world is not what is measured.
    build_s = built[0] - began if built else 0.0
    outcome.wall_s -= build_s
    outcome.simulated_s -= run.built_s
    outcome.messages -= run.built_messages
    tell(teller, name, plan, outcome, build_s)


def seeds(teller: Teller, count: int) -> None:
    began = time.perf_counter()
    messages, simulated_s = 0, 0.0
    for seed in range(1, count + 1):
        outcome = Run(draw_plan(seed, "rough")).go()
        messages += outcome.messages
        simulated_s += outcome.simulated_s
    wall_s = time.perf_counter() - began
    teller.tell("seeds_per_s", count / wall_s, "1/s", seeds=count)
    teller.tell("seeds_messages_per_s", messages / wall_s, "1/s", seeds=count)
    teller.tell("seeds_simulated_per_real", simulated_s / wall_s, "", seeds=count)


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast the simulator is.")
    parser.add_argument("--shapes", nargs="+", default=["fuzz", "steady", "rack", "seeds"])
    parser.add_argument("--hours", type=float, default=4.0)
    parser.add_argument("--seeds", type=int, default=60)
    arguments = parser.parse_args()
    teller = Teller("sim", vars(arguments))
    if "fuzz" in arguments.shapes:
        measure(teller, "fuzz", fuzz(arguments.hours), judged=True)
    if "steady" in arguments.shapes:
        measure(teller, "steady", steady(arguments.hours), judged=False)
    if "rack" in arguments.shapes:
        measure(teller, "rack", rack(), judged=False)
    if "seeds" in arguments.shapes:
        seeds(teller, arguments.seeds)


if __name__ == "__main__":
    main()

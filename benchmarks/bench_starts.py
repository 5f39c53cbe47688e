"""How many durable starts a second, and how long one takes alone: JSON lines.

Hypervisors take no time, so what is measured is the way from the request through the engine's commit, the placement,
the host's commit and back to `Up` in the hands of the driver.

python benchmarks/bench_starts.py [--runtime local|ray] [--vms 20000] [--in-flight 1000] [--alone 200] [--hosts 20]
"""

from __future__ import annotations

import argparse
import tempfile
import time

from measuring import Teller, add_hosts, create_vms, instant, start_vms

import olvm


def main() -> None:
    parser = argparse.ArgumentParser(description="How many durable starts a second.")
    parser.add_argument("--runtime", choices=["ray", "local"], default="ray")
    parser.add_argument("--vms", type=int, default=20_000)
    parser.add_argument("--in-flight", type=int, default=1000)
    parser.add_argument("--alone", type=int, default=200)
    parser.add_argument("--hosts", type=int, default=20)
    arguments = parser.parse_args()
    teller = Teller("starts", vars(arguments))
    with (
        tempfile.TemporaryDirectory(prefix="olvm-bench-") as directory,
        olvm.DataCenter.open(directory, runtime=arguments.runtime, simulated=instant()) as dc,
    ):
        add_hosts(dc, "bench", count=arguments.hosts, vm_count=arguments.vms + 2 * arguments.alone)
        alone(dc, "start_alone", arguments, teller)
        names = [f"vm-{number:06}" for number in range(arguments.vms)]
        began_s = time.perf_counter()
        create_vms(dc, "bench", names, arguments.in_flight)
        teller.tell("creates", len(names) / (time.perf_counter() - began_s), "1/s")
        began_s = time.perf_counter()
        start_vms(dc, names, arguments.in_flight)
        teller.tell("starts", len(names) / (time.perf_counter() - began_s), "1/s")
        alone(dc, "start_alone_right_after", arguments, teller)


def alone(dc: olvm.DataCenter, figure: str, arguments: argparse.Namespace, teller: Teller) -> None:
    """One start after another, each waited for."""
    names = [f"{figure}-{number:06}" for number in range(arguments.alone)]
    create_vms(dc, "bench", names, arguments.in_flight)
    teller.tell_percentiles(figure, [time_start(dc, name) for name in names])


def time_start(dc: olvm.DataCenter, name: str) -> float:
    began_s = time.perf_counter()
    dc.vms[name].start().wait(60)
    return time.perf_counter() - began_s


if __name__ == "__main__":
    main()

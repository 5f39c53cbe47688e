"""What an idle data center costs: CPU seconds of all its processes, apart and together. JSON lines.

Idle means: machines run, nobody asks anything. Heartbeats, reports, samples and history go on. On Ray the processes
are the silos, told by their names, and Ray's own; the driver is this process. A process that ends within the time is
not counted.

python benchmarks/bench_idle.py [--runtime ray|local] [--hosts 40] [--vms 3000] [--seconds 60]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter

from measuring import Teller, add_hosts, create_vms, instant, start_vms
from processes import family

import olvm

SETTLE_S = 5.0


def measure(dc: olvm.DataCenter, seconds: float) -> Counter[str]:
    """CPU seconds by process name over `seconds`."""
    silo_by_pid = {silo.pid: f"silo-{silo.name}" for silo in dc.status().silos}
    silo_by_pid[os.getpid()] = "driver"  # in the local runtime that is everything
    before = family(os.getpid())
    time.sleep(seconds)
    spent: Counter[str] = Counter()
    for pid, process in family(os.getpid()).items():
        since_s = before[pid].cpu_s if pid in before else 0.0
        name = silo_by_pid.get(pid, f"other-{process.name.split(':')[0].strip()}")
        spent[name.replace(" ", "_")] += process.cpu_s - since_s
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description="What an idle data center costs.")
    parser.add_argument("--runtime", choices=["ray", "local"], default="ray")
    parser.add_argument("--hosts", type=int, default=40)
    parser.add_argument("--vms", type=int, default=3000)
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    teller = Teller("idle", vars(arguments))
    with (
        tempfile.TemporaryDirectory(prefix="olvm-bench-") as directory,
        olvm.DataCenter.open(directory, runtime=arguments.runtime, simulated=instant()) as dc,
    ):
        add_hosts(dc, "bench", count=arguments.hosts, vm_count=arguments.vms)
        names = [f"vm-{number:06}" for number in range(arguments.vms)]
        create_vms(dc, "bench", names, in_flight=1000)
        start_vms(dc, names, in_flight=1000)
        time.sleep(min(SETTLE_S, arguments.seconds))
        spent = measure(dc, arguments.seconds)
    for name, cpu_s in sorted(spent.items()):
        teller.tell(f"cpu_{name}", cpu_s, "s")
    teller.tell("cpu_all", spent.total(), "s")
    teller.tell("cpu_all_share_of_one_cpu", 100 * spent.total() / arguments.seconds, "percent")


if __name__ == "__main__":
    main()

"""What a restart of the engine costs: JSON lines.

On Ray the engine's process is killed, and the time runs until a client's question is answered by its successor. That
time has two parts, told apart by the successor's own start time: Ray finding out and starting a process, and the
engine reading its journal. Memory is that of restarted processes, with and without machines, so that neither holds
the litter of having created them. The local runtime has no process to kill: there the data center is closed and
opened again, and memory is not told.

python benchmarks/bench_restart.py [--runtime ray|local] [--vms 20000] [--hosts 20]
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time

import msgspec
from measuring import Teller, add_hosts, create_vms, instant, start_vms

import olvm
from olvm.model.client_protocol import SiloStatus

BACK_WITHIN_S = 120.0


class Restart(msgspec.Struct, kw_only=True):
    until_process_s: float
    until_answer_s: float
    rss_bytes: int


def engine_of(dc: olvm.DataCenter) -> SiloStatus:
    return next(silo for silo in dc.status().silos if silo.name == "engine")


def kill_engine(dc: olvm.DataCenter) -> Restart:
    """Kill the engine and wait for its successor's first answer."""
    before = engine_of(dc)
    killed_ns, began_s = time.time_ns(), time.perf_counter()
    os.kill(before.pid, signal.SIGKILL)
    while time.perf_counter() - began_s < BACK_WITHIN_S:
        dc.sql("select epoch from engine")  # the link connects again and asks again
        until_answer_s = time.perf_counter() - began_s
        after = engine_of(dc)
        if after.pid != before.pid:
            return Restart(
                until_process_s=(after.started_ns - killed_ns) / 1e9,
                until_answer_s=until_answer_s,
                rss_bytes=after.rss_bytes,
            )
    raise SystemExit(f"the engine did not come back within {BACK_WITHIN_S:g} s")


def fill(dc: olvm.DataCenter, arguments: argparse.Namespace) -> None:
    add_hosts(dc, "bench", count=arguments.hosts, vm_count=arguments.vms)
    names = [f"vm-{number:06}" for number in range(arguments.vms)]
    create_vms(dc, "bench", names, in_flight=1000)
    start_vms(dc, names, in_flight=1000)


def bench_on_ray(arguments: argparse.Namespace, teller: Teller, directory: str) -> None:
    with olvm.DataCenter.open(directory, runtime="ray", simulated=instant()) as dc:
        empty = kill_engine(dc)
        fill(dc, arguments)
        full = kill_engine(dc)
        up = dc.sql("select count(*) from vms where status = 'up'").one()
    for name, restart in (("empty", empty), ("full", full)):
        teller.tell(f"kill_to_first_answer_{name}", restart.until_answer_s, "s")
        teller.tell(f"kill_to_new_process_{name}", restart.until_process_s, "s")
        teller.tell(f"recovery_{name}", restart.until_answer_s - restart.until_process_s, "s")
        teller.tell(f"engine_rss_{name}", restart.rss_bytes, "bytes")
    teller.tell("engine_rss_per_vm", (full.rss_bytes - empty.rss_bytes) / arguments.vms, "bytes")
    teller.tell("vms_up_after_restart", up, "1")


def bench_locally(arguments: argparse.Namespace, teller: Teller, directory: str) -> None:
    with olvm.DataCenter.open(directory, runtime="local", simulated=instant()) as dc:
        fill(dc, arguments)
    began_s = time.perf_counter()
    with olvm.DataCenter.open(directory, runtime="local") as dc:
        dc.sql("select epoch from engine")
        teller.tell("open_to_first_answer_full", time.perf_counter() - began_s, "s")


def main() -> None:
    parser = argparse.ArgumentParser(description="What a restart of the engine costs.")
    parser.add_argument("--runtime", choices=["ray", "local"], default="ray")
    parser.add_argument("--vms", type=int, default=20_000)
    parser.add_argument("--hosts", type=int, default=20)
    arguments = parser.parse_args()
    teller = Teller("restart", vars(arguments))
    with tempfile.TemporaryDirectory(prefix="olvm-bench-") as directory:
        if arguments.runtime == "ray":
            bench_on_ray(arguments, teller, directory)
        else:
            bench_locally(arguments, teller, directory)


if __name__ == "__main__":
    main()

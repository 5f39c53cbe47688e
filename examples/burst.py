"""A thousand starts in flight, and a second process that waits for the last of them.

The second process joins the data center by its directory alone: an operation is durable, so whoever knows its id can
wait for it. Times are from the request to the machine being Up, as this driver saw them.

python examples/burst.py [--runtime ray|local] [--vms 1000] [--directory DIR]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile

import olvm

HOST_COUNT = 10
TIMEOUT_S = 300.0
QUICK = {"time_scale": 20.0}  # a boot of 5 to 20 simulated seconds takes 0.25 to 1 s


def wait_in_second_process(directory: str, operation_id: str) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--directory", directory, "--wait-for", operation_id]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for(directory: str, operation_id: str) -> None:
    """What the second process does."""
    with olvm.DataCenter.connect(directory) as dc:
        view = dc.operations.wait(operation_id, TIMEOUT_S)
        print(f"another process saw {view.kind} of {view.target_name} end: {view.status}")


def burst(dc: olvm.DataCenter, directory: str, vm_count: int) -> None:
    prod = dc.clusters.create("prod", policy="evenly_distributed")
    for number in range(HOST_COUNT):
        prod.hosts.add(f"kvm{number:02}", cpus=128, memory="2TiB")
    with dc.pipelined():
        names = [f"web-{number:04}" for number in range(vm_count)]
        created = [prod.vms.create_later(name, vcpus=1, memory="1GiB") for name in names]
        dc.wait_all(created, TIMEOUT_S)
        started = [prod.vms[name].start() for name in names]  # all of them before the first answer
    second = wait_in_second_process(directory, started[-1].id)
    dc.wait_all(started, TIMEOUT_S)
    said, _ = second.communicate(timeout=TIMEOUT_S)
    print(said.strip())
    print(
        dc.sql(
            "select count(*) as starts, status,"
            " round(quantile_cont((finished_ns - created_ns) / 1e6, 0.5)) as p50_ms,"
            " round(quantile_cont((finished_ns - created_ns) / 1e6, 0.99)) as p99_ms"
            " from operations where kind = 'start_vm' group by status"
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Start a thousand machines at once.")
    parser.add_argument("--runtime", choices=["ray", "local"], default="ray")
    parser.add_argument("--vms", type=int, default=1000)
    parser.add_argument("--directory", default=None)
    parser.add_argument("--wait-for", default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    directory = arguments.directory or tempfile.mkdtemp(prefix="olvm-burst-")
    if arguments.wait_for is not None:
        wait_for(directory, arguments.wait_for)
        return
    with olvm.DataCenter.open(directory, runtime=arguments.runtime, simulated=QUICK) as dc:
        burst(dc, directory, arguments.vms)


if __name__ == "__main__":
    main()

"""Restarts every host of a cluster, one after another, while its machines go on elsewhere.

Maintenance moves a host's running machines away, a few at a time; then the host is restarted and comes back, and the
policy spreads machines over it again. What the data center tells of each step is printed from its events.

python examples/rolling_restart.py [--runtime ray|local] [--hosts 4] [--vms 12] [--directory DIR]
"""

from __future__ import annotations

import argparse
import tempfile

import olvm

STEP_TIMEOUT_S = 120.0
QUICK = {
    "time_scale": 20.0
}  # twenty simulated seconds in one: guests boot and shut down in well under a second


def populate(dc: olvm.DataCenter, host_count: int, vm_count: int) -> None:
    prod = dc.clusters.create("prod", policy="evenly_distributed")
    for number in range(host_count):
        prod.hosts.add(f"kvm{number:02}", cpus=16, memory="64GiB")
    names = [f"app-{number:02}" for number in range(vm_count)]
    with dc.pipelined():
        created = [prod.vms.create_later(name, vcpus=2, memory="4GiB") for name in names]
        dc.wait_all(created, STEP_TIMEOUT_S)
        started = [prod.vms[name].start() for name in names]
        dc.wait_all(started, STEP_TIMEOUT_S)


def restart_host(dc: olvm.DataCenter, name: str) -> None:
    host = dc.hosts.get(name)
    host.maintenance(timeout=STEP_TIMEOUT_S).wait(STEP_TIMEOUT_S)
    # Here a person would install updates and reboot the machine.
    host.activate().wait(STEP_TIMEOUT_S)


def print_events(dc: olvm.DataCenter, after: int) -> int:
    """Print what happened since, and where to go on."""
    for event in dc.events(after):
        after = event["seq"]
        print(f"  {event['severity']:8} {event['message']}")
    return after


def main() -> None:
    parser = argparse.ArgumentParser(description="Restart every host of a cluster, one after another.")
    parser.add_argument("--runtime", choices=["ray", "local"], default="ray")
    parser.add_argument("--hosts", type=int, default=4)
    parser.add_argument("--vms", type=int, default=12)
    parser.add_argument("--directory", default=None)
    arguments = parser.parse_args()
    directory = arguments.directory or tempfile.mkdtemp(prefix="olvm-rolling-restart-")

    with olvm.DataCenter.open(directory, runtime=arguments.runtime, simulated=QUICK) as dc:
        populate(dc, arguments.hosts, arguments.vms)
        cursor = 0
        for event in dc.events():
            cursor = event["seq"]
        for host in dc.hosts.list("cluster=prod sortby name"):
            print(f"{host.name}:")
            restart_host(dc, host.name)
            cursor = print_events(dc, cursor)
        print(
            dc.sql(
                "select host, count(*) as machines from vms where status = 'up' group by host order by host"
            )
        )


if __name__ == "__main__":
    main()

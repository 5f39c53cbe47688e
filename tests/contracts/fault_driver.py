"""Driver scripts on a local data center that something happens to: started by test_faults.py.

python fault_driver.py full DIR        create machines until the disk is full, then with room again; prints JSON
python fault_driver.py boot DIR        start a machine whose host cannot write for a while; prints JSON
python fault_driver.py burst DIR       create and start machines for ever, printing each acknowledged operation
python fault_driver.py interrupt DIR   wait for an operation that takes long, inside `with`
"""

from __future__ import annotations

import itertools
import json
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import olvm
from olvm.api.clusters import Cluster
from olvm.api.operation import Operation
from olvm.model.errors import JournalUnwritable, OlvmError, WaitTimeout

INSTANT = {
    "boot_time_s_min": 0.0,
    "boot_time_s_max": 0.0,
    "launch_time_s_min": 0.0,
    "launch_time_s_max": 0.0,
    "shutdown_time_s_min": 0.0,
    "shutdown_time_s_max": 0.0,
}
REFUSALS_WANTED = 3


def lab(directory: Path, **simulated: float) -> olvm.DataCenter:
    return olvm.DataCenter.open(directory, runtime="local", host_silos=1, simulated={**INSTANT, **simulated})


def full(directory: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with lab(directory) as dc:
        prod = dc.clusters.create("prod")
        prod.hosts.add("kvm00", cpus=64, memory="1TiB")
        acknowledged: list[str] = []
        refusals: list[str] = []
        biggest = max(one.stat().st_size for one in directory.iterdir() if one.is_file())
        resource.setrlimit(resource.RLIMIT_FSIZE, (biggest + 20_000, resource.RLIM_INFINITY))
        for n in itertools.count():
            try:
                operation = prod.vms.create_later(f"vm-{n:04}", vcpus=1, memory="1GiB")
                acknowledged.append(operation.id)
                acknowledged.append(dc.vms[f"vm-{n:04}"].start().id)
            except OlvmError as error:
                refusals.append(f"{error.code}: {error.message}")
                if len(refusals) == REFUSALS_WANTED:
                    break
        notes = [silo.note for silo in dc.status().silos if silo.note]
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        after = _create_when_possible(prod)
        acknowledged.append(after.id)
        acknowledged.append(dc.vms["after"].start().wait(60).id)
        for one in acknowledged:
            _wait_ended(dc, one)
        states = {one.name: [one.status.value, one.status_reason] for one in dc.vms.list()}
        print(json.dumps({"refusals": refusals, "notes": notes, "ids": acknowledged, "vms": states}))


def boot(directory: Path) -> None:
    """The guest comes up while the host's silo cannot write that it did."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with lab(directory, boot_time_s_min=1.0, boot_time_s_max=1.0) as dc:
        prod = dc.clusters.create("prod")
        prod.hosts.add("kvm00", cpus=64, memory="1TiB")
        web = prod.vms.create("web-1", vcpus=1, memory="1GiB")
        started = web.start()
        poll(lambda: web.status == "powering_up")
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        poll(lambda: "host-1" in [silo.name for silo in dc.status().silos if silo.note])
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        started.wait(20)
        web.shutdown().wait(20)
        print(json.dumps({"status": web.status, "started": started.status}))


def poll(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to that in 30 s"
        time.sleep(0.02)


def _create_when_possible(prod: Cluster) -> Operation:
    deadline = time.monotonic() + 60
    while True:
        try:
            return prod.vms.create_later(
                "after", vcpus=1, memory="1GiB", client_request_id="after"
            ).accepted()
        except JournalUnwritable:
            assert time.monotonic() < deadline, "the engine did not go on after there was room again"


def _wait_ended(dc: olvm.DataCenter, operation_id: str) -> None:
    try:
        dc.operations.wait(operation_id, 60)
    except WaitTimeout:
        raise
    except OlvmError:
        pass  # it failed with a reason, which the test looks at


def burst(directory: Path) -> None:
    with lab(directory) as dc:
        prod = dc.clusters.create("prod")
        prod.hosts.add("kvm00", cpus=64, memory="1TiB")
        for round_number in itertools.count():
            with dc.pipelined():
                names = [f"vm-{round_number}-{n}" for n in range(40)]
                asked = [prod.vms.create_later(name, vcpus=1, memory="1GiB") for name in names]
                asked += [dc.vms[name].start() for name in names]
            for one in asked:
                sys.stdout.write(f"{one.id}\n")
                sys.stdout.flush()


def interrupt(directory: Path) -> None:
    with lab(directory, boot_time_s_min=3600.0, boot_time_s_max=3600.0) as dc:
        prod = dc.clusters.create("prod")
        prod.hosts.add("kvm00", cpus=64, memory="1TiB")
        started = prod.vms.create("slow", vcpus=1, memory="1GiB").start()
        print(started.id, flush=True)
        started.wait(600)


if __name__ == "__main__":
    {"full": full, "boot": boot, "burst": burst, "interrupt": interrupt}[sys.argv[1]](Path(sys.argv[2]))

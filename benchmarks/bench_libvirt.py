"""What olvm adds to libvirt: starts, stops, migrations and bulk statistics, by plain libvirt-python and through olvm.

Two real libvirt hosts of the laboratory and its small guest, so it needs root and a Debian. Two ways, over the same
hosts with the same XML: `plain` calls libvirt-python in a loop, `olvm` gives
commands to a data center (engine, agents and journals in this process). JSON lines.

python benchmarks/bench_libvirt.py [--rounds 10] [--domains 50]
"""

from __future__ import annotations

import argparse
import queue
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import libvirt
from measuring import Teller

import olvm
from hypervisor_backends.libvirt_backend import LibvirtHypervisor
from hypervisor_backends.libvirt_settings import libvirt_settings_from
from hypervisor_backends.protocol import (
    BulkStatistics,
    CallSucceeded,
    DestroyDomain,
    DomainSpec,
    HypervisorRequest,
    PauseDomain,
    StartDomain,
)
from olvm.lab.guest import GuestImage, build_guest
from olvm.lab.hosts import Lab
from olvm.model.errors import NoCapacity
from olvm.model.hardware import Hardware

MEMORY_BYTES = 192 * 1024**2
PLAIN = "plain"
BOOTS_PERCENT = 50  # of a start: its host has said that the machine boots
# A guest that is moved while it boots may panic under TCG; calm, it is also as large the one way as the other.
CALM_S = 8.0


def timed(fn: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    fn()
    return time.perf_counter() - began_s


def tell(teller: Teller, what: str, plain: list[float], ours: list[float]) -> None:
    for way, seconds in (("plain", plain), ("olvm", ours)):
        teller.tell(f"{what}_{way}_p50", statistics.median(seconds) * 1e3, "ms")
    added_s = statistics.median(ours) - statistics.median(plain)
    teller.tell(f"{what}_added", added_s * 1e3, "ms")
    teller.tell(f"{what}_added_share", added_s / statistics.median(plain) * 100, "%")


def hardware_of(guest: GuestImage) -> Hardware:
    return Hardware(kernel=str(guest.kernel), initrd=str(guest.initrd), cmdline=guest.cmdline, vnc=False)


def xml_by_olvm(lab: Lab, host: str, name: str) -> str:
    """What olvm gave libvirt for a machine, as somebody else's: the plain way is measured with an equal domain.

    Without our metadata, for the agents would end what they did not prepare.
    """
    connection = libvirt.open(lab.host(host).uri)
    try:
        xml = ET.fromstring(connection.lookupByName(name).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    finally:
        connection.close()
    for tag in ("metadata", "uuid"):
        found = xml.find(tag)
        assert found is not None
        xml.remove(found)
    text = xml.find("name")
    assert text is not None
    text.text = PLAIN
    for log in xml.iterfind("devices/*/log"):
        log.set("file", f"{log.get('file')}.{PLAIN}")
    return ET.tostring(xml, encoding="unicode")


def measure(
    dc: olvm.DataCenter, lab: Lab, guest: GuestImage, arguments: argparse.Namespace, teller: Teller
) -> None:
    cluster = dc.clusters.create("bench")
    for host in lab.hosts.values():
        cluster.hosts.add(host.name, backend="libvirt", backend_settings=host.settings)
    vm = cluster.vms.create(
        "one", vcpus=1, memory=MEMORY_BYTES, hardware=hardware_of(guest), pinned_hosts=["h1", "h2"]
    )
    vm.start().wait(120)
    assert vm.host is not None
    xml = xml_by_olvm(lab, vm.host, "one")
    connections = [libvirt.open(host.uri) for host in lab.hosts.values()]
    vm.stop().wait(60)
    starts, stops, moves = [], [], []
    plain_starts, plain_stops, plain_moves = [], [], []
    # One way and the other in turn: a machine that gets slower or faster meanwhile does so for both.
    for _ in range(arguments.rounds):
        began_s = time.perf_counter()
        domain = connections[0].defineXML(xml)
        domain.create()
        plain_starts.append(time.perf_counter() - began_s)
        plain_stops.append(timed(lambda domain=domain: (domain.destroy(), domain.undefine())))
        starts.append(until_launched(vm, quiet_s=0.8 * min(plain_starts)))
        stops.append(timed(lambda: vm.stop().wait(60)))
    vm.start().wait(120)
    time.sleep(CALM_S)
    for _ in range(arguments.rounds):
        moves.append(moved(vm))
    vm.stop().wait(60)
    connections[0].createXML(xml, 0)
    time.sleep(CALM_S)
    flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER | libvirt.VIR_MIGRATE_AUTO_CONVERGE
    for number in range(arguments.rounds):
        target = list(lab.hosts.values())[(number + 1) % 2]
        here = connections[number % 2].lookupByName(PLAIN)
        plain_moves.append(
            timed(lambda here=here, target=target: here.migrateToURI3(target.migration_uri, {}, flags))
        )
    connections[arguments.rounds % 2].lookupByName(PLAIN).destroy()
    tell(teller, "start", plain_starts, starts)
    tell(teller, "stop", plain_stops, stops)
    tell(teller, "migrate", plain_moves, moves)
    for connection in connections:
        connection.close()


def moved(vm: olvm.api.vms.Vm) -> float:
    """Seconds of one migration; before the next its old host must have said the end of the old copy."""
    while True:
        began_s = time.perf_counter()
        try:
            vm.migrate().wait(120)
        except NoCapacity:
            time.sleep(0.2)
        else:
            return time.perf_counter() - began_s


def until_launched(vm: olvm.api.vms.Vm, quiet_s: float) -> float:
    """From the command until the operation is said to have come to the boot: libvirt has started the machine.

    The operation is asked, each 2 ms and not before `quiet_s`. A status is a question in SQL: asked each 2 ms, it took
    44 ms of the CPUs that QEMU starts on.
    """
    began_s = time.perf_counter()
    operation = vm.start()
    time.sleep(quiet_s)
    while operation.refresh().progress_percent < BOOTS_PERCENT:
        time.sleep(0.002)
    return time.perf_counter() - began_s


class Pump:
    """The thread that owns a backend, as far as a benchmark needs one."""

    def __init__(self, lab: Lab) -> None:
        self._posted: queue.Queue[Callable[[], None]] = queue.Queue()
        opened: list[object] = []
        host = lab.host("h1")
        settings = libvirt_settings_from(host.settings)
        LibvirtHypervisor.open(host.name, settings, self._posted.put, time.time_ns, opened.append)
        self._until(opened)
        assert isinstance(opened[0], LibvirtHypervisor), opened
        self.backend = opened[0]

    def _until(self, answers: list[object]) -> None:
        while not answers:
            self._posted.get(timeout=120)()

    def ask(self, request: HypervisorRequest) -> object:
        answers: list[object] = []
        self.backend.submit(request, answers.append)
        self._until(answers)
        assert isinstance(answers[0], CallSucceeded), answers
        return answers[0]


def bulk_statistics(lab: Lab, arguments: argparse.Namespace, teller: Teller) -> None:
    """Of many paused domains that never booted: plain getAllDomainStats against the backend's own sample."""
    pump = Pump(lab)
    hardware = Hardware(vnc=False, serial_console=False)
    for number in range(arguments.domains):
        spec = DomainSpec(name=f"idle-{number}", vcpus=1, memory_bytes=32 * 1024**2, hardware=hardware)
        pump.ask(StartDomain(vm_id=f"idle-{number}", epoch=1, spec=spec))
        pump.ask(PauseDomain(vm_id=f"idle-{number}"))
    connection = libvirt.open(lab.host("h1").uri)
    plain = [timed(lambda: connection.getAllDomainStats(0, 0)) for _ in range(arguments.rounds)]
    ours = [timed(lambda: pump.ask(BulkStatistics())) for _ in range(arguments.rounds)]
    connection.close()
    for number in range(arguments.domains):
        pump.ask(DestroyDomain(vm_id=f"idle-{number}"))
    pump.backend.close()
    tell(teller, f"bulk_statistics_of_{arguments.domains}", plain, ours)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--domains", type=int, default=50)
    arguments = parser.parse_args()
    teller = Teller(
        "libvirt", {"rounds": arguments.rounds, "domains": arguments.domains, "memory": MEMORY_BYTES}
    )
    with tempfile.TemporaryDirectory(prefix="olvm-bench-", dir="/var/tmp") as directory:
        lab = Lab("bench", Path(directory) / "lab", hosts=2, subnet="10.99.92")
        try:
            lab.up()
            guest = build_guest(Path.home() / ".cache" / "olvm")
            with olvm.DataCenter.open(Path(directory) / "dc", backend="libvirt", runtime="local") as dc:
                measure(dc, lab, guest, arguments, teller)
            bulk_statistics(lab, arguments, teller)
        finally:
            lab.close()


if __name__ == "__main__":
    main()

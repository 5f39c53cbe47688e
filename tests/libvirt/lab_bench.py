"""A real libvirt host on the bench: real time, a machine that is up in a second, and one with a guest that obeys.

Most tests need no operating system: their machine boots a sector that writes to its disk at each tick of the clock.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import libvirt
import libvirt_qemu
import msgspec

from hypervisor_backends.domain_metadata import domain_uuid, metadata_of
from hypervisor_backends.libvirt_backend import LibvirtHypervisor
from hypervisor_backends.libvirt_settings import libvirt_settings_from
from hypervisor_backends.protocol import (
    CallFailed,
    CallResult,
    CallSucceeded,
    DomainSpec,
    GetMigrationStatistics,
    MigrationStatistics,
)
from hypervisor_backends.qemu_guest_agent import SOURCE
from olvm.lab.guest import GuestImage
from olvm.lab.hosts import Lab, LabHost
from olvm.model.errors import OlvmError
from olvm.model.hardware import DiskSpec, Hardware, NicSpec
from tests.unit.hypervisor_backends.bench import Bench, RealClock, address_of, migrate_of

MIB = 1024 * 1024
SECTOR = 512
INCOMING_TIMEOUT_S = 3.0
HUMAN = libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
CALM_S = 2.0  # after the guest's agent has told everything
# sti; xor ax,ax; mov es,ax; again: hlt; mov ax,0x301; mov bx,0x7c00; mov cx,2; mov dh,0; int 0x13; jmp again
BOOT_CODE = bytes.fromhex("FB31C08EC0F4B80103BB007CB90200B600CD13EBF0")
IN_TRANSIT = frozenset(
    {
        "wait_for_launch",
        "powering_up",
        "powering_down",
        "reboot_in_progress",
        "saving_state",
        "restoring_state",
        "migrating_to",
    }
)


def make_boot_disk(path: Path) -> None:
    if not path.exists():
        path.write_bytes(BOOT_CODE.ljust(SECTOR - 2, b"\0") + b"\x55\xaa" + bytes(MIB - SECTOR))


class LabBench(Bench):
    def __init__(
        self, lab: Lab, host: LabHost, guest: GuestImage, clock: RealClock, **settings: object
    ) -> None:
        self.lab = lab
        self.host = host
        self.guest = guest
        self.clock = clock
        self.settings = libvirt_settings_from(
            {
                **host.settings,
                "seed_directory": str(lab.shared / "seeds"),
                "guest_wait_timeout_s": 0.3,
                "statistics_period_s": 2.0,
                "pools_period_s": 1.0,
                "incoming_timeout_s": INCOMING_TIMEOUT_S,
                "guest_hooks_timeout_s": 2.0,
                "call_timeout_s": 30.0,
                **settings,
            }
        )
        backend = self._open()
        have = backend.capabilities
        super().__init__(
            backend, clock, cpus=have.cpus, memory_bytes=have.memory_bytes, domain_bytes=64 * MIB
        )
        self.lease_s = 6
        self.our_agent_in_guest = False  # QEMU's is there always
        self.dress_more: Callable[[Hardware], Hardware] = lambda hardware: hardware
        self.dress = self._dress

    def _open(self) -> LibvirtHypervisor:
        opened: list[LibvirtHypervisor | OlvmError] = []
        clock = self.clock
        LibvirtHypervisor.open(self.host.name, self.settings, clock.post, clock.now_ns, opened.append)
        assert clock.run_until(lambda: opened, 60)
        assert isinstance(opened[0], LibvirtHypervisor), opened
        self.hypervisor = opened[0]
        return opened[0]

    def reopen(self) -> None:
        """As an agent that was killed and comes back."""
        self.backend.close()
        self.backend = self._open()
        self.backend.set_listener(self.events.append)

    def is_quiet(self) -> bool:
        if not self.hypervisor.is_connected:
            return True
        states = self.backend.domains()
        return not self.hypervisor.busy_count and not any(state.status in IN_TRANSIT for state in states)

    def _dress(self, spec: DomainSpec) -> DomainSpec:
        name = spec.name
        nics = (NicSpec(name="nic0"),)
        if self.willing_guest:
            guest = self.guest if self.our_agent_in_guest else self.guest.without_our_agent()
            hardware = Hardware(
                kernel=str(guest.kernel),
                initrd=str(guest.initrd),
                cmdline=f"{guest.cmdline} ip4=10.99.7.77/24",
                nics=nics,
            )
            memory_bytes = 192 * MIB if spec.memory_bytes == self.domain_bytes else spec.memory_bytes
            hardware = self.dress_more(hardware)
            return msgspec.structs.replace(spec, hardware=hardware, memory_bytes=memory_bytes)
        disk = self.lab.shared / "images" / f"{name}.raw"
        make_boot_disk(disk)
        hardware = Hardware(disks=(DiskSpec(name="vda", source=str(disk), format="raw"),), nics=nics)
        return msgspec.structs.replace(spec, hardware=hardware)

    def start(self, vm_id: str = "v1", epoch: int = 1, **spec: int) -> CallSucceeded:
        """A guest that is to obey has booted when this returns: one that boots does not hear a power button."""
        answer = super().start(vm_id, epoch, **spec)
        if self.willing_guest:
            InGuest(self, vm_id).wait_for_agent()
        return answer

    # ------------------------------------------------------------ what a test looks at

    def kinds(self, vm_id: str = "v1") -> list[str]:
        """Without what a guest says of its sessions whenever it likes."""
        return [kind for kind in super().kinds(vm_id) if kind != "guest_event"]

    def console(self) -> str:
        """The end of what the host's machines said on their serial consoles."""
        logs = sorted((self.host.root / "var/log/libvirt/qemu").glob("*.console*"))
        return "\n".join(f"{log.name}: {log.read_text(errors='replace')[-1500:]}" for log in logs)

    def wait(self, kind: str, vm_id: str = "v1", timeout_s: float = 30.0) -> None:
        """Until the last event of the machine is of this kind."""
        assert self.clock.run_until(lambda: self.kinds(vm_id)[-1:] == [kind], timeout_s), self.events[-5:]

    def wait_connected(self) -> None:
        """After a restart of libvirtd."""
        assert self.clock.run_until(lambda: self.hypervisor.is_connected, 30)
        self.clock.advance(1)

    def restart_lock_daemon(self) -> None:
        """As docs/leases.md says: libvirtd after it, for it tells virtlockd of its lockspace."""
        self.host.kill_lock_daemon()
        self.host.start_lock_daemon()
        self.host.kill_libvirtd()
        assert self.clock.run_until(lambda: not self.hypervisor.is_connected, 10)
        self.host.start_libvirtd()
        self.wait_connected()

    def qemu_pid(self, vm_id: str = "v1") -> int:
        return self.host.qemu_pid(domain_uuid(vm_id))

    @contextmanager
    def connection(self) -> Iterator[libvirt.virConnect]:
        """Somebody else's."""
        connection = libvirt.open(self.host.uri)
        try:
            yield connection
        finally:
            connection.close()

    def remove_all(self) -> None:
        with self.connection() as connection:
            for domain in connection.listAllDomains(0):
                # It may be ending by itself, or a call that a test has broken off still holds it.
                with suppress(libvirt.libvirtError):
                    if metadata_of(domain.XMLDesc(0)) is None:
                        continue
                with suppress(libvirt.libvirtError):
                    domain.destroy()
                with suppress(libvirt.libvirtError):
                    domain.undefine()


@contextmanager
def on_one_host(lab: Lab, guest: GuestImage) -> Iterator[LabBench]:
    """The first host, as its agent sees it; nothing is left on it."""
    clock = RealClock()
    made = LabBench(lab, lab.host("h1"), guest, clock)
    clock.is_quiet = made.is_quiet
    try:
        yield made
    finally:
        made.backend.close()
        made.remove_all()


class InGuest:
    """Programs inside the guest, by QEMU's own agent: a way beside everything that is tested."""

    def __init__(self, bench: LabBench, vm_id: str = "v1") -> None:
        self.bench = bench
        self.uuid = domain_uuid(vm_id)

    def run(self, *command: str) -> str:
        with self.bench.connection() as connection:
            domain = connection.lookupByUUIDString(self.uuid)
            arguments = {"path": command[0], "arg": list(command[1:]), "capture-output": True}
            pid = self._ask(domain, "guest-exec", arguments)["pid"]
            for _ in range(400):
                status = self._ask(domain, "guest-exec-status", {"pid": pid})
                if status["exited"]:
                    return base64.b64decode(status.get("out-data", "")).decode(errors="replace")
                self.bench.clock.pass_s(0.02)
        raise AssertionError(f"{command} did not end in the guest")

    def begin(self, script: str) -> None:
        """Run a shell script there and do not wait for it."""
        with self.bench.connection() as connection:
            domain = connection.lookupByUUIDString(self.uuid)
            self._ask(domain, "guest-exec", {"path": "/bin/sh", "arg": ["-c", script]})

    def _ask(self, domain: libvirt.virDomain, name: str, arguments: dict[str, object]) -> dict[str, object]:
        asked = json.dumps({"execute": name, "arguments": arguments})
        return dict(json.loads(libvirt_qemu.qemuAgentCommand(domain, asked, 10, 0))["return"])

    def wait_for_agent(self) -> None:
        last = ""

        def speaks() -> bool:
            nonlocal last
            try:
                self.boot_id()
            except libvirt.libvirtError as error:
                last = str(error)
                return False
            return True

        heard = self.bench.clock.run_until(speaks, 90)
        assert heard, (
            f"QEMU's agent in the guest was not heard: {last}; {self._standing()}; {self.bench.console()}"
        )

    def _standing(self) -> str:
        """Where its CPUs are: several looks at one place mean a kernel that hangs (docs/decisions/0036)."""
        with self.bench.connection() as connection, suppress(libvirt.libvirtError):
            domain = connection.lookupByUUIDString(self.uuid)
            looks = []
            for _ in range(4):
                looks += libvirt_qemu.qemuMonitorCommand(domain, "info registers -a", HUMAN).splitlines()
                self.bench.clock.pass_s(0.2)
            return "; ".join(line for line in looks if "IP=" in line)
        return "its QEMU does not tell where it stands"

    def boot_id(self) -> str:
        return self.run("/bin/cat", "/proc/sys/kernel/random/boot_id").strip()

    def ticks(self) -> list[int]:
        """One a second, as the guest has counted them since its boot."""
        lines = self.run("/bin/cat", "/run/ticks").splitlines()
        return [int(line.split()[1]) for line in lines if line.startswith("TICK ")]


def migrate(
    source: LabBench, target: LabBench, *, during: object = None, **how: float
) -> CallSucceeded | CallFailed:
    """To the next epoch; `during` is called once memory flows."""
    state = source.state()
    assert state is not None
    to_epoch = max([event.epoch for event in (*source.events, *target.events)] + [state.epoch]) + 1
    settings = {"bandwidth_bytes_per_s": 0, **how}
    request = migrate_of(address_of(target, epoch=to_epoch), epoch=state.epoch, to_epoch=to_epoch, **settings)
    answers: list[CallResult] = source.call(request)
    if callable(during):
        wait_until_memory_flows(source)
        during()
    source.clock.wait_for(answers)
    source.clock.advance(1)
    return answers[0]


def wait_until_calm(bench: LabBench) -> None:
    """QEMU's TCG may lose writes of a guest that is busy while it moves, as one is that still boots: it panics then."""

    def is_known() -> bool:
        guest = bench.backend.statistics()[1][0].guest
        name = "olvm 3" if bench.our_agent_in_guest else SOURCE
        return guest is not None and any(agent.startswith(name) for agent in guest.agents)

    assert bench.clock.run_until(is_known, 60), bench.console()
    bench.clock.pass_s(CALM_S)


def wait_until_memory_flows(source: LabBench) -> MigrationStatistics:
    for _ in range(1000):
        result = source.ask(GetMigrationStatistics(vm_id="v1"))
        value = result.value if isinstance(result, CallSucceeded) else None
        if isinstance(value, MigrationStatistics) and value.data_processed_bytes > 0:
            return value
        source.clock.pass_s(0.01)
    raise AssertionError("no memory has flown")

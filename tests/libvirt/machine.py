"""A real machine for the tests of tasks: made from a spec as the backend makes it, and asked from inside.

What a guest says comes through QEMU's own agent, so that a test of a task depends on no other part of olvm.
"""

from __future__ import annotations

import base64
import contextlib
import json
import time
import uuid
from collections.abc import Callable, Iterator
from xml.etree import ElementTree as ET

import libvirt
import libvirt_qemu
import msgspec

from hypervisor_backends.domain_xml import domain_xml
from hypervisor_backends.libvirt_capabilities import capabilities_of, task_context
from hypervisor_backends.libvirt_settings import libvirt_settings_from
from hypervisor_backends.libvirt_tasks import PreparedStart, prepare_start, run_domain_task, run_host_task
from hypervisor_backends.protocol import (
    CallFailed,
    CallResult,
    CallSucceeded,
    DomainRequest,
    DomainSpec,
    HypervisorRequest,
)
from olvm.lab.guest import GuestImage
from olvm.lab.hosts import LabHost
from olvm.model.hardware import Hardware

MIB = 1024 * 1024
BOOT_TIMEOUT_S = 180.0  # six seconds on a quiet machine, and UEFI twice that


def silence_libvirt() -> None:
    """libvirt prints every error by default, expected ones too."""
    libvirt.registerErrorHandler(lambda *_: None, None)


def eventually(holds: Callable[[], object], timeout_s: float = 30.0) -> bool:
    """Whether it came true in time; a guest that is asked takes its own."""
    end_s = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.1)
    return True


class TaskHost:
    """A laboratory host through one connection."""

    def __init__(self, host: LabHost, **settings: object) -> None:
        silence_libvirt()
        self.lab_host = host
        self.settings = libvirt_settings_from({**host.settings, **settings})
        self.connection = libvirt.open(self.settings.uri)
        self.capabilities = capabilities_of(self.connection, self.settings)
        self.context = task_context(host.name, self.settings, self.capabilities)

    def close(self) -> None:
        self.connection.close()

    def do(self, request: HypervisorRequest) -> object:
        result = self.ask(request)
        assert isinstance(result, CallSucceeded), result
        return result.value

    def refused(self, request: HypervisorRequest) -> CallFailed:
        result = self.ask(request)
        assert isinstance(result, CallFailed), result
        return result

    def ask(self, request: HypervisorRequest) -> CallResult:
        return run_host_task(self.connection, request, self.context)  # type: ignore[arg-type]

    def prepare(self, vm_id: str, spec: DomainSpec) -> PreparedStart | CallFailed:
        return prepare_start(self.connection, vm_id, spec, self.context)


class Machine:
    """One machine on a host, from its start until `end`."""

    def __init__(self, host: TaskHost, spec: DomainSpec, vm_id: str = "", epoch: int = 1) -> None:
        self.host = host
        self.vm_id = vm_id or str(uuid.uuid4())
        prepared = host.prepare(self.vm_id, spec)
        assert isinstance(prepared, PreparedStart), prepared
        text = domain_xml(self.vm_id, epoch, prepared.spec, prepared.xml)
        self.domain = host.connection.defineXMLFlags(text, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
        self.domain.create()

    def end(self) -> None:
        with contextlib.suppress(libvirt.libvirtError):
            self.domain.destroy()
        with contextlib.suppress(libvirt.libvirtError):
            self.domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)

    def wait_until_up(self) -> None:
        assert eventually(self._answers, BOOT_TIMEOUT_S), f"{self.domain.name()} did not boot"

    def _answers(self) -> bool:
        try:
            self._agent("guest-ping")
        except libvirt.libvirtError:
            return False
        return True

    # ------------------------------------------------------------ tasks

    def ask(self, request: DomainRequest) -> CallResult:
        mine = msgspec.structs.replace(request, vm_id=self.vm_id)
        return run_domain_task(self.domain, mine, self.host.context)  # type: ignore[arg-type]

    def do(self, request: DomainRequest) -> object:
        result = self.ask(request)
        assert isinstance(result, CallSucceeded), result
        return result.value

    def refused(self, request: DomainRequest) -> CallFailed:
        result = self.ask(request)
        assert isinstance(result, CallFailed), result
        return result

    # ------------------------------------------------------------ inside and outside

    def sh(self, command: str, timeout_s: float = 60.0) -> str:
        """What a shell in the guest printed."""
        asked = {"path": "/bin/sh", "arg": ["-c", f"{command} 2>&1"], "capture-output": True}
        pid = self._agent("guest-exec", **asked)["pid"]
        end_s = time.monotonic() + timeout_s
        while not (said := self._agent("guest-exec-status", pid=pid))["exited"]:
            assert time.monotonic() < end_s, f"{command} does not end in the guest"
            time.sleep(0.05)
        return base64.b64decode(said.get("out-data", "")).decode(errors="replace").strip()

    def _agent(self, command: str, **arguments: object) -> dict[str, object]:
        text = json.dumps({"execute": command, "arguments": arguments})
        answer = libvirt_qemu.qemuAgentCommand(self.domain, text, 10, 0)
        returned = json.loads(answer)["return"]
        return returned if isinstance(returned, dict) else {}

    def xml(self) -> ET.Element:
        return ET.fromstring(self.domain.XMLDesc(0))

    def write(self, device: str, text: str, block: int = 1) -> None:
        """One block of a disk; durable in the disk when this returns."""
        self.sh(f"printf '%s' '{text}' | dd of=/dev/{device} bs=4096 seek={block} conv=fsync,notrunc")

    def read(self, device: str, size: int, block: int = 1) -> str:
        """Past the guest's page cache."""
        self.sh("echo 3 > /proc/sys/vm/drop_caches")
        return self.sh(f"dd if=/dev/{device} bs=4096 skip={block} count=1 2>/dev/null | head -c {size}")


def spec_of(
    guest: GuestImage,
    name: str,
    *,
    memory_mib: int = 256,
    vcpus: int = 1,
    our_agent: bool = False,
    **hardware: object,
) -> DomainSpec:
    guest = guest if our_agent else guest.without_our_agent()
    kernel = {"kernel": str(guest.kernel), "initrd": str(guest.initrd), "cmdline": guest.cmdline}
    return DomainSpec(
        name=name,
        vcpus=vcpus,
        memory_bytes=memory_mib * MIB,
        hardware=Hardware(**{**kernel, **hardware}),  # type: ignore[arg-type]
    )


@contextlib.contextmanager
def running(host: TaskHost, spec: DomainSpec) -> Iterator[Machine]:
    machine = Machine(host, spec)
    try:
        machine.wait_until_up()
        yield machine
    finally:
        machine.end()

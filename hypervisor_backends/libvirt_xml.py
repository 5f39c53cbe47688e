"""The XML that a machine of this host starts from, made on a worker: what the start needs and has not is made first.

Decides which driver gets which XML.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import libvirt

from hypervisor_backends.domain_xml import domain_xml
from hypervisor_backends.libvirt_lifecycle import TEST_DRIVER, plain_xml
from hypervisor_backends.libvirt_seeds import write_seed
from hypervisor_backends.libvirt_task_context import TaskContext
from hypervisor_backends.libvirt_tasks import prepare_start
from hypervisor_backends.protocol import CallFailed, DomainSpec
from olvm.model.errors import OlvmError


class StartRefused(OlvmError):
    """Carries the answer that the preparation gave."""

    code = "start_refused"

    def __init__(self, failure: CallFailed) -> None:
        super().__init__(failure.message)
        self.failure = failure


class XmlMaker:
    """`task_context` is set on each connect, before any call: what tasks and starts are told of the host."""

    task_context: TaskContext

    def __init__(self, clock_ns: Callable[[], int]) -> None:
        self._clock_ns = clock_ns

    def make(
        self,
        connection: libvirt.virConnect,
        vm_id: str,
        epoch: int,
        spec: DomainSpec,
        layer_by_source: Mapping[str, str] | None = None,
        *,
        arrives: bool = False,
    ) -> str:
        """`layer_by_source`: where it will write, if the records of its disks do not say it yet.

        Raises `StartRefused`, `OlvmError`, `OSError` and libvirt's error.
        """
        if connection.getType() == TEST_DRIVER:
            return plain_xml(vm_id, epoch, spec, self._clock_ns())
        prepared = prepare_start(connection, vm_id, spec, self.task_context, layer_by_source, arrives=arrives)
        if isinstance(prepared, CallFailed):
            raise StartRefused(prepared)
        return domain_xml(vm_id, epoch, prepared.spec, prepared.xml, self._clock_ns())

    def make_seed(self, connection: libvirt.virConnect, vm_id: str, spec: DomainSpec) -> None:
        """Before a restore, whose XML names the seed: another host may have had it. Raises as `make` does."""
        if connection.getType() != TEST_DRIVER:
            write_seed(vm_id, spec, self.task_context.host, self.task_context.settings)

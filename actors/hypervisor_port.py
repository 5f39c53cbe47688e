"""The host silo's way to its hypervisors: opens a backend per host, runs requests, turns answers into messages.

It holds no truth: after a restart of the silo the agents open their hosts again. Answers carry bytes, never the
backend's own objects.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from actors.sampling import Sampler
from actors.silo import Silo, deliver_result
from hypervisor_backends.protocol import (
    CallFailed,
    CallResult,
    DomainEvent,
    DomainList,
    HypervisorBackend,
    HypervisorRequest,
)
from olvm.model.errors import OlvmError
from olvm.model.messages import CallEnded, DomainHappened


class OpenHost(msgspec.Struct, frozen=True):
    """Answered with `HostOpened`."""

    host: str
    backend: str
    settings: dict[str, str | int | float | bool]
    cpus: int
    memory_bytes: int


class HostOpened(msgspec.Struct, frozen=True):
    boot_id: str
    cpus: int
    memory_bytes: int
    cpu_model: str
    statuses: dict[str, str]  # of each domain there, by vm id: values of protocol.DomainStatus


class SampleHost(msgspec.Struct, frozen=True):
    """Answered with `Sampled`."""

    host: str
    host_epoch: int


class Sampled(msgspec.Struct, frozen=True):
    """`batches` and `facts` are ready for the telemetry silo; see `actors.sampling`."""

    cpu_load_percent: float
    batches: list[bytes]
    facts: bytes


BackendFactory = Callable[[OpenHost], HypervisorBackend]


class HypervisorPort:
    """Serves all agents of one host silo. Runs in the silo's thread."""

    def __init__(self, silo: Silo, open_backend: BackendFactory) -> None:
        self._silo = silo
        self._open_backend = open_backend
        self.backends: dict[str, HypervisorBackend] = {}
        self._samplers: dict[str, Sampler] = {}

    def submit(self, caller: str, request: object, tag: str) -> None:
        host = caller.removeprefix("agent/")
        if isinstance(request, OpenHost):
            self._answer_open(caller, request, tag)
        elif isinstance(request, SampleHost):
            self._answer_sample(caller, request, tag)
        else:
            backend = self.backends.get(host)
            if backend is None:
                self._answer(caller, tag, CallFailed(code="host_down", message=f"host {host} is not open"))
                return
            typed: HypervisorRequest = request  # type: ignore[assignment]
            backend.submit(typed, lambda result: self._answer(caller, tag, result))

    def close(self) -> None:
        for backend in self.backends.values():
            backend.close()

    def _answer(self, caller: str, tag: str, result: CallResult) -> None:
        if isinstance(result, CallFailed):
            message = CallEnded(tag, False, result.message.encode(), result.code, result.outcome_known)
        elif isinstance(result.value, DomainList):
            status_by_vm_id = {domain.vm_id: domain.status for domain in result.value.domains}
            message = CallEnded(tag, True, msgspec.msgpack.encode(status_by_vm_id))
        else:
            message = CallEnded(tag, True)
        deliver_result(self._silo, caller, message, "hypervisor")

    def _answer_open(self, caller: str, request: OpenHost, tag: str) -> None:
        backend = self.backends.get(request.host)
        if backend is None:
            try:
                backend = self._open_backend(request)
            except OlvmError as error:
                message = CallEnded(tag, False, error.message.encode(), error.code)
                deliver_result(self._silo, caller, message, "hypervisor")
                return
            self.backends[request.host] = backend
            backend.set_listener(lambda event: self._on_event(caller, event))
        have = backend.capabilities
        opened = HostOpened(
            boot_id=have.boot_id,
            cpus=have.cpus,
            memory_bytes=have.memory_bytes,
            cpu_model=have.cpu_model,
            statuses={domain.vm_id: domain.status for domain in backend.domains()},
        )
        message = CallEnded(tag, True, msgspec.msgpack.encode(opened))
        deliver_result(self._silo, caller, message, "hypervisor")

    def _on_event(self, caller: str, event: DomainEvent) -> None:
        reason = None if event.exit_reason is None else int(event.exit_reason)
        message = DomainHappened(event.vm_id, event.epoch, event.kind, reason, event.message)
        deliver_result(self._silo, caller, message, "hypervisor")

    def _answer_sample(self, caller: str, request: SampleHost, tag: str) -> None:
        backend = self.backends.get(request.host)
        if backend is None:
            deliver_result(self._silo, caller, CallEnded(tag, False), "hypervisor")
            return
        sampler = self._samplers.setdefault(request.host, Sampler(request.host))
        host, domains = backend.statistics()
        # History has one time: that of the silo, not that of a hypervisor whose clock may be accelerated.
        batches, facts = sampler.encode(self._silo.now_ns(), request.host_epoch, host, domains)
        sampled = Sampled(host.cpu_user_percent + host.cpu_sys_percent, batches, facts)
        message = CallEnded(tag, True, msgspec.msgpack.encode(sampled))
        deliver_result(self._silo, caller, message, "hypervisor")

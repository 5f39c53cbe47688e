"""The host silo's way to its hypervisors: opens a backend per host, runs requests, turns answers into messages.

It holds no truth: after a restart of the silo the agents open their hosts again. Answers carry bytes, never the
backend's own objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from actors.sampling import Sampler
from actors.silo import Silo, deliver_result
from hypervisor_backends.protocol import (
    CallFailed,
    CallResult,
    DomainEvent,
    DomainList,
    DomainState,
    HypervisorBackend,
    HypervisorRequest,
    IncomingAddress,
    MigrationStatistics,
    PrepareIncoming,
    RestoreDomain,
    StartDomain,
)
from olvm.model.errors import OlvmError
from olvm.model.messages import CallEnded, DomainHappened


class FoundDomain(msgspec.Struct, frozen=True, array_like=True):
    """A domain as the hypervisor lists it; `ListDomains` is answered with these by vm id."""

    epoch: int
    status: str  # of protocol.DomainStatus
    pause_code: str = ""  # of protocol.PauseCode; empty unless paused
    name: str = ""


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
    found: dict[str, FoundDomain]  # each domain there, by vm id
    features: list[str] = []
    problems: list[str] = []


class CloseHost(msgspec.Struct, frozen=True):
    """Let go of a host that was removed: nobody answers for it here from now on."""

    host: str


class LookAround(msgspec.Struct, frozen=True):
    """What the hypervisor holds and what ails the host, at one instant. Answered with `HostSeen`."""

    host: str


class HostSeen(msgspec.Struct, frozen=True):
    boot_id: str
    problems: list[str]
    found: dict[str, FoundDomain]


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
        # Whether a host may begin to run a leased machine now; the lease port says it, and without one none may.
        self.may_begin: Callable[[str, str, int], bool] = lambda _host, _vm_id, _epoch: False
        self._samplers: dict[str, Sampler] = {}

    def submit(self, caller: str, request: object, tag: str) -> None:
        host = caller.removeprefix("agent/")
        if isinstance(request, OpenHost):
            self._answer_open(caller, request, tag)
        elif isinstance(request, SampleHost):
            self._answer_sample(caller, request, tag)
        elif isinstance(request, CloseHost):
            self._samplers.pop(request.host, None)
            backend = self.backends.pop(request.host, None)
            if backend is not None:
                backend.close()
        elif isinstance(request, LookAround):
            self._answer_look(caller, request, tag)
        else:
            typed: HypervisorRequest = request  # type: ignore[assignment]
            self._pass_on(caller, host, typed, tag)

    def _pass_on(self, caller: str, host: str, request: HypervisorRequest, tag: str) -> None:
        backend = self.backends.get(host)
        if backend is None:
            self._answer(caller, tag, CallFailed(code="host_down", message=f"host {host} is not open"))
            return
        # Here and not in the agent: between its decision and this moment the silo may have stood still.
        if (
            isinstance(request, StartDomain | RestoreDomain | PrepareIncoming)
            and request.spec.leased
            and not self.may_begin(host, request.vm_id, request.epoch)
        ):
            words = f"host {host} does not hold the lease of domain {request.spec.name}; take it first"
            self._answer(caller, tag, CallFailed(code="lease_expired", message=words, can_retry=True))
            return
        backend.submit(request, lambda result: self._answer(caller, tag, result))

    def close(self) -> None:
        for backend in self.backends.values():
            backend.close()

    def _answer(self, caller: str, tag: str, result: CallResult) -> None:
        if isinstance(result, CallFailed):
            message = CallEnded(tag, False, result.message.encode(), result.code, result.outcome_known)
        elif isinstance(result.value, DomainList):
            message = CallEnded(tag, True, msgspec.msgpack.encode(_found(result.value.domains)))
        elif isinstance(result.value, IncomingAddress):
            message = CallEnded(tag, True, result.value.uri.encode())
        elif isinstance(result.value, MigrationStatistics):
            message = CallEnded(tag, True, msgspec.msgpack.encode(result.value))
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
            found=_found(backend.domains()),
            features=list(have.features),
            problems=list(have.problems),
        )
        message = CallEnded(tag, True, msgspec.msgpack.encode(opened))
        deliver_result(self._silo, caller, message, "hypervisor")

    def _on_event(self, caller: str, event: DomainEvent) -> None:
        reason = None if event.exit_reason is None else int(event.exit_reason)
        pause_code = "" if event.pause_code == "NONE" else event.pause_code
        message = DomainHappened(event.vm_id, event.epoch, event.kind, reason, event.message, pause_code)
        deliver_result(self._silo, caller, message, "hypervisor")

    def _answer_look(self, caller: str, request: LookAround, tag: str) -> None:
        backend = self.backends.get(request.host)
        if backend is None:
            deliver_result(self._silo, caller, CallEnded(tag, False), "hypervisor")
            return
        have = backend.capabilities
        seen = HostSeen(have.boot_id, list(have.problems), _found(backend.domains()))
        deliver_result(self._silo, caller, CallEnded(tag, True, msgspec.msgpack.encode(seen)), "hypervisor")

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


def _found(domains: Iterable[DomainState]) -> dict[str, FoundDomain]:
    return {
        domain.vm_id: FoundDomain(
            domain.epoch,
            domain.status,
            "" if domain.pause_code == "NONE" else domain.pause_code,
            domain.name,
        )
        for domain in domains
    }

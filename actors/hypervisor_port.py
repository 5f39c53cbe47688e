"""The host silo's way to its hypervisors: opens a backend per host, runs requests, turns answers into messages.

It holds no truth: after a restart of the silo the agents open their hosts again. Answers carry bytes, never the
backend's own objects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial

import msgspec

from actors.sampling import GuestFactsBatch, Sampler
from actors.silo import Silo, deliver_result
from actors.task_requests import result_of
from hypervisor_backends.measurements import DomainStatistics
from hypervisor_backends.protocol import (
    CallFailed,
    CallResult,
    CallSucceeded,
    Capabilities,
    ConsoleAddress,
    DomainEvent,
    DomainList,
    DomainState,
    HypervisorBackend,
    HypervisorRequest,
    IncomingAddress,
    MigrationStatistics,
    PrepareIncoming,
    RestoreDomain,
    SetConsoleTicket,
    StartDomain,
)
from olvm.model.errors import OlvmError
from olvm.model.hardware import Hardware
from olvm.model.host_profile import NO_PROFILE, HostHugePages, HostNumaNode, HostProfile
from olvm.model.limits import NS_PER_S
from olvm.model.messages import CallEnded, ConsoleTicket, DomainHappened


class FoundDomain(msgspec.Struct, frozen=True, array_like=True):
    """A domain as the hypervisor lists it; `ListDomains` is answered with these by vm id."""

    epoch: int
    status: str  # of protocol.DomainStatus
    pause_code: str = ""  # of protocol.PauseCode; empty unless paused
    name: str = ""
    leased: bool = False
    vcpus: int = 0
    memory_bytes: int = 0
    # For an agent that knows nothing of the machine: in answers to `ListDomains` alone. It may lack the seed.
    hardware: Hardware | None = None
    size_known: bool = True


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
    accelerator: str = ""
    accelerator_reason: str = ""
    profile: HostProfile | None = None
    under_way: list[
        str
    ] = []  # tags of calls of the agent that are answered after this: of an earlier life of it


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
    guests: list[
        tuple[str, int, bytes]
    ] = []  # of those whose facts are news: machine, epoch, JSON of GuestFacts
    swap_used_percent: int = 0


class OpenTicket(msgspec.Struct, frozen=True):
    """Let somebody see a machine's screen. Answered with a `ConsoleTicket`: the port makes its password."""

    vm_id: str
    valid_s: int


Opened = HypervisorBackend | OlvmError
# Answers on the silo's thread, at once or later: a real hypervisor is reached over a connection that may hang.
BackendFactory = Callable[[OpenHost, Callable[[Opened], None]], None]


def at_once(open_host: Callable[[OpenHost], HypervisorBackend]) -> BackendFactory:
    """A factory of backends that are there as soon as they are asked for."""

    def open_backend(request: OpenHost, on_open: Callable[[Opened], None]) -> None:
        opened: Opened
        try:
            opened = open_host(request)
        except OlvmError as error:
            opened = error
        on_open(opened)

    return open_backend


class HypervisorPort:
    """Serves all agents of one host silo. Runs in the silo's thread."""

    def __init__(self, silo: Silo, open_backend: BackendFactory) -> None:
        self._silo = silo
        self._open_backend = open_backend
        self.backends: dict[str, HypervisorBackend] = {}
        # Whether a host may begin to run a leased machine now; the lease port says it, and without one none may.
        self.may_begin: Callable[[str, str, int], bool] = lambda _host, _vm_id, _epoch: False
        # What makes passwords of consoles: a world's chance, so it is given by those that have a world.
        self.make_ticket: Callable[[], str] | None = None
        self._samplers: dict[str, Sampler] = {}
        self._opening: dict[str, str] = {}  # hosts that are being opened, and the tag of the last question
        self._under_way: dict[
            str, Counter[str]
        ] = {}  # by agent: calls that a backend has not answered, by tag
        self._closed = False

    def submit(self, caller: str, request: object, tag: str) -> None:
        host = caller.removeprefix("agent/")
        if isinstance(request, OpenHost):
            self._answer_open(caller, request, tag)
        elif isinstance(request, SampleHost):
            self._answer_sample(caller, request, tag)
        elif isinstance(request, CloseHost):
            self._samplers.pop(request.host, None)
            self._opening.pop(request.host, None)
            backend = self.backends.pop(request.host, None)
            if backend is not None:
                backend.close()
        elif isinstance(request, LookAround):
            self._answer_look(caller, request, tag)
        elif isinstance(request, OpenTicket):
            self._open_ticket(caller, host, request, tag)
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
        under_way = self._under_way.setdefault(caller, Counter())
        under_way[tag] += 1

        def then(result: CallResult) -> None:
            _count_off(under_way, tag)
            self._answer(caller, tag, result)

        backend.submit(request, then)

    def close(self) -> None:
        self._closed = True
        for backend in self.backends.values():
            backend.close()

    def _answer(self, caller: str, tag: str, result: CallResult) -> None:
        if isinstance(result, CallFailed):
            message = CallEnded(tag, False, result.message.encode(), result.code, result.outcome_known)
        elif isinstance(result.value, DomainList):
            message = CallEnded(tag, True, msgspec.msgpack.encode(_found(result.value.domains, whole=True)))
        elif isinstance(result.value, IncomingAddress):
            message = CallEnded(tag, True, result.value.uri.encode())
        elif isinstance(result.value, MigrationStatistics):
            message = CallEnded(tag, True, msgspec.msgpack.encode(result.value))
        elif tag.startswith("task/"):
            message = CallEnded(tag, True, result_of(result.value))
        else:
            message = CallEnded(tag, True)
        deliver_result(self._silo, caller, message, "hypervisor")

    def _answer_open(self, caller: str, request: OpenHost, tag: str) -> None:
        backend = self.backends.get(request.host)
        if backend is not None:
            self._say_opened(caller, backend, tag)
        elif request.host in self._opening:
            self._opening[request.host] = tag  # asked again while it is being opened: one answer, to the last
        else:
            self._opening[request.host] = tag
            self._open_backend(request, partial(self._on_open, caller, request.host))

    def _on_open(self, caller: str, host: str, opened: Opened) -> None:
        tag = self._opening.pop(host, None)
        if isinstance(opened, OlvmError):
            if tag is not None:
                message = CallEnded(tag, False, opened.message.encode(), opened.code)
                deliver_result(self._silo, caller, message, "hypervisor")
            return
        if tag is None or self._closed:
            opened.close()  # nobody waits any more
            return
        self.backends[host] = opened
        opened.set_listener(lambda event: self._on_event(caller, event))
        self._say_opened(caller, opened, tag)

    def _say_opened(self, caller: str, backend: HypervisorBackend, tag: str) -> None:
        have = backend.capabilities
        opened = HostOpened(
            boot_id=have.boot_id,
            cpus=have.cpus,
            memory_bytes=have.memory_bytes,
            cpu_model=have.cpu_model,
            found=_found(backend.domains()),
            features=list(have.features),
            problems=list(have.problems),
            accelerator=have.accelerator,
            accelerator_reason=have.accelerator_reason,
            profile=profile_of(have),
            under_way=list(self._under_way.get(caller, Counter()).elements()),
        )
        message = CallEnded(tag, True, msgspec.msgpack.encode(opened))
        deliver_result(self._silo, caller, message, "hypervisor")

    def _open_ticket(self, caller: str, host: str, request: OpenTicket, tag: str) -> None:
        """The password is made here, told once, and kept nowhere: messages that save nothing leave no trace."""
        ticket = "" if self.make_ticket is None else self.make_ticket()

        def then(result: CallResult) -> None:
            if isinstance(result, CallSucceeded) and isinstance(result.value, ConsoleAddress):
                at = result.value
                told = ConsoleTicket(at.kind, at.host, at.port, ticket, at.expires_ns)
                message = CallEnded(tag, True, msgspec.msgpack.encode(told))
            else:
                assert isinstance(result, CallFailed), result
                message = CallEnded(tag, False, result.message.encode(), result.code, result.outcome_known)
            deliver_result(self._silo, caller, message, "hypervisor")

        backend = self.backends.get(host)
        if backend is None:
            then(CallFailed(code="host_down", message=f"host {host} is not open"))
        elif not ticket:
            then(CallFailed(code="not_supported", message=f"host {host} has nobody to make tickets for it"))
        else:
            asked = SetConsoleTicket(vm_id=request.vm_id, password=ticket, valid_s=request.valid_s)
            backend.submit(asked, then)

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
        sampler = self._samplers.get(request.host)
        if sampler is None:
            core_period_ns = int(self._silo.config.core_sample_period_s * NS_PER_S)
            sampler = self._samplers[request.host] = Sampler(request.host, core_period_ns)
        host, domains = backend.statistics()
        # History has one time: that of the silo, not that of a hypervisor whose clock may be accelerated.
        batches, facts = sampler.encode(self._silo.now_ns(), request.host_epoch, host, domains)
        load_percent = host.cpu_user_percent + host.cpu_sys_percent
        used_mb = host.swap_total_mb - host.swap_free_mb
        swap_percent = 100 * used_mb // host.swap_total_mb if host.swap_total_mb else 0
        sampled = Sampled(load_percent, batches, facts, _guests(facts, domains), swap_percent)
        message = CallEnded(tag, True, msgspec.msgpack.encode(sampled))
        deliver_result(self._silo, caller, message, "hypervisor")


def _count_off(counted: Counter[str], tag: str) -> None:
    counted[tag] -= 1
    if not counted[tag]:
        del counted[tag]


def _guests(facts: bytes, domains: list[DomainStatistics]) -> list[tuple[str, int, bytes]]:
    """The same news for the machines' own actors."""
    if not facts:
        return []
    told = {guest["vm_id"] for guest in msgspec.msgpack.decode(facts, type=GuestFactsBatch).guests}
    return [
        (domain.vm_id, domain.epoch, msgspec.json.encode(domain.guest))
        for domain in domains
        if domain.vm_id in told and domain.guest is not None
    ]


def _found(domains: Iterable[DomainState], *, whole: bool = False) -> dict[str, FoundDomain]:
    """`whole`: with the hardware, which is too much to be told each time that a host is looked at."""
    return {
        domain.vm_id: FoundDomain(
            domain.epoch,
            domain.status,
            "" if domain.pause_code == "NONE" else domain.pause_code,
            domain.name,
            domain.leased,
            domain.vcpus,
            domain.memory_bytes,
            domain.hardware if whole else None,
            domain.size_known,
        )
        for domain in domains
    }


def profile_of(have: Capabilities) -> HostProfile | None:
    """What the scheduler reads of a host, as far as its hypervisor tells it."""
    profile = HostProfile(
        cpu_sockets=have.cpu_sockets,
        cpu_cores_per_socket=have.cpu_cores_per_socket,
        cpu_threads_per_core=have.cpu_threads_per_core,
        emulated_machines=have.emulated_machines or None,
        tsc_frequency_hz=have.tsc_frequency_hz,
        tsc_scaling=have.tsc_scaling,
        numa_nodes=tuple(
            HostNumaNode(memory_bytes=node.memory_bytes, cpus=node.cpus) for node in have.numa_nodes
        ),
        huge_pages=tuple(
            HostHugePages(size_bytes=pages.size_bytes, count=pages.total) for pages in have.huge_pages
        ),
    )
    return None if profile == NO_PROFILE else profile

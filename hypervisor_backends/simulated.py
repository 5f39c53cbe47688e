"""A hypervisor that exists in memory only, and is worse than a real one.

Decides which call is carried out, refused or struck by a planted fault, and what it is answered. What then happens to
the domains is `simulated_host.py`, how they move `simulated_migration.py`, how busy they are `simulated_load.py`. No
clock, no thread: the same seed and the same calls at the same times give the same answers, events and statistics.
"""

from __future__ import annotations

from typing import TypeAlias, assert_never

import msgspec

from hypervisor_backends.measurements import DomainStatistics, HostStatistics
from hypervisor_backends.protocol import (
    FEATURE_BY_REQUEST,
    ArmWatchdog,
    BulkStatistics,
    CallFailed,
    CallResult,
    CallSucceeded,
    Capabilities,
    ContinueDomain,
    DestroyDomain,
    DomainList,
    DomainSpec,
    DomainState,
    DomainStatus,
    DomainTask,
    Done,
    ExitReason,
    FailureCode,
    GetCapabilities,
    HostTask,
    HypervisorRequest,
    ListDomains,
    Listener,
    PauseDomain,
    PrepareIncoming,
    RebootDomain,
    ResetDomain,
    RestoreDomain,
    RevertSnapshot,
    Scheduler,
    ShutdownDomain,
    StartDomain,
    StatisticsReport,
    SuspendDomain,
)
from hypervisor_backends.simulated_config import SimulatedConfig
from hypervisor_backends.simulated_domain import ADMITTED, ALREADY, SimulatedDomain
from hypervisor_backends.simulated_fabric import Fabric
from hypervisor_backends.simulated_faults import GUEST_FAULTS, Fault, FaultKind
from hypervisor_backends.simulated_host import SimulatedHost
from hypervisor_backends.simulated_libvirtd import Libvirtd
from hypervisor_backends.simulated_machine import SUCCEEDED, WITHOUT_FABRIC
from hypervisor_backends.simulated_migration import MIGRATION_REQUESTS, MigrationRequest, Migrations
from hypervisor_backends.simulated_observer import HypervisorObserver
from hypervisor_backends.simulated_refusals import NewDomain, refusal_of
from hypervisor_backends.simulated_tasks import Tasks
from hypervisor_backends.snapshot_store import SnapshotStore
from olvm.model.limits import NS_PER_S

PlainCommand: TypeAlias = (
    ShutdownDomain | DestroyDomain | RebootDomain | ResetDomain | SuspendDomain | PauseDomain | ContinueDomain
)
Command: TypeAlias = PlainCommand | MigrationRequest | DomainTask


def _ignore(_: CallResult) -> None:
    """Stands where a call's answer goes astray."""


class SimulatedHypervisor:
    """One simulated host: a `HypervisorBackend`, and what the world does to hosts (`inject`, power)."""

    def __init__(
        self,
        name: str,
        capabilities: Capabilities,
        scheduler: Scheduler,
        seed: int,
        config: SimulatedConfig | None = None,
        fabric: Fabric | None = None,
        *,
        snapshots: SnapshotStore | None = None,
    ) -> None:
        """`capabilities`: `simulated_capabilities` makes those of a host that can do everything.

        Without a `fabric` there is nobody to migrate to, and the host says so in its features; without `snapshots` it
        has its disks alone.
        """
        self.name = name
        self._config = config or SimulatedConfig()
        if fabric is None:
            features = tuple(word for word in capabilities.features if word not in WITHOUT_FABRIC)
            capabilities = msgspec.structs.replace(capabilities, features=features)
        self._host = SimulatedHost(name, capabilities, scheduler, seed, self._config, snapshots)
        self._migrations = Migrations(self._host, fabric)
        self._tasks = Tasks(self._host)
        self._libvirtd = Libvirtd(self._host, self._migrations, self._tasks)
        self._scheduler = scheduler
        self._features = frozenset(capabilities.features)
        self._closed = False

    # ------------------------------------------------------------ the port

    @property
    def capabilities(self) -> Capabilities:
        return self._host.capabilities

    def submit(self, request: HypervisorRequest, done: Done) -> None:
        self._dispatch(request, done)
        self._host.outbox.drain()

    def set_listener(self, listener: Listener | None) -> None:
        self._host.outbox.listener = listener

    def domains(self) -> list[DomainState]:
        return self._libvirtd.states()

    def statistics(self) -> tuple[HostStatistics, list[DomainStatistics]]:
        host, domains = self._host.statistics()
        pools = self._tasks.storage.pools()
        return (msgspec.structs.replace(host, pools=pools) if pools else host), domains

    def close(self) -> None:
        self._closed = True
        self._migrations.close()
        self._host.watchdog.reset()
        self._host.outbox.listener = None
        self._host.outbox.clear()
        self._host.cancel_timers()

    # ------------------------------------------------------------ the world's side

    def inject(self, fault: Fault) -> None:
        """Plant a fault; see `Fault` for what it waits for."""
        self._host.faults.add(fault)
        if fault.kind in GUEST_FAULTS and fault.vm:
            vm_id = self._host.vm_id_by_name.get(fault.vm, fault.vm)
            domain = self._host.domains.get(vm_id)
            if domain is not None and domain.started_ns is not None:
                self._host.attach_guest_fault(domain, fault.kind)

    def clear_faults(self, vm: str = "") -> None:
        """Take back the planted faults that name `vm`, or all; what has begun already goes on."""
        self._host.faults.clear(vm)

    def power_off(self) -> None:
        """Lose the host: every domain is gone, nobody is told, and no call under way is answered."""
        self._host.power_off()
        self._migrations.on_power_off()
        self._libvirtd.on_power_off()

    def power_on(self) -> None:
        """Boot the host anew, empty and with another boot id. Without effect while it is on."""
        self._host.power_on()

    def kill_libvirtd(self) -> None:
        """libvirtd ends, and its machines go on; see `simulated_libvirtd.py`. Without effect while it is away."""
        self._libvirtd.kill()
        self._host.outbox.drain()

    def start_libvirtd(self) -> None:
        self._libvirtd.start()
        self._host.outbox.drain()

    def check_reachable(self) -> None:
        """Raises `LibvirtAway` while libvirtd is: nobody opens the host anew until it is back."""
        self._libvirtd.check_reachable()

    def restart_libvirtd(self) -> None:
        self.kill_libvirtd()
        self.start_libvirtd()

    def set_observer(self, observer: HypervisorObserver | None) -> None:
        """Who is told the truth, at each change; first of all what is there already."""
        self._host.set_observer(observer)

    def set_problems(self, problems: tuple[str, ...]) -> None:
        """What makes the host unfit from now on, by `olvm.model.host_problems`; it stays over boots."""
        self._host.set_problems(problems)

    def set_storage_broken(self, is_broken: bool) -> None:
        """While it is broken, guests that run or come to run pause with EIO; mending it continues nobody."""
        self._host.set_storage_broken(is_broken)
        self._host.outbox.drain()

    # ------------------------------------------------------------ calls

    def _dispatch(self, request: HypervisorRequest, done: Done) -> None:
        if self._closed:
            self._host.fail(done, "closed", f"host {self.name}: its backend was closed; open a new one")
            return
        if not self._host.is_on:
            self._host.fail(
                done, "host_down", f"host {self.name} is powered off; power it on first", can_retry=True
            )
            return
        away = self._libvirtd.refusal(request)
        if away is not None:
            self._host.outbox.answer(done, away)
            return
        feature = FEATURE_BY_REQUEST.get(type(request))
        if feature is not None and feature not in self._features:
            message = f"host {self.name} cannot do {type(request).__name__}: its hypervisor lacks {feature}"
            self._host.fail(done, "not_supported", message)
            return
        match request:
            case StartDomain() | RestoreDomain():
                self._on_start(request, done)
            case PrepareIncoming():
                self._on_prepare(request, done)
            case ArmWatchdog():
                self._host.watchdog.arm(request.deadline_ns)
                self._host.outbox.answer(done, SUCCEEDED)
            case ListDomains():
                self._host.outbox.answer(done, CallSucceeded(value=DomainList(domains=tuple(self.domains()))))
            case GetCapabilities():
                self._host.outbox.answer(done, CallSucceeded(value=self._host.capabilities))
            case BulkStatistics():
                host, domains = self.statistics()
                self._host.outbox.answer(
                    done, CallSucceeded(value=StatisticsReport(host=host, domains=tuple(domains)))
                )
            case _ if isinstance(request, HostTask):
                self._tasks.run_on_host(request, done)
            case _:
                self._on_command(request, done)

    def _on_start(self, request: StartDomain | RestoreDomain, done: Done) -> None:
        domain = self._host.domains.get(request.vm_id)
        if domain is not None and domain.epoch == request.epoch and domain.incoming is None:
            if domain.started_ns is not None:
                self._host.outbox.answer(done, SUCCEEDED)
            elif not domain.hung:
                domain.waiters.append(done)
            return
        refusal = self._refusal(request)
        if refusal is None:
            spec = self._tasks.prepared(request.vm_id, request.spec)
            if isinstance(spec, DomainSpec):
                self._begin_start(msgspec.structs.replace(request, spec=spec), done)
                return
            refusal = spec
        self._host.outbox.answer(done, refusal)

    def _on_prepare(self, request: PrepareIncoming, done: Done) -> None:
        domain = self._host.domains.get(request.vm_id)
        if domain is not None and domain.epoch == request.epoch and domain.incoming is not None:
            self._migrations.repeat_address(domain.incoming, done)
            return
        refusal = self._refusal(request)
        if refusal is not None:
            self._host.outbox.answer(done, refusal)
            return
        what = f"PrepareIncoming of domain {request.spec.name} ({request.vm_id}) on host {self.name}"
        answer_to = self._past_call_faults("PrepareIncoming", request.vm_id, request.spec.name, done, what)
        if answer_to is not None:
            self._observe(request, request.epoch)
            self._migrations.prepare(request, answer_to)

    def _refusal(self, request: NewDomain) -> CallFailed | None:
        refusal = refusal_of(self._host, request)
        if refusal is not None and self._host.observer is not None:
            self._host.observer.called(self.name, f"Refused:{refusal.code}", request.vm_id, request.epoch)
        return refusal

    def _begin_start(self, request: StartDomain | RestoreDomain, done: Done) -> None:
        status: DomainStatus = "restoring_state" if isinstance(request, RestoreDomain) else "wait_for_launch"
        domain = SimulatedDomain(request.vm_id, request.epoch, request.spec, status)
        self._observe(request, request.epoch)
        fault = self._start_fault(domain, type(request).__name__)
        if fault == "call_hangs":
            domain.hung = True
            self._host.add(domain)
            return
        if fault == "call_times_out":
            self._time_out(done, "timed_out", f"{type(request).__name__} of domain {domain.spec.name}")
            done = _ignore
        domain.start_fails = fault == "call_fails"
        self._host.begin_start(domain, done)

    def _start_fault(self, domain: SimulatedDomain, request: str) -> FaultKind | None:
        if self._host.faults:
            fault = self._host.faults.use_call_fault(request, domain.vm_id, domain.spec.name)
            if fault is not None:
                return fault
        config = self._config
        if self._host.chance(domain, "start_fails", config.start_fails_probability):
            return "call_fails"
        if self._host.chance(domain, "start_hangs", config.start_hangs_probability):
            return "call_hangs"
        if self._host.chance(domain, "start_times_out", config.start_times_out_probability):
            return "call_times_out"
        return None

    def _on_command(self, request: Command, done: Done) -> None:
        what = type(request).__name__
        domain = self._host.domains.get(request.vm_id)
        if domain is None:
            if isinstance(request, DestroyDomain):
                self._migrations.end_latecomer(request.vm_id)
            message = f"{what} found no domain {request.vm_id} on host {self.name}; list the domains"
            self._host.fail(done, "unknown_domain", message)
            return
        what = f"{what} of domain {domain.spec.name} ({domain.vm_id}) on host {self.name}"
        if self._host.faults and not isinstance(request, DestroyDomain):
            answer_to = self._past_faults(request, domain, done, what)
            if answer_to is None:
                return
            done = answer_to
        refusal = self._wrong_state(request, domain)
        if refusal is not None:
            message = f"{what} is refused while {refusal}"
            self._host.fail(done, "wrong_state", message, can_retry=True)
        elif isinstance(request, DomainTask):
            self._observe(request, domain.epoch)
            self._tasks.run(request, domain, done)
        elif isinstance(request, MIGRATION_REQUESTS):
            self._observe(request, domain.epoch)
            self._migrations.carry_out(request, domain, done)
        elif domain.status in ALREADY.get(type(request), ()):
            self._host.outbox.answer(done, SUCCEEDED)
        elif isinstance(request, SuspendDomain) and domain.status == "saving_state":
            domain.waiters.append(done)
        else:
            self._observe(request, domain.epoch)
            self._carry_out(request, domain, done)

    def _wrong_state(self, request: Command, domain: SimulatedDomain) -> str | None:
        """Why the domain's present state does not admit the request."""
        if isinstance(request, DestroyDomain):
            return None
        if domain.reverting:
            return "it is reverted to a snapshot; wait for the end of that"
        if isinstance(request, MIGRATION_REQUESTS):
            return self._migrations.wrong_state(request, domain)
        if domain.outgoing is not None and domain.outgoing.is_past_switch_over:
            return "it is being handed over to another host; wait for the end of its migration"
        if domain.ran_elsewhere or (
            domain.pause_code == "POSTMIGRATE" and isinstance(request, SuspendDomain | RevertSnapshot)
        ):
            return "another host runs it, as far as is known; find out there, then destroy this copy"
        if domain.outgoing is not None and isinstance(request, SuspendDomain):
            return "it migrates; cancel that first"
        if isinstance(request, DomainTask):
            return self._tasks.wrong_state(request, domain)
        holds = domain.status in ALREADY.get(type(request), ()) or (
            isinstance(request, SuspendDomain) and domain.status == "saving_state"
        )
        if holds or domain.status in ADMITTED[type(request)]:
            return None
        return f"its status is {domain.shown_status()}; wait for another one"

    def _past_faults(self, request: Command, domain: SimulatedDomain, done: Done, what: str) -> Done | None:
        """Whom to answer when the call is carried out; None when a fault keeps it from that."""
        if self._host.monitor_hangs(domain):
            self._time_out(done, "monitor_hung", what)
            return None
        name = type(request).__name__
        return self._past_call_faults(name, domain.vm_id, domain.spec.name, done, what)

    def _past_call_faults(self, request: str, vm_id: str, vm_name: str, done: Done, what: str) -> Done | None:
        fault = self._host.faults.use_call_fault(request, vm_id, vm_name)
        if fault == "call_fails":
            message = f"{what} failed in the hypervisor; try again"
            self._host.fail(done, "call_failed", message, can_retry=True)
            return None
        if fault == "call_times_out":
            self._time_out(done, "timed_out", what)
            return _ignore
        return None if fault == "call_hangs" else done

    def _observe(self, request: NewDomain | Command, epoch: int) -> None:
        if self._host.observer is not None:
            self._host.observer.called(self.name, type(request).__name__, request.vm_id, epoch)

    def _carry_out(self, request: PlainCommand, domain: SimulatedDomain, done: Done) -> None:
        host = self._host
        if isinstance(request, SuspendDomain):
            host.suspend(domain, done)
            return
        host.outbox.answer(done, SUCCEEDED)
        match request:
            case ShutdownDomain():
                host.ask_shutdown(domain)
            case RebootDomain():
                host.ask_reboot(domain)
            case DestroyDomain():
                host.end(domain, "stopped", ExitReason.ADMIN_SHUTDOWN, "destroyed on request")
            case ResetDomain():
                host.reset(domain)
            case PauseDomain():
                host.pause(domain, "NOERR", "paused on request")
            case ContinueDomain():
                host.resume(domain)
            case _:
                assert_never(request)

    def _time_out(self, done: Done, code: FailureCode, what: str) -> None:
        """Answer "outcome unknown" when the call's time is over, unless the host was lost meanwhile."""
        host, boot_count, timeout_s = self._host, self._host.boot_count, self._config.call_timeout_s
        message = f"{what} was not answered within {timeout_s:g} s; it may have worked: list the domains"

        def answer() -> None:
            if host.is_on and host.boot_count == boot_count and not self._closed:
                failure = CallFailed(code=code, message=message, can_retry=True, outcome_known=False)
                host.outbox.answer(done, failure)
                host.outbox.drain()

        self._scheduler.call_at(self._scheduler.now_ns() + int(timeout_s * NS_PER_S), answer)

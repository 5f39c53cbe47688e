"""A host's real hypervisor, through libvirt: the `HypervisorBackend` over libvirt and QEMU.

Decides which part carries a request out. The owner's thread is never blocked: everything is answered from memory, and
what blocks runs on workers (`libvirt_workers.py`) whose results come back by `post`. So all state has one thread, and
nothing is locked.

    libvirt_backend      the port: dispatch, refusals that need no machine
      libvirt_session      connect, lose, come back; what a survey means
      libvirt_calls        begin, run, end            libvirt_lifecycle     the calls themselves
      libvirt_suspension   memory to a file
      libvirt_departures   migrations                 libvirt_migration     the calls themselves
      libvirt_reverts      back to a snapshot         libvirt_revert        the calls themselves
      libvirt_sampling     the rhythm of measuring    libvirt_statistics    numbers into oVirt's words
        libvirt_host         lanes, looks, failures
          libvirt_book         lives, statuses, events
"""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import libvirt
import msgspec

from hypervisor_backends.libvirt_book import Life
from hypervisor_backends.libvirt_calls import Calls, LifeRequest
from hypervisor_backends.libvirt_capabilities import task_context
from hypervisor_backends.libvirt_channels import LibvirtGuests
from hypervisor_backends.libvirt_departures import MIGRATION_REQUESTS, Departures
from hypervisor_backends.libvirt_domain import pause_code_of_word
from hypervisor_backends.libvirt_events import LibvirtEvent
from hypervisor_backends.libvirt_features import capabilities_of_host
from hypervisor_backends.libvirt_guests import Guests, NoGuests
from hypervisor_backends.libvirt_host import LOOK_BUDGET_S, LibvirtHost
from hypervisor_backends.libvirt_host_statistics import read_host
from hypervisor_backends.libvirt_lifecycle import TEST_DRIVER, Launched, launched_of, lookup
from hypervisor_backends.libvirt_reverts import Reverts
from hypervisor_backends.libvirt_sampling import Sampling
from hypervisor_backends.libvirt_session import FORGET_BUDGET_S, Session
from hypervisor_backends.libvirt_settings import LibvirtSettings
from hypervisor_backends.libvirt_tasks import run_domain_task, run_host_task, task_budget_s
from hypervisor_backends.libvirt_watchdog import LeaseGuard
from hypervisor_backends.libvirt_workers import ThreadWorkers, Workers
from hypervisor_backends.libvirt_xml import XmlMaker
from hypervisor_backends.measurements import DomainStatistics, HostStatistics
from hypervisor_backends.protocol import (
    FEATURE_BY_REQUEST,
    ArmWatchdog,
    AttachDisk,
    AttachNic,
    BulkStatistics,
    CallFailed,
    CallGuest,
    CallResult,
    CallSucceeded,
    Capabilities,
    ChangeMedium,
    CreateSnapshot,
    DestroyDomain,
    DetachDisk,
    DetachNic,
    DomainList,
    DomainRequest,
    DomainState,
    DomainTask,
    Done,
    GetCapabilities,
    HostTask,
    HypervisorRequest,
    ListDomains,
    Listener,
    PlugMemory,
    PrepareIncoming,
    RestoreDomain,
    RevertSnapshot,
    SetCpuQuota,
    SetNicLink,
    SetVcpus,
    StartDomain,
    UnplugMemory,
)
from hypervisor_backends.real_time import Post, RealTime, Timers
from olvm.model.errors import OlvmError

DOMAIN_TASKS: tuple[type[DomainRequest], ...] = get_args(DomainTask)
HOST_TASKS = get_args(HostTask)
CHANGES_SIZE = (SetVcpus, PlugMemory, UnplugMemory)
CHANGES_HARDWARE = (
    *CHANGES_SIZE,
    AttachDisk,
    DetachDisk,
    ChangeMedium,
    AttachNic,
    DetachNic,
    SetNicLink,
    SetCpuQuota,
)
UNREACHABLE = "kvm_not_running"  # of olvm.model.host_problems


class LibvirtHypervisor:
    """One host. `open` is how it is made; the constructor begins to connect and tells nobody when it has."""

    def __init__(
        self,
        name: str,
        settings: LibvirtSettings,
        post: Post,
        clock_ns: Callable[[], int],
        *,
        workers: Workers | None = None,
        timers: Timers | None = None,
        guests_of: Callable[[LibvirtHost, Post], Guests] | None = None,
    ) -> None:
        """`post` runs a function on the owner's thread, from any thread; `clock_ns` is monotonic, in ns since 1970."""
        self.name = name
        self._clock_ns = clock_ns
        self._timers: Timers = timers or RealTime(name, post, clock_ns)
        self._workers = workers or ThreadWorkers(name, post, self._timers, settings.workers_lost_max)
        self._host = LibvirtHost(name, settings, self._timers, self._workers)
        self._book = self._host.book
        if guests_of is None:
            guests_of = _no_guests if settings.uri.startswith("test:") else LibvirtGuests
        self._guests = guests_of(self._host, post)
        self._xml = XmlMaker(clock_ns)
        self._leases = LeaseGuard(self._host)
        self._calls = Calls(self._host, self._xml, self._guests, self._leases)
        self._departures = Departures(self._host, self._calls, self._xml, self._guests)
        self._reverts = Reverts(self._host, self._calls, self._xml, self._guests, self._leases)
        self._sampling = Sampling(self._host, self._guests)
        self._session = Session(self._host, post, self._on_event)
        self._session.on_connected = self._on_connected
        self._session.measure_host = self._measure_host
        self._book.on_started = self._on_started
        self._book.on_booting = self._on_booting
        self._book.on_ended = self._on_ended
        self._book.on_resumed = lambda life, event, failure: self._guests.tell_after(
            life, event, failure=failure
        )
        self._book.was_killed = self._leases.has_killed
        self._closed = False
        self._session.connect()

    @classmethod
    def open(
        cls,
        name: str,
        settings: LibvirtSettings,
        post: Post,
        clock_ns: Callable[[], int],
        on_open: Callable[[LibvirtHypervisor | OlvmError], None],
    ) -> LibvirtHypervisor:
        """Connect in the background; `on_open` comes once, on the owner's thread, when it is known what runs here.

        A host that cannot be reached is closed again: whoever wants it opens it anew. Later losses are survived.
        """
        hypervisor = cls(name, settings, post, clock_ns)

        def on_first(error: OlvmError | None) -> None:
            if error is None:
                on_open(hypervisor)
            else:
                hypervisor.close()
                on_open(error)

        hypervisor._session.on_first = on_first
        return hypervisor

    # ------------------------------------------------------------ the port

    @property
    def capabilities(self) -> Capabilities:
        have = self._host.capabilities
        if self._session.is_unreachable() and UNREACHABLE not in have.problems:
            return msgspec.structs.replace(have, problems=(*have.problems, UNREACHABLE))
        return have

    def submit(self, request: HypervisorRequest, done: Done) -> None:
        self._dispatch(request, done)
        self._host.outbox.drain()

    def set_listener(self, listener: Listener | None) -> None:
        self._host.outbox.listener = listener
        if listener is not None:
            untold, self._session.untold = self._session.untold, []
            for event in untold:
                self._host.outbox.tell(event)
            self._host.outbox.drain()

    def domains(self) -> list[DomainState]:
        return self._book.states()

    def statistics(self) -> tuple[HostStatistics, list[DomainStatistics]]:
        """The newest sample; one is taken each `statistics_period_s`, and by `BulkStatistics`."""
        return self._sampling.newest()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._host.outbox.listener = None
        self._host.outbox.clear()
        for life in self._book.lives.values():
            for name in list(life.timers):
                life.cancel_timer(name)
        self._sampling.close()
        self._session.close()
        self._guests.close()
        self._workers.close()
        self._timers.close()

    @property
    def busy_count(self) -> int:
        """Work that is under way: a test waits until there is none."""
        return self._workers.busy_count

    @property
    def is_connected(self) -> bool:
        return self._host.link is not None

    # ------------------------------------------------------------ dispatch

    def _dispatch(self, request: HypervisorRequest, done: Done) -> None:
        refusal = self._refusal(request)
        if refusal is not None:
            self._host.answer(done, refusal)
            return
        match request:
            case ListDomains():
                self._host.answer(done, CallSucceeded(value=DomainList(domains=tuple(self.domains()))))
            case GetCapabilities():
                self._host.answer(done, CallSucceeded(value=self.capabilities))
            case BulkStatistics():
                self._sampling.ask(done)
            case StartDomain() | RestoreDomain():
                self._calls.begin(request, done)
            case PrepareIncoming():
                self._departures.prepare(request, done)
            case ArmWatchdog():
                self._leases.arm(request.deadline_ns, done)
            case _:
                self._dispatch_further(request, done)

    def _dispatch_further(self, request: HypervisorRequest, done: Done) -> None:
        if isinstance(request, HOST_TASKS):
            self._on_host_task(request, done)
            return
        assert isinstance(request, DomainRequest), request
        life = self._book.lives.get(request.vm_id)
        if life is None and isinstance(request, DestroyDomain):
            self._departures.end_unlisted(request, done)
        elif life is None:
            self._host.fail_unknown(done, request)
        elif life.reverting and not isinstance(request, DestroyDomain):
            what = self._host.what(type(request).__name__, life)
            words = f"{what} is refused while it is reverted to a snapshot; wait for the end of that"
            self._host.fail(done, "wrong_state", words, can_retry=True)
        elif isinstance(request, RevertSnapshot):
            self._reverts.begin(request, life, done)
        elif isinstance(request, MIGRATION_REQUESTS):
            self._departures.carry_out(request, life, done)
        elif isinstance(request, CallGuest):
            self._guests.call(request, done)
        elif isinstance(request, DOMAIN_TASKS):
            self._on_domain_task(request, life, done)  # type: ignore[arg-type]
        else:
            plain: LifeRequest = request  # type: ignore[assignment]
            self._calls.carry_out(plain, life, done)

    def _refusal(self, request: HypervisorRequest) -> CallFailed | None:
        if self._closed:
            message = f"host {self.name}: its backend was closed; open a new one"
            return CallFailed(code="closed", message=message)
        feature = FEATURE_BY_REQUEST.get(type(request))
        if feature is not None and feature not in self._host.capabilities.features:
            message = f"host {self.name} cannot do {type(request).__name__}: its hypervisor lacks {feature}"
            return CallFailed(code="not_supported", message=message)
        return None

    # ------------------------------------------------------------ tasks

    def _on_domain_task(self, request: DomainTask, life: Life, done: Done) -> None:
        what = self._host.what(type(request).__name__, life)
        if life.started_ns is None:
            words = f"{what} is refused while its status is {life.shown()}; wait until it runs"
            self._host.fail(done, "wrong_state", words, can_retry=True)
            return
        if not life.responds:
            words = f"{what} was not begun: its QEMU does not answer; look at it, or destroy it"
            self._host.fail(done, "monitor_hung", words, can_retry=True)
            return
        context = self._xml.task_context
        takes_snapshot = isinstance(request, CreateSnapshot)
        life.snapshots_asked += takes_snapshot

        def work(connection: libvirt.virConnect) -> CallResult:
            return run_domain_task(lookup(connection, life.uuid), request, context)

        def end(result: object) -> None:
            life.snapshots_asked -= takes_snapshot
            self._remember(request, life, result)
            self._finish(result, what, done)

        self._host.call(life, work, task_budget_s(request, self._host.settings), end)

    def _remember(self, request: DomainTask, life: Life, result: object) -> None:
        """What it has now; of a change of unknown outcome nothing is said until it was measured."""
        if not isinstance(request, CHANGES_HARDWARE):
            return
        if isinstance(result, CallSucceeded):
            if isinstance(request, SetVcpus):
                life.vcpus = request.vcpus
        elif not isinstance(result, CallFailed) or not result.outcome_known:
            life.size_known = life.size_known and not isinstance(request, CHANGES_SIZE)
            if isinstance(request, SetVcpus):
                life.vcpus = max(life.vcpus, request.vcpus)
            elif isinstance(request, PlugMemory):
                life.memory_bytes += request.size_bytes
        self._host.measure(life)

    def _on_host_task(self, request: HostTask, done: Done) -> None:
        context = self._xml.task_context
        what = f"{type(request).__name__} on host {self.name}"
        work = self._host.bound(lambda connection: run_host_task(connection, request, context))

        def end(result: object) -> None:
            self._finish(result, what, done)
            self._host.outbox.drain()

        self._workers.run(work, task_budget_s(request, self._host.settings), end)

    def _finish(self, result: object, what: str, done: Done) -> None:
        if isinstance(result, CallSucceeded | CallFailed):
            self._host.answer(done, result)
        else:
            self._host.answer(done, self._host.failure(result, what))

    # ------------------------------------------------------------ what happens

    def _on_connected(self, capabilities: Capabilities) -> None:
        host = self._host
        host.capabilities = capabilities
        self._xml.task_context = task_context(self.name, host.settings, capabilities)
        self._sampling.start(read_host(host.settings.root, self._clock_ns()))

    def _measure_host(self, connection: libvirt.virConnect) -> Capabilities:
        """On a worker."""
        has_guests = not isinstance(self._guests, NoGuests)
        is_test = connection.getType() == TEST_DRIVER
        if not is_test:
            self._leases.open()
        return capabilities_of_host(
            connection, self._host.settings, self.name, has_guests=has_guests, has_watchdog=not is_test
        )

    def _on_event(self, event: LibvirtEvent) -> None:
        """An event is a reason to look; what it alone can tell is kept."""
        life = self._book.by_uuid(event.uuid)
        if life is None or self._closed:
            if event.name == "lifecycle" and not self._closed:
                self._session.meet(event)
            return
        if event.name == "reboot":
            self._book.rebooted(life)
        elif event.name == "io_error":
            life.io_reason = pause_code_of_word(event.reason)
        elif event.name == "agent":
            if event.event == libvirt.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_CONNECTED:
                self._guests.qemu_agent_connected(life)
        elif event.name in ("lifecycle", "watchdog"):
            life.panicked |= event.name == "lifecycle" and event.event == libvirt.VIR_DOMAIN_EVENT_CRASHED
            self._host.look(life)
        self._host.outbox.drain()

    def _on_started(self, life: Life) -> None:
        self._leases.guard(life)
        if life.channel:
            self._guests.opened(life)
            return
        # It arrived, or its start was not answered: libvirt has chosen the path meanwhile.
        work = self._host.bound(lambda connection: launched_of(lookup(connection, life.uuid)))

        def end(result: object) -> None:
            if not isinstance(result, Launched) or not self._book.is_present(life):
                return
            life.powered_on_ns = result.powered_on_ns or life.powered_on_ns
            if result.channel:
                life.channel = result.channel
                self._guests.opened(life)

        self._workers.run(work, LOOK_BUDGET_S, end)

    def _on_booting(self, life: Life) -> None:
        self._guests.booting(life)
        self._host.arm(
            life, "guest_wait", self._host.settings.guest_wait_timeout_s, lambda: self._book.guest_up(life)
        )

    def _on_ended(self, life: Life) -> None:
        self._guests.closed(life)
        self._leases.release(life)
        self._calls.answer_ended(life)
        self._departures.answer_ended(life)
        self._host.forget(life, FORGET_BUDGET_S)


def _no_guests(_host: LibvirtHost, _post: Post) -> Guests:
    return NoGuests()

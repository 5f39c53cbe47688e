"""The daemon between an agent and a simulated host's machines: what its death costs. The machines themselves go on.

While it is away, calls fail, events wait, and lists say what was so before. What was under way is cut off: a start ends
in one of three ways, which whoever asked cannot tell apart, a task was done or not, and a migration that has not handed
over is broken off.

Rule: a QEMU that libvirt lost track of never runs its guest, and is ended by the next start of that machine here.
"""

from __future__ import annotations

from msgspec.structs import replace

from hypervisor_backends.protocol import (
    ArmWatchdog,
    BulkStatistics,
    CallFailed,
    DomainState,
    Done,
    GetCapabilities,
    HypervisorRequest,
    ListDomains,
)
from hypervisor_backends.simulated_domain import SimulatedDomain
from hypervisor_backends.simulated_host import SimulatedHost
from hypervisor_backends.simulated_load import draw
from hypervisor_backends.simulated_migration import Migrations
from hypervisor_backends.simulated_refusals import NewDomain
from hypervisor_backends.simulated_tasks import Tasks
from olvm.model.errors import OlvmError

# What the agent answers from its own book, and the watchdog, which is a process of its own.
WITHOUT_LIBVIRT = (ListDomains, GetCapabilities, BulkStatistics, ArmWatchdog)


class LibvirtAway(OlvmError):
    """Nothing was begun."""

    code = "not_connected"


class Libvirtd:
    """One host's. `kill` and `start` are without effect when it is so already."""

    def __init__(self, host: SimulatedHost, migrations: Migrations, tasks: Tasks) -> None:
        self._host = host
        self._tasks = tasks
        self._migrations = migrations
        self._known: list[DomainState] | None = (
            None  # what the agent's book says; set exactly while it is away
        )

    @property
    def is_away(self) -> bool:
        return self._known is not None

    def kill(self) -> None:
        if self.is_away or not self._host.is_on:
            return
        known = self._host.states()
        doubtful = {
            vm_id for vm_id, domain in sorted(self._host.domains.items()) if self._tasks.cut_off(domain)
        }
        self._known = [replace(state, size_known=state.vm_id not in doubtful) for state in known]
        self._host.outbox.hold_events()
        self._tasks.end_half_reverted()
        for _, domain in sorted(self._host.domains.items()):
            if domain.started_ns is None and domain.incoming is None:
                self._cut_off(domain)
            elif domain.outgoing is not None:
                self._migrations.break_off(domain, f"libvirt of host {self._host.name} ended")

    def start(self) -> None:
        """It forgets the jobs that it held; what happened meanwhile is told now."""
        self._host.held_vm_ids.clear()
        self._known = None
        self._host.outbox.release_events()

    def on_power_off(self) -> None:
        self._known = None
        self._host.outbox.forget_events()

    def states(self) -> list[DomainState]:
        return self._host.states() if self._known is None else list(self._known)

    def check_reachable(self) -> None:
        """Whoever opens the host needs its libvirt. Raises `LibvirtAway`."""
        if self.is_away:
            raise LibvirtAway(f"libvirt of host {self._host.name} cannot be reached; start libvirtd there")

    def refusal(self, request: HypervisorRequest) -> CallFailed | None:
        if not self.is_away or isinstance(request, WITHOUT_LIBVIRT) or self._is_known(request):
            return None
        what = f"{type(request).__name__} on host {self._host.name}"
        message = f"{what}: its libvirt cannot be reached now; try again later"
        return CallFailed(code="call_failed", message=message, can_retry=True)

    def _is_known(self, request: HypervisorRequest) -> bool:
        """The same start once more joins the first, which is on the agent's book: nothing is asked of libvirt."""
        if not isinstance(request, NewDomain):
            return False
        domain = self._host.domains.get(request.vm_id)
        return domain is not None and domain.epoch == request.epoch

    def _cut_off(self, domain: SimulatedDomain) -> None:
        waiters: list[Done] = list(domain.waiters)
        domain.waiters.clear()
        host = self._host
        what = f"the start of domain {domain.spec.name} ({domain.vm_id}) on host {host.name}"
        message = f"{what}: the connection to libvirt broke before its answer; list what is there"
        for done in waiters:
            failure = CallFailed(code="call_failed", message=message, can_retry=True, outcome_known=False)
            host.outbox.answer(done, failure)
        part = draw(host.seed, host.name, "cut_off", domain.vm_id, domain.epoch)
        if part < 1 / 3 and not domain.hung:
            return  # QEMU was far enough: it goes on, and is found when libvirt is back
        host.remove(domain)
        if part > 2 / 3:
            host.lost_qemus[domain.vm_id] = domain

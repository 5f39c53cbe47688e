"""The computer under the simulated hypervisor: its power, its room, its watchdog, and who is told what.

Decides what fits, what a boot is, and that each change reaches the observer exactly. What domains do as time passes
is `simulated_host.py`, which builds on this. A draw keeps to the seed, the host's name, the domain's life and the
purpose, so one call more changes no other's.

Invariants:

1. Callbacks leave through one queue (`Outbox`), in the order of what happened, even when a callback submits.
2. State is complete before the first callback about it runs. The observer alone is called at once.
3. `memory_used_bytes` and `vcpus_used` are the sums over `domains`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import msgspec

from hypervisor_backends.measurements import DomainStatistics, HostStatistics
from hypervisor_backends.protocol import (
    CallFailed,
    CallSucceeded,
    Capabilities,
    DomainEvent,
    DomainEventKind,
    DomainState,
    DomainStatus,
    Done,
    ExitReason,
    FailureCode,
    Feature,
    Scheduler,
)
from hypervisor_backends.simulated_config import SimulatedConfig
from hypervisor_backends.simulated_domain import SimulatedDomain
from hypervisor_backends.simulated_faults import FaultBook
from hypervisor_backends.simulated_load import GuestIdentity, draw
from hypervisor_backends.simulated_observer import HypervisorObserver
from hypervisor_backends.simulated_outbox import Outbox
from hypervisor_backends.simulated_sampling import HostFrame, nics_of, sample, sample_host
from hypervisor_backends.simulated_watchdog import Watchdog
from hypervisor_backends.snapshot_store import MemorySnapshots, SnapshotStore
from olvm.model.limits import NS_PER_S

SUCCEEDED = CallSucceeded()
WITHOUT_FABRIC: frozenset[Feature] = frozenset({"migration", "post_copy"})


class SimulatedMachine(ABC):
    """What a host is apart from its domains' lives."""

    def __init__(
        self,
        name: str,
        capabilities: Capabilities,
        scheduler: Scheduler,
        seed: int,
        config: SimulatedConfig,
        snapshots: SnapshotStore | None = None,
    ) -> None:
        self.name = name
        self.config = config
        self.capabilities = capabilities
        self.scheduler = scheduler
        self.seed = seed
        self.faults = FaultBook()
        self.outbox = Outbox()
        self.observer: HypervisorObserver | None = None
        self.watchdog = Watchdog(scheduler, self.end_leased)
        self.domains: dict[str, SimulatedDomain] = {}
        self.vm_id_by_name: dict[str, str] = {}
        self.memory_used_bytes = 0
        self.vcpus_used = 0
        self.saved_vm_ids: set[str] = set()
        self.held_vm_ids: set[str] = set()  # machines that cannot come to be here until libvirtd is restarted
        # Processes of cut-off starts that libvirt does not know: they take memory and disks, and never run a guest.
        self.lost_qemus: dict[str, SimulatedDomain] = {}
        self.snapshots = MemorySnapshots() if snapshots is None else snapshots
        self._sample: tuple[HostStatistics, list[DomainStatistics]] | None = (
            None  # the last one that went through
        )
        self._stalled_ns: int | None = None  # since when a monitor holds up the samples
        self.is_on = False
        self.boot_count = 0
        self._mean_percent = (config.cpu_load_percent_min, config.cpu_load_percent_max)
        self._tells_facts = "guest_facts" in capabilities.features
        self.power_on()

    # ------------------------------------------------------------ power

    def power_on(self) -> None:
        """Boot, empty. Without effect while it is on."""
        if self.is_on:
            return
        self.is_on = True
        self.boot_count += 1
        self._booted_ns = self.scheduler.now_ns()
        # The time is part of the key because a new process counts its boots from one again.
        part = int(draw(self.seed, self.name, "boot_id", self.boot_count, self._booted_ns) * 2**48)
        self.capabilities = msgspec.structs.replace(self.capabilities, boot_id=f"{self.name}-{part:012x}")
        self._rx_bytes_of_ended = 0
        self._tx_bytes_of_ended = 0
        if self.observer is not None:
            self.observer.power_changed(self.name, True, self.capabilities.boot_id)

    def power_off(self) -> None:
        """Lose every domain; nobody is told, and no call under way is answered. Saved memory stays."""
        if not self.is_on:
            return
        self.cancel_timers()
        lost = list(self.domains.values())
        self.domains.clear()
        self.vm_id_by_name.clear()
        self.memory_used_bytes = self.vcpus_used = 0
        self.outbox.clear()
        self._sample, self._stalled_ns = None, None
        self.held_vm_ids.clear()
        self.lost_qemus.clear()
        self.watchdog.reset()
        self.is_on = False
        if self.observer is not None:
            for domain in lost:
                self._observe_removal(self.observer, domain)
            self.observer.power_changed(self.name, False, self.capabilities.boot_id)

    def cancel_timers(self) -> None:
        for domain in self.domains.values():
            domain.cancel_timers()

    def set_observer(self, observer: HypervisorObserver | None) -> None:
        """It is told first what is there already."""
        self.observer = observer
        if observer is None:
            return
        observer.power_changed(self.name, self.is_on, self.capabilities.boot_id)
        for _, domain in sorted(self.domains.items()):
            self._observe_addition(observer, domain)
            if domain.run_ns is not None:
                observer.vcpus_started(self.name, domain.vm_id, domain.epoch)

    def set_problems(self, problems: tuple[str, ...]) -> None:
        self.capabilities = msgspec.structs.replace(self.capabilities, problems=problems)

    # ------------------------------------------------------------ room

    def add(self, domain: SimulatedDomain) -> None:
        """Let the domain take its room; alone, this is a start that never gets anywhere."""
        self.lost_qemus.pop(domain.vm_id, None)  # whoever starts it looks for its process first
        self.domains[domain.vm_id] = domain
        self.vm_id_by_name[domain.spec.name] = domain.vm_id
        self.memory_used_bytes += self.footprint_bytes(domain.memory_bytes)
        self.vcpus_used += domain.spec.vcpus
        if self.observer is not None:
            self._observe_addition(self.observer, domain)

    def remove(self, domain: SimulatedDomain) -> None:
        """Take the domain off the host, with all its timers."""
        domain.cancel_timers()
        if domain.started_ns is not None:
            for nic in nics_of(domain, self.identity_of(domain), self.scheduler.now_ns()):
                self._rx_bytes_of_ended += nic.rx_bytes
                self._tx_bytes_of_ended += nic.tx_bytes
        del self.domains[domain.vm_id]
        del self.vm_id_by_name[domain.spec.name]
        self.memory_used_bytes -= self.footprint_bytes(domain.memory_bytes)
        self.vcpus_used -= domain.spec.vcpus
        if self.observer is not None:
            self._observe_removal(self.observer, domain)
        domain.run_ns = None

    def footprint_bytes(self, memory_bytes: int) -> int:
        return memory_bytes + self.config.memory_overhead_bytes

    def set_vcpus(self, domain: SimulatedDomain, vcpus: int) -> None:
        """From now on it has so many, and a load to match; what it has used stays."""
        now_ns = self.scheduler.now_ns()
        if domain.run_ns is not None:
            domain.stop_vcpus(now_ns, self.identity_of(domain).profile)
            domain.start_vcpus(now_ns)
        self.vcpus_used += vcpus - domain.spec.vcpus
        domain.spec = msgspec.structs.replace(domain.spec, vcpus=vcpus)
        if domain.identity is not None:
            domain.identity.set_vcpus(self.seed, domain.vm_id, vcpus, self._mean_percent)

    def plug_memory(self, domain: SimulatedDomain, name: str, device: tuple[int, int]) -> None:
        before_bytes = domain.memory_bytes
        domain.plugged[name] = device
        self._memory_changed(domain, before_bytes)

    def unplug_memory(self, domain: SimulatedDomain, name: str) -> None:
        before_bytes = domain.memory_bytes
        domain.plugged.pop(name, None)
        self._memory_changed(domain, before_bytes)

    def set_memory(
        self, domain: SimulatedDomain, memory_bytes: int, plugged: dict[str, tuple[int, int]]
    ) -> None:
        """What a machine that arrives brings along: what it was started with, and its devices."""
        before_bytes = domain.memory_bytes
        domain.spec = msgspec.structs.replace(domain.spec, memory_bytes=memory_bytes)
        domain.plugged = dict(plugged)
        self._memory_changed(domain, before_bytes)

    def _memory_changed(self, domain: SimulatedDomain, before_bytes: int) -> None:
        more_bytes = domain.memory_bytes - before_bytes
        if more_bytes == 0:
            return
        self.memory_used_bytes += more_bytes
        self.devices_changed(domain)
        if self.observer is not None:
            self.observer.domain_resized(self.name, domain.vm_id, domain.epoch, more_bytes)

    def devices_changed(self, domain: SimulatedDomain) -> None:
        if domain.identity is not None:
            domain.identity.set_devices(domain.spec, domain.memory_bytes)

    # ------------------------------------------------------------ what changes in a domain

    def set_status(self, domain: SimulatedDomain, status: DomainStatus) -> None:
        domain.status = status
        self.observe_status(domain)

    def observe_status(self, domain: SimulatedDomain) -> None:
        if self.observer is not None:
            self.observer.status_changed(self.name, domain.vm_id, domain.epoch, domain.shown_status())

    def start_vcpus(self, domain: SimulatedDomain) -> None:
        domain.start_vcpus(self.scheduler.now_ns())
        if self.observer is not None:
            self.observer.vcpus_started(self.name, domain.vm_id, domain.epoch)

    def stop_vcpus(self, domain: SimulatedDomain) -> None:
        if domain.run_ns is None:
            return
        domain.stop_vcpus(self.scheduler.now_ns(), self.identity_of(domain).profile)
        if self.observer is not None:
            self.observer.vcpus_stopped(self.name, domain.vm_id, domain.epoch)

    def _observe_addition(self, observer: HypervisorObserver, domain: SimulatedDomain) -> None:
        bytes_taken = self.footprint_bytes(domain.memory_bytes)
        observer.domain_added(self.name, domain.vm_id, domain.epoch, bytes_taken)
        observer.status_changed(self.name, domain.vm_id, domain.epoch, domain.shown_status())

    def _observe_removal(self, observer: HypervisorObserver, domain: SimulatedDomain) -> None:
        if domain.run_ns is not None:
            observer.vcpus_stopped(self.name, domain.vm_id, domain.epoch)
        bytes_taken = self.footprint_bytes(domain.memory_bytes)
        observer.domain_removed(self.name, domain.vm_id, domain.epoch, bytes_taken)

    # ------------------------------------------------------------ what can be read

    def states(self) -> list[DomainState]:
        return [domain.state(not self.monitor_hangs(domain)) for _, domain in sorted(self.domains.items())]

    def monitor_hangs(self, domain: SimulatedDomain) -> bool:
        return bool(self.faults) and self.faults.stands("monitor_hangs", domain.vm_id, domain.spec.name)

    def statistics(self) -> tuple[HostStatistics, list[DomainStatistics]]:
        """One sample; while a monitor that hangs holds up the host's, the last one that went through."""
        if self.faults and any(map(self.monitor_hangs, self.domains.values())):
            now_ns = self.scheduler.now_ns()
            self._stalled_ns = now_ns if self._stalled_ns is None else self._stalled_ns
            stalls = now_ns < self._stalled_ns + int(self.config.statistics_stall_s * NS_PER_S)
            if stalls and self._sample is not None:
                host, samples = self._sample
                return host, [one for one in samples if self._is_there(one)]
        else:
            self._stalled_ns = None
        self._sample = self._measured()
        return self._sample[0], list(self._sample[1])

    def _is_there(self, sample: DomainStatistics) -> bool:
        domain = self.domains.get(sample.vm_id)
        return domain is not None and domain.epoch == sample.epoch

    def _measured(self) -> tuple[HostStatistics, list[DomainStatistics]]:
        now_ns = self.scheduler.now_ns()
        some_fault = bool(self.faults)
        samples = [
            sample(
                domain,
                domain.identity or self.identity_of(domain),
                now_ns,
                domain.heard_ns(now_ns) if self._tells_facts else None,
                not (some_fault and self.monitor_hangs(domain)),
            )
            for _, domain in sorted(self.domains.items())
            if domain.started_ns is not None
        ]
        host = HostFrame(
            name=self.name,
            capabilities=self.capabilities,
            booted_ns=self._booted_ns,
            memory_used_bytes=self.memory_used_bytes
            + sum(self.footprint_bytes(lost.memory_bytes) for lost in self.lost_qemus.values()),
            vm_count=len(self.domains),
            vm_active=sum(domain.run_ns is not None for domain in self.domains.values()),
            incoming_vm_migrations=sum(domain.incoming is not None for domain in self.domains.values()),
            outgoing_vm_migrations=sum(domain.outgoing is not None for domain in self.domains.values()),
            rx_bytes_of_ended=self._rx_bytes_of_ended,
            tx_bytes_of_ended=self._tx_bytes_of_ended,
        )
        return sample_host(host, now_ns, samples), samples

    # ------------------------------------------------------------ draws and words

    def identity_of(self, domain: SimulatedDomain) -> GuestIdentity:
        if domain.identity is None:
            domain.identity = GuestIdentity(self.seed, domain.vm_id, domain.spec, self._mean_percent)
        return domain.identity

    def between_ns(self, domain: SimulatedDomain, purpose: str, least_s: float, most_s: float) -> int:
        if least_s == most_s:
            return int(least_s * NS_PER_S)
        domain.step_count += 1
        part = draw(self.seed, self.name, purpose, domain.vm_id, domain.epoch, domain.step_count)
        return int((least_s + (most_s - least_s) * part) * NS_PER_S)

    def silence_ns(self, attempt: str) -> int:
        """How long this side of the migration hears nothing until it holds the other one for lost."""
        longest = self.config.migration_silence_spread_percent / 100
        part = draw(self.seed, self.name, "silence", attempt) if longest else 0.0
        return int(self.config.migration_silence_s * (1 + longest * part) * NS_PER_S)

    def chance(self, domain: SimulatedDomain, purpose: str, probability: float) -> bool:
        if probability == 0.0:
            return False
        return draw(self.seed, self.name, purpose, domain.vm_id, domain.epoch) < probability

    def fail(self, done: Done, code: FailureCode, message: str, *, can_retry: bool = False) -> None:
        self.outbox.answer(done, CallFailed(code=code, message=message, can_retry=can_retry))

    def tell(
        self,
        domain: SimulatedDomain,
        kind: DomainEventKind,
        message: str = "",
        *,
        exit_reason: ExitReason | None = None,
    ) -> None:
        if exit_reason is not None and self.observer is not None:
            self.observer.ended(self.name, domain.vm_id, domain.epoch, exit_reason)
        self.outbox.tell(
            DomainEvent(
                vm_id=domain.vm_id,
                epoch=domain.epoch,
                kind=kind,
                at_ns=self.scheduler.now_ns(),
                exit_reason=exit_reason,
                pause_code=domain.pause_code,
                message=message,
            )
        )

    @abstractmethod
    def end_leased(self) -> None:
        """The watchdog expired: end what may run only under a lease."""

"""The machine inside the simulated hypervisor: domains that boot, run, pause and end as time passes.

Decides when a domain changes state, which events are told, and how long each step takes. Knows nothing of
how a call is asked, refused or faulted: that is `simulated.py`. Time comes from the `Scheduler`. A draw keeps
to the seed, the host's name, the domain's life and the purpose, so one call more changes no other's.

Invariants:

1. Callbacks leave through one queue (`Outbox`), in the order of what happened, even when a callback submits.
2. State is complete before the first callback about it runs.
3. `memory_used_bytes` and `vcpus_used` are the sums over `domains`.
4. A domain owns its timers; after `end` or `power_off` none of them is left.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import msgspec

from hypervisor_backends.measurements import DomainStatistics, HostStatistics
from hypervisor_backends.protocol import (
    CallFailed,
    CallSucceeded,
    Capabilities,
    DomainEvent,
    DomainEventKind,
    DomainState,
    Done,
    ExitReason,
    FailureCode,
    PauseCode,
    Scheduler,
)
from hypervisor_backends.simulated_config import SimulatedConfig
from hypervisor_backends.simulated_domain import GUEST_RUNS, SimulatedDomain
from hypervisor_backends.simulated_faults import GUEST_FAULTS, Fault, FaultBook, FaultKind
from hypervisor_backends.simulated_load import GuestIdentity, draw
from hypervisor_backends.simulated_outbox import Outbox
from hypervisor_backends.simulated_sampling import HostFrame, nics_of, sample, sample_host
from olvm.model.limits import NS_PER_S

_Step: TypeAlias = Callable[[SimulatedDomain], None]

SUCCEEDED = CallSucceeded()


class SimulatedHost:
    """One machine. `simulated.py` calls the methods without an underscore, and drains the outbox after."""

    def __init__(
        self, name: str, capabilities: Capabilities, scheduler: Scheduler, seed: int, config: SimulatedConfig
    ) -> None:
        self.name = name
        self.config = config
        self.capabilities = capabilities
        self.faults = FaultBook()
        self.outbox = Outbox()
        self.domains: dict[str, SimulatedDomain] = {}
        self.vm_id_by_name: dict[str, str] = {}
        self.memory_used_bytes = 0
        self.vcpus_used = 0
        self.saved_vm_ids: set[str] = set()
        self.is_on = False
        self.boot_count = 0
        self._scheduler = scheduler
        self._seed = seed
        self._mean_percent = (config.cpu_load_percent_min, config.cpu_load_percent_max)
        self._tells_facts = "guest_facts" in capabilities.features
        self.power_on()

    # ------------------------------------------------------------ the machine

    def power_on(self) -> None:
        """Boot, empty. Without effect while it is on."""
        if self.is_on:
            return
        self.is_on = True
        self.boot_count += 1
        self._booted_ns = self._scheduler.now_ns()
        # The time is part of the key because a new process counts its boots from one again.
        part = int(draw(self._seed, self.name, "boot_id", self.boot_count, self._booted_ns) * 2**48)
        self.capabilities = msgspec.structs.replace(self.capabilities, boot_id=f"{self.name}-{part:012x}")
        self._rx_bytes_of_ended = 0
        self._tx_bytes_of_ended = 0

    def power_off(self) -> None:
        """Lose every domain; nobody is told, and no call under way is answered. Saved memory stays."""
        self.cancel_timers()
        self.domains.clear()
        self.vm_id_by_name.clear()
        self.memory_used_bytes = self.vcpus_used = 0
        self.outbox.clear()
        self.is_on = False

    def cancel_timers(self) -> None:
        for domain in self.domains.values():
            domain.cancel_timers()

    def states(self) -> list[DomainState]:
        return [domain.state(not self.monitor_hangs(domain)) for _, domain in sorted(self.domains.items())]

    def monitor_hangs(self, domain: SimulatedDomain) -> bool:
        return bool(self.faults) and self.faults.stands("monitor_hangs", domain.vm_id, domain.spec.name)

    def statistics(self) -> tuple[HostStatistics, list[DomainStatistics]]:
        now_ns = self._scheduler.now_ns()
        some_fault = bool(self.faults)
        samples = [
            sample(
                domain,
                domain.identity or self._identity(domain),
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
            memory_used_bytes=self.memory_used_bytes,
            vm_count=len(self.domains),
            vm_active=sum(domain.run_ns is not None for domain in self.domains.values()),
            rx_bytes_of_ended=self._rx_bytes_of_ended,
            tx_bytes_of_ended=self._tx_bytes_of_ended,
        )
        return sample_host(host, now_ns, samples), samples

    # ------------------------------------------------------------ guest faults

    def attach_guest_fault(self, domain: SimulatedDomain, kind: FaultKind) -> None:
        """Let the oldest waiting fault of this kind strike the running domain, `after_s` from now."""
        fault = self.faults.use(kind, domain.vm_id, domain.spec.name)
        if fault is not None:
            self._schedule_guest_fault(domain, fault)

    def _schedule_guest_fault(self, domain: SimulatedDomain, fault: Fault) -> None:
        due_ns = self._scheduler.now_ns() + int(fault.after_s * NS_PER_S)
        domain.fault_timers.append(self._scheduler.call_at(due_ns, partial(self._strike, domain, fault)))

    def _strike(self, domain: SimulatedDomain, fault: Fault) -> None:
        """A fault that does not fit the domain's status passes without effect."""
        if fault.kind == "guest_crashes":
            self.end(domain, "crashed", ExitReason.LOST_QEMU, "lost connection with the QEMU process")
        elif fault.kind == "guest_shuts_down" and domain.status in GUEST_RUNS:
            self.end(domain, "shut_down", ExitReason.USER_SHUTDOWN, "the guest powered off by itself")
        elif fault.kind == "guest_reboots" and domain.status in GUEST_RUNS:
            self.reset(domain)
        elif fault.kind == "io_error" and domain.status in GUEST_RUNS:
            self.pause(domain, fault.pause_code, "paused by an I/O error of a disk")
        self.outbox.drain()

    # ------------------------------------------------------------ a domain's life

    def begin_start(self, domain: SimulatedDomain, done: Done) -> None:
        """Take in a new domain, whose status says how it begins; `done` is answered when that is over."""
        self.add(domain)
        domain.waiters.append(done)
        config = self.config
        if domain.status == "restoring_state":
            self._arm(domain, _moving_ns(domain, config.restore_bytes_per_s), self._restored)
            return
        boot_ns = self._between_ns(domain, "boot", config.boot_time_s_min, config.boot_time_s_max)
        launch_ns = self._between_ns(domain, "launch", config.launch_time_s_min, config.launch_time_s_max)
        launch_ns = min(launch_ns, boot_ns)
        domain.boot_ns = boot_ns - launch_ns
        self._arm(domain, launch_ns, self._launched)

    def add(self, domain: SimulatedDomain) -> None:
        """Let the domain take its room; alone, this is a start that never gets anywhere."""
        self.domains[domain.vm_id] = domain
        self.vm_id_by_name[domain.spec.name] = domain.vm_id
        self.memory_used_bytes += self.footprint_bytes(domain.spec.memory_bytes)
        self.vcpus_used += domain.spec.vcpus

    def footprint_bytes(self, memory_bytes: int) -> int:
        return memory_bytes + self.config.memory_overhead_bytes

    def _launched(self, domain: SimulatedDomain) -> None:
        if self._ended_by_failed_start(domain):
            return
        self.saved_vm_ids.discard(domain.vm_id)
        domain.status = "powering_up"
        self._run(domain, "booting")
        self._arm(domain, domain.boot_ns, self._guest_up)

    def _restored(self, domain: SimulatedDomain) -> None:
        if self._ended_by_failed_start(domain):
            return
        self.saved_vm_ids.discard(domain.vm_id)
        domain.status = "up"
        self._run(domain, "restored from saved memory")
        self._guest_up(domain)

    def _ended_by_failed_start(self, domain: SimulatedDomain) -> bool:
        if not domain.start_fails:
            return False
        message = (
            f"domain {domain.spec.name} ({domain.vm_id}) did not start on host {self.name}; try another host"
        )
        waiters, domain.waiters = domain.waiters, []
        self.end(domain, "crashed", ExitReason.LIBVIRT_START_FAILED, message)
        for done in waiters:
            self.fail(done, "start_failed", message, can_retry=True)
        return True

    def _run(self, domain: SimulatedDomain, message: str) -> None:
        domain.started_ns = self._scheduler.now_ns()
        domain.start_vcpus(domain.started_ns)
        config = self.config
        domain.guest_ignores_shutdown = self.chance(
            domain, "ignores_shutdown", config.guest_ignores_shutdown_probability
        )
        for done in domain.waiters:
            self.outbox.answer(done, SUCCEEDED)
        domain.waiters.clear()
        self._tell(domain, "started", message)
        if self.faults:
            for kind in GUEST_FAULTS:
                self.attach_guest_fault(domain, kind)
        if self.chance(domain, "crashes", config.guest_crashes_probability):
            after_s = draw(self._seed, self.name, "crash_after", domain.vm_id, domain.epoch)
            crash = Fault(kind="guest_crashes", after_s=after_s * config.guest_crash_after_s_max)
            self._schedule_guest_fault(domain, crash)

    def _guest_up(self, domain: SimulatedDomain) -> None:
        domain.status = "up"
        domain.guest_since_ns = self._scheduler.now_ns()
        self._tell(domain, "guest_up")

    def ask_shutdown(self, domain: SimulatedDomain) -> None:
        """A guest obeys even while it boots; a deaf one is not told apart by its status."""
        if self._is_deaf(domain):
            return
        domain.status = "powering_down"
        self._arm(domain, self._shutdown_ns(domain), self._shut_down)

    def _shut_down(self, domain: SimulatedDomain) -> None:
        self.end(domain, "shut_down", ExitReason.ADMIN_SHUTDOWN, "the guest powered off as asked")

    def ask_reboot(self, domain: SimulatedDomain) -> None:
        if self._is_deaf(domain):
            return
        domain.status = "reboot_in_progress"
        self._arm(domain, self._shutdown_ns(domain), self.reset)

    def reset(self, domain: SimulatedDomain) -> None:
        """The guest starts over; also the second half of a reboot."""
        domain.status = "reboot_in_progress"
        domain.guest_since_ns = None
        self._tell(domain, "rebooted")
        config = self.config
        boot_ns = self._between_ns(domain, "boot", config.boot_time_s_min, config.boot_time_s_max)
        self._arm(domain, boot_ns, self._guest_up)

    def pause(self, domain: SimulatedDomain, pause_code: PauseCode, message: str) -> None:
        now_ns = self._scheduler.now_ns()
        if domain.timer is not None:
            domain.timer()
            domain.timer = None
            domain.remaining_ns = max(domain.due_ns - now_ns, 0)
        domain.paused_from = domain.status
        domain.status = "paused"
        domain.pause_code = pause_code
        domain.stop_vcpus(now_ns, self._identity(domain).profile)
        self._tell(domain, "paused", message)

    def resume(self, domain: SimulatedDomain) -> None:
        domain.status = domain.paused_from
        domain.pause_code = "NONE"
        domain.start_vcpus(self._scheduler.now_ns())
        self._tell(domain, "continued")
        if domain.step is not None:
            self._arm(domain, domain.remaining_ns, domain.step)

    def suspend(self, domain: SimulatedDomain, done: Done) -> None:
        domain.stop_vcpus(self._scheduler.now_ns(), self._identity(domain).profile)
        domain.status = "saving_state"
        domain.pause_code = "NONE"
        domain.waiters.append(done)
        self._arm(domain, _moving_ns(domain, self.config.save_bytes_per_s), self._saved)

    def _saved(self, domain: SimulatedDomain) -> None:
        if not self.config.saved_memory_shared:
            self.saved_vm_ids.add(domain.vm_id)
        for done in domain.waiters:
            self.outbox.answer(done, SUCCEEDED)
        domain.waiters.clear()
        self.end(domain, "stopped", ExitReason.SAVE_STATE_SUCCEEDED, "memory saved")

    def end(
        self, domain: SimulatedDomain, kind: DomainEventKind, exit_reason: ExitReason, message: str
    ) -> None:
        """Take the domain off the host, answer what waited for it, and tell its end if its start was told."""
        domain.cancel_timers()
        if domain.started_ns is not None:
            now_ns = self._scheduler.now_ns()
            for nic in nics_of(domain, self._identity(domain), now_ns):
                self._rx_bytes_of_ended += nic.rx_bytes
                self._tx_bytes_of_ended += nic.tx_bytes
        del self.domains[domain.vm_id]
        del self.vm_id_by_name[domain.spec.name]
        self.memory_used_bytes -= self.footprint_bytes(domain.spec.memory_bytes)
        self.vcpus_used -= domain.spec.vcpus
        for done in domain.waiters:
            who = f"domain {domain.spec.name} ({domain.vm_id})"
            text = f"{who} ended on host {self.name} during the call: {message}; start it again"
            self.fail(done, "domain_ended", text)
        domain.waiters.clear()
        if domain.started_ns is not None:
            self._tell(domain, kind, message, exit_reason=exit_reason)

    # ------------------------------------------------------------ steps, draws and words

    def _arm(self, domain: SimulatedDomain, delay_ns: int, step: _Step) -> None:
        """Replace the domain's present step; one without delay is taken at once."""
        if domain.timer is not None:
            domain.timer()
            domain.timer = None
        if delay_ns <= 0:
            domain.step = None
            step(domain)
            return
        domain.step = step
        domain.due_ns = self._scheduler.now_ns() + delay_ns
        domain.timer = self._scheduler.call_at(domain.due_ns, partial(self._take_step, domain))

    def _take_step(self, domain: SimulatedDomain) -> None:
        domain.timer = None
        step, domain.step = domain.step, None
        assert step is not None, f"domain {domain.vm_id} has a timer and no step"
        step(domain)
        self.outbox.drain()

    def _between_ns(self, domain: SimulatedDomain, purpose: str, least_s: float, most_s: float) -> int:
        if least_s == most_s:
            return int(least_s * NS_PER_S)
        domain.step_count += 1
        part = draw(self._seed, self.name, purpose, domain.vm_id, domain.epoch, domain.step_count)
        return int((least_s + (most_s - least_s) * part) * NS_PER_S)

    def chance(self, domain: SimulatedDomain, purpose: str, probability: float) -> bool:
        if probability == 0.0:
            return False
        return draw(self._seed, self.name, purpose, domain.vm_id, domain.epoch) < probability

    def _shutdown_ns(self, domain: SimulatedDomain) -> int:
        config = self.config
        return self._between_ns(domain, "shutdown", config.shutdown_time_s_min, config.shutdown_time_s_max)

    def _is_deaf(self, domain: SimulatedDomain) -> bool:
        if domain.guest_ignores_shutdown:
            return True
        return self.faults.use("guest_ignores_shutdown", domain.vm_id, domain.spec.name) is not None

    def _identity(self, domain: SimulatedDomain) -> GuestIdentity:
        if domain.identity is None:
            domain.identity = GuestIdentity(self._seed, domain.vm_id, domain.spec, self._mean_percent)
        return domain.identity

    def fail(self, done: Done, code: FailureCode, message: str, *, can_retry: bool = False) -> None:
        self.outbox.answer(done, CallFailed(code=code, message=message, can_retry=can_retry))

    def _tell(
        self,
        domain: SimulatedDomain,
        kind: DomainEventKind,
        message: str = "",
        *,
        exit_reason: ExitReason | None = None,
    ) -> None:
        self.outbox.tell(
            DomainEvent(
                vm_id=domain.vm_id,
                epoch=domain.epoch,
                kind=kind,
                at_ns=self._scheduler.now_ns(),
                exit_reason=exit_reason,
                pause_code=domain.pause_code,
                message=message,
            )
        )


def _moving_ns(domain: SimulatedDomain, bytes_per_s: float) -> int:
    """How long the domain's memory takes to or from the disk."""
    return 0 if bytes_per_s == 0 else int(domain.spec.memory_bytes / bytes_per_s * NS_PER_S)

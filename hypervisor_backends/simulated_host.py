"""What the domains of a simulated host do as time passes: they boot, run, pause, arrive and end.

Decides when a domain changes state, which events are told, and how long each step takes. Knows nothing of how a
call is asked, refused or faulted (`simulated.py`), nor of how a migration gets its memory over
(`simulated_migration.py`). Time comes from the `Scheduler`.

Invariants, beside those of `simulated_machine.py`:

1. A domain owns its timers; after `end` or `power_off` none of them is left.
2. The vCPUs of a domain run exactly while `run_ns` is set; a start and `thaw` set it, a stop and the end clear it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from msgspec.structs import replace

from hypervisor_backends.protocol import (
    NEVER_ARRIVED,
    Capabilities,
    DomainEventKind,
    Done,
    ExitReason,
    PauseCode,
    Scheduler,
)
from hypervisor_backends.simulated_config import SimulatedConfig
from hypervisor_backends.simulated_domain import SimulatedDomain
from hypervisor_backends.simulated_faults import GUEST_FAULTS, Fault, FaultKind
from hypervisor_backends.simulated_load import draw
from hypervisor_backends.simulated_machine import SUCCEEDED, SimulatedMachine
from hypervisor_backends.simulated_moving import GuestState, StepName
from hypervisor_backends.snapshot_store import SnapshotStore
from olvm.model.limits import NS_PER_S

LEASE_EXPIRED = "its lease expired"


class SimulatedHost(SimulatedMachine):
    """One machine. `simulated.py` calls the methods without an underscore, and drains the outbox after."""

    def __init__(
        self,
        name: str,
        capabilities: Capabilities,
        scheduler: Scheduler,
        seed: int,
        config: SimulatedConfig,
        snapshots: SnapshotStore | None = None,
    ) -> None:
        self._steps: dict[StepName, Callable[[SimulatedDomain], None]] = {
            "launched": self._launched,
            "restored": self._restored,
            "guest_up": self._guest_up,
            "shut_down": self._shut_down,
            "reset": self.reset,
            "saved": self._saved,
        }
        # Told when a domain that is part of a migration is taken off this host.
        self.on_moving_ended: Callable[[SimulatedDomain], None] = _forget
        self._storage_broken = False
        super().__init__(name, capabilities, scheduler, seed, config, snapshots)

    # ------------------------------------------------------------ guest faults

    def attach_guest_fault(self, domain: SimulatedDomain, kind: FaultKind) -> None:
        """Let the oldest waiting fault of this kind strike the running domain, `after_s` from now."""
        fault = self.faults.use(kind, domain.vm_id, domain.spec.name)
        if fault is not None:
            self._schedule_guest_fault(domain, fault)

    def _schedule_guest_fault(self, domain: SimulatedDomain, fault: Fault) -> None:
        due_ns = self.scheduler.now_ns() + int(fault.after_s * NS_PER_S)
        domain.fault_timers.append(self.scheduler.call_at(due_ns, partial(self._strike, domain, fault)))

    def _strike(self, domain: SimulatedDomain, fault: Fault) -> None:
        """A fault that does not fit the domain's status passes without effect."""
        if fault.kind == "guest_crashes":
            self.end(domain, "crashed", ExitReason.LOST_QEMU, "lost connection with the QEMU process")
        elif domain.run_ns is None:
            return
        elif fault.kind == "guest_shuts_down":
            self.end(domain, "shut_down", ExitReason.USER_SHUTDOWN, "the guest powered off by itself")
        elif fault.kind == "guest_reboots":
            self.reset(domain)
        elif fault.kind == "io_error":
            self.pause(domain, fault.pause_code, "paused by an I/O error of a disk")
        self.outbox.drain()

    def set_storage_broken(self, is_broken: bool) -> None:
        """While it is broken, each guest that runs, or comes to run, pauses with EIO at its next I/O: at once."""
        self._storage_broken = is_broken
        for _, domain in sorted(self.domains.items()):
            self._meet_storage(domain)

    def _meet_storage(self, domain: SimulatedDomain) -> None:
        if self._storage_broken and domain.run_ns is not None:
            self.pause(domain, "EIO", "paused by an I/O error: its storage cannot be reached")

    def end_leased(self) -> None:
        leased = [domain for _, domain in sorted(self.domains.items()) if domain.spec.leased]
        for domain in leased:
            if domain.status != "migrating_to":
                self.end(domain, "crashed", ExitReason.GENERIC_ERROR, LEASE_EXPIRED)
            elif domain.incoming is not None and domain.incoming.attempt:
                self.end(domain, "stopped", ExitReason.MIGRATION_FAILED, LEASE_EXPIRED)
            elif domain.incoming is not None:  # no process of it is there yet
                domain.incoming.condemned = True
        self.outbox.drain()

    def end_condemned(self, domain: SimulatedDomain) -> None:
        """A leased machine appears after the watchdog's deadline: it is there, and may run, until the next look."""
        purpose, poll_s = "watchdog_looks", self.config.watchdog_poll_s
        delay_ns = self.between_ns(domain, purpose, 0.0, poll_s)
        due_ns = self.scheduler.now_ns() + delay_ns
        domain.fault_timers.append(self.scheduler.call_at(due_ns, partial(self._end_condemned, domain)))

    def _end_condemned(self, domain: SimulatedDomain) -> None:
        if domain.status == "migrating_to":
            self.end(domain, "stopped", ExitReason.MIGRATION_FAILED, LEASE_EXPIRED)
        else:
            self.end(domain, "crashed", ExitReason.GENERIC_ERROR, LEASE_EXPIRED)
        self.outbox.drain()

    # ------------------------------------------------------------ a domain's life

    def begin_start(self, domain: SimulatedDomain, done: Done) -> None:
        """Take in a new domain, whose status says how it begins; `done` is answered when that is over."""
        self.add(domain)
        domain.waiters.append(done)
        config = self.config
        if domain.status == "restoring_state":
            self._arm(domain, _moving_ns(domain, config.restore_bytes_per_s), "restored")
            return
        boot_ns = self.between_ns(domain, "boot", config.boot_time_s_min, config.boot_time_s_max)
        launch_ns = self.between_ns(domain, "launch", config.launch_time_s_min, config.launch_time_s_max)
        launch_ns = min(launch_ns, boot_ns)
        domain.boot_ns = boot_ns - launch_ns
        self._arm(domain, launch_ns, "launched")

    def _launched(self, domain: SimulatedDomain) -> None:
        if self._ended_by_failed_start(domain):
            return
        self.set_status(domain, "powering_up")
        self.start_vcpus(domain)
        self._begin_life(domain, "booting")
        self._arm(domain, domain.boot_ns, "guest_up")
        self._meet_storage(domain)

    def _restored(self, domain: SimulatedDomain) -> None:
        if self._ended_by_failed_start(domain):
            return
        self.set_status(domain, "up")
        self.start_vcpus(domain)
        self._begin_life(domain, "restored from saved memory")
        self._guest_up(domain)
        self._meet_storage(domain)

    def arrive(self, domain: SimulatedDomain, state: GuestState) -> None:
        """The machine runs here from now on, as it was at its source, unless it was paused there."""
        domain.paused_from, domain.pause_code = state.paused_from, state.pause_code
        domain.step, domain.remaining_ns = state.step, state.remaining_ns
        domain.stopped_ns = self.scheduler.now_ns()
        self.set_status(domain, state.status)
        self._take_over(domain, state)
        self._begin_life(domain, "arrived by live migration")
        domain.powered_on_ns = state.powered_on_ns
        domain.guest_ignores_shutdown = state.ignores_shutdown
        if state.guest_heard:
            self._guest_speaks(domain)
        if state.status == "paused":
            self.tell(domain, "paused", "arrived paused")
            return
        self.thaw(domain)

    def _take_over(self, domain: SimulatedDomain, state: GuestState) -> None:
        """What was plugged and frozen at the source, which the spec of the arrival does not say."""
        if state.vcpus != domain.spec.vcpus:
            self.set_vcpus(domain, state.vcpus)
        self.set_memory(domain, state.memory_bytes, state.plugged)

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

    def _begin_life(self, domain: SimulatedDomain, message: str) -> None:
        self.saved_vm_ids.discard(domain.vm_id)
        domain.started_ns = domain.powered_on_ns = self.scheduler.now_ns()
        config = self.config
        domain.guest_ignores_shutdown = self.chance(
            domain, "ignores_shutdown", config.guest_ignores_shutdown_probability
        )
        for done in domain.waiters:
            self.outbox.answer(done, SUCCEEDED)
        domain.waiters.clear()
        self.tell(domain, "started", message)
        if self.faults:
            for kind in GUEST_FAULTS:
                self.attach_guest_fault(domain, kind)
        if self.chance(domain, "crashes", config.guest_crashes_probability):
            after_s = draw(self.seed, self.name, "crash_after", domain.vm_id, domain.epoch)
            crash = Fault(kind="guest_crashes", after_s=after_s * config.guest_crash_after_s_max)
            self._schedule_guest_fault(domain, crash)

    def _guest_up(self, domain: SimulatedDomain) -> None:
        self.set_status(domain, "up")
        self._guest_speaks(domain)

    def _guest_speaks(self, domain: SimulatedDomain) -> None:
        """Its agent is heard, and has said nothing yet; QEMU's agent is not even there."""
        config, now_ns = self.config, self.scheduler.now_ns()
        facts = (config.facts_after_s_min, config.facts_after_s_max)
        qemu_agent = (config.qemu_agent_after_s_min, config.qemu_agent_after_s_max)
        domain.guest_since_ns = now_ns
        domain.facts_ns = now_ns + self.between_ns(domain, "facts", *facts)
        domain.qemu_agent_ns = now_ns + self.between_ns(domain, "qemu_agent", *qemu_agent)
        self.tell(domain, "guest_up")

    def ask_shutdown(self, domain: SimulatedDomain) -> None:
        """A guest that still boots loses the word, as a deaf one does; neither is told apart by its status."""
        if self._is_deaf(domain):
            return
        self.set_status(domain, "powering_down")
        self._arm(domain, self._shutdown_ns(domain), "shut_down")

    def _shut_down(self, domain: SimulatedDomain) -> None:
        self.end(domain, "shut_down", ExitReason.ADMIN_SHUTDOWN, "the guest powered off as asked")

    def ask_reboot(self, domain: SimulatedDomain) -> None:
        if self._is_deaf(domain):
            return
        self.set_status(domain, "reboot_in_progress")
        self._arm(domain, self._shutdown_ns(domain), "reset")

    def reset(self, domain: SimulatedDomain) -> None:
        """The guest starts over; also the second half of a reboot."""
        self.set_status(domain, "reboot_in_progress")
        domain.guest_since_ns = None
        domain.frozen = False
        self.tell(domain, "rebooted")
        config = self.config
        boot_ns = self.between_ns(domain, "boot", config.boot_time_s_min, config.boot_time_s_max)
        self._arm(domain, boot_ns, "guest_up")

    def revert(self, domain: SimulatedDomain, *, boots: bool) -> None:
        """Another QEMU takes the place of this one: the guest begins anew, or goes on where it was at a snapshot."""
        if domain.status == "paused":
            domain.pause_code = "NONE"
            self.set_status(domain, domain.paused_from)
            self.tell(domain, "continued")
        self.stop_vcpus(domain)
        self._unfold(domain)
        self.start_vcpus(domain)
        domain.powered_on_ns = self.scheduler.now_ns()
        self.reset(domain)
        if not boots:
            self._arm(domain, 0, "guest_up")
        self._meet_storage(domain)

    def _unfold(self, domain: SimulatedDomain) -> None:
        """Memory that was plugged is memory like any other after a boot, and the balloon is not blown up."""
        plugged_bytes = domain.memory_bytes - domain.spec.memory_bytes
        domain.spec = replace(domain.spec, memory_bytes=domain.spec.memory_bytes + plugged_bytes)
        domain.plugged, domain.balloon_bytes = {}, 0
        self.devices_changed(domain)

    def pause(self, domain: SimulatedDomain, pause_code: PauseCode, message: str) -> None:
        self.freeze(domain)
        if domain.status != "paused":
            domain.paused_from = domain.status
        domain.pause_code = pause_code
        self.set_status(domain, "paused")
        self.tell(domain, "paused", message)

    def resume(self, domain: SimulatedDomain) -> None:
        domain.pause_code = "NONE"
        self.set_status(domain, domain.paused_from)
        self.tell(domain, "continued")
        self.thaw(domain)

    def freeze(self, domain: SimulatedDomain) -> None:
        """Stop the vCPUs, and with them what the guest is about. Without effect while they stand."""
        if domain.run_ns is None:
            return
        if domain.timer is not None:
            domain.timer()
            domain.timer = None
            domain.remaining_ns = max(domain.due_ns - self.scheduler.now_ns(), 0)
        self.stop_vcpus(domain)

    def thaw(self, domain: SimulatedDomain) -> None:
        """Let the guest go on where it was frozen. A paused domain is left as it is."""
        if domain.status == "paused" or domain.run_ns is not None:
            return
        self.start_vcpus(domain)
        if domain.step is not None:
            self._arm(domain, domain.remaining_ns, domain.step)
        self._meet_storage(domain)

    def suspend(self, domain: SimulatedDomain, done: Done) -> None:
        self.stop_vcpus(domain)
        domain.pause_code = "NONE"
        self.set_status(domain, "saving_state")
        domain.waiters.append(done)
        self._arm(domain, _moving_ns(domain, self.config.save_bytes_per_s), "saved")

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
        self.remove(domain)
        if domain.outgoing is not None or domain.incoming is not None:
            self.on_moving_ended(domain)
        for done in domain.waiters:
            who = f"domain {domain.spec.name} ({domain.vm_id})"
            text = f"{who} ended on host {self.name} during the call: {message}; start it again"
            self.fail(done, "domain_ended", text)
        domain.waiters.clear()
        for _, done, _ in domain.tasks.values():
            text = f"domain {domain.spec.name} ({domain.vm_id}) ended on host {self.name} during the task: {message}"
            self.fail(done, "domain_ended", text)
        domain.tasks.clear()
        if domain.started_ns is not None or exit_reason in NEVER_ARRIVED:
            self.tell(domain, kind, message, exit_reason=exit_reason)

    # ------------------------------------------------------------ steps

    def _arm(self, domain: SimulatedDomain, delay_ns: int, step: StepName) -> None:
        """Replace the domain's present step; one without delay is taken at once."""
        if domain.timer is not None:
            domain.timer()
            domain.timer = None
        if delay_ns <= 0:
            domain.step = None
            self._steps[step](domain)
            return
        domain.step = step
        domain.due_ns = self.scheduler.now_ns() + delay_ns
        domain.timer = self.scheduler.call_at(domain.due_ns, partial(self._take_step, domain))

    def _take_step(self, domain: SimulatedDomain) -> None:
        domain.timer = None
        step, domain.step = domain.step, None
        assert step is not None, f"domain {domain.vm_id} has a timer and no step"
        self._steps[step](domain)
        self.outbox.drain()

    def _shutdown_ns(self, domain: SimulatedDomain) -> int:
        config = self.config
        return self.between_ns(domain, "shutdown", config.shutdown_time_s_min, config.shutdown_time_s_max)

    def _is_deaf(self, domain: SimulatedDomain) -> bool:
        boots = domain.guest_since_ns is None and self.config.booting_guest_ignores_button
        if boots or domain.guest_ignores_shutdown:
            return True
        return self.faults.use("guest_ignores_shutdown", domain.vm_id, domain.spec.name) is not None


def _moving_ns(domain: SimulatedDomain, bytes_per_s: float) -> int:
    """How long the domain's memory takes to or from the disk."""
    return 0 if bytes_per_s == 0 else int(domain.spec.memory_bytes / bytes_per_s * NS_PER_S)


def _forget(_: SimulatedDomain) -> None:
    """Stands where nobody migrates."""

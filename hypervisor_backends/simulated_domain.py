"""One simulated domain: its state, and which requests its state admits.

Must not know time's passing, faults or other domains: `simulated_host.py` moves it from status to status.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from msgspec.structs import replace

from hypervisor_backends.protocol import (
    CallResult,
    Cancel,
    ContinueDomain,
    DestroyDomain,
    DomainSpec,
    DomainState,
    DomainStatus,
    Done,
    MigrateDomain,
    PauseCode,
    PauseDomain,
    RebootDomain,
    Request,
    ResetDomain,
    ShutdownDomain,
    SuspendDomain,
)
from hypervisor_backends.simulated_load import GuestIdentity, LoadProfile, activity
from hypervisor_backends.simulated_moving import Incoming, Outgoing, StepName
from olvm.model.limits import NS_PER_S

Finish: TypeAlias = Callable[[], CallResult]

HEARTBEAT_PERIOD_NS = 5 * NS_PER_S

GUEST_RUNS: frozenset[DomainStatus] = frozenset({"powering_up", "up", "powering_down", "reboot_in_progress"})

# Statuses in which a request is carried out; in any other it is refused, unless it holds already.
ADMITTED: dict[type[Request], frozenset[DomainStatus]] = {
    ShutdownDomain: frozenset({"powering_up", "up", "reboot_in_progress"}),
    RebootDomain: frozenset({"powering_up", "up"}),
    ResetDomain: GUEST_RUNS,
    SuspendDomain: frozenset({"up", "paused"}),
    PauseDomain: GUEST_RUNS,
    ContinueDomain: frozenset({"paused"}),
    DestroyDomain: GUEST_RUNS
    | {"wait_for_launch", "restoring_state", "paused", "saving_state", "migrating_to"},
    MigrateDomain: frozenset({"powering_up", "up", "paused", "reboot_in_progress"}),
}
# Statuses in which a request holds already and succeeds without effect.
ALREADY: dict[type[Request], frozenset[DomainStatus]] = {
    ShutdownDomain: frozenset({"powering_down"}),
    RebootDomain: frozenset({"reboot_in_progress"}),
    PauseDomain: frozenset({"paused"}),
    ContinueDomain: GUEST_RUNS,
}


class SimulatedDomain:
    """Plain state; `simulated_host.py` and the two sides of a migration change it, apart from the methods here."""

    __slots__ = (
        "balloon_bytes",
        "boot_ns",
        "console_port",
        "due_ns",
        "epoch",
        "facts_ns",
        "fault_timers",
        "frozen",
        "guest_ignores_shutdown",
        "guest_since_ns",
        "hung",
        "identity",
        "incoming",
        "outgoing",
        "pause_code",
        "paused_from",
        "plugged",
        "powered_on_ns",
        "qemu_agent_ns",
        "ran_elsewhere",
        "remaining_ns",
        "reverting",
        "run_ns",
        "spec",
        "start_fails",
        "started_ns",
        "status",
        "step",
        "step_count",
        "stopped_ns",
        "task_count",
        "tasks",
        "timer",
        "used_core_ns",
        "vcpus_max",
        "vm_id",
        "waiters",
        "waves_at_run",
    )

    def __init__(self, vm_id: str, epoch: int, spec: DomainSpec, status: DomainStatus) -> None:
        self.vm_id = vm_id
        self.epoch = epoch
        self.spec = spec
        self.status: DomainStatus = status  # a migration leaves it as it is: shown_status hides it
        self.started_ns: int | None = None  # set exactly when `started` was told
        self.powered_on_ns = (
            0  # when its machine began to run, on whichever host; means nothing before `started`
        )
        self.guest_since_ns: int | None = None  # set exactly while the guest agent speaks
        self.facts_ns = 0  # from when on the guest's facts are known; means nothing while no agent speaks
        self.qemu_agent_ns = 0  # from when on QEMU's own agent answers; the same
        self.guest_ignores_shutdown = False
        self.hung = False  # a start that is never answered: status stays WaitForLaunch or RestoringState
        self.start_fails = False  # the start that is under way will end in an error
        self.boot_ns = 0  # what is left of the boot when the launch is over
        self.waiters: list[Done] = []  # calls answered by the present step; emptied with it
        self.step: StepName | None = None  # what comes at due_ns, or at Continue
        self.due_ns = 0
        self.remaining_ns = 0  # of the step of a paused domain
        self.timer: Cancel | None = None  # set exactly while a step is due and time runs for it
        self.step_count = 0  # keys the draws of durations
        self.fault_timers: list[Cancel] = []
        self.paused_from: DomainStatus = "up"
        self.pause_code: PauseCode = "NONE"  # other than NONE exactly while Paused
        self.outgoing: Outgoing | None = None  # set exactly while the domain is the source of a migration
        self.incoming: Incoming | None = None  # set exactly until the domain has arrived whole
        self.ran_elsewhere = False  # by post-copy: it must never run here again
        self.identity: GuestIdentity | None = None
        self.run_ns: int | None = None  # since when the vCPUs run; None while they stand
        self.waves_at_run: float | None = None  # the load's wave integral at run_ns, once somebody asked
        self.vcpus_max = max(spec.hardware.vcpus_max, spec.vcpus)
        self.plugged: dict[
            str, tuple[int, int]
        ] = {}  # memory devices by name: bytes and node; beside spec.memory_bytes
        self.balloon_bytes = 0  # what the guest was last asked to keep to; 0: never asked
        self.frozen = False  # its file systems
        self.console_port = 0  # 0 until somebody asked for a ticket
        self.task_count = 0  # keys the draws and timers of tasks
        # That are under way: their timer, whom to answer, and what they do in the end.
        self.tasks: dict[int, tuple[Cancel, Done, Finish]] = {}
        self.reverting = 0  # the number of the revert among them; 0: none
        self.stopped_ns = 0  # when the vCPUs last stopped; means nothing while they run
        self.used_core_ns = 0.0  # CPU time used before run_ns

    def state(self, monitor_responds: bool) -> DomainState:
        hardware = self.spec.hardware
        if hardware.cloud_init is not None:  # no domain tells its seed
            hardware = replace(hardware, cloud_init=None)
        return DomainState(
            vm_id=self.vm_id,
            epoch=self.epoch,
            name=self.spec.name,
            status=self.shown_status(),
            vcpus=self.spec.vcpus,
            memory_bytes=self.memory_bytes,
            pause_code=self.pause_code,
            monitor_responds=monitor_responds,
            started_ns=self.started_ns,
            leased=self.spec.leased,
            hardware=hardware,
        )

    @property
    def memory_bytes(self) -> int:
        """What it was started with and what was plugged since."""
        return self.spec.memory_bytes + sum(size_bytes for size_bytes, _ in self.plugged.values())

    def shown_status(self) -> DomainStatus:
        if self.outgoing is None:
            return self.status
        return "paused" if self.outgoing.post_copy else "migrating_from"

    def cancel_timers(self) -> None:
        for moving in (self.outgoing, self.incoming):
            if moving is not None and moving.timer is not None:
                moving.timer()
                moving.timer = None
        if self.timer is not None:
            self.timer()
            self.timer = None
        for cancel in self.fault_timers:
            cancel()
        for cancel, _, _ in self.tasks.values():
            cancel()
        self.fault_timers.clear()

    def core_ns(self, now_ns: int, profile: LoadProfile) -> tuple[float, float]:
        """Cores busy now, and CPU time used since the start in core-nanoseconds."""
        if self.run_ns is None:
            return 0.0, self.used_core_ns
        if self.waves_at_run is None:
            _, self.waves_at_run = activity(profile, self.run_ns)
        cores, waves = activity(profile, now_ns)
        return cores, self.used_core_ns + profile.mean_cores * (
            now_ns - self.run_ns
        ) + waves - self.waves_at_run

    def start_vcpus(self, now_ns: int) -> None:
        self.run_ns = now_ns
        self.waves_at_run = None

    def stop_vcpus(self, now_ns: int, profile: LoadProfile) -> None:
        """The guest's agent is not heard from here on; its last heartbeat stays."""
        if self.run_ns is not None:
            _, self.used_core_ns = self.core_ns(now_ns, profile)
            self.run_ns = None
            self.stopped_ns = now_ns

    def heard_ns(self, now_ns: int) -> int | None:
        """When the guest agent was last heard: with its facts, then each period while the vCPUs run."""
        until_ns = self.stopped_ns if self.run_ns is None else now_ns
        if self.guest_since_ns is None or until_ns < self.facts_ns:
            return None
        return until_ns - (until_ns - self.guest_since_ns) % HEARTBEAT_PERIOD_NS

"""Settings of a simulated hypervisor: how long things take, how much fits, how often things go wrong.

Every field is a plain scalar, so that settings pass through JSON, a command line or a message unchanged. All
durations are simulated time; how fast that passes is the scheduler's affair.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from hypervisor_backends.protocol import Capabilities
from olvm.model.errors import BadInput

MIB = 1024 * 1024


class SimulatedConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Probabilities are per start of a domain, 0 by default; a pair of `_min` and `_max` is drawn evenly."""

    boot_time_s_min: float = 5.0  # from the accepted start until the guest agent speaks
    boot_time_s_max: float = 20.0  # 0 with boot_time_s_min=0: all of a start happens inside `submit`
    launch_time_s_min: float = (
        0.5  # the first part of the boot, until the start is answered; never exceeds it
    )
    launch_time_s_max: float = 1.5
    # Words of the guest, from `guest_up` or from an arrival on: what it is and how it does, and QEMU's own agent.
    facts_after_s_min: float = 0.2
    facts_after_s_max: float = 5.0
    qemu_agent_after_s_min: float = 5.0
    qemu_agent_after_s_max: float = 15.0
    shutdown_time_s_min: float = 2.0  # also the first half of a reboot
    shutdown_time_s_max: float = 10.0
    booting_guest_ignores_button: bool = (
        True  # a shutdown or reboot that comes before the guest is up is lost
    )
    save_bytes_per_s: float = 500.0 * MIB  # 0: at once
    restore_bytes_per_s: float = 1000.0 * MIB  # 0: at once
    call_timeout_s: float = (
        60.0  # vm_command_timeout: a hung monitor or a timed-out call is answered after this
    )
    # A monitor that hangs holds up the sample of its whole host for so long; then it is left out. 0: of itself alone.
    statistics_stall_s: float = 10.0
    memory_overcommit_percent: int = 100
    memory_overhead_bytes: int = 0  # per domain, beyond the guest's own memory
    cpu_overcommit_percent: int = 0  # 0: as under KVM, nobody counts; 100: each vCPU takes a CPU
    saved_memory_shared: bool = (
        True  # saved memory lies on shared storage: any host may restore what it is told to
    )
    cpu_load_percent_min: float = 2.0  # a guest's long-run mean, of its own vCPUs
    cpu_load_percent_max: float = 50.0
    # Live migration. A host's bandwidth is shared evenly by all its migrations, those that come and those that go.
    migration_bandwidth_bytes_per_s: float = 125_000_000.0  # 1 Gbit/s; 0: a copy takes no time
    # What a guest dirties with all its vCPUs busy, one number per VM; it dirties in proportion to the CPU it uses.
    dirty_bytes_per_s_min: float = 1.0 * MIB
    dirty_bytes_per_s_max: float = 100.0 * MIB
    # How often the watchdog looks for leased machines that came after its deadline: how long they may be there.
    watchdog_poll_s: float = 0.1
    incoming_timeout_s: float = 60.0  # a target that hears nothing for so long gives its domain up
    migration_keepalive_s: float = 5.0  # how often a source that copies asks whether the target is there
    migration_repeat_s: float = 2.0  # how often a message that must be answered is sent again
    migration_silence_s: float = 30.0  # a side that hears nothing for so long holds the other for lost,
    migration_silence_spread_percent: float = 15.0  # or for so much longer, drawn by migration and side
    migration_confirm_timeout_s: float = 30.0  # all was sent: how long a source waits for the target's word
    # A source whose post-copy broke holds the machine's job, as libvirt 9.0 does: see `restart_libvirtd`.
    broken_post_copy_holds: bool = True
    # Tasks: hot-plug, snapshots, storage.
    task_time_s: float = 0.2  # a task that needs nobody's help
    unplug_timeout_s: float = 20.0  # how long a guest that does not let go of a device is waited for
    guest_timeout_s: float = 5.0  # how long a guest that says nothing is waited for
    commit_time_s: float = 5.0  # to write a snapshot back
    storage_bytes: int = 4 * 1024**4  # of all pools of the host together
    files_outside_pools: bool = True  # a disk's path that is in no pool is there; else it is not
    guest_refuses_unplug_probability: float = 0.0  # of each device
    start_fails_probability: float = 0.0
    start_hangs_probability: float = 0.0
    start_times_out_probability: float = 0.0
    guest_ignores_shutdown_probability: float = 0.0
    guest_crashes_probability: float = 0.0
    guest_crash_after_s_max: float = 3600.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if getattr(self, name) < 0:
                raise BadInput(
                    f"simulated hypervisor setting {name} must not be negative, got {getattr(self, name)}"
                )
            if name.endswith("_probability") and getattr(self, name) > 1:
                raise BadInput(
                    f"simulated hypervisor setting {name} is a probability; give a value from 0 to 1"
                )
            if name.endswith("_min") and getattr(self, name) > getattr(self, name[:-4] + "_max"):
                raise BadInput(
                    f"simulated hypervisor setting {name} exceeds {name[:-4]}_max; raise that one too"
                )
        for name in self.__struct_fields__:
            is_bound = name == "incoming_timeout_s" or (name.startswith("migration_") and name.endswith("_s"))
            if is_bound and not name.endswith("_per_s") and getattr(self, name) == 0:
                raise BadInput(f"simulated hypervisor setting {name} must be positive; try its default")
        if self.memory_overcommit_percent == 0:
            raise BadInput(
                "simulated hypervisor setting memory_overcommit_percent must be positive; 100 is none"
            )

    @classmethod
    def instant(cls) -> SimulatedConfig:
        """Nothing takes time: every call is answered, with all its consequences, inside `submit`."""
        return cls(
            boot_time_s_min=0.0,
            boot_time_s_max=0.0,
            launch_time_s_min=0.0,
            launch_time_s_max=0.0,
            facts_after_s_min=0.0,
            facts_after_s_max=0.0,
            qemu_agent_after_s_min=0.0,
            qemu_agent_after_s_max=0.0,
            shutdown_time_s_min=0.0,
            shutdown_time_s_max=0.0,
            save_bytes_per_s=0.0,
            restore_bytes_per_s=0.0,
            migration_bandwidth_bytes_per_s=0.0,
            watchdog_poll_s=0.0,
            task_time_s=0.0,
            unplug_timeout_s=0.0,
            guest_timeout_s=0.0,
            commit_time_s=0.0,
        )


def simulated_config_from(settings: Mapping[str, object]) -> SimulatedConfig:
    """Build a configuration from decoded JSON; an unknown or ill-typed setting raises `BadInput`."""
    try:
        return msgspec.convert(dict(settings), SimulatedConfig)
    except msgspec.ValidationError as error:
        raise BadInput(
            f"simulated hypervisor settings: {error}; see SimulatedConfig for the names"
        ) from error


def simulated_capabilities(*, cpus: int, memory_bytes: int) -> Capabilities:
    """A host that can do everything that the simulation knows."""
    return Capabilities(
        cpus=cpus,
        memory_bytes=memory_bytes,
        cpu_model="Simulated",
        hypervisor="simulated",
        hypervisor_version="1",
        features=(
            "graceful_shutdown",
            "reboot",
            "reset",
            "suspend",
            "pause",
            "guest_facts",
            "migration",
            "post_copy",
            "watchdog",
            "hot_plug_vcpu",
            "hot_unplug_vcpu",
            "hot_plug_memory",
            "hot_unplug_memory",
            "hot_plug_disk",
            "hot_plug_nic",
            "balloon",
            "cpu_quota",
            "snapshot",
            "memory_snapshot",
            "revert_snapshot",
            "console_ticket",
            "storage",
            "networks",
            "guest_channel",
            "guest_agent",
        ),
    )

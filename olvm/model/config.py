"""The one typed configuration: every period, deadline and retry of the control plane.

Defaults are oVirt's where oVirt has one; the option's name there stands in the comment (engine options from
`0000_config.sql`, agent options from `vdsm.conf`). A data center stores its configuration in `config.json` beside
its journals when it is created and reads it back when it is opened again.
"""

from __future__ import annotations

from typing import Any

import msgspec

from olvm.model.errors import BadInput


class Config(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """All durations are seconds."""

    heartbeat_period_s: float = 3.0  # VdsRefreshRate
    report_period_s: float = 15.0  # vm_sample_interval; NumberVmRefreshesBeforeSave x VdsRefreshRate
    sample_period_s: float = 15.0  # vm_sample_interval: host and VM statistics
    # Of single cores, which are many. A sample holds for 180 s at most; a period of years: never.
    core_sample_period_s: float = 150.0
    # Rows that a host's agent keeps while history is away. A host with 50 machines of two disks and one interface has
    # about 200 rows a sampling, so this is an hour of it, in about 8 MB.
    samples_buffered_rows_max: int = 50_000
    host_grace_s: float = 60.0  # TimeoutToResetVdsInSeconds
    host_grace_per_vm_s: float = 0.5  # DelayResetPerVmInSeconds
    host_connecting_after_s: float = 10.0  # three missed heartbeats and a little
    host_init_timeout_s: float = 60.0  # WaitForVdsInitInSec
    failed_starts_max: int = 3  # NumberOfFailedRunsOnVds
    failed_starts_expire_s: float = 1800.0  # TimeToReduceFailedRunOnVdsInMinutes = 30
    rerun_count_max: int = 3  # MaxRerunVmOnVdsCount
    launch_timeout_s: float = 180.0  # vdsTimeout: the agent must have answered a create
    boot_timeout_s: float = 600.0  # a machine that never reports Up fails its start
    shutdown_timeout_s: float = 120.0  # sys_shutdown_timeout
    stop_timeout_s: float = 180.0  # vdsTimeout
    reboot_timeout_s: float = 300.0
    save_timeout_s: float = 600.0
    query_period_s: float = 10.0  # a machine of unknown state is asked after this often
    # Live migration
    migrations_incoming_max: int = 2  # max_incoming_migrations, of one host
    migrations_outgoing_max: int = 2  # max_outgoing_migrations
    migration_bandwidth_mib_s: float = 52.0  # migration_max_bandwidth, of one migration
    migration_prepare_timeout_s: float = 60.0
    migration_timeout_s: float = 21_600.0  # migration_destination_timeout
    migration_retry_s: float = 10.0  # migration_retry_timeout: no slot was free
    migration_monitor_period_s: float = 10.0
    # Hosts
    host_recovery_timeout_s: float = 180.0  # VdsRecoveryTimeoutInMinutes: an agent that stays "recovering"
    auto_recovery_period_s: float = 300.0  # AutoRecoverySchedule: non-operational hosts
    maintenance_timeout_s: float = 1800.0
    # Fencing
    fence_quiet_at_start_s: float = 300.0  # DisableFenceAtStartupInSec
    soft_fence_timeout_s: float = 60.0
    kdump_started_timeout_s: float = 30.0  # KdumpStartedTimeout
    kdump_silence_s: float = 90.0  # FenceKdumpListenerTimeout: no message for this long ends the dump
    fence_poll_period_s: float = 10.0
    fence_poll_count_max: int = 18
    fence_retry_s: float = 30.0  # another proxy or device, and a connectivity that is broken
    fence_proxy_retry_count_max: int = 3
    fence_quiet_between_s: float = 180.0  # FenceQuietTimeBetweenOperationsInSec, between manual ones
    host_reboot_timeout_s: float = 600.0  # ServerRebootTimeout
    # Leases: see docs/leases.md for the bound
    lease_renew_period_s: float = 6.0  # each second heartbeat: both are done in one batch
    lease_expiry_s: float = (
        30.0  # the host's watchdog stops its leased machines this long after a renewal began
    )
    lease_takeover_after_s: float = 15.0  # silence after which leased machines are tried elsewhere
    clock_drift_percent_max: float = 1.0  # declared: how much a host's clock may run fast or slow
    # High availability
    ha_priority_block_s: float = 600.0  # MaxTimeAutoStartBlockedOnPriority
    io_error_resume_period_s: float = 10.0
    io_error_kill_after_s: float = 80.0  # 8 x sanlock io_timeout
    ha_reservation_period_s: float = 300.0
    # Balancing and affinity
    balance_period_s: float = 60.0  # VdsLoadBalancingIntervalInMinutes
    balance_moves_max: int = 8  # of one cluster in one period; slots bound it too
    balance_rest_s: float = 300.0  # a machine that was moved by itself stays this long
    affinity_period_s: float = 60.0
    cluster_power_timeout_s: float = 1800.0
    events_pull_period_s: float = 1.0
    history_flush_period_s: float = 2.0
    vm_silos: int = 0  # 0: machines live in the engine's silo
    host_silos: int = 2  # simulated hosts share this many silos
    simulated: dict[str, Any] = {}  # hypervisor_backends.simulated.SimulatedConfig

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if name.endswith("_s") and not (isinstance(value, float | int) and value > 0):
                raise BadInput(f"configuration {name} must be a positive number of seconds, got {value!r}")
        if self.vm_silos < 0 or self.host_silos < 1:
            raise BadInput("configuration needs vm_silos >= 0 and host_silos >= 1")
        if min(self.migrations_incoming_max, self.migrations_outgoing_max, self.balance_moves_max) < 1:
            raise BadInput("configuration needs migrations_*_max and balance_moves_max of at least 1")
        if not 0 <= self.clock_drift_percent_max < 50 or self.migration_bandwidth_mib_s <= 0:
            raise BadInput(
                "configuration needs 0 <= clock_drift_percent_max < 50 and some migration bandwidth"
            )
        if self.lease_renew_period_s * 2 > self.lease_expiry_s:
            raise BadInput("configuration lease_expiry_s must be at least twice lease_renew_period_s")
        if self.samples_buffered_rows_max < 1:
            raise BadInput("configuration samples_buffered_rows_max must be at least 1 row")
        if self.rerun_count_max < 1 or self.failed_starts_max < 1:
            raise BadInput("configuration rerun_count_max and failed_starts_max must be at least 1")


def config_from(settings: dict[str, Any]) -> Config:
    """Build a configuration from keyword settings; an unknown or ill-typed one raises `BadInput`."""
    try:
        return msgspec.convert(settings, Config)
    except msgspec.ValidationError as error:
        raise BadInput(f"configuration: {error}; see olvm.model.config for the names") from error

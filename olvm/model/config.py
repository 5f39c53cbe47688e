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
        if self.rerun_count_max < 1 or self.failed_starts_max < 1:
            raise BadInput("configuration rerun_count_max and failed_starts_max must be at least 1")


def config_from(settings: dict[str, Any]) -> Config:
    """Build a configuration from keyword settings; an unknown or ill-typed one raises `BadInput`."""
    try:
        return msgspec.convert(settings, Config)
    except msgspec.ValidationError as error:
        raise BadInput(f"configuration: {error}; see olvm.model.config for the names") from error

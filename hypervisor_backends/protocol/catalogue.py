"""Everything that may be asked of a hypervisor, and which of it a backend may lack.

Decides what belongs to the port: a request that is not in the union does not exist. Must not know what a request says;
each kind stands in a module of its own.
"""

from __future__ import annotations

from typing import TypeAlias

from hypervisor_backends.protocol.domain_tasks import (
    AttachDisk,
    AttachNic,
    CallGuest,
    ChangeMedium,
    CommitSnapshot,
    CreateSnapshot,
    DetachDisk,
    DetachNic,
    DomainTask,
    FreezeGuest,
    ListSnapshots,
    PlugMemory,
    RevertSnapshot,
    SetBalloon,
    SetConsoleTicket,
    SetCpuQuota,
    SetNicLink,
    SetVcpus,
    ThawGuest,
    UnplugMemory,
)
from hypervisor_backends.protocol.host import (
    ArmWatchdog,
    BulkStatistics,
    Feature,
    GetCapabilities,
    ListDomains,
)
from hypervisor_backends.protocol.host_tasks import (
    CloneVolume,
    CreateNetwork,
    CreatePool,
    CreateVolume,
    DeleteNetwork,
    DeletePool,
    DeleteVolume,
    HostTask,
    ListNetworks,
    ListPools,
    ListVolumes,
    ResizeVolume,
)
from hypervisor_backends.protocol.life import (
    ContinueDomain,
    DestroyDomain,
    PauseDomain,
    RebootDomain,
    ResetDomain,
    RestoreDomain,
    ShutdownDomain,
    StartDomain,
    SuspendDomain,
)
from hypervisor_backends.protocol.migration import (
    CancelMigration,
    ChangeMigration,
    GetMigrationStatistics,
    MigrateDomain,
    PrepareIncoming,
    StartPostCopy,
)
from hypervisor_backends.protocol.request import (
    Request,
)

HypervisorRequest: TypeAlias = (
    StartDomain
    | RestoreDomain
    | ShutdownDomain
    | DestroyDomain
    | RebootDomain
    | ResetDomain
    | SuspendDomain
    | PauseDomain
    | ContinueDomain
    | PrepareIncoming
    | MigrateDomain
    | ChangeMigration
    | StartPostCopy
    | CancelMigration
    | GetMigrationStatistics
    | ArmWatchdog
    | ListDomains
    | GetCapabilities
    | BulkStatistics
    | DomainTask
    | HostTask
)

# A request that is not named here must work on every backend.
FEATURE_BY_REQUEST: dict[type[Request], Feature] = {
    ShutdownDomain: "graceful_shutdown",
    RebootDomain: "reboot",
    ResetDomain: "reset",
    SuspendDomain: "suspend",
    RestoreDomain: "suspend",
    PauseDomain: "pause",
    ContinueDomain: "pause",
    PrepareIncoming: "migration",
    MigrateDomain: "migration",
    ChangeMigration: "migration",
    CancelMigration: "migration",
    GetMigrationStatistics: "migration",
    StartPostCopy: "post_copy",
    ArmWatchdog: "watchdog",
    SetVcpus: "hot_plug_vcpu",
    SetBalloon: "balloon",
    PlugMemory: "hot_plug_memory",
    UnplugMemory: "hot_unplug_memory",
    AttachDisk: "hot_plug_disk",
    DetachDisk: "hot_plug_disk",
    ChangeMedium: "hot_plug_disk",
    AttachNic: "hot_plug_nic",
    DetachNic: "hot_plug_nic",
    SetNicLink: "hot_plug_nic",
    SetCpuQuota: "cpu_quota",
    CreateSnapshot: "snapshot",
    CommitSnapshot: "snapshot",
    RevertSnapshot: "revert_snapshot",
    ListSnapshots: "snapshot",
    SetConsoleTicket: "console_ticket",
    CallGuest: "guest_channel",
    FreezeGuest: "guest_agent",
    ThawGuest: "guest_agent",
    CreatePool: "storage",
    DeletePool: "storage",
    ListPools: "storage",
    CreateVolume: "storage",
    CloneVolume: "storage",
    ResizeVolume: "storage",
    DeleteVolume: "storage",
    ListVolumes: "storage",
    CreateNetwork: "networks",
    DeleteNetwork: "networks",
    ListNetworks: "networks",
}

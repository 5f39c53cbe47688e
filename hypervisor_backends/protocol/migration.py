"""Live migration as two hypervisors see it: the requests to either side, and how far one has come.

Decides what each side promises, and who may run the vCPUs when an answer is missing. Must not know who chose the
hosts, or the schedule by which a migration is hastened: that is `actors/convergence.py`.
"""

from __future__ import annotations

import msgspec

from hypervisor_backends.protocol.domains import DomainSpec
from hypervisor_backends.protocol.request import DomainRequest


class PrepareIncoming(DomainRequest, frozen=True, kw_only=True):
    """Make room for a machine that will arrive by live migration; answered with `IncomingAddress`.

    The domain is there as `migrating_to`, with an epoch of its own. It ends by itself (`stopped`, no `started` before)
    when its source gives up (MIGRATION_FAILED), or when none has begun within the backend's time (ARRIVAL_GIVEN_UP).
    The first is for ever. After the second, and after a `DestroyDomain`, a machine whose source had begun just then
    may still arrive and run, as under libvirt; then `started` is told of it.
    """

    epoch: int
    spec: DomainSpec


class IncomingAddress(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=True):
    uri: str


class MigrateDomain(DomainRequest, frozen=True, kw_only=True):
    """Send a running or paused domain to the address that a `PrepareIncoming` gave. Answered when it is over:

    * `CallSucceeded`: handed over. The source life ends with `stopped`, MIGRATION_SUCCEEDED; on the target a new
      life (vm_id, `to_epoch`) begins with `started`, and `guest_up` if the guest's agent was heard at the source.
      The value, if there is one, is a last `MigrationStatistics`: 100 %, with `expected_downtime_ms` as measured.
    * `CallFailed("migration_failed" or "migration_cancelled")`: the domain goes on at the source as before.
    * `CallFailed(outcome_known=False)`: all was sent and the target did not confirm. The source is `paused` with
      POSTMIGRATE until `ContinueDomain` (only if the target surely never ran) or `DestroyDomain`. After post-copy
      the target surely ran, and `ContinueDomain` is refused.

    A paused domain arrives paused, with its pause code. From the switch-over on, all but `DestroyDomain` is refused.

    At no instant do the vCPUs of both copies run.
    """

    epoch: int
    to_uri: str
    to_epoch: int
    bandwidth_bytes_per_s: float  # at most; 0: as much as there is
    downtime_ms: int
    auto_converge: bool = True
    post_copy: bool = False  # may be switched to post-copy later, by StartPostCopy
    copy_storage: bool = False  # its disks are not shared: copy them too
    managed: bool = False  # not from host to host by themselves (peer to peer) but driven from here


class ChangeMigration(DomainRequest, frozen=True, kw_only=True):
    """Allow another downtime to the migration under way."""

    downtime_ms: int


class StartPostCopy(DomainRequest, frozen=True, kw_only=True):
    """Let the target run now and fetch memory from the source on demand.

    The source is `paused` with POSTCOPY. There is no way back: a failure loses the machine on both sides
    (POSTCOPY_MIGRATION_FAILED).
    """


class CancelMigration(DomainRequest, frozen=True, kw_only=True):
    """Give the migration up. `wrong_state` when there is none, or when it is past the switch-over or post-copy."""


class GetMigrationStatistics(DomainRequest, frozen=True, kw_only=True):
    """Answered with `MigrationStatistics`; `wrong_state` when no migration is under way."""


class MigrationStatistics(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=True):
    """As QEMU tells it; `expected_downtime_ms` at the present dirty rate and bandwidth."""

    progress_percent: int
    data_total_bytes: int
    data_processed_bytes: int
    data_remaining_bytes: int
    memory_iteration: int
    dirty_bytes_per_s: float
    bandwidth_bytes_per_s: float
    downtime_ms: int  # allowed
    expected_downtime_ms: int
    post_copy: bool = False

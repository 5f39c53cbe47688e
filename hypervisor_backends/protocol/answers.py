"""How a call to a hypervisor ends: with a value, or with a failure that says whether it may have worked.

Decides the closed list of reasons for which a hypervisor refuses. Must not know who asked; what was asked matters only
by the kind of its value.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from hypervisor_backends.protocol.domain_tasks import ConsoleAddress, GuestAnswer, SnapshotList
from hypervisor_backends.protocol.domains import DomainList
from hypervisor_backends.protocol.host import Capabilities, StatisticsReport
from hypervisor_backends.protocol.host_tasks import NetworkList, PoolList, VolumeList
from hypervisor_backends.protocol.migration import IncomingAddress, MigrationStatistics

FailureCode = Literal[
    "unknown_domain",  # no such domain on this host
    "duplicate_domain",  # the vm_id with another epoch, or the name, exists here
    "wrong_state",  # refused in the domain's present state
    "out_of_memory",
    "out_of_cpus",
    "no_saved_memory",  # nothing to restore from
    "start_failed",
    "call_failed",  # the hypervisor reported an error of its own
    "domain_ended",  # the domain ended while the call was under way
    "timed_out",  # no answer within the call's time; the outcome is not known
    "monitor_hung",  # this domain's monitor does not answer; the outcome is not known
    "not_supported",  # missing from Capabilities.features
    "host_down",
    "closed",  # the backend was closed
    "migration_failed",  # the domain goes on at the source
    "migration_cancelled",  # as asked; the domain goes on at the source
    "lease_expired",  # the host's watchdog is not armed
    "lease_held",  # the host's lock manager says that another host has the domain's lease
    "bad_request",  # can never succeed as it stands: the message says why
    "not_found",  # no such disk, card, snapshot, pool, volume or network
    "exists",  # the name is taken by something else
    "in_use",
    "no_space",
    "guest_refused",  # the guest would not do its part
    "guest_silent",  # the guest's agent does not answer
]


class CallSucceeded(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=True):
    value: (
        Capabilities
        | DomainList
        | StatisticsReport
        | IncomingAddress
        | MigrationStatistics
        | SnapshotList
        | ConsoleAddress
        | GuestAnswer
        | PoolList
        | VolumeList
        | NetworkList
        | None
    ) = None


class CallFailed(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=True):
    """`can_retry`: the call may succeed later on this host. Without `outcome_known`, it may have worked."""

    code: FailureCode
    message: str
    can_retry: bool = False
    outcome_known: bool = True


CallResult: TypeAlias = CallSucceeded | CallFailed

"""Placement: which host a VM goes to, for the live cluster and for experiments. Pure: no I/O, no clock."""

from olvm.scheduling.batch import BatchPlacement, place_batch
from olvm.scheduling.host_table import HostTable
from olvm.scheduling.policy import POLICY_BY_NAME, Policy, composed, policy_named
from olvm.scheduling.request import VmRequest, memory_need_bytes
from olvm.scheduling.rows import HostRow, Reservation
from olvm.scheduling.scheduler import Explanation, HostVerdict, NoPlacement, Placement, explain, place
from olvm.scheduling.user_policies import (
    LoadedPolicy,
    UserHost,
    UserHosts,
    UserPolicy,
    UserVm,
    load_user_policy,
)

__all__ = [
    "POLICY_BY_NAME",
    "BatchPlacement",
    "Explanation",
    "HostRow",
    "HostTable",
    "HostVerdict",
    "LoadedPolicy",
    "NoPlacement",
    "Placement",
    "Policy",
    "Reservation",
    "UserHost",
    "UserHosts",
    "UserPolicy",
    "UserVm",
    "VmRequest",
    "composed",
    "explain",
    "load_user_policy",
    "memory_need_bytes",
    "place",
    "place_batch",
    "policy_named",
]

"""Placement: which host a VM goes to, for the live cluster and for experiments. Pure: no I/O, no clock."""

from olvm.scheduling.host_table import HostRow, HostTable, Reservation
from olvm.scheduling.policy import POLICY_BY_NAME, Policy, policy_named
from olvm.scheduling.request import VmRequest, memory_need_bytes
from olvm.scheduling.scheduler import Explanation, HostVerdict, NoPlacement, Placement, explain, place

__all__ = [
    "POLICY_BY_NAME",
    "Explanation",
    "HostRow",
    "HostTable",
    "HostVerdict",
    "NoPlacement",
    "Placement",
    "Policy",
    "Reservation",
    "VmRequest",
    "explain",
    "memory_need_bytes",
    "place",
    "policy_named",
]

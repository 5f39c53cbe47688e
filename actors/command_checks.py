"""Which values a command may carry, whatever the state of what it is about: ranges, known words, what excludes what.

Each check raises `BadInput`, which names the field, the bound and the value given, and changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from actors.task_requests import domain_request, host_request
from hypervisor_backends.fence_names import check_names
from olvm.model import messages as m
from olvm.model.errors import BadInput
from olvm.model.host_tasks import host_task_timeout_s
from olvm.model.limits import (
    AFFINITY_MEMBERS_MAX,
    FENCE_DEVICES_MAX,
    HOST_CPUS_MAX,
    HOST_MEMORY_BYTES_MAX,
    VCPUS_MAX,
    VM_MEMORY_BYTES_MAX,
    VM_MEMORY_BYTES_MIN,
)
from olvm.model.migration_policies import migration_policy_named
from olvm.model.names import check_name
from olvm.model.policy_definition import PolicyDefinition
from olvm.model.sizes import format_size
from olvm.model.vm_tasks import vm_task as vm_task_rule
from olvm.scheduling.policy import policy_named
from olvm.scheduling.user_policies import load_user_policy

TIMEOUT_S_MAX = 86_400.0
BACKENDS = ("simulated", "libvirt")
PRIORITY_MAX = 100
BANDWIDTH_MIB_S_MAX = 1_000_000.0
AFFINITY_PRIORITY_MAX = 1_000.0
# The types of fence devices, by the backend of the host that they switch.
FENCE_TYPES_BY_BACKEND = {"simulated": ("simulated",)}
# Those of real hosts are the distribution's fence agents, with their prefix or without; which there are is known on
# the hosts that will use them. Where the engine's machine has one, the gateway has asked it what it takes.
FENCE_AGENT = re.compile(r"(fence_)?[a-z0-9][a-z0-9_]{1,40}")


def timeout(what: str, timeout_s: float | None) -> None:
    """`what` begins the sentence. A NaN is refused too."""
    if timeout_s is not None and not 0 < timeout_s <= TIMEOUT_S_MAX:
        raise BadInput(f"{what}: timeout must be above 0 and at most {TIMEOUT_S_MAX:g} s, got {timeout_s:g}")


# ---------------------------------------------------------------- clusters


def cluster_settings(command: m.CreateCluster | m.UpdateCluster) -> None:
    """Of a new cluster, or those of an existing one that are given."""
    if command.policy is not None:
        _policy(command.policy, command.policy_parameters or {}, command.policy_definition)
    if command.migration_policy is not None:
        migration_policy_named(command.migration_policy)
    memory_percent, cpu_percent = command.memory_overcommit_percent, command.cpu_overcommit_percent
    if memory_percent is not None and not 100 <= memory_percent <= 1000:
        raise BadInput(f"memory overcommit must be 100 to 1000 percent, got {memory_percent}")
    if cpu_percent is not None and not 0 <= cpu_percent <= 10_000:
        raise BadInput(f"cpu overcommit must be 0 (no limit) to 10000 percent, got {cpu_percent}")
    bandwidth_mib_s = command.migration_bandwidth_mib_s
    if bandwidth_mib_s is not None and not 0 <= bandwidth_mib_s <= BANDWIDTH_MIB_S_MAX:
        raise BadInput(
            f"migration bandwidth must be 0 (the configuration's) to {BANDWIDTH_MIB_S_MAX:g} MiB/s, "
            f"got {bandwidth_mib_s:g}"
        )
    threshold_percent = command.fencing_connectivity_threshold_percent
    if threshold_percent is not None and not 1 <= threshold_percent <= 100:
        raise BadInput(
            f"fencing connectivity threshold must be 1 to 100 percent of the hosts, got {threshold_percent}; "
            "to fence however many are silent, turn the check itself off"
        )


def _policy(name: str, parameters: Mapping[str, float], definition: PolicyDefinition | None) -> None:
    """A class of the user's is made once, here, so that whoever names it hears what is wrong with it."""
    if isinstance(definition, PolicyDefinition) and definition.name != name:
        raise BadInput(
            f"the policy {definition.name} is defined, and {name} is asked for: give both one name"
        )
    python = policy_named(name, parameters, definition).python
    if python:
        load_user_policy(python)


def affinity_group(command: m.SetAffinityGroup) -> None:
    check_name("affinity group", command.name)
    what = f"affinity group {command.name}"
    if not 0 < command.priority <= AFFINITY_PRIORITY_MAX:
        raise BadInput(
            f"{what}: priority must be above 0 and at most {AFFINITY_PRIORITY_MAX:g}, got {command.priority:g}"
        )
    for kind, names in (("vm", command.vms), ("host", command.hosts)):
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise BadInput(f"{what}: {kind} {twice[0]} is named twice; name each member once")
        if len(names) > AFFINITY_MEMBERS_MAX:
            raise BadInput(f"{what}: it names {len(names)} {kind}s; at most {AFFINITY_MEMBERS_MAX} fit")
    if command.vms_rule == "disabled" and command.hosts_rule == "disabled":
        raise BadInput(
            f"{what}: both rules are disabled, so it would do nothing; make vms_rule or hosts_rule positive "
            "or negative, or remove the group"
        )
    if command.hosts_rule != "disabled" and not command.hosts:
        raise BadInput(f"{what}: hosts_rule is {command.hosts_rule} but no host is named; name some")


# ---------------------------------------------------------------- hosts


def new_host(command: m.AddHost) -> None:
    what = f"host {command.name}"
    if command.backend not in BACKENDS:
        raise BadInput(f"{what}: backend {command.backend} is not known; use {' or '.join(BACKENDS)}")
    if command.backend == "simulated":
        _simulated_size(what, command)
    elif command.cpus or command.memory_bytes:
        raise BadInput(f"{what}: its CPUs and memory are what libvirt says they are; leave them out")
    if not command.silo:
        raise BadInput(f"{what}: no host silo was named for its agent")
    if len(command.fence_devices) > FENCE_DEVICES_MAX:
        raise BadInput(
            f"{what}: it has {len(command.fence_devices)} fence devices; at most {FENCE_DEVICES_MAX}"
        )
    for device in command.fence_devices:
        _fence_device(what, command.backend, device)


def _simulated_size(what: str, command: m.AddHost) -> None:
    if not 1 <= command.cpus <= HOST_CPUS_MAX:
        raise BadInput(f"{what}: cpus must be 1 to {HOST_CPUS_MAX}, got {command.cpus}")
    if not VM_MEMORY_BYTES_MIN <= command.memory_bytes <= HOST_MEMORY_BYTES_MAX:
        raise BadInput(f"{what}: memory of {command.memory_bytes} bytes is out of range")


def _fence_device(what: str, backend: str, device: Mapping[str, str | int | float | bool]) -> None:
    """A device that could never work must not be found out on the day that a host hangs."""
    known = FENCE_TYPES_BY_BACKEND.get(backend, ())
    kind = device.get("type")
    if backend == "libvirt":
        if not isinstance(kind, str) or not FENCE_AGENT.fullmatch(kind):
            raise BadInput(
                f"{what}: fence device type {kind!r} is not the name of a fence agent, as in fence_ipmilan"
            )
        _fence_names(what, device)
        return
    if kind not in known:
        raise BadInput(
            f"{what}: fence device type {kind!r} is not known for backend {backend}; "
            f"each device needs a type of: {', '.join(known) or 'none yet'}"
        )


def _fence_names(what: str, device: Mapping[str, str | int | float | bool]) -> None:
    try:
        check_names(device)
    except BadInput as error:
        raise BadInput(f"{what}: {error.message}") from error


def host_task(command: m.HostTask) -> None:
    timeout(f"{command.verb} of host {command.host}", command.timeout_s)
    host_task_timeout_s(command.verb)
    host_request(command.verb, command.arguments)


def host_command(command: m.HostCommand) -> None:
    if command.timeout_s is not None and command.action != "maintenance":
        raise BadInput(
            f"{command.action} of host {command.host}: only maintenance takes a timeout; leave it out"
        )
    timeout(f"{command.action} of host {command.host}", command.timeout_s)


# ---------------------------------------------------------------- machines


def new_vm(command: m.CreateVm) -> None:
    what = f"vm {command.name}"
    _vm_size(command.vcpus, command.memory_bytes)
    _priority(what, command.priority)
    leased = command.high_availability if command.lease is None else command.lease
    if leased and command.resume_behavior:
        _resume_of_leased(what, command.resume_behavior)
    if command.migration_policy:
        migration_policy_named(command.migration_policy)


def vm_change(name: str, command: m.UpdateVm) -> None:
    """What the command alone shows to be wrong; whether the change fits the machine, its actor says."""
    what = f"vm {name}"
    _vm_size(command.vcpus, command.memory_bytes)
    if command.priority is not None:
        _priority(what, command.priority)
    if command.lease and command.resume_behavior is not None:
        _resume_of_leased(what, command.resume_behavior)
    if command.migration_policy:
        migration_policy_named(command.migration_policy)


def vm_task(name: str, command: m.VmTask) -> None:
    """Everything that the command alone shows to be wrong; the request is made once to see that it can be."""
    timeout(f"{command.verb} of {name}", command.timeout_s)
    vm_task_rule(command.verb)
    domain_request("vm", command.verb, command.arguments)


def _vm_size(vcpus: int | None, memory_bytes: int | None) -> None:
    if vcpus is not None and not 1 <= vcpus <= VCPUS_MAX:
        raise BadInput(f"vcpus must be 1 to {VCPUS_MAX}, got {vcpus}")
    if memory_bytes is not None and not VM_MEMORY_BYTES_MIN <= memory_bytes <= VM_MEMORY_BYTES_MAX:
        raise BadInput(
            f"memory must be {format_size(VM_MEMORY_BYTES_MIN)} to {format_size(VM_MEMORY_BYTES_MAX)}, "
            f"got {memory_bytes} bytes"
        )


def _priority(what: str, priority: int) -> None:
    if not 1 <= priority <= PRIORITY_MAX:
        raise BadInput(f"{what}: priority must be 1 to {PRIORITY_MAX}, got {priority}")


def _resume_of_leased(what: str, resume_behavior: str) -> None:
    if resume_behavior != "kill":
        raise BadInput(
            f"{what}: resume behavior {resume_behavior} does not go with a lease: while it is paused by an I/O "
            "error another host may take its lease and run it, so it must be ended and not resumed; use kill, or "
            "give up the lease"
        )

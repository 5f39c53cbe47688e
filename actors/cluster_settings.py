"""What a person may set of a cluster: checked whole, then applied whole. Pure: it knows the record alone."""

from __future__ import annotations

import math

import msgspec

from olvm.model import messages as m
from olvm.model.errors import BadInput
from olvm.model.migration_policies import migration_policy_named
from olvm.model.records import ClusterRecord
from olvm.scheduling.policy import Policy, policy_named

# Settings that a command may leave as they are and the record calls by the same name.
_PLAIN = (
    "memory_overcommit_percent",
    "cpu_overcommit_percent",
    "migration_policy",
    "migration_bandwidth_mib_s",
    "fencing",
    "fencing_skip_if_lease_live",
    "fencing_skip_if_connectivity_broken",
    "fencing_connectivity_threshold_percent",
    "ha_reservation",
)


def apply_creation(record: ClusterRecord, command: m.CreateCluster) -> None:
    """Raises BadInput for what is out of range; then nothing has changed."""
    values = {name: getattr(command, name) for name in _PLAIN}
    _check(record.name, values)
    policy_named(command.policy, command.policy_parameters, command.policy_definition)
    record.policy, record.policy_parameters = command.policy, command.policy_parameters
    record.policy_definition = command.policy_definition
    for name, value in values.items():
        setattr(record, name, value)


def apply_changes(record: ClusterRecord, command: m.UpdateCluster) -> Policy:
    """The policy that the cluster has afterwards. Raises BadInput; then nothing has changed.

    Another policy without parameters starts with its defaults.
    """
    name = record.policy if command.policy is None else command.policy
    if command.policy_parameters is not None:
        parameters = command.policy_parameters
    else:
        parameters = record.policy_parameters if name == record.policy else {}
    definition = command.policy_definition
    if definition is None and name == record.policy:
        definition = record.policy_definition
    policy = policy_named(name, parameters, definition)
    values = {name: value for name in _PLAIN if (value := getattr(command, name)) is not None}
    _check(record.name, values)
    record.policy, record.policy_parameters, record.policy_definition = name, parameters, definition
    for field, value in values.items():
        setattr(record, field, value)
    if not record.ha_reservation:
        record.ha_reservation_broken = False
    return policy


def _check(cluster: str, values: dict[str, object]) -> None:
    policy = values.get("migration_policy")
    if policy is not None:
        migration_policy_named(str(policy))
    bandwidth = values.get("migration_bandwidth_mib_s")
    if isinstance(bandwidth, int | float) and not 0 <= bandwidth < math.inf:
        raise BadInput(
            f"cluster {cluster}: migration bandwidth must be 0 (the configuration's) or more MiB/s, "
            f"got {bandwidth}"
        )
    threshold = values.get("fencing_connectivity_threshold_percent")
    if isinstance(threshold, int) and not 1 <= threshold <= 100:
        raise BadInput(
            f"cluster {cluster}: the fencing connectivity threshold must be 1 to 100 percent, got {threshold}"
        )


def configuration_of(record: ClusterRecord) -> dict[str, str | int | float | bool | None]:
    """For history: every setting as it stands."""
    fields = msgspec.structs.asdict(record)
    return {"kind": "cluster", "policy": record.policy} | {name: fields[name] for name in _PLAIN}

"""Policies as data: which filters, which weights with which factors, which parameters.

Rule: every policy runs the filters of `REQUIRED_FILTERS`. What a host can hold is not a matter of policy; a policy
only chooses among the hosts that can.

The factors and defaults are oVirt's (InternalClusterPolicies). Balancers run in `balancing`: a policy names
its balancer and holds that balancer's parameters (CpuOverCommitDurationMinutes, LowUtilization,
HighVmCount, MigrationThreshold; HighUtilization for all but power_saving, whose CPU weight reads it too).
HeSparesCount waits for the hosted-engine filter, SpmVmGrace for hosts that can be storage pool manager.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import msgspec

from olvm.model.errors import BadInput

# Imported for what they register.
from olvm.scheduling import affinity_units as _affinity_units  # noqa: F401
from olvm.scheduling import filters as _filters  # noqa: F401
from olvm.scheduling import weights as _weights  # noqa: F401
from olvm.scheduling.units import (
    CPU_OVERCOMMIT_DURATION,
    FILTER_BY_NAME,
    HE_SPARES_COUNT,
    HIGH_UTILIZATION,
    HIGH_VM_COUNT,
    LOW_UTILIZATION,
    MAX_FREE_MEMORY_FOR_OVER_UTILIZED,
    MIGRATION_THRESHOLD,
    MIN_FREE_MEMORY_FOR_UNDER_UTILIZED,
    SPM_VM_GRACE,
    VCPU_TO_PHYSICAL_CPU_RATIO,
    WEIGHT_BY_NAME,
    Filter,
    Parameter,
    Weight,
)

REQUIRED_FILTERS = ("PinToHost", "Migration", "CPU-Level", "VM leases ready", "CPU", "Memory")
DEFAULT_FILTERS = (*REQUIRED_FILTERS, "VmAffinityGroups", "VmToHostsAffinityGroups")


def _check_known(
    policy: str, kind: str, names: list[str] | tuple[str, ...], known: Mapping[str, object]
) -> None:
    for name in names:
        if name not in known:
            raise BadInput(f"policy {policy} names the {kind} {name}: choose from {', '.join(sorted(known))}")


class Policy(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True):
    """One policy, parameters filled in. `filters` run in this order; pairs stand for ordered mappings."""

    name: str
    filters: tuple[str, ...] = DEFAULT_FILTERS
    weights: tuple[tuple[str, int], ...] = ()
    balancer: str = "None"
    parameters: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        _check_known(self.name, "filter", self.filters, FILTER_BY_NAME)
        _check_known(self.name, "weight", [name for name, _ in self.weights], WEIGHT_BY_NAME)
        missing = [name for name in REQUIRED_FILTERS if name not in self.filters]
        if missing:
            raise BadInput(
                f"policy {self.name} lacks the filters {', '.join(missing)}: every policy needs them"
            )
        if any(factor <= 0 for _, factor in self.weights):
            raise BadInput(
                f"policy {self.name} has a weight with a factor of 0 or less: leave that weight out"
            )


class Units(NamedTuple):
    """A policy's units, made with its parameters; `weights` and `factors` are parallel."""

    filters: tuple[tuple[str, Filter], ...]
    weights: tuple[tuple[str, Weight], ...]
    factors: tuple[int, ...]


@lru_cache(maxsize=256)
def units_of(policy: Policy) -> Units:
    """The units that `policy` names. Cost: one dictionary lookup after the first call."""
    parameters = dict(policy.parameters)
    return Units(
        filters=tuple((name, FILTER_BY_NAME[name].make(parameters)) for name in policy.filters),
        weights=tuple((name, WEIGHT_BY_NAME[name].make(parameters)) for name, _ in policy.weights),
        factors=tuple(factor for _, factor in policy.weights),
    )


_AFFINITY = (("VmAffinityGroups", 1), ("VmToHostsAffinityGroups", 20))
_EVEN = (("OptimalForCpuEvenDistribution", 2), ("OptimalForMemoryEvenDistribution", 1), *_AFFINITY)
_POWER = (("OptimalForCpuPowerSaving", 2), ("OptimalForMemoryPowerSaving", 1), *_AFFINITY)
_CPU_DEFAULTS = ((CPU_OVERCOMMIT_DURATION.name, 2), (HIGH_UTILIZATION.name, 80))

BUILT_IN_POLICIES: tuple[Policy, ...] = (
    Policy(name="none", weights=_EVEN, parameters=_CPU_DEFAULTS),
    Policy(
        name="evenly_distributed",
        weights=_EVEN,
        balancer="OptimalForEvenDistribution",
        parameters=(*_CPU_DEFAULTS, (VCPU_TO_PHYSICAL_CPU_RATIO.name, 0), (HE_SPARES_COUNT.name, 0)),
    ),
    Policy(
        name="power_saving",
        weights=_POWER,
        balancer="OptimalForPowerSaving",
        parameters=(*_CPU_DEFAULTS, (LOW_UTILIZATION.name, 20), (HE_SPARES_COUNT.name, 0)),
    ),
    Policy(
        name="vm_evenly_distributed",
        weights=(("OptimalForEvenGuestDistribution", 2), *_AFFINITY),
        balancer="OptimalForEvenGuestDistribution",
        parameters=(
            (HIGH_VM_COUNT.name, 10),
            (MIGRATION_THRESHOLD.name, 5),
            (SPM_VM_GRACE.name, 5),
            (HE_SPARES_COUNT.name, 0),
        ),
    ),
)
POLICY_BY_NAME: dict[str, Policy] = {policy.name: policy for policy in BUILT_IN_POLICIES}

# Balancers that look at memory too, once they are told what too little is.
_MEMORY_BALANCERS = ("OptimalForEvenDistribution", "OptimalForPowerSaving")
_MEMORY_PARAMETERS = (MAX_FREE_MEMORY_FOR_OVER_UTILIZED, MIN_FREE_MEMORY_FOR_UNDER_UTILIZED)
_BALANCER_PARAMETERS = (
    CPU_OVERCOMMIT_DURATION,
    HIGH_UTILIZATION,
    LOW_UTILIZATION,
    HIGH_VM_COUNT,
    MIGRATION_THRESHOLD,
    HE_SPARES_COUNT,
)


def policy_named(name: str, parameters: Mapping[str, float] | None = None) -> Policy:
    """The built-in policy `name` with some of its parameters changed.

    Raises BadInput for an unknown policy or parameter, listing the known ones, and for a value out of range.
    """
    built_in = POLICY_BY_NAME.get(name)
    if built_in is None:
        raise BadInput(
            f"there is no scheduling policy {name}: choose one of {', '.join(sorted(POLICY_BY_NAME))}"
        )
    if not parameters:
        return built_in
    known = parameters_of(built_in)
    values = dict(built_in.parameters)
    for parameter_name, value in parameters.items():
        if parameter_name not in known:
            raise BadInput(
                f"scheduling policy {name} has no parameter {parameter_name}: "
                f"it has {', '.join(sorted(known))}"
            )
        values[parameter_name] = known[parameter_name].check(value)
    return msgspec.structs.replace(built_in, parameters=tuple(sorted(values.items())))


def parameters_of(policy: Policy) -> dict[str, Parameter]:
    """What `policy` can be given: the parameters that it has by default and those that its units read."""
    kinds = [
        *(FILTER_BY_NAME[name].parameters for name in policy.filters),
        *(WEIGHT_BY_NAME[name].parameters for name, _ in policy.weights),
    ]
    known = {parameter.name: parameter for parameters in kinds for parameter in parameters}
    defaults = {name for name, _ in policy.parameters}
    known |= {parameter.name: parameter for parameter in _BALANCER_PARAMETERS if parameter.name in defaults}
    if policy.balancer in _MEMORY_BALANCERS:
        known |= {parameter.name: parameter for parameter in _MEMORY_PARAMETERS}
    return known

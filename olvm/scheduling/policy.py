"""Policies as data: which filters, which weights with which factors, how they become one choice, which parameters.

Rules:
1. Every policy runs `MANDATORY_FILTERS`, oVirt's eight, and `CAPACITY_FILTERS`, which oVirt lets one remove. What a
   host can hold is not a matter of policy here: the table refuses to book what these would have dropped.
2. One thing chooses: weights that oVirt's selectors compare, or a selector that needs none (`host_selectors`), or a
   class of the user's (`python`).

The factors and defaults are oVirt's (InternalClusterPolicies). Balancers run in `balancing`: a policy names
its balancer and holds that balancer's parameters.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from olvm.model.errors import BadInput
from olvm.model.policy_definition import PolicyDefinition

# Imported for what they register.
from olvm.scheduling import affinity_units as _affinity_units  # noqa: F401
from olvm.scheduling import compatibility_filters as _compatibility_filters  # noqa: F401
from olvm.scheduling import condition_filters as _condition_filters  # noqa: F401
from olvm.scheduling import filters as _filters  # noqa: F401
from olvm.scheduling import preference_weights as _preference_weights  # noqa: F401
from olvm.scheduling import resource_filters as _resource_filters  # noqa: F401
from olvm.scheduling import weights as _weights  # noqa: F401
from olvm.scheduling.fast_placement import FastPlan, fast_plan
from olvm.scheduling.host_selectors import HOST_SELECTORS
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

MANDATORY_FILTERS = (
    "PinToHost",
    "Compatibility-Version",
    "CPU-Level",
    "CPUTopology",
    "CpuPinning",
    "HostDevice",
    "VM leases ready",
    "MDevice",
)
CAPACITY_FILTERS = ("Migration", "CPU", "Memory", "NUMA", "HugePages")
# In the order in which they run: those that drop most for least come first.
REQUIRED_FILTERS = (
    "PinToHost",
    "Migration",
    "Compatibility-Version",
    "CPU-Level",
    "CPUTopology",
    "VM leases ready",
    "CPU",
    "Memory",
    "HostDevice",
    "MDevice",
    "CpuPinning",
    "NUMA",
    "HugePages",
)
OPTIONAL_FILTERS = (
    "CPUOverloaded",
    "Emulated-Machine",
    "HA",
    "HostedEngineSpares",
    "Swap",
    "Migration-Tsc-Frequency",
    "Network",
    "VmAffinityGroups",
    "VmToHostsAffinityGroups",
    "Host-hooks",
)
# The built-in policies leave these two to clusters that are maintained or upgraded.
CLUSTER_FILTERS = ("ClusterInMaintenance", "InClusterUpgrade")
DEFAULT_FILTERS = (*REQUIRED_FILTERS, *OPTIONAL_FILTERS)
assert sorted(REQUIRED_FILTERS) == sorted((*MANDATORY_FILTERS, *CAPACITY_FILTERS))
assert sorted(FILTER_BY_NAME) == sorted((*DEFAULT_FILTERS, *CLUSTER_FILTERS))

RANK_SELECTOR = "RankSelector"
# oVirt's two, which compare weights, and those that need none.
SELECTORS = (RANK_SELECTOR, "BasicWeighting", *HOST_SELECTORS)

_MEMORY_PARAMETERS = (MAX_FREE_MEMORY_FOR_OVER_UTILIZED, MIN_FREE_MEMORY_FOR_UNDER_UTILIZED)
PARAMETERS_BY_BALANCER: dict[str, tuple[Parameter, ...]] = {
    "None": (),
    "OptimalForEvenDistribution": (CPU_OVERCOMMIT_DURATION, HIGH_UTILIZATION, *_MEMORY_PARAMETERS),
    "OptimalForEvenGuestDistribution": (HIGH_VM_COUNT, MIGRATION_THRESHOLD, SPM_VM_GRACE),
    "OptimalForPowerSaving": (
        CPU_OVERCOMMIT_DURATION,
        HIGH_UTILIZATION,
        LOW_UTILIZATION,
        *_MEMORY_PARAMETERS,
    ),
}


def _check_known(policy: str, kind: str, names: list[str] | tuple[str, ...], known: Collection[str]) -> None:
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
    selector: str = RANK_SELECTOR
    python: str = ""  # module:Class, which chooses instead of weights and selector

    def __post_init__(self) -> None:
        _check_known(self.name, "filter", self.filters, FILTER_BY_NAME)
        _check_known(self.name, "weight", [name for name, _ in self.weights], WEIGHT_BY_NAME)
        _check_known(self.name, "balancer", [self.balancer], PARAMETERS_BY_BALANCER)
        _check_known(self.name, "selector", [self.selector], SELECTORS)
        if self.python and self.weights:
            raise BadInput(
                f"policy {self.name} has weights and the class {self.python}: the class chooses, leave out weights"
            )
        if self.selector in HOST_SELECTORS and (self.weights or self.python):
            what = "weights" if self.weights else f"the class {self.python}"
            raise BadInput(
                f"policy {self.name} has {what} and the selector {self.selector}, which needs none: leave one out"
            )
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
    # Of the filters: all without their names, those that read a host's row alone, those that a plain request may meet.
    filter_units: tuple[Filter, ...]
    row_filters: tuple[Filter, ...]
    unasked: tuple[Filter, ...]
    fast: FastPlan | None


@lru_cache(maxsize=256)
def units_of(policy: Policy) -> Units:
    """The units that `policy` names. Cost: one dictionary lookup after the first call."""
    parameters = dict(policy.parameters)
    weights = tuple((name, WEIGHT_BY_NAME[name].make(parameters)) for name, _ in policy.weights)
    factors = tuple(factor for _, factor in policy.weights)
    filters = tuple((name, FILTER_BY_NAME[name].make(parameters)) for name in policy.filters)
    return Units(
        filters=filters,
        weights=weights,
        factors=factors,
        filter_units=tuple(unit for _, unit in filters),
        row_filters=tuple(unit for _, unit in filters if unit.READS == "row" and unit.may_drop_rows),
        unasked=tuple(unit for _, unit in filters if unit.UNASKED),
        fast=fast_plan(tuple(unit for _, unit in filters), weights, factors)
        if policy.selector == RANK_SELECTOR
        else None,
    )


_PREFERENCES = (
    ("PreferredHosts", 99),
    ("HA", 1),
    ("OptimalForHaReservation", 1),
    ("VmAffinityGroups", 1),
    ("VmToHostsAffinityGroups", 20),
    ("CPU for high performance VMs", 4),
    ("CPU and NUMA pinning compatibility", 5),
)
_EVEN = (("OptimalForCpuEvenDistribution", 2), ("OptimalForMemoryEvenDistribution", 1), *_PREFERENCES)
_POWER = (("OptimalForCpuPowerSaving", 2), ("OptimalForMemoryPowerSaving", 1), *_PREFERENCES)
_CPU_DEFAULTS = ((CPU_OVERCOMMIT_DURATION.name, 2), (HIGH_UTILIZATION.name, 80))

BUILT_IN_POLICIES: tuple[Policy, ...] = (
    Policy(name="none", weights=_EVEN, parameters=_CPU_DEFAULTS),
    Policy(
        name="cluster_maintenance",
        filters=(*DEFAULT_FILTERS, "ClusterInMaintenance"),
        weights=_EVEN,
        parameters=_CPU_DEFAULTS,
    ),
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
        weights=(("OptimalForEvenGuestDistribution", 2), *_PREFERENCES),
        balancer="OptimalForEvenGuestDistribution",
        parameters=(
            (HIGH_VM_COUNT.name, 10),
            (MIGRATION_THRESHOLD.name, 5),
            (SPM_VM_GRACE.name, 5),
            (HE_SPARES_COUNT.name, 0),
        ),
    ),
    *(Policy(name=one.policy, selector=name) for name, one in HOST_SELECTORS.items()),
)
POLICY_BY_NAME: dict[str, Policy] = {policy.name: policy for policy in BUILT_IN_POLICIES}


def policy_named(
    name: str, parameters: Mapping[str, float] | None = None, definition: PolicyDefinition | None = None
) -> Policy:
    """The policy `name` with some of its parameters changed: a built-in one, `definition` where it has that name, or
    a class of the user's, as in `my_policies:BestFit`.

    Raises BadInput for an unknown policy or parameter, listing the known ones, and for a value out of range.
    """
    if definition is not None and definition.name == name:
        base = composed(definition)
    elif ":" in name:
        base = Policy(name=name, python=name)
    elif name in POLICY_BY_NAME:
        base = POLICY_BY_NAME[name]
    else:
        raise BadInput(
            f"there is no scheduling policy {name}: choose one of {', '.join(sorted(POLICY_BY_NAME))}, a TOML file "
            "with a policy of your own, or a class of your own as module:Class"
        )
    return base if not parameters else _with_parameters(base, parameters)


def composed(definition: PolicyDefinition) -> Policy:
    """The policy that a person composed; what it does not say is as in `none`, except weights: none are added.

    Raises BadInput, which names the unit or the key and what is allowed.
    """
    name = definition.name
    if name in POLICY_BY_NAME or ":" in name or not name:
        raise BadInput(
            f"a policy of your own cannot be called {name!r}: that is a built-in's name, or no name"
        )
    chosen = OPTIONAL_FILTERS if definition.filters is None else definition.filters
    _check_known(name, "filter", list(chosen), FILTER_BY_NAME)
    twice = [filter_ for filter_ in dict.fromkeys(chosen) if list(chosen).count(filter_) > 1]
    if twice:
        raise BadInput(f"policy {name} names the filter {twice[0]} twice: name it once")
    if not definition.weights and not definition.python and definition.selector not in HOST_SELECTORS:
        raise BadInput(
            f"policy {name} has no weights: give a table [weights] with factors, as in "
            f"OptimalForCpuEvenDistribution = 2 (there are {', '.join(sorted(WEIGHT_BY_NAME))}), or python = "
            '"module:Class", or a selector that needs none: ' + ", ".join(HOST_SELECTORS)
        )
    policy = Policy(
        name=name,
        filters=(*REQUIRED_FILTERS, *(one for one in chosen if one not in REQUIRED_FILTERS)),
        weights=tuple(definition.weights.items()),
        balancer=definition.balancer,
        selector=definition.selector,
        python=definition.python,
    )
    return _with_parameters(policy, definition.parameters)


def definition_of(policy: Policy) -> dict[str, Any]:
    """The fields of the `PolicyDefinition` that would compose it: a start for one's own."""
    return {
        "name": policy.name,
        "filters": tuple(name for name in policy.filters if name not in REQUIRED_FILTERS),
        "weights": dict(policy.weights),
        "balancer": policy.balancer,
        "selector": policy.selector,
        "parameters": dict(policy.parameters),
        "python": policy.python,
    }


def _with_parameters(policy: Policy, parameters: Mapping[str, float]) -> Policy:
    known = parameters_of(policy)
    values = dict(policy.parameters)
    for name, value in parameters.items():
        if name not in known:
            raise BadInput(
                f"scheduling policy {policy.name} has no parameter {name}: it has {', '.join(sorted(known))}"
            )
        values[name] = known[name].check(value)
    return msgspec.structs.replace(policy, parameters=tuple(sorted(values.items())))


def parameters_of(policy: Policy) -> dict[str, Parameter]:
    """What `policy` can be given: the parameters that its filters, weights and balancer read."""
    kinds = [
        *(FILTER_BY_NAME[name].parameters for name in policy.filters),
        *(WEIGHT_BY_NAME[name].parameters for name, _ in policy.weights),
        PARAMETERS_BY_BALANCER[policy.balancer],
    ]
    return {parameter.name: parameter for parameters in kinds for parameter in parameters}

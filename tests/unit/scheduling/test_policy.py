"""Policies as data: oVirt's factors and defaults, and which parameters are refused."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest

from olvm.model.errors import BadInput
from olvm.scheduling import POLICY_BY_NAME, Policy, policy_named
from olvm.scheduling.policy import parameters_of, units_of

WISHES = (
    ("PreferredHosts", 99),
    ("HA", 1),
    ("OptimalForHaReservation", 1),
    ("VmAffinityGroups", 1),
    ("VmToHostsAffinityGroups", 20),
    ("CPU for high performance VMs", 4),
    ("CPU and NUMA pinning compatibility", 5),
)
EVEN = (("OptimalForCpuEvenDistribution", 2), ("OptimalForMemoryEvenDistribution", 1), *WISHES)
POWER = (("OptimalForCpuPowerSaving", 2), ("OptimalForMemoryPowerSaving", 1), *WISHES)


@pytest.mark.parametrize(
    ("name", "weights", "balancer", "parameters"),
    [
        ("none", EVEN, "None", {"CpuOverCommitDurationMinutes": 2, "HighUtilization": 80}),
        ("cluster_maintenance", EVEN, "None", {"CpuOverCommitDurationMinutes": 2, "HighUtilization": 80}),
        (
            "evenly_distributed",
            EVEN,
            "OptimalForEvenDistribution",
            {
                "CpuOverCommitDurationMinutes": 2,
                "HighUtilization": 80,
                "VCpuToPhysicalCpuRatio": 0,
                "HeSparesCount": 0,
            },
        ),
        (
            "power_saving",
            POWER,
            "OptimalForPowerSaving",
            {
                "CpuOverCommitDurationMinutes": 2,
                "HighUtilization": 80,
                "LowUtilization": 20,
                "HeSparesCount": 0,
            },
        ),
        (
            "vm_evenly_distributed",
            (("OptimalForEvenGuestDistribution", 2), *WISHES),
            "OptimalForEvenGuestDistribution",
            {"HighVmCount": 10, "MigrationThreshold": 5, "SpmVmGrace": 5, "HeSparesCount": 0},
        ),
    ],
)
def test_built_in_policy_has_ovirts_factors_and_defaults(
    name: str, weights: object, balancer: str, parameters: Mapping[str, float]
) -> None:
    policy = policy_named(name)
    assert (policy.weights, policy.balancer, dict(policy.parameters)) == (weights, balancer, parameters)


@pytest.mark.parametrize("policy", POLICY_BY_NAME.values(), ids=str)
def test_built_in_defaults_are_within_their_own_ranges(policy: Policy) -> None:
    known = parameters_of(policy)
    assert {name: known[name].check(value) for name, value in policy.parameters} == dict(policy.parameters)


def test_policy_survives_a_round_trip_through_json() -> None:
    policy = policy_named("power_saving", {"HighUtilization": 66})
    again = msgspec.json.decode(msgspec.json.encode(policy), type=Policy)
    assert again == policy
    assert units_of(again) is units_of(policy)


def test_unknown_policy_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        BadInput,
        match="no scheduling policy fastest: choose one of best_fit, cluster_maintenance, cosine, dot_product, even",
    ):
        policy_named("fastest")


def test_parameter_of_another_policy_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        BadInput,
        match="none has no parameter LowUtilization: it has CpuOverCommitDurationMinutes, HeSparesCount",
    ):
        policy_named("none", {"LowUtilization": 10})


@pytest.mark.parametrize(
    ("policy", "parameter", "bad", "good"),
    [
        ("none", "HighUtilization", [49, 100, 80.5, True, "80", float("nan"), float("inf")], [50, 99, 60.0]),
        ("power_saving", "LowUtilization", [-1, 50], [0, 49]),
        ("evenly_distributed", "VCpuToPhysicalCpuRatio", [-0.1, 3, 3.5], [0, 2.99]),
        ("none", "CpuOverCommitDurationMinutes", [0], [1, 10_000]),
        ("vm_evenly_distributed", "MigrationThreshold", [1], [2]),
        ("vm_evenly_distributed", "HighVmCount", [-1], [0]),
        ("vm_evenly_distributed", "SpmVmGrace", [-1], [0]),
        ("power_saving", "MaxFreeMemoryForOverUtilized", [0], [1]),
        ("evenly_distributed", "MaxFreeMemoryForOverUtilized", [0], [1]),
        ("power_saving", "MinFreeMemoryForUnderUtilized", [0], [1]),
        ("power_saving", "HeSparesCount", [-1], [0]),
        ("none", "MaximumAllowedSwapUsage", [-1, 200], [0, 199]),
        ("none", "ScaleDown", [0], [1]),
    ],
)
def test_parameter_out_of_range_is_refused_and_in_range_is_kept(
    policy: str, parameter: str, bad: list[float], good: list[float]
) -> None:
    for value in bad:
        with pytest.raises(BadInput, match=f"policy parameter {parameter} cannot be .*: give a"):
            policy_named(policy, {parameter: value})
    for value in good:
        assert dict(policy_named(policy, {parameter: value}).parameters)[parameter] == value


def test_policy_of_unknown_units_or_without_capacity_filters_is_refused() -> None:
    with pytest.raises(
        BadInput, match="names the weight Luck: choose from CPU and NUMA pinning compatibility, CPU for"
    ):
        Policy(name="mine", weights=(("Luck", 1),))
    with pytest.raises(BadInput, match="names the filter Moon: choose from CPU, CPU-Level, CPUOverloaded"):
        Policy(name="mine", filters=("Moon",))
    with pytest.raises(
        BadInput, match="lacks the filters Compatibility-Version, CPU-Level, CPUTopology, VM leases"
    ):
        Policy(name="mine", filters=("PinToHost", "Migration"))
    with pytest.raises(BadInput, match="factor of 0 or less"):
        Policy(name="mine", weights=(("OptimalForEvenGuestDistribution", 0),))

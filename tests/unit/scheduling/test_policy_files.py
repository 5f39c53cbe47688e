"""Policies that a person composed in TOML: read, checked, used."""

from __future__ import annotations

from pathlib import Path

import pytest

from olvm.model.errors import BadInput
from olvm.model.policy_definition import PolicyDefinition, definition_from, read_definition
from olvm.scheduling import POLICY_BY_NAME, Placement, Policy, place, policy_named
from olvm.scheduling.policy import OPTIONAL_FILTERS, REQUIRED_FILTERS, composed, definition_of

from .tables import GIB, host, request, table_of

PACKED = """
name = "packed"
filters = ["CPUOverloaded", "VmAffinityGroups"]
balancer = "OptimalForPowerSaving"
selector = "BasicWeighting"

[weights]
OptimalForMemoryPowerSaving = 3

[parameters]
HighUtilization = 75
LowUtilization = 30
"""


def test_composed_policy_has_what_the_file_says_and_every_filter_that_none_may_leave_out(
    tmp_path: Path,
) -> None:
    path = tmp_path / "packed.toml"
    path.write_text(PACKED)
    definition = read_definition(path)
    assert composed(definition) == Policy(
        name="packed",
        filters=(*REQUIRED_FILTERS, "CPUOverloaded", "VmAffinityGroups"),
        weights=(("OptimalForMemoryPowerSaving", 3),),
        balancer="OptimalForPowerSaving",
        selector="BasicWeighting",
        parameters=(("HighUtilization", 75), ("LowUtilization", 30)),
    )
    changed = policy_named("packed", {"HighUtilization": 60}, definition)
    assert dict(changed.parameters)["HighUtilization"] == 60
    full = host("kvm02", vms=[(1, 20 * GIB, True)])
    chosen = place(table_of([host("kvm01"), full]), request(), changed)
    assert chosen == Placement(vm_id="web-1", host="kvm02", candidate_count=2)


def test_file_without_filters_has_ovirts_optional_ones() -> None:
    definition = PolicyDefinition(name="mine", weights={"PreferredHosts": 1})
    assert composed(definition).filters == (*REQUIRED_FILTERS, *OPTIONAL_FILTERS)


@pytest.mark.parametrize("policy", POLICY_BY_NAME.values(), ids=lambda policy: policy.name)
def test_every_built_in_policy_can_be_written_down_and_composed_again(policy: Policy) -> None:
    again = composed(PolicyDefinition(**(definition_of(policy) | {"name": "mine"})))
    assert set(again.filters) == set(policy.filters)
    assert (again.weights, again.balancer, again.selector) == (
        policy.weights,
        policy.balancer,
        policy.selector,
    )
    assert dict(again.parameters) == dict(policy.parameters)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"weights": {"Luck": 1}}, "policy mine names the weight Luck: choose from CPU and NUMA"),
        ({"weights": {"PreferredHosts": 0}}, "factor of 0 or less"),
        ({}, r"has no weights: give a table \[weights\]"),
        (
            {"weights": {"PreferredHosts": 1}, "filters": ["Moon"]},
            "names the filter Moon: choose from CPU, CPU-Level",
        ),
        ({"weights": {"PreferredHosts": 1}, "filters": ["Swap", "Swap"]}, "names the filter Swap twice"),
        (
            {"weights": {"PreferredHosts": 1}, "balancer": "Best"},
            "the balancer Best: choose from None, OptimalForE",
        ),
        (
            {"weights": {"PreferredHosts": 1}, "selector": "Best"},
            "the selector Best: choose from BasicWeighting, BestFit, Cosine",
        ),
        (
            {"weights": {"PreferredHosts": 1}, "parameters": {"LowUtilization": 1}},
            "mine has no parameter LowUtilization: it has CpuOverCommit",
        ),
        (
            {"weights": {"PreferredHosts": 1}, "parameters": {"HighUtilization": 5}},
            "parameter HighUtilization cannot be 5.0: give a whole number from 50 to 99",
        ),
        (
            {"weights": {"PreferredHosts": 1}, "selector": "BestFit"},
            "has weights and the selector BestFit, which needs none",
        ),
        (
            {"python": "a:B", "selector": "BestFit"},
            "has the class a:B and the selector BestFit, which needs none",
        ),
        ({"weights": {"PreferredHosts": 1}, "python": "a:B"}, "the class chooses, leave out weights"),
        ({"name": "none", "weights": {"PreferredHosts": 1}}, "cannot be called 'none'"),
    ],
)
def test_composition_that_cannot_be_is_refused_with_what_is_allowed(
    fields: dict[str, object], match: str
) -> None:
    with pytest.raises(BadInput, match=match):
        composed(definition_from({"name": "mine", **fields}, "policy file mine.toml"))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("name = ", r"policy file .*p\.toml is no TOML: "),
        ("names = 'x'", "contains unknown field `names`; the keys are name, filters, weights"),
        ("name = 'x'\nweights = 3", r"Expected `object`, got `int` - at `\$.weights`"),
        ("name = 'x'\n[weights]\nPreferredHosts = 1.5", "Expected `int`, got `float`"),
    ],
)
def test_file_that_is_no_policy_is_refused_with_its_name_and_the_key(
    tmp_path: Path, text: str, match: str
) -> None:
    path = tmp_path / "p.toml"
    path.write_text(text)
    with pytest.raises(BadInput, match=match):
        read_definition(path)
    with pytest.raises(BadInput, match="cannot be read: No such file"):
        read_definition(tmp_path / "absent.toml")

"""What a caller may write for a policy."""

from __future__ import annotations

from pathlib import Path

import pytest

from olvm.api.policies import policy_of
from olvm.model.errors import BadInput
from olvm.model.policy_definition import PolicyDefinition

MINE = PolicyDefinition(name="mine", weights={"PreferredHosts": 1})


class Best:
    pass


def test_policy_is_a_name_a_file_fields_a_definition_or_a_class(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\n[weights]\nPreferredHosts = 1\n')
    assert policy_of("power_saving") == ("power_saving", None)
    assert policy_of("my_policies:Best") == ("my_policies:Best", None)
    assert policy_of(Best) == (f"{__name__}:Best", None)
    for written in (path, str(path), {"name": "mine", "weights": {"PreferredHosts": 1}}, MINE):
        assert policy_of(written) == ("mine", MINE)


def test_fields_that_are_no_policy_are_refused() -> None:
    with pytest.raises(
        BadInput, match="policy: Object contains unknown field `weight`; the keys are name, filters"
    ):
        policy_of({"name": "mine", "weight": {}})

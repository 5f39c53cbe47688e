"""What a caller may write where a scheduling policy is asked for, and what goes to the engine for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from olvm.model.policy_definition import PolicyDefinition, definition_from, read_definition

# A name, a TOML file, the fields of a `PolicyDefinition`, or a class of one's own.
PolicyLike = str | Path | Mapping[str, object] | PolicyDefinition | type


def policy_of(policy: PolicyLike) -> tuple[str, PolicyDefinition | None]:
    """The policy's name, and its definition if a person composed it. Text that ends in `.toml` names a file.

    Raises BadInput for a file or fields that are no policy; whether its units exist, the engine says.
    """
    if isinstance(policy, type):
        return f"{policy.__module__}:{policy.__qualname__}", None
    if isinstance(policy, Path) or (isinstance(policy, str) and policy.endswith(".toml")):
        definition = read_definition(policy)
    elif isinstance(policy, str):
        return policy, None
    elif isinstance(policy, PolicyDefinition):
        definition = policy
    else:
        definition = definition_from(policy, "policy")
    return definition.name, definition

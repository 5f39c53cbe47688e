"""A scheduling policy that a person composed, as data: what stands in its TOML file, and in its cluster's record.

```toml
name = "packed"
filters = ["CPUOverloaded", "Network", "VmAffinityGroups", "VmToHostsAffinityGroups"]
balancer = "OptimalForPowerSaving"

[weights]
OptimalForMemoryPowerSaving = 3
PreferredHosts = 99

[parameters]
HighUtilization = 75
```

Whether its units and parameters exist, `olvm.scheduling.policy` says.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from olvm.model.errors import BadInput


class PolicyDefinition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`filters` None: oVirt's optional ones; those that every policy runs are added. `weights`: factors by unit.

    `python`: a class that chooses instead of weights and selector, as `module:Class`.
    """

    name: str
    filters: tuple[str, ...] | None = None
    weights: dict[str, int] = {}
    balancer: str = "None"
    selector: str = "RankSelector"
    parameters: dict[str, float] = {}
    python: str = ""


def definition_from(fields: Mapping[str, object], source: str) -> PolicyDefinition:
    """From decoded TOML or JSON; `source` begins the sentence of a BadInput."""
    try:
        return msgspec.convert(fields, PolicyDefinition)
    except msgspec.ValidationError as error:
        known = ", ".join(PolicyDefinition.__struct_fields__)
        raise BadInput(f"{source}: {error}; the keys are {known}") from error


def read_definition(path: str | Path) -> PolicyDefinition:
    """Raises BadInput when the file cannot be read, is no TOML, or has an unknown or ill-typed key."""
    try:
        fields = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"policy file {path} cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"policy file {path} is no TOML: {error}") from error
    return definition_from(fields, f"policy file {path}")

"""`olvm policy`: scheduling policies and what they are made of. It needs no data center."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import App, Parameter

from olvm.api.policies import policy_of
from olvm.cli.options import PRINTING, Printing
from olvm.cli.output import chosen_columns, write_rows
from olvm.scheduling.policy import (
    MANDATORY_FILTERS,
    PARAMETERS_BY_BALANCER,
    POLICY_BY_NAME,
    REQUIRED_FILTERS,
    definition_of,
    policy_named,
)
from olvm.scheduling.units import FILTER_BY_NAME, WEIGHT_BY_NAME
from olvm.scheduling.units import Parameter as UnitParameter
from olvm.scheduling.user_policies import load_user_policy

app = App(name="policy", help="Scheduling policies: which there are, and what one of your own may say.")


@app.command(name="list")
def list_(*, options: Printing = PRINTING) -> int:
    """List the built-in policies."""
    rows = [
        {
            "name": policy.name,
            "balancer": policy.balancer,
            "selector": policy.selector,
            "weights": ", ".join(f"{name} {factor}" for name, factor in policy.weights),
        }
        for policy in POLICY_BY_NAME.values()
    ]
    return _print(rows, ("name", "balancer", "selector", "weights"), options)


@app.command
def units(*, options: Printing = PRINTING) -> int:
    """List filters, weights and balancers with the parameters that they read."""
    rows: list[dict[str, Any]] = [
        *(
            _row("filter", name, kind.parameters, _duty(name))
            for name, kind in sorted(FILTER_BY_NAME.items())
        ),
        *(_row("weight", name, kind.parameters, "") for name, kind in sorted(WEIGHT_BY_NAME.items())),
        *(_row("balancer", name, found, "") for name, found in PARAMETERS_BY_BALANCER.items()),
    ]
    return _print(rows, ("kind", "name", "required", "parameters"), options)


def _print(rows: list[dict[str, Any]], columns: tuple[str, ...], options: Printing) -> int:
    write_rows(rows, chosen_columns(options.columns, columns, columns), options.output)
    return 0


def _duty(name: str) -> str:
    if name in MANDATORY_FILTERS:
        return "mandatory"
    return "always" if name in REQUIRED_FILTERS else ""


def _row(kind: str, name: str, parameters: tuple[UnitParameter, ...], required: str) -> dict[str, Any]:
    told = "; ".join(f"{parameter.name}: {parameter.range_text}" for parameter in parameters)
    return {"kind": kind, "name": name, "required": required, "parameters": told}


@app.command
def show(
    policy: Annotated[str, Parameter(help="A name, a TOML file, or module:Class.", metavar="NAME|FILE.toml")],
    /,
) -> int:
    """Check a policy and print it as the TOML file that would compose it: a start for one of your own.

    Exit code 2 and a line that names the unit or the key if it is none.
    """
    name, definition = policy_of(policy)
    found = policy_named(name, None, definition)
    if found.python:
        load_user_policy(found.python)
    print(_toml(definition_of(found)), end="")
    return 0


def _toml(fields: dict[str, Any]) -> str:
    lines = [f'name = "{fields["name"]}"']
    lines += ["filters = [", *(f'    "{name}",' for name in fields["filters"]), "]"]
    lines += [f'balancer = "{fields["balancer"]}"', f'selector = "{fields["selector"]}"']
    lines += [f'python = "{fields["python"]}"'] if fields["python"] else []
    for table in ("weights", "parameters"):
        if fields[table]:
            lines += ["", f"[{table}]"]
            lines += [f"{_key(key)} = {value}" for key, value in fields[table].items()]
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    return name if name.isidentifier() else f'"{name}"'

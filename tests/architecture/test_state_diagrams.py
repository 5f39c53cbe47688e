"""docs/states.md is what the tables of transitions give, and nothing else.

When a table has changed, `python -m tests.architecture.test_state_diagrams` writes the page again.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import pytest

from olvm.model.host_states import HOST_TRANSITIONS, HostStatus, HostTrigger
from olvm.model.transitions import mermaid
from olvm.model.vm_states import VM_TRANSITIONS, VmStatus, VmTrigger
from tests.architecture.source import ROOT

PAGE = ROOT / "docs" / "states.md"
INTRODUCTION = """\
# State machines

This page is generated from the tables and a test holds it to them (`tests/architecture/test_state_diagrams.py`).
An arrow is one pair of statuses with all its triggers. A trigger that a status has no arrow for raises
`IllegalTransition` and changes nothing.

The tables have more than the actors use today: rows of disks, of the installation of hosts and of what a real
hypervisor alone can say wait for the features that will use them. The README says what works. Two more tables of this
kind are not drawn here: how a migration whose end is open is decided (`actors/vm_settling.py`), and the fence flow of
a host (`actors/host_fence_steps.py`).
"""


def chapter(title: str, module: str, table: Mapping[tuple[Any, Any], StrEnum]) -> str:
    statuses, triggers = {status for status, _ in table} | set(table.values()), {name for _, name in table}
    return (
        f"\n## {title}\n\n"
        f"`{module}`: {len(statuses)} statuses, {len(triggers)} triggers, {len(table)} rows.\n\n"
        f"```mermaid\n{mermaid(table)}```\n"
    )


def page() -> str:
    return (
        INTRODUCTION
        + chapter("A machine", "olvm/model/vm_states.py", VM_TRANSITIONS)
        + chapter("A host", "olvm/model/host_states.py", HOST_TRANSITIONS)
    )


def test_state_page_is_what_the_tables_give() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), (
        "docs/states.md differs from the tables: run `python -m tests.architecture.test_state_diagrams`"
    )


@pytest.mark.parametrize("name", [*VmStatus, *VmTrigger, *HostStatus, *HostTrigger], ids=str)
def test_state_page_names_every_status_and_trigger(name: StrEnum) -> None:
    assert name.value in PAGE.read_text(encoding="utf-8")


def test_state_page_after_a_row_is_lost_differs() -> None:
    fewer = dict(list(VM_TRANSITIONS.items())[1:])
    assert chapter("A machine", "m", fewer) != chapter("A machine", "m", VM_TRANSITIONS)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

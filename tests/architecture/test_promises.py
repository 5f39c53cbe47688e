"""docs/promises.md is what the simulator goes by, and what our pages name exists.

When an oracle, a fault, a limit or a situation has changed, `python -m tests.architecture.test_promises` draws the
tables of the page again.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sim.promises import SECTIONS, filled
from tests.architecture.source import ROOT

PAGE = ROOT / "docs" / "promises.md"
# A path in code, as `actors/vm.py` or `tests/sim/`; one with a star or a placeholder names no single file.
NAMED = re.compile(
    r"`((?:olvm|actors|hypervisor_backends|sim|guest_agent|tests|benchmarks|examples|docs)/[\w./-]*)`"
)
NAMING = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "tests" / "README.md"])


def test_promises_page_is_what_the_simulator_goes_by() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == filled(page), (
        "docs/promises.md differs from the simulator: run `python -m tests.architecture.test_promises`"
    )


@pytest.mark.parametrize("section", SECTIONS)
def test_promises_page_after_a_row_is_lost_differs(section: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    head, marker, rest = page.partition(f"<!-- end of {section} -->")
    shorter = head.rstrip().rpartition("\n")[0] + "\n\n" + marker + rest
    assert shorter != filled(shorter) == filled(page)


@pytest.mark.parametrize("page", NAMING, ids=lambda page: str(page.relative_to(ROOT)))
def test_page_names_files_that_exist(page: Path) -> None:
    named = NAMED.findall(page.read_text(encoding="utf-8"))
    assert [path for path in named if not (ROOT / path).exists()] == []


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

"""docs/promises.md says what the simulator goes by, and nothing else.

When an oracle, a fault, a limit or a situation has changed, `python -m tests.unit.sim.test_promises` writes its
tables again.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sim.failure_model import FAULTS, LIMITS
from sim.oracles.board import ORACLES
from sim.promises import SECTIONS, filled
from sim.runs import EXIT_CODE_BY_VERDICT
from sim.situations import all_situations

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "promises.md"


def text() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_page_is_what_the_simulator_goes_by() -> None:
    assert filled(text()) == text(), (
        "docs/promises.md differs from sim/: run `python -m tests.unit.sim.test_promises`"
    )


@pytest.mark.parametrize(
    "word",
    [*(kind.ID for kind in ORACLES), *FAULTS, *(limit.name for limit in LIMITS), *all_situations()],
)
def test_page_names_every_oracle_fault_limit_and_situation(word: str) -> None:
    assert re.search(rf"^\| `?{word}`? \|", text(), re.MULTILINE)


def test_page_with_a_word_lost_is_found_out() -> None:
    fewer = text().replace("| `storm` |", "| `calm` |")
    assert filled(fewer) == filled(text()) != fewer


@pytest.mark.parametrize("name", SECTIONS)
def test_page_without_a_place_for_a_table_is_refused(name: str) -> None:
    with pytest.raises(AssertionError, match=name):
        filled(text().replace(f"<!-- end of {name} -->", ""))


def test_page_names_modules_that_are_there_and_exit_codes_that_hold() -> None:
    missing = [
        path for path in re.findall(r"`((?:sim|tests)/[\w/]+\.py)`", text()) if not (ROOT / path).exists()
    ]
    assert missing == []
    for verdict in ("safety", "liveness"):
        assert f"{EXIT_CODE_BY_VERDICT[verdict]} a {verdict} promise" in text()


if __name__ == "__main__":
    PAGE.write_text(filled(text()), encoding="utf-8")

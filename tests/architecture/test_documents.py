"""Links in our pages lead somewhere, files that they name are there, and decisions are numbered without gaps."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.architecture.source import ROOT

LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
FOLDERS = (
    "docs",
    "olvm",
    "actors",
    "hypervisor_backends",
    "sim",
    "guest_agent",
    "tests",
    "benchmarks",
    "examples",
)
PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))])
# A path in code from the root, as `actors/vm.py` or `sim/oracles/`; one with a star names no single file.
NAMED = re.compile(
    r"`((?:olvm|actors|hypervisor_backends|sim|guest_agent|tests|benchmarks|examples|docs)/[\w./-]*)`"
)
SECTIONS = ["Context", "Decision", "Alternatives", "Consequences"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page_links_lead_somewhere(page: Path) -> None:
    links = LINK.findall(CODE.sub("", page.read_text(encoding="utf-8")))
    local = [link for link in links if "://" not in link and not link.startswith("mailto:")]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page_names_files_that_are_there(page: Path) -> None:
    named = NAMED.findall(page.read_text(encoding="utf-8"))
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_page_that_names_a_file_too_many_is_found() -> None:
    assert NAMED.findall("see `actors/vm.py`, `sim/nowhere/` and `sim/*.py`") == [
        "actors/vm.py",
        "sim/nowhere/",
    ]


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = sorted(int(page.name[:4]) for page in (ROOT / "docs" / "decisions").glob("*.md"))
    assert numbers == list(range(len(numbers)))


@pytest.mark.parametrize(
    "page", sorted((ROOT / "docs" / "decisions").glob("*.md")), ids=lambda page: page.stem
)
def test_decision_has_the_four_sections(page: Path) -> None:
    assert re.findall(r"^## (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE) == SECTIONS

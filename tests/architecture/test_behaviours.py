"""Behaviours name no clock, no chance and no set order; and the check that says so finds each of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architecture.purity import impurities
from tests.architecture.source import BEHAVIOURS, ROOT, behaviour_paths, module_name, simulated_paths


def test_behaviours_are_all_found() -> None:
    found = {path.relative_to(ROOT / "actors").parts[0].removesuffix(".py") for path in behaviour_paths()}
    assert set(BEHAVIOURS) <= found


@pytest.mark.parametrize("path", behaviour_paths(), ids=module_name)
def test_behaviour_source_names_nothing_that_differs_between_runs(path: Path) -> None:
    assert impurities(path.read_text(encoding="utf-8")) == []


# Streams that are keyed by seed and purpose are the one source of chance; how long a run took is for people to read.
SEEDED = frozenset({"imports random", "imports random.Random"})
TIMED = frozenset(
    {"sim.explore", "sim.mutants.hunting", "sim.runs", "sim.sweep", "sim.sweeping"},
)


@pytest.mark.parametrize("path", simulated_paths(), ids=module_name)
def test_source_of_what_a_simulated_run_is_made_of_names_nothing_that_differs_between_runs(
    path: Path,
) -> None:
    module = module_name(path)
    allowed = (SEEDED if module.startswith("sim.") else frozenset()) | (
        {"imports time"} if module in TIMED else frozenset()
    )
    found = [fault.partition(": ")[2] for fault in impurities(path.read_text(encoding="utf-8"))]
    assert [what for what in found if what not in allowed] == []


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "from time import monotonic_ns",
        "import random as r",
        "import uuid",
        "def lazily():\n    import secrets",
        "from os import urandom",
        "import os\nkey = os.urandom(8)",
        "from datetime import datetime\nat = datetime.now()",
        "import datetime\nat = datetime.datetime.utcnow()",
        "for host in {'a', 'b'}: pass",
        "for host in set(hosts): pass",
        "names = [name for name in frozenset(hosts)]",
        "names = {name: 1 for name in {host for host in hosts}}",
        "names = list({*hosts})",
        "names = list(name for name in set(hosts))",
        "text = ','.join(set(hosts))",
        "pair = (*set(hosts),)",
        "left = set(hosts) - gone\nfor host in left: pass",
        "def f(hosts: set[str]):\n    return [host for host in hosts]",
        "for host in set(hosts).union(others): pass",
        "bucket = hash(name) % 8",
    ],
)
def test_impurity_planted_is_found(source: str) -> None:
    assert len(impurities(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "for host in sorted({'a', 'b'}): pass",
        "count = len(set(hosts))",
        "found = any(host in gone for host in set(hosts))",
        "names = sorted(name for name in set(hosts))",
        "hosts = set(hosts)\nhosts = sorted(hosts)\nfor host in hosts: pass",
        "def f(now_ns: int):\n    return turn.now_ns - now_ns",
        "from datetime import timedelta",
        "difference = left - right\nfor x in [difference]: pass",
    ],
)
def test_purity_of_ordered_use_is_accepted(source: str) -> None:
    assert impurities(source) == []

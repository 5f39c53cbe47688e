"""Planted bugs: each still stands where it was planted, and some of them are found within a minute."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from olvm.model.errors import BadInput
from sim.mutants.catalogue import MUTANTS, mutant_named
from sim.mutants.hunting import hunt
from sim.mutants.page import page_of
from sim.mutants.planting import Mutant, mutated
from sim.swarm import draw_plan

# Among the fastest, each found by another oracle; `olvm sim mutants` hunts all.
QUICK = (
    "silo-restarts-event-numbers",
    "engine-remembers-too-few-requests",
    "vm-takes-silence-for-death",
    "fence-order-is-proof",
    "cluster-releases-any-epoch",
    "maintenance-forgets-a-machine",
)
SECONDS = 60.0


def source_of(mutant: Mutant) -> str:
    spec = importlib.util.find_spec(mutant.module)
    assert spec is not None, f"{mutant.name}: there is no module {mutant.module}"
    assert spec.origin is not None, f"{mutant.name}: module {mutant.module} has no file"
    return Path(spec.origin).read_text(encoding="utf-8")


def _say_nothing(_: str) -> None:
    """Progress that nobody watches."""


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_place_stands_exactly_once_and_its_bug_compiles(mutant: Mutant) -> None:
    source = source_of(mutant)
    planted = mutated(source, mutant)
    assert planted != source
    compile(planted, mutant.module, "exec")


def test_mutants_are_enough_over_all_modules_and_named_once() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 45
    assert sum(mutant.pair for mutant in MUTANTS) >= 8
    assert len({mutant.module for mutant in MUTANTS}) >= 20


def test_mutant_whose_place_is_gone_is_refused() -> None:
    mutant = Mutant(name="late", module="actors.vm", old="no such text", new="", says="")
    with pytest.raises(BadInput, match="stands 0 times"):
        mutated("anything", mutant)


def test_plan_that_favours_a_fault_has_more_of_it() -> None:
    def share(favour: tuple[str, ...]) -> float:
        steps = [step for seed in range(1, 6) for step in draw_plan(seed, hosts=3, favour=favour).steps]
        return sum(step.what == "crash_host" for step in steps) / len(steps)

    assert share(("crash_host",)) > 2 * share(())


def test_plan_that_favours_what_does_not_exist_is_refused() -> None:
    with pytest.raises(BadInput, match="crash_moon"):
        draw_plan(1, favour=("crash_moon",))


def test_quick_mutants_are_all_killed_each_by_a_seed_that_is_green_without_it() -> None:
    kills = hunt([mutant_named(name) for name in QUICK], 2, SECONDS, _say_nothing)
    survivors = [kill.mutant for kill in kills if not kill.oracle]
    assert not survivors
    assert all(kill.seed not in kill.red_seeds for kill in kills)
    page = page_of(kills)
    assert all(f"`{name}`" in page for name in QUICK)

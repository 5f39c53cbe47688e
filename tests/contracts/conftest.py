"""The backends of `hypervisor_benches.py` as fixtures. Modules with a `bench` or `pair` of their own use that."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contracts.hypervisor_benches import BENCHES, PAIRS
from tests.unit.hypervisor_backends.bench import (
    Bench,
    check_each_life_ends_once,
)


@pytest.fixture(params=sorted(PAIRS))
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Bench, Bench]]:
    made = PAIRS[request.param]()
    yield made
    for bench in made:
        check_each_life_ends_once(bench.events)
        bench.backend.close()


@pytest.fixture(params=sorted(BENCHES))
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = BENCHES[request.param]()
    yield made
    check_each_life_ends_once(made.events)
    made.backend.close()

"""The backends of `hypervisor_benches.py`, and one running machine, as fixtures.

Modules with a `bench`, `pair` or `tasks` of their own use that.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hypervisor_backends.simulated_config import SimulatedConfig
from tests.contracts.hypervisor_benches import BENCHES, PAIRS
from tests.unit.hypervisor_backends.bench import (
    Bench,
    check_each_life_ends_once,
)
from tests.unit.hypervisor_backends.task_bench import TaskBench, simulated_task_bench

TASK_CONFIGS = {"simulated": SimulatedConfig(), "simulated_instant": SimulatedConfig.instant()}


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


@pytest.fixture(params=sorted(TASK_CONFIGS))
def tasks(request: pytest.FixtureRequest) -> Iterator[TaskBench]:
    """One running machine of a backend that declares tasks; real libvirt's is in `tests/libvirt/test_task_contract.py`.

    Where booting one takes seconds the tests share it, so each leaves it as it found it, and takes names of its own.
    """
    made, hypervisor = simulated_task_bench(TASK_CONFIGS[request.param])
    yield made
    hypervisor.close()

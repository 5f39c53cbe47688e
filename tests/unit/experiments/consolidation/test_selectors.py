"""Which machine leaves a host: by hand, and the multiple correlation against a plain least-squares solver."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from olvm.experiments.consolidation.plant import SAMPLE_COUNT, build_plant, empty_state
from olvm.experiments.consolidation.selectors import (
    MC,
    MMT,
    MU,
    RS,
    chosen_guest,
    explained_share,
    least_memory,
    least_utilised,
    most_correlated,
)

GUESTS = np.array([2, 0, 3, 1], dtype=np.int32)


def test_mmt_takes_the_first_of_the_least_memory() -> None:
    assert least_memory(GUESTS, np.array([870, 1740, 1740, 870])) == 1


def test_mu_takes_the_first_of_the_idlest_for_its_size() -> None:
    demand = np.array([500.0, 100.0, 250.0, 100.0])
    assert least_utilised(GUESTS, demand, np.array([2500.0, 2000.0, 1000.0, 500.0])) == 3
    assert least_utilised(GUESTS, demand, np.array([2500.0, 500.0, 1250.0, 500.0])) == 0


def test_mc_takes_the_machine_that_the_others_explain() -> None:
    steps = np.arange(12.0)
    one, other = np.sin(steps), np.cos(2 * steps)
    mixed = one + other + 0.01 * np.sin(40 * steps)
    odd = np.cos(17 * steps) * 3
    # `mixed` is nearly the sum of two others; each of those is explained by `mixed` and its fellow as well.
    past = np.stack([odd, one, mixed, other])
    assert most_correlated(past) == int(np.argmax([plain_r2(past, vm) for vm in range(4)]))
    assert most_correlated(past) != 0


def test_mc_with_too_few_samples_or_machines_cannot_say() -> None:
    assert most_correlated(np.array([[0.1, 0.2, 0.3]])) == -1
    assert most_correlated(np.random.default_rng(1).random((4, 3))) == -1


def test_mc_of_a_machine_that_never_did_anything_cannot_say() -> None:
    past = np.random.default_rng(1).random((3, 12))
    past[1] = 0.0
    assert most_correlated(past) == -1


def plain_r2(past: np.ndarray[tuple[int, int], np.dtype[np.float64]], vm: int) -> float:
    others = np.delete(past, vm, axis=0)
    design = np.vstack([np.ones(past.shape[1]), others]).T
    rest = past[vm] - design @ np.linalg.lstsq(design, past[vm])[0]
    return float(1 - rest @ rest / np.sum((past[vm] - past[vm].mean()) ** 2))


@settings(deadline=None)  # the first example compiles
@given(st.integers(2, 6), st.integers(0, 10_000))
def test_explained_share_is_that_of_a_plain_solver(vm_count: int, seed: int) -> None:
    past = np.random.default_rng(seed).random((vm_count, 12))
    columns = np.vstack([np.ones(12), past[1:]])
    assert explained_share(columns, past[0]) == pytest.approx(plain_r2(past, 0), abs=1e-9)


@settings(deadline=None)  # the first example compiles
@given(st.integers(2, 6), st.integers(0, 10_000))
def test_mc_takes_the_highest_of_a_plain_solver(vm_count: int, seed: int) -> None:
    past = np.random.default_rng(seed).integers(0, 100, (vm_count, 30)) / 100
    shares = [plain_r2(past, vm) for vm in range(vm_count)]
    ordered = sorted(shares)
    assume(vm_count == 2 or ordered[-1] - ordered[-2] > 1e-9)
    chosen = most_correlated(past)
    assert shares[chosen] == pytest.approx(ordered[-1], abs=1e-9)


@pytest.mark.parametrize(("selector", "place"), [(MMT, 2), (MU, 0), (MC, 2), (RS, 2)])
def test_selector_is_found_by_its_number(selector: int, place: int) -> None:
    plant, state = build_plant(np.full((4, SAMPLE_COUNT), 0.5)), empty_state(4, 800)
    state.demand[:] = (1250.0, 1000.0, 100.0, 250.0)
    # Nothing is recorded: MC falls back to MMT. The first draw of this stream is 0.51.
    draw = np.random.default_rng(1)
    assert chosen_guest(plant, state, selector, GUESTS, draw) == place

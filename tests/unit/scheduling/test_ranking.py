"""The rank selector against a table computed by hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from olvm.scheduling.ranking import ranks_of, scores_of


def test_rank_selector_on_four_hosts_gives_the_scores_computed_by_hand() -> None:
    # host                A    B    C    D
    cpu_weights = [300, 100, 300, 900]  # B is best: 3; A and C tie behind one host: 2; D: 0
    memory_weights = [1, 1, 1, 0]  # D is best: 3; the other three tie behind it: 2
    assert ranks_of(cpu_weights) == [2, 3, 2, 0]
    assert ranks_of(memory_weights) == [2, 2, 2, 3]
    assert scores_of([cpu_weights, memory_weights], [2, 1]) == [6, 8, 6, 3]


def test_rank_selector_with_all_weights_equal_gives_every_host_the_highest_rank() -> None:
    assert ranks_of([7, 7, 7]) == [2, 2, 2]


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=12))
def test_rank_is_the_number_of_other_hosts_that_are_not_better(weights: list[int]) -> None:
    not_better = [sum(other >= weight for other in weights) - 1 for weight in weights]
    assert ranks_of(weights) == not_better


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=12))
def test_rank_depends_on_order_not_on_magnitude(weights: list[int]) -> None:
    assert ranks_of([weight**3 * 1000 for weight in weights]) == ranks_of(weights)

"""The bag of numbers behaves as a sorted list."""

from __future__ import annotations

from bisect import bisect_left, insort

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olvm.scheduling import sorted_numbers
from olvm.scheduling.sorted_numbers import SortedNumbers

numbers = st.integers(-5, 30)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.booleans(), numbers), max_size=120), st.integers(2, 9))
def test_bag_of_any_history_equals_a_sorted_list(
    history: list[tuple[bool, int]], block_length_max: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorted_numbers, "BLOCK_LENGTH_MAX", block_length_max)
        bag, plain = SortedNumbers(), list[int]()
        for is_added, number in history:
            if is_added or number not in plain:
                bag.add(number)
                insort(plain, number)
            else:
                bag.remove(number)
                plain.remove(number)
            assert list(bag) == plain
            assert (len(bag), bool(bag)) == (len(plain), bool(plain))
            assert not plain or bag.highest == plain[-1]
            for limit in (number - 1, number, number + 1):
                at = bisect_left(plain, limit)
                assert bag.count_from(limit) == len(plain) - at
                assert bag.below(limit) == (plain[at - 1] if at else None)

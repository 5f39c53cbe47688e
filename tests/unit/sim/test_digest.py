"""One number for a run: the same for the same run, and the first difference named for others."""

from __future__ import annotations

import pytest

from sim.digest import Digest, first_difference


def noted(*entries: tuple[int, bytes, bytes], keeps_trail: bool = True) -> Digest:
    digest = Digest(keeps_trail=keeps_trail)
    for entry in entries:
        digest.note(*entry)
    return digest


ENTRIES = ((1, b"a>b", b"x"), (2, b"disk/engine", b"y"), (3, b"a>b", b"z"))


def test_digest_is_the_same_whenever_it_is_asked() -> None:
    one, other = noted(*ENTRIES), Digest()
    for entry in ENTRIES:
        other.note(*entry)
        other.hexdigest()
    assert one.hexdigest() == one.hexdigest() == other.hexdigest()
    assert one.entry_count == 3


@pytest.mark.parametrize(
    "changed", [(9, b"disk/engine", b"y"), (2, b"disk/other!", b"y"), (2, b"disk/engine", b"Y")]
)
def test_digest_differs_by_time_place_and_content(changed: tuple[int, bytes, bytes]) -> None:
    one, other = noted(*ENTRIES), noted(ENTRIES[0], changed, ENTRIES[2])
    assert one.hexdigest() != other.hexdigest()
    assert one.trail is not None
    assert other.trail is not None
    assert first_difference(one.trail, other.trail) == 1


def test_first_difference_of_a_run_that_ends_earlier_is_its_end() -> None:
    one, other = noted(*ENTRIES).trail, noted(*ENTRIES[:2]).trail
    assert one is not None
    assert other is not None
    assert first_difference(one, other) == 2
    assert first_difference(one, one) is None


def test_digest_folds_many_entries_without_keeping_them() -> None:
    digest = Digest()
    for number in range(10_000):
        digest.note(number, b"a>b", b"x" * 10)
    assert digest.trail is None
    assert len(digest._pieces) < 3_000

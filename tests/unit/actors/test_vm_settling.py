"""Every pair of words of a migration whose outcome is open, and why it is decided so."""

from __future__ import annotations

from itertools import product
from typing import get_args

import pytest

from actors.vm_settling import SETTLEMENT, SOURCE_OVER, Settlement, SourceWord, TargetWord

D = Settlement
SOURCES, TARGETS = get_args(SourceWord), get_args(TargetWord)

# (source, target, decision): one line for each pair, with its reason.
CASES: list[tuple[SourceWord, TargetWord, Settlement]] = [
    ("", "", D.WAIT),  # nothing is known of either
    ("", "waiting", D.WAIT),  # the source may be about to hand over
    ("", "arrived", D.HAND_OVER),  # the target has it; the source does not run any more
    ("", "gone", D.STOP_SENDING),  # the order to send may be on its way, and the target take it in
    ("", "dead", D.WAIT),  # it may have run on the target: the source may be out of date
    ("", "lost", D.WAIT),  # it may be on either side
    ("silent", "", D.WAIT),  # it may be on either side
    ("silent", "waiting", D.WAIT),  # the source may be about to hand over
    ("silent", "arrived", D.HAND_OVER),  # the target has it; the source does not run any more
    (
        "silent",
        "gone",
        D.STAY,
    ),  # nobody but the source can have it, and whoever may take it over need not wait
    ("silent", "dead", D.WAIT),  # it may have run on the target: the source may be out of date
    ("silent", "lost", D.WAIT),  # it may be on either side
    ("migrating", "", D.WAIT),  # it goes on
    ("migrating", "waiting", D.WAIT),  # it goes on
    ("migrating", "arrived", D.HAND_OVER),  # the source has not noticed yet, or serves memory in post-copy
    ("migrating", "gone", D.STOP_SENDING),  # what is under way may still be taken in, and run
    ("migrating", "dead", D.WAIT),  # the source will say whether it had handed over
    ("migrating", "lost", D.WAIT),  # the migration itself may go on
    ("alive", "", D.WAIT),  # the order to send may still come to the source
    ("alive", "waiting", D.STOP_SENDING),  # only a source that has promised to send nothing surely stays
    ("alive", "arrived", D.HAND_OVER),  # what the source said is older
    ("alive", "gone", D.STOP_SENDING),  # the order to send may still come, and the target take it in
    ("alive", "dead", D.STOP_SENDING),  # the source runs, and the order to send may still come
    ("alive", "lost", D.WAIT),  # the order to send may still come to the source
    ("running", "", D.STAY),  # the source has failed to send: the target can never run
    ("running", "waiting", D.STAY),  # the same
    ("running", "arrived", D.HAND_OVER),  # both cannot be true; a state that has arrived is the newer one
    ("running", "gone", D.STAY),  # the source runs
    ("running", "dead", D.STAY),  # the source runs, so the target did not
    ("running", "lost", D.STAY),  # the source runs: the target can never run
    ("post_migrate", "", D.WAIT),  # the target may have it
    ("post_migrate", "waiting", D.END_TARGET),  # it may start by itself: all was sent to it
    ("post_migrate", "arrived", D.HAND_OVER),  # the missing word
    ("post_migrate", "gone", D.CONTINUE),  # it never ran there, and never will: the source's memory counts
    ("post_migrate", "dead", D.END_SOURCE),  # it may have run there: the source's memory may be out of date
    ("post_migrate", "lost", D.WAIT),  # it may run there
    ("handed_over", "", D.HAND_OVER),  # the source has the target's word
    ("handed_over", "waiting", D.HAND_OVER),  # the same; the target's agent has not noticed yet
    ("handed_over", "arrived", D.HAND_OVER),  # both agree
    ("handed_over", "gone", D.DOWN),  # both are over
    ("handed_over", "dead", D.DOWN),  # it was there and is over
    ("handed_over", "lost", D.ADOPT),  # it is there, and nobody knows how it stands
    ("gone", "", D.WAIT),  # all may have been sent before the source ended
    ("gone", "waiting", D.END_TARGET),  # the same: it may start by itself
    ("gone", "arrived", D.HAND_OVER),  # it had been sent
    ("gone", "gone", D.DOWN),  # both are over
    ("gone", "dead", D.DOWN),  # both are over
    ("gone", "lost", D.ADOPT),  # whatever there is of it is there
    ("dead", "", D.WAIT),  # all may have been sent before the host died
    ("dead", "waiting", D.END_TARGET),  # the same: it may start by itself
    ("dead", "arrived", D.HAND_OVER),  # it had been sent
    ("dead", "gone", D.DOWN),  # both are over
    ("dead", "dead", D.DOWN),  # both are over
    ("dead", "lost", D.ADOPT),  # whatever there is of it is there
]


def test_settlement_of_every_pair_is_decided_and_has_a_reason() -> None:
    pairs = set(product(SOURCES, TARGETS))
    assert set(SETTLEMENT) == pairs
    assert {(source, target) for source, target, _ in CASES} == pairs
    assert len(CASES) == len(pairs)


@pytest.mark.parametrize(("source", "target", "decision"), CASES)
def test_settlement_of_a_pair_is_as_reasoned(
    source: SourceWord, target: TargetWord, decision: Settlement
) -> None:
    assert SETTLEMENT[source, target] is decision


@pytest.mark.parametrize(("source", "target"), sorted(SETTLEMENT))
def test_settlement_never_lets_a_copy_run_beside_one_that_may(source: str, target: str) -> None:
    decision = SETTLEMENT[source, target]
    if target == "arrived":
        assert decision is D.HAND_OVER, "the newest state is on the target"
    if decision is D.DOWN:
        assert source in SOURCE_OVER, "it may be started again while its source runs"
        assert target in ("gone", "dead"), "it may be started again while its target may run"
    if decision is D.CONTINUE:
        assert (source, target) == ("post_migrate", "gone")
    if decision is D.STAY:
        assert source == "running" or (source, target) == ("silent", "gone"), (
            "the target may run beside its source"
        )
        assert source not in SOURCE_OVER
    if decision in (D.HAND_OVER, D.ADOPT):
        assert source in SOURCE_OVER or target == "arrived", "the source may run beside its target"

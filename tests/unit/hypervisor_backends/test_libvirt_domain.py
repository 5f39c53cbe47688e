"""One look at a domain: its state and its number belong to one life."""

from __future__ import annotations

from typing import cast

import pytest

libvirt = pytest.importorskip("libvirt", reason="libvirt-python is not installed (`make apt-libvirt`)")

from hypervisor_backends.libvirt_domain import seen_of  # noqa: E402

OFF = (libvirt.VIR_DOMAIN_SHUTOFF, 0)
RUNS = (libvirt.VIR_DOMAIN_RUNNING, 0)
NOBODY = -1


class Story:
    """A domain whose numbers and states are told one look-up and one question after the other."""

    def __init__(self, numbers: list[int], states: list[tuple[int, int]]) -> None:
        self.numbers = numbers
        self.states = states

    def lookupByUUIDString(self, _uuid: str) -> Handle:  # noqa: N802 - libvirt's name
        return Handle(self)


class Handle:
    """As libvirt's: the number is of the look-up, the state is of now."""

    def __init__(self, story: Story) -> None:
        self._story = story
        self._number = story.numbers.pop(0)

    def ID(self) -> int:  # noqa: N802 - libvirt's name
        return self._number

    def UUIDString(self) -> str:  # noqa: N802 - libvirt's name
        return "u"

    def state(self, _flags: int) -> tuple[int, int]:
        return self._story.states.pop(0)

    def connect(self) -> Story:
        return self._story


def seen(numbers: list[int], states: list[tuple[int, int]]) -> tuple[str, int]:
    handle = Handle(Story(numbers, states))
    one = seen_of(cast("libvirt.virDomain", handle))
    return one.execution, one.number


@pytest.mark.parametrize(
    ("numbers", "states", "expected"),
    [
        ([4, 4], [RUNS], ("runs", 4)),
        # It arrived after the look-up: the handle knows no number, and the state is of the life that has one.
        ([NOBODY, 4, 4], [RUNS, RUNS], ("runs", 4)),
        ([4, 5, 5], [RUNS, RUNS], ("runs", 5)),
        ([NOBODY, 4], [RUNS, OFF], ("off", NOBODY)),
        ([4], [OFF], ("off", NOBODY)),
    ],
)
def test_domain_looked_at_while_it_begins_has_state_and_number_of_one_life(
    numbers: list[int], states: list[tuple[int, int]], expected: tuple[str, int]
) -> None:
    assert seen(numbers, states) == expected

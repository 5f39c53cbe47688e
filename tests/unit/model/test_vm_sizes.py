"""How a task changes a machine's size, and which of two sizes a measured machine has."""

from __future__ import annotations

import pytest

from olvm.model.errors import BadInput, Conflict
from olvm.model.vm_sizes import SIZE_TASKS, Resize, Size, plugged_after, size_after, was_done
from olvm.model.vm_tasks import VM_TASKS

GIB = 1024**3
NOW = Size(2, 3 * GIB)
PLUGGED = {"m0": GIB}


def test_size_tasks_are_tasks() -> None:
    assert VM_TASKS.keys() >= SIZE_TASKS


@pytest.mark.parametrize(
    ("verb", "arguments", "after"),
    [
        ("set_vcpus", {"vcpus": 4}, Size(4, 3 * GIB)),
        ("set_vcpus", {"vcpus": 1}, Size(1, 3 * GIB)),
        ("plug_memory", {"name": "m1", "size_bytes": 2 * GIB}, Size(2, 5 * GIB)),
        ("plug_memory", {"name": "m0", "size_bytes": GIB}, NOW),
        ("unplug_memory", {"name": "m0"}, Size(2, 2 * GIB)),
        ("unplug_memory", {"name": "m9"}, NOW),
    ],
)
def test_size_after_a_task(verb: str, arguments: dict[str, str | int], after: Size) -> None:
    assert size_after(NOW, PLUGGED, verb, arguments) == after  # type: ignore[arg-type]


def test_size_of_no_machine_is_refused() -> None:
    with pytest.raises(BadInput, match="vcpus"):
        size_after(NOW, PLUGGED, "set_vcpus", {"vcpus": 0})
    with pytest.raises(BadInput, match="size_bytes"):
        size_after(NOW, PLUGGED, "plug_memory", {"name": "m1", "size_bytes": -1})
    with pytest.raises(Conflict, match="m0"):
        size_after(NOW, PLUGGED, "plug_memory", {"name": "m0", "size_bytes": 2 * GIB})


def test_larger_is_larger_in_either_way() -> None:
    assert Size(3, GIB).exceeds(Size(2, 2 * GIB))
    assert Size(1, 2 * GIB).exceeds(Size(2, GIB))
    assert not Size(2, GIB).exceeds(Size(2, GIB))
    assert Size(3, GIB).or_more(Size(2, 2 * GIB)) == Size(3, 2 * GIB)


def test_devices_after_a_change() -> None:
    plug = Resize("op", "plug_memory", {"name": "m1", "size_bytes": 7}, "asked", 1, 1)
    assert plugged_after(PLUGGED, plug) == {"m0": GIB, "m1": 7}
    unplug = Resize("op", "unplug_memory", {"name": "m0"}, "asked", 1, 1)
    assert plugged_after(PLUGGED, unplug) == {}
    assert plugged_after(PLUGGED, Resize("op", "set_vcpus", {"vcpus": 1}, "asked", 1, 1)) == PLUGGED
    assert PLUGGED == {"m0": GIB}


@pytest.mark.parametrize(
    ("after", "measured", "done"),
    [
        (Size(4, 3 * GIB), Size(4, 3 * GIB), True),
        (Size(4, 3 * GIB), Size(2, 9 * GIB), False),
        (Size(2, 4 * GIB), Size(9, 4 * GIB - 1), True),
        (Size(2, 4 * GIB), Size(2, 3 * GIB + 1), False),
        (Size(2, 2 * GIB), Size(2, 2 * GIB), True),
        (Size(2, 2 * GIB), Size(2, 3 * GIB), False),
    ],
)
def test_nearer_size_is_the_one_that_it_has(after: Size, measured: Size, done: bool) -> None:
    assert was_done(NOW, after, measured) is done

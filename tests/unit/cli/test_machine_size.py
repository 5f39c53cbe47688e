"""What `olvm vm show` says of a machine's size beside its row."""

from __future__ import annotations

import pytest

from olvm.cli.machine_size import size_sentences
from olvm.model.records import VmRecord
from olvm.model.vm_sizes import Resize, ResizePhase
from tests.builders import GIB


def record(**fields: object) -> VmRecord:
    base: dict[str, object] = {
        "id": "v1",
        "name": "web",
        "cluster": "prod",
        "vcpus": 2,
        "memory_bytes": 4 * GIB,
    }
    return VmRecord(**(base | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize("now", [{}, {"now_vcpus": 2, "now_memory_bytes": 4 * GIB}])
def test_one_size_needs_no_words(now: dict[str, object]) -> None:
    assert size_sentences(record(**now)) == []


def test_size_now_and_at_the_next_start_are_told_apart() -> None:
    assert size_sentences(record(now_vcpus=1, now_memory_bytes=5 * GIB)) == [
        "web has 1 vCPU and 5GiB now, and 2 vCPUs and 4GiB at its next start."
    ]


@pytest.mark.parametrize(
    ("phase", "words"),
    [
        ("reserving", "is under way"),
        ("asked", "is under way"),
        ("unknown", "was not confirmed, and its host is asked"),
    ],
)
def test_change_of_size_says_what_is_reserved_until_its_end(phase: ResizePhase, words: str) -> None:
    plug = Resize("op-1", "plug_memory", {"name": "m0", "size_bytes": GIB}, phase, 2, 5 * GIB)
    assert size_sentences(record(resize=plug)) == [
        f"plug_memory {words}; until its end is known 2 vCPUs and 5GiB are reserved."
    ]
    unplug = Resize("op-1", "unplug_memory", {"name": "m0"}, phase, 2, 3 * GIB)
    assert "4GiB are reserved" in size_sentences(record(resize=unplug))[0]

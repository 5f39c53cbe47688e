"""Gives each test its folder's marker, runs the folders from cheap to dear, and deals them out to processes.

Order matters to the reader: a broken unit is named before the Ray test that it breaks, and Ray, which costs
seconds to start and leaves processes behind when it fails, comes last.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

# A shell that starts the tests in the background leaves SIGINT ignored, and every program they start would inherit
# that; the tests of Ctrl-C need what a terminal gives.
signal.signal(signal.SIGINT, signal.default_int_handler)


TESTS = Path(__file__).parent
FOLDERS_IN_ORDER = ("unit", "architecture", "contracts", "sim", "libvirt", "ray")
MARKED_FOLDERS = ("libvirt", "ray")
ALONE = "tests/ray"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = _folder(item)
        if folder in MARKED_FOLDERS:
            item.add_marker(folder)
    items.sort(key=lambda item: FOLDERS_IN_ORDER.index(_folder(item)))


def _folder(item: pytest.Item) -> str:
    folder = item.path.relative_to(TESTS).parts[0]
    if folder not in FOLDERS_IN_ORDER:
        raise pytest.UsageError(
            f"{item.path.name} is in tests/{folder}, which has no place in the order: "
            f"move it to one of {', '.join(FOLDERS_IN_ORDER)} (tests/README.md says which)"
        )
    return folder


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling:
    """With `--numprocesses`."""
    config.option.loadscopereorder = False  # folders keep their order
    return FilesThenRay(config, log)


class FilesThenRay(LoadFileScheduling):
    """A file is one process's. The folder that wants the machine for itself goes as a whole to the last process."""

    def _split_scope(self, nodeid: str) -> str:
        return ALONE if nodeid.startswith(f"{ALONE}/") else super()._split_scope(nodeid)

    def _reschedule(self, node: WorkerController) -> None:
        others = [other for other in self.nodes if other is not node and not other.shutting_down]
        if others and next(iter(self.workqueue), None) == ALONE and not node.shutting_down:
            node.shutdown()  # it ends what it has
        else:
            super()._reschedule(node)

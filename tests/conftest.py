"""Gives each test its folder's marker and runs the folders from cheap to dear.

Order matters to the reader: a broken unit is named before the Ray test that it breaks, and Ray, which costs
seconds to start and leaves processes behind when it fails, comes last.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

# A shell that starts the tests in the background leaves SIGINT ignored, and every program they start would inherit
# that; the tests of Ctrl-C need what a terminal gives.
signal.signal(signal.SIGINT, signal.default_int_handler)


TESTS = Path(__file__).parent
FOLDERS_IN_ORDER = ("unit", "architecture", "contracts", "sim", "libvirt", "ray")
MARKED_FOLDERS = ("libvirt", "ray")


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

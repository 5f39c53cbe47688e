"""Machine code on disk: never older than any source that it was made from, however deep."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from olvm.experiments.compilation import IS_COMPILED, sources_digest
from tests.architecture.source import ROOT

LEAF = """from olvm.experiments.compilation import {kind}

@{kind}
def leaf(x):
    return x + {step}
"""
MIDDLE = """from olvm.experiments.compilation import {kind}
from {package}.leaves import leaf

@{kind}
def middle(x):
    return leaf(x)
"""
TOP = """from olvm.experiments.compilation import {entry}
from {package}.middles import middle

@{entry}
def top(digest):
    def top(x):
        assert digest >= 0
        return middle(x)
    return top

print(top(1))
"""


def answer(folder: Path, package: str) -> int:
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-m", f"{package}.tops"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize(("kind", "entry"), [("compiled", "entry"), ("allocating", "allocating_entry")])
def test_changed_leaf_of_an_unchanged_caller_is_seen(tmp_path: Path, kind: str, entry: str) -> None:
    assert IS_COMPILED, "the extra `experiments` is part of `dev`: numba must be here"
    package = f"layers_{kind}"
    folder = tmp_path / package
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "middles.py").write_text(MIDDLE.format(kind=kind, package=package), encoding="ascii")
    (folder / "tops.py").write_text(TOP.format(entry=entry, package=package), encoding="ascii")
    (folder / "leaves.py").write_text(LEAF.format(kind=kind, step=1), encoding="ascii")

    assert answer(tmp_path, package) == 2
    kept = sorted((folder / "__pycache__").glob("*.nbi"))
    assert [path.name.split(".")[0] for path in kept] == ["tops"]
    (folder / "leaves.py").write_text(LEAF.format(kind=kind, step=41), encoding="ascii")
    assert answer(tmp_path, package) == 42


def test_digest_changes_with_text_and_name_of_a_module(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n", encoding="ascii")
    first = sources_digest(tmp_path)
    assert sources_digest(tmp_path) == first
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    renamed = sources_digest(tmp_path)
    (tmp_path / "b.py").write_text("x = 2\n", encoding="ascii")
    assert len({first, renamed, sources_digest(tmp_path)}) == 3

"""The first experiment after an installation compiles; who waits for it is told why, once."""

from __future__ import annotations

import subprocess
import sys

from tests.architecture.source import ROOT

PROGRAM = """
import numba
from olvm.cli.compilation_note import note_compilation

note_compilation()
print("before", flush=True)
double = numba.njit(lambda x: 2 * x)
print(double(1), double(1.5), double(2))
"""


def test_a_compilation_is_told_once() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == "before\n2 3.0 4\n"
    assert done.stderr.count("olvm: compiling") == 1, done.stderr

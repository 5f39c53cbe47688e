"""The whole of it: engine on Ray, agents on two hosts, libvirt, QEMU, guests; as the demo tells it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

WITHIN_S = 290
STEPS = (
    "both hosts are up, each agent on its own node",
    "booted:",
    "every guest told who it is",
    "live statistics of every machine",
    "while it ran",
    "it is the same boot",
    "after its QEMU was killed",
    "was lost",
    "history had no value to doubt",
)


@pytest.mark.slow
@pytest.mark.timeout(WITHIN_S + 30)
def test_demo_on_kvm_moves_kills_and_brings_back_real_machines(cache: Path) -> None:
    del cache  # the demo finds it by itself
    command = [str(Path(sys.executable).with_name("olvm")), "demo", "--kvm"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    for step in STEPS:
        lines = [line for line in told.stdout.splitlines() if step in line]
        assert lines, f"{step} is missing in:\n{told.stdout}"
        assert all("!!" not in line for line in lines)
    assert "All is well." in told.stdout

"""The whole of it: engine on Ray, agents on two hosts, libvirt, QEMU, guests; as the demo tells it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

WITHIN_S = 290
ENDS_WITHIN_S = 40
COMMAND = [str(Path(sys.executable).with_name("olvm")), "demo", "--kvm"]
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
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as demo:
        try:
            told, _ = demo.communicate(timeout=WITHIN_S)
        except KeyboardInterrupt:
            demo.wait(ENDS_WITHIN_S)  # it has heard that too, and clears its stage
            raise
        except subprocess.TimeoutExpired:
            demo.terminate()
            raise
    assert demo.returncode == 0, told
    for step in STEPS:
        lines = [line for line in told.splitlines() if step in line]
        assert lines, f"{step} is missing in:\n{told}"
        assert all("!!" not in line for line in lines)
    assert "All is well." in told


@pytest.mark.timeout(WITHIN_S)
def test_demo_on_kvm_interrupted_at_the_terminal_clears_its_stage(cache: Path) -> None:
    """Ctrl-C there is for the whole group: what the demo needs to clear its stage must not end by it."""
    del cache
    before = left_by_demos()
    with subprocess.Popen(
        COMMAND, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as demo:
        assert demo.stdout is not None
        told = [next(line for line in demo.stdout if "both hosts are up" in line)]
        os.killpg(demo.pid, signal.SIGINT)
        try:
            told.append(demo.communicate(timeout=ENDS_WITHIN_S)[0])
        except subprocess.TimeoutExpired:
            os.killpg(demo.pid, signal.SIGKILL)
            pytest.fail(f"it did not end within {ENDS_WITHIN_S} s")
    assert (demo.returncode, told[-1].splitlines()[-1:]) == (130, ["olvm: interrupted"]), told
    assert left_by_demos() <= before


def left_by_demos() -> set[str]:
    spaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    directories = [*Path("/var/tmp").glob("olvm-kvm-*"), *Path("/tmp").glob("olvm-ray-*")]
    return {str(path) for path in directories} | {
        line for line in spaces.splitlines() if line.startswith("olvm-demo-")
    }

"""QEMU processes found and ended without libvirt: real processes stand in for them."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest

from hypervisor_backends.libvirt_processes import (
    boot_id_of,
    cpu_ns_of,
    kill_qemu,
    qemu_pids,
    started_ns_of,
)

SLEEPER = "import sys; print(flush=True); sys.stdin.read()"


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """Called as QEMU is, with the machine's UUID."""
    name = str(uuid.uuid4())
    command = ["qemu-system-x86_64", "-c", SLEEPER, "-name", "x", "-uuid", name]
    process = subprocess.Popen(
        command, executable=sys.executable, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()  # its command line is there a moment after it was begun
    process.uuid = name  # type: ignore[attr-defined]
    yield process
    process.kill()
    process.wait()
    assert process.stdin is not None
    process.stdin.close()
    process.stdout.close()


def test_qemu_is_found_by_its_uuid_and_killed(sleeper: subprocess.Popen[bytes]) -> None:
    name: str = sleeper.uuid  # type: ignore[attr-defined]
    assert qemu_pids("/")[name] == sleeper.pid
    assert started_ns_of(f"/proc/{sleeper.pid}") > 0

    assert kill_qemu("/", name)
    assert sleeper.wait(20) == -9
    assert not kill_qemu("/", str(uuid.uuid4()))


def test_process_that_is_gone_gives_zeros() -> None:
    assert started_ns_of("/proc/0") == 0
    assert cpu_ns_of(2**22 + 1) == (0, 0)


def test_boot_id_is_the_same_until_the_next_boot() -> None:
    assert boot_id_of("/") == boot_id_of("/")
    assert len(boot_id_of("/")) > 36

"""The tiny guest that KVM must run: whatever is wrong with the machine, the verdict comes in time and says why."""

from __future__ import annotations

import shutil

import pytest

from hypervisor_backends.kvm_probe import QEMU, _probe


def test_emulator_that_is_not_there_is_no_kvm() -> None:
    runs, why = _probe("/no/such/qemu", "kvm", "host", "boot-1")

    assert not runs
    assert "/no/such/qemu" in why


def test_program_that_is_no_emulator_is_no_kvm() -> None:
    runs, why = _probe(shutil.which("false") or "false", "kvm", "host", "boot-1")

    assert not runs
    assert "ended with 1" in why


def test_guest_of_the_probe_runs_where_emulation_does() -> None:
    if shutil.which(QEMU) is None:
        pytest.skip(f"{QEMU} is not installed (`make apt-libvirt`)")

    assert _probe(QEMU, "tcg", "max", "boot-1") == (True, "a tiny guest ran on it")

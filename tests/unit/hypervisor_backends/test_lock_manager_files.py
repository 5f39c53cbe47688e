"""Files that a lock manager must find: made once, and never written again. sanlock's program is a script here."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

pytest.importorskip("libvirt", reason="libvirt-python is not installed (`make apt-libvirt`)")

from hypervisor_backends import sanlock_program
from hypervisor_backends.domain_metadata import domain_uuid
from hypervisor_backends.domain_xml import XmlContext
from hypervisor_backends.libvirt_settings import libvirt_settings_from
from hypervisor_backends.libvirt_task_context import TaskContext, TaskRefused
from hypervisor_backends.lock_manager_files import make_lock_file

# Its last argument is area:<key>:<path>:0, whose path has no colon in these tests.
WRITES = 'path=${4%:0}; path=${path##*:}; test -f "$path" && echo "$4" > "$path"'


class Bench:
    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.leases = directory / "leases"
        self.lockspace = self.leases / "area-sanlock" / "lockspace"
        self.lockspace.parent.mkdir(parents=True)
        self.lockspace.touch(0o640)
        self.programs = directory / "bin"
        self.programs.mkdir()
        monkeypatch.setattr(sanlock_program, "PROGRAM_PATH", str(self.programs))

    @property
    def lease(self) -> Path:
        return self.lockspace.parent / domain_uuid("v1")

    def files(self) -> list[str]:
        return sorted(path.name for path in self.lockspace.parent.iterdir())

    def program(self, script: str) -> None:
        path = self.programs / "sanlock"
        path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
        path.chmod(0o755)

    def make(self, host: str = "h1", lock_manager: str = "sanlock") -> None:
        settings = libvirt_settings_from({"lock_manager": lock_manager, "lease_directory": str(self.leases)})
        xml, features = XmlContext(), frozenset[str]()
        context = TaskContext(host=host, settings=settings, xml=xml, features=features, now_ns=time.time_ns)  # type: ignore[arg-type]
        make_lock_file("v1", context)

    def refused(self) -> str:
        with pytest.raises(TaskRefused) as refused:
            self.make()
        failure = refused.value.failure
        assert (failure.code, failure.can_retry) == ("call_failed", True)
        assert self.files() == ["lockspace"], "what was begun is taken away"
        return failure.message


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_lease_is_written_by_sanlock_and_belongs_to_whom_the_lockspace_does(bench: Bench) -> None:
    bench.program(WRITES)
    bench.make()
    assert (
        bench.lease.read_text()
        == f"area:{domain_uuid('v1')}:{bench.lockspace.parent}/{domain_uuid('v1')}.h1.new:0\n"
    )
    assert bench.lease.stat().st_mode & 0o777 == 0o640
    assert bench.files() == sorted(["lockspace", domain_uuid("v1")])


def test_lease_that_is_there_is_never_written_again(bench: Bench) -> None:
    bench.program("exit 1")
    bench.lease.write_text("held by h2")
    bench.make()
    assert bench.lease.read_text() == "held by h2"


def test_lease_that_another_host_made_meanwhile_is_kept(bench: Bench) -> None:
    bench.program(f'{WRITES}; echo "held by h2" > {bench.lease}')
    bench.make()
    assert bench.lease.read_text() == "held by h2\n"
    assert bench.files() == sorted(["lockspace", domain_uuid("v1")])


def test_lockspace_that_is_not_there_is_named_with_what_makes_it(bench: Bench) -> None:
    bench.program(WRITES)
    bench.lockspace.unlink()
    with pytest.raises(TaskRefused) as refused:
        bench.make()
    assert str(bench.lockspace) in refused.value.failure.message
    assert "olvm host check --lock-manager sanlock" in refused.value.failure.message
    assert bench.files() == []


def test_program_that_is_missing_fails_or_hangs_leaves_no_lease(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "not installed" in bench.refused()
    bench.program("echo init done -5; exit 1")
    assert "'init done -5'" in bench.refused()
    monkeypatch.setattr(sanlock_program, "TIMEOUT_S", 0.1)
    bench.program("exec sleep 60")
    assert "did not end within" in bench.refused()


def test_file_of_virtlockd_is_empty_and_others_need_none(bench: Bench) -> None:
    bench.make(lock_manager="lockd")
    assert (bench.leases / "area" / domain_uuid("v1")).read_bytes() == b""
    bench.make(lock_manager="")
    assert bench.files() == ["lockspace"]

"""What a machine lacks for its lock manager, and the command that mends each, one after the other."""

from __future__ import annotations

import subprocess

import pytest

from hypervisor_backends.host_lock_check import lock_manager
from hypervisor_backends.host_view import Finding
from olvm.model.errors import BadInput
from tests.unit.hypervisor_backends.test_host_check import ORACLE, Tree, one, tree

__all__ = ["tree"]

DRIVER = "/usr/lib/x86_64-linux-gnu/libvirt/lock-driver/sanlock.so"
LOCKSPACE = "/leases/area-sanlock/lockspace"


def findings(tree: Tree, name: str = "sanlock", user_id: int = 0) -> list[Finding]:
    return lock_manager(tree.view(user_id=user_id), name, "/leases", "area")  # type: ignore[arg-type]


def ready(tree: Tree) -> None:
    tree.file(DRIVER)
    tree.file("/etc/libvirt/qemu.conf", '#lock_manager = "lockd"\nlock_manager = "sanlock"\n')
    tree.file("/etc/libvirt/qemu-sanlock.conf", "#host_id = 1\nrequire_lease_for_disks = 0\n")
    tree.file(LOCKSPACE)
    tree.program("sanlock", f'echo "s area:3:{LOCKSPACE}:0 "')


def test_host_without_a_lock_manager_lacks_nothing_of_it(tree: Tree) -> None:
    assert findings(tree, "") == []


def test_host_that_is_ready_for_sanlock_is_said_to_be(tree: Tree) -> None:
    ready(tree)
    assert [finding.state for finding in findings(tree)] == ["ok"] * 5


def test_packages_of_sanlock_are_named_with_the_command_of_the_family(tree: Tree) -> None:
    assert one(findings(tree), "sanlock").mend == "apt-get install -y sanlock libvirt-sanlock"
    tree.file("/etc/os-release", ORACLE)
    assert one(findings(tree), "sanlock").mend == "dnf install -y sanlock libvirt-lock-sanlock"
    ready(tree)
    (tree.root / DRIVER.lstrip("/")).unlink()
    found = one(findings(tree), "sanlock")
    assert (found.state, "lock driver" in found.says) == ("missing", True)


def test_daemon_that_does_not_answer_is_named_with_the_command_that_starts_it(tree: Tree) -> None:
    ready(tree)
    tree.program("sanlock", "echo gets error -2; exit 1")
    tree.directory("/run/systemd/system")
    found = one(findings(tree), "sanlock_daemon")
    assert (found.state, found.mend) == ("missing", "systemctl enable --now sanlock")
    assert "gets error -2" in found.says


def test_daemon_without_a_watchdog_is_a_warning(tree: Tree) -> None:
    ready(tree)
    tree.file("/run/sanlock/sanlock.pid", "75\n")
    tree.file("/proc/75/cmdline", "sanlock\0daemon\0-w\0001\0")
    assert [finding.state for finding in findings(tree)] == ["ok"] * 5
    tree.file("/proc/75/cmdline", "sanlock\0daemon\0-w\0000\0")
    assert one(findings(tree), "sanlock_watchdog").state == "warning"


@pytest.mark.parametrize("text", ["", '# lock_manager = "sanlock"', 'lock_manager = "lockd"'])
def test_libvirt_that_asks_another_is_named_with_the_line_it_needs(tree: Tree, text: str) -> None:
    ready(tree)
    tree.file("/etc/libvirt/qemu.conf", text)
    found = one(findings(tree), "lock_manager")
    assert (found.state, found.mend) == (
        "missing",
        'echo "lock_manager = \\"sanlock\\"" >> /etc/libvirt/qemu.conf',
    )
    assert subprocess.run(["sh", "-n", "-c", found.mend], check=False).returncode == 0


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", "require_lease_for_disks = 0\\n"),
        ("auto_disk_leases = 1\n", "auto_disk_leases = 0\\nrequire_lease_for_disks = 0\\n"),
        ("require_lease_for_disks=0\nauto_disk_leases = 1\n", "auto_disk_leases = 0\\n"),
    ],
)
def test_sanlock_that_wants_leases_for_disks_is_named_with_the_lines_it_needs(
    tree: Tree, text: str, lines: str
) -> None:
    ready(tree)
    tree.file("/etc/libvirt/qemu-sanlock.conf", text)
    tree.directory("/run/systemd/system")
    found = one(findings(tree), "sanlock_conf")
    command = f'printf "{lines}" >> /etc/libvirt/qemu-sanlock.conf && systemctl restart libvirtd'
    assert (found.state, found.mend) == ("missing", command)


def test_lockspace_that_is_not_there_is_made_once(tree: Tree) -> None:
    ready(tree)
    (tree.root / LOCKSPACE.lstrip("/")).unlink()
    found = one(findings(tree), "sanlock_lockspace")
    assert found.state == "missing"
    assert f"sanlock direct init -s area:0:{LOCKSPACE}:0" in found.mend
    assert "never again" in found.says


@pytest.mark.parametrize(
    "line",
    [
        "",
        f"s area:3:{LOCKSPACE}:0 ADD",
        f"s other:3:{LOCKSPACE}:0",
        "s area:3:/elsewhere:0",
        f"r area:3:{LOCKSPACE}:0",
    ],
)
def test_lockspace_that_was_not_joined_is_named_with_the_command_that_joins_it(tree: Tree, line: str) -> None:
    ready(tree)
    tree.program("sanlock", f'echo "{line}"')
    found = one(findings(tree, user_id=1000), "sanlock_lockspace")
    assert found.state == "missing"
    assert found.mend == f"sudo sanlock client add_lockspace -s area:HOST_ID:{LOCKSPACE}:0"


def test_virtlockd_needs_a_line_alone(tree: Tree) -> None:
    tree.file("/etc/libvirt/qemu.conf", "lock_manager = lockd")
    assert [finding.state for finding in findings(tree, "lockd")] == ["ok"]


def test_lock_manager_without_a_lease_directory_is_refused(tree: Tree) -> None:
    with pytest.raises(BadInput, match="lease_directory"):
        lock_manager(tree.view(), "sanlock", "", "area")

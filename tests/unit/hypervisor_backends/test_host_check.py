"""What a machine lacks, looked at through a tree of files that stands for it, and programs put into its path."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from hypervisor_backends import host_check as check
from hypervisor_backends import host_hardware_check as hardware
from hypervisor_backends.host_view import Finding, HostView

DEBIAN = 'PRETTY_NAME="Debian"\nID=debian\n'
UBUNTU = "ID=ubuntu\nID_LIKE=debian\n"
ORACLE = 'ID="ol"\nID_LIKE="fedora"\n'


class Tree:
    """A machine's files, as far as they matter."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.file("/etc/os-release", DEBIAN)
        (root / "bin").mkdir()

    def file(self, name: str, text: str = "") -> None:
        path = self.root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def directory(self, name: str) -> Path:
        path = self.root / name.lstrip("/")
        path.mkdir(parents=True, exist_ok=True)
        return path

    def program(self, name: str, script: str = "exit 0") -> None:
        path = self.root / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def view(self, *, user_id: int = 0) -> HostView:
        user = "root" if user_id == 0 else "alice"
        return HostView(root=self.root, user_id=user_id, user=user, program_path=str(self.root / "bin"))


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def one(findings: list[Finding], what: str = "") -> Finding:
    (found,) = [finding for finding in findings if what in ("", finding.what)]
    return found


# ---------------------------------------------------------------- packages and commands


@pytest.mark.parametrize(("release", "user_id", "mend"), [
    (DEBIAN, 0, "apt-get install -y qemu-utils"),
    (UBUNTU, 1000, "sudo apt-get install -y qemu-utils"),
    (ORACLE, 0, "dnf install -y qemu-img"),
    ("ID=plan9\n", 0, ""),
    ("", 0, ""),
])  # fmt: skip
def test_program_that_is_missing_is_named_with_the_command_of_the_family(
    tree: Tree, release: str, user_id: int, mend: str
) -> None:
    tree.file("/etc/os-release", release)
    found = one(check.packages(tree.view(user_id=user_id)), "qemu-img")
    assert (found.state, found.mend) == ("missing", mend)
    tree.program("qemu-img")
    assert one(check.packages(tree.view()), "qemu-img").state == "ok"


def test_daemon_of_either_name_is_enough(tree: Tree) -> None:
    tree.program("libvirtd")
    assert one(check.packages(tree.view()), "libvirt").state == "ok"


def test_command_with_a_redirection_is_the_roots_as_a_whole(tree: Tree) -> None:
    assert tree.view(user_id=1000).as_root("echo 1 > /etc/x") == "sudo sh -c 'echo 1 > /etc/x'"
    assert tree.view(user_id=1000).as_root("modprobe tun") == "sudo modprobe tun"
    assert tree.view().as_root("echo 1 > /etc/x") == "echo 1 > /etc/x"


def test_mending_commands_can_be_read_by_a_shell(tree: Tree) -> None:
    tree.file("/etc/default/grub", 'GRUB_CMDLINE_LINUX=""\n')
    tree.file("/proc/cpuinfo", "flags\t: fpu vmx\n")
    for user_id in (0, 1000):
        for release in (DEBIAN, ORACLE):
            tree.file("/etc/os-release", release)
            for finding in check.check_host(
                check.CheckOptions(uri="test:///default"), tree.view(user_id=user_id)
            ):
                assert subprocess.run(["sh", "-n", "-c", finding.mend], check=False).returncode == 0, finding


# ---------------------------------------------------------------- libvirt


def test_binding_that_is_missing_is_named_for_this_python(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "find_spec", lambda _: None)
    found = one(check.libvirt_binding(tree.view()))
    assert found.state == "missing"
    assert found.mend.endswith(f"{sys.executable} -m pip install 'libvirt-python>=9'")


@pytest.mark.parametrize(("script", "user_id", "state", "words", "mend"), [
    ("exit 0", 1000, "ok", "answers", ""),
    ("echo 'error: Failed to connect socket: Permission denied'; exit 1", 1000, "missing", "user alice",
     "sudo usermod -aG libvirt alice"),
    ("echo 'error: Failed to connect socket: No such file'; exit 1", 0, "missing", "No such file", "libvirtd -d"),
    ("exit 1", 0, "missing", "says nothing", "libvirtd -d"),
])  # fmt: skip
def test_libvirt_is_asked_by_virsh_where_the_binding_is_missing(
    tree: Tree,
    monkeypatch: pytest.MonkeyPatch,
    *,
    script: str,
    user_id: int,
    state: str,
    words: str,
    mend: str,
) -> None:
    monkeypatch.setattr(check, "find_spec", lambda _: None)
    tree.program("virsh", script)
    tree.program("libvirtd")
    found = one(check.libvirt_answers(tree.view(user_id=user_id), "qemu:///system"))
    assert (found.state, found.mend) == (state, mend)
    assert words in found.says


def test_libvirt_that_hangs_is_given_up(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "find_spec", lambda _: None)
    monkeypatch.setattr(HostView, "run", lambda self, command: real(self, command, 0.2))
    tree.program("virsh", "exec sleep 60")
    found = one(check.libvirt_answers(tree.view(), "qemu:///system"))
    assert found.state == "missing"
    assert "does not answer within 0.2 s" in found.says


real = HostView.run


def test_uri_of_another_machine_is_not_mended_here(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "find_spec", lambda _: None)
    tree.program("virsh", "exit 1")
    assert one(check.libvirt_answers(tree.view(), "qemu+ssh://far/system")).mend == ""


# ---------------------------------------------------------------- hardware


@pytest.mark.parametrize(("flags", "device", "words"), [
    ("fpu de", True, "neither vmx nor svm"),
    ("fpu vmx de", False, "/dev/kvm is not there"),
    ("fpu svm de", False, "/dev/kvm is not there"),
    ("fpu vmx de", True, "cannot be tried without QEMU"),
])  # fmt: skip
def test_kvm_is_believed_only_when_a_guest_ran(tree: Tree, flags: str, device: bool, words: str) -> None:
    tree.file("/proc/cpuinfo", f"processor\t: 0\nflags\t\t: {flags}\nbugs\t: svm_x\n")
    if device:
        tree.file("/dev/kvm")
    found = one(hardware.kvm(tree.view()))
    assert found.state == "warning"
    assert words in found.says


def test_huge_pages_that_are_reserved_are_counted(tree: Tree) -> None:
    tree.file("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0\n")
    assert one(hardware.huge_pages(tree.view())).mend == "sysctl -w vm.nr_hugepages=1024"
    tree.file("/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "4\n")
    assert one(hardware.huge_pages(tree.view())).says == "reserved: 4 of 1048576kB"


def test_devices_that_are_there_are_found(tree: Tree) -> None:
    assert one(hardware.watchdog(tree.view())).state == "warning"
    assert one(hardware.tap_devices(tree.view())).state == "missing"
    assert one(hardware.iommu(tree.view())).state == "warning"
    for name in ("/dev/watchdog", "/dev/net/tun", "/sys/kernel/iommu_groups/0/type"):
        tree.file(name)
    for look in (hardware.watchdog, hardware.tap_devices, hardware.iommu):
        assert one(look(tree.view())).state == "ok"


# ---------------------------------------------------------------- network


def test_bridge_is_told_from_a_card_of_that_name(tree: Tree) -> None:
    assert "there is no bridge br0" in one(check.bridge(tree.view(), "br0")).says
    tree.directory("/sys/class/net/br0")
    assert "is a network card" in one(check.bridge(tree.view(), "br0")).says
    tree.directory("/sys/class/net/br0/bridge")
    assert one(check.bridge(tree.view(), "br0")).state == "ok"


def test_ports_of_migration_are_read_from_the_kernels_tables(tree: Tree) -> None:
    head = "  sl  local_address rem_address   st\n"
    tree.file(
        "/proc/net/tcp", head + "   0: 00000000:4082 00000000:0000 0A\n   1: 0100007F:C000 00000000:0000 01\n"
    )
    assert one(check.migration_ports(tree.view())).says == "libvirt listens for other hosts (TLS)"
    tree.file("/proc/net/tcp6", head + "   0: 00000000000000000000000000000000:C001 0:0 0A\n")
    assert "49153" in one(check.migration_ports(tree.view()), "migration_ports").says


def test_firewall_is_named_with_its_own_command(tree: Tree) -> None:
    tree.file("/etc/ufw/ufw.conf", "ENABLED=yes\n")
    assert one(check.migration_ports(tree.view()), "firewall").mend.startswith("ufw allow 16514/tcp")
    tree.directory("/run/firewalld")
    assert one(check.migration_ports(tree.view()), "firewall").mend.startswith("firewall-cmd --permanent")


# ---------------------------------------------------------------- leases


@pytest.mark.parametrize(("mount", "state", "words"), [
    ("server:/leases {} nfs4 rw,vers=4.2 0 0", "ok", "nfs4"),
    ("server:/leases {} nfs rw,nolock,vers=3 0 0", "missing", "nolock"),
    ("server:/leases {} nfs rw,local_lock=all 0 0", "missing", "nolock"),
    ("/dev/sda1 {} ext4 rw 0 0", "warning", "for itself"),
])  # fmt: skip
def test_lease_directory_is_judged_by_its_mount(tree: Tree, mount: str, state: str, words: str) -> None:
    tree.directory("/shared/leases")
    tree.file("/proc/mounts", "/dev/root / ext4 rw 0 0\n" + mount.format("/shared") + "\n")
    found = one(check.lease_directory(tree.view(), "/shared/leases"))
    assert found.state == state
    assert words in found.says
    assert list((tree.root / "shared/leases").iterdir()) == []


def test_lease_directory_that_is_absent_or_cannot_be_written_is_missing(tree: Tree) -> None:
    assert one(check.lease_directory(tree.view(), "/shared")).state == "missing"
    found = one(check.lease_directory(HostView(), "/proc"))
    assert found.state == "missing"
    assert "cannot be written or locked" in found.says
    assert one(check.lease_directory(tree.view(), "")).state == "warning"


# ---------------------------------------------------------------- the whole


def test_machine_is_fit_unless_something_is_missing(tree: Tree) -> None:
    findings = check.check_host(check.CheckOptions(uri="test:///default"), tree.view(user_id=1000))
    assert not check.is_fit(findings)
    assert len({finding.what for finding in findings}) == len(findings)
    assert all(finding.says for finding in findings)
    assert check.is_fit([finding for finding in findings if finding.state != "missing"])


def test_command_prints_findings_for_programs_and_ends_with_what_it_found() -> None:
    command = [sys.executable, "-m", "olvm.cli", "host", "check", "--uri", "test:///absent", "-o", "json"]
    ended = subprocess.run(command, capture_output=True, check=False, timeout=60)
    rows = msgspec.json.decode(ended.stdout, type=list[Finding])
    assert ended.returncode == 1
    assert "libvirt_answers" in [row.what for row in rows if row.state == "missing"]
    assert b"this machine cannot be a host yet" in ended.stderr

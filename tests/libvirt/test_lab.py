"""The laboratory itself: what other tests in this folder stand on."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import libvirt
import pytest

from hypervisor_backends.protocol import DomainSpec
from olvm.lab import golden
from olvm.lab.debian import DebianImage
from olvm.lab.guest import GuestImage
from olvm.lab.hosts import Lab, LabHost
from olvm.model.errors import BadInput, OlvmError
from olvm.model.hardware import DiskSpec, Hardware, NicSpec
from tests.libvirt.machine import MIB, Machine, TaskHost, eventually, running, spec_of

FENCE_AGENT = "/usr/sbin/fence_olvm_lab"
MAKER = """
import sys, time
from pathlib import Path
from olvm.lab.hosts import Lab
with Lab(sys.argv[1], Path(sys.argv[2]), hosts=1):
    print("up", flush=True)
    time.sleep(600)
"""


def hostname_uri(host: LabHost) -> str:
    connection = libvirt.open(host.uri)
    try:
        return str(connection.getHostname())
    finally:
        connection.close()


def fence(lab: Lab, action: str, where: Callable[[list[str]], list[str]], **options: str) -> tuple[int, str]:
    """The agent's exit code and what it said."""
    asked = {
        "action": action,
        **{key: str(value) for key, value in lab.fence_device("h2").items()},
        **options,
    }
    asked.pop("type")
    done = subprocess.run(
        where([FENCE_AGENT]),
        input="".join(f"{key}={value}\n" for key, value in asked.items()),
        text=True, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


# ---------------------------------------------------------------- hosts


def test_hosts_up_are_libvirt_hosts_of_their_own(lab: Lab) -> None:
    assert [hostname_uri(host) for host in lab.hosts.values()] == ["h1", "h2"]
    h1, h2 = lab.hosts.values()
    connection = libvirt.open(h1.uri)
    try:
        ids = ET.fromstring(connection.getCapabilities()).findtext("host/uuid")
        guests = {
            one.get("type")
            for one in ET.fromstring(connection.getCapabilities()).findall("guest/arch/domain")
        }
    finally:
        connection.close()
    assert (ids, guests) == (h1.uuid, {"qemu"})
    assert h1.run(["ls", "/tmp"]) == h2.run(["ls", "/tmp"]) == ""


def test_hosts_reach_each_other_and_the_fabric(lab: Lab, host: LabHost) -> None:
    ask = "import socket; socket.create_connection(('{}', 16509), 5).close()"
    lab.run_in_fabric([sys.executable, "-c", ask.format(host.address)])
    host.run([sys.executable, "-c", ask.format("h2")])
    serve = "import socket; s = socket.create_server(('{}', 8099)); print('up', flush=True); s.accept()"
    with subprocess.Popen(
        ["ip", "netns", "exec", lab.fabric, sys.executable, "-c", serve.format(lab.address)], stdout=subprocess.PIPE
    ) as server:  # fmt: skip
        assert server.stdout is not None
        server.stdout.readline()
        host.run(
            [
                sys.executable,
                "-c",
                f"import socket; socket.create_connection(('{lab.address}', 8099), 5).close()",
            ]
        )
        assert server.wait(timeout=10) == 0


def test_storage_is_one_and_taken_for_shared_on_every_host(
    lab: Lab, host: LabHost, other_host: LabHost
) -> None:
    path = lab.shared / "images" / "note"
    host.run(["sh", "-c", f"echo from h1 > {path}"])
    assert (other_host.run(["cat", str(path)]), path.read_text()) == ("from h1\n", "from h1\n")
    assert "fuse.glusterfs" in host.run(["grep", str(lab.shared), "/proc/mounts"])


def test_network_cut_host_is_out_of_reach_until_it_is_mended(lab: Lab, host: LabHost) -> None:
    ask = ["timeout", "1", "bash", "-c", f"exec 3<>/dev/tcp/{host.address}/16509 && echo reached"]
    host.cut_network()
    assert "reached" not in lab.run_in_fabric(ask, check=False)
    host.mend_network()
    assert eventually(lambda: "reached" in lab.run_in_fabric(ask, check=False))


def test_host_crashed_is_off_until_it_boots_and_keeps_its_disk(
    lab: Lab, host: LabHost, other_host: LabHost
) -> None:
    host.run(["sh", "-c", "echo kept > /var/lib/libvirt/kept; echo lost > /run/lost; echo lost > /tmp/lost"])
    host.crash()
    assert (host.is_on, other_host.is_on) == (False, True)
    with pytest.raises(OlvmError, match="laboratory host h1 is off"):
        host.run(["true"])
    host.boot()
    said = host.run(
        ["sh", "-c", "cat /var/lib/libvirt/kept; ls /run/lost /tmp/lost 2>/dev/null"], check=False
    )
    assert (said, hostname_uri(host)) == ("kept\n", "h1")
    with pytest.raises(OlvmError, match="is on already"):
        host.boot()


def test_daemons_killed_are_gone_until_they_are_started(lab: Lab, host: LabHost) -> None:
    host.kill_libvirtd()
    host.kill_lock_daemon()
    assert host.pids("libvirtd") == host.pids("virtlockd") == []
    host.start_lock_daemon()
    host.start_libvirtd()
    assert hostname_uri(host) == "h1"


def test_boot_script_runs_at_each_boot(lab: Lab, host: LabHost) -> None:
    host.set_boot_script("#!/bin/sh\necho booted >> /var/lib/libvirt/boots\n")
    boots = host.directory / "var-lib-libvirt" / "boots"
    for count in (1, 2):
        host.crash()
        host.boot()
        assert eventually(lambda: boots.exists() and boots.read_text() == "booted\n" * count)  # noqa: B023 - asked now
    host.set_boot_script("")
    host.crash()
    host.boot()
    assert not os.access(host.directory / "boot", os.X_OK)


# ---------------------------------------------------------------- power switch


@pytest.mark.parametrize("where", ["outside", "on a host"])
def test_fence_agent_switches_a_host_off_and_on(
    lab: Lab, host: LabHost, other_host: LabHost, where: str
) -> None:
    agent = Path(sys.modules[Lab.__module__].__file__ or "").with_name("fence_agents") / "fence_olvm_lab"
    inside = host.inside if where == "on a host" else lambda _: [str(agent)]
    assert fence(lab, "status", inside) == (0, "Status: ON\n")
    assert fence(lab, "off", inside) == (0, "Success: Powered OFF\n")
    assert not other_host.is_on
    assert fence(lab, "off", inside)[0] == 0  # again
    assert fence(lab, "status", inside) == (2, "Status: OFF\n")
    assert fence(lab, "on", inside) == (0, "Success: Powered ON\n")
    assert hostname_uri(other_host) == "h2"
    before = other_host.init_pid
    assert fence(lab, "reboot", inside)[0] == 0
    assert other_host.init_pid != before
    assert fence(lab, "list", inside) == (0, "h1,\nh2,\n")
    assert fence(lab, "monitor", inside)[0] == 0


@pytest.mark.parametrize(
    ("action", "options", "said"),
    [
        ("off", {"plug": "h9"}, "has no host 'h9'"),
        ("off", {"plug": ""}, "option plug is needed"),
        ("explode", {}, "no action explode"),
        ("off", {"ip": "/nowhere/power.sock"}, "does not answer"),
    ],
)
def test_fence_agent_asked_wrongly_fails_and_says_why(
    lab: Lab, host: LabHost, action: str, options: dict[str, str], said: str
) -> None:
    code, text = fence(lab, action, host.inside, **options)
    assert code == 1
    assert said in text
    assert lab.host("h2").is_on


def test_fence_agent_asked_for_metadata_describes_itself(host: LabHost) -> None:
    described = ET.fromstring(host.run([FENCE_AGENT, "-o", "metadata"]))
    assert {one.get("name") for one in described.findall("parameters/parameter")} == {"action", "ip", "plug"}


@pytest.mark.parametrize("line", [b"\n", b"no json\n", b'{"plug": 7}\n', b"[" * 5000 + b"\n", b"\xff\xfe\n"])
def test_power_switch_told_nonsense_refuses_and_serves_on(lab: Lab, line: bytes) -> None:
    path = str(lab.fence_device("h1")["ip"])
    for text, ok in ((line, False), (b'{"plug": "h1"}\n', True)):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(path)
            connection.sendall(text)
            assert json.loads(connection.makefile().readline())["ok"] is ok


# ---------------------------------------------------------------- nothing left


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Lab]]:
    """A program with a laboratory that is up."""
    name, directory = f"m{os.getpid():x}", tmp_path / "lab"
    with subprocess.Popen(
        [sys.executable, "-c", MAKER, name, str(directory)], stdout=subprocess.PIPE, text=True
    ) as it:
        lab = Lab(name, directory, hosts=1)
        try:
            assert it.stdout is not None
            assert it.stdout.readline() == "up\n"
            assert lab.leftovers() != []
            yield it, lab
        finally:
            it.kill()
            lab.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_maker_ended_by_a_signal_leaves_nothing(
    maker: tuple[subprocess.Popen[str], Lab], number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    program, lab = maker
    program.send_signal(number)
    program.wait(timeout=30)
    assert eventually(lambda: lab.leftovers() == [], 30), lab.leftovers()


def test_predecessor_killed_with_its_switch_is_removed_by_the_next(
    maker: tuple[subprocess.Popen[str], Lab],
) -> None:
    program, lab = maker
    before = lab.host("h1").init_pid
    for pid in (
        pid for pid in lab._processes() if "power_switch" in Path(f"/proc/{pid}/cmdline").read_text()
    ):
        os.kill(pid, signal.SIGKILL)
    program.kill()
    program.wait()
    with Lab(lab.name, lab.directory, hosts=1) as successor:
        assert successor.host("h1").init_pid != before
        assert not Path(f"/proc/{before}").exists()
    assert successor.leftovers() == []


def test_two_laboratories_at_once_do_not_touch_each_other(
    lab: Lab, maker: tuple[subprocess.Popen[str], Lab]
) -> None:
    _, other = maker
    other.close()
    assert other.leftovers() == []
    assert [hostname_uri(host) for host in lab.hosts.values()] == ["h1", "h2"]


def test_directory_with_something_else_in_it_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(BadInput, match="holds something that is no laboratory"):
        Lab("m1", tmp_path).up()
    Lab("m1", tmp_path).close()
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    "wrong",
    [{"name": "Up"}, {"name": "x" * 9}, {"name": "é"}, {"hosts": 0}, {"hosts": 99}, {"subnet": "10.0"},
     {"subnet": "10.0.0; reboot"}, {"lock_manager": "dlm"}, {"directory": Path("/var/tmp/a b")}],
)  # fmt: skip
def test_laboratory_of_wrong_settings_is_refused(wrong: dict[str, object]) -> None:
    settings: dict[str, object] = {"name": "m1", "directory": Path("/var/tmp/olvm-lab-m1")} | wrong
    with pytest.raises(BadInput):
        Lab(**settings)  # type: ignore[arg-type]


# ---------------------------------------------------------------- guests


@pytest.fixture(scope="module")
def task_host(lab: Lab) -> Iterator[TaskHost]:
    opened = TaskHost(lab.host("h1"))
    yield opened
    opened.close()


def our_agent(machine: Machine, lab: Lab) -> socket.socket:
    """Connected to the channel of olvm's agent."""
    for channel in machine.xml().findall("devices/channel"):
        target, source = channel.find("target"), channel.find("source")
        if target is not None and source is not None and target.get("name") == "ovirt-guest-agent.0":
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(30)
            path = Path(f"{lab.host('h1').root}{source.get('path')}")
            parent = os.open(path.parent, os.O_DIRECTORY)
            try:
                connection.connect(f"/proc/self/fd/{parent}/{path.name}")
            finally:
                os.close(parent)
            return connection
    raise AssertionError("no such channel")


def test_guest_boots_and_both_agents_answer(lab: Lab, task_host: TaskHost, guest: GuestImage) -> None:
    with running(task_host, spec_of(guest, "both", memory_mib=192, our_agent=True)) as machine:
        assert machine.sh("id -u; uname -s; id -u alice; id -un root") == "0\nLinux\n1000\nroot"
        with our_agent(machine, lab) as connection:
            connection.sendall(b'{"__name__": "refresh", "apiVersion": 3}\n')
            names = {
                json.loads(line)["__name__"] for line, _ in zip(connection.makefile(), range(4), strict=False)
            }
        assert names & {"heartbeat", "host-name", "os-info", "os-version", "api-version"}


def test_guest_brings_what_tests_use(task_host: TaskHost, guest: GuestImage) -> None:
    wanted = ("mke2fs", "mount", "login", "acpid", "udhcpc", "python3", "ip", "dd")
    with running(task_host, spec_of(guest, "tools", memory_mib=192)) as machine:
        assert (
            machine.sh("for p in " + " ".join(wanted) + "; do command -v $p >/dev/null || echo $p; done")
            == ""
        )
        assert int(machine.sh("wc -l < /run/ticks")) >= 1
        before = machine.sh("tail -n 1 /run/ticks")
        assert eventually(lambda: machine.sh("tail -n 1 /run/ticks") != before)


def test_guest_told_by_its_power_button_ends(task_host: TaskHost, guest: GuestImage) -> None:
    with running(task_host, spec_of(guest, "button", memory_mib=192)) as machine:
        machine.domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
        assert eventually(lambda: not machine.domain.isActive())


def test_saved_machine_cloned_is_another_that_goes_on(
    lab: Lab, task_host: TaskHost, guest: GuestImage
) -> None:
    saved, copy = lab.shared / "saved" / "gold", lab.shared / "saved" / "copy"
    with running(task_host, spec_of(guest, "gold", memory_mib=192)) as machine:
        began_s = float(machine.sh("cut -d' ' -f1 /proc/uptime"))
        machine.domain.saveFlags(str(saved), None, libvirt.VIR_DOMAIN_SAVE_PAUSED)
        before_s = time.monotonic()
        golden.clone(
            saved, copy, lambda xml: golden.renamed(xml, "copy", "11111111-2222-3333-4444-555555555555")
        )
        task_host.connection.restoreFlags(str(copy), None, libvirt.VIR_DOMAIN_SAVE_RUNNING)
        took_s = time.monotonic() - before_s
        domain = task_host.connection.lookupByName("copy")
        try:
            clone = Machine.__new__(Machine)
            clone.host, clone.domain, clone.vm_id = task_host, domain, domain.UUIDString()
            clone.wait_until_up()
            assert float(clone.sh("cut -d' ' -f1 /proc/uptime")) > began_s
            assert not machine.domain.isActive()
        finally:
            domain.destroy()
    print(f"a clone in {took_s:.1f} s")


@pytest.mark.parametrize(
    "content", [b"", b"LibvirtQemudSave", b"x" * 200, b"LibvirtQemudSave" + b"\x09" * 76]
)
def test_clone_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "saved").write_bytes(content)
    with pytest.raises(OlvmError, match=str(tmp_path / "saved")):
        golden.clone(tmp_path / "saved", tmp_path / "copy", str)
    assert not (tmp_path / "copy").exists()


# ---------------------------------------------------------------- Debian


def test_debian_boots_to_a_login_with_both_agents(lab: Lab, task_host: TaskHost, debian: DebianImage) -> None:
    hardware = Hardware(
        kernel=str(debian.kernel),
        initrd=str(debian.initrd),
        cmdline=f"{debian.cmdline} ip4=10.99.7.77/24",
        disks=(DiskSpec(name="vda", base=str(debian.disk)),),
        nics=(NicSpec(name="eth0", network="br0"),),
    )
    with running(
        task_host, DomainSpec(name="debian", vcpus=2, memory_bytes=384 * MIB, hardware=hardware)
    ) as machine:
        assert machine.sh("id -un alice") == "alice"
        assert eventually(lambda: machine.sh("systemctl is-system-running") == "running", 60)
        assert machine.sh("systemctl is-active olvm-guest-agent qemu-guest-agent") == "active\nactive"
        assert "10.99.7.77/24" in machine.sh("ip -br addr show eth0")
        with our_agent(machine, lab) as connection:
            connection.sendall(b'{"__name__": "refresh", "apiVersion": 3}\n')
            assert json.loads(connection.makefile().readline())["__name__"]

"""`olvm vm logon` the whole way: command line, engine, host agent, libvirt, guest agent, PAM, console; and refusals.

A data center in a process of its own (`olvm up`) has one real host, and on it a Debian whose console the test reads as
libvirt keeps it. Root in the guest is reached by QEMU's own agent, a way beside everything that is tested.
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import duckdb
import libvirt
import libvirt_qemu
import pytest

from hypervisor_backends.domain_metadata import domain_uuid
from hypervisor_backends.domain_xml import console_log_path
from olvm import DataCenter
from olvm.lab.debian import CONSOLE, DebianImage
from olvm.lab.hosts import Lab, LabHost
from olvm.model.hardware import DiskSpec, Hardware
from tests.contracts.test_users import piped, places_of
from tests.libvirt.lab_bench import make_boot_disk
from tests.libvirt.machine import eventually

pytestmark = pytest.mark.timeout(180)

PASSWORD = "Hq3-engine-knows-Wz"
WRONG = "Pd8-engine-knows-not-Lk"
ATTEMPT = Path(__file__).with_name("logon_attempt.py")
WITHIN_S = 60.0
UP_WITHIN_S = 120.0
DENIED = "the logon was denied: there is no such user, or the password is wrong"


class Place:
    """The data center as a person at a shell has it, and the guest of machine `web`."""

    def __init__(self, directory: Path, host: LabHost) -> None:
        self.directory = directory
        self.host = host
        self.told: list[bytes] = []  # all that was answered to commands
        self.connection = libvirt.open(host.uri)

    def close(self) -> None:
        """The data center goes first, or it would start its machines again; what is left is ended for certain."""
        try:
            assert self.olvm("down").returncode == 0
        finally:
            for domain in self.connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
                domain.destroy()
            self.connection.close()

    # ------------------------------------------------------------------ the command line

    def up(self) -> None:
        up = self.olvm("up", "--runtime", "local")
        assert up.returncode == 0, up.stderr
        self.dc = DataCenter.connect(self.directory)

    def down(self) -> None:
        self.dc.close()
        down = self.olvm("down")
        assert down.returncode == 0, down.stderr

    def olvm(self, *words: str, password: str = "") -> subprocess.CompletedProcess[bytes]:
        done = piped(list(words), self.directory, password.encode())
        self.told += [done.stdout, done.stderr]
        return done

    def log_on(
        self, vm: str, user: str, *, password: str = PASSWORD, session: str = CONSOLE
    ) -> tuple[int, str]:
        """Exit code, and what was said on stderr in one line."""
        words = ["vm", "logon", vm, "--user", user, "--session", session, "--password-stdin"]
        done = self.olvm(*words, password=password)
        return done.returncode, " ".join(done.stderr.decode().split())

    def has_users(self, users: list[str]) -> bool:
        """As the engine knows it; asked for, or the agent would tell within ten seconds."""
        self.dc.vms["web"].task("refresh_guest").wait(WITHIN_S)
        return eventually(lambda: self.dc.vms.row("web").guest_users == users, WITHIN_S)

    # ------------------------------------------------------------------ the guest of web

    @property
    def vm_id(self) -> str:
        return self.dc.vms.row("web").id

    def console(self) -> str:
        """All that has been on it."""
        log = str(self.host.root) + console_log_path(self.vm_id, "/var/log/libvirt/qemu")
        return Path(log).read_text(errors="replace")

    def see(self, text: str, after: int = 0) -> bool:
        return eventually(lambda: text in self.console()[after:], WITHIN_S)

    def see_greeter(self) -> None:
        """At the console, and known to the agent: who is logged on there leaves first."""
        if self.sh(f"who | grep {CONSOLE}"):
            self.dc.vms["web"].log_off(CONSOLE).wait(WITHIN_S)
        assert eventually(lambda: self.console().endswith("debian login: "), WITHIN_S), self.console()[-500:]
        waiting = (
            "ss -xH state connected | grep -c olvm-guest-agent.sock"  # it may have begun before the agent
        )
        assert eventually(lambda: self.sh(waiting) != "0", WITHIN_S)

    def begin(self, command: str) -> int:
        asked = {"path": "/bin/sh", "arg": ["-c", f"{command} 2>&1"], "capture-output": True}
        return int(self._ask("guest-exec", asked)["pid"])

    def result(self, pid: int) -> str:
        said: dict[str, object] = {}

        def has_ended() -> bool:
            said.update(self._ask("guest-exec-status", {"pid": pid}))
            return bool(said["exited"])

        assert eventually(has_ended, WITHIN_S), "it does not end in the guest"
        return base64.b64decode(str(said.get("out-data", ""))).decode(errors="replace").strip()

    def sh(self, command: str) -> str:
        return self.result(self.begin(command))

    def _ask(self, command: str, arguments: dict[str, object]) -> dict[str, object]:
        domain = self.connection.lookupByUUIDString(domain_uuid(self.vm_id))
        asked = json.dumps({"execute": command, "arguments": arguments})
        return dict(json.loads(libvirt_qemu.qemuAgentCommand(domain, asked, 10, 0))["return"])


@pytest.fixture(scope="module")
def place(lab: Lab, debian: DebianImage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """With machine `web`, up and at its greeter; users are added by tests."""
    directory = tmp_path_factory.mktemp("logon")
    made = Place(directory, lab.host("h1"))
    try:
        made.up()
        furnish(made, lab, debian)
        yield made
    finally:
        made.close()


def furnish(place: Place, lab: Lab, debian: DebianImage) -> None:
    settings = {**place.host.settings, "seed_directory": str(lab.shared / "seeds")}
    lab_cluster = place.dc.clusters.create("lab")
    lab_cluster.hosts.add("h1", backend="libvirt", backend_settings=settings)
    hardware = Hardware(
        kernel=str(debian.kernel),
        initrd=str(debian.initrd),
        cmdline=debian.cmdline,
        disks=(DiskSpec(name="vda", base=str(debian.disk)),),
    )
    web = lab_cluster.vms.create("web", vcpus=2, memory="384MiB", hardware=hardware)
    web.start().wait(UP_WITHIN_S)
    place.see_greeter()
    lab_cluster.vms.create("off", vcpus=1, memory="64MiB")
    place.sh(f"echo {base64.b64encode(ATTEMPT.read_bytes()).decode()} | base64 -d > /run/attempt.py")


@pytest.fixture
def at_prompt(place: Place) -> Place:
    place.see_greeter()
    return place


def test_logon_by_the_command_line_opens_a_session_that_no_other_user_enters(at_prompt: Place) -> None:
    place = at_prompt
    ada = ["user", "create", "ada", "--guest-user", "alice", "--password-stdin"]  # of another name there
    assert place.olvm(*ada, password=PASSWORD).returncode == 0
    seen = len(place.console())
    code, said = place.log_on("web", "ada")
    assert code == 0, said
    assert place.see("$ ", seen)
    shown = place.console()[seen:]
    assert shown.lstrip().startswith("alice")
    assert "Password" not in shown
    assert place.sh("who").split()[:2] == ["alice", CONSOLE]
    assert place.sh("loginctl --no-legend list-sessions").split()[2] == "alice"
    assert place.has_users(["alice"])
    assert place.log_on("web", "ada")[0] == 0  # she is there already
    place.dc.users.create("root", password=PASSWORD)
    code, said = place.log_on("web", "root")
    assert (code, f"locked by another: {CONSOLE} has somebody else logged on" in said) == (1, True), said
    assert place.sh("who").split()[:2] == ["alice", CONSOLE]
    assert place.dc.users.row("ada").logon_count == 2
    asked = next(event for event in place.dc.events() if event["code"] == "vm_logon_asked")
    assert asked["details"] == {"user": "ada", "guest_user": "alice", "session": CONSOLE}
    assert place.olvm("vm", "logoff", "web", "--session", CONSOLE).returncode == 0
    place.see_greeter()
    assert place.has_users([])


def refusal(place: Place, vm: str, user: str, **how: str) -> tuple[int, str]:
    """Of a logon that must leave the console as it is."""
    before = place.console()
    code, said = place.log_on(vm, user, **how)
    assert place.console() == before
    assert place.sh(f"who | grep {CONSOLE}") == ""
    return code, said


def test_logon_of_who_is_not_let_in_is_refused_with_one_sentence(at_prompt: Place) -> None:
    """Whoever guesses does not learn which users there are, and which of them are disabled."""
    place = at_prompt
    place.dc.users.create("alice", password=PASSWORD)
    place.dc.users.create("dora", password=PASSWORD, guest_user="alice")
    place.dc.users["dora"].disable().wait(WITHIN_S)
    for user, password in (("alice", WRONG), ("nobody", PASSWORD), ("dora", PASSWORD)):
        code, said = refusal(place, "web", user, password=password)
        assert (code, DENIED in said) == (5, True), said
    told = [event["message"] for event in place.dc.events() if event["code"] == "user_denied"]
    assert [message.rpartition(": ")[2] for message in told] == [
        "wrong password",
        "no such user",
        "it is disabled",
    ]
    assert place.dc.users.row("dora").logon_count == 0


def test_logon_of_a_user_whom_the_guest_has_not_is_refused_by_the_guest(at_prompt: Place) -> None:
    place = at_prompt
    place.dc.users.create("eve", password=PASSWORD)
    code, said = refusal(place, "web", "eve")
    assert (code, "the guest of machine web refused: this guest has no user eve; create it" in said) == (
        1,
        True,
    )


def test_logon_where_it_cannot_be_says_why(at_prompt: Place, lab: Lab) -> None:
    place = at_prompt
    place.dc.users.create("fay", password=PASSWORD, guest_user="alice")
    code, said = refusal(place, "web", "fay", session="tty9")
    assert (code, "nobody waits for a logon on tty9" in said) == (1, True), said
    code, said = refusal(place, "off", "fay")
    assert (code, "cannot log a user on to off: it is down" in said) == (4, True), said
    code, said = refusal(place, "none", "fay")
    assert (code, "vm none does not exist" in said) == (3, True), said
    disk = lab.shared / "images" / "mute.raw"
    make_boot_disk(disk)
    hardware = Hardware(disks=(DiskSpec(name="vda", source=str(disk), format="raw"),))
    mute = place.dc.vms.create("mute", vcpus=1, memory="64MiB", cluster="lab", hardware=hardware)
    mute.start()
    assert eventually(lambda: mute.status == "powering_up", WITHIN_S)
    code, said = refusal(place, "mute", "fay")
    assert (code, "no agent of it was heard lately; install one" in said) == (1, True), said
    mute.stop().wait(WITHIN_S)


def values_of(directory: Path) -> str:
    """All that stands in the databases, as text: in the files it may be compressed."""
    found: list[str] = []
    for path in sorted(directory.glob("*.duckdb")):
        with duckdb.connect(str(path), read_only=True) as file:
            tables = file.execute(
                "select table_schema, table_name from information_schema.tables where table_type = 'BASE TABLE'"
            ).fetchall()
            for schema, table in tables:
                found += map(repr, file.execute(f'from "{schema}"."{table}"').fetchall())
    return "\n".join(found)


def test_password_and_token_stand_nowhere_and_logons_go_on_after_a_restart(at_prompt: Place) -> None:
    place = at_prompt
    place.dc.users.create("ida", password=PASSWORD, guest_user="alice")
    place.sh("rm -f /run/attempt")
    attempt = place.begin("python3 /run/attempt.py login alice 0 keep")
    assert eventually(lambda: place.sh("cat /run/attempt").startswith("pts/"), WITHIN_S)
    code, said = place.log_on("web", "ida", session=place.sh("cat /run/attempt"))
    assert code == 0, said
    assert "$ " in json.loads(place.result(attempt).splitlines()[-1])
    token = place.sh("cat /run/kept-token; rm /run/kept-token")
    assert len(token) == 48
    hidden = f"{token[:8]}[{token[8]}]{token[9:]}", f"{PASSWORD[:5]}[{PASSWORD[5]}]{PASSWORD[6:]}"
    for pattern in hidden:  # which does not find itself
        assert place.sh(f"journalctl --no-pager -q | grep -c '{pattern}'") == "0"
        assert place.sh(f"grep -rls '{pattern}' /run /var/log /tmp /etc") == ""
    query = "select count(*) from history.events where code = 'vm_log_on' and vm_name = 'web'"
    assert eventually(lambda: place.dc.sql(query).one() > 0, WITHIN_S)
    place.down()
    kept = values_of(place.directory)
    assert "vm_logon_asked" in kept
    logs = Path(f"{place.host.root}/var/log/libvirt")
    for secret in (token, PASSWORD, WRONG):
        assert secret not in kept
        assert secret.encode() not in b"".join(place.told)
        assert places_of(secret, place.directory) + places_of(secret, logs) == []
    place.up()
    seen = len(place.console())
    assert eventually(lambda: place.log_on("web", "ida")[0] == 0, WITHIN_S)
    assert place.see("$ ", seen)
    assert "Password" not in place.console()[seen:]

"""Fence agents as programs that may say anything: what is believed, what is passed to them, what is never shown."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hypervisor_backends.fence_agents import FenceAgents, check_device
from hypervisor_backends.fence_names import check_names
from hypervisor_backends.fence_options import NO_POWER, check_options, prepare
from hypervisor_backends.fencing import FenceAction, FenceAnswer
from olvm.model.errors import BadInput
from tests.unit.hypervisor_backends.stand_in_agent import install

Device = dict[str, str | int | float | bool]
WITHIN_S = 30.0


class Rack:
    """One agent, one computer, and the owner's thread."""

    def __init__(self, directory: Path, timeout_s: float = 20.0) -> None:
        self.directory = directory
        self.posted: queue.Queue[Callable[[], None]] = queue.Queue()
        (directory / "h1").write_text("on")
        self.program = install(directory, "fence_simulated", directory)
        self.devices = FenceAgents(self.posted.put, directory, timeout_s)

    def misbehave(self, script: str) -> None:
        (self.directory / "script").write_text(script)

    def device(self, **more: str | int | float | bool) -> Device:
        return {"type": "fence_simulated", "plug": "h1", **more}

    def ask(self, action: FenceAction, **more: str | int | float | bool) -> FenceAnswer:
        return self.ask_device(self.device(**more), action)

    def ask_device(self, device: Device, action: FenceAction) -> FenceAnswer:
        answers: list[FenceAnswer] = []
        self.devices.submit(device, "h1", action, answers.append)
        self.posted.get(timeout=WITHIN_S)()
        return answers[0]

    def heard(self) -> list[str]:
        return (self.directory / "heard").read_text().splitlines()

    def secret_file(self, data: bytes, mode: int = 0o600) -> str:
        path = self.directory / "secret"
        path.write_bytes(data)
        path.chmod(mode)
        return str(path)


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[Rack]:
    one = Rack(tmp_path)
    yield one
    one.devices.close()


# ---------------------------------------------------------------- what an agent's end means


@pytest.mark.parametrize("script", [
    "sys.exit(2)",  # a usage error of whatever
    "print('Status: ON'); sys.exit(2)",
    "print('Status: OFFLINE'); sys.exit(2)",
    "print('Status: OFF'); sys.exit(0)",
    "print('Status: OFF'); sys.exit(1)",
    "print('Status: OFF'); sys.exit(3)",
    "print('Status: OFF', flush=True); os.kill(os.getpid(), 9)",
])  # fmt: skip
def test_status_that_does_not_say_off_twice_proves_nothing(rack: Rack, script: str) -> None:
    rack.misbehave(script)
    answer = rack.ask("status")
    assert not answer.ok
    assert answer.power == "unknown"


def test_interpreter_that_is_missing_proves_nothing(rack: Rack) -> None:
    assert rack.ask("status").ok  # its options are known from now on
    stamp = rack.program.stat()
    rack.program.write_text("#!/nonexistent/python\n")
    os.utime(rack.program, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    answer = rack.ask("status")
    assert (answer.ok, answer.power) == (False, "unknown")
    assert "cannot be run" in answer.message


def test_agent_that_hangs_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    rack = Rack(tmp_path, timeout_s=1.5)
    rack.misbehave(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '600']); open('child', 'w').write(str(child.pid)); child.wait()"
    )
    begun_s = time.monotonic()
    answer = rack.ask("off")
    assert time.monotonic() - begun_s < 10
    assert not answer.ok
    assert "did not answer within 1.5 s" in answer.message
    child = Path("/proc", (tmp_path / "child").read_text())
    deadline_s = time.monotonic() + WITHIN_S
    while child.exists() and "Z" not in (child / "stat").read_text().split():
        assert time.monotonic() < deadline_s


def test_agent_that_leaves_a_child_with_its_pipes_is_answered_at_its_end(rack: Rack) -> None:
    rack.misbehave("subprocess.Popen(['sleep', '600'])")
    begun_s = time.monotonic()
    assert rack.ask("off").ok
    assert time.monotonic() - begun_s < 10


def test_agent_that_floods_is_answered_and_what_it_says_is_cut(rack: Rack) -> None:
    rack.misbehave(
        "sys.stderr.write('x' * 5_000_000 + '\\n'); sys.stdout.write('y' * 5_000_000); sys.exit(1)"
    )
    answer = rack.ask("off")
    assert not answer.ok
    assert len(answer.message) < 500


def test_agent_that_fails_says_why_in_its_last_words(rack: Rack) -> None:
    rack.misbehave(
        "sys.stderr.write('2026-01-01 10:00:00,123 ERROR: Unable to connect\\x1b[2J\\n\\n\\n')\n"
        "sys.stderr.write(\"2026-01-01 10:00:00,124 ERROR: Please use '-h' for usage\\n\\n\"); sys.exit(1)"
    )
    answer = rack.ask("off")
    assert answer.message == "fence_simulated, asked to switch off host h1, failed: Unable to connect [2J"


def test_agent_that_lies_about_off_is_found_out_by_its_status(rack: Rack) -> None:
    rack.misbehave("if given['action'] == 'off': sys.exit(0)")
    assert rack.ask("off").ok
    assert rack.ask("status") == FenceAnswer(ok=True, power="on")


def test_calls_beyond_the_bound_are_refused_and_the_others_answered(
    rack: Rack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hypervisor_backends.fence_agents.CALLS_MAX", 2)
    answers: list[FenceAnswer] = []
    for _ in range(3):
        rack.devices.submit(rack.device(), "h1", "status", answers.append)
    while len(answers) < 3:
        rack.posted.get(timeout=WITHIN_S)()
    assert sorted(answer.ok for answer in answers) == [False, True, True]


def test_close_ends_the_agents_that_run(tmp_path: Path) -> None:
    rack = Rack(tmp_path)
    rack.misbehave("open('begun', 'w').close(); time.sleep(600)")
    answers: list[FenceAnswer] = []
    rack.devices.submit(rack.device(), "h1", "off", answers.append)
    deadline_s = time.monotonic() + WITHIN_S
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < deadline_s
    rack.devices.close()
    rack.posted.get(timeout=WITHIN_S)()
    assert not answers[0].ok


# ---------------------------------------------------------------- what an agent is given


def test_options_go_to_stdin_and_nowhere_else(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLVM_SECRET", "1")
    assert rack.ask("off", password="hunter2", power_wait=3, name="the switch").ok
    assert rack.heard() == ["action=off", "plug=h1", "password=hunter2", "power_wait=3"]
    words, environment = eval((rack.directory / "seen").read_text())
    assert words == []
    assert set(environment) <= {"PATH", "LANG", "LC_ALL", "LC_CTYPE"}


def test_boolean_that_is_false_is_left_out_where_agents_look_whether_it_was_given(rack: Rack) -> None:
    rack.ask("status", ssl_insecure=False, ssl="no")
    assert rack.heard() == ["action=status", "plug=h1", "ssl=no"]
    rack.ask("status", ssl_insecure=True)
    assert rack.heard() == ["action=status", "plug=h1", "ssl_insecure=1"]


@pytest.mark.parametrize(
    ("value", "line"), [(" a ", '" a "'), ('"a"', '""a""'), ('a"b', 'a"b'), ("#a=b", "#a=b")]
)
def test_blanks_and_quotes_of_a_password_reach_the_agent(rack: Rack, value: str, line: str) -> None:
    rack.ask("status", password=value)
    assert rack.heard()[2] == f"password={line}"


@pytest.mark.parametrize(("more", "words"), [
    ({"pasword": "hunter2"}, "no option 'pasword'"),
    ({"action": "on"}, "option action"),
    ({"verbose": True}, "option verbose"),
    ({"password_script": "/bin/sh"}, "option password_script"),
    ({"password": "a\naction=on"}, "option password has a line break"),
    ({"power_wait": "soon"}, "whole number"),
    ({"ssl": "perhaps"}, "true or false"),
    ({"method": "kick"}, "one of onoff, cycle"),
    ({"password_file": "secret"}, "absolute path"),
    ({"password_file": "/nonexistent"}, "cannot be read"),
    ({"password_file": "/dev/zero"}, "is not a file"),
    ({"password": "a", "password_file": "/etc/hostname"}, "given twice"),
    ({"password": "a" * 40_000}, "longer than"),
])  # fmt: skip
def test_settings_that_cannot_work_are_refused_and_named(rack: Rack, more: Device, words: str) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        check_device(rack.device(**more), rack.directory)
    assert "hunter2" not in str(caught.value)
    assert not rack.ask_device(rack.device(**more), "off").ok
    assert (rack.directory / "h1").read_text() == "on"


def test_required_option_that_lacks_is_named_by_its_present_name(rack: Rack) -> None:
    with pytest.raises(BadInput, match="needs plug;"):
        check_device({"type": "simulated"}, rack.directory)


def test_older_name_of_a_required_option_is_enough(rack: Rack) -> None:
    check_device({"type": "simulated", "port": "h1"}, rack.directory)


@pytest.mark.parametrize(
    "kind", ["../fence_simulated", "fence_", "", "fence_simulated\n", 7, "FENCE_SIMULATED", "sh"]
)
def test_type_that_is_no_agent_is_refused(rack: Rack, kind: str | int) -> None:
    with pytest.raises(BadInput, match="unknown type"):
        check_device({"type": kind, "plug": "h1"}, rack.directory)


@pytest.mark.parametrize("name", sorted(NO_POWER))
def test_agent_that_switches_no_power_is_refused(rack: Rack, name: str) -> None:
    install(rack.directory, name, rack.directory)
    with pytest.raises(BadInput, match="proves nothing"):
        check_device({"type": name, "plug": "h1"}, rack.directory)


def test_agent_that_says_nothing_of_its_options_is_refused(rack: Rack) -> None:
    program = rack.directory / "fence_silent"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    with pytest.raises(BadInput, match="does not say what options"):
        check_device({"type": "silent"}, rack.directory)


def test_agent_judges_its_options_itself_where_it_can(rack: Rack) -> None:
    install(rack.directory, "fence_other", rack.directory, more_actions='<action name="validate-all" />')
    rack.misbehave("if given['action'] == 'validate-all': sys.exit('You have to enter fence address')")
    with pytest.raises(BadInput, match="refuses its options: You have to enter fence address"):
        check_device({"type": "other", "plug": "h1"}, rack.directory)


# ---------------------------------------------------------------- when a host is added


@pytest.mark.parametrize("name", [
    "password", "passwd", "snmp_priv_passwd", "secret_key", "api_token", "community", "hexadecimal_kg", "ssh_key",
])  # fmt: skip
def test_secret_that_would_be_kept_is_refused_with_the_way_to_give_it(name: str) -> None:
    with pytest.raises(BadInput, match=rf"fence device ipmilan: option {name} .* as {name}_file") as caught:
        check_names({"type": "ipmilan", "ip": "10.0.0.7", name: "hunter2"})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", ["action", "verbose", "password_script", "debug_file"])
def test_option_that_no_device_may_have_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(BadInput, match=f"option {name} is not for a device's settings"):
        check_names({"type": "ipmilan", name: "on"})


def test_settings_without_secrets_pass() -> None:
    check_names({"type": "ipmilan", "name": "pass 7", "ip": "x", "username": "root", "password_file": "/a"})


@pytest.mark.parametrize(("more", "words"), [
    ({"pasword_file": "/x"}, "no option 'pasword_file'"),
    ({"power_wait": "soon"}, "whole number"),
    ({"password_file": "x"}, "absolute path"),
    ({"password_file": "/a", "password": "b"}, "given twice"),
])  # fmt: skip
def test_options_are_held_against_the_agent_where_it_is(rack: Rack, more: Device, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        check_options(rack.device(**more), rack.directory)


def test_secret_file_of_another_host_and_an_agent_of_another_host_are_no_error_here(rack: Rack) -> None:
    assert check_options(rack.device(password_file="/on/the/proxy"), rack.directory)
    assert not check_options({"type": "elsewhere", "anything": 1}, rack.directory)


@pytest.mark.parametrize("name", sorted(NO_POWER))
def test_agent_that_switches_no_power_is_refused_wherever_it_is(rack: Rack, name: str) -> None:
    with pytest.raises(BadInput, match="proves nothing"):
        check_options({"type": name, "plug": "h1"}, rack.directory)


# ---------------------------------------------------------------- secrets


def test_password_in_a_file_is_given_and_read_anew(rack: Rack) -> None:
    path = rack.secret_file(b"hunter2\r\nsecond line\n")
    assert rack.ask("status", password_file=path).ok
    assert rack.heard()[2] == "password=hunter2"
    rack.secret_file(b"changed")
    assert rack.ask("status", password_file=path).ok
    assert rack.heard()[2] == "password=changed"


@pytest.mark.parametrize(("data", "mode", "words"), [
    (b"hunter2", 0o644, "can be read by others"),
    (b"hunter2", 0o640, "can be read by others"),
    (b"", 0o600, "first line"),
    (b"\nhunter2", 0o600, "first line"),
    (b"hunter2\0", 0o600, "first line"),
    (b"\xff\xfe", 0o600, "holds no text"),
    (b"x" * 5000, 0o600, "4096 bytes at most"),
])  # fmt: skip
def test_secret_file_that_is_not_fit_is_refused_without_its_content(
    rack: Rack, data: bytes, mode: int, words: str
) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        prepare(rack.device(password_file=rack.secret_file(data, mode)), rack.directory)
    assert "hunter2" not in str(caught.value)


def test_secret_that_an_agent_prints_is_struck_out(rack: Rack) -> None:
    rack.misbehave("sys.exit('login as root with hunter2 refused')")
    for more in ({"password": "hunter2"}, {"password_file": rack.secret_file(b"hunter2\n")}):
        answer = rack.ask("off", **more)
        assert answer.message.endswith("login as root with *** refused")

"""Fence devices of real computers: the distribution's fence agents, run as programs.

A device's settings are the agent's own options ("ip", "username", "plug", …) and "type", its name with or without
`fence_`. Options go to the agent's standard input, never to its command line, where everybody could read a password.
`password_file` is read here and given as `password`. An agent that does not end in time is killed, and what it did is
not known. What it prints is told without the values of its secrets.

The agents' interface: ClusterLabs' FenceAgentAPI; exit code of `status`: 0 on, 2 off, 1 failed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path

from hypervisor_backends.fencing import FenceAction, FenceAnswer, FenceDone
from hypervisor_backends.real_time import Post
from olvm.model.errors import BadInput
from olvm.model.limits import FENCE_CALLS_MAX

TIMEOUT_S = 60.0
PREFIX = "fence_"
NAME = re.compile(r"fence_[a-z0-9][a-z0-9_]{0,40}")
OPTION = re.compile(r"[a-z][a-z0-9_-]{0,63}")
SECRET = re.compile(r"passw|secret|token|key|community", re.IGNORECASE)
OURS = frozenset({"type", "password_file", "agent_directory"})
DIRECTORIES = ("/usr/sbin", "/sbin", "/usr/local/sbin")
SAID_CHARS_MAX = 300
STATUS_ON, STATUS_OFF = 0, 2

Device = Mapping[str, str | int | float | bool]


class FenceAgents:
    """All agents that this host has. `post` runs answers on the owner's thread."""

    def __init__(self, post: Post, *, timeout_s: float = TIMEOUT_S) -> None:
        self._post = post
        self._timeout_s = timeout_s
        self._room = threading.BoundedSemaphore(FENCE_CALLS_MAX)

    def submit(self, device: Device, host: str, action: FenceAction, done: FenceDone) -> None:
        try:
            program, text, secrets = prepare(device, action)
        except BadInput as error:
            done(FenceAnswer(ok=False, message=f"host {host}: {error.message}"))
            return
        if not self._room.acquire(blocking=False):
            words = f"host {host}: {FENCE_CALLS_MAX} fence agents run here already; try again"
            done(FenceAnswer(ok=False, message=words))
            return

        def work() -> None:
            try:
                answer = self._run(program, text, secrets, host, action)
            finally:
                self._room.release()
            self._post(lambda: done(answer))

        threading.Thread(target=work, name=f"fence-{host}", daemon=True).start()

    def _run(
        self, program: str, text: str, secrets: list[str], host: str, action: FenceAction
    ) -> FenceAnswer:
        what = f"{os.path.basename(program)} for {action} of host {host}"
        try:
            ended = subprocess.run(
                [program],
                input=text.encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=self._timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            words = f"{what} did not end within {self._timeout_s:g} s; it may have switched it"
            return FenceAnswer(ok=False, message=words)
        except OSError as error:
            return FenceAnswer(ok=False, message=f"{what} could not be started: {error.strerror}")
        if action == "status" and ended.returncode in (STATUS_ON, STATUS_OFF):
            return FenceAnswer(ok=True, power="on" if ended.returncode == STATUS_ON else "off")
        if action != "status" and ended.returncode == 0:
            return FenceAnswer(ok=True)
        said = _told(ended.stdout.decode(errors="replace"), secrets)
        return FenceAnswer(ok=False, message=f"{what} failed with {ended.returncode}: {said}")


def prepare(device: Device, action: FenceAction) -> tuple[str, str, list[str]]:
    """The agent's path, what it is given to read, and what must not be told. Raises `BadInput`."""
    program = agent_path(device)
    options = {key: value for key, value in device.items() if key not in OURS}
    options["action"] = action
    if "password_file" in device:
        options["password"] = _password(str(device["password_file"]))
    for key, value in options.items():
        if not OPTION.fullmatch(key) or "\n" in str(value) or "\0" in str(value):
            raise BadInput(f"fence device {device.get('type')}: option {key!r} cannot be given to an agent")
    text = "".join(f"{key}={_option(value)}\n" for key, value in sorted(options.items()))
    return program, text, [str(value) for key, value in options.items() if SECRET.search(key) and str(value)]


def agent_path(device: Device) -> str:
    """Raises `BadInput` when there is no such agent here."""
    kind = str(device.get("type", ""))
    name = kind if kind.startswith(PREFIX) else PREFIX + kind
    if not NAME.fullmatch(name):
        raise BadInput(f"fence device type {kind!r} is not the name of a fence agent, as in fence_ipmilan")
    places = [str(device["agent_directory"])] if "agent_directory" in device else list(DIRECTORIES)
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        raise BadInput(
            f"there is no {name} in {', '.join(places)}; install it (Debian: apt install fence-agents)"
        )
    return found


def _password(path: str) -> str:
    try:
        return Path(path).read_text().rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"the fence device's password_file {path} cannot be read: {error}") from error


def _option(value: str | float) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _told(said: str, secrets: list[str]) -> str:
    """The end of what it printed, on one line, without what must not be told."""
    for secret in secrets:
        said = said.replace(secret, "…")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return " / ".join(lines)[-SAID_CHARS_MAX:] or "it said nothing"

"""Fence devices of real computers, by the distribution's fence agents: `fence_ipmilan`, `fence_redfish` and others.

Decides what an agent's end means. Rules:
1. Power is "off" only when the agent says so twice: by the exit code of the fence agents' API (2) *and* in words. A
   missing interpreter and a shell's usage error exit with 2 as well, and nobody may be taken for dead by those.
2. An agent that does not end in time is killed, and the answer is that nothing is known.
3. What an agent says is cut, cleaned, and stripped of every secret before it goes anywhere.

Settings of a device: `type` is the agent's name with or without `fence_`, `name` is for people, and everything else is
an option of the agent (`fence_options.py`). Each call has a thread of its own, because agents take seconds; answers
come by `post`.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from hypervisor_backends.fence_options import AGENTS, Prepared, Settings, prepare
from hypervisor_backends.fence_process import Ended, run_agent
from hypervisor_backends.fencing import FenceAction, FenceAnswer, FenceDone
from olvm.model.errors import BadInput

__all__ = ["FenceAgents", "check_device"]

Post: TypeAlias = Callable[[Callable[[], None]], None]

TIMEOUT_S = 60.0  # agents wait 20 s for a computer to go off, and log in before that
CALLS_MAX = 32  # at once, of one host; each is a thread and a child
MESSAGE_CHARS_MAX = 300
OFF_CODE = 2
STATUS = re.compile(r"^\s*status:\s*(on|off)\b", re.IGNORECASE | re.MULTILINE)
LOG_PREFIX = re.compile(r"^[0-9-]+ [0-9:,]+ (ERROR|WARNING|INFO|DEBUG):\s*")
NOISE = re.compile(
    r"^\s*$|Please use '-h' for usage|validate-all failed|Warning: |^\s+from |^  ", re.IGNORECASE
)


def check_device(device: Settings, directory: Path = AGENTS) -> None:
    """Whether the device could ever work: its agent, its options, and what the agent itself thinks of them.

    For the host that will ask it. Asks nothing of the device. Raises `BadInput`. Cost: half a second, twice; blocks.
    """
    prepared = prepare(device, directory)
    if "validate-all" not in prepared.agent.actions:
        return
    ended = run_agent(prepared.agent.path, prepared.lines("validate-all"), TIMEOUT_S)
    if ended.code != 0:
        raise BadInput(
            f"fence device {prepared.agent.name} refuses its options: {summary(ended, prepared.secrets)}"
        )


class FenceAgents:
    """Implements `FenceDevices`."""

    def __init__(self, post: Post, directory: str | Path = AGENTS, timeout_s: float = TIMEOUT_S) -> None:
        self._post = post
        self._directory = Path(directory)
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._groups: set[int] = set()  # of the agents that run
        self._calls = 0
        self._closed = False

    def submit(self, device: Settings, host: str, action: FenceAction, done: FenceDone) -> None:
        with self._lock:
            is_full = self._calls >= CALLS_MAX or self._closed
            self._calls += not is_full
        if is_full:
            words = f"fence device of host {host}: {CALLS_MAX} calls wait for their devices; ask later"
            self._post(lambda: done(FenceAnswer(ok=False, message=words)))
            return
        settings = dict(device)

        def work() -> None:
            answer = self._answer(settings, host, action)
            with self._lock:
                self._calls -= 1
            self._post(lambda: done(answer))

        threading.Thread(target=work, name=f"fence-{host}", daemon=True).start()

    def close(self) -> None:
        """Agents that run are ended; what they had begun at their devices may still come to work."""
        with self._lock:
            self._closed = True
            groups = list(self._groups)
        for group in groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)

    # ------------------------------------------------------------------ the call's own thread

    def _answer(self, device: Settings, host: str, action: FenceAction) -> FenceAnswer:
        try:
            prepared = prepare(device, self._directory)
        except BadInput as error:
            return FenceAnswer(ok=False, message=f"host {host}: {error}")
        ended = self._run(prepared, action)
        if ended.timed_out:
            words = f"did not answer within {self._timeout_s:g} s and was stopped; what it began may still come to work"
            return _failed(prepared, host, action, words)
        if action == "status":
            return _status(ended, prepared, host)
        if ended.code == 0:
            return FenceAnswer(ok=True)
        return _failed(prepared, host, action, f"failed: {summary(ended, prepared.secrets)}")

    def _run(self, prepared: Prepared, action: FenceAction) -> Ended:
        begun: list[int] = []

        def started(group: int) -> None:
            begun.append(group)
            with self._lock:
                self._groups.add(group)

        ended = run_agent(prepared.agent.path, prepared.lines(action), self._timeout_s, started=started)
        with self._lock:
            self._groups.difference_update(begun)
        return ended


def _status(ended: Ended, prepared: Prepared, host: str) -> FenceAnswer:
    said = STATUS.search(ended.said)
    word = said[1].lower() if said else ""
    if ended.code == OFF_CODE and word == "off":
        return FenceAnswer(ok=True, power="off")
    if ended.code == 0 and word != "off":
        return FenceAnswer(ok=True, power="on")
    if ended.code in (0, OFF_CODE):
        words = f"contradicts itself: exit code {ended.code} and {ended.said.strip()[:80]!r}"
    else:
        words = f"failed: {summary(ended, prepared.secrets)}"
    return _failed(prepared, host, "status", words)


def _failed(prepared: Prepared, host: str, action: FenceAction, words: str) -> FenceAnswer:
    asked = "asked for the power of" if action == "status" else f"asked to switch {action}"
    return FenceAnswer(ok=False, message=f"{prepared.agent.name}, {asked} host {host}, {words}")


def summary(ended: Ended, secrets: tuple[str, ...]) -> str:
    """The last thing that it said which means something, without secrets."""
    text = ended.complained
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    lines = [LOG_PREFIX.sub("", line).strip() for line in text.splitlines()]
    meant = [
        line for line, raw in zip(lines, text.splitlines(), strict=True) if line and not NOISE.search(raw)
    ]
    last = meant[-1] if meant else f"it said nothing and ended with exit code {ended.code}"
    return "".join(c if c.isprintable() else " " for c in last)[:MESSAGE_CHARS_MAX]

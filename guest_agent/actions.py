"""What the host may have this guest do. Each action begins a program or writes a file, and never waits for long.

What asks other programs is done in a child (`errands`), and imports what it needs only there.
An action returns an empty text, or why it could not be done: that goes back to a host that asked for an answer.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from collections.abc import Callable

from guest_agent import protocol as p
from guest_agent.sessions import read_sessions

FIFREEZE, FITHAW = 0xC0045877, 0xC0045878
THAW_AFTER_S = 60.0  # a host that forgets a frozen guest does not keep it so
CPU_DIRECTORY = "/sys/devices/system/cpu"
HOOK_TIMEOUT_S = 8
MESSAGE_CHARS_MAX = 1000
FROZEN_MARK = "/run/olvm-guest-agent.frozen"  # an agent that is started again thaws what the last one froze
HOOK_DIRECTORIES = ("/etc/olvm-guest-agent/hooks.d", "/etc/ovirt-guest-agent/hooks.d")


def shutdown(message: str, delay_s: int, reboot: bool) -> str:
    """`shutdown` counts in minutes, and a delay below one is none; where there is none, busybox goes at once."""
    from guest_agent import programs

    when = "now" if delay_s < 60 else f"+{delay_s // 60}"
    if programs.is_here("shutdown"):
        said = p.clean(message, MESSAGE_CHARS_MAX).lstrip("-") or "asked for by the host"
        return programs.begin(["shutdown", "-r" if reboot else "-h", when, said])
    return programs.begin(["reboot" if reboot else "poweroff"])


def hibernate(state: str) -> str:
    from guest_agent import programs

    if programs.is_here("systemctl"):
        return programs.begin(["systemctl", "hibernate" if state == "disk" else "suspend"])
    try:
        with open("/sys/power/state", "w") as file:
            file.write("disk" if state == "disk" else "mem")
    except OSError as error:
        return str(error)
    return ""


def notify(message: str) -> str:
    """To everybody's terminal."""
    from guest_agent import programs

    return programs.finish(["wall"], message.encode())


def set_cpu_count(count: int) -> str:
    """Switch CPUs on and off, the highest numbers first; CPU 0 stays."""
    names = sorted(
        (name for name in os.listdir(CPU_DIRECTORY) if name[3:].isdigit()), key=lambda one: int(one[3:])
    )
    if not 1 <= count <= len(names):
        return f"this guest has {len(names)} CPUs, not {count}"
    for number, name in enumerate(names):
        path = os.path.join(CPU_DIRECTORY, name, "online")
        if os.path.exists(path):
            try:
                with open(path, "r+") as file:
                    wanted = "1" if number < count else "0"
                    if file.read().strip() != wanted:
                        file.seek(0)
                        file.write(wanted)
            except OSError as error:
                return f"CPU {number}: {error}"
    return ""


def session_command(verb: str, session: str) -> str:
    """lock-session, unlock-session or terminate-session of one session by its terminal; empty: of the console."""
    from guest_agent import programs

    found = [
        one
        for one in read_sessions()
        if one.line == session or (not session and not one.line.startswith("pts/"))
    ]
    if not found:
        return f"nobody is logged on at {session or 'the console'}"
    if found[0].number and programs.is_here("loginctl"):
        return programs.finish(["loginctl", verb, *(one.number for one in found)])
    if verb == "terminate-session":
        return _hang_up(found[0].line)
    return "this guest has no logind, which alone can lock a screen"


def _hang_up(session: str) -> str:
    """Without logind: end what reads that terminal, its session's leader first."""
    if not session:
        return "without loginctl a session must be named"
    ended = 0
    for name in os.listdir("/proc"):
        try:
            if (
                name.isdigit()
                and os.readlink(f"/proc/{name}/fd/0") == "/dev/" + session
                and os.getsid(int(name)) == int(name)
            ):
                os.kill(int(name), signal.SIGHUP)
                ended += 1
        except (OSError, ValueError):
            continue
    return "" if ended else f"nobody is logged on at {session}"


class Freezer:
    """Stops file systems in a consistent state. What was frozen is thawed after `THAW_AFTER_S`, asked or not."""

    def __init__(
        self, mounts: Callable[[], list[tuple[str, str]]], clock: Callable[[], float], mark: str = FROZEN_MARK
    ) -> None:
        self._mounts = mounts
        self._mark = mark
        self._clock = clock
        self._frozen: list[int] = []
        self.thaw_at_s: float | None = None

    def freeze(self) -> str:
        if self._frozen:
            return ""
        with contextlib.suppress(OSError), open(self._mark, "w"):
            pass
        for path, _ in reversed(self._mounts()):
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except OSError as error:
                self.thaw()
                return f"{path}: {error}"
            try:
                fcntl.ioctl(descriptor, FIFREEZE, 0)
            except OSError as error:
                os.close(descriptor)
                if error.errno not in (95, 25):  # a file system that cannot be frozen holds nobody up
                    self.thaw()
                    return f"{path}: {error}"
            else:
                self._frozen.append(descriptor)
        self.thaw_at_s = self._clock() + THAW_AFTER_S
        return ""

    def recover(self) -> None:
        """Thaw what an agent before this one left frozen."""
        if os.path.exists(self._mark):
            for path, _ in self._mounts():
                with contextlib.suppress(OSError):  # it is not frozen
                    descriptor = os.open(path, os.O_RDONLY)
                    try:
                        fcntl.ioctl(descriptor, FITHAW, 0)
                    finally:
                        os.close(descriptor)
            self.thaw()

    def thaw(self) -> str:
        reason = ""
        while self._frozen:
            descriptor = self._frozen.pop()
            try:
                fcntl.ioctl(descriptor, FITHAW, 0)
            except OSError as error:
                reason = str(error)
            os.close(descriptor)
        self.thaw_at_s = None
        with contextlib.suppress(OSError):
            os.unlink(self._mark)
        return reason


def run_hooks(event: str, failure: str, directories: tuple[str, ...] = HOOK_DIRECTORIES) -> str:
    """Executable files of the event's directories, in the order of their names, each with a bound."""
    from guest_agent import programs

    failed = []
    for directory in directories:
        place = os.path.join(directory, event)
        for name in sorted(os.listdir(place)) if os.path.isdir(place) else []:
            path = os.path.join(place, name)
            if os.access(path, os.X_OK):
                said = {"OLVM_EVENT": event, "OLVM_FAILURE": failure}
                reason = programs.finish([path], more=said, timeout_s=HOOK_TIMEOUT_S)
                if reason:
                    failed.append(f"{name}: {reason}")
    return "; ".join(failed)

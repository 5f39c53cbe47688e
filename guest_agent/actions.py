"""What the host may have this guest do. Each action begins a program or writes a file, and never waits for long.

What asks other programs is done in a child (`errands`), and imports what it needs only there.
An action returns an empty text, or why it could not be done: that goes back to a host that asked for an answer.
"""

from __future__ import annotations

import os
import signal

from guest_agent import protocol as p
from guest_agent.sessions import Session, lock_of, read_sessions

CPU_DIRECTORY = "/sys/devices/system/cpu"
HOOK_TIMEOUT_S = 8
MESSAGE_CHARS_MAX = 1000
DELAY_S_MAX = 7 * 24 * 3600
HOOK_DIRECTORIES = ("/etc/olvm-guest-agent/hooks.d", "/etc/ovirt-guest-agent/hooks.d")


def shutdown(message: str, delay_s: int, reboot: bool) -> str:
    """`shutdown` counts in minutes, and a delay below one is none; where there is none, busybox goes at once."""
    from guest_agent import programs

    if not 0 <= delay_s <= DELAY_S_MAX:
        return f"a shutdown cannot be in {delay_s} s"
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


def missing_user(user: str) -> str:
    """Asked before a logon: of a name that nobody has `login` would ask a password, and the host would not hear."""
    import pwd

    try:
        pwd.getpwnam(user)
    except KeyError:
        return f"this guest has no user {user}; create it there, or log on as another one"
    return ""


def session_command(verb: str, session: str) -> str:
    """lock-session, unlock-session or terminate-session of one session by its terminal; empty: of the console."""
    found = [one for one in read_sessions() if one.line == session or (not session and not one.is_remote)]
    if not found:
        return f"nobody is logged on at {session or 'the console'}"
    reasons = [_session_command(verb, one) for one in found]
    return "; ".join(reason for reason in reasons if reason)


def _session_command(verb: str, one: Session) -> str:
    from guest_agent import programs

    if verb == "terminate-session":
        if one.number and programs.is_here("loginctl"):
            return programs.finish(["loginctl", verb, one.number])
        return _hang_up(one.line)
    if one.is_desktop and one.number:
        return programs.finish(["loginctl", verb, one.number])
    if one.is_desktop or one.line.startswith(":"):
        return f"the desktop {one.line} has no logind, which alone can lock it"
    from guest_agent import text_lock

    if verb == "lock-session":
        return text_lock.lock(one.line, one.user)
    if (
        one.number and not lock_of(one.line) and programs.is_here("loginctl")
    ):  # whoever locked it listens to logind
        return programs.finish(["loginctl", verb, one.number])
    return text_lock.release(one.line)


def _hang_up(session: str) -> str:
    """Without logind: end what has that terminal."""
    from guest_agent import text_lock

    try:
        pids = text_lock.processes_of(session)
    except OSError as error:
        return str(error)
    for number in (signal.SIGHUP, signal.SIGCONT):  # a stopped one hears nothing
        text_lock.send(pids, number)
    return "" if pids else f"nobody is logged on at {session}"


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

"""What sanlock needs in a laboratory: a lockspace on the shared storage, and a daemon that bears small limits.

Must not know the backend: that the two agree on paths is what the tests with sanlock show.
"""

from __future__ import annotations

from pathlib import Path

from olvm.lab.commands import run

LOCKSPACE = "area"
LIMITS = Path(__file__).with_name("sanlock_limits.c")


def named(leases: Path, host_id: int) -> str:
    """As its programs take it. 0 is nobody's number: the lockspace itself."""
    return f"{LOCKSPACE}:{host_id}:{leases / f'{LOCKSPACE}-sanlock' / 'lockspace'}:0"


def make(leases: Path) -> None:
    """With its daemons' shortest time: a host joins in 3 s, and not in half a minute."""
    directory = leases / f"{LOCKSPACE}-sanlock"
    directory.mkdir()
    (directory / "lockspace").touch(0o600)
    run(["sanlock", "direct", "init", "-s", named(leases, 0), "-o", "1"])


def limits_of(directory: Path) -> Path:
    return directory / "sanlock_limits.so"


def build_limits(directory: Path) -> None:
    run(["gcc", "-shared", "-fPIC", "-O1", "-o", str(limits_of(directory)), str(LIMITS)])

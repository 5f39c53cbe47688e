"""sanlock's own program, as the backend runs it: by its exit code and what it printed. Blocks: on workers alone.

The programs are this machine's; files and the daemon's socket are the host's, below `root` of its settings.
"""

from __future__ import annotations

import os
import shutil
import subprocess

from hypervisor_backends.libvirt_settings import LibvirtSettings, sanlock_escaped

TIMEOUT_S = 30.0  # at most one write of 1 MiB; a storage that takes longer is in trouble
PROGRAM_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def run_sanlock(arguments: tuple[str, ...], settings: LibvirtSettings) -> tuple[int | None, str]:
    """Exit code and what it said; None when it was not run, or did not end."""
    program = shutil.which("sanlock", path=PROGRAM_PATH)
    if program is None:
        return (
            None,
            "the program sanlock is not installed; `olvm host check --lock-manager sanlock` says how it is",
        )
    try:
        ended = subprocess.run(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_S,
            check=False,
            env={**os.environ, "SANLOCK_RUN_DIR": settings.path_here("/run/sanlock")},
        )
    except subprocess.TimeoutExpired:
        return None, f"sanlock did not end within {TIMEOUT_S:g} s; look at the shared storage"
    return ended.returncode, ended.stdout.decode(errors="replace").strip()


def own_id_in(said: str, settings: LibvirtSettings) -> int | None:
    """The host's number in its lockspace, from what `client gets` said; None: it has not joined.

    As in `s area:1:/leases/area-sanlock/lockspace:0`; with a word behind it the host joins, or leaves.
    """
    for line in said.splitlines():
        words = line.split()
        if len(words) == 2 and words[0] == "s":
            name, _, rest = words[1].partition(":")
            number, _, path = rest.partition(":")
            if name == settings.lockspace and path == f"{sanlock_escaped(settings.sanlock_lockspace_path)}:0":
                return int(number) if number.isdecimal() else None
    return None

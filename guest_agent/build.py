"""python -m guest_agent.build OUT.pyz: the agent as one file, the same bytes for the same sources.

An existing directory in place of OUT.pyz gets the file and what installs it.
"""

from __future__ import annotations

import os
import shutil
import sys
import zipfile

MODULES = (
    "__init__",
    "__main__",
    "actions",
    "addresses",
    "agent",
    "console",
    "credentials",
    "errands",
    "facts",
    "freezing",
    "logind",
    "loop",
    "pam",
    "programs",
    "protocol",
    "sessions",
    "text_lock",
)
BESIDE = ("install.sh", "olvm-guest-agent.service", "olvm-console.conf")
WHEN = (1980, 1, 1, 0, 0, 0)
ENTRY = "from guest_agent.__main__ import main\nimport sys\nsys.exit(main(sys.argv[1:]))\n"


def build(out: str) -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    if os.path.isdir(out):
        for name in BESIDE:
            shutil.copy(os.path.join(here, name), out)
        out = os.path.join(out, "olvm-guest-agent.pyz")
    part = out + ".part"
    with open(part, "wb") as file:
        file.write(b"#!/usr/bin/env python3\n")
        with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
            _add(archive, "__main__.py", ENTRY.encode())
            for name in MODULES:
                with open(os.path.join(here, name + ".py"), "rb") as source:
                    _add(archive, f"guest_agent/{name}.py", source.read())
    os.chmod(part, 0o755)
    os.replace(part, out)


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, WHEN)
    entry.external_attr = 0o644 << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, data)


if __name__ == "__main__":
    build(sys.argv[1])

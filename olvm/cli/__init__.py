"""The command line. `main` runs it; `app` is the tree of commands, from which help and completion are made.

Rule: neither is built before it is asked for, so that `olvm.cli.daemon` and `import olvm.cli` cost nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["app", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (the process's own by default); returns its exit code and never raises."""
    try:
        from olvm.cli.application import run

        return run(sys.argv[1:] if arguments is None else list(arguments))
    except KeyboardInterrupt:  # before the command began; `run` answers for all that comes after
        print("olvm: interrupted", file=sys.stderr)
        return 130


def __getattr__(name: str) -> Any:
    if name == "app":
        from olvm.cli.application import app

        return app
    raise AttributeError(f"module 'olvm.cli' has no attribute {name!r}")

"""Says why the first experiment after an installation takes so long."""

from __future__ import annotations

import sys


def note_compilation() -> None:
    """From now on say it on stderr, once, should something be compiled."""
    from olvm.experiments.compilation import tell_of_compilation

    tell_of_compilation(_say)


def _say() -> None:
    print(
        "olvm: compiling, once after an installation: this takes up to a minute",
        file=sys.stderr,
        flush=True,
    )

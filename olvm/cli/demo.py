"""`olvm demo`: hands over to olvm.demo, which is loaded only now."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def run(
    directory: Path | None = None,
    vms: int = 3500,
    *,
    runtime: Literal["ray", "local"] = "ray",
    seconds: float = 50.0,
    discard: bool = False,
    trials: bool = True,
) -> int:
    """Tell the whole story on this machine; the exit code is 1 when a promise was not kept or a step failed."""
    from olvm.demo.story import tell_story

    return tell_story(
        runtime=runtime,
        vm_count=vms,
        seconds=seconds,
        directory=directory,
        discard=discard,
        with_trials=trials,
    )

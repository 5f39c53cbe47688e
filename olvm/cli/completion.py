"""`olvm completion`: what a shell needs to complete commands, options and names."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="The shell to write for.")], /
) -> int:
    """Print a shell's completion script; in bash: `source <(olvm completion bash)`."""
    from olvm.cli.application import app

    print(app.generate_completion(prog_name="olvm", shell=shell))
    return 0

"""Names that a shell offers at TAB: asked of the running engine, and nothing when it does not answer at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cyclopts.completion import CompletionContext

NAMES_OFFERED_MAX = 200
ANSWER_TIMEOUT_S = 1.0


def vm_names(context: CompletionContext) -> list[str]:
    return _names("vms", context)


def host_names(context: CompletionContext) -> list[str]:
    return _names("hosts", context)


def cluster_names(context: CompletionContext) -> list[str]:
    return _names("clusters", context)


def affinity_group_names(context: CompletionContext) -> list[str]:
    return _names("affinity_groups", context)


def user_names(context: CompletionContext) -> list[str]:
    return _names("users", context)


def _names(table: str, context: CompletionContext) -> list[str]:
    from olvm.api.data_center import DataCenter
    from olvm.cli.options import default_directory

    named = context["--directory"].raw or os.environ.get("OLVM_DIRECTORY")
    directory = Path(named) if named else default_directory()
    query = f"select name from {table} where starts_with(name, ?) order by name limit {NAMES_OFFERED_MAX}"  # noqa: S608
    with DataCenter.connect(directory, connect_timeout=0, reconnect=0) as dc:
        rows = dc.sql(query, [context.incomplete], timeout=ANSWER_TIMEOUT_S).rows()
    return [str(name) for (name,) in rows]

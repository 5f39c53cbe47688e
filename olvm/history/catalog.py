"""The page that describes every view: `python -m olvm.history.catalog > docs/history-schema.md`."""

from __future__ import annotations

import sys

from olvm.history.own_views import OWN_VIEWS
from olvm.history.views import STATISTICS_VIEWS


def markdown() -> str:
    """docs/history-schema.md as it has to be."""
    lines = [
        "# Views of history",
        "",
        "Made from `olvm/history/views.py` and `own_views.py` by `python -m olvm.history.catalog`. Times are UTC,",
        "and a day is 24 hours of it. What is unknown is NULL.",
    ]
    for view in (*STATISTICS_VIEWS, *OWN_VIEWS):
        lines += ["", f"## {view.name}", "", view.comment, "", "| column | meaning |", "|---|---|"]
        lines += [f"| `{column.name}` | {column.comment} |" for column in view.columns]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(markdown())

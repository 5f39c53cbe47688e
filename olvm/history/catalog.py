"""What describes every view: `olvm sql --schema`, and docs/history-schema.md.

`python -m olvm.history.catalog > docs/history-schema.md` writes that page.
"""

from __future__ import annotations

import sys

from olvm.history.own_views import OWN_VIEWS
from olvm.history.views import STATISTICS_VIEWS


def schema_rows() -> list[dict[str, str]]:
    """A row for each view (with an empty column), and for each of its columns, with what it means."""
    rows = []
    for view in (*STATISTICS_VIEWS, *OWN_VIEWS):
        rows.append({"view": view.name, "column": "", "meaning": view.comment})
        rows += [{"view": view.name, "column": one.name, "meaning": one.comment} for one in view.columns]
    return rows


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

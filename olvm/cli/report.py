"""`olvm report`: what the last hours were like, as a few lines and as one HTML file."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from olvm.api.report import report as asked
from olvm.api.report_page import html as page_of
from olvm.api.report_page import summary
from olvm.api.whole_files import whole_file
from olvm.cli.connection import data_center
from olvm.cli.options import CONNECTING, Connecting, Duration
from olvm.cli.output import shown


def report(
    *,
    last: Annotated[
        Duration, Parameter(help="So far back; events are kept for 30d, days of roll-ups for five years.")
    ] = 86400.0,
    html: Annotated[Path | None, Parameter(help="Write the whole report here.", metavar="FILE")] = None,
    options: Connecting = CONNECTING,
) -> int:
    """Report utilisation, availability, events, and the busiest and most wasteful machines."""
    with data_center(options) as dc:
        told = asked(dc, last, time.time_ns())
    print("\n".join(shown(line) for line in summary(told)))
    if html is not None:
        with whole_file(html) as part:
            part.write_text(page_of(told, options.place().name), encoding="utf-8")
        print(f"olvm: the report is {html}", file=sys.stderr)
    return 0

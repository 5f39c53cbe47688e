"""`olvm experiment replay`: a trace of VM requests against hosts and one policy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from olvm.cli.compilation_note import note_compilation
from olvm.cli.options import OutputFormat
from olvm.cli.output import write_object

BAD_ROWS_SHOWN_MAX = 5
_UNHEEDED = {
    "numa_nodes": "these hosts have one NUMA node each (--numa-nodes)",
    "host_group": "no host is in a group (--hosts 10x64c256g:group=NAME)",
}


def replay(
    *,
    trace: Annotated[
        Path,
        Parameter(
            help="Parquet or CSV with arrival_s, lifetime_s (empty: never leaves), vcpus, memory_gib; or azure-v1.",
            metavar="FILE",
        ),
    ],
    hosts: Annotated[
        str,
        Parameter(
            help="As in 1000x64c256g, 500x64c256g,500x32c512g, borg-a:1000, or a CSV file; "
            "10x64c256g:group=gpu:price=0.9 says a host group and a price an hour.",
            metavar="SPEC",
        ),
    ],
    policy: Annotated[
        str,
        Parameter(
            help="first_fit, best_fit, worst_fit, round_robin, random, two_choice, dot_product, cosine, "
            "norm_greedy, weighted_dot_product, numa_balance, nilas, lava (nilas@0.5: with wrong predictions), "
            "or a class of your own as module:Class.",
            metavar="NAME",
        ),
    ] = "first_fit",
    queue: Annotated[
        Literal["fifo", "reject"],
        Parameter(help="Who does not fit waits, and all behind too; or is refused."),
    ] = "fifo",
    numa_nodes: Annotated[int, Parameter(help="NUMA nodes of each host.", metavar="N")] = 1,
    split_above_gib: Annotated[
        float | None,
        Parameter(help="Spread VMs of more memory evenly over all nodes of a host.", metavar="G"),
    ] = None,
    seed: Annotated[
        int, Parameter(help="What random, two_choice and errors of predictions are drawn from.", metavar="S")
    ] = 0,
    out: Annotated[
        Path | None,
        Parameter(help="Folder for vms, hosts and cluster as Parquet, and manifest.json.", metavar="DIR"),
    ] = None,
    on_bad: Annotated[
        Literal["error", "drop"], Parameter(help="What a bad row of the trace does.")
    ] = "error",
    ignore: Annotated[
        list[str] | None,
        Parameter(
            help="Do not read this column: numa_nodes, host_group or utilisation; may be repeated.",
            metavar="COLUMN",
        ),
    ] = None,
    series_period: Annotated[
        float, Parameter(help="Seconds between two samples of the series, with --out.", metavar="SECONDS")
    ] = 3600.0,
    power: Annotated[
        str, Parameter(help="Power model of the series: hp-ml110-g4, hp-ml110-g5.", metavar="NAME")
    ] = "hp-ml110-g4",
    output: Annotated[OutputFormat, Parameter(name=["--output", "-o"], help="Format of the data.")] = "table",
    verbose: Annotated[
        bool, Parameter(name=["--verbose", "-v"], negative=(), help="Show the traceback of a failure.")
    ] = False,
) -> int:
    """Place the VMs of a trace one by one, with their departures, and count."""
    del verbose
    if ":" in policy and "" not in sys.path:
        sys.path.insert(0, "")  # a policy of one's own stands where the command is run
    from olvm.experiments.replays import replay as run

    note_compilation()
    result = run(
        trace,
        hosts,
        numa_nodes=numa_nodes,
        split_above_gib=split_above_gib,
        policy=policy,
        queue=queue,
        seed=seed,
        out=out,
        on_bad=on_bad,
        ignore=ignore or (),
        series_period_s=series_period,
        power=power,
    )
    for bad in result.trace.bad_rows[:BAD_ROWS_SHOWN_MAX]:
        print(f"olvm: dropped {bad}", file=sys.stderr)
    if result.dropped > BAD_ROWS_SHOWN_MAX:
        print(f"olvm: dropped {result.dropped} rows in all", file=sys.stderr)
    if result.rounded:
        print(
            f"olvm: rounded up {result.rounded} requests to thousandths of a vCPU and to KiB", file=sys.stderr
        )
    for column in result.unheeded:
        print(f"olvm: {column} is not heeded: {_UNHEEDED[column]}", file=sys.stderr)
    if not result.compiled:
        print(
            "olvm: numba is not installed, so that this was slow: pip install 'olvm[experiments]'",
            file=sys.stderr,
        )
    row = result.summary()
    write_object(row, list(row), output)
    return 0

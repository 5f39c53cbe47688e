"""`olvm experiment import FORMAT PATH`: published traces become the table that experiments replay.

On stdout stands the name of the file that was written, or with `-o json` the report; the report for people is on
stderr.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cyclopts import App, Parameter

app = App(
    name="import",
    help="Import a published trace: write it as the Parquet file that `olvm experiment replay` takes.",
    help_epilogue="Bad rows are named with file and line: they end the import, or are dropped and counted with "
    "--on-bad drop. docs/traces.md says what the columns of each format mean and where to get it.",
)

Source = Annotated[
    Path, Parameter(help="The source: a file, or a folder where there are many.", show_default=False)
]
Out = Annotated[
    Path | None,
    Parameter(
        help="What to write; by default the source's name with -trace.parquet, here.", metavar="FILE.parquet"
    ),
]
OnBad = Annotated[
    Literal["error", "drop"],
    Parameter(name="--on-bad", help="What bad rows do: end the import, or be left out."),
]
Output = Annotated[
    Literal["table", "json"],
    Parameter(name=["--output", "-o"], help="`json` prints the report as one object."),
]
Verbose = Annotated[
    bool, Parameter(name=["--verbose", "-v"], negative=(), help="Show the traceback of a failure.")
]
MachineVcpus = Annotated[
    float, Parameter(help="vCPUs of the machine whose fractions the source has.", metavar="N")
]
MachineMemory = Annotated[float, Parameter(help="GiB of memory of that machine.", metavar="GIB")]


@app.command(name="azure-v1")
def azure_v1(
    path: Source,
    /,
    *,
    out: Out = None,
    duration: Annotated[
        Literal["upper", "draw"],
        Parameter(help="Lifetimes of the processed files are bins: the upper edge, or drawn within."),
    ] = "upper",
    seed: Annotated[int, Parameter(help="What `--duration draw` draws from.", metavar="S")] = 0,
    end_s: Annotated[
        float, Parameter(name="--end-s", help="VMs deleted then or later never leave.", metavar="SECONDS")
    ] = 2_591_700.0,
    on_bad: OnBad = "error",
    output: Output = "table",
    verbose: Verbose = False,
) -> int:
    """Azure public dataset v1: vmtable.csv.gz, or its processed Parquet files."""
    del verbose
    return _run("azure-v1", path, out, on_bad, output, duration=duration, seed=seed, end_s=end_s)


@app.command(name="azure-packing")
def azure_packing(
    path: Source,
    /,
    *,
    out: Out = None,
    machine: Annotated[
        int | None,
        Parameter(help="machineId whose fractions count; the commonest if not given.", metavar="ID"),
    ] = None,
    machine_vcpus: MachineVcpus = 64.0,
    machine_memory_gib: MachineMemory = 256.0,
    before_start: Annotated[
        Literal["clip", "shift", "drop"],
        Parameter(help="VMs older than the trace: arrive at 0 s, shift all times, or are left out."),
    ] = "clip",
    on_bad: OnBad = "error",
    output: Output = "table",
    verbose: Verbose = False,
) -> int:
    """Azure trace for packing 2020: an SQLite file with the tables vm and vmType."""
    del verbose
    return _run(
        "azure-packing",
        path,
        out,
        on_bad,
        output,
        machine=machine,
        machine_vcpus=machine_vcpus,
        machine_memory_gib=machine_memory_gib,
        before_start=before_start,
    )


@app.command
def huawei(
    path: Source,
    /,
    *,
    out: Out = None,
    on_bad: OnBad = "error",
    output: Output = "table",
    verbose: Verbose = False,
) -> int:
    """Huawei-East-1: creations and deletions of VMs in one CSV."""
    del verbose
    return _run("huawei", path, out, on_bad, output)


@app.command
def opendc(
    path: Source,
    /,
    *,
    out: Out = None,
    memory_unit: Annotated[
        Literal["KB", "MB", "GB"], Parameter(help="What a number in mem_capacity counts.")
    ] = "MB",
    fragments: Annotated[bool, Parameter(help="Read the fragments for the utilisation.")] = True,
    on_bad: OnBad = "error",
    output: Output = "table",
    verbose: Verbose = False,
) -> int:
    """OpenDC: tasks.parquet with fragments.parquet, or the older meta.parquet with trace.parquet."""
    del verbose
    return _run("opendc", path, out, on_bad, output, memory_unit=memory_unit, fragments=fragments)


@app.command
def planetlab(
    path: Source,
    /,
    *,
    out: Out = None,
    on_bad: OnBad = "error",
    output: Output = "table",
    verbose: Verbose = False,
) -> int:
    """PlanetLab days of CloudSim: a folder with a file of 288 percentages for each VM."""
    del verbose
    return _run("planetlab", path, out, on_bad, output)


@app.command
def bitbrains(
    path: Source,
    /,
    *,
    out: Out = None,
    on_bad: OnBad = "error",
    output: Output = "table",
    verbose: Verbose = False,
) -> int:
    """GWA-T-12 Bitbrains: a folder with a CSV of samples for each VM."""
    del verbose
    return _run("bitbrains", path, out, on_bad, output)


@app.command
def borg(
    path: Source,
    /,
    *,
    out: Out = None,
    machine_vcpus: MachineVcpus = 64.0,
    machine_memory_gib: MachineMemory = 512.0,
    tasks: Annotated[
        Literal["top", "all"],
        Parameter(help="Allocs and tasks outside of them, or every task and no alloc."),
    ] = "top",
    on_bad: OnBad = "error",
    output: Output = "table",
    verbose: Verbose = False,
) -> int:
    """Google Borg 2019: instance_events as JSON, Parquet or CSV, with collection_events for the users."""
    del verbose
    return _run(
        "borg",
        path,
        out,
        on_bad,
        output,
        machine_vcpus=machine_vcpus,
        machine_memory_gib=machine_memory_gib,
        tasks=tasks,
    )


@app.command
def swf(
    path: Source,
    /,
    *,
    out: Out = None,
    processors: Annotated[
        Literal["requested", "allocated"],
        Parameter(help="Which number of processors counts where both are known."),
    ] = "requested",
    processors_per_vm: Annotated[
        int | None, Parameter(help="Divide larger jobs into VMs of at most so many.", metavar="N")
    ] = None,
    memory_gib_per_processor: Annotated[
        float, Parameter(help="Memory where the log does not know it.", metavar="GIB")
    ] = 1.0,
    on_bad: OnBad = "error",
    output: Output = "table",
    verbose: Verbose = False,
) -> int:
    """Standard Workload Format: jobs of the Parallel Workloads Archive."""
    del verbose
    return _run(
        "swf",
        path,
        out,
        on_bad,
        output,
        processors=processors,
        processors_per_vm=processors_per_vm,
        memory_gib_per_processor=memory_gib_per_processor,
    )


def _run(
    name: str,
    path: Path,
    out: Path | None,
    on_bad: Literal["error", "drop"],
    output: Literal["table", "json"],
    **options: object,
) -> int:
    from olvm.experiments.imports import import_trace

    report = import_trace(name, path, out, on_bad=on_bad, told=_say, **options)
    for line in report.lines():
        _say(line)
    if output == "json":
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        print(report.out)
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

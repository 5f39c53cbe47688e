"""Azure's first public VM trace (2017): `vmtable.csv.gz` as published, and the processed Parquet files of it.

`vmtable.csv` has no header and eleven columns: VM id, subscription id, deployment id, time created, time deleted,
maximal, average and 95th percentile of maximal CPU, category, virtual cores, memory. Times are seconds from the
trace's beginning in steps of 300; memory is in GB, and its values (1.75, 3.5, 7, 14, 56, …) are Azure's sizes, which
are GiB. Sources: AzurePublicDatasetV1.md of github.com/Azure/AzurePublicDataset (meanings and units; columns 13 and 14
there are the last two here), its analysis notebook (the order of the columns; a lifetime is at least 300 s), and rows
of the file that OpenDC keeps for its tests (opendc-trace-azure, vmtable.csv).

- A VM deleted at 2,591,700 s, the last reading, or later, still ran when the trace ended: it never leaves.
- VMs created at 0 s were there before the trace began: their true age is not known.
- Subscriptions are tenants. The average CPU in percent is the utilisation.
- The second version of the trace (2019) has buckets for sizes (`>24`): such rows are bad, not guessed.

The processed files (Bergsma et al., SOSP 2021) have `arrival_s, batch_id, vcpu, mem_gb` and, where lifetimes are known,
`duration_lo_s, duration_hi_s, censored`. Lifetimes are bins there: `duration="upper"` takes the upper edge, `"draw"` a
moment within the bin, from `seed`. Their meanings: `olvm.experiments.azure_trace`. Times count from the first arrival.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from olvm.experiments.imports.checking import (
    Check,
    ascii_text,
    column_count,
    ends_after_start,
    number,
    problem_of,
    said,
)
from olvm.experiments.imports.importing import Importer, Importing, Options
from olvm.experiments.imports.sources import file_literal, header_lines, is_parquet, lines_of, the_file
from olvm.model.errors import BadInput

PERIOD_S = 300
LAST_READING_S = 2_591_700
NAMES = (
    "vmtable.csv.gz",
    "vmtable.csv",
    "vmtable/vmtable.csv.gz",
    "vmtable/vmtable.csv",
    "trace_data/vmtable/vmtable.csv.gz",
    "dev_vms.parquet",
)
_PROCESSED = ("arrival_s", "batch_id", "vcpu", "mem_gb")
_LIFETIMES = ("duration_lo_s", "duration_hi_s", "censored")


class AzureV1Options(Options, frozen=True, kw_only=True):
    """`end_s`: VMs deleted then or later never leave. `duration` and `seed`: of the processed files alone."""

    end_s: float = LAST_READING_S
    duration: Literal["upper", "draw"] = "upper"
    seed: int = 0


def read(importing: Importing, options: AzureV1Options) -> None:
    path = the_file(importing.source, "azure-v1", NAMES)
    importing.add_file(path)
    if is_parquet(path):
        _read_processed(importing, path, options)
    else:
        _read_table(importing, path, options)


def _read_table(importing: Importing, path: Path, options: AzureV1Options) -> None:
    first = header_lines(path)
    if not first:
        raise BadInput(f"cannot import {path} as azure-v1: it is empty")
    skipped = 1 if first[0].split(",")[0].strip().lower() in {"vmid", "vm id", "encrypted vm id"} else 0
    checks = [
        column_count("p", 11, "commas"),
        ascii_text("text"),
        Check(
            "starts_with(p[10], '>') or starts_with(p[11], '>')",
            "bucket",
            said(
                "its size is a bucket, {} cores and {} GB, as in the trace's second version", "p[10]", "p[11]"
            ),
        ),
        *number("vmcreated", "p[4]", "created"),
        *number("vmdeleted", "p[5]", "deleted"),
        ends_after_start("vmcreated", "p[4]", "vmdeleted", "p[5]")._replace(fails="deleted < created"),
        *number("vmcorecount", "p[10]", "cores", above=0),
        *number("vmmemory", "p[11]", "gib", above=0),
        Check(
            "trim(p[7]) <> '' and (percent is null or not isfinite(percent) or percent < 0)",
            "not_a_number",
            said("avgcpu is {}, not a percentage", "p[7]"),
        ),
    ]
    importing.stage(
        f"""
        select line as source_line, created as arrival_s,
            case when deleted < {options.end_s} then greatest(deleted - created, {PERIOD_S}) end as lifetime_s,
            deleted < {options.end_s} and deleted - created < {PERIOD_S} as raised,
            cores as vcpus, gib as memory_gib, p[1] as vm_id, p[2] as tenant, percent / 100 as utilisation,
            {problem_of(checks)} as problem
        from (
            select *, try_cast(p[4] as double) as created, try_cast(p[5] as double) as deleted,
                try_cast(p[10] as double) as cores, try_cast(p[11] as double) as gib,
                try_cast(p[7] as double) as percent
            from (
                select line, text, string_split(text, ',') as p from {lines_of(path)}
                where line > {skipped} and text is not null
            )
        )
        """
    )
    importing.rows_read = importing.value("select count(*) from vms")
    older = importing.value("select count(*) from vms where problem is null and arrival_s = 0")
    if older:
        importing.gaps.append(f"{older:,} VMs were there at 0 s: how long before is not known")
    importing.notes.append(
        f"VMs deleted at {options.end_s:,.0f} s or later never leave; no lifetime is below {PERIOD_S} s, one period"
    )


def _read_processed(importing: Importing, path: Path, options: AzureV1Options) -> None:
    source = f"read_parquet({file_literal(path)}, file_row_number = true)"
    columns = importing.parquet_columns(path)
    missing = [name for name in _PROCESSED if name not in columns]
    if missing:
        raise BadInput(
            f"cannot import {path} as azure-v1: it has no column {', '.join(missing)}; it has {', '.join(columns)}"
        )
    known = all(name in columns for name in _LIFETIMES)
    # A draw depends on the seed and the row alone: 52 bits of a digest, as a fraction in (0, 1].
    share = f"(('0x' || left(md5('{options.seed}:' || file_row_number), 13))::ubigint + 1) / {1 << 52}"
    drawn = (
        "duration_hi_s"
        if options.duration == "upper"
        else f"duration_lo_s + (duration_hi_s - duration_lo_s) * {share}"
    )
    lifetime = (
        f"case when not censored then greatest({drawn}, {PERIOD_S}) end" if known else "cast(null as double)"
    )
    raised = f"not censored and {drawn} < {PERIOD_S}" if known else "false"
    checks = [
        *number("arrival_s", "arrival_s", "cast(arrival_s as double)"),
        *number("vcpu", "vcpu", "cast(vcpu as double)", above=0),
        *number("mem_gb", "mem_gb", "cast(mem_gb as double)", above=0),
    ]
    if known:
        checks += [
            Check("censored is null", "not_a_number", "'censored is missing'"),
            *number("duration_lo_s", "duration_lo_s", "cast(duration_lo_s as double)"),
            *number("duration_hi_s", "duration_hi_s", "cast(duration_hi_s as double)"),
            ends_after_start("duration_lo_s", "duration_lo_s", "duration_hi_s", "duration_hi_s"),
        ]
    importing.stage(
        f"""
        select file_row_number + 1 as source_line, arrival_s - min(arrival_s) over () as arrival_s,
            {lifetime} as lifetime_s, {raised} as raised, vcpu as vcpus, mem_gb as memory_gib,
            'azure-' || printf('%06d', file_row_number) as vm_id, 'batch-' || batch_id as tenant,
            {problem_of(checks)} as problem
        from {source}
        """
    )
    importing.rows_read = importing.value("select count(*) from vms")
    if not known:
        importing.gaps.append("the file has no lifetimes: no VM leaves")
    elif options.duration == "upper":
        importing.notes.append("lifetimes are bins: the upper edge of each is taken (--duration upper)")
    else:
        importing.notes.append(
            f"lifetimes are bins: drawn within each from seed {options.seed} (--duration draw)"
        )
    importing.notes.append(
        "a batch is one tenant's consecutive requests; the same tenant's next batch counts as another"
    )


AZURE_V1 = Importer(
    name="azure-v1",
    summary="Azure public dataset v1: vmtable.csv.gz, or its processed Parquet files.",
    row_is="VMs",
    columns=("vm_id", "tenant", "utilisation"),
    units={
        "arrival_s": "s, from the trace's beginning (vmtable) or from the first arrival (processed files)",
        "lifetime_s": "s, in steps of 300; null: still running when the trace ended",
        "vcpus": "virtual cores",
        "memory_gib": "GiB (the source says GB; its sizes are Azure's)",
        "utilisation": "mean CPU, 0 to 1",
    },
    licence="CC-BY 4.0",
    cite="Cortez et al., Resource Central, SOSP 2017 (processed files also: Bergsma et al., SOSP 2021)",
    options=AzureV1Options,
    read=read,
)

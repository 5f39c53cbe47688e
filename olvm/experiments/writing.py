"""What a replay leaves on disk: `vms`, `hosts` and `cluster` as Parquet, and `manifest.json`.

Rules:
1. The folder appears whole or not at all: it is written under a hidden name beside its place and then renamed.
2. Equal inputs give equal bytes: one thread writes, and nothing in any file tells the time, a path or a machine.
"""

# ruff: noqa: S608 - statements are made of our own words and of quoted paths

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from olvm.experiments.database import cursor
from olvm.experiments.host_specs import HostFleet
from olvm.experiments.kernels.samples import (
    CLUSTER_COLUMNS,
    HOST_COLUMNS,
    M_CLUSTER_ROWS,
    M_HOST_ROWS,
    Samples,
)
from olvm.experiments.kernels.state import GIB_KIB, MILLI, Requests
from olvm.experiments.manifest import file_digest, manifest_of, write_manifest
from olvm.experiments.result import WHY, vm_columns
from olvm.experiments.trace import Trace
from olvm.experiments.trace_sources import identifier
from olvm.model.errors import BadInput, Conflict

FILES = ("vms.parquet", "hosts.parquet", "cluster.parquet", "manifest.json")
# Version 2 of the encodings: numbers as differences, text by its lengths; a third smaller and a quarter faster. Columns
# of more distinct values than that are not looked through for a dictionary.
_PARQUET = (
    "(format parquet, parquet_version v2, dictionary_size_limit 1000, compression zstd, compression_level 1)"
)


class OutFolder:
    """The folder of one replay. Leaving the `with` by an error, Ctrl-C included, leaves nothing behind."""

    def __init__(self, place: Path) -> None:
        self._place = place.absolute()
        if self._place.exists():
            is_ours = self._place.is_dir() and {name.name for name in self._place.iterdir()} <= set(FILES)
            if not is_ours:
                raise Conflict(f"{place} is there and no replay wrote it: give another folder, or remove it")
        parent = self._place.parent
        try:
            parent.mkdir(parents=True, exist_ok=True)
            self.path = Path(tempfile.mkdtemp(prefix=f".{self._place.name}.", dir=parent))
        except OSError as error:
            raise BadInput(
                f"cannot write to {place}: {error.strerror}; give a folder that can be written"
            ) from error
        umask = os.umask(0)
        os.umask(umask)
        self.path.chmod(0o777 & ~umask)  # a folder like any other: mkdtemp makes it for its owner alone

    def __enter__(self) -> OutFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def finish(
        self,
        trace: Trace,
        requests: Requests,
        hosts: HostFleet,
        parameters: dict[str, Any],
        figures: dict[str, Any],
    ) -> None:
        """Write `vms` and the manifest, and put the folder in its place. The series are there already."""
        _write_vms(self.path / "vms.parquet", trace, requests)
        digests = {name: file_digest(self.path / name) for name in FILES if name != "manifest.json"}
        write_manifest(self.path / "manifest.json", manifest_of(trace, hosts, parameters, figures, digests))
        if self._place.exists():
            old = self.path.with_name(self.path.name + ".old")
            self._place.rename(old)
            self.path.rename(self._place)
            shutil.rmtree(old, ignore_errors=True)
        else:
            self.path.rename(self._place)


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def _write_vms(path: Path, trace: Trace, requests: Requests) -> None:
    columns = vm_columns(trace, requests)
    names = [name for name in columns if name not in ("row", "status")]
    picked = ", ".join(f"r.{name}" for name in names)
    cases = " ".join(f"when {status} then '{why}'" for status, why in enumerate(WHY) if why)
    with cursor() as connection:
        connection.register("results", columns)
        source = getattr(trace.source, "table_sql", None)
        vm_id = ""
        joined = "results r"
        if "vm_id" in trace.names:
            vm_id = "i.vm_id, "
            if source is not None:  # the names go from file to file and never through Python
                ids = f"select {identifier('vm_id')} from ({source()})"
                if trace.rows is not None:
                    connection.register("kept", {"row": trace.rows})
                    ids = (
                        f"select n.vm_id from (select row_number() over () - 1 as row, vm_id from ({ids})) n "
                        "join kept using (row) order by row"
                    )
            else:
                connection.register("named", {"vm_id": np.asarray(trace.column("vm_id"))})
                ids = "select vm_id from named"
            joined = f"results r positional join ({ids}) i"
        connection.execute(
            f"copy (select r.row, {vm_id}{picked}, case r.status {cases} end as why from {joined}) "
            f"to {_quoted(path)} {_PARQUET}"
        )


class SeriesWriter:
    """Takes the samples out of the kernel's buffers, and writes both series at the end."""

    def __init__(self, folder: Path, samples: Samples, hosts: HostFleet) -> None:
        self._folder = folder
        self._samples = samples
        self._host_cpus = hosts.milli_cpus / MILLI
        self._host_memory = hosts.memory_kib / GIB_KIB
        self._connection = cursor()
        for table, columns in (("cluster_rows", self._cluster(0)), ("host_rows", self._hosts(0))):
            self._connection.register("rows", columns)
            self._connection.execute(f"create temp table {table} as select * from rows")
            self._connection.unregister("rows")

    def take(self) -> None:
        """Empty the buffers."""
        marks = self._samples.marks
        for table, columns, count in (
            ("cluster_rows", self._cluster, int(marks[M_CLUSTER_ROWS])),
            ("host_rows", self._hosts, int(marks[M_HOST_ROWS])),
        ):
            if count:
                self._connection.register("rows", columns(count))
                self._connection.execute(f"insert into {table} select * from rows")
                self._connection.unregister("rows")
        marks[M_CLUSTER_ROWS] = 0
        marks[M_HOST_ROWS] = 0

    def finish(self) -> None:
        self.take()
        for table in ("cluster", "host"):
            name = "cluster" if table == "cluster" else "hosts"
            path = self._folder / f"{name}.parquet"
            self._connection.execute(f"copy {table}_rows to {_quoted(path)} {_PARQUET}")
        self._connection.close()

    def _cluster(self, count: int) -> dict[str, Any]:
        samples = self._samples
        raw = dict(zip(CLUSTER_COLUMNS, samples.cluster[:count].T, strict=True))
        cpus, memory = float(self._host_cpus.sum()), float(self._host_memory.sum())
        used_cpu, used_mem = raw["used_cpu"] / MILLI, raw["used_mem"] / GIB_KIB
        typical_cpu, typical_mem = samples.typical[0] / MILLI, samples.typical[1] / GIB_KIB
        pooled = np.floor((cpus - used_cpu) / typical_cpu)
        if typical_mem > 0:
            pooled = np.minimum(pooled, np.floor((memory - used_mem) / typical_mem))
        fits = raw["typical_fits"].astype(np.float64)
        return {
            "time_s": samples.cluster_s[:count],
            "vm_count": raw["vm_count"],
            "waiting": raw["waiting"],
            "rejected": raw["refused"],
            "used_hosts": raw["used_hosts"],
            "empty_hosts": len(self._host_cpus) - raw["used_hosts"],
            "used_vcpus": used_cpu,
            "used_memory_gib": used_mem,
            "vcpu_utilisation": used_cpu / cpus,
            "memory_utilisation": used_mem / memory,
            "stranded_vcpus": raw["stranded_cpu"] / MILLI,
            "stranded_memory_gib": raw["stranded_mem"] / GIB_KIB,
            "fragmentation": np.where(pooled > 0, 1 - fits / np.maximum(pooled, 1), 0.0),
            "power_w": raw["power_mw"] / 1000,
            "empty_power_w": raw["empty_power_mw"] / 1000,
        }

    def _hosts(self, count: int) -> dict[str, Any]:
        samples = self._samples
        is_next = np.diff(samples.host_s[:count], prepend=samples.host_s[0]) > 0  # rows come in order of time
        order = np.argsort(np.cumsum(is_next) * len(self._host_cpus) + samples.host[:count])
        raw = dict(zip(HOST_COLUMNS, samples.hosts[:count][order].T, strict=True))
        host = samples.host[:count][order]
        used_cpu, used_mem = raw["used_cpu"] / MILLI, raw["used_mem"] / GIB_KIB
        return {
            "time_s": samples.host_s[:count][order],
            "host": host,
            "vm_count": raw["vm_count"],
            "used_vcpus": used_cpu,
            "used_memory_gib": used_mem,
            "vcpu_utilisation": used_cpu / self._host_cpus[host],
            "memory_utilisation": used_mem / self._host_memory[host],
            "stranded_vcpus": raw["stranded_cpu"] / MILLI,
            "stranded_memory_gib": raw["stranded_mem"] / GIB_KIB,
            "power_w": raw["power_mw"] / 1000,
        }

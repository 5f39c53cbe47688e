"""Counts, in the journals that the hosts wrote, on how many hosts each machine runs; after the data center stopped.

The hosts' own word, held against the engine's: neither file was written by the other's process.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import msgspec

# A migration's target runs nothing before its source has handed over.
RUNNING_QUERY = """
    select host, vm_id, epoch from domains where status not in ('down', 'migrating_to') and not forgotten
    order by vm_id, host
"""
ENGINE_QUERY = "select id, name, host, epoch from vms where status in ('up', 'migrating_from')"


class CopyProof(msgspec.Struct, kw_only=True):
    hosts_asked: int = 0  # journals
    running: int = 0  # machines that some host runs
    twice: list[str] = []
    otherwise: list[str] = []  # the engine says up, and that host does not run that copy; or the reverse


def prove_copies(directory: Path) -> CopyProof:
    """The data center of `directory` must not be open."""
    copies: dict[str, list[tuple[str, int]]] = {}
    journals = sorted(directory.glob("host-*.duckdb"))
    for journal in journals:
        for host, vm_id, epoch in _rows(journal, RUNNING_QUERY):
            copies.setdefault(vm_id, []).append((host, epoch))
    told = {
        vm_id: (name, host, epoch)
        for vm_id, name, host, epoch in _rows(directory / "engine.duckdb", ENGINE_QUERY)
    }
    proof = CopyProof(hosts_asked=len(journals), running=len(copies))
    for vm_id, places in sorted(copies.items()):
        name, *place = told.get(vm_id, (vm_id, None, None))
        if len(places) > 1:
            proof.twice.append(f"{name} on {' and '.join(host for host, _ in places)}")
        elif places != [tuple(place)]:
            proof.otherwise.append(f"{name}: {places[0]} by its host, {tuple(place)} by the engine")
    proof.otherwise += [
        f"{told[vm_id][0]}: up by the engine, on no host" for vm_id in sorted(told.keys() - copies.keys())
    ]
    return proof


def _rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(path), read_only=True) as database:
        return database.execute(query).fetchall()

"""How a grid is read from TOML: `grid.toml`, or the same as a mapping in Python.

Decides which experiment a grid is of, and how what is wrong is said: with file and key, and the word that was meant.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from olvm.experiments.grids.definition import Grid, check_grid
from olvm.experiments.grids.planetlab import PlanetlabGrid, check_planetlab_grid
from olvm.model.errors import BadInput, NotFound
from olvm.model.search import nearest

AnyGrid = Grid | PlanetlabGrid
EXPERIMENT = "experiment"
GRID_BY_EXPERIMENT: dict[str, type[Grid] | type[PlanetlabGrid]] = {
    "replay": Grid,
    "planetlab": PlanetlabGrid,
}


def read_grid(source: str | Path | Mapping[str, Any]) -> tuple[AnyGrid, Path]:
    """A grid, checked, and the folder that its paths are relative to.

    Raises:
        BadInput: not TOML, a word that is none, a value that makes no sense; the sentence names file and key.
        NotFound: there is no such file, or a trace in it is not there.
    """
    if isinstance(source, Mapping):
        what, raw, folder = "the grid", dict(source), Path()
    else:
        path = Path(source)
        what, folder = f"grid {path}", path.parent
        try:
            raw = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise NotFound(f"there is no grid {path}: give the path of a TOML file") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise BadInput(f"cannot read {what}: it is no TOML: {error}") from error
    experiment = str(raw.setdefault(EXPERIMENT, "replay"))
    kind = GRID_BY_EXPERIMENT.get(experiment)
    if kind is None:
        meant = nearest(experiment, list(GRID_BY_EXPERIMENT))
        choice = ", ".join(GRID_BY_EXPERIMENT)
        raise BadInput(f"{what}: there is no experiment {experiment}{meant}; choose from {choice}")
    _check_words(what, raw, kind)
    metric = raw.get("metric")
    if isinstance(metric, str) and metric not in kind.METRICS:
        meant = nearest(metric, kind.METRICS)
        raise BadInput(f"{what}: there is no metric {metric}{meant}; choose from {', '.join(kind.METRICS)}")
    try:
        grid = msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        raise BadInput(f"{what}: {_said(error)}") from error
    try:
        if isinstance(grid, PlanetlabGrid):
            check_planetlab_grid(grid, folder)
        else:
            check_grid(grid, folder)
    except (BadInput, NotFound) as error:
        raise type(error)(f"{what}: {error}") from error
    return grid, folder


# ------------------------------------------------------------------------------------------------ what is wrong


def _check_words(what: str, raw: Mapping[str, Any], grid: type[Grid] | type[PlanetlabGrid]) -> None:
    """msgspec names an unknown key too, but not the one that was meant."""
    _check_keys(what, "", {key: value for key, value in raw.items() if key != EXPERIMENT}, grid)
    for key, kind in grid.TABLES.items():
        table = raw.get(key, ())
        rows = (
            [("", table)]
            if isinstance(table, Mapping)
            else [(f"[{at}]", row) for at, row in _numbered(table)]
        )
        for place, row in rows:
            if isinstance(row, Mapping):
                _check_keys(what, f"{key}{place}.", row, kind)


def _numbered(table: object) -> Iterable[tuple[int, object]]:
    return enumerate(table) if isinstance(table, list | tuple) else ()


def _check_keys(what: str, place: str, row: Mapping[str, Any], kind: type[msgspec.Struct]) -> None:
    known = list(kind.__struct_fields__)
    for key in row:
        if key not in known:
            owner = place.removesuffix(".") or "a grid"
            raise BadInput(
                f"{what}: there is no {place}{key}{nearest(key, known)}; {owner} has {', '.join(known)}"
            )


def _said(error: msgspec.ValidationError) -> str:
    """msgspec's sentence with the place in front: `topologies[0].numa_nodes: expected int, got str`."""
    found = re.fullmatch(r"(.*?)(?: - at `\$\.?(.*)`)?", str(error), re.DOTALL)
    assert found is not None
    sentence = found[1].replace("`", "")
    sentence = sentence[:1].lower() + sentence[1:]
    return f"{found[2]}: {sentence}" if found[2] else sentence

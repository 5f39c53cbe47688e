"""Where a data center keeps its configuration: `config.json` beside its journals."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from olvm.model.config import Config, config_from
from olvm.model.errors import BadInput, JournalUnwritable

FILE_NAME = "config.json"


def load_config(directory: Path, settings: dict[str, Any]) -> tuple[Config, dict[str, Any]]:
    """What is stored, with `settings` over it: as the typed configuration, and as what `store_config` keeps.

    Raises:
        BadInput: an unknown or ill-typed setting, or a file that cannot be read as one.
    """
    path = directory / FILE_NAME
    stored: dict[str, Any] = {}
    if path.exists():
        try:
            stored = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise BadInput(f"configuration {path} is not JSON ({error}); mend or remove it") from error
    kept = {**stored, **settings}
    return config_from(kept), kept


def store_config(directory: Path, kept: dict[str, Any]) -> None:
    """Keep the settings with the data center; called by its engine's owner, once that has opened it.

    Raises:
        JournalUnwritable: the directory cannot be written.
    """
    path = directory / FILE_NAME
    text = msgspec.json.format(msgspec.json.encode(kept)) + b"\n"
    try:
        if path.exists() and path.read_bytes() == text:
            return
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(text)
        os.replace(temporary, path)
    except OSError as error:
        raise JournalUnwritable(
            f"data center directory {directory} cannot be written ({error.strerror}); "
            "choose another one or mend its permissions"
        ) from error

"""Where a data center keeps its configuration: `config.json` beside its journals."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from olvm.model.config import Config, config_from
from olvm.model.errors import BadInput, JournalUnwritable

FILE_NAME = "config.json"


def load_config(directory: Path, settings: dict[str, Any]) -> Config:
    """What is stored, with `settings` over it; the result is stored again when it changed.

    Raises:
        BadInput: an unknown or ill-typed setting, or a file that cannot be read as one.
        JournalUnwritable: the directory cannot be made or written.
    """
    path = directory / FILE_NAME
    stored: dict[str, Any] = {}
    if path.exists():
        try:
            stored = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise BadInput(f"configuration {path} is not JSON ({error}); mend or remove it") from error
    config = config_from({**stored, **settings})
    fresh = {**stored, **settings}
    if fresh != stored or not path.exists():
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            temporary = path.with_suffix(".tmp")
            temporary.write_bytes(msgspec.json.format(msgspec.json.encode(fresh)) + b"\n")
            os.replace(temporary, path)
        except OSError as error:
            raise JournalUnwritable(
                f"data center directory {directory} cannot be written ({error.strerror}); "
                "choose another one or mend its permissions"
            ) from error
    return config

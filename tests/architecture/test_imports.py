"""Every module imports, and the cheap faces stay cheap: what they do not need, they do not load."""

from __future__ import annotations

import importlib
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from tests.architecture.source import PACKAGES, ROOT, module_name, module_paths

# `python -m package` runs on import, so a `__main__` is left to the tests of what it runs.
IMPORTABLE = [path for path in module_paths() if path.stem != "__main__"]


def loaded_after(statement: str) -> set[str]:
    """Top-level names in `sys.modules` of a fresh interpreter that ran `statement`."""
    program = (
        f"import sys\ntry:\n    {statement}\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
    )
    program += "print('\\nloaded:', *sorted({name.split('.')[0] for name in sys.modules}))"
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stderr
    return set(result.stdout.rsplit("\nloaded: ", 1)[1].split())


@pytest.mark.parametrize("package", PACKAGES)
def test_package_has_modules(package: str) -> None:
    assert (ROOT / package / "__init__.py").exists()


@pytest.mark.parametrize("path", IMPORTABLE, ids=module_name)
def test_module_imports_alone(path: Path) -> None:
    try:
        importlib.import_module(module_name(path))
    except ModuleNotFoundError as missing:
        # libvirt-python is an extra: its backend alone may ask for it.
        asked_by = Path(traceback.extract_tb(missing.__traceback__)[-1].filename)
        is_allowed = missing.name == "libvirt" and asked_by.stem.startswith("libvirt")
        if not is_allowed:
            raise
        pytest.skip("libvirt-python is not installed: make apt-libvirt")


def test_olvm_imported_loads_neither_ray_nor_duckdb() -> None:
    assert loaded_after("import olvm") & {"ray", "duckdb", "numpy"} == set()


def test_help_printed_loads_neither_ray_nor_duckdb() -> None:
    statement = "sys.argv = ['olvm', '--help']; from olvm.cli import main; sys.exit(main())"
    loaded = loaded_after(statement)
    assert "olvm" in loaded
    assert loaded & {"ray", "duckdb", "numpy"} == set()


def test_simulator_imported_loads_no_ray() -> None:
    modules = ", ".join(module_name(path) for path in module_paths("sim") if path.stem != "__main__")
    assert "ray" not in loaded_after(f"import {modules}")

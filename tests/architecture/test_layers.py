"""The import contracts of `pyproject.toml` hold, and each of them can fail."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.architecture.source import (
    PACKAGES,
    ROOT,
    behaviour_paths,
    imported_names,
    module_name,
    module_paths,
)

LINT_IMPORTS = str(Path(sys.executable).with_name("lint-imports"))


def lint_imports(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LINT_IMPORTS, "--no-cache", "--no-logo", *options],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture
def copied_source(tmp_path: Path) -> Path:
    """A copy of our packages in which a test may plant an import."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_layers_of_the_source_keep_every_contract() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("contract", "module", "line"),
    [
        ("layers", "olvm/model/__init__.py", "import olvm.scheduling"),
        ("layers", "olvm/history/__init__.py", "import olvm.journal"),
        ("layers", "actors/__init__.py", "import sim"),
        ("two-worlds", "sim/__init__.py", "import actors.ray_runtime"),
        ("two-worlds", "actors/silo.py", "import actors.ray_runtime"),
        ("ray", "olvm/journal/__init__.py", "import ray"),
        ("behaviours", "actors/vm.py", "import time"),
        ("behaviours", "actors/vm_takeover.py", "import threading"),
        ("behaviours", "actors/host_agent_leases.py", "import time"),
        ("behaviours", "olvm/model/errors.py", "import random"),
        ("simulator", "sim/world.py", "import duckdb"),
        ("simulator", "sim/mutants/catalogue.py", "import libvirt"),
        ("simulator", "actors/lease_port.py", "import sqlite3"),
    ],
)
def test_layers_with_a_planted_import_break_their_contract(
    copied_source: Path, contract: str, module: str, line: str
) -> None:
    path = copied_source / module
    path.write_text(f"{path.read_text(encoding='utf-8')}\n{line}\n", encoding="utf-8")
    result = lint_imports(copied_source, "--contract", contract)
    assert result.returncode == 1
    assert "0 kept, 1 broken" in result.stdout, result.stdout + result.stderr


def test_every_part_of_a_behaviour_is_reached_by_the_contract_for_behaviours() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    sources = next(contract["source_modules"] for contract in contracts if contract["id"] == "behaviours")
    path_by_module = {module_name(path): path for path in module_paths("actors")}
    reached, waiting = set(), list(sources)
    while waiting:
        module = waiting.pop()
        if module in path_by_module and module not in reached:
            reached.add(module)
            tree = ast.parse(path_by_module[module].read_text(encoding="utf-8"))
            names = [name for name, _ in imported_names(tree)]
            waiting += names + [name.rpartition(".")[0] for name in names]
    assert {module_name(path) for path in behaviour_paths()} <= reached


def test_ray_is_imported_by_the_ray_runtime_alone() -> None:
    importers = {
        module_name(path)
        for path in module_paths()
        for name, _ in imported_names(ast.parse(path.read_text(encoding="utf-8")))
        if name.split(".")[0] == "ray"
    }
    assert importers == {"actors.ray_runtime"}


@pytest.mark.parametrize("path", module_paths("guest_agent"), ids=module_name)
def test_guest_agent_module_imports_the_standard_library_alone(path: Path) -> None:
    # A guest has Python and nothing else; the agent is copied into it as one file.
    roots = {name.split(".")[0] for name, _ in imported_names(ast.parse(path.read_text(encoding="utf-8")))}
    assert roots <= sys.stdlib_module_names | {"guest_agent"}

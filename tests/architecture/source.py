"""What the architecture tests look at: our packages, their modules and their syntax trees."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("olvm", "actors", "hypervisor_backends", "sim", "guest_agent")
BEHAVIOURS = ("engine", "cluster", "host", "vm", "host_agent", "telemetry", "roster")
ROUND_BEHAVIOURS = frozenset(
    {"assembly", "behaviour", "channel", "command_checks", "convergence", "silo", "wire"}
)


def module_paths(*packages: str) -> list[Path]:
    """Every module of `packages` (of all of ours when none is named), in a stable order."""
    return [path for package in packages or PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def behaviour_paths() -> list[Path]:
    """`actors/vm.py`, and also `actors/vm_migration.py` and `actors/vm/…`: a behaviour may be split."""
    return [path for path in module_paths("actors") if _is_behaviour(path)]


def _is_behaviour(path: Path) -> bool:
    first = Path(path.relative_to(ROOT / "actors").parts[0]).stem
    if first == "engine_process":  # the gateway and SQL beside the engine's silo
        return False
    return any(first == name or first.startswith(f"{name}_") for name in BEHAVIOURS)


def simulated_paths() -> list[Path]:
    """What decides anything inside a simulated run, beside the behaviours: the model, placement, the silo and its
    ports, simulated hypervisors, storage and devices, and the simulator itself."""
    actors = [
        path
        for path in module_paths("actors")
        if path.stem in ROUND_BEHAVIOURS or (path.stem.endswith("_port") and path not in behaviour_paths())
    ]
    backends = [
        path
        for path in module_paths("hypervisor_backends")
        if path.stem.split("_")[0] in ("simulated", "lease", "leases", "memory", "fencing", "protocol")
    ]
    return [*module_paths("olvm/model", "olvm/scheduling"), *actors, *backends, *module_paths("sim")]


def imported_names(tree: ast.Module) -> list[tuple[str, int]]:
    """Full names imported anywhere in a module, lazily or not, with lines; no relative imports."""
    names: list[tuple[str, int]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return names

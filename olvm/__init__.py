"""olvm: a virtualization control plane. `DataCenter` is the face for driver scripts, `errors` what it raises.

Importing this loads neither Ray nor DuckDB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from olvm.version import VERSION

__version__ = VERSION

if TYPE_CHECKING:
    from olvm.api.data_center import DataCenter
    from olvm.model import errors

__all__ = ["DataCenter", "__version__", "errors"]


def __getattr__(name: str) -> Any:
    if name == "DataCenter":
        from olvm.api.data_center import DataCenter

        return DataCenter
    if name == "errors":
        from olvm.model import errors

        return errors
    raise AttributeError(f"module 'olvm' has no attribute {name!r}")

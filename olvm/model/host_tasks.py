"""What may be done to the storage and the networks of a host: the verbs, and how long each may take."""

from __future__ import annotations

from olvm.model.errors import NotFound

# Seconds; copying a volume is bounded by its size alone.
TIMEOUT_S_BY_HOST_TASK: dict[str, float] = {
    "create_pool": 60.0,
    "delete_pool": 60.0,
    "list_pools": 60.0,
    "create_volume": 120.0,
    "clone_volume": 3600.0,
    "resize_volume": 120.0,
    "delete_volume": 120.0,
    "list_volumes": 60.0,
    "create_network": 60.0,
    "delete_network": 60.0,
    "list_networks": 60.0,
}


def host_task_timeout_s(verb: str) -> float:
    """Raises `NotFound`."""
    timeout_s = TIMEOUT_S_BY_HOST_TASK.get(verb)
    if timeout_s is None:
        raise NotFound(f"a host has no task {verb!r}; it has {', '.join(TIMEOUT_S_BY_HOST_TASK)}")
    return timeout_s

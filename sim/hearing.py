"""Who hears what: one list of methods for each hook, so that what nobody listens to costs an empty call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sim.oracles.oracle import HOOKS

Method = Callable[..., None]


class Hearing:
    """Has every hook of `sim.oracles.oracle.Hooks` as an attribute. Listeners are called in the order they came."""

    def __init__(self) -> None:
        self._methods_by_hook: dict[str, list[Method]] = {hook: [] for hook in HOOKS}
        for hook in HOOKS:
            setattr(self, hook, _nobody)

    def add(self, listener: object) -> None:
        """Let `listener` hear the hooks that it has methods for."""
        for hook, methods in self._methods_by_hook.items():
            method = getattr(listener, hook, None)
            if method is not None and method is not _nobody:
                methods.append(method)
                setattr(self, hook, _together(methods))

    def __getattr__(self, name: str) -> Method:  # only for the type checker: __init__ sets every hook
        raise AttributeError(name)


def _together(methods: list[Method]) -> Method:
    if len(methods) == 1:
        return methods[0]
    several = tuple(methods)

    def all_of_them(*arguments: Any) -> None:
        for method in several:
            method(*arguments)

    return all_of_them


def _nobody(*_: Any) -> None:
    pass

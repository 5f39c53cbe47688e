"""Policies that are classes of the user's own: loaded by name, asked, and never believed.

A class has any of `filter`, `score` and `choose` (`UserPolicy` documents them). The same class goes into a live
cluster, the simulator and an experiment; `LoadedPolicy` is the one face that all three ask.

Rules:
1. Whatever the class does, raises or answers, its caller gets an answer that was checked or a `UserPolicyError`, which
   names the class, the VM and the host and ends with the last line of the traceback.
2. It is asked after the filters of the policy; what `choose` chooses must have room (`CPU`, `Memory`).
3. One instance serves for the life of a process. What it remembers is not in any journal: a class whose answers are to
   be repeatable remembers nothing.
"""

from __future__ import annotations

import importlib
import math
import traceback
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Protocol

import msgspec

from olvm.model.errors import BadInput, UserPolicyError

METHODS = ("filter", "score", "choose")


class UserVm(msgspec.Struct, frozen=True, kw_only=True):
    """The VM that looks for a host. `lifetime_s` None: not known."""

    id: str
    vcpus: float
    memory_gib: float
    tenant: str = ""
    priority: int = 50
    lifetime_s: float | None = None
    arrival_s: float = 0.0


class UserHost(msgspec.Struct, frozen=True, kw_only=True):
    """One host. What is free is what the cluster may still promise there, overcommit included.

    Without a CPU limit of the cluster, `free_vcpus` counts as if each thread took one vCPU, and may be below zero.
    """

    name: str
    cpus: float
    memory_gib: float
    free_vcpus: float
    free_memory_gib: float
    vm_count: int


class UserHosts(Protocol):
    """Hosts as columns in their index order: read-only NumPy arrays of equal length; `name` is a list of text.

    `fits` is true where the VM that is being placed has room, by all that counts: overhead, limits and NUMA nodes too.
    """

    name: Sequence[str]
    cpus: Any
    memory_gib: Any
    free_vcpus: Any
    free_memory_gib: Any
    vm_count: Any

    @property
    def fits(self) -> Any: ...

    def __len__(self) -> int: ...


class UserPolicy:
    """What a policy of one's own may have; there is no need to inherit from it, and any of the three is enough.

    ```python
    class BestFit:
        def score(self, vm, host):
            return -(host.free_memory_gib - vm.memory_gib)
    ```

    With `choose`, the class is handed all hosts at once, those without room too (`hosts.fits` says which have it);
    with `filter` and `score` it is asked host by host, only about hosts with room. `filter` goes before either. With
    `filter` alone the first host is taken.
    """

    def filter(self, vm: UserVm, host: UserHost) -> bool | str:
        """Whether the VM may go there; False, or a sentence that says why not."""
        raise NotImplementedError

    def score(self, vm: UserVm, host: UserHost) -> float:
        """Larger is better; ties go to the lowest host index."""
        raise NotImplementedError

    def choose(self, vm: UserVm, hosts: UserHosts) -> int | None:
        """The index of the host, or None: no host."""
        raise NotImplementedError


class LoadedPolicy:
    """A user's object, with its three methods where it has them."""

    def __init__(self, name: str, policy: object) -> None:
        self.name = name
        found = [getattr(policy, method, None) for method in METHODS]
        self._filter, self._score, self._choose = (method if callable(method) else None for method in found)
        if not any(callable(method) for method in found):
            raise BadInput(f"policy {name} has none of the methods {', '.join(METHODS)}: write one of them")

    @property
    def filters(self) -> bool:
        return self._filter is not None

    @property
    def scores(self) -> bool:
        return self._score is not None

    @property
    def chooses(self) -> bool:
        return self._choose is not None

    def why_not(self, vm: UserVm, host: UserHost) -> str | None:
        """None: it lets the VM go there."""
        if self._filter is None:
            return None
        answer = self._ask(self._filter, vm, host, host.name)
        if isinstance(answer, str):
            return answer
        if answer is True or answer is False:
            return None if answer else "the policy does not want it here"
        raise self._wrong("filter", vm, host.name, f"answered {answer!r}, not True, False or a sentence")

    def score(self, vm: UserVm, host: UserHost) -> float:
        if self._score is None:
            return 0.0
        answer = self._ask(self._score, vm, host, host.name)
        try:
            value = float(answer)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            value = math.nan
        if math.isnan(value):
            raise self._wrong("score", vm, host.name, f"answered {answer!r}, not a number")
        return value

    def choose(self, vm: UserVm, hosts: UserHosts) -> int | None:
        assert self._choose is not None, f"policy {self.name} does not choose"
        answer = self._ask(self._choose, vm, hosts, "")
        if answer is None:
            return None
        try:
            index = answer.__index__()  # type: ignore[attr-defined]
        except AttributeError:
            raise self._wrong("choose", vm, "", f"answered {answer!r}, not an index or None") from None
        if not 0 <= index < len(hosts):
            raise self._wrong("choose", vm, "", f"answered {index}, and there are {len(hosts)} hosts")
        return int(index)

    def without_room(self, vm: UserVm, host: str, why: str) -> UserPolicyError:
        """The error of a choice that the filters refuse."""
        return self._wrong("choose", vm, host, f"chose a host that cannot have it: {why}")

    def _ask(self, method: Callable[..., object], vm: UserVm, about: object, host: str) -> object:
        # The supervisor of code that is not ours: whatever it raises is an answer here.
        try:
            return method(vm, about)
        except (Exception, SystemExit) as error:
            last_line = traceback.format_exception_only(error)[-1].strip()
            frames = traceback.extract_tb(error.__traceback__)
            where = f"{frames[-1].filename}:{frames[-1].lineno}: " if len(frames) > 1 else ""
            raise self._wrong(method.__name__, vm, host, f"{where}{last_line}") from error

    def _wrong(self, method: str, vm: UserVm, host: str, what: str) -> UserPolicyError:
        at = f", host {host}" if host else ""
        return UserPolicyError(f"policy {self.name} failed in {method} for VM {vm.id}{at}: {what}")


def load_user_policy(policy: str | object) -> LoadedPolicy:
    """By name, as in `my_policies:BestFit`, or an object or class that has the methods.

    A name is imported once per process; the module must be importable there (for a live cluster: by the engine).

    Raises:
        BadInput: there is no such module or class, it cannot be made without arguments, or it has no method.
    """
    if isinstance(policy, str):
        return _loaded(policy)
    made = _made(f"{policy.__module__}:{policy.__qualname__}", policy) if isinstance(policy, type) else policy
    return LoadedPolicy(f"{type(made).__module__}:{type(made).__qualname__}", made)


@lru_cache(maxsize=256)
def _loaded(name: str) -> LoadedPolicy:
    module_name, _, class_name = name.partition(":")
    if not module_name or not class_name:
        raise BadInput(f"policy {name!r} is no name of a class: write module:Class")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise BadInput(
            f"policy {name}: module {module_name} cannot be imported here: {_last_line(error)}; "
            "put it where the engine's Python finds it (PYTHONPATH)"
        ) from error
    kind = getattr(module, class_name, None)
    if not isinstance(kind, type):
        raise BadInput(f"policy {name}: module {module_name} has no class {class_name}")
    return LoadedPolicy(name, _made(name, kind))


def _made(name: str, kind: type) -> object:
    try:
        return kind()
    except (Exception, SystemExit) as error:
        raise BadInput(f"policy {name}: {kind.__name__}() failed: {_last_line(error)}") from error


def _last_line(error: BaseException) -> str:
    return traceback.format_exception_only(error)[-1].strip()

"""Hosts of one silo by the backend that each names: simulated ones beside real ones over libvirt.

What a host shares with others comes with its backend: simulated hosts have the plant, real ones the directory of
leases that their settings name. Runs in the silo's thread; what can block is given to threads of the backends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from actors.hypervisor_port import Opened, OpenHost, at_once
from actors.silo import Silo
from actors.simulated_hosts import SimulatedHosts
from hypervisor_backends.fencing import FenceAction, FenceDevices, FenceDone
from hypervisor_backends.leases import LeaseStore
from olvm.model.config import Config
from olvm.model.errors import NotSupportedYet, OlvmError

if TYPE_CHECKING:
    from hypervisor_backends.fence_agents import FenceAgents

Post = Callable[[Callable[[], None]], None]


class Hosts:
    """Opens hosts of whatever backend."""

    def __init__(self, silo: Silo, config: Config, directory: Path) -> None:
        self.simulated = SimulatedHosts(silo, config, directory)
        self.scheduler = self.simulated.scheduler
        self._silo = silo
        self._post: Post = silo.run_soon
        self._open_simulated = at_once(self.simulated.open)
        self._lease_stores: dict[str, LeaseStore] = {}
        self._is_real: set[str] = set()
        self._fence_devices: _FenceDevices | None = None

    # ------------------------------------------------------------------ hypervisors

    def open(self, request: OpenHost, on_open: Callable[[Opened], None]) -> None:
        """A `BackendFactory`."""
        match request.backend:
            case "simulated":
                self._open_simulated(request, on_open)
            case "libvirt":
                self._open_libvirt(request, on_open)
            case _:
                on_open(
                    NotSupportedYet(
                        f"host {request.host}: backend {request.backend} is not known; use simulated or libvirt"
                    )
                )

    def _open_libvirt(self, request: OpenHost, on_open: Callable[[Opened], None]) -> None:
        self._is_real.add(request.host)
        try:
            from hypervisor_backends.libvirt_backend import LibvirtHypervisor
            from hypervisor_backends.libvirt_settings import libvirt_settings_from

            settings = libvirt_settings_from(request.settings)
        except ImportError as error:
            words = (
                f"host {request.host}: libvirt's Python binding is missing here ({error}); "
                "install olvm's extra libvirt (`make apt-libvirt` on Debian)"
            )
            on_open(NotSupportedYet(words))
            return
        except OlvmError as error:
            on_open(type(error)(f"host {request.host}: {error.message}"))
            return
        if settings.lease_directory:
            from hypervisor_backends.file_leases import FileLeaseStore

            store = self._lease_stores.get(request.host)
            if store is None:
                store = FileLeaseStore(Path(settings.lease_directory), request.host, self._post)
                self._lease_stores[request.host] = store
        LibvirtHypervisor.open(request.host, settings, self._post, self._silo.now_ns, on_open)

    # ------------------------------------------------------------------ leases

    def lease_store(self, host: str) -> LeaseStore | None:
        """None: a real host whose settings name no directory for leases; it has none to give."""
        if host in self._is_real:
            return self._lease_stores.get(host)
        return self.simulated.plant.lease_store(host)

    # ------------------------------------------------------------------ power

    def fence_devices(self) -> FenceDevices:
        self._fence_devices = _FenceDevices(self.simulated.plant.fence_devices(), self._post)
        return self._fence_devices

    def close(self) -> None:
        for store in self._lease_stores.values():
            close = getattr(store, "close", None)
            if close is not None:
                close()
        if self._fence_devices is not None:
            self._fence_devices.close()
        self.simulated.plant.close()


class _FenceDevices:
    """By type: the plant's own, or the distribution's fence agents, whose processes are started when first used."""

    def __init__(self, of_plant: FenceDevices, post: Post) -> None:
        self._of_plant = of_plant
        self._post = post
        self._agents: FenceAgents | None = None

    def submit(
        self, device: Mapping[str, str | int | float | bool], host: str, action: FenceAction, done: FenceDone
    ) -> None:
        if device.get("type") == "simulated":
            self._of_plant.submit(device, host, action, done)
            return
        if self._agents is None:
            from hypervisor_backends.fence_agents import FenceAgents

            self._agents = FenceAgents(self._post)
        self._agents.submit(device, host, action, done)

    def close(self) -> None:
        if self._agents is not None:
            self._agents.close()

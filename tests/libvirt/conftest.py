"""Two real libvirt hosts and a small guest for the tests in this folder; or the reason why there are none here.

Where the machine cannot have them the tests are skipped, and the reason stands at the end of the run. With `CI=true`
each of them fails instead: what is promised there must not go missing unseen.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from olvm.lab import requirements
from olvm.lab.debian import DebianImage, build_debian
from olvm.lab.guest import GuestImage, build_guest
from olvm.lab.hosts import Lab, LabHost

# One per run: several people may test on one machine at once. Below /var/tmp, for paths of sockets must be short.
LAB_NAME = f"t{os.getpid():x}"
LAB_DIRECTORY = Path(f"/var/tmp/olvm-lab-{LAB_NAME}")
CACHE_VARIABLE = "OLVM_CACHE"
LABS: list[Lab] = []  # the one of this run, once a test has asked for it
LONGEST_MODULE = "test_reverts.py"
DEBIAN_BUILD_TIMEOUT_S = 280.0  # within the time that one test has


@functools.cache
def lacking() -> str:
    """Why there are no tests with libvirt here; empty when there are."""
    reasons = requirements.lacking()
    if importlib.util.find_spec("libvirt") is None:
        reasons.append("libvirt-python is not installed; run make venv EXTRAS=dev,libvirt")
    return "; ".join(reasons)


class _Missing(pytest.Item):
    """Stands for a module that cannot even be imported here."""

    def runtest(self) -> None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must run the tests with libvirt, and cannot: {lacking()}", pytrace=False)
        pytest.skip(lacking())

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, "real libvirt and QEMU"


class _MissingModule(pytest.Module):
    def collect(self) -> list[pytest.Item]:
        return [_Missing.from_parent(self, name="needs libvirt and QEMU")]


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    return _MissingModule.from_parent(parent, path=module_path) if lacking() else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    if any("tests/libvirt/" in report.nodeid for report in skipped) and lacking():
        terminalreporter.section("tests with real libvirt and QEMU were SKIPPED", yellow=True)
        terminalreporter.line(lacking())


@pytest.fixture(scope="session")
def cache() -> Path:
    return cache_directory()


def cache_directory() -> Path:
    """Where images are kept between runs."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "olvm"
    return Path(os.environ.get(CACHE_VARIABLE, default))


@pytest.fixture(scope="session")
def guest(cache: Path) -> GuestImage:
    return build_guest(cache)


_debian_build: list[subprocess.Popen[bytes]] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest module first, or one process would still be at it when the others have nothing left.

    Folders are put in their order after this, by `tests/conftest.py`.
    """
    items.sort(key=lambda item: item.path.name != LONGEST_MODULE)


def pytest_collection_finish(session: pytest.Session) -> None:
    """The Debian guest is built beside the first tests, where one of the later ones wants it."""
    wanted = [item for item in session.items if "debian" in getattr(item, "fixturenames", ())]
    if wanted and not session.config.option.collectonly:
        _debian_build.append(start_building_debian(cache_directory()))


def start_building_debian(cache: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "olvm.lab.debian", str(cache)]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def pytest_sessionfinish() -> None:
    for build in _debian_build:
        build.terminate()
        build.wait(timeout=30)


@pytest.fixture(scope="session")
def debian(cache: Path) -> DebianImage:
    """Built by now, or an error that says why not."""
    for build in _debian_build:
        build.wait(timeout=DEBIAN_BUILD_TIMEOUT_S)
    return build_debian(cache)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Two hosts that are up, h1 and h2. A test that takes something away gives it back, or its module's end does."""
    made = Lab(LAB_NAME, LAB_DIRECTORY)
    with made:
        LABS.append(made)
        yield made
        LABS.remove(made)
    assert made.leftovers() == []


@pytest.fixture
def host(lab: Lab) -> LabHost:
    return lab.host("h1")


@pytest.fixture
def other_host(lab: Lab) -> LabHost:
    return lab.host("h2")


@pytest.fixture(autouse=True, scope="module")
def _nothing_left_behind() -> Iterator[None]:
    """The next module finds both hosts up, connected and without machines."""
    yield
    for made in LABS:  # not asked for as a fixture: a module that uses none has none at its end either
        put_right(made)


def put_right(lab: Lab) -> None:
    import libvirt

    for host in lab.hosts.values():
        for pid in host.pids("qemu") if host.is_on else ():  # a stopped one would keep its domain
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        host.mend()
        connection = libvirt.open(host.uri)
        try:
            for domain in connection.listAllDomains():
                _remove(domain)
            for pool in connection.listAllStoragePools():
                with contextlib.suppress(libvirt.libvirtError):
                    pool.destroy()
                with contextlib.suppress(libvirt.libvirtError):
                    pool.undefine()
        finally:
            connection.close()
    for directory in ("images", "saved"):
        for path in (lab.shared / directory).iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _remove(domain: object) -> None:
    import libvirt

    assert isinstance(domain, libvirt.virDomain)
    flags = (
        libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
        | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
        | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
    )
    with contextlib.suppress(libvirt.libvirtError):
        domain.destroy()
    with contextlib.suppress(libvirt.libvirtError):
        domain.undefineFlags(flags)

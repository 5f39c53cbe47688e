"""What the processor, the kernel and the devices of a machine let it do as a host. See `host_check.py`."""

from __future__ import annotations

import ctypes
import os
import platform
import resource

from hypervisor_backends.host_view import Finding, HostView, State
from hypervisor_backends.kvm_probe import kvm_verdict

KVM = "/dev/kvm"
NEEDED_ROOM = 1 << 40  # locked memory that is as good as none forbidden
TIME_ERROR = 5  # of adjtimex: the clock is not synchronized
CAP_SYS_RESOURCE = 24


def kvm(view: HostView) -> list[Finding]:
    """KVM is believed when a guest ran. Without it machines run on TCG: right, and ten times slower."""
    vendor = _vendor(view)
    state: State = "warning"
    slow = "machines run without it, many times slower, and one of several CPUs may hang as it boots"
    if not vendor and platform.machine() == "x86_64":
        says = f"the processor shows neither vmx nor svm; {slow}; switch virtualization on in the firmware, or nest"
        return [Finding(what="kvm", state=state, says=says)]
    if not view.has(KVM):
        mend = view.as_root(f"modprobe kvm_{vendor}") if vendor else view.as_root("modprobe kvm")
        return [Finding(what="kvm", state=state, says=f"{KVM} is not there; {slow}", mend=mend)]
    if not os.access(view.path(KVM), os.R_OK | os.W_OK):
        mend = view.as_root(f"usermod -aG kvm {view.user}")
        says = f"{KVM} is not for user {view.user}; {slow}; log in anew after the command"
        return [Finding(what="kvm", state=state, says=says, mend=mend)]
    if not view.program("qemu-system-x86_64", "qemu-kvm"):
        return [Finding(what="kvm", state=state, says="whether it runs a guest cannot be tried without QEMU")]
    runs, why = kvm_verdict(view.program("qemu-system-x86_64", "qemu-kvm"))
    if not runs:
        says = f"{KVM} is there and does not run guests: {why}; {slow}"
        return [Finding(what="kvm", state=state, says=says)]
    return [Finding(what="kvm", state="ok", says=f"KVM works: {why}"), *_nested(view, vendor)]


def _vendor(view: HostView) -> str:
    """The module's name ends with it; empty: no processor with virtualization."""
    for line in view.text("/proc/cpuinfo").splitlines():
        name, _, words = line.partition(":")
        if name.strip() == "flags":
            flags = words.split()
            return "intel" if "vmx" in flags else "amd" if "svm" in flags else ""
    return ""


def _nested(view: HostView, vendor: str) -> list[Finding]:
    if not vendor:
        return []
    if view.text(f"/sys/module/kvm_{vendor}/parameters/nested") in ("Y", "1"):
        return [Finding(what="nested", state="ok", says="machines can run machines")]
    line = f"options kvm_{vendor} nested=1"
    mend = view.as_root(
        f'echo "{line}" > /etc/modprobe.d/olvm-nested.conf && modprobe -r kvm_{vendor} && modprobe kvm_{vendor}'
    )
    return [
        Finding(what="nested", state="warning", says="machines cannot run machines of their own", mend=mend)
    ]


def huge_pages(view: HostView) -> list[Finding]:
    counts = {
        path.name.removeprefix("hugepages-"): view.text(f"/sys/kernel/mm/hugepages/{path.name}/nr_hugepages")
        for path in sorted(view.path("/sys/kernel/mm/hugepages").glob("hugepages-*"))
    }
    reserved = {size: count for size, count in counts.items() if count not in ("", "0")}
    if reserved:
        listed = ", ".join(f"{count} of {size}" for size, count in reserved.items())
        return [Finding(what="huge_pages", state="ok", says=f"reserved: {listed}")]
    if not counts:
        return [
            Finding(
                what="huge_pages",
                state="warning",
                says="this kernel has none; machines that want them start elsewhere",
            )
        ]
    mend = view.as_root("sysctl -w vm.nr_hugepages=1024")
    says = "none are reserved; machines that want them start elsewhere (1024 of 2 MiB are 2 GiB)"
    return [Finding(what="huge_pages", state="warning", says=says, mend=mend)]


def iommu(view: HostView) -> list[Finding]:
    groups = view.path("/sys/kernel/iommu_groups")
    if groups.is_dir() and any(groups.iterdir()):
        return [Finding(what="iommu", state="ok", says="devices can be given to machines")]
    words = "intel_iommu=on iommu=pt" if _vendor(view) == "intel" else "iommu=pt"
    says = "devices of this machine cannot be given to machines; it takes a restart, and the firmware must allow it"
    if view.program("grubby"):
        mend = f'grubby --update-kernel=ALL --args="{words}"'
    elif view.has("/etc/default/grub"):
        mend = f'sed -i "s/^GRUB_CMDLINE_LINUX=\\"/&{words} /" /etc/default/grub && update-grub'
    else:
        return [
            Finding(what="iommu", state="warning", says=f"{says}; add {words} to the kernel's command line")
        ]
    return [Finding(what="iommu", state="warning", says=says, mend=view.as_root(mend))]


class _Timex(ctypes.Structure):
    """The kernel's `struct timex`; only its size and the answer of the call matter."""

    _fields_ = (("modes", ctypes.c_uint), ("rest", ctypes.c_long * 64))


def time_synchronization(view: HostView) -> list[Finding]:
    """The kernel itself knows whether anybody disciplines its clock, whichever daemon it is."""
    answer = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(_Timex()))
    if answer not in (TIME_ERROR, -1):
        return [Finding(what="time", state="ok", says="the clock is synchronized")]
    service = "chronyd" if view.family == "rhel" else "chrony"
    mend = view.install("chrony", "chrony")
    if view.program("chronyd"):
        mend = view.as_root(f"systemctl enable --now {service}")
    says = "nobody synchronizes the clock; times of events and of samples would not fit those of other hosts"
    return [Finding(what="time", state="warning", says=says, mend=mend)]


def watchdog(view: HostView) -> list[Finding]:
    if view.has("/dev/watchdog"):
        return [Finding(what="watchdog_device", state="ok", says="/dev/watchdog is there")]
    says = (
        "there is no /dev/watchdog; leased machines are ended by a process alone, which a kernel that stands still "
        "stops too"
    )
    mend = view.as_root("modprobe softdog")
    return [Finding(what="watchdog_device", state="warning", says=says, mend=mend)]


def locked_memory(view: HostView) -> list[Finding]:
    """libvirt raises the limit of each QEMU itself, which takes a capability that containers often lack."""
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if hard in (resource.RLIM_INFINITY, -1) or hard >= NEEDED_ROOM or _has_capability(view, CAP_SYS_RESOURCE):
        return [Finding(what="locked_memory", state="ok", says="machines may lock their memory")]
    says = (
        f"only {hard // 1024} KiB of memory may be locked and libvirt must not raise it; machines with devices or with "
        "locked memory cannot start, and none with a memory limit migrates"
    )
    line = f"{view.user} - memlock unlimited"
    mend = view.as_root(f'echo "{line}" > /etc/security/limits.d/olvm.conf')
    return [Finding(what="locked_memory", state="warning", says=says, mend=mend)]


def _has_capability(view: HostView, number: int) -> bool:
    for line in view.text("/proc/self/status").splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            return bool(int(value.strip(), 16) >> number & 1)
    return False


def cgroups(view: HostView) -> list[Finding]:
    version_2 = "cpu" in view.text("/sys/fs/cgroup/cgroup.controllers").split()
    if version_2 or view.has("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") or view.has("/sys/fs/cgroup/cpu,cpuacct"):
        return [Finding(what="cgroups", state="ok", says="the CPU time of machines can be limited")]
    says = "the kernel's CPU controller is not to be seen; a machine's CPU time cannot be limited here"
    return [Finding(what="cgroups", state="warning", says=says)]


def tap_devices(view: HostView) -> list[Finding]:
    if view.has("/dev/net/tun"):
        return [Finding(what="network_devices", state="ok", says="/dev/net/tun is there")]
    says = "/dev/net/tun is not there; machines get no network cards, and most do not start"
    return [Finding(what="network_devices", state="missing", says=says, mend=view.as_root("modprobe tun"))]

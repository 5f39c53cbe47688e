"""The kernel of the laboratory's guests: Debian's small one, the modules that virtual hardware needs, its words."""

from __future__ import annotations

import re
from pathlib import Path

from olvm.lab.initrd import Tree
from olvm.lab.packages import members

MODULES = (
    "virtio_pci", "virtio_console", "virtio_blk", "virtio_scsi", "virtio_net", "virtio_balloon", "virtio-rng",
    "virtio_mem", "sd_mod", "sr_mod", "isofs", "button", "evdev", "pvpanic-mmio",
)  # fmt: skip
# Under TCG each of these saves time or memory; online_movable lets memory be unplugged again. maxcpus=1: with several
# CPUs, QEMU's TCG can lose a race when a kernel changes its own code, as it does while it boots: a guest meets the same
# breakpoint for ever, or panics (docs/decisions/0036). The first process of a guest brings the other CPUs in.
CMDLINE = (
    "console=ttyS0 quiet panic=0 oops=panic nokaslr mitigations=off cryptomgr.notests no_timer_check tsc=reliable "
    "maxcpus=1 random.trust_cpu=on rcupdate.rcu_expedited=1 swiotlb=noforce memhp_default_state=online_movable"
)


def add_kernel(tree: Tree, package: Path) -> bytes:
    """Its modules, in the order in which they can be loaded; returns the kernel itself."""
    vmlinuz, modules = b"", {}
    for name, _, data in members(package, r"boot/vmlinuz-.*|(usr/)?lib/modules/.*\.ko"):
        if name.startswith("boot/"):
            vmlinuz = data
        else:
            modules[_module_name(name)] = data
    for number, name in enumerate(_load_order(modules)):
        tree.file(f"modules/{number:02}-{name}.ko", modules[name])
    return vmlinuz


def _module_name(path: str) -> str:
    return Path(path).stem.replace("-", "_")


def _load_order(modules: dict[str, bytes]) -> list[str]:
    order: list[str] = []

    def need(name: str) -> None:
        if name in order or name not in modules:  # absent: built in
            return
        found = re.search(rb"(?:\0|^)depends=([^\0]*)", modules[name])
        for other in (found.group(1).decode() if found else "").split(","):
            if other:
                need(other.replace("-", "_"))
        order.append(name)

    for name in MODULES:
        need(name.replace("-", "_"))
    return order

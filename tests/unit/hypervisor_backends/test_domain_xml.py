"""From a spec to XML and back: what libvirt takes, what comes back from it, and that no text becomes markup."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree as ET

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hypervisor_backends.device_xml import devices_of, disk_targets, mac_of, memory_element, name_of
from hypervisor_backends.domain_metadata import (
    DomainMetadata,
    domain_uuid,
    metadata_element,
    metadata_of,
    metadata_text,
    with_epoch,
    without_seed,
)
from hypervisor_backends.domain_xml import XmlContext, domain_xml
from hypervisor_backends.protocol import DomainSpec
from olvm.model.errors import BadInput
from olvm.model.hardware import CloudInit, DiskSpec, Hardware, NicSpec

MIB = 1024 * 1024
VM = "0b0e7a52-96f1-4d6a-8f6c-0a5b8f0f0001"
FULL = XmlContext(
    lock_manager="lockd",
    lease_directory="/shared/leases",
    seed_path="/seeds/a.iso",
    console_log_directory="/var/log/libvirt/qemu",
    networks=("inner",),
    cgroups=True,
    emulator="/usr/bin/qemu-system-x86_64",
)


def spec(
    name: str = "web-1", vcpus: int = 2, memory_bytes: int = 512 * MIB, **hardware: object
) -> DomainSpec:
    return DomainSpec(
        name=name,
        vcpus=vcpus,
        memory_bytes=memory_bytes,
        hardware=msgspec.convert(hardware, Hardware) if hardware else Hardware(),
    )


def xml_of(one: DomainSpec, context: XmlContext = FULL, vm_id: str = VM) -> ET.Element:
    return ET.fromstring(domain_xml(vm_id, 3, one, context))


# ---------------------------------------------------------------- what stands in it


def test_machine_of_one_spec_and_host_has_the_same_text_each_time() -> None:
    one = spec(nics=({"name": "eth0"},))

    assert domain_xml(VM, 1, one, FULL) == domain_xml(VM, 1, one, FULL)


def test_machine_runs_on_kvm_only_where_the_context_says_so() -> None:
    tcg, kvm = xml_of(spec()), xml_of(spec(), msgspec.structs.replace(FULL, accelerator="kvm"))

    assert (tcg.get("type"), kvm.get("type")) == ("qemu", "kvm")
    assert tcg.findtext("cpu/model") == "EPYC"
    cpu = kvm.find("cpu")
    assert cpu is not None
    assert cpu.get("mode") == "host-model"


def test_screen_lets_nobody_in_before_a_ticket() -> None:
    graphics = xml_of(spec()).find("devices/graphics")

    assert graphics is not None
    assert graphics.get("passwd")
    assert graphics.get("passwdValidTo", "").startswith("1970-")


def test_channels_name_no_path() -> None:
    channels = xml_of(spec()).findall("devices/channel")

    assert [channel.find("source") for channel in channels] == [None, None]
    assert [target.get("name") for channel in channels if (target := channel.find("target")) is not None] == [
        "ovirt-guest-agent.0",
        "org.qemu.guest_agent.0",
    ]


def test_leased_machine_has_its_lease_only_under_a_lock_manager() -> None:
    leased = msgspec.structs.replace(spec(), leased=True)

    assert xml_of(leased).findtext("devices/lease/key") == VM
    assert xml_of(spec()).find("devices/lease") is None
    assert xml_of(leased, XmlContext()).find("devices/lease") is None


def test_lease_of_sanlock_is_a_file_of_its_own() -> None:
    leased = msgspec.structs.replace(spec(), leased=True)
    context = XmlContext(lock_manager="sanlock", lockspace_directory="/shared/leases/area-sanlock")
    lease = xml_of(leased, context).find("devices/lease")

    assert lease is not None
    assert (lease.findtext("lockspace"), lease.findtext("key")) == ("area", VM)
    target = lease.find("target")
    assert target is not None
    assert target.attrib == {"path": f"/shared/leases/area-sanlock/{VM}"}


def test_disk_errors_pause_the_machine_and_its_serial_is_its_name() -> None:
    disks = ({"name": "vda", "source": "/d/a"}, {"name": "logs", "source": "/dev/vg/l", "format": "raw"})
    root = xml_of(spec(disks=disks))

    found = devices_of(root, "disk")
    first, second = found["vda"], found["logs"]
    driver = first.find("driver")
    assert driver is not None
    assert (driver.get("cache"), driver.get("error_policy"), driver.get("discard")) == (
        "none",
        "stop",
        "unmap",
    )
    assert first.findtext("serial") == "vda"
    assert (second.get("type"), second.findtext("serial")) == ("block", "logs")


def test_network_card_joins_a_network_of_libvirt_or_a_bridge() -> None:
    nics = ({"name": "a", "network": "inner"}, {"name": "b", "network": "br7"}, {"name": "c"})
    cards = devices_of(xml_of(spec(nics=nics)), "nic")

    sources = {
        name: dict(source.attrib)
        for name, card in cards.items()
        if (source := card.find("source")) is not None
    }
    assert sources == {"a": {"network": "inner"}, "b": {"bridge": "br7"}, "c": {"bridge": "br0"}}


def test_disk_with_snapshots_is_started_from_its_newest_layer() -> None:
    one = spec(disks=({"name": "vda", "source": "/d/a", "format": "raw"},))
    disk = devices_of(xml_of(one, XmlContext(layer_by_source={"/d/a": "/d/a.s1"})), "disk")["vda"]

    source, driver = disk.find("source"), disk.find("driver")
    assert source is not None
    assert driver is not None
    assert (source.get("file"), driver.get("type")) == ("/d/a.s1", "qcow2")


def test_numa_nodes_share_out_all_cpus_and_all_memory() -> None:
    cells = xml_of(spec(vcpus=5, memory_bytes=1000 * MIB + 1024, numa_nodes=3)).findall("cpu/numa/cell")

    assert [cell.get("cpus") for cell in cells] == ["0", "1-2", "3-4"]
    assert sum(int(cell.get("memory", "0")) for cell in cells) == 1000 * 1024 + 1


@pytest.mark.parametrize(
    ("hardware", "context", "word"),
    [
        ({"cpu_model": "host-passthrough"}, FULL, "needs KVM"),
        ({"cpu_quota_percent": 20}, XmlContext(), "cgroups"),
        ({"numa_nodes": 3}, FULL, "NUMA"),
        ({"disks": ({"name": "vda", "source": "pool/volume"},)}, FULL, "absolute"),
        ({"disks": ({"name": "vda", "size_bytes": 1},)}, FULL, "no source"),
        ({"nics": ({"name": "eth0", "network": "a b;"},)}, FULL, "bridge"),
        ({"disks": ({"name": "vda", "source": "/a", "serial": "a<b"},)}, FULL, "serial"),
    ],
)
def test_spec_that_the_host_cannot_give_is_refused_with_the_reason(
    hardware: dict[str, object], context: XmlContext, word: str
) -> None:
    with pytest.raises(BadInput, match=word):
        domain_xml(VM, 1, spec(**hardware), context)


@pytest.mark.parametrize("character", ["\0", "\x07", "\x1b", "\ufffe", "\ud800"])
def test_character_that_xml_has_not_is_refused(character: str) -> None:
    with pytest.raises(BadInput, match="character"):
        domain_xml(VM, 1, spec(kernel="/k", cmdline=f"a{character}b"), FULL)


def test_huge_pages_that_do_not_divide_the_memory_are_refused() -> None:
    with pytest.raises(BadInput, match="huge pages"):
        domain_xml(VM, 1, spec(memory_bytes=513 * MIB, huge_page_bytes=2 * MIB), FULL)


# ---------------------------------------------------------------- names of devices


def test_mac_is_stable_for_a_machine_and_card_and_unlike_others() -> None:
    cards = [(vm, NicSpec(name=name)) for vm in (VM, "v2") for name in ("eth0", "eth1")]
    macs = [mac_of(vm, card) for vm, card in cards]

    assert macs == [mac_of(vm, card) for vm, card in cards]
    assert len(set(macs)) == 4
    assert all(mac.startswith("52:54:00:") for mac in macs)
    assert mac_of(VM, NicSpec(name="eth0", mac="52:54:00:00:00:01")) == "52:54:00:00:00:01"


def test_targets_keep_the_names_that_fit_and_never_clash() -> None:
    disks = [
        DiskSpec(name="data", source="/a"),
        DiskSpec(name="vda", source="/b"),
        DiskSpec(name="sda", source="/c"),
        DiskSpec(name="cd", device="cdrom", bus="sata"),
    ]

    assert disk_targets(disks, taken=["vdb"]) == {"vda": "vda", "data": "vdc", "sda": "vdd", "cd": "sda"}


def test_memory_device_is_found_by_its_name() -> None:
    assert name_of("mem", memory_element("m1", 128 * MIB, 0)) == "m1"
    assert name_of("disk", memory_element("m1", 128 * MIB, 0)) == ""


# ---------------------------------------------------------------- metadata


def test_machine_is_known_again_from_its_xml() -> None:
    one = msgspec.structs.replace(spec(kernel="/k", cmdline="a: '<b>' ]]> é \ud7ff"), leased=True)

    assert metadata_of(domain_xml(VM, 7, one, FULL)) == DomainMetadata(
        vm_id=VM, epoch=7, name="web-1", leased=True, spec=one
    )


def test_seed_is_in_no_metadata_and_all_else_is() -> None:
    """Whoever may read a domain's XML may read its metadata, and a seed holds passwords."""
    secrets = {name: f"secret-{name}" for name in ("user_data", "meta_data", "network_config")}
    text = domain_xml(VM, 7, spec(cloud_init=secrets, vcpus_max=4), FULL)

    assert "secret" not in text
    found = metadata_of(text)
    assert found is not None
    assert found.spec == spec(vcpus_max=4)


def test_another_epoch_changes_that_and_forgets_paths_of_channels() -> None:
    text = domain_xml(VM, 7, spec(), FULL)
    live = text.replace('<channel type="unix">', '<channel type="unix"><source mode="bind" path="/run/x"/>')
    changed = with_epoch(live, 8)

    found = metadata_of(changed)
    assert found is not None
    assert found.epoch == 8
    assert "/run/x" not in changed
    assert ET.canonicalize(with_epoch(changed, 7)) == ET.canonicalize(text)


def test_power_on_is_kept_with_another_epoch_unless_it_is_another_one() -> None:
    text = domain_xml(VM, 7, spec(), FULL, powered_on_ns=5)

    told = [metadata_of(one) for one in (text, with_epoch(text, 8), with_epoch(text, 8, powered_on_ns=6))]
    assert [one and one.powered_on_ns for one in told] == [5, 5, 6]


@pytest.mark.parametrize("word", ["", "-1", "1e9", "9" * 20, "soon"])
def test_power_on_that_is_no_instant_is_not_known(word: str) -> None:
    found = metadata_of(domain_xml(VM, 7, spec(), FULL, powered_on_ns=5).replace('"5"', f'"{word}"'))
    assert found is not None
    assert found.powered_on_ns == 0


def test_epoch_of_a_foreign_domain_is_not_set() -> None:
    with pytest.raises(BadInput, match="a machine of olvm"):
        with_epoch("<domain><name>x</name></domain>", 1)


_META = metadata_text(DomainMetadata(vm_id=VM, epoch=1, name="n", leased=False, spec=spec("n")))


def _domain(machine: str) -> str:
    return f'<domain><metadata xmlns:o="urn:olvm:domain:1">{machine}</metadata></domain>'


GARBLED = {
    "nothing": "",
    "no xml": "not xml",
    "cut": domain_xml(VM, 1, spec(), FULL)[:-20],
    "surrogate": "<domain>\ud800</domain>",
    "other root": "<network/>",
    "no metadata": "<domain/>",
    "foreign": "<domain><metadata><a:b xmlns:a='urn:x'/></metadata></domain>",
    "no namespace": f"<domain><metadata>{_META}</metadata></domain>",
    "empty": _domain("<o:machine/>"),
    "no spec": _domain("<o:machine id='a' epoch='1' name='n' leased='no'/>"),
    "no json": _domain("<o:machine id='a' epoch='1' name='n' leased='no'><o:spec>{</o:spec></o:machine>"),
    "other json": _domain(
        "<o:machine id='a' epoch='1' name='n' leased='no'><o:spec>[1]</o:spec></o:machine>"
    ),
    "deep json": _domain(
        f"<o:machine id='a' epoch='1' name='n' leased='no'><o:spec>{'[' * 100_000}</o:spec></o:machine>"
    ),
    "spec that cannot be": _domain(
        "<o:machine id='a' epoch='1' name='n' leased='no'>"
        '<o:spec>{"name": "n", "vcpus": 0, "memory_bytes": 1}</o:spec></o:machine>'
    ),
}


@pytest.mark.parametrize("what", sorted(GARBLED))
def test_garbled_or_foreign_metadata_is_nobodys(what: str) -> None:
    assert metadata_of(GARBLED[what]) is None


@pytest.mark.parametrize("epoch", ["", "-1", "1.5", "x", "9" * 40, "٣"])
def test_epoch_that_is_no_number_makes_the_metadata_nobodys(epoch: str) -> None:
    text = domain_xml(VM, 7, spec(), FULL).replace('epoch="7"', f'epoch="{epoch}"')

    assert metadata_of(text) is None


def test_id_that_is_no_uuid_gets_one_that_is_stable() -> None:
    assert domain_uuid(VM) == VM
    assert domain_uuid("v1") == domain_uuid("v1") != domain_uuid("v2")


# ---------------------------------------------------------------- any spec

names = st.from_regex(r"[a-z][a-z0-9_-]{0,9}", fullmatch=True)
# Not what XML has no characters for: a spec with those in a path or a command line is refused where it is made.
words = st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="￾￿"), max_size=30)
paths = words.map(lambda word: "/d/" + word.replace("..", "-").replace("/", "_"))
disks = st.builds(
    DiskSpec,
    name=names,
    source=paths,
    format=st.sampled_from(["qcow2", "raw"]),
    bus=st.sampled_from(["virtio", "scsi", "sata"]),
    read_only=st.booleans(),
    serial=st.from_regex(r"[A-Za-z0-9_.+-]{0,20}", fullmatch=True),
)
nics = st.builds(
    NicSpec,
    name=names,
    network=st.sampled_from(["", "inner", "br7"]),
    model=st.sampled_from(["virtio", "e1000e"]),
    link_up=st.booleans(),
)
hardwares = st.builds(
    Hardware,
    disks=st.lists(disks, max_size=4, unique_by=lambda disk: disk.name).map(tuple),
    nics=st.lists(nics, max_size=3, unique_by=lambda nic: nic.name).map(tuple),
    firmware=st.sampled_from(["bios", "uefi"]),
    kernel=st.just("/boot/k"),
    cmdline=words,
    vcpus_max=st.integers(0, 8),
    memory_bytes_max=st.sampled_from([0, 4096 * MIB]),
    cpu_quota_percent=st.integers(0, 400),
    numa_nodes=st.integers(1, 2),
    tpm=st.booleans(),
    rng=st.booleans(),
    watchdog=st.sampled_from(["reset", "poweroff", "pause", "none"]),
    serial_console=st.booleans(),
    vnc=st.booleans(),
    cloud_init=st.none() | st.builds(CloudInit, user_data=st.text(max_size=30)),
)
specs = st.builds(
    DomainSpec,
    name=words.filter(
        lambda word: word.strip() == word and word != "" and "/" not in word and word not in (".", "..")
    ),
    vcpus=st.integers(2, 8),
    memory_bytes=st.integers(64 * MIB, 2048 * MIB),
    hardware=hardwares,
    leased=st.booleans(),
)
EVIL = "</name><devices/>&amp;<!--]]>\"'"


@given(one=specs)
@example(
    one=DomainSpec(name=EVIL, vcpus=1, memory_bytes=64 * MIB, hardware=Hardware(kernel="/k", cmdline=EVIL))
)
@settings(max_examples=100, deadline=None)
def test_any_spec_becomes_xml_that_says_it_again_and_holds_no_markup_of_its_texts(one: DomainSpec) -> None:
    text = domain_xml(VM, 1, one, FULL)
    root = ET.fromstring(text)

    found = metadata_of(text)
    assert found is not None
    assert found.spec == without_seed(one)
    assert root.findtext("name") == one.name
    assert (root.findtext("os/cmdline") or "") == one.hardware.cmdline
    sources = {
        name: source
        for name, disk in devices_of(root, "disk").items()
        if (source := disk.find("source")) is not None
    }
    assert {name: source.get("file") for name, source in sources.items()} == {
        disk.name: disk.source for disk in one.hardware.disks
    }
    known = {
        "name",
        "uuid",
        "metadata",
        "maxMemory",
        "memory",
        "currentMemory",
        "memoryBacking",
        "vcpu",
        "cputune",
        "os",
    }
    known |= {"features", "cpu", "clock", "on_poweroff", "on_reboot", "on_crash", "devices"}
    assert {element.tag for element in root} <= known


@pytest.fixture(scope="module")
def driver() -> Iterator[object]:
    """libvirt's test driver: it holds XML against libvirt's own schema, and gives it back as libvirt writes it."""
    libvirt = pytest.importorskip("libvirt", reason="libvirt-python is not installed (`make apt-libvirt`)")
    libvirt.registerErrorHandler(lambda *_: None, None)
    connection = libvirt.open("test:///default")
    yield connection
    connection.close()


@given(one=specs)
@example(
    one=DomainSpec(
        name="everything",
        vcpus=2,
        memory_bytes=512 * MIB,
        leased=True,
        hardware=Hardware(
            disks=(
                DiskSpec(name="vda", source="/d/a"),
                DiskSpec(name="x", source="/dev/x", bus="scsi"),
                DiskSpec(name="cd", device="cdrom", bus="sata"),
            ),
            nics=(NicSpec(name="eth0", network="inner"), NicSpec(name="eth1")),
            firmware="uefi",
            secure_boot=True,
            huge_page_bytes=2 * MIB,
            memory_bytes_max=4096 * MIB,
            tpm=True,
            watchdog="reset",
            numa_nodes=2,
        ),
    )
)
@settings(max_examples=40, deadline=None)
def test_any_spec_passes_libvirts_own_schema_and_comes_back_the_same(driver: object, one: DomainSpec) -> None:
    import libvirt

    assert isinstance(driver, libvirt.virConnect)
    text = domain_xml(VM, 5, one, FULL).replace('type="qemu"', 'type="test"', 1)
    domain = driver.defineXMLFlags(text, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
    try:
        back = domain.XMLDesc(0)
        found = metadata_of(back)
        assert found is not None
        assert (found.spec, found.epoch) == (without_seed(one), 5)
        again = driver.defineXMLFlags(with_epoch(back, 6), libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
        later = metadata_of(again.XMLDesc(0))
        assert later is not None
        assert (later.spec, later.epoch) == (without_seed(one), 6)
    finally:
        domain.undefine()


def test_metadata_is_replaced_as_libvirt_stores_it(driver: object) -> None:
    import libvirt

    assert isinstance(driver, libvirt.virConnect)
    one = spec("remembered")
    text = domain_xml(VM, 5, one, FULL).replace('type="qemu"', 'type="test"', 1)
    domain = driver.defineXMLFlags(text, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
    more = DomainMetadata(
        vm_id=VM, epoch=5, name="remembered", leased=False, spec=spec("remembered", vcpus=4)
    )
    try:
        domain.setMetadata(
            libvirt.VIR_DOMAIN_METADATA_ELEMENT,
            metadata_text(more),
            "olvm",
            "urn:olvm:domain:1",
            libvirt.VIR_DOMAIN_AFFECT_CONFIG,
        )
        assert metadata_of(domain.XMLDesc(0)) == more
    finally:
        domain.undefine()


def test_metadata_element_is_in_our_own_namespace() -> None:
    element = metadata_element(DomainMetadata(vm_id=VM, epoch=1, name="n", leased=False, spec=spec("n")))

    assert element.tag == "{urn:olvm:domain:1}machine"

"""An agent's worker in a process of its own, so that a test can kill it in the middle of a revert.

Arguments: the host's name, its settings and the request as JSON, and the machine's id. Says "begins" first, and then
how it ended.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

import libvirt

from hypervisor_backends.domain_metadata import domain_uuid, metadata_of
from hypervisor_backends.domain_xml import domain_xml
from hypervisor_backends.libvirt_capabilities import capabilities_of, task_context
from hypervisor_backends.libvirt_revert import revert
from hypervisor_backends.libvirt_settings import libvirt_settings_from
from hypervisor_backends.libvirt_tasks import PreparedStart, prepare_start
from hypervisor_backends.protocol import RevertSnapshot


def main(host: str, settings_text: str, request_text: str, vm_id: str) -> None:
    settings = libvirt_settings_from(json.loads(settings_text))
    connection = libvirt.open(settings.uri)
    context = task_context(host, settings, capabilities_of(connection, settings))
    uuid = domain_uuid(vm_id)
    have = metadata_of(connection.lookupByUUIDString(uuid).XMLDesc(0))
    assert have is not None

    def make_xml(layers: Mapping[str, str]) -> str:
        prepared = prepare_start(connection, vm_id, have.spec, context, layers)
        assert isinstance(prepared, PreparedStart), prepared
        return domain_xml(vm_id, have.epoch, prepared.spec, prepared.xml)

    print("begins", flush=True)
    request = RevertSnapshot(vm_id=vm_id, **json.loads(request_text))
    print(revert(connection, uuid, request, make_xml, 0, context), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

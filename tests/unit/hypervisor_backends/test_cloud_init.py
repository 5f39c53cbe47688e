"""The NoCloud seed, read back from its image."""

from __future__ import annotations

import io
import json

import pytest

from hypervisor_backends.cloud_init import seed_iso
from olvm.model.hardware import CloudInit

pycdlib = pytest.importorskip("pycdlib", reason="pycdlib is not installed (pip install 'olvm[libvirt]')")


def read(image: bytes) -> dict[str, str]:
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(image))
    found = {}
    for child in iso.list_children(joliet_path="/"):
        name = child.file_identifier().decode("utf-16-be")
        if child.is_file():
            content = io.BytesIO()
            iso.get_file_from_iso_fp(content, joliet_path=f"/{name}")
            found[name] = content.getvalue().decode()
    label = iso.pvd.volume_identifier.decode().strip()
    iso.close()
    return found | {"label": label}


def test_seed_without_words_names_the_machine_and_asks_for_nothing() -> None:
    found = read(seed_iso("id-1", "web-1", CloudInit()))

    assert found["label"] == "cidata"
    assert json.loads(found["meta-data"]) == {"instance-id": "id-1", "local-hostname": "web-1"}
    assert found["user-data"].startswith("#cloud-config")
    assert "network-config" not in found


def test_seed_carries_each_document_unchanged() -> None:
    documents = CloudInit(
        user_data="#!/bin/sh\necho 'é'\n", meta_data="instance-id: x\n", network_config="a: 1\n"
    )
    found = read(seed_iso("id-1", "web-1", documents))

    assert (found["user-data"], found["meta-data"], found["network-config"]) == (
        documents.user_data,
        documents.meta_data,
        documents.network_config,
    )


def test_seed_of_the_largest_documents_is_whole() -> None:
    text = "x" * (64 * 1024)
    found = read(seed_iso("id-1", "web-1", CloudInit(user_data=text, meta_data=text, network_config=text)))

    assert found["user-data"] == found["meta-data"] == found["network-config"] == text


def test_name_that_yaml_would_misread_is_quoted() -> None:
    assert json.loads(read(seed_iso("1e3", "no", CloudInit()))["meta-data"])["local-hostname"] == "no"

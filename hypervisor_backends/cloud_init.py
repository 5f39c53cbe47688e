"""The NoCloud seed of cloud-init: a small ISO image with a machine's first instructions.

Decides the image's contents; they depend on its arguments alone. Must not know files: the image is bytes.
"""

from __future__ import annotations

import io
import json
from typing import Any

from olvm.model.errors import NotSupportedYet
from olvm.model.hardware import CloudInit

VOLUME_LABEL = "cidata"  # by which cloud-init finds it


def seed_iso(vm_id: str, name: str, cloud_init: CloudInit) -> bytes:
    """An ISO 9660 image with Joliet and Rock Ridge names.

    Raises `NotSupportedYet` where pycdlib is not installed.
    """
    image = _new_image()
    meta_data = cloud_init.meta_data or _meta_data(vm_id, name)
    _add(image, "META_DAT.;1", "meta-data", meta_data)
    # cloud-init takes a seed without user data for none at all.
    _add(image, "USER_DAT.;1", "user-data", cloud_init.user_data or "#cloud-config\n{}\n")
    if cloud_init.network_config:
        _add(image, "NETWORK_.;1", "network-config", cloud_init.network_config)
    stream = io.BytesIO()
    image.write_fp(stream)
    image.close()
    return stream.getvalue()


def _meta_data(vm_id: str, name: str) -> str:
    """JSON is YAML, and quotes what needs quoting."""
    return json.dumps({"instance-id": vm_id, "local-hostname": name}) + "\n"


def _new_image() -> Any:
    try:
        import pycdlib
    except ImportError as error:
        raise NotSupportedYet(
            "a cloud-init seed cannot be made: pycdlib is not installed; pip install 'olvm[libvirt]'"
        ) from error
    image = pycdlib.PyCdlib()
    image.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=VOLUME_LABEL)
    return image


def _add(image: Any, iso_name: str, name: str, text: str) -> None:
    content = text.encode()
    image.add_fp(io.BytesIO(content), len(content), f"/{iso_name}", rr_name=name, joliet_path=f"/{name}")

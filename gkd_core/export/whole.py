"""All of a segmentor as one safetensors file, for people who build the network themselves."""

from __future__ import annotations

from pathlib import Path

import torch

from gkd_core.errors import GkdError
from gkd_core.files import atomic_file
from gkd_core.models.segmentor import Segmentor as Network
from gkd_core.models.tensor_files import read_tensors, write_tensors
from gkd_core.predict.manifest import Bundle


def export_whole(bundle: Bundle, network: Network, path: Path) -> int:
    """Write encoder and decoder under our names, with the record of stage two in the metadata; read back before it gets its name.

    Returns:
        the number of tensors.

    Raises:
        GkdError: the path does not end in .safetensors, or what was written reads otherwise.
    """
    if path.suffix != ".safetensors":
        raise GkdError(f"{path}: an export in this format is a .safetensors file; choose such a name")
    tensors = network.state_dict()
    with atomic_file(path) as temporary:
        write_tensors(tensors, temporary, {"gkd": bundle.model.model_dump_json(), "version": bundle.version})
        written = read_tensors(temporary)
        if written.keys() != tensors.keys() or not all(torch.equal(written[name], tensors[name]) for name in tensors):
            raise GkdError(f"{path}: what was written reads otherwise; nothing was written, check the disk")
    return len(tensors)

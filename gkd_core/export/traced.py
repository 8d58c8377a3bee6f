"""A student as the module that a program is made of, and its graph."""

from __future__ import annotations

import copy
import threading
import warnings

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from gkd_core.errors import GkdError
from gkd_core.export.wanted import Sizes, Wanted
from gkd_core.messages import one_line
from gkd_core.models.any_size import take_any_size
from gkd_core.models.segmentor import Segmentor as Network

TRACED_BATCH = 2  # one image would be exported as always one
EXPORT = threading.Lock()  # torch.export keeps state of the whole process: threads take turns


class LogitsOfFloats(nn.Module):
    """Images (B, 3, H, W), float32 in 0..1, to logits (B, K, H, W), float32."""

    def __init__(self, network: Network, half: bool) -> None:
        super().__init__()
        self.network = network
        self.kind = torch.float16 if half else torch.float32

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images.to(self.kind))
        return logits.float()


class ClassesOfBytes(LogitsOfFloats):
    """Images (B, H, W, 3), uint8, to train ids (B, H, W), uint8."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.permute(0, 3, 1, 2).float() / 255).argmax(dim=1).to(torch.uint8)


def module_of(network: Network, wanted: Wanted, sizes: Sizes) -> LogitsOfFloats:
    """What is to be exported of a network, which stays as it is."""
    own = copy.deepcopy(network).eval().requires_grad_(False)
    if sizes.fixed_because is None:
        take_any_size(own.encoder)
    half = wanted.precision == "fp16"
    if half:
        own.half()
    return (ClassesOfBytes if wanted.takes == "classes-of-bytes" else LogitsOfFloats)(own, half)


def traced(module: LogitsOfFloats, sizes: Sizes) -> ExportedProgram:
    """The graph of a module: the batch is free, height and width are where the sizes are not fixed.

    Raises:
        GkdError: torch cannot export it.
    """
    height, width = sizes.traced
    as_bytes = isinstance(module, ClassesOfBytes)
    shape, kind = ((height, width, 3), torch.uint8) if as_bytes else ((3, height, width), torch.float32)
    example = torch.zeros(TRACED_BATCH, *shape, dtype=kind)
    first = 1 if as_bytes else 2
    free = (0,) if sizes.fixed_because is not None else (0, first, first + 1)
    try:
        with EXPORT, torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(module, (example,), dynamic_shapes=(dict.fromkeys(free, Dim.AUTO),))
    except Exception as error:  # of many kinds, as each layer has its own
        raise GkdError(f"the student cannot be exported by torch {torch.__version__} ({one_line(error, 300)})") from error

"""FLOPs of one image, by part, counted by torch on the meta device: the real modules run, without numbers and without memory.

torch counts matrix products and convolutions, two FLOPs for a multiplication and an addition. Norms, activations and the
sampling of deformable attention are left out, as they are in the usual figures.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from gkd_core.errors import DataError
from gkd_core.models.build import build_encoder, parameter_count
from gkd_core.models.decoders import build_decoder
from gkd_core.models.encoder import Encoder
from gkd_core.records import SegmentorCheckpoint, StudentSize
from gkd_core.settings import EncoderSettings, LearnTaskSettings

# A backward pass has a product for the inputs and one for the weights where the forward pass has one.
FORWARD_AND_BACKWARD = 3

Size = tuple[int, int]
Role = Literal["student", "teacher"]


class Cost(NamedTuple):
    """Of one part of a model: parameters, and FLOPs that an image takes in it."""

    parameters: int
    flops: float


def segmentor_cost(role: Role, encoder: EncoderSettings, section: LearnTaskSettings, classes: int, size: Size) -> dict[str, Cost]:
    """Encoder, named by its role, and decoder, forward alone, on an image of a size (height, width)."""
    with torch.device("meta"):
        seeing = empty_encoder(encoder).eval()
        # Moved as well: one tensor of Mask2Former is made by a constructor that overlooks the default device.
        decoder = build_decoder(
            section.decoder, seeing, classes, section.decoder_width, section.mask2former, section.feature_norm
        )
        decoder = decoder.eval().to("meta")
        images = torch.zeros(1, 3, *size)
    with torch.no_grad():
        features: list[Tensor] = []
        seen = counted(lambda: features.extend(decoder.features(seeing, images)))
        decoded = counted(lambda: decoder(features))
    return {role: Cost(parameter_count(seeing), seen), "decoder": Cost(parameter_count(decoder), decoded)}


def recorded_cost(record: SegmentorCheckpoint, size: Size) -> Cost:
    """Of the segmentor that a record describes, with its decoder, on an image of a size (height, width).

    Raises:
        DataError: its encoder cannot see an image of that size.
    """
    section = LearnTaskSettings(
        decoder=record.decoder,
        decoder_width=record.decoder_width,
        mask2former=record.mask2former,
        feature_norm=record.feature_norm,
    )
    costs = segmentor_cost("student", record.encoder, section, len(record.classes), size).values()
    return Cost(sum(cost.parameters for cost in costs), sum(cost.flops for cost in costs))


def student_size(record: SegmentorCheckpoint, weights: Path, window: Size, teacher: EncoderSettings | None = None) -> StudentSize:
    """Count a segmentor on a window (height, width), on the meta device: nothing is computed and no weights are read.

    Args:
        weights: its safetensors.
        teacher: the encoder that it is held against, under its own decoder.

    Raises:
        OSError: there are none.
    """
    cost = recorded_cost(record, window)
    beside = None if teacher is None else _cost_with(teacher, record, window)
    return StudentSize(
        parameters=cost.parameters,
        flops=cost.flops,
        window=window,
        weights_bytes=weights.stat().st_size,
        teacher_parameters=None if beside is None else beside.parameters,
        teacher_flops=None if beside is None else beside.flops,
    )


def _cost_with(encoder: EncoderSettings, record: SegmentorCheckpoint, window: Size) -> Cost | None:
    """Of a recorded segmentor with another encoder; None where that cannot see the window, which no stage asks of a teacher."""
    try:
        return recorded_cost(record.model_copy(update={"encoder": encoder}), window)
    except DataError:
        return None


def empty_encoder(settings: EncoderSettings) -> Encoder:
    """The architecture without its weights, which change no count."""
    return build_encoder(settings.model_copy(update={"weights": "random"}), seed=0)


def counted(work: Callable[[], object]) -> float:
    """The FLOPs of what is done in `work`."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())

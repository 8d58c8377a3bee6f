"""What a finished student takes: parameters, FLOPs and bytes."""

from __future__ import annotations

from pathlib import Path

from gkd_core.planning.flops import segmentor_cost
from gkd_core.records import SegmentorCheckpoint, StudentSize
from gkd_core.settings import LearnTaskSettings


def student_size(record: SegmentorCheckpoint, weights: Path, window: tuple[int, int]) -> StudentSize:
    """Count a segmentor on a window (height, width), on the meta device: nothing is computed and no weights are read.

    Args:
        weights: its safetensors.

    Raises:
        OSError: there are none.
    """
    section = LearnTaskSettings(decoder=record.decoder, decoder_width=record.decoder_width, mask2former=record.mask2former)
    costs = segmentor_cost("student", record.encoder, section, len(record.classes), window).values()
    return StudentSize(
        parameters=sum(cost.parameters for cost in costs),
        flops=sum(cost.flops for cost in costs),
        window=window,
        weights_bytes=weights.stat().st_size,
    )

"""What one step of stage one is to do, in values alone: whoever starts it need not load what does it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gkd_core.data.catalog.sources import Mix
from gkd_core.data.files.blobs import DataFile
from gkd_core.errors import SettingsError
from gkd_core.settings import DistillSettings, EncoderSettings, StreamingSettings


@dataclass(frozen=True)
class DistillJob:
    """All that a process needs to take part in one step of stage one; it can be pickled.

    Attributes:
        title: name for progress and messages, such as `distill-source gta5`.
        objective: `qsd` or `mse`.
        updates: optimizer updates.
        images: the unlabelled images.
        start: an objective's weights (student and heads) to go on from, or None to start from the student's own.
        run_folder: where the teacher's tokens of fixed views are kept.
        cache_bytes: room for them; 0 keeps none.
        loaders: processes that make batches ahead, for each worker.
        mix: the parts that the images are of, where they are of several.
        streaming: the order to read shards in; None shuffles the whole dataset.
    """

    title: str
    objective: str
    settings: DistillSettings
    updates: int
    teacher: EncoderSettings
    student: EncoderSettings
    images: tuple[DataFile, ...]
    start: Path | None
    seed: int
    threads: int
    device: str
    run_folder: Path
    cache_bytes: int = 0
    loaders: int = 0
    mix: Mix | None = None
    streaming: StreamingSettings | None = None


def step_encoder(encoder: EncoderSettings, step: DistillSettings) -> EncoderSettings:
    """An encoder as a step of stage one sees it: with the step's patch, and its position table laid out for the step's crop."""
    if step.patch_size is None:
        return encoder
    height, width = step.image_size
    side = height if height == width else encoder.image_size
    return encoder.model_copy(update={"patch_size": step.patch_size, "image_size": side})


def divides(settings: DistillSettings, workers: int) -> bool:
    """Whether the batch can be shared out evenly, each share in as many equal parts as gradients are accumulated over."""
    return settings.batch_size % workers == 0 and settings.batch_size // workers % settings.accumulate == 0


def check_batch_divides(settings: DistillSettings, workers: int) -> None:
    """Raise `SettingsError` where the batch cannot be shared out evenly."""
    if settings.batch_size % workers:
        raise SettingsError(f"batch_size: {settings.batch_size} images do not divide among {workers} workers; choose a multiple")
    if settings.batch_size // workers % settings.accumulate:
        raise SettingsError(
            f"accumulate: {settings.batch_size // workers} images a worker do not cut into {settings.accumulate} equal parts"
        )

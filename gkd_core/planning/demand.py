"""What a stage run asks of a cluster: arithmetic, images to read and make, gradients to exchange, checkpoints to write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gkd_core.data.catalog.load import Domain
from gkd_core.methods import encoder_is_frozen, method_of
from gkd_core.models.flops import FORWARD_AND_BACKWARD, Cost
from gkd_core.planning.counts import ImageSize, image_count, image_to_read
from gkd_core.planning.work import StageWork
from gkd_core.settings import DistillSettings, Precision, Settings
from gkd_core.stages.facts import DISTILL_PROXY, EVALUATE, STAGES
from gkd_core.stages.recipe import Recipe
from gkd_core.stages.run import StageRun

FLOAT = 4  # bytes: parameters, gradients and the optimizer's state are float32 in every precision
MOMENTS = 2  # that AdamW keeps of each parameter it trains
Augment = Literal["released", "light"]


@dataclass(frozen=True)
class Demand:
    """What one stage run asks for.

    Attributes:
        work: its arithmetic: images, batch, updates, views.
        section: the settings that it is made of, such as `distill_proxy`.
        workers: workers that it uses; None for all that there are, who then share each update's batch.
        references: the `dataset/split`s that it reads.
        image: an image of them, on average.
        crop_pixels: pixels of a view where images are augmented, else 0.
        repeats: views in a row that an image is read once for.
        lanes: streams that shards are read in; None where any image may be next.
        bucket_cache: bytes that each node keeps of shards in a bucket; None where images are read again each time.
        loaders: processes of each worker that make batches ahead; 0 makes them in it.
        gradient_bytes: what workers exchange in each update.
        backward_share: share of the arithmetic that is the backward pass.
        checkpoint_every: updates between checkpoints; None where there are none.
        state_bytes: a checkpoint: weights, the optimizer's moments, and the moving average where there is one.
    """

    work: StageWork
    section: str
    workers: int | None
    references: tuple[str, ...]
    image: ImageSize
    crop_pixels: int
    augment: Augment
    repeats: int
    lanes: int | None
    bucket_cache: int | None
    loaders: int
    precision: Precision
    accumulate: int
    checkpoint_every: int | None
    gradient_bytes: int
    backward_share: float
    state_bytes: int

    @property
    def name(self) -> str:
        return self.work.name

    @property
    def data_bytes(self) -> float:
        """All of its images."""
        return (self.work.images or 0) * self.image.bytes


def demands(recipe: Recipe, workspace: Path, works: Sequence[StageWork], proxy_bytes: float | None = None) -> list[Demand]:
    """What each stage run of the plan asks for, in the plan's order.

    Args:
        works: its arithmetic, of `plan_work`.
        proxy_bytes: bytes of a proxy image, instead of those found or assumed.
    """
    settings, runs = recipe.settings, {run.name: run for run in recipe.plan}
    made = []
    for work in works:
        run = runs[work.name]
        domains = _domains(run, recipe)
        references = tuple(domain.reference for domain in domains)
        image = _average(recipe, workspace, domains)
        stage = STAGES[run.stage]
        if stage is DISTILL_PROXY and proxy_bytes is not None:
            image = image._replace(bytes=proxy_bytes)
        if stage.distills:
            made.append(_distillation(settings, run, work, references, image))
        elif stage.trains:
            made.append(_task(settings, work, references, image))
        else:
            made.append(_evaluation(settings, work, references, image))
    return made


def _distillation(settings: Settings, run: StageRun, work: StageWork, references: tuple[str, ...], image: ImageSize) -> Demand:
    name = run.stage.replace("-", "_")
    section: DistillSettings = getattr(settings, name)
    trained = work.costs["student"].parameters + work.costs["heads"].parameters
    copies = 1 + MOMENTS + (section.ema_decay is not None)
    streaming = settings.data.streaming
    return Demand(
        work=work,
        section=name,
        workers=None,
        references=references,
        image=image,
        crop_pixels=section.image_size[0] * section.image_size[1],
        augment=section.augment,
        repeats=section.repeated_augmentation,
        lanes=None if streaming is None else streaming.lanes,
        bucket_cache=_bucket_cache(settings),
        loaders=settings.compute.loaders,
        precision=section.precision,
        accumulate=section.accumulate,
        checkpoint_every=section.checkpoint_every,
        gradient_bytes=FLOAT * trained,
        backward_share=_backward(work.costs["student"].flops) / work.flops_of_a_view,
        state_bytes=FLOAT * copies * trained,
    )


def _task(settings: Settings, work: StageWork, references: tuple[str, ...], image: ImageSize) -> Demand:
    """Stage two runs in one process, on one device."""
    section, encoder = settings.learn_task, method_of(settings).encoder
    of_segmentor: Mapping[str, Cost] = {part: work.costs[part] for part in (encoder, "decoder")}
    trained = [part for part in of_segmentor if part != encoder or not encoder_is_frozen(settings)]
    parameters = sum(cost.parameters for cost in of_segmentor.values())
    moments = MOMENTS * sum(of_segmentor[part].parameters for part in trained)
    backward = _backward(sum(of_segmentor[part].flops for part in trained))
    return Demand(
        work=work,
        section="learn_task",
        workers=1,
        references=references,
        image=image,
        crop_pixels=section.image_size[0] * section.image_size[1],
        augment="light",
        repeats=1,
        lanes=None,
        bucket_cache=_bucket_cache(settings),
        loaders=settings.compute.loaders,
        precision=section.precision,
        accumulate=section.accumulate,
        checkpoint_every=section.checkpoint_every,
        gradient_bytes=0,
        backward_share=backward / work.flops_of_a_view,
        state_bytes=FLOAT * (parameters + moments),
    )


def _evaluation(settings: Settings, work: StageWork, references: tuple[str, ...], image: ImageSize) -> Demand:
    return Demand(
        work=work,
        section=str(EVALUATE.section),
        workers=max(1, settings.evaluate.workers),
        references=references,
        image=image,
        crop_pixels=0,
        augment="light",
        repeats=1,
        lanes=None,
        bucket_cache=_bucket_cache(settings),
        loaders=0,
        precision=settings.evaluate.precision,
        accumulate=1,
        checkpoint_every=None,
        gradient_bytes=0,
        backward_share=0.0,
        state_bytes=0,
    )


def _backward(trained_flops: float) -> float:
    return trained_flops * (FORWARD_AND_BACKWARD - 1) / FORWARD_AND_BACKWARD


def _bucket_cache(settings: Settings) -> int | None:
    return settings.compute.shard_cache_bytes if settings.data.shards_in_bucket else None


def _domains(run: StageRun, recipe: Recipe) -> list[Domain]:
    """The domains that a stage run reads images of."""
    stage = STAGES[run.stage]
    if stage is DISTILL_PROXY:
        return [recipe.catalog.domain(recipe.settings.data.proxy)]
    return recipe.parts(str(run.source)) if stage.trains else recipe.measured_domains(str(run.source))


def _average(recipe: Recipe, workspace: Path, domains: Sequence[Domain]) -> ImageSize:
    """The average image of several domains, each weighing as many as it has."""
    counts = [image_count(recipe, domain, workspace) or 1 for domain in domains]
    images = [image_to_read(recipe, domain, workspace) for domain in domains]
    return ImageSize(
        *(
            sum(count * value for count, value in zip(counts, column, strict=True)) / sum(counts)
            for column in zip(*images, strict=True)
        )
    )

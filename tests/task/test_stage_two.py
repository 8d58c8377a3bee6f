"""Stage two: what is trained, what stays as it is, and which pixels count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from gkd_core.data.catalog.sources import Mix, whole
from gkd_core.data.catalog.taxonomy import IGNORE, LabelEncoding
from gkd_core.data.files.reading import LabelledImages, Pair
from gkd_core.errors import TrainingError
from gkd_core.models.build import build_encoder
from gkd_core.models.decoders import DECODERS
from gkd_core.models.encoder import Encoder
from gkd_core.models.segmentor import Segmentor, build_segmentor
from gkd_core.settings import EncoderSettings, LearnTaskSettings, Mask2FormerSettings
from gkd_core.task.batches import Batch
from gkd_core.task.stage_two import EndToEndTask, FrozenTask, SingleStageTask, TaskJob, learn_task
from gkd_core.training.checkpoint import FolderStore

CNN = EncoderSettings(arch="resnet10t", token_strides=(16, 32))  # with stride 32, every layer has a part in the tokens
FEW = Mask2FormerSettings(queries=4, decoder_layers=1, pixel_layers=1, heads=2, feedforward=32, pixel_feedforward=32, points=32)
SETTINGS = LearnTaskSettings(
    updates=3, batch_size=2, image_size=(64, 64), decoder="linear", lr=1e-2, encoder_lr=1e-2, checkpoint_every=2, log_every=1
)


@pytest.fixture
def job(tmp_path: Path) -> TaskJob:
    draws = np.random.default_rng(0)
    pairs = []
    for index in range(3):
        Image.fromarray(draws.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / f"{index}.png")
        Image.fromarray(draws.integers(0, 3, (64, 64), dtype=np.uint8)).save(tmp_path / f"{index}_label.png")
        pairs.append(Pair(tmp_path / f"{index}.png", tmp_path / f"{index}_label.png"))
    encoding = LabelEncoding(taxonomy="street", ids={0: 0, 1: 1, 2: IGNORE})
    parts = [LabelledImages(pairs, encoding)]
    return TaskJob(title="learn", settings=SETTINGS, parts=parts, mix=whole(len(pairs)), updates=3, seed=0, device="cpu")


def segmentor_of(encoder: Encoder) -> Segmentor:
    return build_segmentor(encoder, "linear", classes=2, width=8, seed=0)


def snapshot(module: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in module.state_dict().items()}


def changed(before: dict[str, bytes], module: nn.Module) -> set[str]:
    return {name for name, content in snapshot(module).items() if content != before[name]}


def run(job: TaskJob, task: nn.Module, folder: Path) -> list[float]:
    losses: list[float] = []
    learn_task(job, task, FolderStore(folder), lambda step, values: losses.append(values["loss"]), lambda done: None)
    return losses


@pytest.mark.parametrize("kind", ["vit", "cnn"])
def test_a_frozen_encoder_is_byte_identical_and_the_decoder_is_not(job: TaskJob, vit: Encoder, tmp_path: Path, kind: str) -> None:
    """A CNN has batch statistics that a training mode would move even without gradients."""
    encoder = vit if kind == "vit" else build_encoder(CNN, 0)
    if kind == "cnn":
        assert any("running_mean" in name for name in encoder.state_dict())
    segmentor = segmentor_of(encoder)
    before, decoder_before = snapshot(segmentor.encoder), snapshot(segmentor.decoder)
    run(job, FrozenTask(segmentor), tmp_path / "run")
    assert changed(before, segmentor.encoder) == set()
    assert changed(decoder_before, segmentor.decoder) == set(decoder_before)


def test_end_to_end_trains_the_encoder_too(job: TaskJob, tmp_path: Path) -> None:
    segmentor = segmentor_of(build_encoder(CNN, 0))
    before = snapshot(segmentor.encoder)
    run(job, EndToEndTask(segmentor), tmp_path / "run")
    assert changed(before, segmentor.encoder) == before.keys() - {"mask_pixel"}


@pytest.mark.parametrize("kind", ["vit", "cnn"])
def test_single_stage_trains_the_encoder_and_leaves_the_teacher(
    job: TaskJob, vit_settings: EncoderSettings, tmp_path: Path, kind: str
) -> None:
    settings = vit_settings if kind == "vit" else CNN
    segmentor, teacher = segmentor_of(build_encoder(settings, 0)), build_encoder(settings, 1).eval().requires_grad_(False)
    task = SingleStageTask(segmentor, teacher, weight=1.0, seed=0)
    encoder_before, teacher_before, projection_before = snapshot(segmentor.encoder), snapshot(teacher), snapshot(task.proj)
    run(job, task, tmp_path / "run")
    assert changed(encoder_before, segmentor.encoder) == encoder_before.keys() - {"mask_pixel", "mask_token"}
    assert changed(projection_before, task.proj) == set(projection_before)
    assert changed(teacher_before, teacher) == set()
    assert not any(module.training for module in teacher.modules())
    assert all("teacher" not in name for name in task.state_dict()), "checkpoints must not carry the teacher"


def test_single_stage_adds_its_two_losses(vit: Encoder, vit_settings: EncoderSettings) -> None:
    task = SingleStageTask(segmentor_of(vit), build_encoder(vit_settings, 1).eval(), weight=0.25, seed=0)
    losses = task(Batch(torch.rand(2, 3, 32, 32), torch.zeros(2, 32, 32).long()))
    torch.testing.assert_close(losses["loss"], losses["loss_task"] + 0.25 * losses["loss_distillation"])


class Stop(Exception):
    """Raised in the middle of a job."""


def stop_at_three(done: int) -> None:
    if done == 3:
        raise Stop


def end_states(job: TaskJob, fresh: Callable[[], nn.Module], folder: Path) -> tuple[nn.Module, nn.Module]:
    """The task after an undisturbed job, and after one that was stopped behind its checkpoint and then begun again."""
    whole, broken = fresh(), fresh()
    run(job, whole, folder / "whole")
    with pytest.raises(Stop):
        learn_task(job, fresh(), FolderStore(folder / "broken"), lambda step, values: None, stop_at_three)
    state = FolderStore(folder / "broken").load()
    assert state is not None
    assert state["step"] == 2
    torch.manual_seed(99)  # another process has another random state
    run(job, broken, folder / "broken")
    return whole, broken


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_stopped_job_ends_like_an_undisturbed_one(
    job: TaskJob, vit_settings: EncoderSettings, tmp_path: Path, decoder: str
) -> None:
    """Mask2Former draws points at random; the published colours and scales are drawn too; labels have ignored pixels."""
    job = replace(job, settings=SETTINGS.model_copy(update={"clip_norm": 0.01}))
    whole, broken = end_states(
        job,
        lambda: FrozenTask(build_segmentor(build_encoder(vit_settings, 0), decoder, 2, 64, 0, FEW)),
        tmp_path,
    )
    assert changed(snapshot(whole), broken) == set()


def test_a_stopped_job_on_a_mix_ends_like_an_undisturbed_one(job: TaskJob, vit_settings: EncoderSettings, tmp_path: Path) -> None:
    """Two parts with tables of their own and uneven weights."""
    (part,) = job.parts
    other = LabelledImages(part.pairs[:1], LabelEncoding(taxonomy="street", ids={0: 1, 1: 0, 2: 1}))
    mixed = replace(job, parts=[part, other], mix=Mix((len(part.pairs), 1), (1, len(part.pairs))))
    undisturbed, broken = end_states(mixed, lambda: FrozenTask(segmentor_of(build_encoder(vit_settings, 0))), tmp_path)
    assert changed(snapshot(undisturbed), broken) == set()
    plain = FrozenTask(segmentor_of(build_encoder(vit_settings, 0)))
    run(job, plain, tmp_path / "plain")
    assert changed(snapshot(plain), undisturbed), "what is mixed in was learnt from"


@pytest.mark.parametrize("joint", [False, True])
def test_resuming_is_exact_where_the_encoder_drops_paths_at_random(
    job: TaskJob, vit_settings: EncoderSettings, tmp_path: Path, joint: bool
) -> None:
    dropping = vit_settings.model_copy(update={"options": {**vit_settings.options, "drop_path_rate": 0.5}})

    def fresh() -> nn.Module:
        segmentor = segmentor_of(build_encoder(dropping, 0))
        if joint:
            return SingleStageTask(segmentor, build_encoder(vit_settings, 1).eval().requires_grad_(False), weight=1.0, seed=0)
        return EndToEndTask(segmentor)

    whole, broken = end_states(job, fresh, tmp_path)
    assert changed(snapshot(whole), broken) == set()


def test_a_small_clip_norm_holds_the_step_back(job: TaskJob, vit_settings: EncoderSettings, tmp_path: Path) -> None:
    ends = {}
    for norm in (None, 1e-12):
        task = FrozenTask(segmentor_of(build_encoder(vit_settings, 0)))
        weight = task.segmentor.decoder.get_parameter("classifier.weight")
        before = weight.detach().clone()
        settings = SETTINGS.model_copy(update={"clip_norm": norm, "weight_decay": 0.0})
        run(replace(job, settings=settings), task, tmp_path / str(norm))
        ends[norm] = (weight - before).abs().sum().item()
    assert ends[1e-12] < 0.1 * ends[None], "far below AdamW's epsilon, a gradient moves nothing"


def test_learning_lowers_the_loss(job: TaskJob, vit: Encoder, tmp_path: Path) -> None:
    views = {"image_size": (32, 32), "resize_range": (1.0, 1.0), "resize_of": "image", "colors": "jitter"}
    job = replace(job, updates=30, settings=SETTINGS.model_copy(update=views))
    losses = run(job, FrozenTask(segmentor_of(vit)), tmp_path / "run")
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


@pytest.mark.parametrize("decoder", DECODERS)
def test_mixed_precision_and_micro_batches_serve_every_decoder(
    job: TaskJob, vit_settings: EncoderSettings, tmp_path: Path, decoder: str
) -> None:
    """On fixed views a step in bf16, in two parts, goes where the step in fp32, in one, goes."""
    views = {"resize_range": (1.0, 1.0), "resize_of": "image", "colors": "jitter", "color_jitter": 0.0}
    job = replace(job, settings=SETTINGS.model_copy(update=views))
    losses = []
    for name, changes in (("plain", {}), ("mixed", {"precision": "bf16", "accumulate": 2})):
        task = FrozenTask(build_segmentor(build_encoder(vit_settings, 0), decoder, 2, 64, 0, FEW))
        losses.append(run(replace(job, settings=job.settings.model_copy(update=changes)), task, tmp_path / name))
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.2)
    assert losses[1] != losses[0]


def test_a_loss_that_is_not_finite_names_the_images(job: TaskJob, vit: Encoder, tmp_path: Path) -> None:
    segmentor = segmentor_of(vit)
    segmentor.decoder.get_parameter("classifier.bias").data[0] = torch.nan
    with pytest.raises(TrainingError, match=r"the loss is nan at update 1 of 3; its batch: .*\d\.png"):
        run(job, FrozenTask(segmentor), tmp_path / "run")

"""Stage one on a handful of images: the published recipe resumes exactly, and each of its settings does what it says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gkd_core.data.catalog.sources import Mix
from gkd_core.data.order.samples import Reading
from gkd_core.distill import token_cache
from gkd_core.distill.job import DistillJob, check_batch_divides, step_encoder
from gkd_core.distill.results import write_objective
from gkd_core.distill.stage_one import build_objective, distill, frozen_teacher
from gkd_core.distill.teacher import Teacher
from gkd_core.distill.views import ViewMaker
from gkd_core.errors import PlatformError, SettingsError, TrainingError
from gkd_core.models.build import build_encoder
from gkd_core.models.encoder import Encoder
from gkd_core.seeding import seed_of
from gkd_core.settings import DistillSettings, EncoderSettings
from gkd_core.training.checkpoint import FolderStore, State
from gkd_core.training.rank import Rank

TINY: dict[str, Any] = {"embed_dim": 16, "depth": 2, "num_heads": 2}
LIGHT: dict[str, Any] = {
    "updates": 4, "batch_size": 4, "image_size": (32, 32), "lr": 1e-2, "lr_batch": None, "augment": "light",
    "repeated_augmentation": 1, "precision": "fp32", "ema_decay": None, "checkpoint_every": 1, "log_every": 1,
}  # fmt: skip
PUBLISHED = LIGHT | {"augment": "released", "repeated_augmentation": 3, "precision": "fp16", "ema_decay": 0.99996}


class Stop(Exception):
    """Stands for whatever ends a process."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{index}.png" for index in range(5)]
    for index, path in enumerate(paths):
        Image.fromarray(np.random.default_rng(index).integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(path)
    return tuple(paths)


@pytest.fixture
def job(images: tuple[Path, ...], tmp_path: Path, vit_settings: EncoderSettings) -> Callable[..., DistillJob]:
    """A job by its step's settings, and by fields of its own."""

    def make(settings: dict[str, Any], **fields: Any) -> DistillJob:
        usual = {
            "title": "distill-proxy", "objective": "qsd", "settings": DistillSettings.model_validate(settings),
            "teacher": vit_settings, "student": vit_settings.model_copy(update={"options": TINY}), "images": images,
            "updates": settings["updates"], "start": None, "seed": 0, "threads": 1, "device": "cpu",
            "run_folder": tmp_path / "run",
        }  # fmt: skip
        return DistillJob(**usual | fields)

    return make


def run(job: DistillJob, folder: Path, stop_at: int | None = None) -> State:
    """Distil; gives the end state, with the metrics' lines."""
    lines: list[Any] = []

    def advance(done: int) -> None:
        if done == stop_at:
            raise Stop

    store = FolderStore(folder)
    distill(job, Rank(), store, lambda step, values: lines.append(values), advance)
    state = store.load()
    assert state is not None
    return state | {"lines": lines}


def same(first: State, second: State, part: str = "model") -> bool:
    return all(torch.equal(tensor, second[part][name]) for name, tensor in first[part].items())


@pytest.mark.parametrize(
    "settings",
    [
        PUBLISHED,
        PUBLISHED | {"precision": "bf16", "accumulate": 2, "clip_norm": 1.0},
        LIGHT | {"fixed_views": 2, "activation_checkpointing": True},
    ],
    ids=["published", "parts", "fixed"],
)
def test_a_stopped_step_ends_like_an_undisturbed_one(
    job: Callable[..., DistillJob], tmp_path: Path, settings: dict[str, Any], vit_settings: EncoderSettings
) -> None:
    """With drop path, so that the student draws too."""
    student = vit_settings.model_copy(update={"options": TINY | {"drop_path_rate": 0.3}})
    make = job(settings, student=student, cache_bytes=2**20)
    whole = run(make, tmp_path / "whole")
    with pytest.raises(Stop):
        run(make, tmp_path / "broken", stop_at=3)
    again = run(make, tmp_path / "broken")
    assert len(again["lines"]) == 2
    assert same(whole, again)
    if settings["ema_decay"] is not None:
        assert same(whole, again, "ema")
    assert not same(whole, {"model": build_objective(make, 24).state_dict()})


def test_a_stopped_step_on_a_mix_ends_like_an_undisturbed_one(job: Callable[..., DistillJob], tmp_path: Path) -> None:
    """Three images of one part to two of another, weighed one to four; each image three times in a row."""
    mixed = job(PUBLISHED, mix=Mix((3, 2), (1, 4)))
    whole = run(mixed, tmp_path / "whole")
    with pytest.raises(Stop):
        run(mixed, tmp_path / "broken", stop_at=3)
    assert same(whole, run(mixed, tmp_path / "broken"))
    assert not same(whole, run(job(PUBLISHED), tmp_path / "plain"))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_ranks_share_out_a_mix(job: Callable[..., DistillJob], images: Any, count: int) -> None:
    """All ranks together see each part as often as stated: 12 images in 3 updates are 4 epochs of one to two."""
    make, mix = job(LIGHT), Mix((3, 2), (1, 2))
    seen = [
        file
        for rank in range(count)
        for update in range(3)
        for file in ViewMaker(make.settings, images, Reading("t", 0, mix, rank=rank, workers=count), 16).files(update)
    ]
    assert sum(file in images[:3] for file in seen) == 4
    assert sum(file in images[3:] for file in seen) == 8


def test_loaders_change_nothing(job: Callable[..., DistillJob], tmp_path: Path) -> None:
    here = run(job(PUBLISHED), tmp_path / "here")
    ahead = run(job(PUBLISHED, loaders=2), tmp_path / "ahead")
    assert same(here, ahead)
    assert same(here, ahead, "ema")


def test_one_epoch_looks_at_every_image_three_times(job: Callable[..., DistillJob], tmp_path: Path, images: Any) -> None:
    make = job(PUBLISHED | {"batch_size": 3, "updates": 5})
    views = ViewMaker(make.settings, images, Reading("t", 0), 16)
    seen = [set(views.files(update)) for update in range(5)]
    assert [len(files) for files in seen] == [1] * 5
    assert set.union(*seen) == set(images)
    assert not torch.equal(views(0).images[0], views(0).images[1]), "each time another view of it"


@pytest.mark.parametrize("count", [1, 2, 4])
def test_ranks_together_see_what_one_process_sees(job: Callable[..., DistillJob], images: Any, count: int) -> None:
    settings = job(PUBLISHED).settings
    whole = ViewMaker(settings, images, Reading("t", 0), 16)(3).images
    for index in range(count):
        share = ViewMaker(settings, images, Reading("t", 0, rank=index, workers=count), 16)(3).images
        assert torch.equal(share, whole[index::count])


@pytest.mark.parametrize(
    ("teacher", "student"),
    [
        ({"patch_size": 4}, {}),
        ({"patch_size": 16}, {}),
        ({}, {"arch": "resnet10t", "options": {}, "patch_size": None, "image_size": None}),
        ({"arch": "resnet10t", "options": {}, "patch_size": None, "image_size": None, "token_strides": (32,)}, {}),
    ],
    ids=["finer", "coarser", "cnn-student", "cnn-teacher"],
)
@pytest.mark.parametrize("objective", ["qsd", "mse"])
def test_grids_of_teacher_and_student_may_differ(
    job: Callable[..., DistillJob], tmp_path: Path, teacher: Any, student: Any, objective: str
) -> None:
    usual = job(LIGHT | {"updates": 2})
    make = dataclasses.replace(
        usual,
        objective=objective,
        teacher=usual.teacher.model_copy(update=teacher),
        student=usual.student.model_copy(update=student),
    )
    assert np.isfinite(run(make, tmp_path / "run")["lines"][-1]["loss"])


def test_a_steps_patch_and_crop_shape_both_encoders(vit_settings: EncoderSettings, job: Callable[..., DistillJob]) -> None:
    step = DistillSettings.model_validate(LIGHT | {"patch_size": 16, "image_size": (64, 64)})
    settings = step_encoder(vit_settings, step)
    assert (settings.patch_size, settings.image_size) == (16, 64)
    assert build_encoder(settings, 0).grid(64, 64) == (4, 4)
    assert step_encoder(vit_settings, DistillSettings.model_validate(LIGHT)) == vit_settings


def test_a_later_step_goes_on_with_another_patch(job: Callable[..., DistillJob], tmp_path: Path) -> None:
    """1b with larger patches and crops than 1a: kernel and position table are resized, all else is taken as it is."""
    first = job(LIGHT)
    write_objective(run(first, tmp_path / "first"), tmp_path / "objective.safetensors")
    step = first.settings.model_copy(update={"patch_size": 16, "image_size": (96, 96), "updates": 1})
    later = dataclasses.replace(
        first,
        settings=step,
        student=step_encoder(first.student, step),
        teacher=step_encoder(first.teacher, step),
        start=tmp_path / "objective.safetensors",
    )
    assert build_objective(later, 24).student.grid(96, 96) == (6, 6)
    assert np.isfinite(run(later, tmp_path / "later")["lines"][-1]["loss"])


def test_activation_checkpointing_has_the_same_losses_and_weights(job: Callable[..., DistillJob], tmp_path: Path) -> None:
    kept = run(job(LIGHT), tmp_path / "kept")
    again = run(job(LIGHT | {"activation_checkpointing": True}), tmp_path / "again")
    for name, tensor in kept["model"].items():
        torch.testing.assert_close(again["model"][name], tensor)
    assert again["lines"][-1]["loss"] == pytest.approx(kept["lines"][-1]["loss"], rel=1e-5)


def test_compiling_reaches_the_tokens_of_both_encoders(
    job: Callable[..., DistillJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[Any] = []
    plain = run(job(LIGHT | {"ema_decay": 0.9}), tmp_path / "plain")
    monkeypatch.setattr(torch, "compile", lambda function: (compiled.append(function), function)[1])
    monkeypatch.setattr("gkd_core.distill.stage_one.check_compiler", lambda device: None)
    after = run(job(LIGHT | {"ema_decay": 0.9, "compile": True}), tmp_path / "compiled")
    assert [function.__name__ for function in compiled] == ["tokens", "tokens"]
    assert len({id(function.__self__) for function in compiled}) == 2
    assert same(plain, after)


def test_compiling_without_a_compiler_ends_before_anything_is_built(
    job: Callable[..., DistillJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr("gkd_core.distill.stage_one.frozen_teacher", lambda settings, seed: pytest.fail("a model was built"))
    with pytest.raises(SettingsError, match=r"^compile: torch\.compile for cpu needs a compiler"):
        run(job(LIGHT | {"compile": True}), tmp_path / "run")


def test_a_teacher_in_half_precision_still_gives_float32_tokens_without_gradient(vit: Encoder) -> None:
    images = torch.rand(2, 3, 32, 32)
    exact = Teacher(vit, (4, 4), "fp32", torch.device("cpu")).tokens(images)
    rough = Teacher(vit, (4, 4), "bf16", torch.device("cpu")).tokens(images)
    assert rough.patches.dtype == torch.float32
    assert not rough.patches.requires_grad
    torch.testing.assert_close(rough.patches, exact.patches, atol=0.1, rtol=0.1)
    assert not torch.equal(rough.patches, exact.patches)


@pytest.mark.parametrize("views", [1, 3])
def test_cached_tokens_end_like_computed_ones(
    job: Callable[..., DistillJob], tmp_path: Path, views: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The teacher looks once at each of 5 images' views; the student still learns from the same tokens, up to rounding."""
    looks: list[int] = []
    usual = Teacher.tokens
    monkeypatch.setattr(Teacher, "tokens", lambda self, images: (looks.append(len(images)), usual(self, images))[1])
    settings = LIGHT | {"fixed_views": views, "updates": 12}
    computed = run(job(settings), tmp_path / "computed")
    assert sum(looks) == 12 * 4
    looks.clear()
    cached = run(job(settings, cache_bytes=2**20), tmp_path / "cached")
    assert sum(looks) == 5 * views
    for name, tensor in computed["model"].items():
        torch.testing.assert_close(cached["model"][name], tensor, atol=1e-4, rtol=1e-3)
    looks.clear()
    run(job(settings, cache_bytes=2**20), tmp_path / "cached again")
    assert looks == [], "the file is found again"
    run(job(settings, cache_bytes=2**20, seed=1), tmp_path / "other")
    assert sum(looks) == 5 * views, "another seed has other views, and another teacher"
    assert len(list((tmp_path / "run" / token_cache.FOLDER).glob("*.tokens"))) == 1, "what does not fit the run is removed"


def test_what_does_not_fit_into_the_cache_is_computed(
    job: Callable[..., DistillJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_cache, "BLOCK", 2)
    settings = LIGHT | {"fixed_views": 1, "updates": 6}
    room = 3 * 17 * 24 * 4  # three entries: of which one whole block is used
    partly = run(job(settings, cache_bytes=room), tmp_path / "partly")
    files = list((tmp_path / "run" / token_cache.FOLDER).glob("*.tokens"))
    assert [file.stat().st_size for file in files] == [2 * 17 * 24 * 4]
    computed = run(job(settings), tmp_path / "computed")
    for name, tensor in computed["model"].items():
        torch.testing.assert_close(partly["model"][name], tensor, atol=1e-4, rtol=1e-3)
    assert same(partly, run(job(settings, cache_bytes=room), tmp_path / "again"))


def test_a_full_disk_is_told_before_anything_is_written(
    job: Callable[..., DistillJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int, start: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(PlatformError, match=r"no room for \d+ bytes \(No space left on device\); lower compute\.teacher_cache"):
        run(job(LIGHT | {"fixed_views": 1}, cache_bytes=2**20), tmp_path / "run")


def test_a_loss_that_is_not_finite_names_images_and_checkpoint(job: Callable[..., DistillJob], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"not finite|the loss is") as error:
        run(job(LIGHT | {"lr": 1e30, "min_lr": 1e30, "updates": 20}), tmp_path / "run")
    assert "its batch: " in str(error.value)
    assert ".png and 1 more; last good checkpoint: " in str(error.value)


def test_a_batch_that_cannot_be_cut_is_refused(job: Callable[..., DistillJob], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="batch_size 4 cannot be cut into 3 equal parts"):
        job(LIGHT | {"accumulate": 3})
    with pytest.raises(SettingsError, match="accumulate: 2 images a worker do not cut into 4 equal parts"):
        check_batch_divides(job(LIGHT | {"accumulate": 4}).settings, 2)
    with pytest.raises(ValueError, match=r"image_size \(32, 32\) is not a multiple of patch_size 14"):
        job(LIGHT | {"patch_size": 14})


def test_the_learning_rate_is_the_published_one(job: Callable[..., DistillJob], tmp_path: Path) -> None:
    """5e-4 at 512 images, scaled to the batch of 4; warm-up from 1e-6; cosine to 1e-5, which is not scaled."""
    settings = LIGHT | {"lr": 5e-4, "lr_batch": 512, "warmup_updates": 1, "min_lr": 1e-6}
    rates = [line["lr"] for line in run(job(settings), tmp_path / "run")["lines"]]
    assert rates[:2] == pytest.approx([1e-6, 5e-4 * 4 / 512])
    assert rates[1] > rates[2] > rates[3] > 1e-6


def test_the_teacher_never_trains(job: Callable[..., DistillJob]) -> None:
    teacher = frozen_teacher(EncoderSettings(arch="resnet10t"), seed_of("teacher", 0))
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())

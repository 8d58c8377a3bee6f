"""Settings of stage two and evaluation: published defaults, and refusals that name the key."""

from __future__ import annotations

import pytest

from gkd_core.errors import SettingsError
from gkd_core.methods import METHODS, encoder_is_frozen, task_updates
from gkd_core.settings import Settings, load_settings


def test_the_defaults_are_the_published_recipe() -> None:
    task, evaluate = Settings().learn_task, Settings().evaluate
    assert (task.decoder, task.updates, task.batch_size, task.image_size) == ("mask2former", 40_000, 4, (512, 512))
    assert (task.lr, task.encoder_lr, task.weight_decay, task.poly_power) == (1e-4, 1e-5, 0.05, 0.9)
    assert (task.resize_range, task.resize_of, task.longest_edge, task.cat_max_ratio) == ((0.5, 2.0), "crop", 2048, 0.75)
    assert (task.freeze_encoder, task.colors, task.precision, task.clip_norm) == (True, "distortion", "fp32", None)
    decoder = task.mask2former
    assert (decoder.queries, decoder.decoder_layers, decoder.pixel_layers, decoder.points) == (100, 9, 6, 12_544)
    assert (decoder.class_weight, decoder.mask_weight, decoder.dice_weight, decoder.no_object_weight) == (2, 5, 5, 0.1)
    assert (decoder.oversample, decoder.importance) == (3, 0.75)
    assert (evaluate.window, evaluate.stride, evaluate.scales, evaluate.flip) == ((512, 512), (341, 341), (1.0,), False)


@pytest.mark.parametrize("method", METHODS)
def test_thawing_concerns_the_methods_that_freeze_and_no_budget(method: str) -> None:
    key = "learn_task.freeze_encoder"
    frozen, thawed = (load_settings(None, "demo", [f"method={method}", f"{key}={on}"]) for on in (True, False))
    assert encoder_is_frozen(frozen) == (method in ("gkd", "two-stage-mse", "teacher"))
    assert not encoder_is_frozen(thawed)
    assert task_updates(thawed) == task_updates(frozen)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("learn_task.accumulate=3", "learn_task: batch_size 32 cannot be cut into 3 equal parts"),
        ("learn_task.decoder=unet", "'linear', 'segformer' or 'mask2former'"),
        ("learn_task.mask2former.points=0", "learn_task.mask2former.points: given 0"),
        ("learn_task.mask2former.querys=4", "learn_task.mask2former.querys: unknown key"),
        ("learn_task.colors=sepia", "learn_task.colors: given 'sepia'"),
        ("evaluate.scales=[0]", "evaluate.scales.0: given 0"),
        ("evaluate.scales=[]", "evaluate.scales: given []"),
        ("evaluate.workers=-1", "evaluate.workers: given -1"),
    ],
)
def test_refusals_name_the_key(override: str, message: str) -> None:
    with pytest.raises(SettingsError) as error:
        load_settings(None, "demo", [override])
    assert message in str(error.value)

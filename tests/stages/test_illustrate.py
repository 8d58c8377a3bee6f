"""Stage `illustrate` after a tiny run: what is drawn of which method, and from what."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from gkd_core.data.files.reading import read_pair
from gkd_core.errors import GkdError, SettingsError
from gkd_core.models.segmentor import load_segmentor
from gkd_core.records import PictureList, sha256_of
from gkd_core.settings import Settings, settings_from_tree
from gkd_core.stages import Recipe, run_stage
from gkd_core.stages.evaluate import scored_images
from gkd_core.stages.work import Context

DOMAINS = ("potsdam-rgb/val", "potsdam-irrg/val", "vaihingen-irrg/val")
PANELS = {f"panel-{domain.replace('/', '-')}.png" for domain in DOMAINS}
OUTPUT = Path("artifacts/illustrate/potsdam-rgb")


@pytest.fixture(scope="module")
def tree(tiny_tree: dict[str, Any]) -> dict[str, Any]:
    """One source with two targets, one image each."""
    return tiny_tree | {"data": tiny_tree["data"] | {"benchmarks": ["P2R"]}, "illustrate": {"images": 1, "pixels": 64}}


@pytest.fixture(scope="module")
def gkd_run(tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of a finished run of method gkd."""
    workspace = tmp_path_factory.mktemp("gkd")
    settings = settings_from_tree(tree)
    for run in Recipe.of(settings).plan:
        run_stage(Recipe.of(settings), run, workspace)
    return workspace


def drawn(settings: Settings, workspace: Path) -> PictureList:
    run_stage(Recipe.of(settings), Recipe.of(settings).find("illustrate", "potsdam-rgb"), workspace)
    return PictureList.read(workspace / OUTPUT / "pictures.json")


def beside(finished: Path, folder: Path, *without: str) -> Path:
    """A workspace that has the outputs of a finished one, but for some stages'."""
    (folder / "artifacts").mkdir()
    for output in (finished / "artifacts").iterdir():
        if output.name not in ("illustrate", "report", "runs", *without):
            (folder / "artifacts" / output.name).symlink_to(output)
    return folder


def test_the_folder_has_what_the_list_promises(gkd_run: Path) -> None:
    pictures = PictureList.read(gkd_run / OUTPUT / "pictures.json")
    files = {path.name for path in (gkd_run / OUTPUT).iterdir()}
    assert files == {*PANELS, "features.png", "attention.png", "pictures.json"}
    panels = [f"panel-{domain.replace('/', '-')}.png" for domain in DOMAINS]
    assert [picture.file for picture in pictures.pictures] == [*panels, "features.png", "attention.png"]
    assert [picture.domain for picture in pictures.pictures] == [*DOMAINS, None, None]
    assert (pictures.method, pictures.source, pictures.seed, pictures.student) == (
        "gkd",
        "potsdam-rgb",
        0,
        "vit_tiny_patch16_224",
    )
    for picture in pictures.pictures:
        with Image.open(gkd_run / OUTPUT / picture.file) as image:
            image.verify()
        assert (gkd_run / OUTPUT / picture.file).stat().st_size < 300_000
        assert all(domain in DOMAINS for domain in picture.values) == (picture.domain is None)
    features, attention = pictures.pictures[-2:]
    assert all(value is not None and -1 <= value <= 1 + 1e-9 for value in features.values.values())
    assert all(value is not None and 0 < value < 1 for value in attention.values.values())
    assert tuple(features.values) == tuple(attention.values) == DOMAINS


def test_the_same_inputs_give_the_same_bytes(gkd_run: Path, tree: dict[str, Any], tmp_path: Path) -> None:
    drawn(settings_from_tree(tree), beside(gkd_run, tmp_path))
    names = sorted(path.name for path in (gkd_run / OUTPUT).iterdir())
    assert [sha256_of(tmp_path / OUTPUT / name) for name in names] == [sha256_of(gkd_run / OUTPUT / name) for name in names]


def test_panels_show_the_middle_image_as_it_is_scored(gkd_run: Path, tree: dict[str, Any]) -> None:
    """Against an argmax made here: of two images, one part has the second in its middle."""
    settings = settings_from_tree(tree)
    context = Context(Recipe.of(settings), Recipe.of(settings).find("illustrate", "potsdam-rgb"), gkd_run)
    model = load_segmentor(gkd_run / "artifacts/learn-task/potsdam-rgb")
    pictures = {picture.domain: picture for picture in PictureList.read(gkd_run / OUTPUT / "pictures.json").pictures}
    for reference in DOMAINS:
        domain = scored_images(context.origin, context.domain(reference), 6)
        ((name, miou),) = pictures[reference].values.items()
        assert name.endswith(Path(str(domain.pairs[1].image)).name)
        image, truth = read_pair(domain.pairs[1], domain.encoding)
        with torch.inference_mode():
            # The world's tiles are one window of 32 pixels.
            answer = model(torch.from_numpy(image).permute(2, 0, 1)[None] / 255)[0].argmax(dim=0).numpy()
        ious = []
        for each in range(6):
            counted = truth != 255
            union = (((answer == each) | (truth == each)) & counted).sum()
            if union:
                ious.append(100 * ((answer == each) & (truth == each) & counted).sum() / union)
        assert miou == pytest.approx(sum(ious) / len(ious))


def test_a_method_without_stage_one_has_panels_alone(gkd_run: Path, tree: dict[str, Any], tmp_path: Path) -> None:
    """What it needs is its own segmentor; stage one's output is not even looked for."""
    workspace = beside(gkd_run, tmp_path, "learn-task", "distill-source", "distill-proxy", "evaluate")
    settings = settings_from_tree(tree | {"method": "teacher"})
    run_stage(Recipe.of(settings), Recipe.of(settings).find("learn-task", "potsdam-rgb"), workspace)
    assert {picture.file for picture in drawn(settings, workspace).pictures} == PANELS


def test_plain_distillation_has_features_and_no_attention(gkd_run: Path, tree: dict[str, Any], tmp_path: Path) -> None:
    """A convolutional student, on a grid of its own, with a Mask2Former decoder, on domains of one image."""
    small = {"queries": 4, "decoder_layers": 1, "pixel_layers": 1, "points": 16, "feedforward": 16, "pixel_feedforward": 16}
    changes = {
        "method": "two-stage-mse",
        "student": {"arch": "mobilenetv3_small_050", "weights": "random"},
        "distill_source": tree["distill_source"] | {"updates": 1, "image_size": [64, 64]},
        "distill_proxy": tree["distill_proxy"] | {"updates": 0},
        "learn_task": tree["learn_task"]
        | {"updates": 1, "image_size": [64, 64], "decoder": "mask2former", "decoder_width": 64, "mask2former": small},
        "data": tree["data"] | {"world": tree["data"]["world"] | {"val_images": 1, "target_images": 1}},
        "illustrate": {"images": 3, "kinds": ["attention", "features"], "pixels": 64},
    }
    settings = settings_from_tree(tree | changes)
    for run in Recipe.of(settings).plan[:-3]:
        run_stage(Recipe.of(settings), run, tmp_path)
    (picture,) = drawn(settings, tmp_path).pictures
    assert (picture.file, picture.kind, tuple(picture.values)) == ("features.png", "features", DOMAINS)
    assert all(value is None or math.isfinite(value) for value in picture.values.values())


def test_a_failure_is_told_and_leaves_nothing(gkd_run: Path, tree: dict[str, Any], tmp_path: Path) -> None:
    workspace = beside(gkd_run, tmp_path, "distill-source")
    settings = settings_from_tree(tree)
    with pytest.raises(GkdError, match=r"distill-source/potsdam-rgb/manifest\.json: no such file; run the stage that writes it"):
        drawn(settings, workspace)
    assert not (workspace / OUTPUT).exists()
    assert not list((workspace / "artifacts/illustrate").iterdir())


def test_a_list_with_more_than_it_should_have_is_refused(gkd_run: Path, tmp_path: Path) -> None:
    file = tmp_path / "pictures.json"
    file.write_text((gkd_run / OUTPUT / "pictures.json").read_text().replace('"seed"', '"sed": 1, "seed"'))
    with pytest.raises(GkdError, match="not a PictureList of this version"):
        PictureList.read(file)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"image": 2}, "illustrate.image: unknown key (given: 2); allowed here: images, kinds, pixels; did you mean 'images'?"),
        ({"kinds": []}, "illustrate.kinds: given []"),
        ({"kinds": ["panel", "panel"]}, "illustrate.kinds: given ['panel', 'panel']; a kind of picture is named twice"),
        ({"kinds": ["pca"]}, "illustrate.kinds.0: given 'pca'; input should be 'panel', 'features' or 'attention'"),
        ({"pixels": 10}, "illustrate.pixels: given 10; input should be greater than or equal to 64"),
        ({"images": -1}, "illustrate.images: given -1"),
    ],
)
def test_wrong_settings_are_named(tree: dict[str, Any], section: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError) as error:
        settings_from_tree(tree | {"illustrate": section})
    assert str(error.value).startswith(words)

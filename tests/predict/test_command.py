"""`gkd predict` from end to end: folders of photographs, damaged ones among them, in batches and by strips."""

from __future__ import annotations

import csv
import errno
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from gkd_core.cli import app
from gkd_core.predict import loop, outputs
from gkd_core.predict import student as student_module
from gkd_core.predict.bundle import write_bundle
from gkd_core.predict.loop import _told
from gkd_core.predict.manifest import View
from gkd_core.predict.student import Segmentor
from tests.predict.conftest import CLASSES, bundle_of, noise, segmentor_folder
from tests.predict.test_pictures import DAMAGED
from tests.predict.test_video import write_video

SIZES = {"a.jpg": (40, 50), "b.png": (40, 50), "deep/c.webp": (40, 50), "d.png": (1, 1), "e.tif": (90, 33), "z.png": (40, 50)}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a bundle and photographs, as the working directory; no params.yaml, no catalog."""
    folder = segmentor_folder(tmp_path / "segmentor")
    view = View(window=(32, 32), stride=(32, 32), batch_size=4)
    write_bundle(bundle_of(folder, view), folder / "segmentor.safetensors", tmp_path / "student.gkd")
    for seed, (name, size) in enumerate(SIZES.items()):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(*size, seed)).save(tmp_path / "photos" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def gkd(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["predict", "student.gkd", *arguments, "--device", "cpu"])


def lines(project: Path) -> dict[str, dict[str, str]]:
    with (project / "out/predictions.csv").open(newline="") as stream:
        return {line["image"]: line for line in csv.DictReader(stream)}


@pytest.mark.parametrize("batch", ["1", "3"])
def test_every_photograph_gets_its_label_map_and_its_line(project: Path, batch: str) -> None:
    result = gkd("photos", "-o", "out", "--batch", batch)
    assert result.exit_code == 0, result.output
    student, table = Segmentor.open("student.gkd", "cpu"), lines(project)
    assert list(table) == sorted(f"photos/{name}" for name in SIZES)
    for name, size in SIZES.items():
        answer, line = student.predict(Path("photos") / name), table[f"photos/{name}"]
        with Image.open(project / "out" / line["labels"]) as picture:
            labels = np.asarray(picture)
        assert labels.shape == size
        assert (labels != answer.labels).mean() < 0.001, "but for the last bit of a score"
        assert (int(line["height"]), int(line["width"])) == size
        assert float(line["confidence"]) == pytest.approx(answer.confidence.mean(), abs=1e-4)
        assert [float(line[f"share {each}"]) for each in CLASSES] == pytest.approx(answer.shares.tolist(), abs=1e-3)
    assert "6 label maps in" in result.output and "images/s" in result.output


def test_one_at_a_time_it_answers_bit_for_bit_what_a_program_gets(project: Path) -> None:
    assert gkd("photos/a.jpg", "photos/e.tif", "-o", "out", "--ids", "dataset").exit_code == 0
    student = Segmentor.open("student.gkd", "cpu")
    for name in ("a.jpg", "e.tif"):
        with Image.open(project / "out/labels" / name.replace("jpg", "png").replace("tif", "png")) as picture:
            expected = np.array([7, 8, 26, 23, 21])[student.predict(project / "photos" / name).labels]
            assert np.array_equal(np.asarray(picture), expected)


def test_damaged_files_are_named_and_skipped_and_the_exit_code_says_so(project: Path) -> None:
    for kind, (content, _) in DAMAGED.items():
        (project / "photos" / f"{kind}.png").write_bytes(content)
    (project / "photos/folder.png").mkdir()
    refused = gkd("photos", "photos/folder.png", "-o", "out")
    assert "photos/folder.png: no image and no video in this folder" in str(refused.exception)
    assert not (project / "out").exists(), "nothing is begun where a name stands for nothing"
    wanted = ("--overlay", "--confidence", "--probabilities")
    result = gkd("photos", "photos/fol*.png", "photos/none.png", "-o", "out", *wanted)
    assert result.exit_code == 2
    told = [line for line in result.stderr.splitlines() if line.startswith("gkd: ")]
    assert len(told) == len(DAMAGED) + 3, told
    for name in (*(f"{kind}.png" for kind in DAMAGED), "folder.png", "none.png"):
        assert sum(line.startswith(f"gkd: photos/{name}: ") for line in told) == 1, name
    assert (
        told[-1] == f"gkd: {len(DAMAGED) + 2} of {len(DAMAGED) + 2 + len(SIZES)} could not be read or written, each named above"
    )
    assert sorted(lines(project)) == sorted(f"photos/{name}" for name in SIZES)
    written = sorted(path.relative_to(project / "out") for path in (project / "out").rglob("*") if path.is_file())
    names = sorted(str(Path(name).with_suffix("")) for name in SIZES)
    assert [str(path) for path in written] == sorted(
        [f"{kind}/{name}{'.npz' if kind == 'probabilities' else '.png'}" for kind in outputs.FOLDERS for name in names]
        + ["predictions.csv"]
    )


def test_an_output_that_holds_something_is_refused_until_told(project: Path) -> None:
    assert gkd("photos/a.jpg", "-o", "out").exit_code == 0
    again = gkd("photos/b.png", "-o", "out")
    assert "give --replace" in str(again.exception)
    assert gkd("photos/b.png", "-o", "out", "--replace").exit_code == 0
    assert sorted(path.name for path in (project / "out/labels").iterdir()) == ["b.png"]
    assert "holds 6 files or folders already" in str(gkd("nowhere.png", "-o", "photos").exception)


def test_large_pictures_go_by_strips_and_are_answered_alike(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gkd("photos", "-o", "whole").exit_code == 0
    monkeypatch.setattr(student_module, "MOST_WHOLE", 1)
    monkeypatch.setattr(student_module, "STRIP", 5 * 50 * len(CLASSES) * 4)
    assert gkd("photos", "-o", "out", "--batch", "4").exit_code == 0
    for path in (project / "whole/labels").rglob("*.png"):
        with Image.open(path) as one, Image.open(project / "out/labels" / path.relative_to(project / "whole/labels")) as other:
            assert np.array_equal(np.asarray(one), np.asarray(other))


def test_images_are_seen_as_a_domain_of_the_catalog(project: Path) -> None:
    Image.fromarray(noise(1100, 60)).save(project / "photos/tall.png")
    assert gkd("photos/tall.png", "-o", "out", "--seen-as", "cityscapes/val").exit_code == 0
    assert gkd("photos/tall.png", "-o", "own", "--seen-as", "none").exit_code == 0
    labels = [np.asarray(Image.open(project / folder / "labels/tall.png")) for folder in ("out", "own")]
    assert labels[0].shape == labels[1].shape == (1100, 60)
    assert not np.array_equal(*labels), "shrunk to 1024, it is another image"
    assert "unknown" in str(gkd("photos/tall.png", "-o", "no", "--seen-as", "mars/val").exception)


def test_a_frame_of_a_video_is_an_image(project: Path) -> None:
    write_video(project / "photos/film.mp4", 5)
    assert gkd("photos/film.mp4", "-o", "out", "--every", "2", "--batch", "2").exit_code == 0
    assert list(lines(project)) == [f"photos/film.mp4#{number}" for number in (1, 3, 5)]
    assert (project / "out/labels/film.mp4/000003.png").is_file()


def test_a_name_that_the_disk_refuses_is_told_and_the_others_go_on(project: Path) -> None:
    Image.fromarray(noise(8, 8)).save(project / "photos/b.webp")
    (project / "photos/b.png.png").mkdir()
    Image.fromarray(noise(8, 8)).save(project / "photos/b.png.png/x.png")
    result = gkd("photos", "-o", "out")
    assert result.exit_code == 2
    assert (
        "photos/b.png.png/x.png: its outputs cannot be written" in result.stderr or "photos/b.png: its outputs" in result.stderr
    )
    assert len(lines(project)) == len(SIZES) + 1


def test_a_full_disk_ends_it_and_leaves_nothing_half_written(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = outputs.write_png

    def full(picture: Image.Image, path: Path) -> None:
        if path.name == "d.png":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save(picture, path)

    monkeypatch.setattr(outputs, "write_png", full)
    result = gkd("photos", "-o", "out")
    assert isinstance(result.exception, OSError)
    left = [path for path in (project / "out").rglob("*") if path.is_file()]
    assert {path.name for path in left} <= {"a.png", "b.png", "c.png", "e.png", "z.png"}, "no table, no temporary"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gkd-")]


def test_a_device_without_memory_is_one_line() -> None:
    def full() -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(loop.GkdError, match="a.png: the device has no memory left; give a smaller --batch"):
        _told(full, "a.png")


def test_a_bundle_in_a_project_whose_settings_are_wrong_still_opens(project: Path) -> None:
    (project / "params.yaml").write_text("no: such settings\n")
    assert gkd("photos/a.jpg", "-o", "out").exit_code == 0


@pytest.mark.parametrize("name", ["student.gkd/", "./student.gkd", "segmentor", "photos", "nowhere"])
def test_a_model_is_opened_or_refused_by_name(project: Path, name: str) -> None:
    result = CliRunner().invoke(app, ["predict", name, "photos/a.jpg", "-o", "out", "--profile", "demo", "--device", "cpu"])
    if name in ("photos", "nowhere"):
        assert name in str(result.exception)
        assert not (project / "out").exists()
    else:
        assert result.exit_code == 0, result.exception

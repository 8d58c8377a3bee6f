"""Frames of a video where something reads it, and one clear line where nothing does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gkd_core.errors import DataError, GkdError
from gkd_core.predict import video
from gkd_core.predict.video import frames


def write_video(path: Path, count: int) -> None:
    """A video whose frames get brighter by 20 each."""
    av: Any = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(count):
            pixels = np.full((48, 64, 3), 20 * number + 20, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.parametrize("package", ["av", "cv2"])
def test_each_so_many_th_frame_is_given_with_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    pytest.importorskip(package)
    write_video(tmp_path / "film.mp4", 7)
    monkeypatch.setattr(video, "find_spec", lambda name: object() if name == package else None)
    found = list(frames(tmp_path / "film.mp4", 3))
    assert [number for number, _ in found] == [1, 4, 7]
    for number, picture in found:
        assert picture.pixels.shape == (48, 64, 3)
        assert abs(float(picture.pixels.mean()) - 20 * number) < 6


def test_a_damaged_video_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("av")
    write_video(tmp_path / "film.mp4", 9)
    whole = (tmp_path / "film.mp4").read_bytes()
    for name, content in {"empty": b"", "text": b"hello" * 99, "cut": whole[: len(whole) // 3]}.items():
        (tmp_path / f"{name}.mp4").write_bytes(content)
        with pytest.raises(DataError) as refused:
            list(frames(tmp_path / f"{name}.mp4", 1))
        assert str(refused.value).startswith(f"{tmp_path}/{name}.mp4: ")
        assert "\n" not in str(refused.value)
    with pytest.raises(DataError, match="none.mp4: no such file"):
        list(frames(tmp_path / "none.mp4", 1))


def test_without_a_reader_of_videos_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "find_spec", lambda name: None)
    with pytest.raises(GkdError, match=r"film.mp4: is a video, and nothing is installed that reads one; pip install av"):
        list(frames(tmp_path / "film.mp4", 1))


def test_an_error_of_a_reader_is_an_error_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path) -> Any:
        yield np.zeros((4, 6, 3), np.uint8)
        raise RuntimeError("codec\nbroke")

    (tmp_path / "film.mp4").touch()
    monkeypatch.setattr(video, "_reader", lambda path: broken)
    found = frames(tmp_path / "film.mp4", 1)
    assert next(found)[0] == 1
    with pytest.raises(DataError, match=r"film.mp4: cannot be read as a video \(codec broke\); fetch it again"):
        next(found)

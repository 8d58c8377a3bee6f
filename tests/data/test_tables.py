"""`gkd data list`: what there is, as stated and as found."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from typer.testing import CliRunner

from gkd_core.cli import app


def test_counts_what_is_found_and_says_none_where_nothing_is(tmp_path: Path) -> None:
    folder = tmp_path / "bsds500" / "images"
    folder.mkdir(parents=True)
    for index in range(3):
        Image.new("RGB", (4, 4)).save(folder / f"{index}.jpg")
    result = CliRunner().invoke(app, ["data", "list", "--profile", "camvid", "--set", f"data.root={tmp_path}"])
    rows = {line.split()[0]: line.split()[1:4] for line in result.output.splitlines()}
    assert rows["bsds500/all"] == ["-", "-", "3"]
    assert rows["camvid/dusk"] == ["camvid-11", "-", "none"]


def test_all_shows_the_whole_catalog() -> None:
    result = CliRunner().invoke(app, ["data", "list", "--all", "--profile", "demo"])
    assert "24966" in result.output
    assert "imagenet/train" in result.output

"""The report as lines and as JSON, and the command that prints it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from typer.testing import CliRunner

from gkd_core.cli import app
from gkd_core.data.catalog.load import Catalog
from gkd_core.data.verify.faults import Fault, Kind, Report, printable
from gkd_core.data.verify.run import verify

DOCS = Path(__file__).parents[3] / "docs" / "check-data.md"


def test_findings_are_grouped_and_the_first_are_named(tmp_path: Path) -> None:
    stray = [Fault("far/all", Kind.STRAY_LABEL, tmp_path / f"far/{index}.png", "no image of that name") for index in range(5)]
    small = Fault("far/all", Kind.SIZE, tmp_path / "far/x.png", "3 x 4 pixels")
    report = Report(tmp_path, {"near/all": (2, 0), "far/all": (1, 7)}, (*stray, small))
    assert list(report.lines()) == [
        "near/all: 2 images, 0 labels, no finding",
        "far/all: 1 image, 7 labels, 1 error, 5 warnings",
        "  error size (1): image and label differ in size",
        "    far/x.png: 3 x 4 pixels",
        f"    to do: {Kind.SIZE.remedy}",
        "  warning stray-label (5): label without image",
        "    far/0.png: no image of that name",
        "    far/1.png: no image of that name",
        "    far/2.png: no image of that name",
        "    and 2 more",
        f"    to do: {Kind.STRAY_LABEL.remedy}",
        "2 domains, 3 images, 7 labels: 1 error, 5 warnings",
    ]


def test_hostile_names_are_printed_as_escapes() -> None:
    assert printable("a\nb\x1b[31mc\udcff é 木 \u202e") == r"a\nb\x1b[31mc\xff é 木 \u202e"


def test_two_processes_find_what_one_finds(root: Path, catalog: Catalog, check: Callable[..., Report]) -> None:
    (root / "far/labels/3.png").write_bytes(b"")
    (root / "depot/photos/north/a/06_photo.png").write_bytes(b"no image")
    quiet = check(root, "depot/train", "far/all")
    with_two = verify([catalog.domain("depot/train"), catalog.domain("far/all")], root, 2, display := Display())
    assert with_two == quiet
    assert len(with_two.faults) == 2
    assert display.shown == [("read images and labels", 52, 52)]


class Display:
    """Keeps what a display of progress was given."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, int, int]] = []

    def __call__(self, title: str, total: int) -> Display:
        self._title, self._total = title, total
        return self

    def __enter__(self) -> Callable[[int], None]:
        return lambda done: setattr(self, "_done", done)

    def __exit__(self, *_: object) -> None:
        self.shown.append((self._title, self._total, self._done))


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["data", "verify", *arguments])
    return result.exit_code, result.stdout


def test_the_command_ends_with_0_where_there_is_no_error_and_with_2_where_there_is(
    own: list[str], root: Path, tmp_path: Path
) -> None:
    assert run("far/all", "proxy-photos/all", *own) == (
        0,
        "far/all: 8 images, 8 labels, no finding\nproxy-photos/all: 4 images, 0 labels, no finding\n"
        "2 domains, 12 images, 8 labels: no finding\n",
    )
    (root / "far/images/5.jpg").unlink()
    assert run("far/all", *own)[0] == 0  # a label without image is a warning
    (root / "far/labels/6.png").unlink()
    report = tmp_path / "report.json"
    assert run("far/all", "--report", str(report), *own)[0] == 2
    tree = json.loads(report.read_text())
    assert tree["domains"] == {"far/all": {"images": 7, "labels": 6}}
    assert [(entry["severity"], entry["kind"], entry["path"]) for entry in tree["findings"]] == [
        ("warning", "stray-label", "far/labels/5.png"), ("error", "missing-label", "far/labels/6.png")
    ]  # fmt: skip


def test_without_domains_all_that_the_run_reads_is_checked(own: list[str], root: Path) -> None:
    shutil.rmtree(root / "photos")
    code, text = run(*own)
    assert code == 2
    assert re.findall(r"^(\S+/\S+): ", text, re.MULTILINE) == ["proxy-photos/all", "depot/train", "depot/val", "far/all"]
    assert "photos: the images of proxy-photos/all (*.jpg) are expected there" in text


def test_the_docs_have_every_kind_as_it_is() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (\w+) \| (.+) \| (.+) \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [(kind.label, kind.severity, kind.title, kind.remedy) for kind in Kind]

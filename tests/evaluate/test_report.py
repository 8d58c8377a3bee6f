"""The report and its rows: the table for machines, the picture, and sentences that follow from the numbers."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from PIL import Image

from gkd_core.evaluate.report import COLUMNS, findings, summary, write_report
from gkd_core.evaluate.rows import pool, source_mean, spread, target_mean
from gkd_core.evaluate.terminal import print_matrix
from gkd_core.records import Score, ScoreProtocol, ScoreTable

PROTOCOL = ScoreProtocol(
    scale=0.5, max_size=(512, 1024), labels_resized=True, window=(8, 8), stride=(8, 8), classes=2, selection="last checkpoint"
)
CELLS = (("G2C", "in-domain"), ("G2C", "cityscapes"), ("C2A", "in-domain"), ("C2A", "night"), ("C2A", "fog"))


def score(method: str, seed: int, benchmark: str, domain: str, miou: float) -> Score:
    source = {"G2C": "gta5", "C2A": "cityscapes"}[benchmark]
    return Score(
        method=method, teacher="vit_big", student="vit_small", seed=seed, benchmark=benchmark, source=source, domain=domain,
        dataset=f"{source}/val" if domain == "in-domain" else f"{domain}/val", in_domain=domain == "in-domain", miou=miou,
        class_iou={"road": miou, "sky": None}, images=2, protocol=PROTOCOL,
    )  # fmt: skip


def table(values: dict[tuple[str, int], float]) -> ScoreTable:
    """Targets score `value`, 20 and 60; in-domain scores are 70 and 80. By method and seed."""
    scores = []
    for (method, seed), value in values.items():
        for (benchmark, domain), miou in zip(CELLS, (70.0, value, 80.0, 20.0, 60.0), strict=True):
            scores.append(score(method, seed, benchmark, domain, miou))
    return ScoreTable(scores=tuple(scores))


TWO_SEEDS = table({("gkd", 0): 40.0, ("gkd", 1): 43.0, ("no-kd", 0): 10.0, ("no-kd", 1): 10.0})


def test_the_csv_is_what_was_promised(tmp_path: Path) -> None:
    write_report(TWO_SEEDS, tmp_path)
    text = (tmp_path / "matrix.csv").read_bytes().decode()
    assert text.partition("\n")[0] == "method,teacher,student,seed,benchmark,domain,miou"
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 4 * 5
    assert tuple(rows[0]) == COLUMNS
    assert rows[1] == {
        "method": "gkd", "teacher": "vit_big", "student": "vit_small", "seed": "0", "benchmark": "G2C",
        "domain": "cityscapes", "miou": "40.00"
    }  # fmt: skip


def test_the_json_holds_every_protocol_and_the_picture_is_one(tmp_path: Path) -> None:
    write_report(TWO_SEEDS, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["matrix.csv", "matrix.json", "matrix.png", "summary.md"]
    assert ScoreTable.read(tmp_path / "matrix.json") == TWO_SEEDS
    with Image.open(tmp_path / "matrix.png") as picture:
        assert picture.width > picture.height > 100


def test_one_report_is_the_same_byte_for_byte(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_report(TWO_SEEDS, tmp_path / name)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_seeds_are_pooled_to_mean_and_deviation() -> None:
    gkd, no_kd = sorted(pool(TWO_SEEDS), key=lambda row: row.method)
    assert gkd.seeds == (0, 1)
    assert gkd.cells["G2C", "cityscapes"] == (40.0, 43.0)
    assert gkd.targets == pytest.approx((40.0, 41.0))
    assert gkd.in_domain == (75.0, 75.0)
    assert no_kd.targets == pytest.approx((30.0, 30.0))
    assert spread((40.0, 43.0)) == "41.5 ± 2.1"
    assert spread((40.04,)) == "40.0"
    assert spread(()) == "–"
    line = next(line for line in summary(TWO_SEEDS, pool(TWO_SEEDS)).splitlines() if line.startswith("| gkd"))
    assert line == "| gkd | 75.0 ± 0.0 | 40.5 ± 0.7 | 70.0 ± 0.0 | 41.5 ± 2.1 | 80.0 ± 0.0 | 20.0 ± 0.0 | 60.0 ± 0.0 |"


def test_a_shared_source_counts_once() -> None:
    scores = [
        score("gkd", 0, "G2C", "in-domain", 70.0),
        score("gkd", 0, "G2C", "in-domain", 70.0),
        score("gkd", 0, "C2A", "in-domain", 40.0),
    ]
    assert source_mean(scores) == 55.0
    assert target_mean([*scores, score("gkd", 0, "C2A", "fog", 33.0)]) == 33.0


def test_the_teacher_stands_first_then_the_methods_as_declared() -> None:
    values = {(method, 0): 10.0 for method in ("no-kd", "teacher", "gkd", "single-stage-mse", "two-stage-mse")}
    assert [row.method for row in pool(table(values))] == ["teacher", "gkd", "two-stage-mse", "single-stage-mse", "no-kd"]


@pytest.mark.parametrize(
    ("gkd", "mse", "sentence"),
    [
        ((50.0, 50.0), (40.0, 40.0), "GKD beats two-stage MSE here: +3.3 points"),
        ((40.0, 40.0), (41.0, 41.0), "GKD does not beat two-stage MSE here: -0.3 points"),
        ((40.0, 40.0), (40.0, 40.0), "GKD does not beat two-stage MSE here: +0.0 points"),
        ((42.0, 48.0), (40.0, 46.0), "GKD does not beat two-stage MSE here: +0.7 points"),  # within the noise
    ],
)
def test_findings_say_plainly_whether_gkd_beats_two_stage_mse(
    gkd: tuple[float, ...], mse: tuple[float, ...], sentence: str
) -> None:
    values = {("gkd", seed): value for seed, value in enumerate(gkd)} | {
        ("two-stage-mse", seed): value for seed, value in enumerate(mse)
    }
    scores = table(values)
    assert findings(pool(scores))[0].startswith(sentence)
    assert sentence in summary(scores, pool(scores))


def test_findings_compare_with_the_other_rivals() -> None:
    assert findings(pool(TWO_SEEDS)) == ["gkd against no-kd: +10.5 points on the mean over targets."]
    assert findings(pool(table({("gkd", 0): 1.0}))) == []


def test_the_terminal_shows_every_domain(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    print_matrix(TWO_SEEDS)
    output = capsys.readouterr().out
    for benchmark, domain in CELLS:
        assert benchmark in output
        assert domain in output
    assert "41.5 ± 2.1" in output
    assert "40.5 ± 0.7" in output

"""The report and its rows: the table for machines, the picture, and sentences that follow from the numbers."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from PIL import Image

from gkd_core.records import Score, ScoreProtocol, ScoreTable
from gkd_core.reports.charts import save_radar
from gkd_core.reports.findings import description, findings, headline
from gkd_core.reports.report import COLUMNS, summary, write_report
from gkd_core.reports.rows import RowKey, class_means, pool, source_mean, spread, target_mean
from gkd_core.reports.terminal import print_matrix

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
    names = ["classes.csv", "matrix.csv", "matrix.json", "matrix.png", "radar.png", "report.html", "summary.md"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert ScoreTable.read(tmp_path / "matrix.json") == TWO_SEEDS
    for name in ("matrix.png", "radar.png"):
        with Image.open(tmp_path / name) as picture:
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


def test_the_papers_means_are_of_its_own_targets_and_of_no_part_of_them() -> None:
    weathers = {weather: 10.0 * place for place, weather in enumerate(("night", "snow", "fog", "rain"), start=1)}
    acdc = [score("gkd", 0, "C2A", weather, miou) for weather, miou in weathers.items()]
    street = [
        score("gkd", 0, "G2C", "cityscapes", 30.0),
        score("gkd", 0, "G2C", "in-domain", 99.0),
    ]
    whole = ScoreTable(scores=(*street, *acdc))
    (row,) = pool(whole)
    assert (row.paper_mean("avg A"), row.paper_mean("avg G"), row.paper_mean("avg P")) == ((25.0,), (), ())
    assert "| method | avg A |\n|---|---|\n| gkd | 25.0 |" in summary(whole, [row])
    assert "avg" not in summary(ScoreTable(scores=(*street, *acdc[:3])), pool(ScoreTable(scores=(*street, *acdc[:3]))))


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


def with_fields(source: ScoreTable, **fields: object) -> tuple[Score, ...]:
    return tuple(score.model_copy(update=fields) for score in source.scores)


def test_rows_sum_themselves_up() -> None:
    gkd = next(row for row in pool(TWO_SEEDS) if row.method == "gkd")
    assert gkd.worst == ("C2A", "night")
    assert gkd.gaps == pytest.approx((75 - 40, 75 - 41))
    assert gkd.benchmark_targets("C2A") == (40.0, 40.0)  # of 20 and 60
    assert gkd.benchmark_targets("G2C") == (40.0, 43.0)
    (home,) = pool(ScoreTable(scores=tuple(score for score in TWO_SEEDS.scores if score.in_domain and score.method == "gkd")))
    assert (home.worst, home.gaps, home.targets) == (None, (), ())


def test_rows_are_told_apart_by_student_labels_and_ablation_and_named_by_what_differs() -> None:
    one = table({("gkd", 0): 40.0})
    assert [row.label for row in pool(one)] == ["gkd"]
    some = with_fields(one, label_fraction=0.125)
    assert [row.label for row in pool(ScoreTable(scores=some))] == ["gkd"]  # nothing to tell it from
    other, unfrozen = with_fields(one, student="vit_tiny"), with_fields(one, encoder_frozen=False)
    rivals = with_fields(table({("no-kd", 0): 1.0}), encoder_frozen=False)  # as the method has it
    rows = pool(ScoreTable(scores=(*one.scores, *some, *other, *unfrozen, *rivals)))
    assert [row.label for row in rows] == [
        "gkd (vit_small, 12.5 % of labels)",
        "gkd (vit_small, 100 % of labels)",
        "gkd (vit_small, 100 % of labels, encoder trained on)",
        "gkd (vit_tiny, 100 % of labels)",
        "no-kd (100 % of labels)",
    ]
    assert {row.seeds for row in rows} == {(0,)}


def test_the_text_says_whether_the_encoder_was_frozen() -> None:
    one = table({("gkd", 0): 40.0})
    frozen = summary(one, pool(one))
    assert "then a decoder on the frozen student." in frozen
    ablation = ScoreTable(scores=with_fields(one, encoder_frozen=False))
    assert "then decoder and student trained together." in summary(ablation, pool(ablation))
    assert "frozen" not in summary(ablation, pool(ablation))
    rival = table({("no-kd", 0): 40.0})
    assert description(pool(rival)[0]) == "task loss alone, on the source only"


def test_findings_compare_only_what_shares_student_and_labels() -> None:
    pair = table({("gkd", 0): 50.0, ("two-stage-mse", 0): 40.0})
    few = ScoreTable(scores=with_fields(table({("gkd", 0): 10.0, ("two-stage-mse", 0): 40.0}), label_fraction=0.1))
    lines = findings(pool(ScoreTable(scores=(*pair.scores, *few.scores))))
    assert lines[0].startswith("10 % of labels: GKD does not beat two-stage MSE here: -10.0 points")
    assert lines[1].startswith("100 % of labels: GKD beats two-stage MSE here: +3.3 points")


@pytest.mark.parametrize(
    ("values", "last"),
    [
        ({("gkd", 0): 46.0, ("no-kd", 0): 40.0}, "gkd leads no-kd by 2.0 points; with one seed of either, nobody knows"),
        (
            {("gkd", 0): 46.0, ("gkd", 1): 46.0, ("no-kd", 0): 40.0, ("no-kd", 1): 43.0},
            "gkd leads no-kd by 1.5 points, more than either varies over seeds (0.7).",
        ),
        (
            {("gkd", 0): 43.0, ("gkd", 1): 43.0, ("no-kd", 0): 40.0, ("no-kd", 1): 46.0},
            "gkd leads no-kd by 0.0 points, no more than they vary over seeds (1.4): they are level.",
        ),
    ],
)
def test_the_headline_says_who_holds_up_and_by_how_much(values: dict[tuple[str, int], float], last: str) -> None:
    lines = headline(pool(table(values | {("teacher", 0): 99.0})))
    assert lines[0].startswith("Generalises best: gkd, 4")
    assert lines[1].startswith("Its worst domain is night (C2A), 20.0")
    assert lines[-1].startswith(last)


def test_a_teacher_alone_is_no_student_that_holds_up() -> None:
    assert headline(pool(table({("teacher", 0): 99.0}))) == []


def test_classes_are_averaged_over_seeds_where_they_have_pixels(tmp_path: Path) -> None:
    key = RowKey("gkd", "vit_small", 1.0, False)
    means = class_means(TWO_SEEDS.scores)[key]
    assert means["road"]["G2C", "cityscapes"] == 41.5
    assert means["sky"] == {}
    write_report(TWO_SEEDS, tmp_path)
    rows = list(csv.DictReader((tmp_path / "classes.csv").open(encoding="utf-8")))
    assert len(rows) == 4 * 5 * 2
    assert rows[2] == {
        "method": "gkd", "teacher": "vit_big", "student": "vit_small", "seed": "0", "label_fraction": "1", "benchmark": "G2C",
        "domain": "cityscapes", "class": "road", "iou": "40.00",
    }  # fmt: skip
    assert rows[3]["iou"] == ""


def test_shares_of_labels_have_a_column_only_where_there_are_some(tmp_path: Path) -> None:
    write_report(ScoreTable(scores=with_fields(TWO_SEEDS, label_fraction=0.5)), tmp_path)
    rows = list(csv.DictReader((tmp_path / "matrix.csv").open(encoding="utf-8")))
    assert tuple(rows[0]) == (*COLUMNS, "label_fraction")
    assert rows[0]["label_fraction"] == "0.5"


def test_a_radar_needs_three_targets(tmp_path: Path) -> None:
    two = ScoreTable(scores=tuple(score for score in TWO_SEEDS.scores if score.domain != "fog"))
    assert not save_radar(pool(two), tmp_path / "radar.png")
    assert not (tmp_path / "radar.png").exists()

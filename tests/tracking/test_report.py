"""A report as MLflow is told of it: names and values of metrics, the table of classes, the note."""

from __future__ import annotations

import pytest

from gkd_core.records import Score, ScoreProtocol, ScoreTable
from gkd_core.tracking.report import NOTE_LIMIT, class_table, matrix_metrics, note

PROTOCOL = ScoreProtocol(
    scale=1.0, max_size=None, labels_resized=False, window=(8, 8), stride=(8, 8), classes=2, selection="last checkpoint"
)


def score(benchmark: str, domain: str, miou: float, seed: int = 0) -> Score:
    source = {"G2C": "gta5", "C2A": "cityscapes"}[benchmark]
    in_domain = domain == "in-domain"
    return Score(
        method="gkd", teacher="t", student="s", seed=seed, benchmark=benchmark, source=source, domain=domain,
        dataset=f"{source if in_domain else domain}/val", in_domain=in_domain, miou=miou,
        class_iou={"road": miou, "sky": None if domain == "fog" else 1.0}, images=2, protocol=PROTOCOL,
    )  # fmt: skip


TABLE = ScoreTable(
    scores=(
        score("G2C", "in-domain", 80.0), score("G2C", "cityscapes", 50.0), score("C2A", "in-domain", 70.0),
        score("C2A", "fog", 60.0), score("C2A", "night", 10.0),
    )
)  # fmt: skip


def test_metrics_are_flat_and_summed_up() -> None:
    assert matrix_metrics(TABLE) == {
        "miou/G2C/in_domain": 80, "miou/G2C/cityscapes": 50, "miou/C2A/in_domain": 70, "miou/C2A/fog": 60, "miou/C2A/night": 10,
        "miou/mean_targets": 40, "miou/mean_in_domain": 75, "miou/worst_domain": 10, "miou/source_gap": 35,
    }  # fmt: skip


def test_the_papers_means_are_metrics_where_they_are_whole() -> None:
    acdc = tuple(score("C2A", weather, value) for weather, value in (("night", 10), ("snow", 20), ("fog", 30), ("rain", 40)))
    assert matrix_metrics(ScoreTable(scores=acdc))["miou/avg_A"] == 25
    assert not any("avg" in name for name in matrix_metrics(ScoreTable(scores=acdc[:3])))
    assert "| method | avg A |" in note(ScoreTable(scores=acdc), "")


def test_sums_that_lack_a_side_are_absent() -> None:
    assert matrix_metrics(ScoreTable(scores=TABLE.scores[:1])) == {"miou/G2C/in_domain": 80, "miou/mean_in_domain": 80}
    assert matrix_metrics(ScoreTable(scores=TABLE.scores[1:2])) == {
        "miou/G2C/cityscapes": 50, "miou/mean_targets": 50, "miou/worst_domain": 50
    }  # fmt: skip


def test_classes_stand_against_domains() -> None:
    table = class_table(TABLE)
    assert table["class"] == ["road", "sky"]
    assert table["C2A fog"] == [60.0, None]
    assert table["C2A night"] == [10.0, 1.0]
    assert {len(column) for column in table.values()} == {2}


def test_the_note_has_findings_matrix_and_cost_and_fits() -> None:
    text = note(TABLE, "Cost: 9 s.")
    assert text.startswith("- Generalises: gkd, 40.0 on the mean over targets, against 75.0 at home (a gap of 35.0).")
    assert "| gkd | 75.0 | 40.0 | 80.0 | 50.0 | 70.0 | 60.0 | 10.0 |" in text
    assert text.endswith("\n\nCost: 9 s.")
    crowd = ScoreTable(
        scores=tuple(each.model_copy(update={"student": f"vit_{n:0100d}"}) for n in range(60) for each in TABLE.scores)
    )
    short = note(crowd, "Cost: 9 s.")
    assert len(short) <= NOTE_LIMIT
    assert "report/report.html" in short
    assert short.endswith("Cost: 9 s.")


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_the_table_of_classes_has_a_line_a_seed(seeds: tuple[int, ...]) -> None:
    scores = tuple(score("G2C", "cityscapes", 50.0 + seed, seed) for seed in seeds)
    assert class_table(ScoreTable(scores=scores))["seed"] == [seed for seed in seeds for _ in ("road", "sky")]

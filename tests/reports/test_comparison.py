"""Runs side by side: what is pooled, what stands apart, what is said; and the page that shows it."""

from __future__ import annotations

import base64
import hashlib
import io
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from gkd_core.errors import GkdError
from gkd_core.predict.latency import Latency
from gkd_core.records import Score, ScoreProtocol, ScoreTable
from gkd_core.reports.comparison import Comparison, RunFacts, StoredPicture
from gkd_core.reports.latencies import Point, figure_of, with_latencies
from gkd_core.reports.latency_chart import save_latency
from gkd_core.reports.page import write_page
from gkd_core.reports.terminal import print_comparison
from tests.predict.test_latency import latency, model_latency

PROTOCOL = ScoreProtocol(
    scale=1.0, max_size=None, labels_resized=False, window=(8, 8), stride=(8, 8), classes=2, selection="last checkpoint"
)
HOSTILE = "<script>alert(1)</script>"
DOMAINS = (("in-domain", 0.0), ("night", -33.0), ("fog", -22.0), ("rain", -11.0))


def scores(method: str, seed: int, value: float, **fields: object) -> tuple[Score, ...]:
    """In-domain `value`, and targets 33, 22 and 11 below it."""
    return tuple(
        Score(
            method=method, teacher="vit_big", student="vit_small", seed=seed, benchmark="C2A", source="cityscapes", domain=domain,
            dataset=f"acdc-{domain}/val", in_domain=domain == "in-domain", miou=value + below,
            class_iou={"road": value + below + 0.5, "sky": None}, images=7, protocol=PROTOCOL,
        ).model_copy(update=fields)
        for domain, below in DOMAINS
    )  # fmt: skip


def run(method: str, seed: int, value: float, name: str | None = None, **facts: object) -> RunFacts:
    given = {"settings": {"method": method, "seed": str(seed), "lr": "0.1"}, "costs": {"seconds": 100.0 + seed}} | facts
    return RunFacts(name or f"{method}-{seed}", scores(method, seed, value), run_id=f"id-{method}-{seed}", **given)  # type: ignore[arg-type]


THREE = [run("gkd", 1, 61.0), run("gkd", 0, 60.0), run("no-kd", 0, 50.0)]


def test_seeds_are_pooled_and_the_best_stands_first() -> None:
    comparison = Comparison.of_runs(list(reversed(THREE)))
    first, second = comparison.entries
    assert (first.row.label, first.row.seeds, first.row.targets) == ("gkd", (0, 1), (38.0, 39.0))
    assert first.row.cells["C2A", "night"] == (27.0, 28.0)
    assert first.cost("seconds") == 100.5
    assert first.cost("gpu_hours") is None
    assert second.row.label == "no-kd"
    assert comparison.cautions == ()
    assert comparison.differing_settings() == ["method"]


def test_a_cost_that_one_run_lacks_is_unknown() -> None:
    comparison = Comparison.of_runs([THREE[0], run("gkd", 0, 60.0, costs={})])
    assert comparison.entries[0].cost("seconds") is None


def test_runs_of_other_settings_stand_apart_and_are_named_by_them() -> None:
    other = run("gkd", 0, 40.0, settings={"method": "gkd", "seed": "0", "lr": "0.2", "compute.workers": "4"})
    labels = [entry.row.label for entry in Comparison.of_runs([*THREE, other]).entries]
    assert labels == ["gkd [lr=0.1]", "no-kd", "gkd [lr=0.2]"]
    far = run("gkd", 0, 40.0, name="far", settings={"lr": "1", "a": "1", "b": "2"})
    assert [entry.row.label for entry in Comparison.of_runs([*THREE, far]).entries] == ["gkd [gkd-1]", "no-kd", "gkd [far]"]


def test_settings_that_no_score_depends_on_tell_nothing_apart() -> None:
    idle = {"registry.margin": "2", "illustrate.images": "0", "compute.keep_hours": "1"}
    comparison = Comparison.of_runs([run("gkd", 0, 60.0), run("gkd", 1, 61.0, settings={"method": "gkd", "lr": "0.1"} | idle)])
    assert [entry.row.label for entry in comparison.entries] == ["gkd"]
    assert comparison.differing_settings() == []


def test_a_report_without_settings_is_not_pooled_with_runs() -> None:
    report = RunFacts("old/report", scores("gkd", 2, 60.0))
    labels = [entry.row.label for entry in Comparison.of_runs([*THREE, report]).entries]
    assert "gkd [old/report]" in labels


def test_reports_alone_are_pooled_and_that_is_said() -> None:
    comparison = Comparison.of_runs([RunFacts("a", scores("gkd", 0, 60.0)), RunFacts("b", scores("gkd", 1, 62.0))])
    assert [entry.row.targets for entry in comparison.entries] == [(38.0, 40.0)]
    assert comparison.cautions == (
        "The settings of gkd are not known: its reports were pooled by method, student and labels alone.",
    )


def test_a_seed_run_twice_counts_once_and_is_said() -> None:
    comparison = Comparison.of_runs([run("gkd", 0, 70.0, name="newer"), run("gkd", 0, 60.0, name="older")])
    (entry,) = comparison.entries
    assert entry.row.cells["C2A", "night"] == (37.0,)
    assert [each.name for each in entry.runs] == ["newer"]
    assert comparison.cautions == ("older repeats a seed of gkd: the newer run counts.",)


@pytest.mark.parametrize("fields", [{"protocol": PROTOCOL.model_copy(update={"window": (16, 16)})}, {"images": 8}])
def test_other_measures_are_never_silent(fields: dict[str, object]) -> None:
    other = RunFacts("other", scores("no-kd", 0, 50.0, **fields))
    (line,) = Comparison.of_runs([THREE[0], other]).cautions
    assert line.startswith("Not measured alike on C2A in-domain, C2A night, C2A fog, C2A rain, so not comparable there.")
    assert ("gkd: 7 images; " in line, "no-kd: 8 images; " in line) == ("images" in fields,) * 2
    assert ("window 16 × 16" in line) == ("protocol" in fields)


def test_other_data_and_other_domains_are_never_silent() -> None:
    one = run("gkd", 0, 60.0, data={"acdc-night/val": "a" * 32, "proxy/all": "c" * 32})
    other = run("no-kd", 0, 50.0, data={"acdc-night/val": "b" * 32, "proxy/all": "c" * 32})
    assert Comparison.of_runs([one, other]).cautions == (
        "Not the same data under the name acdc-night/val: aaaaaaaaaa (gkd); bbbbbbbbbb (no-kd).",
    )
    few = RunFacts("few", tuple(score for score in scores("no-kd", 0, 50.0) if score.domain != "fog"))
    assert Comparison.of_runs([one, few]).cautions == (
        "The means are not over the same target domains (3 for gkd; 2 for no-kd): compare domain by domain.",
    )


def test_the_terminal_has_scores_costs_differences_and_cautions(capsys: pytest.CaptureFixture[str]) -> None:
    other = run("no-kd", 0, 50.0, settings={"method": "no-kd", "lr": "[bold]0.2"}, unknown_costs="distill-proxy")
    print_comparison(Comparison.of_runs([*THREE[:2], other, run("gkd", 0, 1.0, name="again")]))
    output = capsys.readouterr().out
    for text in (
        "38.5 ± 0.7",
        "27.5 ± 0.7",
        "C2A night",
        "22.0",
        "[bold]0.2",
        "100",
        "unknown cost of distill-proxy",
        "again repeats",
    ):
        assert text in output, text
    assert output.index("gkd") < output.index("no-kd")


class Page(HTMLParser):
    """The page's texts, and every attribute by which a browser would fetch or go somewhere."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.references: list[tuple[str, str]] = []
        self.scripts = 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        assert tag not in ("link", "iframe", "object", "base")
        self.references += [(tag, value or "") for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def test_the_page_has_every_number_and_no_outside(tmp_path: Path) -> None:
    runs = [run("gkd", 0, 60.0, url="http://127.0.0.1:5000/#/experiments/1/runs/x"), *THREE[2:]]
    write_page(Comparison.of_runs(runs), tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    for value in (60.0, 50.0):
        for _, below in DOMAINS:
            assert f"{value + below:.1f}" in page.texts
            assert f"{value + below + 0.5:.1f}" in page.texts  # its class road
    assert "100" in page.texts
    sources = [value for tag, value in page.references if tag != "a"]
    assert sources and all(value.startswith("data:image/png;base64,") for value in sources)
    assert [value for tag, value in page.references if tag == "a"] == ["http://127.0.0.1:5000/#/experiments/1/runs/x"]
    assert "url(" not in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "No pixels in any of these domains: sky." in page.texts
    with Image.open(io.BytesIO(base64.b64decode(sources[0].partition(",")[2]))) as picture:
        assert picture.width > 300


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(picture)
    hostile = RunFacts(
        HOSTILE, scores("gkd", 0, 60.0, student=HOSTILE, class_iou={HOSTILE: 1.0}, domain=HOSTILE), run_id=HOSTILE,
        settings={HOSTILE: HOSTILE}, data={HOSTILE: HOSTILE}, code=HOSTILE, unknown_costs=HOSTILE, costs={"seconds": 1.0},
        pictures=(StoredPicture(HOSTILE, HOSTILE, '"><script>', picture),),
    )  # fmt: skip
    write_page(Comparison.of_runs([hostile, THREE[2]]), tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    assert page.scripts == 1  # its own
    assert HOSTILE in page.texts


def measured(run: RunFacts, seconds: float, **changes: object) -> Latency:
    """A latency of the run's own student, beside a teacher's of 2 s."""
    (sha256,) = run.weights
    return latency(model=model_latency(sha256=sha256, median_seconds=seconds), **changes)


def with_weights(method: str, seed: int, value: float) -> RunFacts:
    return run(method, seed, value, weights=frozenset([hashlib.sha256(f"{method}{seed}".encode()).hexdigest()]))


RUNS = [with_weights("gkd", 1, 61.0), with_weights("gkd", 0, 60.0), with_weights("no-kd", 0, 50.0)]


def test_a_latency_stands_at_the_row_of_the_student_that_it_was_measured_of(capsys: pytest.CaptureFixture[str]) -> None:
    comparison = with_latencies(Comparison.of_runs(RUNS), [measured(RUNS[1], 0.25)])
    first, second = comparison.entries
    assert (first.cost("latency_ms"), first.cost("against_latency_ms")) == (250, 2000)
    assert (second.cost("latency_ms"), second.cost("against_latency_ms")) == (None, None)
    found = figure_of(comparison)
    assert found is not None
    assert found.points == (Point("gkd", 250, (38.0, 39.0)),)
    assert found.beside == (("vit_large_patch14_dinov2, segformer decoder", 2000),)
    assert found.without == ("no-kd",)
    print_comparison(comparison)
    said = capsys.readouterr().out
    assert "512 × 512 pixels, 2 at once; cpu (AMD EPYC), 4 threads" in said.replace("\n", " ")
    assert "Without a latency, or a target, and so not in the figure: no-kd." in said
    assert figure_of(Comparison.of_runs(RUNS)) is None


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([measured(with_weights("gkd", 7, 1.0), 0.1)], "is the student of no run here"),
        ([measured(RUNS[0], 0.1), measured(RUNS[1], 0.1)], "two records of gkd"),
        ([measured(RUNS[0], 0.1), measured(RUNS[2], 0.1, threads=1)], r"not measured alike \(threads: 4 and 1\)"),
        ([measured(RUNS[0], 0.1), measured(RUNS[2], 0.1, size=(32, 48))], r"\(size: 512 × 512 and 32 × 48\)"),
        ([latency(model=model_latency(sha256=None))], "is the student of no run here"),
    ],
)
def test_a_latency_that_says_nothing_of_a_row_is_refused(records: list[Latency], message: str) -> None:
    with pytest.raises(GkdError, match=message):
        with_latencies(Comparison.of_runs(RUNS), records)


def test_the_page_has_the_figure_and_its_conditions(tmp_path: Path) -> None:
    without = Comparison.of_runs(RUNS)
    with_figure = with_latencies(without, [measured(RUNS[0], 0.25), measured(RUNS[2], 0.1)])
    pages = []
    for name, comparison in (("without", without), ("with", with_figure), ("again", with_figure)):
        write_page(comparison, tmp_path / name)
        pages.append(Page(tmp_path / name))
    assert (tmp_path / "with").read_bytes() == (tmp_path / "again").read_bytes()
    assert [len(page.references) for page in pages] == [1, 2, 2], "the radar, and the figure"
    assert "What a student scores, and what it takes" in pages[1].texts
    assert not any("latency" in text for text in pages[0].texts)


def test_the_figure_has_a_point_a_student_at_its_latency_and_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Axes] = []
    monkeypatch.setattr("gkd_core.reports.latency_chart.Canvas", lambda **facts: kept(Figure(**facts), drawn))
    comparison = with_latencies(Comparison.of_runs(RUNS), [measured(RUNS[0], 0.25), measured(RUNS[2], 0.1)])
    found = figure_of(comparison)
    assert found is not None and save_latency(found, tmp_path / "figure.png")
    (axes,) = drawn
    points = [tuple(float(value) for value in container.lines[0].get_xydata()[0]) for container in axes.containers]
    assert points == [(250.0, 38.5), (100.0, 28.0)]
    left, right = axes.get_xlim()
    assert left < 100 and right > 2000, "the teacher's line is seen too"
    with Image.open(tmp_path / "figure.png") as picture:
        assert picture.width > 600
    nothing = found._replace(points=())
    assert not save_latency(nothing, tmp_path / "nothing.png") and not (tmp_path / "nothing.png").exists()


def kept(figure: Figure, axes: list[Axes]) -> Figure:
    """The figure, whose axes are kept as they are made."""
    make = figure.subplots

    def subplots() -> Axes:
        axes.append(make())
        return axes[-1]

    figure.subplots = subplots  # type: ignore[method-assign,assignment]
    return figure


def test_pictures_are_in_the_page(tmp_path: Path) -> None:
    file = tmp_path / "panel.png"
    Image.new("RGB", (4, 4), "red").save(file)
    shown = run("gkd", 0, 60.0, pictures=(StoredPicture("acdc/night: gkd", "panel", "acdc/night", file),))
    write_page(Comparison.of_runs([shown, THREE[2]]), tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    embedded = f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"
    assert ("img", embedded) in page.references
    assert "acdc/night: gkd" in page.texts


def test_a_table_alone_makes_a_page_the_same_each_time(tmp_path: Path) -> None:
    table = ScoreTable(scores=(*scores("gkd", 0, 60.0), *scores("unheard-of", 0, 50.0)))
    for name in ("a.html", "b.html"):
        write_page(Comparison.of_table(table), tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    page = Page(tmp_path / "a.html")
    assert "unheard-of" in page.texts
    assert "Runs" not in page.texts


def test_a_domain_alone_needs_no_radar(tmp_path: Path) -> None:
    write_page(Comparison.of_table(ScoreTable(scores=scores("gkd", 0, 60.0)[:1])), tmp_path / "page.html")
    assert Page(tmp_path / "page.html").references == []

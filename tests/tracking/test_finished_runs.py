"""`gkd compare` on a store of SQLite with a comparison, its runs, and others beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.entities import Dataset, DatasetInput
from PIL import Image
from typer.testing import CliRunner

from gkd_core.cli import app
from gkd_core.errors import GkdError, PlatformError
from gkd_core.records import Picture, PictureList, Score, ScoreProtocol, ScoreTable
from gkd_core.reports.report import write_report
from gkd_core.settings import Settings
from gkd_core.tracking.finished_runs import RunStore
from gkd_core.tracking.flow_runs import WEIGHTS_TAG, Tracking

PROTOCOL = ScoreProtocol(
    scale=1.0, max_size=None, labels_resized=False, window=(8, 8), stride=(8, 8), classes=2, selection="last checkpoint"
)


def table(method: str, seed: int, value: float) -> ScoreTable:
    return ScoreTable(
        scores=tuple(
            Score(
                method=method, teacher="big", student="small", seed=seed, benchmark="C2A", source="cityscapes", domain=domain,
                dataset=f"acdc-{domain}/val", in_domain=domain == "in-domain", miou=value + below, class_iou={"road": 1.0},
                images=2, protocol=PROTOCOL,
            )
            for domain, below in (("in-domain", 9.0), ("night", 0.0), ("fog", 1.0), ("rain", 2.0))
        )
    )  # fmt: skip


def log(tracking: Tracking, folder: Path, method: str, seed: int, value: float, kind: str = "pipeline") -> str:
    """A run as a flow leaves it, with one picture."""
    settings = Settings.model_validate({"method": method, "seed": seed})
    report, pictures = folder / f"report-{method}-{seed}-{value}", folder / "pictures"
    write_report(table(method, seed, value), report)
    tags = {"kind": kind, "mlflow.source.git.commit": "abcdef0123456789", "git.dirty": "true"}
    with tracking.flow_run(f"{method}-{seed}", settings, tags) as parent:
        parent.log_datasets(parent.run_id, [DatasetInput(Dataset("acdc-night/val", "d" * 32, "local", "here"))])
        parent.log_report(table(method, seed, value), report)
        tracking.client.log_metric(parent.run_id, "cost/seconds", 100.0 + seed)
        tracking.client.set_tag(parent.run_id, f"{WEIGHTS_TAG}cityscapes", "c0ffee")
        tracking.client.log_artifacts(parent.run_id, str(pictures), "pictures/cityscapes")
    return parent.run_id


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a comparison of three runs, one that failed, and one of another kind."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "pictures").mkdir()
    Image.new("RGB", (4, 4), "red").save(folder / "pictures" / "panel.png")
    picture = Picture(file="panel.png", kind="panel", title="night", domain=None, measure="mIoU", values={})
    drawn = PictureList(method="gkd", student="s", seed=0, source="cityscapes", pictures=(picture,))
    drawn.write(folder / "pictures" / "pictures.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tracking = Tracking(Settings(), folder)
        with tracking.group_run("methods", {"kind": "comparison"}) as group:
            for method, seed, value in (("gkd", 0, 30.0), ("gkd", 1, 32.0), ("no-kd", 0, 10.0)):
                log(tracking, folder, method, seed, value)
            with pytest.raises(ZeroDivisionError), tracking.flow_run("failed", Settings(), {}):
                raise ZeroDivisionError
        joined = ScoreTable(scores=(*table("gkd", 0, 30.0).scores, *table("no-kd", 0, 10.0).scores))
        write_report(joined, folder / "compare")
        tracking.log_comparison(group, joined, folder / "compare")
        log(tracking, folder, "gkd", 0, 50.0, kind="redistill")
        log(tracking, folder, "two-stage-mse", 0, 20.0, kind="evaluation")
    return folder


@pytest.fixture
def store(project: Path) -> RunStore:
    return RunStore(f"sqlite:///{project}/artifacts/mlflow/mlflow.db", "gkd")


def names(store: RunStore, *, count: int = 20, kind: str | None = None, where: str | None = None) -> list[str]:
    return [str(run.info.run_name) for run in store.recent(count, kind, where)]


def test_runs_are_found_by_kind_filter_and_number(store: RunStore) -> None:
    assert names(store) == ["gkd-0", "no-kd-0", "gkd-1", "gkd-0"]  # no stage, group or evaluation, none that failed
    assert names(store, count=2) == ["gkd-0", "no-kd-0"]
    assert names(store, kind="pipeline") == names(store, kind="comparison") == ["no-kd-0", "gkd-1", "gkd-0"]
    assert names(store, kind="evaluation") == ["two-stage-mse-0"]
    assert names(store, where="tags.method = 'no-kd'") == ["no-kd-0"]
    with pytest.raises(PlatformError, match="no finished run with scores there for nonsense"):
        names(store, kind="nonsense")
    with pytest.raises(PlatformError, match="does not take the filter"):
        names(store, where="nonsense")


def test_runs_are_found_by_name_and_id_and_a_comparison_stands_for_its_runs(store: RunStore) -> None:
    (newest,) = store.named(["gkd-0"])
    assert newest.data.tags["kind"] == "redistill"
    assert [run.info.run_id for run in store.named([newest.info.run_id])] == [newest.info.run_id]
    assert [run.info.run_name for run in store.named(["methods", "gkd-1"])] == ["no-kd-0", "gkd-1", "gkd-0"]
    with pytest.raises(PlatformError, match=r"nobody: no run has this id or name .* newest finished are: .*gkd-0"):
        store.named(["nobody"])
    with pytest.raises(PlatformError, match="--experiment nowhere: .* it has .*gkd"):
        RunStore(store.address, "nowhere")


def test_a_run_tells_its_facts(store: RunStore, tmp_path: Path) -> None:
    facts = store.facts(store.named(["gkd-1"])[0], tmp_path)
    assert facts.scores == table("gkd", 1, 32.0).scores
    assert facts.settings["method"] == "gkd"
    assert facts.costs == {"seconds": 101.0}
    assert facts.data == {"acdc-night/val": "d" * 32}
    assert facts.code == "abcdef0123 with changes"
    assert facts.url is None
    assert facts.weights == {"c0ffee"}
    (picture,) = facts.pictures
    assert (picture.kind, picture.domain) == ("panel", "all domains of cityscapes")
    with Image.open(picture.path) as image:
        assert image.size == (4, 4)


@pytest.fixture
def gkd(project: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.chdir(project)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return CliRunner()


def test_the_command_prints_the_table_and_writes_the_page(gkd: CliRunner, tmp_path: Path) -> None:
    result = gkd.invoke(app, ["compare", "methods", "--html", str(tmp_path / "page.html")], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    lines = [line for line in result.output.splitlines() if "small" in line]
    assert ["gkd" in lines[0], "no-kd" in lines[1]] == [True, True]  # best first
    assert "32.0 ± 1.4" in lines[0]  # mean over targets: 31 and 33
    assert "31.0 ± 1.4" in lines[0]  # its worst domain
    assert "100" in lines[0]  # mean seconds of both seeds: 100.5
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "32.0 ± 1.4" in page
    assert page.count("data:image/png") == 3  # the radar, and a picture of each row


def test_the_command_reads_reports_without_mlflow(gkd: CliRunner, project: Path) -> None:
    result = gkd.invoke(app, ["compare", "--report", "compare"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "Generalises best: gkd, 31.0 on the mean over targets" in result.output
    with pytest.raises(GkdError, match="absent/matrix.json: no such file"):
        gkd.invoke(app, ["compare", "--report", "absent"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gkd-0", "--report", "compare"], "--report: reads folders alone"),
        (["gkd-0", "--kind", "pipeline"], "gkd-0: named runs are not searched for"),
        (["--experiment", "nowhere"], "--experiment nowhere"),
    ],
)
def test_what_cannot_be_meant_is_refused(gkd: CliRunner, arguments: list[str], message: str) -> None:
    with pytest.raises(GkdError, match=message):
        gkd.invoke(app, ["compare", *arguments], catch_exceptions=False)


def test_a_missing_store_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(PlatformError, match="no MLflow store here"):
        CliRunner().invoke(app, ["compare"], catch_exceptions=False)

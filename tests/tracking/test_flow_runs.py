"""What MLflow remembers of a flow run, in a store of SQLite."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Dataset, DatasetInput, Metric, Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, TEMPORARILY_UNAVAILABLE
from mlflow.tracking import MlflowClient

from gkd_core.errors import PlatformError
from gkd_core.records import Score, ScoreProtocol, ScoreTable, sha256_of
from gkd_core.settings import Settings, TrackingSettings
from gkd_core.stages import StageRun
from gkd_core.tracking import steps as mlflow_steps
from gkd_core.tracking.flow_runs import (
    Tracking,
    flatten,
    run_name,
    source_tags,
    tracking_address,
)
from gkd_core.tracking.steps import StepMetrics
from gkd_core.training.cost import FOLDER, ProcessCost
from gkd_core.training.metrics import file_sink
from gkd_core.versioning.recipe import output_digest
from tests.predict.conftest import segmentor_folder
from tests.reproducing import reproduce

PROTOCOL = ScoreProtocol.model_construct()


@pytest.fixture(autouse=True)
def _own_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    # One store for all: making one takes seconds.
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return Tracking(Settings(), tmp_path_factory.mktemp("project"))


def _run(tracking: Tracking, run_id: str) -> Run:
    return tracking.client.get_run(run_id)


def _score(benchmark: str, domain: str, miou: float, in_domain: bool = False) -> Score:
    source = {"G2C": "gta5", "C2A": "cityscapes"}[benchmark]
    return Score.model_construct(
        method="gkd", teacher="t", student="s", seed=0, benchmark=benchmark, source=source, domain=domain,
        dataset=f"{source if in_domain else domain}/val", in_domain=in_domain, miou=miou, class_iou={"road": miou}, images=2,
        protocol=PROTOCOL,
    )  # fmt: skip


def test_flatten_dots_the_keys() -> None:
    assert flatten({"a": {"b": 1, "c": {}}, "d": [1, 2], "e": None}) == {"a.b": "1", "a.c": "{}", "d": "[1, 2]", "e": "None"}


def test_address_is_the_environments_then_the_settings_then_the_projects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = Settings(tracking=TrackingSettings(uri="http://tracking.example"))
    assert tracking_address(None, tmp_path) == f"sqlite:///{tmp_path}/artifacts/mlflow/mlflow.db"
    assert tracking_address(named.tracking.uri, tmp_path) == "http://tracking.example"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://other.example")
    assert tracking_address(named.tracking.uri, tmp_path) == "http://other.example"


def test_unusable_store_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="MLflow at nonsense://store"):
        Tracking(Settings(tracking=TrackingSettings(uri="nonsense://store")), tmp_path)


@pytest.mark.parametrize(
    ("built", "revision", "dirty"),
    [
        (None, "unknown", "unknown"), ("unknown", "unknown", "unknown"), ("main", "unknown", "unknown"),
        ("a1" * 20, "a1" * 20, "false"), ("a1" * 20 + "+changes", "a1" * 20, "true"),
    ],
)  # fmt: skip
def test_outside_git_the_revision_is_that_of_the_image(
    built: str | None, revision: str, dirty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GKD_REVISION", raising=False)
    if built is not None:
        monkeypatch.setenv("GKD_REVISION", built)
    assert source_tags(tmp_path) == {"mlflow.source.git.commit": revision, "git.dirty": dirty}


def test_a_machine_without_git_knows_no_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("GKD_REVISION", raising=False)
    assert source_tags(tmp_path)["mlflow.source.git.commit"] == "unknown"


@pytest.mark.parametrize(("error", "status"), [(None, "FINISHED"), (ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_runs_end_truthfully(tracking: Tracking, error: type[BaseException] | None, status: str) -> None:
    seen = []

    def work() -> None:
        with tracking.flow_run("name", Settings(), {}) as parent:
            seen.append(parent.run_id)
            if error is not None:
                raise error

    if error is None:
        work()
    else:
        with pytest.raises(error):
            work()
    run = _run(tracking, seen[0])
    assert run.info.status == status
    assert run.data.params["data.world.seed"] == "7"
    assert run.data.tags["method"] == "gkd"


def test_an_error_of_a_process_that_is_told_to_end_is_no_failure(tracking: Tracking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gkd_core.tracking.flow_runs.is_ending", lambda: True)
    with pytest.raises(ValueError, match="lost"), tracking.flow_run("name", Settings(), {}) as parent:
        raise ValueError("the progress could not be shown: connection lost")
    assert _run(tracking, parent.run_id).info.status == "KILLED"


def test_flow_runs_of_a_group_are_its_children(tracking: Tracking) -> None:
    settings = Settings.model_validate({"method": "no-kd", "seed": 3, "learn_task": {"label_fraction": 0.1}})
    with tracking.group_run("methods", {"kind": "comparison"}) as group:
        with tracking.flow_run("inside", settings, {}) as inside:
            pass
        with pytest.raises(ZeroDivisionError), tracking.flow_run("broken", settings, {}) as broken:
            raise ZeroDivisionError
        assert _run(tracking, group).info.status == "RUNNING"
    with tracking.flow_run("outside", settings, {"kind": "redistill"}) as outside:
        pass
    assert _run(tracking, group).info.status == "FINISHED"
    assert _run(tracking, broken.run_id).info.status == "FAILED"
    tags = _run(tracking, inside.run_id).data.tags
    assert tags["mlflow.parentRunId"] == _run(tracking, broken.run_id).data.tags["mlflow.parentRunId"] == group
    expected = {"method": "no-kd", "seed": "3", "label_fraction": "0.1", "kind": "pipeline"}
    assert tags.items() >= {**expected, "student": settings.student.arch, "teacher": settings.teacher.arch}.items()
    assert "mlflow.parentRunId" not in _run(tracking, outside.run_id).data.tags
    assert _run(tracking, outside.run_id).data.tags["kind"] == "redistill"


def test_run_names_say_what_tells_runs_apart() -> None:
    settings = Settings.model_validate({"student": {"arch": "vit_small"}, "teacher": {"arch": "vit_big"}})
    assert run_name(settings) == "gkd-vit_small-seed0"
    part = settings.learn_task.model_copy(update={"label_fraction": 0.05})
    assert run_name(settings.model_copy(update={"learn_task": part, "method": "teacher"})) == "teacher-vit_big-labels0.05-seed0"


def test_repeated_steps_are_logged_once(tracking: Tracking) -> None:
    run_id = tracking.client.create_run(tracking.experiment).info.run_id
    log = StepMetrics(tracking.client, run_id)
    lines = [{"step": float(step), "time": 10.0 + step, "loss": 1.0 / step} for step in (1, 2, 3)]
    log(lines)
    log([*lines[1:], {"step": 4.0, "time": 20.0, "loss": 0.25, "lr": 0.1}])
    history = tracking.client.get_metric_history(run_id, "loss")
    assert [(item.step, item.value) for item in history] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3)), (4, 0.25)]
    assert history[0].timestamp == 11_000
    assert [item.step for item in tracking.client.get_metric_history(run_id, "lr")] == [4]


class Unsteady:
    """A client that fails as told: the calls by number, and always those with a metric of a name."""

    def __init__(self, client: MlflowClient, error: MlflowException, calls: tuple[int, ...] = (), name: str = "") -> None:
        self._client, self._error, self._calls, self._name = client, error, calls, name
        self.calls = 0

    def log_batch(self, run_id: str, metrics: list[Metric]) -> None:
        self.calls += 1
        if self.calls in self._calls or self._name in [metric.key for metric in metrics]:
            raise self._error
        self._client.log_batch(run_id, metrics=metrics)


DOWN = MlflowException("the server does not answer", error_code=TEMPORARILY_UNAVAILABLE)
REFUSED = MlflowException("that is no metric", error_code=INVALID_PARAMETER_VALUE)


def test_what_mlflow_did_not_accept_is_logged_when_it_is_handed_on_again(
    tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_steps, "BATCH", 4)
    run_id = tracking.client.create_run(tracking.experiment).info.run_id
    log = StepMetrics(Unsteady(tracking.client, DOWN, calls=(2,)), run_id)  # type: ignore[arg-type]
    lines = [{"step": float(step), "time": 10.0 + step, "loss": 1.0 / step} for step in (1, 2, 3, 4)]
    with pytest.raises(MlflowException, match="does not answer"):
        log(lines)
    log(lines)
    history = tracking.client.get_metric_history(run_id, "loss")
    assert [item.step for item in history] == [1, 2, 3, 4]


def test_a_metric_that_mlflow_refuses_costs_no_other_and_is_named_once(
    tracking: Tracking, caplog: pytest.LogCaptureFixture
) -> None:
    run_id = tracking.client.create_run(tracking.experiment).info.run_id
    log = StepMetrics(Unsteady(tracking.client, REFUSED, name="a\nbad"), run_id)  # type: ignore[arg-type]
    log([{"step": float(step), "time": 10.0, "loss": 1.0, "a\nbad": 1.0} for step in (1, 2)])
    assert [item.step for item in tracking.client.get_metric_history(run_id, "loss")] == [1, 2]
    (record,) = caplog.records
    assert record.getMessage() == r"MLflow refuses the metric 'a\nbad', which is left out (that is no metric)"


def test_a_run_that_is_gone_is_an_error_after_a_few_requests(tracking: Tracking) -> None:
    client = Unsteady(tracking.client, REFUSED, name="loss")
    log = StepMetrics(client, "0" * 32)  # type: ignore[arg-type]
    with pytest.raises(MlflowException):
        log([{"step": float(step), "time": 10.0, "loss": 1.0} for step in range(400)])
    assert client.calls <= 1 + mlflow_steps.MOST_REFUSED


def test_a_stage_whose_metrics_never_reached_mlflow_says_so(
    tracking: Tracking, workspace: Path, toys: Mapping[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(self: StepMetrics, lines: list[dict[str, float]]) -> None:
        raise DOWN

    monkeypatch.setattr(StepMetrics, "__call__", down)
    monkeypatch.setattr("gkd_core.training.metrics.POLL_SECONDS", 0.001)
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "stage-1.json").write_text("{")
    with tracking.flow_run("flow", Settings(), {}) as parent:
        reproduce(workspace, toys["make"])
        with parent.stage_run(toys["make"], workspace, tmp_path, tmp_path) as child:
            file_sink(tmp_path)(5, {"loss": 2.0})
        parent.log_costs()
    run = _run(tracking, child)
    assert run.info.status == "FINISHED"
    assert run.data.tags["metrics.lost"] == "1"
    assert run.data.tags["cost.damaged"] == "stage-1.json"
    assert not any(name.startswith("cost/") for name in run.data.metrics)
    assert _run(tracking, parent.run_id).data.tags["cost.unknown"] == "make"


def test_stage_run_has_metrics_digests_and_data(
    tracking: Tracking, workspace: Path, toys: Mapping[str, Any], tmp_path: Path
) -> None:
    make = toys["make"]
    with tracking.flow_run("flow", Settings(), {"prefect.flow_run_id": "x"}) as parent:
        reproduce(workspace, make)
        with parent.stage_run(make, workspace, tmp_path / "metrics") as child:
            parent.note_planned(child, 20)
            file_sink(tmp_path / "metrics")(5, {"loss": 2.0})
        parent.note_restored(make, workspace)
        parent.add_tags({"data.data/yard": "aa"})
        with parent.stage_run(make, workspace, None) as later:
            pass
    run = _run(tracking, child)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"loss": 2.0, "progress/updates": 5, "progress/planned": 20}
    assert run.data.params == {"seed": "0"}
    assert run.data.tags["mlflow.parentRunId"] == parent.run_id
    assert run.data.tags["kind"] == "stage"
    assert run.data.tags["dvc.out"] == output_digest(workspace, make)
    assert _run(tracking, parent.run_id).data.tags["restored.make"] == child
    assert _run(tracking, parent.run_id).data.tags["data.data/yard"] == "aa"
    assert "data.data/yard" not in run.data.tags
    assert _run(tracking, later).data.tags["data.data/yard"] == "aa"


def test_maker_of_a_result_from_elsewhere_is_unknown(tracking: Tracking, toys: Mapping[str, Any]) -> None:
    assert tracking.maker_of(toys["make"], "0" * 32) == "unknown"


def test_a_resumed_stage_costs_all_its_attempts_and_a_restored_one_what_its_maker_did(
    tracking: Tracking, workspace: Path, toys: Mapping[str, Any], tmp_path: Path
) -> None:
    make, copy = toys["make"], toys["copy"]
    notes = ProcessCost(
        role="stage", finished=False, seconds=30.0, cpu_seconds=360.0, gpu=False, peak_host_bytes=10**9, peak_gpu_bytes=0
    )  # fmt: skip
    notes.write(tmp_path / FOLDER / "stage-1.json")  # killed, and gone on from
    notes.model_copy(update={"finished": True, "seconds": 12.0}).write(tmp_path / FOLDER / "stage-2.json")
    with tracking.flow_run("first", Settings(), {}) as first:
        reproduce(workspace, make)
        with first.stage_run(make, workspace, None, tmp_path) as child:
            pass
        first.log_costs()
    assert _run(tracking, child).data.metrics.items() >= {("cost/seconds", 42.0), ("cost/attempts", 2.0)}
    made = _run(tracking, first.run_id).data
    assert made.metrics.items() >= {("cost/seconds", 42.0), ("cost/cpu_core_hours", 0.2), ("cost/gpu_hours", 0.0)}
    assert "cost.unknown" not in made.tags

    with tracking.flow_run("second", Settings(), {}) as second:
        second.note_restored(make, workspace)
        second.log_costs()
    costs = {key: value for key, value in made.metrics.items() if key.startswith("cost/")}
    assert _run(tracking, second.run_id).data.metrics == costs

    with tracking.flow_run("third", Settings(), {}) as third:
        third.note_restored(make, workspace)
        reproduce(workspace, copy, env={"GREETING": "made outside"})
        third.note_restored(copy, workspace)
        third.log_costs()
    in_the_dark = _run(tracking, third.run_id).data
    assert in_the_dark.metrics == {"cost/stage_seconds/make": 42.0}
    assert in_the_dark.tags["cost.unknown"] == "copy"


def test_report_is_logged_with_models_and_data(tracking: Tracking, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "summary.md").write_text("text")
    table = ScoreTable.model_construct(
        scores=(_score("G2C", "cityscapes", 50.0), _score("G2C", "in-domain", 60.0, True), _score("C2A", "fog", 40.0))
    )
    with tracking.flow_run("flow", Settings(), {}) as parent:
        maker = tracking.client.create_run(tracking.experiment, tags={"stage": "learn-task-gta5", "dvc.out": "b"}).info.run_id
        tracking.client.set_terminated(maker)
        model = tracking.client.create_logged_model(tracking.experiment, "student-gta5", maker).model_id
        tracking.client.finalize_logged_model(model, "READY")
        failed = tracking.client.create_logged_model(tracking.experiment, "student-gta5", maker).model_id
        tracking.client.finalize_logged_model(failed, "FAILED")
        parent._makers["learn-task-gta5"] = maker
        parent.log_datasets(parent.run_id, [DatasetInput(Dataset("cityscapes/val", "d" * 32, "local", "here"))])
        parent.log_report(table, folder)
    run = _run(tracking, parent.run_id)
    assert run.data.metrics == {
        "miou/G2C/cityscapes": 50, "miou/G2C/in_domain": 60, "miou/C2A/fog": 40, "miou/mean_targets": 45,
        "miou/mean_in_domain": 60, "miou/worst_domain": 40, "miou/source_gap": 15,
    }  # fmt: skip
    assert run.data.tags["worst_domain"] == "C2A/fog"
    assert run.data.tags["mlflow.note.content"].startswith("- Generalises: gkd, 45.0 on the mean over targets")
    assert [each.model_id for each in run.inputs.model_inputs] == [model]
    shown = {each.key: each for each in tracking.client.get_logged_model(model).metrics}
    assert shown.keys() == {"miou/G2C/cityscapes", "miou/G2C/in_domain"}  # not those of the other source's student
    assert (shown["miou/G2C/cityscapes"].dataset_name, shown["miou/G2C/cityscapes"].dataset_digest) == (
        "cityscapes/val",
        "d" * 32,
    )
    assert {item.path for item in tracking.client.list_artifacts(parent.run_id, "report")} == {
        "report/summary.md", "report/table.json", "report/classes.json",
    }  # fmt: skip


def test_pictures_lie_below_their_source(tracking: Tracking, tmp_path: Path) -> None:
    run = StageRun("illustrate", "gta5", (), (), Path("artifacts/illustrate/gta5"))
    (tmp_path / run.output).mkdir(parents=True)
    (tmp_path / run.output / "features.png").write_bytes(b"png")
    with tracking.flow_run("flow", Settings(), {}) as parent:
        parent.log_pictures(run, tmp_path)
    logged = [item.path for item in tracking.client.list_artifacts(parent.run_id, "pictures/gta5")]
    assert logged == ["pictures/gta5/features.png"]


def test_a_run_names_the_weights_of_its_students(tracking: Tracking, tmp_path: Path) -> None:
    folder = segmentor_folder(tmp_path / "artifacts/learn-task/gta5")
    with tracking.flow_run("flow", Settings(), {}) as parent:
        parent.note_student(StageRun("learn-task", "gta5", (), (), Path("artifacts/learn-task/gta5")), tmp_path)
    assert _run(tracking, parent.run_id).data.tags["weights.gta5"] == sha256_of(folder / "segmentor.safetensors")


def test_the_experiment_says_how_to_compare(tracking: Tracking) -> None:
    assert "gkd compare" in tracking.client.get_experiment(tracking.experiment).tags["mlflow.note.content"]


def test_an_experiment_that_somebody_deleted_is_named_with_what_to_do(tmp_path: Path) -> None:
    tracking = Tracking(Settings(), tmp_path)
    tracking.client.delete_experiment(tracking.experiment)
    with pytest.raises(
        PlatformError, match=r"experiment 'gkd' was deleted there; restore it .*--experiment-id \d+.*tracking\.experim"
    ):
        Tracking(Settings(), tmp_path)
    other = Settings(tracking=TrackingSettings(experiment="another"))
    assert Tracking(other, tmp_path).experiment != tracking.experiment
    tracking.client.restore_experiment(tracking.experiment)
    assert Tracking(Settings(), tmp_path).experiment == tracking.experiment


@pytest.mark.parametrize("kind", ["group", "flow"])
def test_an_experiment_deleted_meanwhile_is_one_line(kind: str, tmp_path: Path) -> None:
    tracking = Tracking(Settings(), tmp_path)
    tracking.client.delete_experiment(tracking.experiment)
    begun = tracking.group_run("x", {}) if kind == "group" else tracking.flow_run("x", Settings(), {})
    with pytest.raises(PlatformError, match=r"MLflow at .*; restore it \(mlflow experiments restore") as error, begun:
        pass
    assert "\n" not in str(error.value)

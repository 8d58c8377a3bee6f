"""All stages of a tiny run, one after the other, in one process."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from gkd_core.cli import app
from gkd_core.distill.objective import QSDObjective
from gkd_core.errors import DataError, GkdError
from gkd_core.models.build import build_encoder
from gkd_core.models.resize import Layout, ResizeMethod, resize_table
from gkd_core.models.segmentor import load_segmentor, recorded_segmentor
from gkd_core.paths import SIZE
from gkd_core.predict.bundle import open_bundle
from gkd_core.records import MANIFEST, DataManifest, EncoderCheckpoint, ScoreTable, SegmentorCheckpoint, StudentSize, sha256_of
from gkd_core.seeding import seed_of
from gkd_core.settings import MethodName, Settings, dump_settings, settings_from_tree
from gkd_core.stages import Recipe, run_folder, run_stage
from gkd_core.stages.work import Context
from gkd_core.training.cost import read_cost

DOMAINS = {
    ("G2C", "in-domain"), ("G2C", "cityscapes"), ("G2B", "in-domain"), ("G2B", "bdd100k"),
    ("G2M", "in-domain"), ("G2M", "mapillary"),
    ("C2A", "in-domain"), ("C2A", "night"), ("C2A", "snow"), ("C2A", "fog"), ("C2A", "rain"),
    ("P2R", "in-domain"), ("P2R", "potsdam-irrg"), ("P2R", "vaihingen-irrg"),
}  # fmt: skip


def run_all(settings: Settings, workspace: Path) -> None:
    for run in Recipe.of(settings).plan:
        run_stage(Recipe.of(settings), run, workspace)


def with_method(settings: Settings, method: MethodName) -> Settings:
    return settings.model_copy(update={"method": method})


@pytest.fixture(scope="module")
def gkd_run(tiny_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of a finished run of method gkd."""
    workspace = tmp_path_factory.mktemp("gkd")
    run_all(tiny_settings, workspace)
    return workspace


@pytest.fixture
def workspace(gkd_run: Path, tmp_path: Path) -> Path:
    """A new workspace that has the world of the finished run, and nothing else."""
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "data").symlink_to(gkd_run / "artifacts" / "data")
    return tmp_path


def matrix(workspace: Path) -> list[dict[str, str]]:
    with (workspace / "artifacts" / "report" / "matrix.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_the_matrix_has_every_domain_of_all_benchmarks(gkd_run: Path, tiny_settings: Settings) -> None:
    rows = matrix(gkd_run)
    assert {(row["benchmark"], row["domain"]) for row in rows} == DOMAINS
    assert len(rows) == len(DOMAINS)
    assert {row["method"] for row in rows} == {"gkd"}
    assert all(0 <= float(row["miou"]) <= 100 for row in rows)
    table = ScoreTable.read(gkd_run / "artifacts" / "report" / "matrix.json")
    protocols = {score.domain: score.protocol for score in table.scores}
    assert (protocols["mapillary"].scale, protocols["mapillary"].labels_resized) == (0.5, True)
    assert (protocols["cityscapes"].max_size, protocols["cityscapes"].labels_resized) == ((512, 1024), False)
    assert {score.protocol.selection for score in table.scores} == {"last checkpoint"}
    assert {score.images for score in table.scores} == {2}


def test_scores_follow_from_the_confusion_beside_them(gkd_run: Path) -> None:
    folder = gkd_run / "artifacts" / "evaluate" / "potsdam-rgb"
    confusion = {name: torch.tensor(rows) for name, rows in json.loads((folder / "confusion.json").read_text()).items()}
    for score in ScoreTable.read(folder / "scores.json").scores:
        counts = confusion[score.dataset].double()
        union = counts.sum(0) + counts.sum(1) - counts.diagonal()
        ious = (counts.diagonal() / union)[union > 0]
        assert score.miou == pytest.approx(100 * ious.mean().item())


def test_records_describe_the_files_beside_them(gkd_run: Path, tiny_settings: Settings) -> None:
    artifacts = gkd_run / "artifacts"
    student = EncoderCheckpoint.read(artifacts / "distill-source" / "gta5" / MANIFEST)
    assert student.sha256 == sha256_of(artifacts / "distill-source" / "gta5" / student.weights)
    assert (student.updates, student.stage, student.method) == (2, "distill-source-gta5", "gkd")
    segmentor = SegmentorCheckpoint.read(artifacts / "learn-task" / "potsdam-rgb" / MANIFEST)
    assert segmentor.encoder_frozen
    assert len(segmentor.classes) == 6
    data = DataManifest.read(artifacts / "data" / MANIFEST)
    assert {f"{version.dataset}/{version.split}" for version in data.versions} == {
        domain.reference for domain in Recipe.of(tiny_settings).domains
    }
    assert next(version for version in data.versions if version.dataset == "proxy").labels is None


def test_the_encoder_passes_through_stage_two_byte_for_byte(gkd_run: Path) -> None:
    for source in ("gta5", "cityscapes", "potsdam-rgb"):
        student = safetensors.torch.load_file(gkd_run / "artifacts" / "distill-source" / source / "encoder.safetensors")
        segmentor = safetensors.torch.load_file(gkd_run / "artifacts" / "learn-task" / source / "segmentor.safetensors")
        frozen = {name.removeprefix("encoder."): tensor for name, tensor in segmentor.items() if name.startswith("encoder.")}
        assert frozen.keys() == student.keys()
        assert all(tensor.numpy().tobytes() == student[name].numpy().tobytes() for name, tensor in frozen.items())
        load_segmentor(gkd_run / "artifacts" / "learn-task" / source)


def test_each_step_of_stage_one_goes_on_from_the_one_before(gkd_run: Path, tiny_settings: Settings) -> None:
    """1b has its own updates on top of 1a's student: with no update at all it is 1a's student."""
    proxy = safetensors.torch.load_file(gkd_run / "artifacts" / "distill-proxy" / "encoder.safetensors")
    fresh = build_encoder(tiny_settings.student, seed_of("student", tiny_settings.seed)).state_dict()
    source = safetensors.torch.load_file(gkd_run / "artifacts" / "distill-source" / "gta5" / "encoder.safetensors")
    assert any(not torch.equal(tensor, fresh[name]) for name, tensor in proxy.items())
    assert any(not torch.equal(tensor, proxy[name]) for name, tensor in source.items())


def test_without_updates_1b_hands_on_the_student_of_1a(gkd_run: Path, workspace: Path, tiny_settings: Settings) -> None:
    proxy = safetensors.torch.load_file(gkd_run / "artifacts" / "distill-proxy" / "objective.safetensors")
    source = begun(gkd_run, workspace, tiny_settings, "carried")
    assert proxy.keys() == source.keys()
    assert all(torch.equal(tensor, proxy[name]) for name, tensor in source.items())


def test_fresh_heads_are_drawn_by_the_seed_beside_the_student_of_1a(
    gkd_run: Path, workspace: Path, tiny_settings: Settings
) -> None:
    """As 1a's were before its first update, and not as they were after its last."""
    proxy = safetensors.torch.load_file(gkd_run / "artifacts" / "distill-proxy" / "objective.safetensors")
    source = begun(gkd_run, workspace, tiny_settings, "fresh")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of("heads", tiny_settings.seed))
        drawn = QSDObjective(build_encoder(tiny_settings.student, 0), 24).state_dict()
    for name, tensor in source.items():
        assert torch.equal(tensor, proxy[name] if name.startswith("student.") else drawn[name]), name
    assert any(not torch.equal(proxy[name], drawn[name]) for name in drawn if not name.startswith("student."))


def begun(gkd_run: Path, workspace: Path, settings: Settings, heads: str) -> dict[str, torch.Tensor]:
    """What 1b begins with after 1a: no update is made."""
    (workspace / "artifacts" / "distill-proxy").symlink_to(gkd_run / "artifacts" / "distill-proxy")
    section = settings.distill_source.model_copy(update={"updates": 0, "heads": heads})
    still = settings.model_copy(update={"distill_source": section})
    run_stage(Recipe.of(still), Recipe.of(still).find("distill-source", "gta5"), workspace)
    return safetensors.torch.load_file(workspace / "artifacts" / "distill-source" / "gta5" / "objective.safetensors")


@pytest.mark.parametrize("heads", ["fresh", "carried"])
@pytest.mark.parametrize("resize", ["released", "preserving"])
def test_1b_resizes_the_student_of_1a_as_its_setting_says(
    gkd_run: Path, workspace: Path, tiny_settings: Settings, heads: str, resize: ResizeMethod
) -> None:
    """1a saw patches of 8 in 32 pixels, 1b sees patches of 16 in 96."""
    step = tiny_settings.distill_source.model_copy(update={"patch_size": 16, "image_size": (96, 96)})
    student = tiny_settings.student.model_copy(update={"resize": resize})
    settings = tiny_settings.model_copy(update={"distill_source": step, "student": student})
    table = begun(gkd_run, workspace, settings, heads)["student.backbone.pos_embed"]
    proxy = safetensors.torch.load_file(gkd_run / "artifacts" / "distill-proxy" / "objective.safetensors")
    expected = resize_table(proxy["student.backbone.pos_embed"], Layout(1, 4, 4), Layout(1, 6, 6), resize)
    assert torch.equal(table, expected)


def test_a_run_made_again_is_the_same(gkd_run: Path, workspace: Path, tiny_settings: Settings) -> None:
    run_stage(Recipe.of(tiny_settings), Recipe.of(tiny_settings).find("distill-proxy"), workspace)
    for name in ("encoder.safetensors", "objective.safetensors", MANIFEST):
        relative = Path("artifacts") / "distill-proxy" / name
        assert (workspace / relative).read_bytes() == (gkd_run / relative).read_bytes()


@pytest.mark.parametrize("method", ["no-kd", "single-stage-mse", "two-stage-mse", "teacher"])
def test_the_rivals_run_on_one_benchmark(workspace: Path, tiny_settings: Settings, method: MethodName) -> None:
    data = tiny_settings.data.model_copy(update={"benchmarks": ("P2R",)})
    task = tiny_settings.learn_task.model_copy(update={"end_to_end_updates": 2})
    settings = with_method(tiny_settings, method).model_copy(update={"data": data, "learn_task": task})
    for run in Recipe.of(settings).plan[1:]:
        run_stage(Recipe.of(settings), run, workspace)
    assert {(row["method"], row["domain"]) for row in matrix(workspace)} == {
        (method, domain) for benchmark, domain in DOMAINS if benchmark == "P2R"
    }
    record = SegmentorCheckpoint.read(workspace / "artifacts" / "learn-task" / "potsdam-rgb" / MANIFEST)
    assert record.encoder_frozen == (method in ("two-stage-mse", "teacher"))
    assert record.encoder == (settings.teacher if method == "teacher" else settings.student)


def test_no_kd_runs_on_all_benchmarks(workspace: Path, tiny_settings: Settings) -> None:
    settings = with_method(tiny_settings, "no-kd")
    for run in Recipe.of(settings).plan[1:]:
        run_stage(Recipe.of(settings), run, workspace)
    assert {(row["benchmark"], row["domain"]) for row in matrix(workspace)} == DOMAINS
    record = SegmentorCheckpoint.read(workspace / "artifacts" / "learn-task" / "gta5" / MANIFEST)
    assert record.updates * 2 == 3 * 4 + 2 * 4 + 2 * 2, "as many images as in all stages"


def test_the_published_decoder_trains_and_the_frozen_encoder_may_be_thawed(
    gkd_run: Path, workspace: Path, tiny_settings: Settings
) -> None:
    """The ablation goes on from stage one's student; what was done stands in the manifest, how it was scored beside it."""
    (workspace / "artifacts" / "distill-source").symlink_to(gkd_run / "artifacts" / "distill-source")
    data = tiny_settings.data.model_copy(update={"benchmarks": ("P2R",)})
    few = {"queries": 4, "decoder_layers": 1, "pixel_layers": 1, "heads": 2, "feedforward": 32, "points": 32}
    task = {"decoder": "mask2former", "decoder_width": 64, "mask2former": few, "freeze_encoder": False, "encoder_lr": 1e-9}
    tree = tiny_settings.model_dump() | {"data": data.model_dump()}
    tree["learn_task"] |= task
    tree["evaluate"] |= {"scales": (1.0, 1.5), "flip": True}
    settings = settings_from_tree(tree)
    for stage in ("learn-task", "evaluate"):
        run_stage(Recipe.of(settings), Recipe.of(settings).find(stage, "potsdam-rgb"), workspace)
    folder = workspace / "artifacts" / "learn-task" / "potsdam-rgb"
    record = SegmentorCheckpoint.read(folder / MANIFEST)
    assert (record.decoder, record.mask2former.queries, record.encoder_frozen) == ("mask2former", 4, False)
    assert record.updates == tiny_settings.learn_task.updates, "a method with a stage one has its budget there"
    student = safetensors.torch.load_file(gkd_run / "artifacts" / "distill-source" / "potsdam-rgb" / "encoder.safetensors")
    trained = load_segmentor(folder).encoder.state_dict()
    moved = [name for name, tensor in trained.items() if not torch.equal(tensor, student[name])]
    assert moved, "the encoder was trained"
    assert all(torch.allclose(tensor, student[name], atol=1e-6) for name, tensor in trained.items()), "from stage one's student"
    protocols = [score.protocol for score in ScoreTable.read(workspace / "artifacts/evaluate/potsdam-rgb/scores.json").scores]
    assert {(protocol.scales, protocol.flip, protocol.averaged) for protocol in protocols} == {((1.0, 1.5), True, "logits")}


OPENED = """
import json, os, sys
opened = {}
def watch(event, args):
    if event == "open" and isinstance(args[0], (str, os.PathLike)):
        opened[stage].append(os.fspath(args[0]))
stage = "import"
opened["import"] = []
sys.addaudithook(watch)
from pathlib import Path
from gkd_core.settings import load_settings
from gkd_core.stages import Recipe, run_stage
settings = load_settings(Path("params.yaml"))
for run in Recipe.of(settings).plan:
    stage = run.name
    opened[stage] = []
    if run.name in sys.argv[1:]:
        run_stage(Recipe.of(settings), run, Path.cwd())
result = json.dumps(opened)
Path("opened.json").write_text(result)
"""


def files_opened(settings: Settings, workspace: Path, *stages: str) -> dict[str, set[Path]]:
    """Every file of the data that a process opens while it runs these stages, by stage."""
    (workspace / "params.yaml").write_text(dump_settings(settings))
    subprocess.run([sys.executable, "-c", OPENED, *stages], cwd=workspace, check=True, timeout=120, capture_output=True)
    data = (workspace / "artifacts" / "data").resolve()
    found = {}
    for stage, names in json.loads((workspace / "opened.json").read_text()).items():
        paths = {(workspace / name).resolve() for name in names}
        found[stage] = {path for path in paths if data in path.parents and not path.is_dir()}
    return found


def label_files(settings: Settings, workspace: Path) -> set[Path]:
    root, folders = workspace / "artifacts" / "data", []
    for domain in Recipe.of(settings).domains:
        folders += [path for path in domain.entry.label_inputs(root, domain.split) if path.is_dir()]
    return {file.resolve() for folder in folders for file in folder.rglob("*") if file.is_file()}


def test_stage_one_opens_images_and_no_label(workspace: Path, gkd_run: Path, tiny_settings: Settings) -> None:
    """Labels lie beside the images, but the processes of stage one never open one; stage two does, so the watch is awake."""
    labels = label_files(tiny_settings, workspace)
    assert len(labels) > 30
    stage_one = ["distill-proxy", *(f"distill-source-{source}" for source in ("gta5", "cityscapes", "potsdam-rgb"))]
    opened = files_opened(tiny_settings, workspace, *stage_one, "learn-task-gta5")
    for stage in stage_one:
        images = {path for path in opened[stage] if path.suffix in (".png", ".jpg")}
        assert len(images) == 6, "all training images of the domain"
        assert {path.suffix for path in opened[stage] - images} <= {".txt"}, "beside them, lists of images at most"
        assert not opened[stage] & labels
    assert len(opened["learn-task-gta5"] & labels) > 0, "the watch sees labels where they are read"


def test_a_stopped_stage_leaves_nothing_under_its_name_and_goes_on(
    gkd_run: Path, workspace: Path, tiny_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Recipe.of(tiny_settings).find("distill-proxy")
    folder = run_folder(tiny_settings, run, workspace)
    with monkeypatch.context() as patch:
        patch.setattr("gkd_core.stages.distill.write_student", lambda state, path: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_stage(Recipe.of(tiny_settings), run, workspace)
    assert sorted(path.name for path in (workspace / "artifacts").iterdir()) == ["data", "runs"]
    written = (folder / "training.pt").stat().st_mtime_ns
    run_stage(Recipe.of(tiny_settings), run, workspace)
    assert (folder / "training.pt").stat().st_mtime_ns == written, "nothing was trained again"
    assert sha256_of(workspace / run.output / "encoder.safetensors") == sha256_of(gkd_run / run.output / "encoder.safetensors")


def test_a_stage_without_its_input_says_which_to_run(tmp_path: Path, tiny_settings: Settings) -> None:
    with pytest.raises(DataError, match="no such folder"):
        run_stage(Recipe.of(tiny_settings), Recipe.of(tiny_settings).find("distill-proxy"), tmp_path)
    with pytest.raises(GkdError, match=r"manifest\.json: no such file; run the stage that writes it first"):
        run_stage(Recipe.of(tiny_settings), Recipe.of(tiny_settings).find("evaluate", "gta5"), tmp_path)
    with pytest.raises(GkdError, match=r"scores\.json: no such file"):
        run_stage(Recipe.of(tiny_settings), Recipe.of(tiny_settings).find("report"), tmp_path)


def test_a_domain_without_counted_pixels_is_an_error(gkd_run: Path, tiny_settings: Settings) -> None:
    from gkd_core.evaluate.places import Place
    from gkd_core.stages.evaluate import score

    run = Recipe.of(tiny_settings).find("evaluate", "gta5")
    record = SegmentorCheckpoint.read(gkd_run / "artifacts" / "learn-task" / "gta5" / MANIFEST)
    context = Context(Recipe.of(tiny_settings), run, gkd_run)
    with pytest.raises(DataError, match="cityscapes/val: every pixel of its labels is ignored"):
        place = Place("G2C", "cityscapes", "cityscapes/val", in_domain=False)
        score(context, place, torch.zeros(19, 19, dtype=torch.int64), record, "teacher")


def test_without_stage_1a_the_source_starts_from_the_students_own_weights(tiny_tree: dict[str, Any], workspace: Path) -> None:
    """The paper's F2F. No update is made, so that what is written is what 1b starts from."""
    none = {key: tiny_tree[key] | {"updates": 0} for key in ("distill_proxy", "distill_source")}
    settings = settings_from_tree(tiny_tree | none | {"student": tiny_tree["student"] | {"weights": "own.safetensors"}})
    own = build_encoder(settings.student.model_copy(update={"weights": "random"}), seed=99)
    safetensors.torch.save_file(own.state_dict(), workspace / "own.safetensors")
    run_stage(Recipe.of(settings), Recipe.of(settings).find("distill-source", "gta5"), workspace)
    written = safetensors.torch.load_file(workspace / "artifacts" / "distill-source" / "gta5" / "encoder.safetensors")
    assert written.keys() == own.state_dict().keys()
    assert all(torch.equal(written[name], value) for name, value in own.state_dict().items())


def test_epochs_are_counted_on_the_images_that_are_there(tiny_tree: dict[str, Any], workspace: Path) -> None:
    """Six images, four passes, four a batch: six updates."""
    epochs = {"distill_proxy": tiny_tree["distill_proxy"] | {"updates": None, "epochs": 4}}
    settings = settings_from_tree(tiny_tree | epochs)
    run_stage(Recipe.of(settings), Recipe.of(settings).find("distill-proxy"), workspace)
    assert EncoderCheckpoint.read(workspace / "artifacts" / "distill-proxy" / MANIFEST).updates == 6


def test_every_stage_notes_its_cost_beside_its_outputs(gkd_run: Path, tiny_settings: Settings) -> None:
    for run in Recipe.of(tiny_settings).plan:
        cost = read_cost(run_folder(tiny_settings, run, gkd_run))
        assert cost is not None, run.name
        assert (cost.attempts, cost.seconds > 0, cost.gpus) == (1, True, 0)
        assert (cost.images_per_second is not None) == (run.stage in ("distill-proxy", "distill-source", "learn-task")), run.name
        assert not list((gkd_run / run.output).rglob("*cost*"))


def test_the_students_size_is_that_of_the_model(gkd_run: Path, tiny_settings: Settings) -> None:
    run = Recipe.of(tiny_settings).find("evaluate", "gta5")
    size = StudentSize.read(run_folder(tiny_settings, run, gkd_run) / SIZE)
    folder = gkd_run / run.inputs[0]
    model = load_segmentor(folder)
    assert size.parameters == sum(parameter.numel() for parameter in model.parameters())
    # Without numbers: a CPU's fused attention is an operator that the counter does not know.
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.to("meta")(torch.zeros(1, 3, *tiny_settings.evaluate.window, device="meta"))
    assert size.flops == counter.get_total_flops() > 0
    assert size.weights_bytes == (folder / "segmentor.safetensors").stat().st_size
    assert size.window == tiny_settings.evaluate.window


def test_the_students_size_has_the_teachers_beside_it(gkd_run: Path, tiny_settings: Settings) -> None:
    """The teacher's encoder under a decoder of the same kind, counted as a real network."""
    size = StudentSize.read(run_folder(tiny_settings, Recipe.of(tiny_settings).find("evaluate", "gta5"), gkd_run) / SIZE)
    record = SegmentorCheckpoint.read(gkd_run / "artifacts/learn-task/gta5" / MANIFEST)
    teacher = recorded_segmentor(record.model_copy(update={"encoder": tiny_settings.teacher})).to("meta")
    assert size.teacher_parameters == sum(parameter.numel() for parameter in teacher.parameters()) > size.parameters
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        teacher(torch.zeros(1, 3, *tiny_settings.evaluate.window, device="meta"))
    assert size.teacher_flops == counter.get_total_flops() > size.flops


def contents(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in folder.rglob("*") if path.is_file()}


def test_every_source_has_a_bundle_that_opens_and_tells_its_scores(gkd_run: Path, tiny_settings: Settings) -> None:
    for source in ("gta5", "cityscapes", "potsdam-rgb"):
        bundle, network = open_bundle(gkd_run / "artifacts/bundle" / source)
        learnt = load_segmentor(gkd_run / "artifacts/learn-task" / source)
        images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            assert torch.equal(network(images), learnt(images))
        assert bundle.model.source == source
        assert bundle.scores == ScoreTable.read(gkd_run / "artifacts/evaluate" / source / "scores.json").scores
        assert bundle.size is not None and bundle.size.teacher_parameters is not None
        assert bundle.latency is None, "a time is no result"
    card = (gkd_run / "artifacts/bundle/gta5/MODEL_CARD.md").read_text()
    assert "ratio, second to first" in card and "Nobody has measured its latency" in card


def test_a_bundle_made_again_has_the_same_bytes_and_changes_nothing_else(gkd_run: Path, tiny_settings: Settings) -> None:
    outputs = [run.output for run in Recipe.of(tiny_settings).plan]
    before = {output: contents(gkd_run / output) for output in outputs}
    run_stage(Recipe.of(tiny_settings), Recipe.of(tiny_settings).find("bundle", "gta5"), gkd_run)
    assert {output: contents(gkd_run / output) for output in outputs} == before


def test_a_bundle_has_the_bytes_of_the_command(
    gkd_run: Path, tiny_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "params.yaml").write_text(dump_settings(tiny_settings))
    (tmp_path / "artifacts").symlink_to(gkd_run / "artifacts")
    monkeypatch.chdir(tmp_path)
    command = ["bundle", "artifacts/learn-task/gta5", "-o", "student.gkd", "--scores", "artifacts/evaluate/gta5"]
    assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    assert contents(tmp_path / "student.gkd") == contents(gkd_run / "artifacts/bundle/gta5")


def test_scores_say_whether_the_encoder_was_frozen(gkd_run: Path) -> None:
    table = ScoreTable.read(gkd_run / "artifacts" / "report" / "matrix.json")
    assert {score.encoder_frozen for score in table.scores} == {True}

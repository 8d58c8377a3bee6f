"""A dataset pinned in one clone, pushed to an S3 endpoint on loopback and fetched in another clone, trains to the same bits."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow.entities import Run

from gkd_core.data.world.writer import write_world
from gkd_core.records import sha256_of
from gkd_core.settings import Settings, load_settings, settings_from_tree
from gkd_core.stages import Recipe, run_stage
from gkd_core.tracking.flow_runs import Tracking
from gkd_core.versioning.pins import read_pin
from tests.s3_store import s3_bucket

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
REPOSITORY = Path(__file__).parents[2]
DATASETS = ("potsdam", "proxy", "vaihingen")  # the folders that the benchmark P2R reads
CONFIG = """\
[core]
    no_scm = true
    remote = store
['remote "store"']
    url = s3://store/gkd
    verify = true
[cache]
    type = "reflink,hardlink,copy"
"""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[dict[str, str]]:
    """The environment in which every AWS client speaks to a server on loopback that has the bucket `store`."""
    with s3_bucket("store", "secret") as environment:
        yield environment


def command(folder: Path, *words: str, status: int | None = 0, **environment: str) -> str:
    """Run `gkd`, `dvc` or `git` in a folder; returns what it said."""
    programs = {"gkd": [sys.executable, "-c", "from gkd_core.cli import main; main()"]}
    programs |= {name: [str(Path(sys.executable).with_name(name))] for name in ("dvc",)}
    line = [*programs.get(words[0], [words[0]]), *words[1:]]
    paths = {"PATH": f"{folder.parent / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)}
    quiet = {"DVC_NO_ANALYTICS": "1", "DO_NOT_TRACK": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}
    done = subprocess.run(
        line,
        cwd=folder,
        env={**os.environ, **paths, **quiet, **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    said = done.stdout + done.stderr
    assert status is None or done.returncode == status, f"{' '.join(words)}: {done.returncode}\n{said}"
    return said


def commit(folder: Path, *files: str) -> None:
    command(folder, "git", "add", *files)
    command(folder, "git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "--message=pins")


@pytest.fixture(scope="module")
def settings(tiny_tree: Mapping[str, Any]) -> Settings:
    student = tiny_tree["student"] | {"weights": "random"}
    data = {"world": None, "root": "data", "benchmarks": ["P2R"]}
    return settings_from_tree(
        {**tiny_tree, "teacher": tiny_tree["teacher"] | {"weights": "random"}, "student": student, "data": data}
    )


@pytest.fixture(scope="module")
def original(
    tmp_path_factory: pytest.TempPathFactory, tiny_tree: Mapping[str, Any], settings: Settings, endpoint: Mapping[str, str]
) -> Path:
    """A project whose datasets are pinned, committed and pushed."""
    folder = tmp_path_factory.mktemp("pins") / "original"
    (folder / ".dvc").mkdir(parents=True)
    # As installed: stages are run as `gkd`, whichever checkout these tests are of.
    script = folder.parent / "bin" / "gkd"
    script.parent.mkdir()
    script.write_text(f"#!{sys.executable}\nfrom gkd_core.cli import main\nmain()\n")
    script.chmod(0o755)
    world = settings_from_tree({**tiny_tree, "data": tiny_tree["data"]}).data.world
    assert world is not None
    write_world(world, folder / "world")
    (folder / "data").mkdir()
    for name in DATASETS:
        (folder / "world" / name).rename(folder / "data" / name)
    shutil.rmtree(folder / "world")
    (folder / ".dvc" / "config").write_text(CONFIG)
    for name in (".gitignore", ".dvcignore", ".dvc/.gitignore"):
        shutil.copy(REPOSITORY / name, folder / name)
    (folder / "params.yaml").write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    command(folder, "gkd", "recipe", "--write")
    command(folder, "git", "init", "--quiet")
    said = command(folder, "gkd", "data", "pin")
    assert [f"data/{name}: pinned as {read_pin(folder, f'data/{name}').md5}" in said for name in DATASETS] == [True] * 3
    commit(folder, ".")
    command(folder, "dvc", "push")
    return folder


@pytest.fixture(scope="module")
def clone(original: Path) -> Path:
    """Another clone of the project, with a cache of its own and no data."""
    folder = original.parent / "clone"
    command(original.parent, "git", "clone", "--quiet", str(original), str(folder))
    assert sorted(path.name for path in (folder / "data").iterdir()) == [f"{name}.dvc" for name in DATASETS]
    return folder


@pytest.fixture(scope="module")
def reproduced(clone: Path) -> Path:
    """The clone after the two commands of the documentation."""
    said = command(clone, "gkd", "data", "fetch")
    assert said.count(": fetched, ") == 3
    command(clone, "dvc", "repro")
    return clone


def outputs(folder: Path) -> dict[str, str]:
    """Digests of all that the stages wrote."""
    stages = ("data", "distill-proxy", "distill-source", "learn-task", "evaluate", "bundle", "report")
    places = [folder / "artifacts" / name for name in stages]
    files = [file for place in places for file in place.rglob("*") if file.is_file() and file.suffix != ".png"]
    return {file.relative_to(folder).as_posix(): sha256_of(file) for file in files}


def test_git_has_the_pins_and_no_data(original: Path) -> None:
    tracked = command(original, "git", "ls-files", "data").split()
    assert tracked == [f"data/{name}.dvc" for name in DATASETS]
    assert command(original, "git", "status", "--porcelain") == ""


def test_another_clone_trains_to_the_same_bits(original: Path, reproduced: Path, tmp_path: Path) -> None:
    """The reference is made from a plain copy of the original folder, which DVC never touched, in one process."""
    shutil.copytree(original / "data", tmp_path / "data", ignore=shutil.ignore_patterns("*.dvc"))
    settings = load_settings(original / "params.yaml")
    for run in Recipe.of(settings).plan:
        run_stage(Recipe.of(settings), run, tmp_path)
    reference = outputs(tmp_path)
    assert sum(name.endswith(".safetensors") for name in reference) >= 5
    assert outputs(reproduced) == reference


def test_dvc_lock_has_the_digests_of_the_pins(reproduced: Path) -> None:
    lock = yaml.safe_load((reproduced / "dvc.lock").read_text())
    found = {item["path"]: item["md5"] for item in lock["stages"]["prepare-data"]["deps"]}
    assert found == {f"data/{name}": read_pin(reproduced, f"data/{name}").md5 for name in DATASETS}
    assert command(reproduced, "git", "status", "--porcelain") == "", "dvc repro has left the pins as they were committed"


def flow(folder: Path, *overrides: str, status: int = 0) -> str:
    words = [word for override in overrides for word in ("--set", override)]
    return command(folder, sys.executable, "-m", "flows.local", "full-pipeline", *words, status=status, COLUMNS="300")


def inputs_of(run: Run) -> dict[str, tuple[str, str, str]]:
    """Datasets of a run by name: digest, part and whether it is pinned."""
    found = {}
    for item in run.inputs.dataset_inputs:
        tags = {tag.key: tag.value for tag in item.tags}
        found[item.dataset.name] = (item.dataset.digest, tags["mlflow.data.context"], tags["pinned"])
    return found


def test_the_flow_fetches_first_and_mlflow_has_the_versions(reproduced: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `dvc repro` computed in the project is restored in the flow's workspace: it starts from the same inputs."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.rmtree(reproduced / "data" / "potsdam")
    said = flow(reproduced, "evaluate.flip=true")
    assert "data/potsdam: absent, fetching what data/potsdam.dvc pins" in said
    assert re.search(r"prepare-data: restored", said) and re.search(r"learn-task-potsdam-rgb: restored", said), said
    tracking = Tracking(Settings(), reproduced)
    runs = list(tracking.client.search_runs([tracking.experiment], order_by=["attributes.start_time ASC"]))
    parent = next(run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    evaluate = next(run for run in runs if run.data.tags.get("stage") == "evaluate-potsdam-rgb")
    md5 = {name: read_pin(reproduced, f"data/{name}").md5.removesuffix(".dir") for name in DATASETS}
    measured = {
        "potsdam-rgb/val": (md5["potsdam"], "validation", "true"),
        "potsdam-irrg/val": (md5["potsdam"], "target", "true"),
        "vaihingen-irrg/val": (md5["vaihingen"], "target", "true"),
    }
    assert inputs_of(evaluate) == measured
    trained = {"proxy/all": (md5["proxy"], "proxy", "true"), "potsdam-rgb/train": (md5["potsdam"], "source", "true")}
    assert inputs_of(parent) == measured | trained
    revision = command(reproduced, "git", "rev-parse", "HEAD").strip()
    for run in (parent, evaluate):
        assert run.data.tags["data.data/potsdam"] == f"{md5['potsdam']} (git {revision[:10]})"
    profile = json.loads(parent.inputs.dataset_inputs[0].dataset.profile)
    assert profile["revision"] == revision and profile["files"] > 0


def test_the_flow_refuses_a_dirty_dataset_by_name(reproduced: Path) -> None:
    image = next((reproduced / "data" / "proxy" / "images").iterdir())
    content = image.read_bytes()
    image.unlink()
    image.write_bytes(content + b"changed")
    said = flow(reproduced, status=2)
    assert f"data/proxy: differs from its pin data/proxy.dvc: 1 changed (such as images/{image.name})" in said
    assert "running" not in said, "no stage was begun"
    command(reproduced, "dvc", "checkout", "--force", "data/proxy.dvc")
    assert "data/proxy: as pinned" in command(reproduced, "gkd", "data", "fetch")


def test_prepared_shards_are_pinned_and_fetched_a_dataset_at_a_time(original: Path, clone: Path) -> None:
    on_shards = ("--set", "data.root=null", "--set", "data.shards=data/shards")
    command(original, "gkd", "data", "prepare", "--output", "data/shards")
    command(original, "gkd", "data", "pin", *on_shards)
    pins = sorted(path.relative_to(original).as_posix() for path in (original / "data/shards").glob("*.dvc"))
    assert pins == [f"data/shards/{name}.dvc" for name in ("potsdam-irrg", "potsdam-rgb", "proxy", "vaihingen-irrg")]
    commit(original, *pins)
    assert command(original, "git", "status", "--porcelain") == ""
    command(original, "dvc", "push", *pins)
    command(clone, "git", "pull", "--quiet")
    said = command(clone, "gkd", "data", "fetch", "potsdam-rgb", *on_shards)
    assert "data/shards/potsdam-rgb: fetched" in said
    assert [path.name for path in (clone / "data/shards").iterdir() if path.is_dir()] == ["potsdam-rgb"]
    files = sorted(path.relative_to(original) for path in (original / "data/shards/potsdam-rgb").rglob("*.*"))
    assert any(path.suffix == ".tar" for path in files)
    assert all((clone / path).read_bytes() == (original / path).read_bytes() for path in files)
